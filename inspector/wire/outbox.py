"""Replies to peers, each of which reads at its own pace."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import zmq

_RETRY_MS: Final = 5


@dataclass
class _Backlog:
    """What waits for one connection, and until when (s, of the clock) it may take nothing."""

    until_s: float
    replies: collections.deque[bytes] = field(default_factory=collections.deque)


class Outbox:
    """What a bound ROUTER socket sends; used by the socket's thread; only ``drain`` waits.

    A connection takes as many messages at once as the socket's high-water mark says. ``send`` drops
    what is more than that, and may overtake what is kept: a reply that its client asks for again.
    ``keep`` holds it back and sends it, in order, as the connection takes it: a reply that comes
    once. ``most`` replies at most are held back for one connection, and ``most_bytes`` for all.
    They are dropped when it has gone, or has taken none for ``patience_s``.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        *,
        most: int,
        most_bytes: int,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = socket
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._retry_at_s = 0.0
        self._patience_s = patience_s
        self._clock = clock
        self._backlogs: dict[bytes, _Backlog] = {}
        self.unsent = 0
        """How many replies were dropped. Any thread may read it."""

    def send(self, identity: bytes, body: bytes) -> None:
        """Send ``body`` now, or drop it."""
        if not self._take(identity, body):
            self.unsent += 1

    def keep(self, identity: bytes, body: bytes) -> None:
        """Send ``body`` after all that was kept for ``identity`` before."""
        backlog = self._backlogs.get(identity)
        if backlog is None:
            if self._take(identity, body):
                return
            backlog = self._backlogs[identity] = _Backlog(self._clock() + self._patience_s)
        if len(backlog.replies) < self._most and self._bytes + len(body) <= self._most_bytes:
            backlog.replies.append(body)
            self._bytes += len(body)
        else:
            self.unsent += 1

    def retry(self) -> int | None:
        """Send what was kept, as far as it goes, if it is time to.

        Returns how many ms to wait until the next call; None when nothing is kept.
        """
        began_s = time.monotonic()
        if self._backlogs and began_s >= self._retry_at_s:
            for identity in list(self._backlogs):
                self._retry(identity, self._backlogs[identity])
            # However many connections stand still, nine tenths of the time are left for others.
            ended_s = time.monotonic()
            self._retry_at_s = ended_s + max(_RETRY_MS / 1000, 9 * (ended_s - began_s))
        if not self._backlogs:
            return None
        return max(1, math.ceil((self._retry_at_s - time.monotonic()) * 1000))

    def _retry(self, identity: bytes, backlog: _Backlog) -> None:
        replies = backlog.replies
        while replies and self._take(identity, replies[0]):
            self._bytes -= len(replies.popleft())
            backlog.until_s = self._clock() + self._patience_s
        if replies and self._clock() >= backlog.until_s:
            self.unsent += len(replies)
            self._bytes -= sum(map(len, replies))
            replies.clear()
        if not replies:
            del self._backlogs[identity]

    def drain(self, within_s: float) -> None:
        """Send what was kept, and wait for connections that take no more now."""
        until_s = time.monotonic() + within_s
        while self.retry() is not None and time.monotonic() < until_s:
            time.sleep(_RETRY_MS / 1000)

    def _take(self, identity: bytes, body: bytes) -> bool:
        """False when the connection takes no more now; a client that has gone takes anything."""
        try:
            self._socket.send_multipart([identity, body], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno == zmq.EAGAIN:
                return False
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.unsent += 1
        return True
