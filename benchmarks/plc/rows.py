"""The rows of the table: each name is a module of this package that has a ``ROW``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure

NAMES: Final = (
    "modbus",
    "opcua",
    "register_write",
    "method_call",
    "not_ready",
    "clone",
    "coils",
    "outages",
)

Tick = Callable[[int, int], None]
"""Told how many trials are done, and of how many."""


@dataclass(frozen=True)
class Row:
    """One row. ``trials`` and ``quick`` are what ``run`` counts: parts, calls, faults.

    ``quick`` is 0 for a row that ``--quick`` leaves out.
    """

    promise: str
    trials: int
    quick: int
    run: Callable[[Path, int, Tick], Sequence[Figure]]
    """Has a scratch folder, the number of trials, and who is told how far it is."""


def row(name: str) -> Row:
    """A row by its name; its module is imported only now, with the extra that it needs."""
    found = importlib.import_module(f"benchmarks.plc.{name}").ROW
    assert isinstance(found, Row)
    return found
