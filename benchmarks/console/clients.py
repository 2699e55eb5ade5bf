"""What the line notices of ten browsers that follow it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
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
        stand.block(commander, number)[0]  # what is slow at first is over
        number += stand.BLOCK
        while number < trials + stand.BLOCK:
            for watched in (False, True):
                with _watching(served.url) if watched else contextlib.nullcontext():
                    found[watched] += stand.block(commander, number)[0]
                number += stand.BLOCK
                tick(min(number - stand.BLOCK, trials), trials)
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
