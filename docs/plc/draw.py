"""Write what docs/plc/ takes from the code: register map, tables of numbers, timing chart.

    python docs/plc/draw.py draw     writes the files
    python docs/plc/draw.py check    fails when one of them is stale

The chart is no drawing of an idea: a handshake runs, and its signals are written down.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inspector.bridges import codes
from inspector.bridges.fields import PlcFields, Settings, Trigger
from inspector.bridges.handshake import Handshake
from inspector.bridges.registers import STATUS_BITS, as_csv, as_markdown
from inspector.wire.messages import StatusMessage, VerdictMessage

HERE = Path(__file__).parent
CAMERAS = ("top",)
LINE, LEFT, WIDTH, HIGH = 44, 150, 1000, 20


def register_map() -> str:
    """The register map of a bridge with one camera."""
    return (
        "# Register map of the Modbus bridge\n\n"
        "This page is written by `docs/plc/draw.py`. `inspector bridge modbus FILE.yaml --map` "
        "prints the map of your own bridge, and `--map --csv` the same for an engineering tool. "
        "Addresses count from 0, as they stand in a request; a tool that counts holding registers "
        "from 40001 adds 40001.\n\n"
        "Function codes 3 and 4 read the same registers. Codes 1 and 2 read their bits: bit n of "
        "register r is number r x 16 + n. Codes 6, 16 and 23 write, and only where a table says "
        "that the PLC writes. The block of the second camera begins 200 registers after that of "
        "the first, and so on.\n\n" + as_markdown(CAMERAS)
    )


def states_and_errors() -> str:
    """The numbers of states, verdicts, reasons, commands and errors."""
    lines = [
        "# States, reasons and errors as numbers",
        "",
        "This page is written by `docs/plc/draw.py`. None of these numbers ever changes what it "
        "means.",
        "",
        "## State",
        "",
        "The station's own state ([wire.md](../wire.md#status)).",
        "",
        "| number | state |",
        "| --- | --- |",
    ]
    lines += [
        f"| {number} | {state or 'the bridge has no station'} |"
        for state, number in codes.STATE_CODES.items()
    ]
    lines += ["", "## Verdict", "", "| number | verdict |", "| --- | --- |", "| 0 | none |"]
    lines += [f"| {number} | {verdict} |" for verdict, number in codes.VERDICT_CODES.items()]
    lines += [
        "",
        "## Reason",
        "",
        "Below 100: the station's, as [wire.md](../wire.md#verdict) explains them.",
        "",
        "| number | reason | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {number} | {f'`{reason}`' if reason else ''} "
        f"| {codes.REASON_MEANINGS.get(reason, '' if reason else 'a pass, or none')} |"
        for reason, number in codes.REASON_CODES.items()
    ]
    lines += ["", "## Command", "", "| number | command |", "| --- | --- |"]
    lines += [f"| {one.value} | {one.name.lower()} |" for one in codes.Command]
    lines += ["", "## Status word", "", "| bit | name | meaning |", "| --- | --- | --- |"]
    lines += [f"| {n} | {name} | {meaning} |" for n, (name, meaning) in enumerate(STATUS_BITS)]
    lines += [
        "",
        "## ErrorCode",
        "",
        "The first error stays until ErrorAck changes to its number; Errors counts all of them.",
        "",
        "| number | meaning | cure |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {one.value} | {meaning} | {cure} |"
        for one, (meaning, cure) in codes.ERROR_MEANINGS.items()
    ]
    return "\n".join(lines) + "\n"


@dataclass
class Trace:
    """A handshake that runs, and what its signals were."""

    block: Handshake = field(
        default_factory=lambda: Handshake(Settings("top", plc_heartbeat_s=0.0), "chart", 41)
    )
    plc: PlcFields = field(
        default_factory=lambda: PlcFields(session=0, command=0, trigger_seq=0, result_ack=0)
    )
    now_ms: int = 0
    moments: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    triggers: list[Trigger] = field(default_factory=list)

    def at(self, now_ms: int, **written: Any) -> None:
        """The PLC writes at this moment."""
        self.now_ms = now_ms
        self.plc = replace(self.plc, **written)
        actions = self.block.scan(self.plc, 100.0 + now_ms / 1000)
        self.triggers += [action for action in actions if isinstance(action, Trigger)]
        self.note()

    def note(self) -> None:
        """Write the signals down."""
        out = self.block.outputs()
        result = out.result
        signals = {
            "Session": self.plc.session,
            "SessionEcho": out.session_echo,
            "TriggerSeq": self.plc.trigger_seq,
            "Ready": out.ready,
            "AcquiredSeq": out.acquired_seq,
            "ResultValid": out.result_valid,
            "ResultSeq": result.seq if result else 0,
            "Verdict": f"{result.verdict} {result.trigger_seq}" if result else 0,
            "ResultAck": self.plc.result_ack,
        }
        self.moments.append((self.now_ms, signals))

    def judged(self, now_ms: int, number: int, verdict: str) -> None:
        """The station's verdict on a trigger comes."""
        self.at(now_ms)
        ticket = self.triggers[number].ticket
        message = VerdictMessage.model_validate(
            {
                "station": "line-1",
                "camera": "top",
                "epoch": "chart",
                "seq": number + 1,
                "part_id": "",
                "trigger_seq": ticket.number,
                "session": ticket.session,
                "verdict": verdict,
                "score": 0.4,
                "reason": "" if verdict == "PASS" else "anomaly",
                "detail": "",
                "limit_factor": 1.0,
                "regions": (),
                "model": None,
                "recipe": "",
                "triggered_us": None,
                "grabbed_us": 1,
                "judged_us": time.time_ns() // 1000,
                "queue_ms": 0.1,
                "judge_ms": 3.0,
            }
        )
        self.block.verdict(ticket, message)
        self.note()

    def acquired(self, now_ms: int, number: int) -> None:
        """The picture of a trigger is taken."""
        self.at(now_ms)
        self.block.acquired(self.triggers[number].ticket)
        self.note()


