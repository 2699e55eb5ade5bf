"""A camera in a process of its own, which can be killed: the camera that a station uses.

A driver may block for ever, hand over an old frame, overwrite memory or crash. In a process of its
own that costs one FAULT, and the process. The child (child.py) opens the camera and puts frames
into shared memory (ring.py); requests and answers go through a socket, a datagram each.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from typing import IO, Final

from inspector.cameras.base import BadFrameError, CameraLostError, Frame
from inspector.cameras.isolated import ring
from inspector.cameras.isolated.messages import MESSAGE_BYTES, ChildMessage
from inspector.config.cameras import CameraConfig
from inspector.errors import CameraError

OPEN_TIMEOUT_MS: Final = 20_000
"""Time for the child to start, and the ten seconds that a camera may take to open."""

_CLOSE_S: Final = 1.5
"""Time for the child to end when it was asked to."""
_CLOSE_HUNG_S: Final = 0.3
"""The same for a child that hangs, and for the status of one that has closed its socket."""
_KILL_S: Final = 2.0
"""Time for the kernel to end a child that was killed."""
_MOST_STUCK: Final = 3
"""Children that cannot be killed, beside which no other is started."""


class CameraProcess:
    """Any camera in a child process, a fresh one for every ``open``.

    It keeps the contract of the camera in the child, and more: ``grab`` returns within
    ``timeout_ms`` whatever the camera does, and a frame that is not newer than the one before is
    refused.
    """

    def __init__(self, config: CameraConfig, open_timeout_ms: int = OPEN_TIMEOUT_MS) -> None:
        self._config = config
        self._open_timeout_ms = open_timeout_ms
        self._child: _Child | None = None
        self._stuck: list[_Child] = []
        self._exposed_ns = 0
        self._interrupted = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._wake_fd)
        self._memory_fd: int | None = None
        if config.memory_bytes:
            self._memory_fd = ring.allocate(config.memory_bytes, "line-inspector-script")
            weakref.finalize(self, os.close, self._memory_fd)

    @property
    def pid(self) -> int | None:
        """The child's process id while the camera is open, else None."""
        return self._child.pid if self._child else None

    def open(self) -> None:
        """Start the child and have it open the camera. Raises CameraError."""
        self._let_go()
        who = f"camera {self._config.name}"
        if len(self._stuck) >= _MOST_STUCK:
            raise CameraError(
                f"{who}: {len(self._stuck)} earlier processes cannot be killed, they hang in the "
                f"driver; unplug the camera or restart the machine"
            )
        try:
            child = self._child = _Child(self._config, self._memory_fd)
        except OSError as error:
            raise CameraError(f"{who}: cannot start its process: {error.strerror}") from None
        try:
            answer = self._answer(child, self._open_timeout_ms)
            if answer is None:
                raise CameraError(f"{who}: interrupted while it was opened")
            if answer.what == "refused":
                raise CameraError(answer.text)
        except CameraLostError as error:
            self._let_go()
            raise CameraError(f"{who}: cannot be opened: {error}") from None
        except CameraError:
            self._let_go()
            raise

    def grab(self, timeout_ms: int) -> Frame | None:
        """The next frame, None at the end. Raises CameraLostError or BadFrameError."""
        if self._interrupted:
            return None
        child = self._child
        if child is None:
            raise CameraLostError("not open")
        if child.lost:
            raise CameraLostError(child.lost)
        try:
            child.ask(timeout_ms)
            answer = self._answer(child, timeout_ms)
            return None if answer is None else self._frame(child, answer)
        except CameraLostError as error:
            child.lost = str(error)
            raise

    def interrupt(self) -> None:
        """Make a waiting ``grab`` return None, and a waiting ``open`` give up."""
        self._interrupted = True
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Ask the child to end, then kill it and its process group.

        What the camera keeps in memory outlives a child that was lost, and no other.
        """
        was_well = self._child is not None and not self._child.lost
        self._let_go()
        if was_well and self._memory_fd is not None:
            os.pwrite(self._memory_fd, bytes(self._config.memory_bytes), 0)
        self._interrupted = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _let_go(self) -> None:
        child, self._child = self._child, None
        self._stuck = [other for other in self._stuck if not other.is_gone(0.0)]
        if child is not None and not child.end():
            self._stuck.append(child)

    def _answer(self, child: _Child, timeout_ms: int) -> ChildMessage | None:
        """The child's next message, None when interrupted. Raises CameraLostError."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        poll = select.poll()
        poll.register(child.channel, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        while True:
            ready = poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
            if self._interrupted:
                return None
            if ready:
                answer = child.hear()
                if answer.what != "segment":
                    return answer
            elif time.monotonic() >= deadline_s:
                child.hangs = True
                raise CameraLostError(f"no answer within {timeout_ms} ms")

    def _frame(self, child: _Child, answer: ChildMessage) -> Frame | None:
        if answer.what == "ended":
            return None
        if answer.what not in ("frame", "bad"):
            raise CameraLostError(answer.text)
        if answer.exposed_ns <= self._exposed_ns:
            raise CameraLostError("gave a frame that is not newer than the one before")
        self._exposed_ns = answer.exposed_ns
        if answer.what == "bad":
            raise BadFrameError(answer.part_id, answer.text, answer.exposed_ns)
        try:
            slot = child.read(answer.sequence)
        except ring.TornError as error:
            text = f"torn picture: {error}"
            raise BadFrameError(answer.part_id, text, answer.exposed_ns) from None
        if slot.exposed_ns != answer.exposed_ns:
            raise CameraLostError("gave another frame than it announced")
        return Frame(slot.image, slot.grabbed_us, answer.part_id, slot.exposed_ns, slot.whole)


class _Child:
    """The child process, the parent's end of the socket, and the memory that the child fills.

    ``lost``: why the camera in it is lost, "" while it is not; ``hangs``: it does not answer.
    """

    def __init__(self, config: CameraConfig, memory_fd: int | None) -> None:
        self.lost = ""
        self.hangs = False
        self._reader = ring.RingReader()
        self._sequence = self._slot = 0
        with contextlib.ExitStack() as undo:
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self.channel.close)
            lease_fd, self._lease_fd = os.pipe()
            undo.callback(os.close, self._lease_fd)
            fds = [theirs.fileno(), lease_fd, *([] if memory_fd is None else [memory_fd])]
            described = json.dumps(config.model_dump(mode="json"))
            with theirs, os.fdopen(lease_fd), _readable(described) as text:
                # A fresh interpreter, not a fork: other threads run here and hold locks, and the
                # child must not inherit what is open here.
                self._process = subprocess.Popen(  # noqa: S603
                    [
                        sys.executable,
                        "-m",
                        "inspector.cameras.isolated.child",
                        config.name,
                        *map(str, fds),
                    ],
                    stdin=text,
                    stdout=subprocess.DEVNULL,
                    pass_fds=fds,
                    start_new_session=True,
                )
            undo.pop_all()
        self.pid = self._process.pid

    def ask(self, timeout_ms: int) -> None:
        """Ask for a frame. Raises CameraLostError when the process has ended."""
        try:
            self._slot = self._reader.free
            self.channel.send(b"%d %d" % (timeout_ms, self._slot))
        except OSError:
            raise CameraLostError(self._why_ended()) from None

    def hear(self) -> ChildMessage:
        """The message that waits. Raises CameraLostError if there is none that can be read."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self.channel, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
            for fd in fds:
                self._reader.attach(fd)
        except ConnectionResetError:
            data = b""
        except (OSError, ValueError) as error:
            raise CameraLostError(f"its pictures cannot be read: {error}") from None
        if not data:
            raise CameraLostError(self._why_ended())
        try:
            return ChildMessage.model_validate(json.loads(data))
        except ValueError:
            raise CameraLostError("its process sent a message that cannot be read") from None

    def read(self, sequence: int) -> ring.Slot:
        """Frame ``sequence``. Raises TornError, or CameraLostError if it was given before."""
        if sequence <= self._sequence:
            raise CameraLostError("gave a frame again that it gave before")
        self._sequence = sequence
        return self._reader.borrow(sequence, self._slot)

    def end(self) -> bool:
        """End the process and its group; False when even killing it does not end it in time."""
        self.channel.close()
        self._reader.close()
        deadline_s = time.monotonic() + (_CLOSE_HUNG_S if self.hangs else _CLOSE_S)
        pause_s = 0.001
        # The process is reaped only after its group is killed: from then on its id can be reused.
        while not self._has_ended() and time.monotonic() < deadline_s:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self._lease_fd)
        return self.is_gone(_KILL_S)

    def is_gone(self, timeout_s: float) -> bool:
        """Reap the process if it ends in time; False when it does not."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _has_ended(self) -> bool:
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self.pid, options) is not None

    def _why_ended(self) -> str:
        deadline_s = time.monotonic() + _CLOSE_HUNG_S
        while not self._has_ended():
            if time.monotonic() > deadline_s:
                self.hangs = True
                return "its process no longer answers"
            time.sleep(0.002)
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        code = status.si_status if status else 0
        if status and status.si_code == os.CLD_EXITED:
            return f"its process ended with exit code {code}"
        return f"its process was ended by signal {code} ({signal.strsignal(code)})"


def _readable(text: str) -> IO[bytes]:
    """``text`` as a file to read. It is in memory only, since it may hold a password."""
    file = os.fdopen(os.memfd_create("line-inspector-camera", os.MFD_CLOEXEC), "w+b")
    file.write(text.encode())
    file.seek(0)
    return file
