"""Who reads the log stops reading, a share stops answering: no verdict is lost, no stop waits."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.lab import (
    Found,
    Journal,
    Plc,
    Tick,
    fixed_sockets,
    quantile,
    settle_all,
    triggered_station,
)
from inspector.client.commander import Commander
from inspector.errors import CommandError
from tests import hanging, running, tiny

_STOP_S: Final = 8.0
"""So long a stop may take: cameras, last questions and the changeover's thread included."""
_BURST: Final = 20
_OPEN: Final = 3


def unread(folder: Path, trials: int, tick: Tick) -> Found:
    """``trials`` triggers to a station whose log goes to a pipe that is full and never read."""
    sockets = fixed_sockets()
    station = triggered_station(folder, sockets=sockets)
    taken_s: list[float] = []
    with hanging.unread_pipe() as (_, write_fd), _station(station, write_fd) as child:
        plc = Plc(_ready(sockets["commands"]), "unread")
        while plc.number < trials:
            begun = time.monotonic()
            plc.trigger()
            plc.pump(10.0)
            taken_s.append(time.monotonic() - begun)
            tick(plc.number, trials)
        stop_s = _stop(child)
        plc.close()
    journal = Journal(folder / "journal")
    tally = settle_all([plc], journal, journal.lines)
    return Found(
        fault=f"nobody reads the log's pipe; {trials} triggers, then SIGTERM",
        trials=trials,
        figure=f"{tally}; median {quantile(taken_s, 0.5) * 1e3:.1f} ms; stopped in {stop_s:.1f} s",
        holds=tally.clean and stop_s < _STOP_S and child.returncode == 0,
        figures={
            "lost": tally.lost,
            "stop_s": stop_s,
            "median_ms": quantile(taken_s, 0.5) * 1e3,
            "p99_ms": quantile(taken_s, 0.99) * 1e3,
        },
    )


def shares(folder: Path, trials: int, tick: Tick) -> Found:
    """Changeovers to a bundle on a disk that hangs: judged on meanwhile, then stopped."""
    lost = refused = 0
    stops_s: list[float] = []
    for trial in range(trials):
        one = _hang_once(folder / str(trial))
        lost += one["lost"]
        refused += one["refused"]
        stops_s.append(one["stop_s"])
        tick(trial + 1, trials)
    slowest_s = max(stops_s)
    return Found(
        fault=f"the bundle of a changeover lies on a disk that hangs; {_BURST} triggers beside it "
        f"and {_OPEN} that wait for their picture, then SIGTERM",
        trials=trials,
        figure=f"accepted triggers without a verdict {lost}; changeovers refused {refused} of "
        f"{trials}; slowest stop {slowest_s:.1f} s",
        holds=lost == 0 and refused == trials and slowest_s < _STOP_S,
        figures={"lost": lost, "refused": refused, "stop_max_s": slowest_s},
    )


def _hang_once(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    other = tiny.write_bundle(folder / "other.onnx", version="2")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    blocks = [{"do": "frames", "count": 1}, {"do": "block", "seconds": 60}]
    common = {"trigger": "software", "timeout_ms": 60_000, "deadline_ms": 60_000}
    names = [f"blocked-{number}" for number in range(_OPEN)]
    cameras = [
        running.folder_camera(parts, loop=True, **common),
        *(
            {"name": name, "kind": "faulty", "path": str(parts), "steps": blocks, **common}
            for name in names
        ),
    ]
    recipes = {
        recipe: {str(camera["name"]): {"bundle": str(file)} for camera in cameras}
        for recipe, file in (("r", bundle), ("other", other))
    }
    sockets = fixed_sockets()
    station = running.write_station(
        folder / "station.yaml", bundle, *cameras, sockets=sockets, recipes=recipes
    )
    refused = 0
    with hanging.hanging_file(other), running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        plcs = [Plc(sockets["commands"], name, name) for name in ("top", *names)]
        for plc in plcs[1:]:
            plc.trigger()
        with Commander(sockets["commands"], timeout_s=0.5) as desk:
            try:
                desk.recipe("other", 0.5)
            except CommandError as error:
                # No answer yet: the changeover is under way.
                refused += error.code == ""
        for _ in range(_BURST):
            plcs[0].trigger()
            plcs[0].pump(10.0)
        stop_s = _stop(daemon.child)
        for plc in plcs:
            plc.pump(2.0)
            plc.close()
        refused *= "state=Halted" in daemon.log and " model camera=top" in daemon.log
        refused *= daemon.log.count(" version=2") == 0
    journal = Journal(folder / "journal")
    tally = settle_all(plcs, journal, journal.lines)
    return {"lost": tally.lost + (not tally.clean), "refused": refused, "stop_s": stop_s}


@contextlib.contextmanager
def _station(station: Path, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "inspector", "run", str(station)]
    with subprocess.Popen(command, stderr=stderr, env=running.environment()) as child:
        try:
            yield child
        finally:
            child.kill()


def _ready(commands: str) -> str:
    """The address, once the station there is ready; its log cannot say so."""
    deadline = time.monotonic() + running.START_S
    while time.monotonic() < deadline:
        with Commander(commands, timeout_s=0.5) as desk, contextlib.suppress(CommandError):
            if desk.status().state == "Ready":
                break
    return commands


def _stop(child: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to the end of the process; ``inf`` when it does not come."""
    begun = time.monotonic()
    child.terminate()
    try:
        child.wait(3 * _STOP_S)
    except subprocess.TimeoutExpired:
        return float("inf")
    return time.monotonic() - begun
