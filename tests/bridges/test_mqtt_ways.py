"""The ways of a bridge's connection end together, whatever they do."""

from __future__ import annotations

import asyncio

import pytest

from inspector.bridges.mqtt import _first
from tests.loops import in_a_loop


def test_a_way_that_swallows_its_cancellation_holds_nobody_up():
    swallowed = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                # So asyncio.wait_for does before Python 3.12, if its answer comes just then.
                if swallowed:
                    raise
                swallowed.append(True)

    async def run() -> None:
        await asyncio.wait_for(_first(stubborn(), asyncio.sleep(0.01)), 5)

    in_a_loop(run())
    assert swallowed == [True]


def test_the_error_of_the_way_that_ended_is_raised():
    async def fails() -> None:
        raise ValueError("so")

    async def run() -> None:
        await _first(asyncio.sleep(60), fails())

    with pytest.raises(ValueError, match="so"):
        in_a_loop(run())
