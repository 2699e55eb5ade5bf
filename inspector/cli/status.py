"""``status``: how a station stands, and an exit code that monitoring understands."""

from __future__ import annotations

import argparse
import enum
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rich.console import Console
from rich.text import Text

from inspector.cli.arguments import add_address, add_keys, add_timeout, client_keys
from inspector.client.commander import Commander
from inspector.config.addresses import COMMANDS
from inspector.errors import CommandError, InspectorError
from inspector.shown import plain
from inspector.tables import Terminal, show, table
from inspector.wire.messages import AlarmKind, CameraStatus, State, StatusMessage

_PATIENCE_S: Final = 3.0
_STALE_S: Final = 5.0
"""From this age on a status is asked for again, to see whether it still changes."""
_LONGEST_STEP_S: Final = 900.0
"""The same while a station starts: its status changes with each bundle, and the first one that
TensorRT builds an engine for may take a quarter of an hour."""
_SECOND_LOOK_S: Final = 1.5
"""Time until then: a station makes a new status every second."""


class Level(enum.IntEnum):
    """Exit codes of a Nagios or Icinga plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    level: Level
    text: str


_STATES: Final[dict[State, Level]] = {
    "Preoperational": Level.WARNING,
    "Initialized": Level.WARNING,
    "Ready": Level.OK,
    "SingleExecution": Level.OK,
    "ContinuousExecution": Level.OK,
    "Halted": Level.CRITICAL,
    "Error": Level.CRITICAL,
}
_CAMERAS: Final[dict[Literal["opening", "running", "ended", "lost"], Level]] = {
    "opening": Level.WARNING,
    "running": Level.OK,
    "ended": Level.WARNING,
    "lost": Level.CRITICAL,
}
_STYLES: Final = {
    Level.OK: "green",
    Level.WARNING: "yellow",
    Level.CRITICAL: "bold red",
    Level.UNKNOWN: "bold",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``status``."""
    add_address(parser, COMMANDS, "command socket of the station")
    add_timeout(parser, _PATIENCE_S)
    parser.add_argument(
        "--provider",
        default="",
        metavar="NAME",
        help="critical unless inference runs on it, such as CUDAExecutionProvider",
    )
    add_keys(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for monitoring and a table for people; the exit code is a :class:`Level`.

    A station that does not answer is CRITICAL; one that cannot be asked, because of a wrong address
    or key file, is UNKNOWN.
    """
    console = Terminal(highlight=False)
    try:
        keys = client_keys(arguments)
        with Commander(arguments.address, timeout_s=arguments.timeout, keys=keys) as station:
            status = station.status()
            hangs = _hangs(status, station)
    except InspectorError as error:
        gone = isinstance(error, CommandError)
        return _summarise(console, Level.CRITICAL if gone else Level.UNKNOWN, str(error))
    findings = assess(status, arguments.provider)
    if hangs:
        hang = Finding(Level.CRITICAL, f"its status has not changed for {_SECOND_LOOK_S} s")
        findings = [hang, *findings]
    level = max((finding.level for finding in findings), default=Level.OK)
    wrong = "; ".join(finding.text for finding in findings)
    _summarise(
        console,
        level,
        f"{status.station} {status.state}, {wrong or _counts(status)}",
        f"passed={status.passed}c failed={status.failed}c faults={status.faults}c "
        f"over_triggers={status.over_triggers}c overruns={status.overruns}c",
    )
    _show(status, findings)
    return level


def assess(status: StatusMessage, provider: str = "") -> list[Finding]:
    """What is not as it should be, the worst first.

    ``provider`` is the execution provider that must be in use; "" for any.
    """
    starts = "; it starts" if status.state == "Preoperational" else ""
    findings = [Finding(_STATES[status.state], f"state {status.state}{starts}")]
    findings += [
        Finding(_CAMERAS[camera.state], f"camera {camera.name} {described(camera)}")
        for camera in status.cameras
    ]
    if status.trouble:
        findings.insert(0, Finding(Level.CRITICAL, status.trouble))
    if status.stopped:
        findings.insert(0, Finding(Level.WARNING, status.stopped))
    if status.storage:
        seen = _seen(status, "storage")
        findings.append(Finding(Level.WARNING, f"{status.storage}{seen}"))
    if status.damaged:
        rows = f"{status.damaged} damaged rows of the journal were set aside"
        findings.append(Finding(Level.WARNING, rows))
    if status.drift:
        seen = _seen(status, "drift")
        findings.append(Finding(Level.WARNING, f"drift: {status.drift}{seen}"))
    if status.alarm:
        seen = _seen(status, "fail", "fault")
        findings.append(Finding(Level.WARNING, f"alarm: {status.alarm}{seen}"))
    if status.inference:
        findings.append(Finding(Level.CRITICAL, f"inference: {status.inference}"))
    if provider and status.provider != provider:
        found = status.provider or "no provider yet"
        findings.append(Finding(Level.CRITICAL, f"runs on {found}, not on {provider}"))
    wrong = [finding for finding in findings if finding.level > Level.OK]
    return sorted(wrong, key=lambda finding: -finding.level)


def _seen(status: StatusMessage, *kinds: AlarmKind) -> str:
    """Who acknowledged the alarms of these kinds, in words; "" when nobody did."""
    words = []
    for alarm in status.alarms:
        if alarm.kind in kinds and alarm.acknowledged_us is not None:
            at = datetime.fromtimestamp(alarm.acknowledged_us / 1e6).astimezone()
            by = f" by {alarm.by or alarm.client}" if alarm.by or alarm.client else ""
            words.append(f"{alarm.where} acknowledged{by} at {at:%Y-%m-%d %H:%M:%S}")
    return f" ({'; '.join(words)})" if words else ""


def _hangs(status: StatusMessage, station: Commander) -> bool:
    """True when the station answers, but always with the same old status."""
    # Its clock may differ from this machine's, so an old time stamp alone proves nothing.
    stale_s = _LONGEST_STEP_S if status.state == "Preoperational" else _STALE_S
    if abs(time.time() - status.sent_us / 1e6) < stale_s:
        return False
    time.sleep(_SECOND_LOOK_S)
    again = station.status()
    return (again.epoch, again.sent_us) == (status.epoch, status.sent_us)


def _summarise(console: Console, level: Level, text: str, figures: str = "") -> int:
    # Monitoring takes what follows the first '|' for figures, so the text must hold none.
    shown = Text(f"{level.name} ", _STYLES[level])
    shown.append(_in_a_line(text).replace("|", "/"), "default")
    console.print(shown.append(f" | {figures}" if figures else "", "dim"), soft_wrap=True)
    return level


def _show(status: StatusMessage, findings: Iterable[Finding]) -> None:
    rows = table("", "")

    def row(name: str, text: str, level: Level = Level.OK) -> None:
        style = "" if level is Level.OK else _STYLES[level]
        rows.add_row(name, Text(_in_a_line(text), style))

    for finding in findings:
        row(finding.level.name.lower(), finding.text, finding.level)
    row("station", status.station)
    row("state", status.state, _STATES[status.state])
    since = " (in force since before this start)" if status.recipe_from == "journal" else ""
    row("recipe", f"{status.recipe}{since}")
    row("provider", status.provider or "-")
    row("verdicts", _counts(status))
    row(
        "triggers",
        f"{status.over_triggers} too early, {status.overruns} not judged in time, "
        f"{status.late} results too late, {status.repeated} sent again",
    )
    for camera in status.cameras:
        text = f"{camera.frames} frames, {described(camera)}{other_limit(camera)}"
        row(f"camera {camera.name}", text, _CAMERAS[camera.state])
    row("epoch", status.epoch)
    show(rows)


def _in_a_line(text: str) -> str:
    """``text``, which comes from outside, with spaces for ends of lines."""
    return plain(" ".join(text.split()))


def _counts(status: StatusMessage) -> str:
    others = (("challenge", status.challenges), ("study", status.studies))
    apart = "".join(f", {count} {purpose}" for purpose, count in others if count)
    return (
        f"{status.last_seq} verdicts: {status.passed} PASS, {status.failed} FAIL, "
        f"{status.faults} FAULT{apart}"
    )


def other_limit(camera: CameraStatus) -> str:
    """What to add to a camera whose parts are not judged by the bundle's own limit; or ""."""
    if camera.limit_factor in {None, 1.0}:
        return ""
    how = "more" if camera.limit_factor > 1 else "less"
    return f", limit_factor {camera.limit_factor:g} ({how} tolerant than the bundle)"


def described(camera: CameraStatus) -> str:
    """The state of a camera, with what is to be said of it."""
    return f"{camera.state} ({camera.detail})" if camera.detail else camera.state
