"""What the line notices of training and teaching that run beside it, on its own machine."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from benchmarks.console import stand
from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.client import Commander
from inspector.console.jobs import Jobs, Step
from tests import running

_SETTINGS: Final = {
    "region": "112,52,416,384",
    "size": [96, 96],
    "epochs": 1,
    "bank_items": 256,
    "folds": 3,
    "device": "cpu",
}
_TAUGHT: Final = 4


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` parts, in blocks of 100 in turn with nothing, a training and a lesson beside."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = _prepared(folder)
    found: dict[str, list[float]] = {"nothing": [], **{name: [] for name in commands}}
    with (
        stand.line(folder / "line", triggered=True) as daemon,
        Commander(daemon.commands, timeout_s=30) as commander,
    ):
        number = 0
        stand.block(commander, number)[0]  # what is slow at first is over
        number += stand.BLOCK
        while number < trials + stand.BLOCK:
            for name in found:
                work = _working(folder, name, commands[name]) if name in commands else None
                with work or contextlib.nullcontext():
                    found[name] += stand.block(commander, number)[0]
                number += stand.BLOCK
                tick(min(number - stand.BLOCK, trials), trials)
    figures = []
    for name, taken in found.items():
        for share in (0.5, 0.99):
            ms = quantile(taken, share)
            label = f"trigger to verdict beside {name}, p{100 * share:g}"
            figures.append(Figure(label, round(ms, 3), "ms"))
            if name != "nothing":
                ratio = ms / quantile(found["nothing"], share)
                figures.append(Figure(f"{name}, ratio p{100 * share:g}", round(ratio, 3), ""))
    return figures


def _prepared(folder: Path) -> dict[str, tuple[str, ...]]:
    """A run and photos in ``folder``, and what a page would start there."""
    (folder / "small.yaml").write_text(yaml.safe_dump(_SETTINGS), encoding="utf-8")
    tool = str(Path(sys.executable).with_name("inspector-model"))
    simulate = (sys.executable, "-m", "inspector", "simulate")
    few = ("--test-good", "0", "--defective", "0")
    train = (tool, "train", "data", "--config", "small.yaml")
    for command in (
        (*simulate, "data", "--good", "30", *few, "--seed", "1"),
        (*simulate, "lesson", "--good", str(_TAUGHT), *few, "--seed", "2"),
        (*train, "-o", "run"),
    ):
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            env=running.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    (taught,) = {path.parent for path in (folder / "lesson").rglob("*.png")}
    extend = (tool, "extend", "run", "--good", str(taught.relative_to(folder)))
    return {"a training": (*train, "-o"), "a lesson": (*extend, "-o")}


@contextlib.contextmanager
def _working(folder: Path, name: str, command: tuple[str, ...]) -> Iterator[None]:
    """Within it the page's jobs run ``command``, again and again, each time into another folder."""
    told = threading.Event()
    failed: list[str] = []

    async def work(over: asyncio.Event) -> None:
        jobs = Jobs(folder / "jobs", lambda *_: None)
        while not over.is_set():
            where = folder / "made" / str(time.monotonic_ns())
            where.parent.mkdir(exist_ok=True)
            out = f"{where}.onnx" if "extend" in command else str(where)
            jobs.start("try", "line-1", "", (Step(name, (*command, out)),), folder)
            told.set()
            while jobs.running is not None and not over.is_set():
                await asyncio.sleep(0.02)
            ended = jobs.last("try", "line-1")
            if jobs.running is None and ended is not None and ended.state != "done":
                failed.append("\n".join(ended.lines))
                break
        await jobs.close()

    loop, over = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(work(over)))
    thread.start()
    try:
        assert told.wait(10)
        # Until it has begun to compute.
        time.sleep(3)
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
    assert not failed, failed[0]


ROW: Final = Row("training and teaching beside the line yield to it", 3000, 600, measure)
