"""Memory of each model alone, then the times of all in turns; each model in its own process."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import select
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track

from benchmarks.checkout import ROOT, environment
from benchmarks.speed.rivals.environments import last_line, python_of
from benchmarks.speed.rivals.plan import Entry, Source
from benchmarks.speed.rivals.report import Row

WARM_UP: Final = 5
TIMED: Final = 3
"""Runs timed in a turn, after one that is not."""
REST_S: Final = 0.005
"""Before a turn: the threads of the model before it have stopped spinning."""
START_S: Final = 120.0


class Worker:
    """``worker.py`` with one model. Raises :class:`RuntimeError` with its last words."""

    def __init__(self, python: str, spec: dict[str, Any], log: Path) -> None:
        self._log = log
        self.peak_mb = 0.0
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.speed.rivals.worker", json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment(),
            )

    def ready(self, *, watched: bool = False) -> dict[str, Any]:
        """Shape of the map and a note, once it has run. ``watched``: memory is followed."""
        answer: dict[str, Any] = self._answer(watched)
        return answer

    def run(self, count: int, *, watched: bool = False) -> list[float]:
        """Milliseconds of ``count`` runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{count}\n".encode())
            self._process.stdin.flush()
        answer: list[float] = self._answer(watched)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _answer(self, watched: bool) -> Any:
        pipe = self._process.stdout
        assert pipe is not None
        until = time.monotonic() + START_S
        while not select.select([pipe], [], [], REST_S if watched else START_S)[0]:
            if time.monotonic() >= until:
                raise RuntimeError(f"no answer within {START_S:g} s")
            if watched:
                self.peak_mb = max(self.peak_mb, self._memory_mb())
        line = pipe.readline()
        if not line:
            raise RuntimeError(last_line(self._log.read_text(errors="replace")))
        return json.loads(line)

    def _memory_mb(self) -> float:
        """Proportional set size; 0 when it has just ended."""
        try:
            lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def measure(
    group: str, entries: Sequence[Entry], lacking: dict[Source, str], options: argparse.Namespace
) -> list[Row]:
    """Memory of each model alone, then all of them in turns."""
    root: Path = options.environments
    rows = {entry.name: Row(entry.name) for entry in entries}
    workers: dict[tuple[str, bool], Worker] = {}
    with contextlib.ExitStack() as stack:
        for entry in track(entries, f"{group}: memory", console=Console(stderr=True)):
            row = rows[entry.name]
            if entry.source in lacking:
                row.note = lacking[entry.source]
                continue
            row.model_mb = model_mb(root / "models" / entry.source.folder / entry.file)
            try:
                row.memory_mb = peak_mb(entry, root)
            except RuntimeError as error:
                row.note = str(error)
        for entry in entries:
            row = rows[entry.name]
            if row.note:
                continue
            for whole in (False, True) if entry.whole[0] else (False,):
                worker = start(entry, root, whole=whole)
                stack.callback(worker.close)
                try:
                    told = worker.ready()
                except RuntimeError as error:
                    row.note = f"whole path: {error}" if whole else str(error)
                    continue
                workers[entry.name, whole] = worker
                if not whole:
                    row.map, row.note = told["map"], told["note"]
        times = _rounds(workers, options.rounds, group)
    for (name, whole), found in times.items():
        if whole:
            rows[name].whole_p50 = statistics.median(found)
        else:
            rows[name].p50 = statistics.median(found)
            rows[name].p90 = statistics.quantiles(found, n=10)[-1]
    return list(rows.values())


def _rounds(
    workers: dict[tuple[str, bool], Worker], count: int, group: str
) -> dict[tuple[str, bool], list[float]]:
    found: dict[tuple[str, bool], list[float]] = {key: [] for key in workers}
    chance = random.Random(0)
    for _ in track(range(count), f"{group}: rounds", console=Console(stderr=True)):
        for key in chance.sample(list(workers), len(workers)):
            time.sleep(REST_S)
            found[key] += workers[key].run(TIMED)
    return found


def peak_mb(entry: Entry, root: Path) -> float:
    """Measured once for each model and the options it runs with: what else runs does not matter."""
    settings = "-".join(str(value) for _, value in entry.options)
    kept = root / "models" / entry.source.folder / f"memory-{entry.kind}-{settings}"
    kept = kept.with_name(f"{kept.name}-{Path(entry.file).stem}")
    if kept.exists():
        return float(kept.read_text())
    worker = start(entry, root)
    try:
        worker.ready(watched=True)
        worker.run(2 * WARM_UP, watched=True)
    finally:
        worker.close()
    kept.write_text(str(worker.peak_mb))
    return worker.peak_mb


def start(entry: Entry, root: Path, *, whole: bool = False) -> Worker:
    """A worker that loads the entry's model; ``whole``: with its package's path around it."""
    folder = root / "models" / entry.source.folder
    kind, file = entry.whole if whole else (entry.kind, entry.file)
    spec = dict(entry.options) | {
        "kind": kind,
        "model": str(folder / file),
        "input": str(folder / "input.npy"),
        "size": [entry.source.size, entry.source.size],
        "warm_up": WARM_UP,
    }
    if whole:
        spec["frame"] = str(next(iter(sorted((root / "photos" / "train" / "good").iterdir()))))
    # One ONNX Runtime for all bare models; OpenVINO and packages' own paths in their environment.
    package = "ours" if kind == "onnxruntime" else entry.source.package
    return Worker(python_of(package, root), spec, folder / f"worker-{kind}.log")


def model_mb(file: Path) -> float:
    """Of a model with the weights beside it: those of OpenVINO, and ONNX's external data."""
    beside = [file, file.with_suffix(".bin"), file.with_name(f"{file.name}.data")]
    return sum(path.stat().st_size for path in beside if path.exists()) / 1e6
