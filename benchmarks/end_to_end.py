"""From the trigger to the verdict in another process, and what the station adds to its model.

    python benchmarks/end_to_end.py                       # 20,000 parts, 1 to 8 cameras
    python benchmarks/end_to_end.py --quick               # does it work?
    python benchmarks/end_to_end.py --bundle part.onnx --photos PHOTOS --threads 2

``inspector run`` in a process of its own, as a user starts it, its journal on this disk. This
process is the PLC: it sends triggers over ZeroMQ and takes the verdicts from the verdict socket.
The cameras replay bitmaps (``kind: folder``, uncompressed): drawing parts would cost a core.
Reading the file stands for exposure and transfer; it is measured here as well. Blocks of parts with
and without a subscriber to heatmaps, of bare inference (the same bundle, provider and threads,
here) and of commits to an idle journal on the same disk take turns, so that the differences hold on
a machine whose speed wanders. Then cold starts, the CPU time of an idle station, and triggers at a
rising rate until one misses its deadline.
``results/end_to_end.json`` and ``.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import matplotlib as mpl
import numpy as np
import psutil
import yaml
import zmq
from figures import RESULTS, Figure, publish
from rich.console import Console
from rich.progress import Progress

from inspector import cameras
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.detection.detector import Detector
from inspector.imaging.folders import find_images
from inspector.imaging.images import read_image
from inspector.journal.writer import Journal
from inspector.wire.messages import VerdictMessage

mpl.use("Agg")

ROOT: Final = Path(__file__).resolve().parents[1]
CAMERAS: Final = (1, 2, 4, 8)
PARTS: Final = 40
"""Different pictures; one of twenty shows a defect."""
STAGES: Final = ("to the station", "picture", "wait", "judgement", "record and publish")
PATIENCE_S: Final = 5.0
LATE: Final = {"deadline_missed", "queue_full", "over_trigger"}

_EAR = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.RCVHWM, 20)
poller = zmq.Poller()
poller.register(socket, zmq.POLLIN)
poller.register(0, zmq.POLLIN)
while True:
    ready = dict(poller.poll())
    if 0 in ready:
        word = sys.stdin.readline().split()
        if not word:
            break
        if word[0] == "on":
            socket.subscribe(b"heatmap/")
        elif word[0] == "off":
            socket.unsubscribe(b"heatmap/")
        else:
            socket.connect(word[0])
        print(flush=True)
    if socket in ready:
        socket.recv_multipart()
"""


@dataclass
class Sample:
    """Latencies of one kind of block, ms: in all, and stage by stage."""

    total: list[float] = field(default_factory=list)
    stages: list[tuple[float, ...]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.total, share)) if self.total else float("nan")


def main() -> int:
    options = _options()
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as scratch,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bench = Bench(options, Path(scratch), progress)
        starts = bench.cold_starts()
        runs = {count: bench.run(count) for count in options.cameras}
    first = runs[options.cameras[0]]
    figures += _latency_figures(first, options.cameras[0], goals=True)
    for count in options.cameras[1:]:
        figures += _latency_figures(runs[count], count, goals=False)
    peak, cold = max(mb for _, mb in first.memory), float(np.median(starts))
    figures += [
        Figure("memory, 1 camera, PSS of the tree", peak, "MB", "<= 400", peak <= 400),
        Figure("  growth, last tenth - first tenth", first.growth_mb, "MB"),
        Figure("cold start to Ready, median", cold, "s", "<= 3", cold <= 3),
        Figure("CPU time of the idle station", first.idle_share * 100, "% of a core"),
    ]
    for count, run in runs.items():
        figures.append(Figure(f"rate until the deadline, {count} cameras", run.rate_hz, "parts/s"))
    publish(options.name, f"python benchmarks/end_to_end.py {' '.join(sys.argv[1:])}", figures)
    _draw(runs, RESULTS / f"{options.name}.png")
    return 0


