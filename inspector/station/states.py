"""The states of a station, as OPC 40100-1 (Machine Vision) draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inspector.wire.messages import State

NEXT: Final[Mapping[State, frozenset[State]]] = {
    "Preoperational": frozenset({"Initialized", "Halted", "Error"}),
    "Initialized": frozenset({"Ready", "Preoperational", "Halted", "Error"}),
    "Ready": frozenset(
        {
            "SingleExecution",
            "ContinuousExecution",
            "Initialized",
            "Preoperational",
            "Halted",
            "Error",
        }
    ),
    "SingleExecution": frozenset({"Ready", "Halted", "Error"}),
    "ContinuousExecution": frozenset({"Ready", "Halted", "Error"}),
    "Error": frozenset({"Preoperational", "Halted"}),
    "Halted": frozenset({"Preoperational"}),
}
"""The states that may follow each one."""

WORKING: Final = frozenset[State]({"Ready", "SingleExecution", "ContinuousExecution"})
"""The states in which a part is judged."""
