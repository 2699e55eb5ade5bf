"""The process that a camera lives in; its parent, process.py, starts it.

One thread owns the camera and answers the parent's requests for frames. A second one notices when
the parent has closed the socket, interrupts the camera, and ends the process. Nothing here can keep
the process alive when the parent dies or kills it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Final

from pydantic import TypeAdapter

from inspector import cameras
from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame, HalfFrameError
from inspector.cameras.isolated import ring
from inspector.cameras.isolated.messages import MESSAGE_BYTES, ChildMessage
from inspector.config.cameras import CameraConfig
from inspector.errors import CameraError

_CLOSE_S: Final = 1.2
"""Time for the camera to close once the parent has closed the socket."""


def main(channel: socket.socket, lease_fd: int, memory_fd: int | None) -> None:
    """Serve the camera that standard input describes until the parent closes ``channel``."""
    _die_with_parent(lease_fd)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # systemd signals all processes of a service; the parent closes its cameras in order.
        signal.signal(number, signal.SIG_IGN)
    config: CameraConfig = TypeAdapter(CameraConfig).validate_python(json.load(sys.stdin))
    memory = None if memory_fd is None else ring.numbers(memory_fd)
    camera = cameras.create(config, memory)
    threading.Thread(target=_end_with, args=(channel, camera), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _serve(_Parent(channel), camera)
    camera.close()
    # The interpreter's own exit would wait for a driver's thread that hangs.
    os._exit(0)


def _serve(parent: _Parent, camera: Camera) -> None:
    try:
        camera.open()
    except CameraError as error:
        parent.say(ChildMessage(what="refused", text=str(error)))
        return
    parent.say(ChildMessage(what="opened"))
    while (request := parent.hear()) is not None:
        timeout_ms, slot = request
        try:
            frame = camera.grab(timeout_ms)
        except HalfFrameError as error:
            parent.hand_over(error.frame, slot, torn=True)
        except BadFrameError as error:
            parent.say_bad(error.part_id, str(error), error.exposed_ns)
        except CameraLostError as error:
            parent.say(ChildMessage(what="lost", text=str(error)))
        else:
            if frame is None:
                parent.say(ChildMessage(what="ended"))
            else:
                parent.hand_over(frame, slot)


class _Parent:
    """The child's end of the socket: it hears requests, and hands over frames and errors."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._writer = ring.RingWriter()

    def hear(self) -> tuple[int, int] | None:
        """Wait for a request: (longest wait in ms, slot); None when the parent has closed."""
        # The camera's own thread waits here: a request passed on by another took 0.05 ms more.
        request = self._channel.recv(MESSAGE_BYTES)
        if not request:
            return None
        timeout_ms, slot = request.split()
        return int(timeout_ms), int(slot)

    def say(self, message: ChildMessage) -> None:
        # A file name that is not UTF-8 holds surrogates, which pydantic's own JSON refuses.
        self._channel.send(json.dumps(message.model_dump()).encode())

    def say_bad(self, part_id: str, text: str, exposed_ns: int) -> None:
        self.say(ChildMessage(what="bad", text=text, part_id=part_id, exposed_ns=exposed_ns))

    def hand_over(self, frame: Frame, slot: int, torn: bool = False) -> None:
        image, part_id, exposed_ns = frame.image, frame.part_id, frame.exposed_ns
        if not ring.takes(image):
            say = f"not a picture: {image.dtype} of shape {image.shape}"
            self.say_bad(part_id, say, exposed_ns)
            return
        try:
            fd = self._writer.fit(image.nbytes)
        except OSError as error:
            needed = f"{ring.SLOTS * image.nbytes / 1e6:.0f} MB"
            text = f"no shared memory for its pictures ({needed}): {error.strerror}; free memory"
            self.say(ChildMessage(what="lost", text=text))
            return
        if fd is not None:
            segment = ChildMessage(what="segment").model_dump_json().encode()
            socket.send_fds(self._channel, [segment], [fd])
        sequence = self._writer.write(image, slot, frame.grabbed_us, exposed_ns, torn)
        self.say(
            ChildMessage(what="frame", part_id=part_id, exposed_ns=exposed_ns, sequence=sequence)
        )


def _end_with(channel: socket.socket, camera: Camera) -> None:
    """Wait until the parent closes ``channel``, then end the process, whatever the camera does."""
    poll = select.poll()
    # poll reports POLLHUP even when no event is asked for.
    poll.register(channel, 0)
    poll.poll()
    camera.interrupt()
    time.sleep(_CLOSE_S)
    os._exit(0)


def _die_with_parent(lease_fd: int) -> None:
    """Have the kernel kill this process and its group when the parent's end of the pipe closes.

    PR_SET_PDEATHSIG would kill them when the parent's thread that started them ends. A thread that
    waits for the parent could not run while a driver hangs with the interpreter's lock.
    """
    fcntl.fcntl(lease_fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lease_fd, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lease_fd, fcntl.F_GETFL)
    fcntl.fcntl(lease_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(lease_fd, 0)
    if poll.poll(0):
        os._exit(0)


if __name__ == "__main__":
    _fds = [int(number) for number in sys.argv[2:]]
    main(socket.socket(fileno=_fds[0]), _fds[1], _fds[2] if len(_fds) > 2 else None)
