"""A PLC program in Python: the function block of docs/plc/, in a scan cycle over a real socket."""

from __future__ import annotations

import contextlib
import enum
import logging
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from inspector.bridges.codes import REASON_CODES, ErrorCode
from inspector.bridges.registers import CAMERA, PLC, PLC_OFFSET, ByteOrders, camera_base
from inspector.bridges.results import following
from inspector.bridges.scan_cycle import ScanCycle, Seen
from inspector.client import Subscriber
from inspector.wire.messages import VerdictMessage

# What its complaints are about is told in this product's own words.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

_BLOCK: Final = CAMERA[-1].at + 1
_READS: Final = {field.name: field for field in CAMERA}
_REASONS: Final = {code: reason for reason, code in REASON_CODES.items()}
_EMPTY_S: Final = 0.1
"""So long after a picture its verdict is here, and the line is taken to be empty."""
_NO_ECHO_S: Final = 1.0
"""A session that is not echoed in this time is tried with the next number."""


class Mode(enum.Enum):
    """What the function block is doing."""

    LOST = "lost"
    CLEARING = "clearing"
    OPENING = "opening"
    RUNNING = "running"


@dataclass
class _Part:
    part_id: str
    begun_s: float


class FunctionBlock:
    """The PLC's side of the handshake for one camera; pure logic, called once a scan.

    The names are those of the Structured Text in docs/plc/function-block.st. ``session`` is the
    number of the session before, ``first_seq`` that of the first trigger in each session.
    ``counted``: a trigger line fires the camera, and ``trigger`` is told each of its edges; no part
    passes while ``needs_reset``, until ``empty_line`` was called and the bridge has echoed it.
    """

    def __init__(
        self,
        *,
        session: int = 0,
        first_seq: int = 1,
        timeout_s: float = 1.5,
        heartbeat_s: float = 1.0,
        counted: bool = False,
    ) -> None:
        self.mode = Mode.LOST
        self.counted = counted
        self.needs_reset = counted
        self.block: dict[str, int] = {field.name: 0 for field in PLC if field.kind != "STRING"}
        self.part_id = ""
        self.recipe = 0
        self.discarded = 0
        self.sessions = 0
        self.may_trigger = False
        self._session = session
        self._first_seq = first_seq
        self._timeout_s = timeout_s
        self._heartbeat_s = heartbeat_s
        self._seq = 0
        self._heard: int | None = None
        self._heard_s = 0.0
        self._opened_s = 0.0
        self._awaited: dict[int, _Part] = {}
        self._echoed = 0
        self._resetting = self._counts = False
        self._refused: list[Seen] = []

    @property
    def waiting(self) -> int:
        """Parts that have no end yet."""
        return len(self._awaited)

    def trigger(self, part_id: str, now_s: float) -> None:
        """Fire for the part that stands before the camera; only while ``may_trigger``.

        With ``counted`` at every edge of the trigger line: one that comes while both sides do not
        count together is no part of theirs, and is a reject.
        """
        if self.counted and not self._counts:
            # Whoever comes during a reset says that the line was not empty.
            self._resetting = False
            self._refused.append(Seen(part_id, 0, "not_counted", -1.0, 0.0))
            return
        first = 1 if self.counted else self._first_seq
        self._seq = following(self._seq) if self._seq else first
        self._awaited[self._seq] = _Part(part_id, now_s)
        self.part_id = part_id
        self.block["PartIDLength"] = len(part_id)
        self.block["RecipeID"] = self.recipe
        self.block["TriggerSeq"] = self._seq
        self.may_trigger = False

    def empty_line(self) -> None:
        """No part is under way: both sides count from 1 again, with another ResetCount."""
        if self.mode is not Mode.RUNNING or self._awaited or self._resetting:
            return
        number = following(self.block["ResetCount"])
        self.block["ResetCount"] = following(number) if number == self._echoed else number
        self.block["TriggerSeq"] = self._seq = 0
        self._resetting, self._counts = True, False

    def scan(self, read: dict[str, int | float] | None, now_s: float) -> Iterator[Seen]:
        """Take what was read, None when the read failed; gives the parts that ended."""
        self.block["Heartbeat"] = (self.block["Heartbeat"] + 1) % 65_536
        self.may_trigger = False
        refused, self._refused = self._refused, []
        yield from refused
        if read is not None:
            # A change acknowledges: an error that comes again at once needs another one.
            error = int(read["ErrorCode"])
            self.block["ErrorAck"] = 0 if error == self.block["ErrorAck"] else error
        # Before a result is taken: a PLC that stood still finds one that came too late.
        for seq, part in list(self._awaited.items()):
            if now_s > part.begun_s + self._timeout_s:
                del self._awaited[seq]
                yield Seen(part.part_id, 0, "", -1.0, 1000 * (now_s - part.begun_s))
        if read is not None and read["LayoutVersion"] and read["Heartbeat"] != self._heard:
            self._heard, self._heard_s = int(read["Heartbeat"]), now_s
        lives = read is not None and now_s < self._heard_s + self._heartbeat_s
        if read is None or not lives:
            self._lose()
        elif self.mode is Mode.LOST:
            self.mode = Mode.CLEARING
        elif self.mode is Mode.CLEARING:
            if read["SessionEcho"] == 0 and not _bit(read, 3):
                self.mode = Mode.OPENING
                self._open(now_s)
        elif self.mode is Mode.OPENING:
            if read["SessionEcho"] == self._session and not _bit(read, 3):
                self.mode, self.sessions = Mode.RUNNING, self.sessions + 1
            elif now_s > self._opened_s + _NO_ECHO_S:
                # A bridge that has just started takes the first number for one of before.
                self._open(now_s)
        elif read["SessionEcho"] != self._session or read["ErrorCode"] == ErrorCode.TRIGGER_STEP:
            self._lose()
        else:
            yield from self._take(read, now_s)
            self._count(read)
            is_taken = read["TriggerSeqEcho"] == self._seq or self.counted
            self.may_trigger = bool(_bit(read, 0)) and is_taken and not self.needs_reset
            self.recipe = int(read["ActiveRecipe"])
        self.needs_reset = self.needs_reset or (self.counted and not self._counts)

    def _take(self, read: dict[str, int | float], now_s: float) -> Iterator[Seen]:
        seq = int(read["ResultSeq"])
        if not _bit(read, 3) or seq != read["ResultSeqEnd"] or seq == self.block["ResultAck"]:
            return
        self.block["ResultAck"] = seq
        part = self._awaited.pop(int(read["ResultTriggerSeq"]), None)
        if part is None:
            # Of a part that was given up: taken, and of no effect.
            self.discarded += 1
            return
        verdict, reason = int(read["Verdict"]), _REASONS.get(int(read["Reason"]), "")
        took_ms = 1000 * (now_s - part.begun_s)
        is_counted = not self.counted or read["PartCount"] == read["ResultTriggerSeq"]
        if verdict == 1 and (read["ErrorCode"] or not is_counted):
            # No PASS stands beside an error, whatever it is about.
            verdict, reason = 0, "error_stands" if read["ErrorCode"] else "other_count"
        yield Seen(part.part_id, verdict, reason, read["Score"], took_ms)

    def _count(self, read: dict[str, int | float]) -> None:
        self._echoed = int(read["ResetCountEcho"])
        if self._resetting and self._echoed == self.block["ResetCount"]:
            self._resetting, self._counts = False, True
        self.needs_reset = self.counted and not (self._counts and bool(_bit(read, 9)))

    def _lose(self) -> None:
        """Nothing that was read counts any more; what was awaited ends by its own time."""
        self.mode = Mode.LOST
        self._seq = 0
        self._resetting = self._counts = False
        for name in ("Session", "Command", "TriggerSeq"):
            self.block[name] = 0
        # The same number means another part in the next session.
        waiting = list(self._awaited.values())
        self._awaited = {-number: part for number, part in enumerate(waiting, 1)}

    def _open(self, now_s: float) -> None:
        self._opened_s = now_s
        self._session = following(self._session)
        self.block["Session"] = self._session


