"""Real stations for tests: parts, a station file, the daemon in a process of its own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from inspector.client import Gap, Heatmap, Subscriber
from inspector.frame import encode_png
from inspector.wire import StatusMessage, VerdictMessage

START_S = 20.0
FREE = {"verdicts": "tcp://127.0.0.1:*", "images": "tcp://127.0.0.1:*"}


def write_parts(folder: Path, *pictures: np.ndarray) -> Path:
    """The pictures as 000.png, 001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        (folder / f"{number:03}.png").write_bytes(encode_png(picture))
    return folder


def folder_camera(path: Path, name: str = "top", **keys: Any) -> dict[str, Any]:
    return {"name": name, "kind": "folder", "path": str(path), **keys}


def write_station(path: Path, bundle: Path, *cameras: dict[str, Any], **keys: Any) -> Path:
    """A station file on free ports; every camera has the same bundle."""
    recipe = {camera["name"]: {"bundle": str(bundle)} for camera in cameras}
    document = {
        "station": "line-1",
        "provider": "cpu",
        "threads": 1,
        "sockets": FREE,
        "cameras": list(cameras),
        "recipes": {"r": recipe},
        "recipe": "r",
    }
    path.write_text(yaml.safe_dump(document | keys), encoding="utf-8")
    return path


def inspector(*arguments: str | Path) -> tuple[int, str, str]:
    """One ``inspector`` command to its end: exit code, standard output, standard error."""
    return at_once(arguments)[0]


def at_once(*commands: Sequence[str | Path]) -> list[tuple[int, str, str]]:
    """Several commands side by side, each to its end."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "inspector.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in commands
    ]
    try:
        said = [child.communicate(timeout=START_S) for child in children]
    finally:
        for child in children:
            child.kill()
    return [(child.returncode, *text) for child, text in zip(children, said, strict=True)]


class Running:
    """A daemon that runs."""

    def __init__(self, child: subprocess.Popen[bytes], log_path: Path) -> None:
        self.child = child
        self._log_path = log_path
        found = self.wait_for_log(r" listening verdicts=(\S+) images=(\S+)\n")
        self.verdicts, self.images = found[1], found[2]

    @property
    def log(self) -> str:
        return self._log_path.read_text(encoding="utf-8")

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            ended = self.child.poll() is not None
            if found := re.search(pattern, self.log):
                return found
            assert not ended, f"daemon ended with {self.child.returncode}: {self.log}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in the log: {self.log}")

    def subscriber(self, **options: Any) -> Subscriber:
        return Subscriber(self.verdicts, self.images, from_start=True, **options)


@contextlib.contextmanager
def running(station: Path, *options: str, program: str = "") -> Iterator[Running]:
    """``inspector run``, or a ``program`` around it; killed when still there at the end."""
    log = station.with_suffix(".log")
    command = [sys.executable, "-m", "inspector.cli", "run", str(station), *options]
    if program:
        command = [sys.executable, "-c", program, str(station)]
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as child:
        try:
            yield Running(child, log)
        finally:
            if child.poll() is None:
                child.kill()


def items(subscriber: Subscriber, quiet_ms: int = 300) -> Iterator[Any]:
    """Everything until the station has halted and its pictures are here."""
    halted, deadline = False, time.monotonic() + 30.0
    while time.monotonic() < deadline:
        item = subscriber.receive(quiet_ms)
        if item is None and halted:
            return
        if item is not None:
            yield item
            halted = halted or (isinstance(item, StatusMessage) and item.state == "Halted")
    raise AssertionError("the station did not halt")


class Heard:
    """Everything a station said, sorted."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.order = list(items(subscriber))
        self.verdicts = [item for item in self.order if isinstance(item, VerdictMessage)]
        self.heatmaps = [item for item in self.order if isinstance(item, Heatmap)]
        self.statuses = [item for item in self.order if isinstance(item, StatusMessage)]
        self.gaps = [item for item in self.order if isinstance(item, Gap)]


def judge_all(station: Path) -> Heard:
    """Run a station whose cameras end, and hear everything."""
    with running(station, "--wait-for-subscriber", "10") as daemon:
        with daemon.subscriber() as subscriber:
            heard = Heard(subscriber)
        assert daemon.child.wait(10) == 0, daemon.log
    assert heard.gaps == []
    assert [verdict.seq for verdict in heard.verdicts] == list(range(1, len(heard.verdicts) + 1))
    return heard
