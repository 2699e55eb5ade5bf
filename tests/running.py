"""Real stations for tests: parts, a station file, the daemon in a process of its own."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from inspector.cli import main as cli
from inspector.client.subscriber import Gap, Heatmap, Subscriber
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.wire.messages import StatusMessage, VerdictMessage
from tests import tiny
from tests.commands import Started, environment, start
from tests.loops import loop_put_aside

START_S = 20.0
FREE = dict.fromkeys(("verdicts", "images", "commands"), "tcp://127.0.0.1:*")


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
        # Which PASS is kept as a sample depends on the epoch, and so on chance.
        "journal": {"folder": str(path.parent / "journal"), "reserve_mb": 1, "pass_share": 0},
        "cameras": list(cameras),
        "recipes": {"r": recipe},
        "recipe": "r",
    }
    # Sockets that a test does not name are free ones, too: tests run side by side.
    keys["sockets"] = FREE | keys.get("sockets", {})
    path.write_text(yaml.safe_dump(document | keys), encoding="utf-8")
    return path


def inspector(*arguments: str | Path) -> tuple[int, str, str]:
    """One ``inspector`` command to its end: exit code, standard output, standard error."""
    return at_once(arguments)[0]


def at_once(*commands: Sequence[str | Path]) -> list[tuple[int, str, str]]:
    """Several commands side by side, each to its end."""
    with contextlib.ExitStack() as stack:
        files = [
            [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)] for _ in commands
        ]
        children = [
            start(arguments, stdout=out, stderr=err)
            for arguments, (out, err) in zip(commands, files, strict=True)
        ]
        try:
            codes = [child.wait(timeout=START_S) for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        for both in files:
            for file in both:
                file.seek(0)
        said = [[file.read().decode() for file in both] for both in files]
    return [(code, out, err) for code, (out, err) in zip(codes, said, strict=True)]


def inside(*arguments: str | Path) -> tuple[int, str, str]:
    """As ``inspector``, but in this process: half a second less of importing."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    with (
        loop_put_aside(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.main(words)
    return code, out.getvalue(), err.getvalue()


class Running:
    """A daemon that runs."""

    def __init__(self, child: Started | subprocess.Popen[bytes], log_path: Path) -> None:
        self.child = child
        self._log_path = log_path
        found = self.wait_for_log(r" listening verdicts=(\S+) images=(\S+)\n")
        self.verdicts, self.images = found[1], found[2]

    @property
    def commands(self) -> str:
        return self.wait_for_log(r" commands address=(\S+)\n")[1]

    @property
    def queries(self) -> str:
        return self.wait_for_log(r" queries address=(\S+)\n")[1]

    @property
    def log(self) -> str:
        return self._log_path.read_text(encoding="utf-8")

    def wait_for_log(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
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
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("wb"))
        if program:
            command = [sys.executable, "-c", program, str(station)]
            child: Any = subprocess.Popen(command, stderr=errors, env=environment())
        else:
            child = start(["run", station, *options], stderr=errors)
        stack.enter_context(child)
        try:
            yield Running(child, log)
        finally:
            if child.poll() is None:
                child.kill()


def items(subscriber: Subscriber, quiet_ms: int = 300) -> Iterator[Any]:
    """Everything until the station has halted and its pictures are here."""
    halted, deadline = False, time.monotonic() + 60.0
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

    def __init__(self, subscriber: Subscriber, quiet_ms: int = 300) -> None:
        self.order = list(items(subscriber, quiet_ms))
        self.verdicts = [item for item in self.order if isinstance(item, VerdictMessage)]
        self.heatmaps = [item for item in self.order if isinstance(item, Heatmap)]
        self.statuses = [item for item in self.order if isinstance(item, StatusMessage)]
        self.gaps = [item for item in self.order if isinstance(item, Gap)]


def judge_all(station: Path, quiet_ms: int = 300) -> Heard:
    """Run a station whose cameras end, and hear everything until nothing came for ``quiet_ms``."""
    with running(station, "--wait-for-subscriber", "10") as daemon:
        with daemon.subscriber() as subscriber:
            heard = Heard(subscriber, quiet_ms)
        assert daemon.child.wait(START_S) == 0, daemon.log
    assert heard.gaps == []
    assert [verdict.seq for verdict in heard.verdicts] == list(range(1, len(heard.verdicts) + 1))
    return heard


class _Stream(BaseHTTPRequestHandler):
    """A network camera: motion JPEG over HTTP."""

    def do_GET(self):
        self.server.unplugged.wait(self.server.answers_after_s)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()
        number = 0
        while not self.server.unplugged.wait(0.04):
            number += 1
            picture = tiny.good_picture()
            picture[0, 0] = tiny.GREY + 16 * (number % 3)  # as a sensor has noise
            jpeg = encode_jpeg(picture)
            head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return

    def log_message(self, *_):
        pass


class _Camera(ThreadingHTTPServer):
    def process_request(self, request, client_address):
        """Serve a client in a thread that bears the name of the one that takes clients."""
        name = f"{threading.current_thread().name} request"
        told = (request, client_address)
        threading.Thread(
            target=self.process_request_thread, args=told, name=name, daemon=True
        ).start()


class Plug:
    """Plugs the network camera in and out."""

    def __init__(self, port: int = 0, answers_after_s: float = 0.0) -> None:
        self.server = _Camera(("127.0.0.1", port), _Stream)
        self.server.unplugged = threading.Event()
        self.server.answers_after_s = answers_after_s
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(
            target=self.server.serve_forever, args=(0.05,), name=f"camera-{self.port}"
        )
        self._thread.start()

    def pull(self) -> None:
        self.server.unplugged.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def until(subscriber: Subscriber, wanted: Callable[[Any], bool]) -> Iterator[VerdictMessage]:
    """The verdicts up to the first item that is ``wanted``; that one too when it is a verdict."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        item = subscriber.receive(200)
        if isinstance(item, VerdictMessage):
            yield item
        if item is not None and wanted(item):
            return
    raise AssertionError("it did not come")
