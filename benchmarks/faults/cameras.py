"""Each script of the faulty camera: a FAULT in time, no false pass, and the line goes on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.checkout import DEMO
from benchmarks.faults.lab import Found, Journal, Tick, quantile
from inspector.cameras.simulated.conveyor import Domain, draw
from inspector.detection import bundle, fitness
from tests import running, tiny

RATE_HZ: Final = 10.0
SIMULATOR_HZ: Final = 4.0
GOOD_FRAMES: Final = 8
SPOILT: Final = 3
DETECTED_MS: Final = 500.0
RECOVERED_S: Final = 5.0
TOGETHER: Final = 4

Step = dict[str, Any]


@dataclass(frozen=True)
class Script:
    """What a camera does, and what must be said of it."""

    name: str
    steps: tuple[Step, ...]
    reason: str = "camera_lost"
    faults: int = 1
    """Of each repetition; 0: it must be borne."""
    absent_s: float = 0.0
    """How long the camera stays away after it is missed."""
    drawn: bool = False
    """Simulated parts before the demo's model, whose bundle knows what a fit picture is."""


def _lost(name: str, *steps: Step, absent_s: float = 0.0) -> Script:
    return Script(name, steps, absent_s=absent_s)


def _spoilt(do: str, reason: str) -> Script:
    return Script(do, ({"do": do, "count": SPOILT},), reason, SPOILT, drawn=True)


SCRIPTS: Final = (
    _lost("refuses to open for 3 s", {"do": "refuse_open", "seconds": 3}, absent_s=3),
    _lost("is away for 9 s", {"do": "refuse_open", "seconds": 9}, absent_s=9),
    _lost("refuses to open twice", {"do": "lose"}, {"do": "refuse_open", "times": 2}),
    _lost("blocks for ever", {"do": "block_for_ever"}),
    _lost("blocks for 2 s", {"do": "block", "seconds": 2}),
    _lost("blocks 3 s in open", {"do": "lose"}, {"do": "block_open", "seconds": 3}, absent_s=3),
    _lost("returns a stale frame", {"do": "stale"}),
    _lost("loses the connection", {"do": "lose"}),
    _lost("its process exits", {"do": "die", "how": "exit"}),
    _lost("its process crashes", {"do": "die", "how": "segfault"}),
    Script("tears a frame", ({"do": "tear"},), "frame_unreadable"),
    Script("freezes", ({"do": "frozen", "count": SPOILT},), "frozen", SPOILT),
    Script("blocks for 0.2 s", ({"do": "block", "seconds": 0.2},), faults=0),
    Script(
        "changes its size",
        ({"do": "resize", "width": 96, "height": 80},),
        "frame_shape",
        GOOD_FRAMES,
    ),
    _spoilt("black", "too_dark"),
    _spoilt("overexposed", "saturated"),
    _spoilt("blurred", "out_of_focus"),
    _spoilt("frozen", "frozen"),
)
FAR: Final = _lost("is away for 30 s", {"do": "refuse_open", "seconds": 30}, absent_s=30)


@dataclass
class Report:
    """What one script's verdicts say."""

    expected: int = 0
    told: int = 0
    other: int = 0
    """Faults for other reasons: the machine was too slow for a deadline, say."""
    detected_ms: list[float] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)
    not_recovered: int = 0
    false_passes: int = 0
    judged: int = 0


def scripts(folder: Path, trials: int, tick: Tick) -> Found:
    """Every script ``trials`` times; the long absence only where there are several."""
    chosen = [*SCRIPTS, *([FAR] if trials > 1 else [])]
    return play(folder, chosen, trials, tick)


def play(folder: Path, chosen: Sequence[Script], repeats: int, tick: Tick) -> Found:
    folder.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Report] = {}
    by_kind = [[one for one in chosen if one.drawn == drawn] for drawn in (False, True)]
    for kind in by_kind:
        # The long ones together: their waits pass at the same time.
        ordered = sorted(kind, key=lambda one: -one.absent_s)
        for first in range(0, len(ordered), TOGETHER):
            group = ordered[first : first + TOGETHER]
            reports |= _play_together(folder / f"{len(reports)}", group, repeats)
            tick(len(reports) * repeats, len(chosen) * repeats)
    return _sum_up(chosen, reports, repeats)


def _play_together(folder: Path, group: Sequence[Script], repeats: int) -> dict[str, Report]:
    """One station, a camera a script; it ends when the scripts do."""
    folder.mkdir()
    drawn = group[0].drawn
    if drawn:
        model = fit_bundle(folder / "demo.onnx")
        source: dict[str, Any] = {"rate_hz": SIMULATOR_HZ, "defect_rate": 0.0, "seed": 5}
    else:
        model = tiny.write_bundle(folder / "tiny.onnx")
        parts = running.write_parts(folder / "parts", *_parts())
        source = {"rate_hz": RATE_HZ, "path": str(parts)}
    good = {"do": "frames", "count": GOOD_FRAMES}
    cameras = [
        {
            "name": f"camera-{number}",
            "kind": "faulty",
            "deadline_ms": 5000,
            "steps": [good, *(step for _ in range(repeats) for step in (*script.steps, good))],
            **source,
        }
        for number, script in enumerate(group)
    ]
    station = running.write_station(folder / "station.yaml", model, *cameras)
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        daemon.child.wait(60 + repeats * (40 + max(script.absent_s for script in group)))
        assert daemon.child.returncode == 0, daemon.log
    verdicts = Journal(folder / "journal").verdicts
    return {
        script.name: _examine(
            script, [one for one in verdicts if one["camera"] == f"camera-{number}"], repeats
        )
        for number, script in enumerate(group)
    }