class SimulatedPlc(ScanCycle):
    """Runs a function block in a scan cycle against a bridge's registers."""

    def __init__(
        self, block: FunctionBlock, host: str, port: int, camera: int, orders: ByteOrders
    ) -> None:
        self.block = block
        self._base = camera_base(camera)
        self._orders = orders
        self._client = ModbusTcpClient(host, port=port, timeout=0.5, retries=0)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()  # type: ignore[no-untyped-call]

    def scan(self) -> list[Seen]:
        """One cycle: write and read in one request, then the program; gives parts that ended."""
        return list(self.block.scan(self._exchange(), time.monotonic()))

    def trigger(self, part_id: str) -> None:
        """Fire for the part that stands before the camera; only while ``may_trigger``."""
        self.block.trigger(part_id, time.monotonic())

    @property
    def may_trigger(self) -> bool:
        """True while the camera takes a part."""
        return self.block.may_trigger

    @property
    def waiting(self) -> int:
        """Parts that have no end yet."""
        return self.block.waiting

    @property
    def discarded(self) -> int:
        """Results that came for parts which were given up by then."""
        return self.block.discarded

    def _exchange(self) -> dict[str, int | float] | None:
        """Write the block and read the camera's; None when that failed."""
        try:
            if not (self._client.connected or self._client.connect()):  # type: ignore[no-untyped-call]
                return None
            answer = self._client.readwrite_registers(
                read_address=self._base,
                read_count=_BLOCK,
                write_address=self._base + PLC_OFFSET,
                values=self._written(),
            )
        except (ModbusException, OSError):
            self._client.close()  # type: ignore[no-untyped-call]
            return None
        if answer.isError():
            return None
        return read_values(list(answer.registers), self._orders)

    def _written(self) -> list[int]:
        values = [0] * (PLC[-1].at + 1)
        for field in PLC:
            if field.kind == "STRING":
                text = self.block.part_id if field.name == "PartID" else ""
                values[field.at : field.at + field.registers] = self._orders.letters(text)
            else:
                values[field.at] = self._orders.narrow(self.block.block[field.name])
        return values


