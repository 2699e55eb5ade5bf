"""Fuzzing: a fixed handful of examples in every run, fresh ones for as long as somebody asks.

``INSPECTOR_FUZZ_S=600 pytest tests/config/test_fuzz.py`` goes on for ten minutes a test.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

EXAMPLES = 120
LONGEST_S = 10.0
"""No input, however odd, may take more of a processor to be read or refused."""


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call ``check`` with what ``strategy`` draws; the first failure is shrunk and raised."""
    budget_s = float(os.environ.get("INSPECTOR_FUZZ_S", "0"))
    until = time.monotonic() + budget_s

    def timed(drawn: Any) -> None:
        begun = time.process_time()
        check(drawn)
        assert time.process_time() - begun < LONGEST_S

    test = settings(
        max_examples=EXAMPLES,
        derandomize=not budget_s,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(timed))
    test()
    while time.monotonic() < until:
        seeded(random.randrange(2**32))(test)()


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """``data`` with a few bytes altered, taken away, put in or moved."""

    def apply(steps: list[tuple[str, int, bytes]]) -> bytes:
        found = bytearray(data)
        for how, at, piece in steps:
            place = at % (len(found) + 1)
            if how == "alter":
                found[place : place + len(piece)] = piece
            elif how == "insert":
                found[place:place] = piece
            elif how == "delete":
                del found[place : place + 1 + at % 50]
            else:
                found[place:place] = found[: at % 200]
        return bytes(found)

    step = st.tuples(
        st.sampled_from(["alter", "insert", "delete", "repeat"]),
        st.integers(0, 2**24),
        st.binary(min_size=1, max_size=8),
    )
    return st.lists(step, min_size=1, max_size=6).map(apply)


ODD_TEXT = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "a\udcffb",
        "\x1b[2J",
        "a\nb",
        "../" * 500,
        "x" * 5000,
        "/" + "n" * 300,
        "ipc://a\0b",
        "ipc://" + "p" * 200,
        "ipc://\ud800",
        "tcp://127.0.0.1:5555",
        "tcp://[::1]:99999",
        "rtsp://a\0:b@c",
        "é" * 300,
        "{x}",
        "~",
    ]
)
ODD_NUMBERS = st.sampled_from(
    [
        *(0, -1, 1, 2**31, 2**63, 2**64, 10**4000, -(10**4000), 0.5, -0.0, 1e308, 5e-324),
        *map(float, ("nan", "inf", "-inf")),
    ]
)
ODD_LEAVES = st.one_of(
    ODD_TEXT,
    ODD_NUMBERS,
    st.none(),
    st.booleans(),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
)
ODD_VALUES = st.recursive(
    ODD_LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(ODD_TEXT, st.text(max_size=5)), inner, max_size=3),
    ),
    max_leaves=6,
)


def places(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value in a document of dicts and lists."""
    found = [above] if above else []
    pairs = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in pairs:
        found += places(value, (*above, key))
    return found


def put(document: Any, place: tuple[Any, ...], value: Any) -> None:
    """Put ``value`` at a place that :func:`places` named, if it is still there."""
    holder = document
    for key in place[:-1]:
        try:
            holder = holder[key]
        except (LookupError, TypeError):
            return
    if isinstance(holder, dict) or (isinstance(holder, list) and place[-1] < len(holder)):
        holder[place[-1]] = value
