from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import given

from inspector.wire.clocks import Clocks

HOUR_US = 3_600_000_000
# No two questions are asked in the same microsecond.
TRIPS = st.tuples(st.integers(1, 2_000_000), st.integers(0, 2_000_000))


class Sender:
    """A sender whose clock is ``ahead_us`` of the station's, and a way that takes its time."""

    def __init__(self, clocks: Clocks, ahead_us: int, name: bytes = b"plc") -> None:
        self.clocks = clocks
        self.ahead_us = ahead_us
        self.name = name
        self.now_us = 10 * HOUR_US
        self.answered_us: int | None = None

    def ask(self, there_us: int, back_us: int) -> None:
        sent_us = self.now_us + self.ahead_us
        self.now_us += there_us
        self.clocks.hear(self.name, sent_us, self.answered_us, self.now_us)
        self.now_us += back_us
        self.answered_us = self.now_us + self.ahead_us

    def age_us(self, ago_us: int) -> int | None:
        sent_us = self.now_us - ago_us + self.ahead_us
        return self.clocks.age_us(self.name, sent_us, self.now_us)


@given(
    st.integers(-HOUR_US, HOUR_US),
    st.lists(TRIPS, min_size=1, max_size=30),
    st.integers(0, 5_000_000),
)
def test_age_is_right_to_half_of_the_shortest_of_the_last_ten_round_trips(ahead_us, trips, ago_us):
    sender = Sender(Clocks(), ahead_us)
    for there_us, back_us in trips:
        sender.ask(there_us, back_us)
    # Of the last trip only the next question tells.
    sender.ask(0, 0)
    age_us = sender.age_us(ago_us)
    shortest_us = min(there_us + back_us for there_us, back_us in trips[-10:])
    assert abs(age_us - ago_us) <= shortest_us / 2 + 1


def test_one_question_measures_nothing():
    sender = Sender(Clocks(), HOUR_US)
    assert sender.age_us(0) is None
    sender.ask(100, 100)
    assert sender.age_us(0) is None
    sender.ask(100, 100)
    assert sender.age_us(0) == 0


def test_questions_that_waited_while_the_station_stood_still_measure_nothing():
    """They are all late, but none was answered: the sender has no round trip to tell of."""
    sender = Sender(Clocks(), -HOUR_US)
    sender.ask(100, 100)
    sender.ask(100, 100)
    asked = [sender.now_us + second * 1_000_000 for second in range(15)]
    sender.now_us += 15_000_000
    for at_us in asked:
        sender.clocks.hear(sender.name, at_us - HOUR_US, sender.answered_us, sender.now_us)
    assert sender.age_us(5_000_000) == 5_000_000


def test_question_that_is_sent_again_measures_nothing_wrong():
    sender = Sender(Clocks(), 0)
    sender.ask(100, 100)
    told_us, asked_us = sender.answered_us, sender.now_us
    for again_us in (0, 1_000_000):
        sender.now_us = asked_us + again_us
        sender.clocks.hear(sender.name, asked_us, told_us, sender.now_us)
    assert sender.age_us(0) == 0


def test_senders_are_told_apart_and_the_oldest_is_forgotten():
    clocks = Clocks()
    for number in range(1001):
        sender = Sender(clocks, number * HOUR_US, b"%d" % number)
        for _ in range(2):
            sender.ask(0, 0)
    ages = [
        Sender(clocks, number * HOUR_US, b"%d" % number).age_us(7) for number in (0, 1, 500, 1000)
    ]
    assert ages == [None, 7, 7, 7]
    assert list(itertools.islice(clocks._senders, 1)) == [b"1"]
