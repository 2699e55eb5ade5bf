"""Ctrl-C as a wish: it is never lost, and a second one is no wish any more.

Each test is a program of its own: a KeyboardInterrupt that misses its place would end the test run.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import os, signal, threading, time
from inspector.interrupt import Interrupt

signal.signal(signal.SIGINT, signal.default_int_handler)

def press():
    signal.raise_signal(signal.SIGINT)

def raises(call):
    try:
        call()
    except KeyboardInterrupt:
        return True
    return False
"""

PROGRAMS = {
    "the first is a wish and the second raises": """
with Interrupt() as interrupt:
    interrupt.check()
    press()
    assert interrupt.requested
    assert raises(interrupt.check)
    assert raises(press)
assert raises(press)
""",
    "one during a destructor is not lost": """
class Pressed:
    def __del__(self):
        press()

with Interrupt() as interrupt:
    made = Pressed()
    del made
    assert interrupt.requested
""",
    "at once raises and is remembered": """
with Interrupt(at_once=True) as interrupt:
    assert raises(press)
    assert raises(interrupt.check)
""",
    "a wait ends with it": """
begun = time.monotonic()
with Interrupt() as interrupt:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    interrupt.wait(10.0)
    assert interrupt.requested
assert time.monotonic() - begun < 5.0
""",
}


@pytest.mark.parametrize("promise", PROGRAMS)
def test_ctrl_c(promise: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + PROGRAMS[promise]],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
