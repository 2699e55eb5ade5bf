"""What the line notices of browsers that mean it no good; the page may suffer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from benchmarks.console import stand
from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.client import Commander
from tests.console import serving

_NICE: Final = 10

_STRANGERS: Final = """
import contextlib, os, socket, sys, threading, time
host, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
head = f"Host: {host}:{port}\\r\\n"

def slow_reader():
    one = socket.create_connection((host, port))
    one.sendall(f"GET /api/events HTTP/1.1\\r\\n{head}\\r\\n".encode())
    time.sleep(3600)

def gigabytes():
    piece = b"x" * 65536
    ask = f"POST /api/stations/line-1/deeds/mark HTTP/1.1\\r\\n{head}X-CSRF-Token: {token}\\r\\n"
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 10) as one:
            one.sendall(f"{ask}Content-Length: 1000000000\\r\\n\\r\\n".encode())
            for _ in range(1_000_000_000 // len(piece)):
                one.sendall(piece)
        time.sleep(0.05)

def thousand():
    held = []
    while True:
        while len(held) < 1000:
            with contextlib.suppress(OSError):
                one = socket.socket()
                one.settimeout(1)
                one.connect((host, port))
                one.sendall(b"GET / HTTP/1.1\\r\\n")
                held.append(one)
        time.sleep(0.5)
        for one in held[::4]:
            one.close()
        del held[::4]

# Strangers have machines of their own.
os.nice(19)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
for work in (slow_reader, gigabytes, thousand):
    threading.Thread(target=work, daemon=True).start()
print("here", flush=True)
time.sleep(3600)
"""
"""A slow reader, bodies of 1 GB, and a thousand connections that never say what they want."""


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` parts, in blocks of 100 in turn with and without strangers at the page."""
    found: dict[bool, list[float]] = {True: [], False: []}
    answers: dict[bool, list[float]] = {True: [], False: []}
    lost = 0
    with (
        stand.line(folder, triggered=True) as daemon,
        stand.page_of(folder, daemon) as served,
        Commander(daemon.commands, timeout_s=30) as commander,
    ):
        # As the unit of the page has it.
        os.setpriority(os.PRIO_PROCESS, served.child.pid, _NICE)
        number = 0
        stand.block(commander, number)  # what is slow at first is over
        number += stand.BLOCK
        while number < trials + stand.BLOCK:
            for is_besieged in (False, True):
                siege = _strangers(served) if is_besieged else contextlib.nullcontext()
                with siege, _asking(served.url, answers[is_besieged]):
                    taken, faults = stand.block(commander, number)
                found[is_besieged] += taken
                lost += faults
                number += stand.BLOCK
                tick(min(number - stand.BLOCK, trials), trials)
    figures = []
    for share, goal in ((0.5, 1.05), (0.99, 1.25)):
        without, besieged = (quantile(found[one], share) for one in (False, True))
        label, ratio = f"p{100 * share:g}", besieged / without
        figures += [
            Figure(f"trigger to verdict without, {label}", round(without, 3), "ms"),
            Figure(f"with strangers, {label}", round(besieged, 3), "ms"),
            Figure(f"ratio, {label}", round(ratio, 3), "", f"≤ {goal}", ratio <= goal),
        ]
    figures.append(Figure("parts that were not judged", lost, "", "none", lost == 0))
    for is_besieged, name in ((False, "without"), (True, "with strangers")):
        ms = quantile(answers[is_besieged], 0.5)
        figures.append(Figure(f"an answer of the page {name}, p50", round(ms, 1), "ms"))
    refused = answers[True].count(_REFUSED_MS) / max(1, len(answers[True]))
    figures.append(Figure("answers of the page that fail meanwhile", round(refused, 3), "share"))
    return figures


_REFUSED_MS: Final = float("inf")


@contextlib.contextmanager
def _asking(url: str, taken: list[float]) -> Iterator[None]:
    """Within it somebody asks the page five times a second who they are; ms of each answer."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.2):
            begun_s = time.monotonic()
            try:
                httpx.get(f"{url}api/session", timeout=5).raise_for_status()
            except httpx.HTTPError:
                taken.append(_REFUSED_MS)
            else:
                taken.append(1000 * (time.monotonic() - begun_s))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _strangers(served: serving.Served) -> Iterator[None]:
    where = urlsplit(served.url)
    token = str(served.client.headers["X-CSRF-Token"])
    command = [sys.executable, "-c", _STRANGERS, str(where.hostname), str(where.port), token]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"here\n"
            time.sleep(1)
            yield
        finally:
            child.kill()


ROW: Final = Row("strangers at the page do not reach the line", 3000, 600, measure)
