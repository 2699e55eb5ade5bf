"""Stations in processes of their own, and what they are compared with, measured in turns."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import psutil
import yaml
from rich.progress import Progress

from benchmarks.checkout import environment
from benchmarks.speed.end_to_end.plc import Plc
from benchmarks.speed.end_to_end.report import Run, Sample
from inspector import cameras
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.detection.detector import Detector
from inspector.imaging.folders import find_images
from inspector.imaging.images import read_image
from inspector.journal.writer import Journal
from inspector.wire.messages import VerdictMessage

PARTS: Final = 40
"""Different pictures; one of twenty shows a defect."""

_EAR: Final = """
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
        began = time.monotonic()
        with (
            (self._scratch / "station.log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "inspector", "run", str(path)],
                stderr=log,
                env=environment(),
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
    return sum(int(process.memory_full_info().pss) for process in tree(pid)) / 1e6


def idle_share(pid: int, seconds: float) -> float:
    """CPU seconds a second that a process tree takes while nothing happens."""

    def spent() -> float:
        times = [process.cpu_times() for process in tree(pid)]
        return sum(one.user + one.system for one in times)

    before = spent()
    time.sleep(seconds)
    return (spent() - before) / seconds


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