class CountedPlc(SimulatedPlc):
    """Works with a camera on a trigger line: it counts the line's edges, and resets the count.

    There is no such line here: each of the camera's pictures that ``eye`` hears of stands for one
    edge. ``eye`` is closed with the PLC.
    """

    def __init__(
        self,
        block: FunctionBlock,
        host: str,
        port: int,
        camera: int,
        orders: ByteOrders,
        *,
        eye: Subscriber,
        name: str,
    ) -> None:
        super().__init__(block, host, port, camera, orders)
        self._name = name
        self._open = contextlib.ExitStack()
        self._eye = self._open.enter_context(eye)

    def close(self) -> None:
        """Close both connections."""
        super().close()
        self._open.close()

    def _pictures(self) -> int:
        """How many pictures the camera has taken since the last call. Raises WireError."""
        seen = 0
        while (item := self._eye.receive(0)) is not None:
            is_picture = isinstance(item, VerdictMessage) and item.camera == self._name
            seen += is_picture and not self._eye.is_record
        return seen

    def run(
        self,
        parts: int,
        every_s: float,  # noqa: ARG002 - the camera has a pace of its own
        *,
        cycle_s: float = 0.005,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Seen]:
        """Count ``parts`` of the camera's pictures, whenever they come; gives each part's end."""
        sent, quiet_s = 0, time.monotonic()
        while not stop() and (sent < parts or self.waiting):
            now_s = time.monotonic()
            yield from self.scan()
            for _ in range(self._pictures()):
                quiet_s = now_s
                if sent < parts and not self.block.needs_reset:
                    sent += 1
                    self.block.trigger(f"part-{sent:05}", now_s)
                    yield from self.scan()
            # Between two pictures nothing is under way.
            if self.block.needs_reset and now_s > quiet_s + _EMPTY_S:
                self.block.empty_line()
            self.rest(max(0.0, cycle_s - (time.monotonic() - now_s)))
        yield from self.scan()


def read_values(registers: list[int], orders: ByteOrders) -> dict[str, int | float]:
    """The numbers of a camera's block by their names."""
    found: dict[str, int | float] = {}
    for name, field in _READS.items():
        words = [orders.narrow(one) for one in registers[field.at : field.at + field.registers]]
        if field.kind == "STRING":
            continue
        if len(words) == 1:
            found[name] = words[0]
            continue
        high, low = words if orders.word == "high_first" else words[::-1]
        wide = high << 16 | low
        found[name] = (
            struct.unpack(">f", wide.to_bytes(4, "big"))[0] if field.kind == "REAL" else wide
        )
    return found


def _bit(read: dict[str, int | float], number: int) -> int:
    return int(read["StatusWord"]) >> number & 1
