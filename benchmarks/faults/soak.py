"""Hours in minutes: all at once, at many times a line's rate, and nothing may grow."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import yaml

from benchmarks.faults.lab import (
    Found,
    Journal,
    Plc,
    Tick,
    fixed_sockets,
    memory_bytes,
    order,
    peer,
)
from inspector.client.commander import Commander
from inspector.config.station_file import load_station
from tests import running, tiny
from tests.conftest import shared_memory

WARM_UP: Final = 1 / 2
"""Share of a run before which nothing is compared, at most ten minutes: SQLite's page cache and
Python's arenas take most of a minute to grow as large as they get."""
LONGEST_WARM_UP_S: Final = 600.0
LEAST_COMPARED: Final = 1 / 2
"""Share of all that was asked for which one daemon must be compared with itself: what takes an
hour to grow is not seen in ten minutes, however often."""
SAMPLE_S: Final = 1.0
REMEMBERED: Final = 10_000
GROWTH: Final = 0.01
MARK_REACHED_S: Final = 1800.0
"""Only so long a run fills the queue of one that never reads within its warm-up: 100,000 verdicts,
which the daemon keeps for it, as it may."""

STEPS: Final = (
    {"do": "frames", "count": 60},
    {"do": "lose"},
    {"do": "frames", "count": 60},
    {"do": "tear"},
    {"do": "resize", "width": 96, "height": 80},
    {"do": "frames", "count": 60},
    {"do": "die"},
    {"do": "frames", "count": 60},
    {"do": "stale"},
    {"do": "resize", "width": 640, "height": 480},
    {"do": "frames", "count": 60},
    {"do": "block_for_ever"},
    {"do": "resize", "width": 64, "height": 64},
)
WIDE: Final = (1920, 1080)
"""Pixels of the camera with large pictures."""


@dataclass(frozen=True)
class Sample:
    """The daemon at one moment; ``at_s`` since its start."""

    at_s: float
    memory: int
    handles: int
    threads: int
    children: int
    segments: int
    verdicts: int