@dataclass
class Run:
    """What one station with so many cameras did."""

    quiet: Sample = field(default_factory=Sample)
    """Nobody subscribes to heatmaps."""
    heard: Sample = field(default_factory=Sample)
    bare: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    """Of a camera's file."""
    commit: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, MB."""
    idle_share: float = 0.0
    rate_hz: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def growth_mb(self) -> float:
        values = [mb for _, mb in self.memory]
        tenth = max(1, len(values) // 10)
        return float(np.median(values[-tenth:]) - np.median(values[:tenth]))


class Bench:
    """The pictures, the bare model, and stations over them."""

    def __init__(self, options: argparse.Namespace, scratch: Path, progress: Progress) -> None:
        self._options = options
        self._scratch = scratch
        self._progress = progress
        self._parts = scratch / "parts"
        self._parts.mkdir()
        pictures = _pictures(options.photos)
        for number, picture in enumerate(pictures):
            cv2.imwrite(str(self._parts / f"{number:03}.bmp"), picture)
        self._files = sorted(self._parts.iterdir())
        self._detector = Detector.load(options.bundle, options.provider, options.threads)
        self._inputs = [self._detector.geometry.apply(picture)[np.newaxis] for picture in pictures]
        self._until = time.monotonic() + 60 * options.minutes

    def cold_starts(self) -> list[float]:
        """Seconds from the start of the process to Ready, as a subscriber hears it."""
        taken = []
        for _ in self._progress.track(range(self._options.starts), description="cold starts"):
            with self._station(1) as (_, plc):
                taken.append(plc.started_s)
        return taken

    def run(self, count: int) -> Run:
        """Latency, idle station and highest rate with ``count`` cameras."""
        run, options = Run(), self._options
        parts = options.parts if count == options.cameras[0] else max(200, options.parts // 10)
        blocks = max(2, parts // options.block)
        task = self._progress.add_task(f"{count} cameras", total=blocks + 2)
        share_s = max(1.0, self._until - time.monotonic()) * (0.6 if count == 1 else 0.3)
        until = time.monotonic() + share_s
        with self._station(count) as (station, plc), _ear(plc.addresses["images"]) as ear:
            began = time.monotonic()
            for _ in range(20):
                plc.round(Sample(), {})
            for block in range(blocks):
                if block > 3 and time.monotonic() > until:
                    break
                heard = block % 2 == 1
                ear("on" if heard else "off")
                sample = run.heard if heard else run.quiet
                for _ in range(options.block // count):
                    plc.round(sample, run.reasons)
                self._bare(run, max(5, options.block // 8))
                self._commits(run, max(3, options.block // 20))
                run.memory.append((time.monotonic() - began, pss_mb(station.pid)))
                self._progress.advance(task)
            ear("off")
            run.idle_share = idle_share(station.pid, 1.0 if options.quick else 3.0)
            self._progress.advance(task)
            run.rate_hz = plc.highest_rate(
                1e3 / float(np.median(run.bare)), 1.0 if options.quick else 2.5
            )
            self._progress.advance(task)
        return run

    def _bare(self, run: Run, times: int) -> None:
        for number in range(times + 1):
            began = time.perf_counter()
            self._detector.infer(self._inputs[number % len(self._inputs)])
            inferred = time.perf_counter()
            read_image(self._files[number % len(self._files)])
            if number:
                run.bare.append((inferred - began) * 1e3)
                run.reading.append((time.perf_counter() - inferred) * 1e3)

    def _commits(self, run: Run, times: int) -> None:
        with contextlib.closing(Journal(self._scratch / "idle")) as journal:
            epoch = str(uuid.uuid4())
            journal.begin(epoch, 0)
            for seq in range(1, times + 1):
                verdict = _verdict(epoch, seq)
                began = time.perf_counter()
                journal.commit([], [verdict])
                run.commit.append((time.perf_counter() - began) * 1e3)

    @contextlib.contextmanager
    def _station(self, count: int) -> Iterator[tuple[subprocess.Popen[bytes], Plc]]:
        """A station that is Ready, and its PLC."""
        options = self._options
        names = [f"cam{number}" for number in range(1, count + 1)]
        plc = Plc(names)
        document = {
            "station": "bench",
            "provider": options.provider,
            "threads": options.threads,
            "queue_size": 16,
            "sockets": plc.addresses,
            "journal": {"folder": str(self._scratch / "journal"), "reserve_mb": 1},
            "cameras": [
                {
                    "name": name,
                    "kind": "folder",
                    "path": str(self._parts),
                    "loop": True,
                    "trigger": "software",
                    "deadline_ms": options.deadline_ms,
                }
                for name in names
            ],
            "recipes": {"r": {name: {"bundle": str(options.bundle.resolve())} for name in names}},
            "recipe": "r",
        }
        path = self._scratch / "station.yaml"
        path.write_text(yaml.safe_dump(document))
        earlier = os.environ.get("PYTHONPATH", "")
        began = time.monotonic()
        with (
            (self._scratch / "station.log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "inspector", "run", str(path)],
                stderr=log,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{earlier}"},
            ) as child,
        ):
            try:
                if not plc.wait_until_ready(30.0):
                    log.flush()
                    raise SystemExit((self._scratch / "station.log").read_text())
                plc.started_s = time.monotonic() - began
                yield child, plc
                child.send_signal(signal.SIGTERM)
                child.wait(10)
            finally:
                plc.close()
                child.kill()


class Plc:
    """Sends triggers, receives verdicts; raw ZeroMQ and JSON, as a bridge in any language would."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._session = uuid.uuid4().hex[:8]
        self._number = 0
        self._context = zmq.Context()
        self._verdicts = self._context.socket(zmq.SUB)
        self._commands = self._context.socket(zmq.DEALER)
        self.addresses = _free_addresses()
        self.started_s = 0.0
        for socket, name in ((self._verdicts, "verdicts"), (self._commands, "commands")):
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.addresses[name])
        for kind in (b"verdict/bench/", b"status/bench/"):
            self._verdicts.subscribe(kind)

    def wait_until_ready(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = self._receive(0.1)
            if found is not None and found[1].get("state") == "Ready":
                return True
        return False

    def round(self, sample: Sample, reasons: dict[str, int]) -> None:
        """A part before all cameras at once: a trigger each, and a verdict each."""
        sent: dict[int, tuple[int, int]] = {}
        for name in self._names:
            number = self._next()
            sent[number] = time.perf_counter_ns(), time.time_ns() // 1000
            self._commands.send(self._command(name, number))
        until = time.monotonic() + PATIENCE_S
        while sent and time.monotonic() < until:
            found = self._receive(0.1)
            if found is None or "trigger_seq" not in found[1]:
                continue
            received_ns, received_us, message = found[0], time.time_ns() // 1000, found[1]
            began_ns, began_us = sent.pop(message["trigger_seq"])
            reasons[message["reason"]] = reasons.get(message["reason"], 0) + 1
            if message["judge_ms"] is None:
                continue
            sample.total.append((received_ns - began_ns) / 1e6)
            judged_us = message["judged_us"]
            marks = (
                *(began_us, message["triggered_us"], message["grabbed_us"]),
                *(judged_us - message["judge_ms"] * 1e3, judged_us, received_us),
            )
            stages = tuple((b - a) / 1e3 for a, b in itertools.pairwise(marks))
            sample.stages.append(stages)
        if sent:
            raise SystemExit(f"no verdict within {PATIENCE_S} s")
        self._drain()

    def highest_rate(self, model_hz: float, seconds: float) -> float:
        """Triggers a second, over all cameras in turn, before the first that came too late."""
        reached, rate_hz = 0.0, 0.5 * model_hz
        while rate_hz < 4 * model_hz:
            if not self._holds(rate_hz, seconds):
                break
            reached, rate_hz = rate_hz, rate_hz * 1.08
        return reached

    def _holds(self, rate_hz: float, seconds: float) -> bool:
        count, late, begun, due = max(10, int(rate_hz * seconds)), False, 0, time.monotonic()
        open_parts = 0
        patience = time.monotonic() + seconds + PATIENCE_S
        while (begun < count or open_parts) and time.monotonic() < patience:
            if begun < count and time.monotonic() >= due:
                name = self._names[begun % len(self._names)]
                self._commands.send(self._command(name, self._next()))
                begun, open_parts, due = begun + 1, open_parts + 1, due + 1 / rate_hz
                self._drain()
                continue
            wait_s = due - time.monotonic() if begun < count else 0.2
            found = self._receive(max(0.0, min(0.2, wait_s)))
            if found is not None and "trigger_seq" in found[1]:
                open_parts -= 1
                late |= found[1]["reason"] in LATE
        return not late and not open_parts

    def close(self) -> None:
        for socket in (self._verdicts, self._commands):
            socket.close()
        self._context.term()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _command(self, name: str, number: int) -> bytes:
        command = {
            "schema": 1,
            "command": "trigger",
            "camera": name,
            "session": self._session,
            "trigger_seq": number,
            "part_id": f"{self._session}-{number}",
        }
        return json.dumps(command).encode()

    def _receive(self, timeout_s: float) -> tuple[int, dict[str, Any]] | None:
        if not self._verdicts.poll(int(timeout_s * 1000)):
            return None
        frames = self._verdicts.recv_multipart()
        received_ns = time.perf_counter_ns()
        return received_ns, json.loads(frames[1])

    def _drain(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self._commands.recv(zmq.NOBLOCK)


@contextlib.contextmanager
def _ear(images: str) -> Iterator[Any]:
    """A process that subscribes to heatmaps, or not: call it with "on" or "off"."""
    with subprocess.Popen(
        [sys.executable, "-c", _EAR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:

        def say(word: str) -> None:
            assert child.stdin and child.stdout
            child.stdin.write(word + "\n")
            child.stdin.flush()
            child.stdout.readline()

        say(images)
        yield say
        child.kill()


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    mother = psutil.Process(pid)
    return [mother, *mother.children(recursive=True)]


def pss_mb(pid: int) -> float:
    """Proportional set size of a process tree: pages it shares with others count by their share."""
    kib = 0
    for process in tree(pid):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        kib += int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]
    return kib * 1024 / 1e6


def idle_share(pid: int, seconds: float) -> float:
    """CPU seconds a second that a process tree takes while nothing happens."""

    def spent() -> float:
        times = [process.cpu_times() for process in tree(pid)]
        return sum(one.user + one.system for one in times)

    before = spent()
    time.sleep(seconds)
    return (spent() - before) / seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "config" / "demo.onnx")
    parser.add_argument("--photos", type=Path, help="at camera size; default: the simulator's")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: ONNX Runtime's choice")
    parser.add_argument("--parts", type=int, default=20_000)
    parser.add_argument(
        "--cameras", type=lambda text: tuple(map(int, text.split(","))), default=CAMERAS
    )
    parser.add_argument("--block", type=int, default=200, help="parts before the next takes turns")
    parser.add_argument("--deadline-ms", type=int, default=250)
    parser.add_argument("--minutes", type=float, default=15.0, help="for all; fewer parts then")
    parser.add_argument("--starts", type=int, default=5, help="cold ones")
    parser.add_argument("--folder", type=Path, help="where the journal is; default: TMPDIR")
    parser.add_argument("--quick", action="store_true", help="400 parts, 1 and 2 cameras")
    parser.add_argument("--name", default="end_to_end", help="of the files in results")
    options = parser.parse_args()
    if options.quick:
        options.parts, options.cameras, options.block, options.starts = 400, (1, 2), 50, 2
        options.name += "" if options.name != "end_to_end" else "_quick"
    return options


def _pictures(photos: Path | None) -> list[Any]:
    if photos is not None:
        return [read_image(path) for path in find_images(photos)[:PARTS]]
    found = []
    for rate, count in ((0.0, PARTS - PARTS // 20), (1.0, PARTS // 20)):
        config = SimulatorCamera(
            name="belt", kind="simulator", rate_hz=0, seed=7, defect_rate=rate, parts=count
        )
        camera = cameras.create(config)
        camera.open()
        while (frame := camera.grab(2000)) is not None:
            found.append(frame.image)
        camera.close()
    return found


def _free_addresses() -> dict[str, str]:
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        found = {}
        for name in ("verdicts", "images", "commands"):
            socket = stack.enter_context(context.socket(zmq.PUB))
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            found[name] = f"tcp://127.0.0.1:{port}"
        return found


def _verdict(epoch: str, seq: int) -> VerdictMessage:
    return VerdictMessage(
        station="bench",
        camera="cam1",
        epoch=epoch,
        seq=seq,
        part_id=f"part-{seq}",
        trigger_seq=None,
        verdict="PASS",
        score=0.5,
        reason="",
        detail="",
        limit_factor=1.0,
        regions=(),
        model=None,
        recipe="r",
        triggered_us=None,
        grabbed_us=1,
        judged_us=time.time_ns() // 1000,
        queue_ms=0.1,
        judge_ms=3.0,
    )


def _latency_figures(run: Run, count: int, goals: bool) -> list[Figure]:
    who = f"{count} cameras" if count > 1 else "1 camera"
    bare, commit = float(np.median(run.bare)), float(np.median(run.commit))
    p50, p99 = run.quiet.quantile(0.5), run.quiet.quantile(0.99)
    # All cameras look at one part at once: the last verdict waits for all models before it.
    extra = p50 - bare * (count + 1) / 2
    own = extra - float(np.median(run.reading))
    figures = [Figure(f"{who}: trigger to verdict, p50", p50, "ms")]
    if goals:
        figures.append(Figure("  less the bare model", extra, "ms", "<= 2", extra <= 2))
        figures.append(Figure("  less the camera's file, too", own, "ms"))
        figures.append(Figure("  p99", p99, "ms", "<= 1.5 x p50", p99 <= 1.5 * p50))
        ratio = float(np.quantile(run.bare, 0.99)) / bare
        figures.append(Figure("  p99 / p50", p99 / p50, ""))
        figures.append(Figure("  p99 / p50 of the bare model", ratio, ""))
    else:
        figures.append(Figure("  less the bare models before it, mean", extra, "ms"))
        figures.append(Figure("  p99", p99, "ms"))
    figures += [
        Figure("  p99.9", run.quiet.quantile(0.999), "ms"),
        Figure("  with heatmaps heard, p50", run.heard.quantile(0.5), "ms"),
        Figure("  with heatmaps heard, p99", run.heard.quantile(0.99), "ms"),
        Figure("  bare model, p50", bare, "ms"),
        Figure("  bare model, p99", float(np.quantile(run.bare, 0.99)), "ms"),
        Figure("  one commit to an idle journal, p50", commit, "ms"),
        Figure("  one commit to an idle journal, p99", float(np.quantile(run.commit, 0.99)), "ms"),
    ]
    stages = np.median(np.asarray(run.quiet.stages), axis=0)
    figures += [
        Figure(f"  {name}, p50", float(ms), "ms") for name, ms in zip(STAGES, stages, strict=True)
    ]
    figures.append(Figure("  parts", len(run.quiet.total) + len(run.heard.total), ""))
    late = sum(number for reason, number in run.reasons.items() if reason in LATE)
    figures.append(Figure("  of them too late", late, ""))
    return figures


def _draw(runs: dict[int, Run], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for count, run in runs.items():
        for sample, style in ((run.quiet, "-"), (run.heard, ":")):
            total = np.sort(sample.total)
            label = f"{count} cameras{', heatmaps heard' if style == ':' else ''}"
            left.plot(total, 1 - np.arange(len(total)) / len(total), style, label=label)
    first = next(iter(runs.values()))
    bare = np.sort(first.bare)
    left.plot(bare, 1 - np.arange(len(bare)) / len(bare), "k--", label="bare model")
    left.set(yscale="log", xscale="log", xlabel="ms", ylabel="share of parts slower than that")
    left.set_title("trigger to verdict in another process")
    left.legend(fontsize=7)
    for count, run in runs.items():
        right.plot(*zip(*run.memory, strict=True), label=f"{count} cameras")
    right.set(xlabel="s", ylabel="MB", ylim=(0, None), title="memory of the process tree (PSS)")
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
