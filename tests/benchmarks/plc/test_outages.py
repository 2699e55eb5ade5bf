"""The accounts of the outages: what is lost, late, double or altered is found."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.plc.outages import KINDS, account, outages
from tests.bridges.brokers import need_mosquitto


def verdict(seq: int, epoch: str = "a", **changes: Any) -> dict[str, Any]:
    return {"epoch": epoch, "seq": seq, "verdict": "PASS"} | changes


RECORDED = [*(verdict(seq) for seq in range(1, 6)), verdict(1, "b"), verdict(2, "b")]
HEARD = [one | {"record": False} for one in RECORDED]


def test_what_came_whole_and_in_order_is_well():
    found = account(RECORDED, HEARD)
    assert (found.lost, found.unexpected, found.out_of_order, found.doubles) == (0, 0, 0, 0)
    again = account(RECORDED, [*HEARD[:3], *HEARD[1:]])
    assert (again.lost, again.out_of_order, again.doubles, again.unlike) == (0, 0, 2, 0)


@pytest.mark.parametrize(
    ("heard", "name", "count"),
    [
        (HEARD[:2] + HEARD[3:], "lost", 1),
        (HEARD[:-1], "lost", 1),
        ([*HEARD[:2], HEARD[3], HEARD[2], *HEARD[4:]], "out_of_order", 1),
        (HEARD[5:] + HEARD[:5], "out_of_order", 5),
        ([*HEARD, verdict(9)], "unexpected", 1),
        ([*HEARD, HEARD[1] | {"verdict": "FAIL"}], "unlike", 1),
    ],
)
def test_what_is_wrong_is_counted(heard: list[dict[str, Any]], name: str, count: int):
    assert getattr(account(RECORDED, heard), name) == count


def test_a_few_outages_lose_nothing(tmp_path):
    need_mosquitto()
    figures = {one.name: one for one in outages(tmp_path, 150, lambda done, total: None)}
    assert all(one.holds is not False for one in figures.values()), figures
    assert figures["outages of the broker"].value >= 1 and len(KINDS) == 4
