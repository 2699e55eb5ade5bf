"""``python -m inspector`` in processes of their own that do not import everything anew.

A server that has the packages imported is forked for each command: the same process as one that
was started the plain way, but for half a second to a second of its CPU time.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tests.paths import ROOT

IMPORTED = (
    *("inspector.cli.run", "inspector.cli.check", "inspector.cli.bridge", "inspector.cli.console"),
    *("inspector.bridges.modbus", "inspector.bridges.opcua", "inspector.console.server"),
)
"""Modules that the server has imported, with all that these import."""

_MOST = 1 << 20


def environment() -> dict[str, str]:
    """For child processes, that they import the packages of this checkout wherever they start."""
    earlier = os.environ.get("PYTHONPATH")
    path = str(ROOT) if not earlier else f"{ROOT}{os.pathsep}{earlier}"
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def start(
    words: Sequence[str | Path],
    *,
    stdin: int = 0,
    stdout: BinaryIO | int = 1,
    stderr: BinaryIO | int = 2,
) -> Started | subprocess.Popen[bytes]:
    """``inspector`` with these words; the streams are files or their descriptors."""
    said = [str(word) for word in words]
    if "PYTEST_CURRENT_TEST" in os.environ and SERVER.serves(environment()):
        return SERVER.start(said, [stdin, stdout, stderr])
    command = [sys.executable, "-m", "inspector", *said]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment())


class Started:
    """A process, with those methods of :class:`subprocess.Popen` that tests use."""

    def __init__(self, pid: int, ended: socket.socket) -> None:
        self.pid, self.returncode = pid, None
        self._ended = ended

    def poll(self) -> int | None:
        return self._ask(0.0)

    def wait(self, timeout: float | None = None) -> int:
        if self._ask(timeout) is None:
            raise subprocess.TimeoutExpired("inspector", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _ask(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            ready, _, _ = select.select([self._ended], [], [], timeout)
            if ready:
                said = self._ended.recv(32)
                assert said, "the server of commands ended"
                self.returncode = int(said)
                self._ended.close()
        return self.returncode


class Server:
    """Started with the first command, and once in a test process."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._read: dict[str, str] = {}

    def serves(self, env: dict[str, str]) -> bool:
        """Whether a process with these variables can be forked here."""
        # An interpreter and its loader read these as they start: another value needs another one.
        read = {key: env[key] for key in env if key.startswith(("PYTHON", "LD_", "MALLOC_"))}
        if self.child is None:
            self._read = read
        return hasattr(os, "pidfd_open") and read == self._read

    def start(self, words: list[str], streams: list[BinaryIO | int]) -> Started:
        """A command with standard input, output and error, in the current folder."""
        if self.child is None or self.child.poll() is not None:
            self._begin()
        assert self._orders is not None
        # Its messages are told apart: the process may have ended before its number is read.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        files = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
        order = json.dumps({"words": words, "env": environment(), "cwd": str(Path.cwd())}).encode()
        with theirs:
            handed = array.array("i", [*files, theirs.fileno()])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)]
            self._orders.sendmsg([order], rights)
        return Started(int(ours.recv(32)), ours)

    def end(self) -> None:
        if self.child is not None and self._orders is not None:
            self._orders.close()
            self.child.wait()
            self.child = None

    def _begin(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        with theirs:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "tests.commands", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment(),
            )


SERVER = Server()


def serve(orders: socket.socket) -> list[str] | None:
    """In the server: until its test process ends. In a forked process: the words of its command."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([orders, *running], [], [])
        for watched in set(ready) - {orders}:
            pid, told = running.pop(watched)
            os.close(watched)
            status = os.waitpid(pid, 0)[1]
            with told, contextlib.suppress(OSError):
                told.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        if orders not in ready:
            continue
        order, rights, _, _ = orders.recvmsg(
            _MOST, socket.CMSG_SPACE(4 * array.array("i").itemsize)
        )
        if not order:
            return None
        files = array.array("i")
        for _, _, handed in rights:
            files.frombytes(handed)
        *streams, last = files
        pid = os.fork()
        if pid == 0:
            for told in [orders, *(told for _, told in running.values())]:
                told.close()
            for number in [last, *running]:
                os.close(number)
            return _become(json.loads(order), streams)
        told = socket.socket(fileno=last)
        told.sendall(str(pid).encode())
        for stream in streams:
            os.close(stream)
        running[os.pidfd_open(pid)] = (pid, told)


def _become(order: dict[str, Any], streams: list[int]) -> list[str]:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["cwd"])
    return list(order["words"])


def main() -> None:
    orders = socket.socket(fileno=int(sys.argv[1]))
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    # Whatever is here already is not looked at in the forked processes, which would copy it.
    gc.freeze()
    words = serve(orders)
    if words is not None:
        sys.argv[1:] = words
        runpy.run_module("inspector", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