def soak(folder: Path, trials: float, tick: Tick) -> Found:
    """``trials`` minutes, less those that earlier runs with this folder had.

    Where none of those was long enough to be compared, one more is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "soak.jsonl"
    total_s = 60.0 * trials
    station = _station(folder)
    runs = _counted(_runs(record), total_s)
    left_s = total_s - sum(run[-1].at_s for run in runs)
    if max(map(_compared_s, runs), default=0.0) < LEAST_COMPARED * total_s:
        left_s = max(left_s, _long_enough_s(total_s))
    if left_s > 1.0:
        with record.open("a", encoding="utf-8") as file:
            file.write("{}\n")
            for sample in _run(station, left_s, total_s):
                file.write(json.dumps(asdict(sample)) + "\n")
                file.flush()
                tick(max(0.0, total_s - left_s) / 60 + sample.at_s / 60, trials)
    return _judge(folder, _counted(_runs(record), total_s), total_s)


def _runs(record: Path) -> list[list[Sample]]:
    """The samples of each start of the daemon."""
    runs: list[list[Sample]] = []
    for line in record.read_text(encoding="utf-8").splitlines() if record.exists() else ():
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            if fields:
                runs[-1].append(Sample(**fields))
            else:
                runs.append([])
    return runs


def _counted(runs: list[list[Sample]], total_s: float) -> list[list[Sample]]:
    """Those that were not stopped before they could show anything."""
    least_s = min(total_s / 6, LONGEST_WARM_UP_S)
    return [run for run in runs if run and run[-1].at_s >= least_s]


def _warm_at_s(run_s: float) -> float:
    return min(LONGEST_WARM_UP_S, WARM_UP * run_s)


def _compared_s(run: list[Sample]) -> float:
    """How long a run went on after its warm-up."""
    return run[-1].at_s - _warm_at_s(run[-1].at_s)


def _long_enough_s(total_s: float) -> float:
    """What a run must last to be compared for the share that is due."""
    compared_s = LEAST_COMPARED * total_s
    return min(compared_s / (1 - WARM_UP), compared_s + LONGEST_WARM_UP_S) + 0.1


def _station(folder: Path) -> Path:
    model = tiny.write_bundle(folder / "tiny.onnx")
    other = tiny.write_bundle(folder / "other.onnx", name="other")
    pictures = [make() for make in tiny.PICTURES for _ in range(4)]
    for number, picture in enumerate(pictures):
        picture[0, 0] += number
    parts = running.write_parts(folder / "parts", *pictures)
    wide = running.write_parts(folder / "wide", *(_wide(make()) for make in tiny.PICTURES))
    camera = {"kind": "faulty", "path": str(parts), "rate_hz": 60, "loop": True}
    cameras = [
        running.folder_camera(parts, "top", trigger="software", loop=True, deadline_ms=5000),
        running.folder_camera(parts, "side", loop=True, rate_hz=100, deadline_ms=5000),
        {"name": "bad", "deadline_ms": 5000, "steps": list(STEPS), **camera},
        running.folder_camera(
            parts, "newest", trigger="free", loop=True, rate_hz=100, deadline_ms=5000
        ),
        running.folder_camera(wide, "wide", loop=True, rate_hz=5, deadline_ms=5000),
    ]
    station = running.write_station(
        folder / "station.yaml",
        model,
        *cameras,
        sockets=fixed_sockets(),
        journal={"folder": str(folder / "journal"), "reserve_mb": 1, "pictures_mb": 1},
        self_test={"every_s": 5.0},
    )
    document = yaml.safe_load(station.read_text(encoding="utf-8"))
    document["recipes"]["r"]["wide"]["region"] = {"x": 0, "y": 0, "w": tiny.SIDE, "h": tiny.SIDE}
    document["recipes"]["other"] = {
        name: one | {"bundle": str(other)} for name, one in document["recipes"]["r"].items()
    }
    station.write_text(yaml.safe_dump(document), encoding="utf-8")
    return station


def _wide(part: np.ndarray) -> np.ndarray:
    """A large picture with the part in its corner."""
    width, height = WIDE
    picture = np.full((height, width, 3), tiny.GREY, dtype=np.uint8)
    picture[: tiny.SIDE, : tiny.SIDE] = part
    return picture


def _run(station: Path, left_s: float, total_s: float) -> Iterator[Sample]:
    address = load_station(station).sockets
    chance = random.Random(int(left_s))
    session = f"soak-{os.getpid()}-{int(left_s)}"
    crowd = peer(
        "crowd",
        verdicts=address.verdicts,
        images=address.images,
        guests=4,
        deaf=total_s > MARK_REACHED_S,
    )
    with (
        running.running(station) as daemon,
        contextlib.closing(Plc(address.commands, session)) as plc,
        Commander(address.commands) as desk,
        crowd as guests,
    ):
        daemon.wait_for_log(r"state=ContinuousExecution")
        begun = time.monotonic()
        # What it remembers of triggers is bounded, and full from here on.
        fill = REMEMBERED if total_s >= 60 else REMEMBERED // 20
        for _ in range(fill // 50 + 1):
            for _ in range(50):
                plc.trigger()
            plc.pump(60.0)
        order(guests, "on")
        recipes, next_recipe, next_sample = ["other", "r"], 3.0, 0.0
        while (at_s := time.monotonic() - begun) < left_s:
            for _ in range(chance.choice((1, 1, 2, 30))):
                plc.send(plc.trigger()) if chance.random() < 0.1 else plc.trigger()
            plc.pump(30.0)
            _forget(plc)
            if at_s > next_recipe:
                desk.recipe(recipes[0])
                recipes.reverse()
                next_recipe = at_s + max(3.0, total_s / 200)
            if at_s > next_sample:
                yield _sample(daemon.child.pid, at_s, desk.status().last_seq)
                next_sample = at_s + max(min(SAMPLE_S, total_s / 20), total_s / 1000)
            time.sleep(0.02)
        yield _sample(daemon.child.pid, time.monotonic() - begun, desk.status().last_seq)
        daemon.child.send_signal(signal.SIGTERM)
        assert daemon.child.wait(30) == 0, daemon.log[-2000:]


def _forget(plc: Plc) -> None:
    """The benchmark's own books must not grow either."""
    plc.attempted.clear()
    plc.acknowledged.clear()
    plc.answers.clear()
    plc._ids.clear()


