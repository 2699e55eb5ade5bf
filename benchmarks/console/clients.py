"""What the line notices of ten browsers that follow it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.console import stand
from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.client import Commander

CLIENTS: Final = 10
_BLOCK: Final = 100
_PAUSE_S: Final = 0.05
"""Between two parts: twenty a second."""

_READER: Final = """
import select, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
open_ = []
for _ in range(count):
    one = socket.create_connection((host, port))
    one.sendall(f"GET /api/events HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n".encode())
    open_.append(one)
print("open", flush=True)
while True:
    for one in select.select(open_, [], [])[0]:
        one.recv(1 << 16) or sys.exit("the page hung up")
"""
"""In a process of its own, since browsers do not run in the line's."""


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` parts, in blocks of 100 in turn with and without ten event streams."""
    found: dict[bool, list[float]] = {True: [], False: []}
    with (
        stand.line(folder, triggered=True) as daemon,
        stand.page_of(folder, daemon) as served,
        Commander(daemon.commands) as commander,
    ):
        number = 0
        _block(commander, number, _BLOCK)  # what is slow at first is over
        number += _BLOCK
        while number < trials + _BLOCK:
            for watched in (False, True):
                with _watching(served.url) if watched else contextlib.nullcontext():
                    found[watched] += _block(commander, number, _BLOCK)
                number += _BLOCK
                tick(min(number - _BLOCK, trials), trials)
    figures = []
    for share, goal in ((0.5, 1.05), (0.99, 1.25)):
        without, watched_ms = quantile(found[False], share), quantile(found[True], share)
        ratio = watched_ms / without
        label = f"p{100 * share:g}"
        figures += [
            Figure(f"trigger to verdict without, {label}", round(without, 3), "ms"),
            Figure(f"with ten streams, {label}", round(watched_ms, 3), "ms"),
            Figure(f"ratio, {label}", round(ratio, 3), "", f"≤ {goal}", ratio <= goal),
        ]
    return figures


def _block(commander: Commander, first: int, count: int) -> list[float]:
    """ms from each trigger to its verdict."""
    taken = []
    for number in range(first + 1, first + count + 1):
        begun_s = time.monotonic()
        commander.trigger("top", number)
        taken.append(1000 * (time.monotonic() - begun_s))
        time.sleep(_PAUSE_S)
    return taken


@contextlib.contextmanager
def _watching(url: str) -> Iterator[None]:
    where = urlsplit(url)
    command = [sys.executable, "-c", _READER, str(where.hostname), str(where.port), str(CLIENTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"open\n"
            yield
        finally:
            child.kill()


ROW: Final = Row("browsers cost the line nothing", 6000, 600, measure)
