"""What goes into a handshake and what comes out, whatever the fieldbus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from inspector.bridges.codes import Command
from inspector.bridges.results import Origin, Result
from inspector.wire.messages import Outcome


@dataclass(frozen=True)
class Settings:
    """What the bridge's file says about a camera's handshake; times in s."""

    camera: str
    recipes: Mapping[int, str] = field(default_factory=dict)
    latest: bool = False
    """A result replaces the one before it; nobody acknowledges."""
    hardware: bool = False
    """The camera is triggered by a line; TriggerSeq is the PLC's count of its edges."""
    hardware_window_s: float = 0.1
    """An edge as the PLC tells it, and its picture, lie no farther apart."""
    result_timeout_s: float = 1.0
    heartbeat_s: float = 1.0
    plc_heartbeat_s: float = 1.0
    """0: the PLC is not supervised, which the status word says."""


@dataclass(frozen=True)
class PlcFields:
    """What the PLC has written, as it stands; None: not since the bridge started."""

    session: int | None = None
    command: int | None = None
    trigger_seq: int | None = None
    part_id: str | None = ""
    """None: it is too long, or no printable ASCII."""
    lot: str | None = ""
    recipe_id: int = 0
    result_ack: int = 0
    error_ack: int = 0
    heartbeat: int = 0
    reset_count: int | None = None


@dataclass(frozen=True)
class Outputs:
    """What the PLC reads besides the result that is shown."""

    state: int
    session_echo: int
    command_echo: int
    command_state: int
    ready: bool
    busy: bool
    acquired: bool
    result_valid: bool
    unsupervised: bool
    plc_lost: bool
    count_agrees: bool
    trigger_echo: int
    acquired_seq: int
    result: Result | None
    error_code: int
    errors: int
    missed_triggers: int
    result_overruns: int
    active_recipe: int
    reset_count_echo: int
    triggers: int
    passed: int
    failed: int
    faults: int
    heartbeat: int


class Ticket(NamedTuple):
    """By what the station knows a trigger: session, and a number that rises within it."""

    session: str
    number: int


@dataclass(frozen=True)
class Trigger:
    """To do: have the part before the camera judged."""

    ticket: Ticket
    part_id: str
    lot: str


@dataclass(frozen=True)
class Order:
    """To do: give the station a command; ``recipe`` is the one to change over to."""

    command: Command
    recipe: str = ""


@dataclass(frozen=True)
class Delivered:
    """To do: tell the station what became of a verdict."""

    origin: Origin
    outcome: Outcome


Action: TypeAlias = Trigger | Order | Delivered
