"""Remarks that repeat: the first are printed, the others counted, and none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inspector.cli.repeats import Repeats


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_are_printed_then_one_every_ten_seconds_with_the_number_between() -> None:
    clock, lines = Clock(), list[str]()
    with Repeats(lines.append, 2, clock) as remarks:
        for number in range(297):
            clock.now_s = number * 0.1
            remarks.tell("blurred", f"{number}: blurred")
        remarks.tell("dark", "297: dark")
    assert lines == [
        "0: blurred",
        "1: blurred (further ones like it are only counted)",
        "101: blurred (and 99 like it before)",
        "201: blurred (and 99 like it before)",
        "297: dark",
        "95 more like it: blurred",
    ]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=60))
def test_printed_and_counted_are_all_there_were(said: list[tuple[str, float]]) -> None:
    clock, lines = Clock(), list[str]()
    with Repeats(lines.append, 1, clock) as remarks:
        for kind, pause_s in said:
            clock.now_s += pause_s
            remarks.tell(kind, f"remark {kind}")
    for kind in "ab":
        printed = [line for line in lines if line.startswith(f"remark {kind}")]
        counted = [
            int(line.split(" like it before")[0].split()[-1])
            for line in printed
            if "before" in line
        ]
        rest = [int(line.split()[0]) for line in lines if line.endswith(f"more like it: {kind}")]
        assert len(printed) + sum(counted) + sum(rest) == sum(one == kind for one, _ in said)
