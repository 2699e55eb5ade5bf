"""What the line notices of a training and of a lesson that the page runs beside it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.client import Commander
from inspector.console.jobs import Jobs, Step
from inspector.verdict import Verdict
from tests import running
from tests.console import serving

PHOTOS: Final = 60
TAUGHT: Final = 6
_PAUSE_S: Final = 0.05
"""Between a verdict and the next trigger."""


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` parts on a quiet machine, beside trainings and beside lessons, in turns."""
    photos, run = folder / "photos", folder / "run"
    few = ("--test-good", 1, "--defective", 1)
    _inspector("simulate", photos, "--good", PHOTOS, *few)
    _inspector("simulate", folder / "more", "--good", TAUGHT, *few, "--seed", 1)
    program = shutil.which("inspector-model", path=str(Path(sys.executable).parent))
    assert program is not None, "the training tools are missing: make train-tools"
    train = (program, "train", str(photos), "-o", str(run), "--device", "cpu")
    lesson = folder / "lesson"
    extend = (
        *(program, "extend", str(run), "--good", str(folder / "more" / "train" / "good")),
        *("-o", str(lesson / "taught.onnx"), "--run", str(lesson / "run"), "--device", "cpu"),
    )
    found: dict[str, list[float]] = {"nothing": [], "a training": [], "a lesson": []}
    seconds: dict[str, list[float]] = {"a training": [], "a lesson": []}
    faults = 0
    station = serving.write_demo_station(
        folder / "line",
        # Photos that are there already: a simulated camera draws each part, which takes longer than
        # to judge it.
        cameras=[running.folder_camera(photos / "train", "belt", trigger="software", loop=True)],
    )
    with running.running(station) as daemon, Commander(daemon.commands) as commander:
        daemon.wait_for_log(r" state=(ContinuousExecution|Ready|SingleExecution) ")
        number = 0

        def part() -> float:
            nonlocal number, faults
            number += 1
            begun_s = time.monotonic()
            verdict = commander.trigger("belt", number)
            taken_ms = 1000 * (time.monotonic() - begun_s)
            faults += verdict.verdict is Verdict.FAULT
            time.sleep(_PAUSE_S)
            return taken_ms

        for _ in range(20):  # what is slow at first is over
            part()
        while min(map(len, found.values())) < trials:
            for work, command in (("a training", train), ("a lesson", extend)):
                if len(found[work]) >= trials:
                    continue
                # Each run goes into a folder that is empty; the lesson extends the last training.
                shutil.rmtree(run if command is train else lesson, ignore_errors=True)
                lesson.mkdir(exist_ok=True)
                begun_s = time.monotonic()
                beside = asyncio.run(_beside(folder, command, part))
                seconds[work].append(time.monotonic() - begun_s)
                found[work] += beside
                # As many parts without, right after those with.
                found["nothing"] += [part() for _ in range(len(beside) // 2)]
                tick(min(trials, *map(len, found.values())), trials)
    return _figures(found, seconds, faults)


async def _beside(folder: Path, command: Sequence[str], part: Callable[[], float]) -> list[float]:
    """ms of each part while a job of the page runs this command, to its end."""
    jobs = Jobs(folder / "jobs", lambda *_: None)
    job = jobs.start("bench", "line-1", "", (Step("work", tuple(command)),), folder)
    taken = []
    while jobs.running is not None:
        taken.append(await asyncio.to_thread(part))
    ended = jobs.last("bench", "line-1")
    assert ended is not None and ended.id == job.id and ended.state == "done", ended
    return taken


def _figures(
    found: dict[str, list[float]], seconds: dict[str, list[float]], faults: int
) -> list[Figure]:
    figures = []
    for share in (0.5, 0.99):
        quiet = quantile(found["nothing"], share)
        label = f"p{100 * share:g}"
        figures.append(Figure(f"trigger to verdict beside nothing, {label}", round(quiet, 3), "ms"))
        for work in seconds:
            beside = quantile(found[work], share)
            figures += [
                Figure(f"beside {work}, {label}", round(beside, 3), "ms"),
                Figure(f"ratio beside {work}, {label}", round(beside / quiet, 3), ""),
            ]
    figures += [
        Figure(f"{work} beside the line took", round(sum(taken) / len(taken), 1), "s")
        for work, taken in seconds.items()
    ]
    parts = sum(map(len, found.values()))
    figures.append(Figure(f"FAULTs among {parts} parts", faults, "", "0", faults == 0))
    return figures


def _inspector(*arguments: object) -> None:
    command = [sys.executable, "-m", "inspector", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=running.environment())


ROW: Final = Row("work beside the line yields to it", 1000, 300, measure)
