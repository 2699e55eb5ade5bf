from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq

from inspector.wire.outbox import Outbox

MANY = 500
BODY = b"x" * 20_000
"""So large that neither the sockets nor the kernel hold many of them."""


class Line:
    """A ROUTER with an outbox, and a DEALER that reads when it is told to."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.set_hwm(4)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.bind("tcp://127.0.0.1:0")
        self.dealer = self.connect()
        self.now_s = 0.0
        self.outbox = self.made()
        self.identity = self.meet(self.dealer)

    def made(self, most_bytes: int = 1 << 30) -> Outbox:
        return Outbox(
            self.router,
            most=MANY,
            most_bytes=most_bytes,
            patience_s=10.0,
            clock=lambda: self.now_s,
        )

    def connect(self) -> zmq.Socket[bytes]:
        dealer = self.context.socket(zmq.DEALER)
        dealer.set_hwm(4)
        dealer.connect(self.router.getsockopt_string(zmq.LAST_ENDPOINT))
        return dealer

    def meet(self, dealer: zmq.Socket[bytes]) -> bytes:
        dealer.send(b"hello")
        assert self.router.poll(5000)
        return self.router.recv_multipart()[0]

    def keep(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            self.outbox.keep(self.identity, b"%d " % number + BODY)

    def settle(self) -> None:
        """Until neither the sockets nor the kernel take any more."""
        until = time.monotonic() + 10.0
        before, since = -1, 0.0
        while before != self.taken() or time.monotonic() < since + 0.3:
            assert time.monotonic() < until
            if before != self.taken():
                before, since = self.taken(), time.monotonic()
            time.sleep(0.005)
            self.outbox.retry()

    def taken(self) -> int:
        return MANY - len(self.outbox._backlogs[self.identity].replies)

    def read(self, most: int = 2 * MANY) -> list[int]:
        """What there is to read, until nothing has come for a while."""
        found: list[int] = []
        until = time.monotonic() + 0.5
        while len(found) < most and time.monotonic() < until:
            self.outbox.retry()
            if self.dealer.poll(5):
                found.append(int(self.dealer.recv().split()[0]))
                until = time.monotonic() + 0.5
        return found


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.context.destroy(linger=0)


def test_all_that_is_kept_arrives_once_and_in_order(line):
    line.keep(MANY // 2)
    assert line.outbox.retry() is not None
    line.keep(MANY // 2, MANY // 2)
    assert line.read() == list(range(MANY))
    assert (line.outbox.retry(), line.outbox.unsent) == (None, 0)


def test_what_is_only_sent_is_lost_by_a_connection_that_is_full(line):
    for number in range(MANY):
        line.outbox.send(line.identity, b"%d " % number + BODY)
    found = line.read()
    assert found == sorted(set(found))
    assert line.outbox.unsent == MANY - len(found) > 0


def test_no_more_than_so_many_are_kept(line):
    line.keep(MANY + 1000)
    assert line.outbox.unsent > 0
    found = line.read()
    assert len(found) + line.outbox.unsent == MANY + 1000
    assert len(found) >= MANY


def test_all_connections_together_keep_no_more_than_so_many_bytes(line):
    line.outbox = line.made(most_bytes=10 * len(BODY))
    line.keep(MANY)
    found = line.read()
    assert len(found) + line.outbox.unsent == MANY
    assert line.outbox.unsent > 0
    # What was passed on is room again.
    before = line.outbox.unsent
    line.keep(5)
    assert (line.read(), line.outbox.unsent) == ([0, 1, 2, 3, 4], before)


def test_many_that_stand_still_leave_time_for_others(line):
    line.keep(MANY)
    line.settle()
    others = [line.connect() for _ in range(50)]
    for number, other in enumerate(others):
        identity = line.meet(other)
        for _ in range(100):
            line.outbox.keep(identity, b"%d " % number + BODY)
    passes = 0
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        before = line.outbox._retry_at_s
        line.outbox.retry()
        passes += line.outbox._retry_at_s != before
    assert 1 <= passes <= 100
    for other in others:
        other.close(linger=0)


def test_a_connection_that_takes_nothing_is_given_up_and_served_again_later(line):
    line.keep(MANY)
    line.settle()
    line.now_s = 9.9
    time.sleep(0.1)
    assert line.outbox.retry() is not None
    line.now_s = 10.1
    time.sleep(0.1)
    assert line.outbox.retry() is None
    lost = line.outbox.unsent
    assert len(line.read()) == MANY - lost
    line.keep(1, MANY)
    assert line.read() == [MANY]


def test_one_that_reads_little_by_little_keeps_its_replies(line):
    line.keep(MANY)
    found = []
    for _ in range(20):
        line.now_s += 5.0
        found += line.read(most=20)
    assert found + line.read() == list(range(MANY))
    assert line.outbox.unsent == 0


def test_a_slow_connection_holds_up_no_other(line):
    line.keep(MANY)
    other = line.connect()
    line.outbox.keep(line.meet(other), b"7 for the other")
    line.outbox.retry()
    assert other.poll(5000)
    assert int(other.recv().split()[0]) == 7
    other.close(linger=0)


def test_replies_to_a_client_that_has_gone_are_dropped(line):
    line.keep(MANY)
    line.dealer.close(linger=0)
    until = time.monotonic() + 5
    while line.outbox.retry() is not None:
        assert time.monotonic() < until
        line.router.poll(10)
    assert line.outbox.unsent > 0


def test_drain_waits_for_a_reader_but_not_for_ever(line):
    line.keep(MANY)
    begun = time.monotonic()
    line.outbox.drain(0.2)
    assert 0.2 <= time.monotonic() - begun < 5
    assert line.outbox.retry() is not None