def scenario() -> Trace:
    """A session is opened, two parts follow each other, and the second result waits."""
    trace = Trace()
    trace.block.status(
        StatusMessage.model_validate(
            {
                "station": "line-1",
                "epoch": "chart",
                "state": "SingleExecution",
                "last_seq": 0,
                "passed": 0,
                "failed": 0,
                "faults": 0,
                "recipe": "",
                "provider": "",
                "inference": "",
                "cameras": [{"name": "top", "state": "running", "detail": "", "frames": 0}],
                "sent_us": 1,
            }
        )
    )
    trace.at(0)
    trace.at(6, session=7)
    trace.at(14, trigger_seq=1)
    trace.acquired(20, 0)
    trace.at(26, trigger_seq=2)
    trace.judged(30, 0, "PASS")
    trace.acquired(33, 1)
    trace.judged(42, 1, "FAIL")
    trace.at(48, result_ack=41)
    trace.at(58, result_ack=42)
    trace.at(64)
    return trace


def chart() -> str:
    """The timing chart as SVG."""
    moments = scenario().moments
    names = list(moments[0][1])
    scale = (WIDTH - LEFT - 20) / moments[-1][0]
    height = LINE * len(names) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for row, name in enumerate(names):
        low = 30 + LINE * row + HIGH
        writer = "#1f5fa8" if name in {"Session", "TriggerSeq", "ResultAck"} else "#333333"
        parts.append(f'<text x="10" y="{low - 4}" fill="{writer}">{name}</text>')
        parts += _signal([(at, values[name]) for at, values in moments], low, scale, writer)
    parts.append(
        f'<text x="{LEFT}" y="{height - 12}" fill="#666666">blue: the PLC writes; black: the '
        "bridge writes. Time runs to the right. The second part is triggered before the first has "
        "its result.</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _signal(values: list[tuple[int, Any]], low: int, scale: float, colour: str) -> list[str]:
    """One row: a level for what is true or false, a lane with numbers for the rest."""
    found, changes = [], [values[0]]
    for at, value in values[1:]:
        if value != changes[-1][1]:
            changes.append((at, value))
    ends = [at for at, _ in changes[1:]] + [values[-1][0]]
    path = ""
    for (at, value), end in zip(changes, ends, strict=True):
        left, right = LEFT + at * scale, LEFT + end * scale
        if isinstance(value, bool):
            y = low - HIGH if value else low
            path += f"{'L' if path else 'M'}{left:.1f} {y} L{right:.1f} {y} "
            continue
        fill = "#eef3fa" if value else "white"
        found.append(
            f'<rect x="{left:.1f}" y="{low - HIGH}" width="{right - left:.1f}" height="{HIGH}" '
            f'fill="{fill}" stroke="{colour}"/>'
        )
        if value:
            found.append(f'<text x="{left + 5:.1f}" y="{low - 5}" fill="{colour}">{value}</text>')
    if path:
        found.append(f'<path d="{path.strip()}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return found


FILES = {
    "register-map.md": register_map,
    "register-map.csv": lambda: as_csv(CAMERAS),
    "states-and-errors.md": states_and_errors,
    "timing.svg": chart,
}


def stale() -> list[str]:
    """Names of the files that are not as the code has it."""
    return [
        name
        for name, make in FILES.items()
        if not (HERE / name).is_file() or (HERE / name).read_text(encoding="utf-8") != make()
    ]


def main(argv: list[str]) -> int:
    """Write the files, or say which are stale."""
    if argv == ["draw"]:
        for name, make in FILES.items():
            (HERE / name).write_text(make(), encoding="utf-8")
        return 0
    if argv == ["check"]:
        found = stale()
        for name in found:
            print(f"docs/plc/{name} is stale; run 'python docs/plc/draw.py draw'")
        return bool(found)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
