from __future__ import annotations

import pytest

from inspector.clock import Clock, ClockWatch

HOUR_US = 3_600_000_000


class Times:
    def __init__(self) -> None:
        self.wall_us, self.ran_ns = 1_714_557_600_000_000, 5
        self.watch = ClockWatch(1.0, Clock(lambda: self.wall_us, lambda: self.ran_ns))

    def run(self, us: int, wall_us: int | None = None) -> float:
        self.ran_ns += us * 1000
        self.wall_us += us if wall_us is None else wall_us
        return self.watch.jumped_s()


@pytest.mark.parametrize("us", [0, 1, 1_000_000, HOUR_US, 1000 * HOUR_US])
def test_clock_that_runs_did_not_jump(us: int) -> None:
    times = Times()
    assert [times.run(us) for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize("set_by_s", [-86_400 * 40, -3, 3, 86_400 * 40])
def test_clock_that_is_set_jumped_once_and_by_so_much(set_by_s: int) -> None:
    times = Times()
    assert times.run(1_000_000) == 0.0
    assert times.run(1_000_000, 1_000_000 + set_by_s * 1_000_000) == set_by_s
    assert times.run(1_000_000) == 0.0


def test_clock_that_is_corrected_slowly_did_not_jump() -> None:
    """NTP lets a clock run faster or slower by half a thousandth, for hours."""
    times = Times()
    assert times.run(10 * HOUR_US, round(10 * HOUR_US * 1.0005)) == 0.0
    assert times.run(10 * HOUR_US, round(10 * HOUR_US * 1.002)) > 70
