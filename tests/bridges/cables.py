"""A cable between two Modbus devices that can be cut, slowed down, or made to lie."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable


class Cable:
    """Carries bytes of any number of connections to ``port``.

    Unlike a process that dies, a cable that is cut tells nobody: the bytes are gone, and the
    connections stay open.
    """

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.carries_requests = True
        self.carries_answers = True
        self.delay_s = 0.0
        self.altered: Callable[[bytes], bytes] = lambda data: data
        """What becomes of an answer."""
        self._pairs: dict[socket.socket, tuple[socket.socket, bool]] = {}
        self._ending = False
        self._thread = threading.Thread(target=self._carry, name="cable")
        self._thread.start()

    def cut(self) -> None:
        self.carries_requests = self.carries_answers = False

    def mend(self) -> None:
        """Whole again; what was open before is known to be broken now."""
        for one in list(self._pairs):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.carries_requests = self.carries_answers = True

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        for one in [*self._pairs, self._listener]:
            one.close()

    def _carry(self) -> None:
        while not self._ending:
            readable, _, _ = select.select([self._listener, *self._pairs], [], [], 0.02)
            if self._listener in readable:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._to, timeout=1)
                except OSError:
                    near.close()
                else:
                    for one in (near, far):
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._pairs |= {near: (far, True), far: (near, False)}
            for one in readable:
                if one in self._pairs:
                    self._pass_on(one)

    def _pass_on(self, one: socket.socket) -> None:
        other, is_request = self._pairs[one]
        try:
            data = one.recv(65536)
            if self.delay_s:
                time.sleep(self.delay_s)
            if data and not is_request:
                data = self.altered(data) if self.carries_answers else b"\0"
            carries = self.carries_requests if is_request else self.carries_answers
            if data and carries:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (one, other):
                self._pairs.pop(end, None)
                end.close()