def _parts() -> Iterator[npt.NDArray[np.uint8]]:
    """Good and bad parts in turn, no two pictures the same."""
    for number in range(6):
        picture = tiny.PICTURES[number % 2]()
        picture[0, 0] += number
        yield picture


def _examine(script: Script, verdicts: list[dict[str, Any]], repeats: int) -> Report:
    report = Report(expected=script.faults * repeats)
    period_us = 1e6 / (SIMULATOR_HZ if script.drawn else RATE_HZ)
    seen: set[str] = set()
    shown_us = lost_us = 0.0
    for one in verdicts:
        judged = one["verdict"] != "FAULT"
        if judged:
            report.judged += 1
            if lost_us:
                away_us = lost_us + script.absent_s * 1e6
                report.recovered_s.append(max(0.0, one["grabbed_us"] - away_us) / 1e6)
                lost_us = 0.0
        elif one["reason"] == script.reason:
            report.told += 1
            # A frame is missing from the moment that it is due, a bad one from its grab.
            due_us = one["grabbed_us"] or shown_us + period_us
            report.detected_ms.append(max(0.0, one["judged_us"] - due_us) / 1e3)
            if script.reason == "camera_lost":
                lost_us = one["judged_us"]
        else:
            report.other += 1
        shown_us = one["grabbed_us"] or shown_us
        if one["verdict"] == "PASS":
            report.false_passes += _is_false(script, one["part_id"], seen)
        seen.add(one["part_id"])
    report.not_recovered = int(lost_us > 0)
    return report


def _is_false(script: Script, part: str, seen: set[str]) -> bool:
    """A PASS for a bad part, for a spoilt picture, or for a part that had its verdict."""
    index = int(part.rpartition("-")[2])
    if part in seen:
        return True
    if script.drawn:
        return index % (GOOD_FRAMES + SPOILT) >= GOOD_FRAMES
    return index % 2 == 1


def _sum_up(chosen: Sequence[Script], reports: dict[str, Report], repeats: int) -> Found:
    every = reports.values()
    away = [one for script in chosen if script.faults for one in [reports[script.name]]]
    detected = [ms for one in every for ms in one.detected_ms]
    recovered = [s for one in every for s in one.recovered_s]
    untold = sum(max(0, one.expected - one.told) for one in away)
    passes = sum(one.false_passes for one in every)
    lost = sum(one.not_recovered for one in every)
    silent = [name for name, one in reports.items() if one.judged < GOOD_FRAMES]
    borne = sum(reports[script.name].told for script in chosen if not script.faults)
    slow = [name for name, one in reports.items() if max(one.recovered_s, default=0) > RECOVERED_S]
    late = [name for name, one in reports.items() if max(one.detected_ms, default=0) > DETECTED_MS]
    remarks = [
        *(f"not within {DETECTED_MS:.0f} ms: {name}" for name in late),
        *(f"not within {RECOVERED_S:.0f} s: {name}" for name in slow),
    ]
    return Found(
        fault=f"{len(chosen)} scripts: " + "; ".join(script.name for script in chosen),
        trials=len(chosen) * repeats,
        figure=f"detected in at most {max(detected, default=0):.0f} ms (median "
        f"{quantile(detected, 0.5):.0f}), recovered in at most {max(recovered, default=0):.1f} s, "
        f"parts faulted {sum(one.told + one.other for one in every)}, faults not told {untold}, "
        f"not recovered {lost}, false passes {passes}"
        + (f" ({'; '.join(remarks)})" if remarks else ""),
        holds=not (late or slow or untold or passes or lost or silent or borne),
        figures={
            "faults_not_told": untold,
            "false_passes": passes,
            "not_recovered": lost + len(silent),
            "borne_without_cause": borne,
            "detected_max_ms": round(max(detected, default=0.0), 1),
            "recovered_max_s": round(max(recovered, default=0.0), 3),
            **{
                f"{name}: {what}": value
                for name, one in reports.items()
                for what, value in (
                    ("faults", one.told),
                    ("other faults", one.other),
                    ("detected ms", round(max(one.detected_ms, default=0.0), 1)),
                    ("recovered s", round(max(one.recovered_s, default=0.0), 2)),
                )
            },
        },
    )


def fit_bundle(path: Path) -> Path:
    """The demo's bundle with limits of fitness learnt from simulated good parts."""
    path.write_bytes(_fit())
    return path


@functools.cache
def _fit() -> bytes:
    found = bundle.read(DEMO)
    geometry = found.manifest.geometry
    learnt = fitness.learn(
        np.asarray(geometry.apply(draw(11, index, 0.0, Domain.TRAIN_GOOD).image))
        for index in range(30)
    )
    model = bundle.unseal(found.data, DEMO)
    for entry in model.metadata_props:
        if entry.key == bundle.MANIFEST_KEY:
            entry.value = found.manifest.model_copy(update={"exposure": learnt}).model_dump_json()
    return bundle.seal(model.SerializeToString())
