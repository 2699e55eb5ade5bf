"""Latency when triggers are rare, or a neighbour is busy, by how ONNX Runtime's threads wait.

    python -m benchmarks.speed.sparse [BUNDLE.onnx] [--pauses 0,0.1,0.5,2] [--seconds 40]

"station" is the engine itself: no spinning, each thread (the caller too) on a core of its own;
"loose" is the same threads where the kernel puts them; "spinning" is ONNX Runtime's default.
All in turns, each after its own pause.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.progress import Progress

from benchmarks.checkout import DEMO
from benchmarks.figures import Figure, publish
from benchmarks.speed.neighbour import busy_neighbour
from inspector.detection import bundle
from inspector.detection.bundle import INPUT
from inspector.detection.engines.base import Engine, default_threads
from inspector.detection.engines.onnxruntime import OnnxRuntimeBackend

FEWEST = 8
WARM_UP = 5
GOAL_BUSY = 2.0
GOAL_SPARSE = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.sparse", description=__doc__.splitlines()[0]
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--pauses", default="0,0.1,0.5,2", help="seconds before a picture")
    parser.add_argument("--seconds", type=float, default=40.0, help="for each pause")
    options = parser.parse_args()
    pauses = [float(text) for text in options.pauses.split(",")]
    file = bundle.read(options.bundle)
    picture = file.manifest.golden[0].image()[None]
    station = OnnxRuntimeBackend(Engine(provider="cpu"))
    station.load(file)
    ways = {
        "station": lambda: station.infer(picture),
        "loose": bare(file.data, picture, spins=False),
        "spinning": bare(file.data, picture, spins=True),
    }
    found = {}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("measuring", total=2 * len(pauses))
        for busy in (False, True):
            with busy_neighbour() if busy else contextlib.nullcontext():
                for pause in pauses:
                    found[busy, pause] = measure(ways, pause, options.seconds)
                    bar.advance(task)
    figures = []
    for (busy, pause), by_name in found.items():
        for name, times in by_name.items():
            when = f"{pause:g} s after the last{', busy neighbour' if busy else ''}: {name}"
            median = float(np.median(times))
            base = float(np.median(found[False, pauses[0]][name]))
            ratio = median / base
            goal = GOAL_BUSY if busy else GOAL_SPARSE
            figures.append(Figure(f"{when}, p50", median, "ms"))
            figures.append(Figure(f"{when}, p99", float(np.quantile(times, 0.99)), "ms"))
            if name == "station" and (busy or pause):
                figures.append(
                    Figure(
                        f"{when}, p50 / at once",
                        ratio,
                        "",
                        f"≤ {goal:g}",
                        ratio <= goal,
                    )
                )
    publish(
        "sparse",
        f"python -m benchmarks.speed.sparse --pauses {options.pauses} "
        f"--seconds {options.seconds:g}",
        figures,
    )


def bare(model: bytes, picture: np.ndarray, *, spins: bool) -> Callable[[], object]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {INPUT: picture})


def measure(
    ways: dict[str, Callable[[], object]], pause: float, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds of one picture each, after ``pause``; at once: after another of its own."""
    for infer in ways.values():
        for _ in range(WARM_UP):
            infer()
    times: dict[str, list[float]] = {name: [] for name in ways}
    chance = np.random.default_rng(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(times["station"]) < FEWEST:
        for name in chance.permutation(list(ways)):
            infer = ways[name]
            if pause:
                time.sleep(pause)
            else:
                infer()
            begun = time.perf_counter()
            infer()
            times[name].append((time.perf_counter() - begun) * 1e3)
    return times


if __name__ == "__main__":
    main()
