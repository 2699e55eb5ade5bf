"""Ctrl-C as a wish: it is never lost, and a second one is no wish any more."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from inspector.interrupt import Interrupt


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """What a program begins with, whatever the tests before left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


def press() -> None:
    # To this very thread: it is handled before the next line.
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_a_wish_and_the_second_raises():
    with Interrupt() as interrupt:
        interrupt.check()
        press()
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            press()
    with pytest.raises(KeyboardInterrupt):
        press()


def test_one_that_comes_during_a_destructor_is_not_lost():
    class Pressed:
        def __del__(self) -> None:
            press()

    with Interrupt() as interrupt:
        made = Pressed()
        del made
        assert interrupt.requested


def test_at_once_raises_and_is_remembered():
    with Interrupt(at_once=True) as interrupt:
        with pytest.raises(KeyboardInterrupt):
            press()
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()


def test_a_wait_ends_with_it():
    begun = time.monotonic()
    with Interrupt() as interrupt:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        interrupt.wait(10.0)
        timer.join()
    assert time.monotonic() - begun < 5.0
