"""What the tests of the handshake are made of: a station's words, and a PLC's fields."""

from __future__ import annotations

from typing import Any

from inspector.bridges.fields import Order, PlcFields, Settings, Ticket
from inspector.bridges.handshake import Handshake
from inspector.wire.messages import StatusMessage, VerdictMessage
from tests.stations import verdict as made_verdict

RECIPES = {1: "flange", 2: "disc"}


def status(
    state: str = "SingleExecution", recipe: str = "flange", camera: str = "running", frames: int = 0
):
    return StatusMessage.model_validate(
        {
            "station": "line-1",
            "epoch": "epoch-1",
            "state": state,
            "last_seq": 0,
            "passed": 0,
            "failed": 0,
            "faults": 0,
            "recipe": recipe,
            "provider": "CPUExecutionProvider",
            "inference": "",
            "cameras": [{"name": "top", "state": camera, "detail": "", "frames": frames}],
            "sent_us": 1,
        }
    )


def answer(ticket: Ticket, part_id: str = "", seq: int = 1, **changes: Any) -> VerdictMessage:
    """The station's verdict on the part of ``ticket``."""
    fields: dict[str, Any] = {
        "session": ticket.session,
        "trigger_seq": ticket.number,
        "part_id": part_id,
        "recipe": "flange",
    }
    return made_verdict(seq, **(fields | changes))


class Plc:
    """A PLC that writes its whole block each time, and a bridge with one camera."""

    def __init__(self, **settings: Any) -> None:
        settings = {"camera": "top", "recipes": RECIPES, "plc_heartbeat_s": 0.0} | settings
        self.bridge = Handshake(Settings(**settings), "run", 1)
        self.now_s = 100.0
        self.actions: list[Any] = []
        self.fields = PlcFields()

    def write(self, after_s: float = 0.0, **fields: Any) -> list[Any]:
        """Write fields; returns what the bridge does about it."""
        cleared = {"session": 0, "command": 0, "trigger_seq": 0, "reset_count": 0}
        had = {name: getattr(self.fields, name) for name in vars(self.fields)}
        had |= {name: 0 for name in cleared if had[name] is None}
        self.fields = PlcFields(**(had | fields))
        return self.wait(after_s)

    def wait(self, after_s: float = 0.0) -> list[Any]:
        """Let time pass; the bridge scans what stands."""
        self.now_s += after_s
        done = self.bridge.scan(self.fields, self.now_s)
        self.actions += done
        return done

    def open(self, session: int = 7) -> None:
        """Clear the block, then open a session with a station that judges."""
        self.bridge.status(status())
        self.write(session=0, recipe_id=1)
        self.write(session=session)
        assert self.outputs.session_echo == session and not self.outputs.result_valid

    def trigger(self, seq: int, **fields: Any) -> Ticket:
        """Fire, and give the trigger that goes to the station."""
        (made,) = self.write(trigger_seq=seq, **fields)
        return made.ticket

    @property
    def order(self) -> Order:
        """The last order that went to the station."""
        return [action for action in self.actions if isinstance(action, Order)][-1]

    @property
    def outputs(self):
        return self.bridge.outputs()
