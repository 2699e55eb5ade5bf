"""A station whose parts all fail, or cannot be judged, says so; one with usual rejects does not."""

from __future__ import annotations

import re
import time
from pathlib import Path

from benchmarks.faults.lab import Found, Tick
from inspector.client import Commander
from inspector.wire.messages import StatusMessage
from tests import running, tiny

MOST_PARTS = 10
"""Parts until the alarm at which everything must have been found."""


def alarms(folder: Path, trials: int, tick: Tick) -> Found:
    """Three stations judge ``trials`` parts each: all FAIL, all FAULT, and one FAIL in ten."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    good, bad = tiny.good_picture(), tiny.bad_picture()
    raised: dict[str, int] = {}
    silent: list[str] = []
    for done, (name, pictures) in enumerate(
        {
            "FAIL": [bad],
            "FAULT": [tiny.nan_picture()],
            "usual": [*[good] * 4, bad, *[good] * 5],
        }.items()
    ):
        parts = running.write_parts(folder / name, *pictures)
        # At such a rate no shared machine is late with a part, which would be a FAULT of its own.
        camera = running.folder_camera(parts, rate_hz=50, loop=True, deadline_ms=10_000)
        path = running.write_station(
            folder / f"{name}.yaml", bundle, camera, journal={"folder": str(folder / f"{name}-j")}
        )
        with running.running(path) as daemon, Commander(daemon.commands) as plc:
            status = _after(plc, trials)
            code, _, _ = running.inside("status", daemon.commands)
            found = re.search(rf" alarm verdict={name} .* seq=(\d+) ", daemon.log)
            if found:
                raised[name] = int(found[1])
            is_told = status.alarm != "" and code == 1 and status.state == "ContinuousExecution"
            if is_told is not (name != "usual"):
                silent.append(f"{name} ({status.state}, alarm '{status.alarm}', code {code})")
            daemon.child.terminate()
            assert daemon.child.wait(20) == 0, daemon.log
        tick(done + 1, 3)
    slow = [name for name, parts_until in raised.items() if parts_until > MOST_PARTS]
    return Found(
        fault="every part a FAIL; every part a FAULT; one part in ten a FAIL",
        trials=3 * trials,
        figure=f"alarm at part {raised.get('FAIL', '-')} of FAILs, {raised.get('FAULT', '-')} of "
        f"FAULTs, {raised.get('usual', 'none')} of usual rejects"
        + (f"; status wrong: {', '.join(silent)}" if silent else ""),
        holds=not silent and not slow and raised.keys() == {"FAIL", "FAULT"},
        figures={f"parts_until_alarm_{name}": count for name, count in raised.items()},
    )


def _after(plc: Commander, parts: int) -> StatusMessage:
    """The status once so many parts were judged; a status is made once a second."""
    until = time.monotonic() + 60.0 + parts / 50
    while (status := plc.status()).last_seq < parts:
        assert time.monotonic() < until, status
        time.sleep(0.05)
    return status