def _sample(pid: int, at_s: float, verdicts: int) -> Sample:
    process = psutil.Process(pid)
    return Sample(
        at_s=at_s,
        memory=memory_bytes(pid),
        handles=process.num_fds(),
        threads=process.num_threads(),
        children=len(process.children(recursive=True)),
        segments=len(shared_memory(pid)),
        verdicts=verdicts,
    )


def _judge(folder: Path, runs: list[list[Sample]], total_s: float) -> Found:
    """Each run by itself: a daemon started anew begins with nothing."""
    growths: list[float] = []
    leaks = dict.fromkeys(("handles", "threads", "children", "segments"), 0)
    longest_s = 0.0
    for run in runs:
        first, last = _ends(run)
        if not first or not last:
            continue
        longest_s = max(longest_s, _compared_s(run))
        # The least of each half: buffers come and go by some per cent, and a leak raises the least
        # as well.
        before = min(one.memory for one in first)
        growths.append(min(one.memory for one in last) / before - 1)
        for what in leaks:
            # Cameras come and go: the most of each end, not a moment.
            more = max(getattr(one, what) for one in last) - max(
                getattr(one, what) for one in first
            )
            leaks[what] = max(leaks[what], more)
    minutes = sum(run[-1].at_s for run in runs) / 60
    verdicts = sum(run[-1].verdicts for run in runs)
    growth = max(growths, default=0.0)
    journal = Journal(folder / "journal")
    holes = journal.holes
    passed = Counter(one["camera"] for one in journal.verdicts if one["verdict"] == "PASS")
    cameras = [camera.name for camera in load_station(folder / "station.yaml").cameras]
    done = minutes * 60 >= total_s - 5 and longest_s >= LEAST_COMPARED * total_s
    calm = bool(growths) and growth < GROWTH and max(leaks.values()) <= 0
    return Found(
        fault=f"five cameras, one of which fails all the time, one takes the newest picture, one "
        f"has {WIDE[0]} × {WIDE[1]} pixels, triggers in bursts, guests, a changeover every few "
        f"seconds, in {len(runs)} run(s): {verdicts} verdicts",
        trials=round(minutes),
        figure=f"{minutes:.1f} minutes: memory {growth:+.2%} after warm-up "
        f"({longest_s / 60:.1f} minutes of one run compared), "
        + ", ".join(f"{what} {value:+d}" for what, value in leaks.items())
        + f", verdict numbers left out {holes}",
        holds=calm and done and not holes and all(passed[name] for name in cameras),
        figures={
            "minutes": round(minutes, 2),
            "minutes_compared": round(longest_s / 60, 2),
            "memory_growth": round(growth, 5),
            "memory_mb": round(runs[-1][-1].memory / 1e6, 1) if runs else 0,
            "verdicts": verdicts,
            "numbers_left_out": holes,
            **{f"{what}_more": value for what, value in leaks.items()},
            **{f"passed_{name}": passed[name] for name in cameras},
        },
    )


def _ends(run: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The two halves of what comes after the warm-up."""
    warm = [sample for sample in run if sample.at_s >= _warm_at_s(run[-1].at_s)]
    half = len(warm) // 2
    return warm[:half], warm[half:]
