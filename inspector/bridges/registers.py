"""The register map of the Modbus bridge: which number stands where, and how it is written.

All registers are in one table, which function codes 3 and 4 read alike; function codes 1 and 2
read its bits, bit n of register r at r * 16 + n. A 32-bit value stands at an even address. The
PLC writes only its own block of each camera, and nobody else writes there.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from inspector.bridges.codes import LAYOUT_VERSION, VERDICT_CODES, reason_code
from inspector.bridges.fields import Outputs, PlcFields

Kind = Literal["UINT", "INT", "UDINT", "DWORD", "REAL", "STRING", "WORD"]
Order = Literal["high_first", "low_first"]

TEXT_LETTERS: Final = 64
_TEXT_REGISTERS: Final = TEXT_LETTERS // 2
_MOST_MILLI: Final = 32_767

CAMERA_BASE: Final = 200
CAMERA_STRIDE: Final = 200
"""Registers from one camera's block to the next one's."""
PLC_OFFSET: Final = 100
"""From the beginning of a camera's block to the part that the PLC writes."""
OVERVIEW: Final = 0
TESTS: Final = 40
HMI: Final = 60


@dataclass(frozen=True)
class Field:
    """One value of a block; ``at`` counts registers from its beginning."""

    at: int
    name: str
    kind: Kind
    meaning: str

    @property
    def registers(self) -> int:
        """How many registers it takes."""
        return {"UDINT": 2, "DWORD": 2, "REAL": 2, "STRING": _TEXT_REGISTERS}.get(self.kind, 1)


STATUS_BITS: Final = (
    ("Ready", "a trigger that comes now is taken"),
    ("Busy", "a part is on its way to its result"),
    ("Acquired", "the last trigger's picture is taken: the part may move"),
    ("ResultValid", "the result stands there, and stays until ResultAck bears ResultSeq"),
    ("Error", "ErrorCode is not 0"),
    ("MissedTrigger", "MissedTriggers is not 0"),
    ("ResultOverrun", "ResultOverruns is not 0"),
    ("Unsupervised", "plc_heartbeat_s is 0: nobody notices a PLC that stands still"),
    ("PlcLost", "the PLC's Heartbeat stands still"),
    ("CountAgrees", "hardware trigger: camera and PLC counted alike since ResetCount"),
)

CAMERA: Final = (
    Field(0, "ResultSeq", "UINT", "number of the result, 1 to 65535 and then 1; 0: none yet"),
    Field(1, "ResultTriggerSeq", "UINT", "TriggerSeq of the part that the result is about"),
    Field(2, "Verdict", "UINT", "0 none, 1 pass, 2 fail, 3 fault"),
    Field(3, "Reason", "UINT", "why it is no pass; table of reasons"),
    Field(4, "ScoreMilli", "INT", "score x 1000, at most 32767; 1000 is the limit; -1: none"),
    Field(5, "PartCount", "UINT", "hardware trigger: the camera's count of the part"),
    Field(6, "Score", "REAL", "the score, 1.0 is the limit; -1.0: none, never NaN"),
    Field(8, "ResultPartIDLength", "UINT", "letters of ResultPartID"),
    Field(10, "ResultPartID", "STRING", "PartID of the part that the result is about"),
    Field(42, "LayoutVersion", "UINT", f"{LAYOUT_VERSION}; never 0"),
    Field(43, "State", "UINT", "the station's; table of states; 0: there is no station"),
    Field(44, "StatusWord", "WORD", "bits; table of status bits"),
    Field(45, "SessionEcho", "UINT", "the session in force; 0: none"),
    Field(46, "CommandEcho", "UINT", "the command taken, until Command is 0"),
    Field(47, "CommandState", "UINT", "0 idle, 1 running, 2 done, 3 failed"),
    Field(48, "TriggerSeqEcho", "UINT", "the last trigger taken"),
    Field(49, "AcquiredSeq", "UINT", "the last trigger whose picture is taken"),
    Field(50, "ActiveRecipe", "UINT", "number of the recipe in force; 0: none, or changing"),
    Field(51, "ErrorCode", "UINT", "table of errors; until ErrorAck changes to this number"),
    Field(52, "Errors", "UDINT", "errors so far"),
    Field(54, "MissedTriggers", "UDINT", "triggers that get no result"),
    Field(56, "ResultOverruns", "UDINT", "results that came as the ninth, or later"),
    Field(58, "Triggers", "UDINT", "triggers taken"),
    Field(60, "Passed", "UDINT", "results PASS"),
    Field(62, "Failed", "UDINT", "results FAIL"),
    Field(64, "Faults", "UDINT", "results FAULT"),
    Field(66, "ResetCountEcho", "UINT", "hardware trigger: the reset in force"),
    Field(67, "Heartbeat", "UINT", "changes four times in heartbeat_s while parts can be judged"),
    Field(69, "ResultSeqEnd", "UINT", "ResultSeq once more"),
)
"""What a camera tells, from the beginning of its block."""

PLC: Final = (
    Field(0, "Session", "UINT", "another number whenever TriggerSeq begins anew; 0: none"),
    Field(1, "Command", "UINT", "1 start, 2 stop, 3 reset, 4 recipe; 0 before the next"),
    Field(2, "RecipeID", "UINT", "number of the recipe of the part, and of command 4"),
    Field(3, "ResultAck", "UINT", "ResultSeq of the result that was taken"),
    Field(4, "ErrorAck", "UINT", "ErrorCode that was seen; 0 before the next"),
    Field(5, "Heartbeat", "UINT", "another number at least every plc_heartbeat_s"),
    Field(6, "ResetCount", "UINT", "hardware trigger: another number on an empty line"),
    Field(7, "PartIDLength", "UINT", "letters of PartID, at most 64"),
    Field(8, "LotLength", "UINT", "letters of Lot, at most 64"),
    Field(10, "PartID", "STRING", "printable ASCII"),
    Field(42, "Lot", "STRING", "printable ASCII"),
    Field(74, "TriggerSeq", "UINT", "its change fires, 1 to 65535 and then 1; 0: none"),
)
"""What the PLC writes, from PLC_OFFSET on; a driver that splits a write ends with TriggerSeq."""

OVERVIEW_FIELDS: Final = (
    Field(0, "LayoutVersion", "UINT", f"{LAYOUT_VERSION}; never 0"),
    Field(1, "Cameras", "UINT", "how many blocks there are"),
    Field(2, "FirstBlock", "UINT", "address of the first camera's block"),
    Field(3, "BlockStride", "UINT", "registers from one block to the next"),
    Field(4, "Ready", "WORD", "a bit for each camera, the first one's is bit 0; so below"),
    Field(5, "Busy", "WORD", ""),
    Field(6, "ResultValid", "WORD", ""),
    Field(7, "Error", "WORD", ""),
    Field(8, "Pass", "WORD", "the result that stands there is a pass"),
    Field(9, "Fail", "WORD", ""),
    Field(10, "Fault", "WORD", ""),
    Field(11, "PlcLost", "WORD", ""),
    Field(12, "State", "UINT", "the station's"),
)

TEST_FIELDS: Final = (
    Field(0, "Test16", "WORD", "16#1234: else set byte_order"),
    Field(2, "Test32", "DWORD", "16#12345678: else set word_order"),
    Field(4, "TestReal", "REAL", "123.456"),
    Field(6, "TestText", "STRING", "'ABCD': else set text_order"),
)

HMI_FIELDS: Final = (
    Field(0, "State", "UINT", "the station's"),
    Field(1, "ActiveRecipe", "UINT", "that of the first camera"),
    Field(2, "ErrorCode", "UINT", "of the first camera that has one"),
    Field(3, "ErrorCamera", "UINT", "which one, from 1; 0: none"),
    Field(4, "ReadyCameras", "UINT", "how many are Ready"),
    Field(5, "Cameras", "UINT", "of how many"),
    Field(6, "Triggers", "UDINT", "all cameras together; so below"),
    Field(8, "Passed", "UDINT", ""),
    Field(10, "Failed", "UDINT", ""),
    Field(12, "Faults", "UDINT", ""),
    Field(14, "MissedTriggers", "UDINT", ""),
    Field(16, "ResultOverruns", "UDINT", ""),
)


@dataclass(frozen=True)
class ByteOrders:
    """How a PLC puts numbers and letters into registers."""

    word: Order = "high_first"
    byte: Order = "high_first"
    text: Order = "high_first"

    def wide(self, value: int) -> list[int]:
        """The two registers of a 32-bit value."""
        both = [value >> 16 & 0xFFFF, value & 0xFFFF]
        both = both if self.word == "high_first" else both[::-1]
        return [self.narrow(one) for one in both]

    def narrow(self, value: int) -> int:
        """The register of a 16-bit value; the same function reads one."""
        return value if self.byte == "high_first" else _swapped(value)

    def letters(self, text: str) -> list[int]:
        """The registers of a text, two letters each, zeros behind it."""
        padded = text.encode("ascii", "replace")[:TEXT_LETTERS].ljust(TEXT_LETTERS, b"\0")
        found = [
            first << 8 | second for first, second in zip(padded[::2], padded[1::2], strict=True)
        ]
        return found if self.text == "high_first" else [_swapped(one) for one in found]

    def text_of(self, registers: Sequence[int], length: int) -> str | None:
        """The text in registers; None when it is too long, or no printable ASCII."""
        if length > TEXT_LETTERS:
            return None
        ordered = registers if self.text == "high_first" else [_swapped(one) for one in registers]
        data = b"".join(one.to_bytes(2, "big") for one in ordered)[:length]
        return data.decode("ascii") if all(32 <= one < 127 for one in data) else None


def camera_base(index: int) -> int:
    """Address of the block of a camera, the first one being 0."""
    return CAMERA_BASE + CAMERA_STRIDE * index


class Registers:
    """The table of registers: what the PLC reads and writes.

    A block is written in one step: nobody reads a result that is half the one before.
    """

    function_codes: Final = frozenset({1, 2, 3, 4, 6, 16, 23})

    def __init__(self, cameras: int, orders: ByteOrders) -> None:
        self._orders = orders
        self._cameras = cameras
        last = camera_base(cameras - 1) + PLC_OFFSET
        self._values = [0] * (last + PLC[-1].at + PLC[-1].registers)
        self._written = [bytearray(PLC[-1].at + 1) for _ in range(cameras)]
        put = self._put
        for field, value in zip(TEST_FIELDS[:2], (0x1234, 0x12345678), strict=True):
            put(TESTS + field.at, field.kind, value)
        put(TESTS + TEST_FIELDS[2].at, "REAL", 123.456)
        self._values[TESTS + 6 : TESTS + 8] = orders.letters("ABCD")[:2]

    @property
    def size(self) -> int:
        """How many registers there are."""
        return len(self._values)

    def get(self, code: int, address: int, count: int) -> list[int] | list[bool] | None:
        """What a function code reads; 3 and 4 alike, and 1 and 2."""
        return (self.read_bits if code in {1, 2} else self.read)(address, count)

    def put(self, _code: int, address: int, values: Sequence[int]) -> int | None:
        """What a function code writes, as ``write`` does."""
        return self.write(address, values)

    def read(self, address: int, count: int) -> list[int] | None:
        """Registers as they stand; None when some of them are beyond the table."""
        if address + count > len(self._values):
            return None
        return self._values[address : address + count]

    def read_bits(self, address: int, count: int) -> list[bool] | None:
        """Bit n of register r is number r * 16 + n."""
        if address + count > 16 * len(self._values):
            return None
        return [
            bool(self._values[bit >> 4] >> (bit & 15) & 1)
            for bit in range(address, address + count)
        ]

    def write(self, address: int, values: Sequence[int]) -> int | None:
        """What a PLC writes; the index of its camera, None where not all of it is a PLC's block."""
        index, at = divmod(address - CAMERA_BASE, CAMERA_STRIDE)
        at -= PLC_OFFSET
        block = PLC[-1].at + PLC[-1].registers
        if not (0 <= index < self._cameras and at >= 0 and at + len(values) <= block):
            return None
        self._values[address : address + len(values)] = values
        self._written[index][at : at + len(values)] = b"\1" * len(values)
        return index

    def fields(self, index: int) -> PlcFields:
        """What the PLC has written to a camera's block so far."""
        base, written, orders = camera_base(index) + PLC_OFFSET, self._written[index], self._orders
        found: dict[str, int] = {}
        texts: dict[str, list[int]] = {}
        for field in PLC:
            at = base + field.at
            if field.kind == "STRING":
                texts[field.name] = self._values[at : at + field.registers]
            else:
                found[field.name] = orders.narrow(self._values[at])
        new = {field.name: bool(written[field.at]) for field in PLC}
        return PlcFields(
            session=found["Session"] if new["Session"] else None,
            command=found["Command"] if new["Command"] else None,
            trigger_seq=found["TriggerSeq"] if new["TriggerSeq"] else None,
            part_id=orders.text_of(texts["PartID"], found["PartIDLength"]),
            lot=orders.text_of(texts["Lot"], found["LotLength"]),
            recipe_id=found["RecipeID"],
            result_ack=found["ResultAck"],
            error_ack=found["ErrorAck"],
            heartbeat=found["Heartbeat"],
            reset_count=found["ResetCount"] if new["ResetCount"] else None,
        )

    def show(self, index: int, outputs: Outputs) -> None:
        """Write a camera's block in one step."""
        block = self._block(CAMERA, camera_values(outputs))
        base = camera_base(index)
        self._values[base : base + len(block)] = block

    def show_all(self, all_outputs: Sequence[Outputs]) -> None:
        """Write the overview and the block for operator panels."""
        bits = {
            "Ready": [one.ready for one in all_outputs],
            "Busy": [one.busy for one in all_outputs],
            "ResultValid": [one.result_valid for one in all_outputs],
            "Error": [one.error_code != 0 for one in all_outputs],
            "PlcLost": [one.plc_lost for one in all_outputs],
        }
        for code, name in enumerate(("Pass", "Fail", "Fault"), 1):
            bits[name] = [
                one.result is not None and VERDICT_CODES[one.result.verdict] == code
                for one in all_outputs
            ]
        first = all_outputs[0]
        words: dict[str, int | float | str] = {name: _word(flags) for name, flags in bits.items()}
        words |= {
            "LayoutVersion": LAYOUT_VERSION,
            "Cameras": self._cameras,
            "FirstBlock": CAMERA_BASE,
            "BlockStride": CAMERA_STRIDE,
            "State": first.state,
        }
        block = self._block(OVERVIEW_FIELDS, words)
        self._values[OVERVIEW : OVERVIEW + len(block)] = block
        errors = [number for number, one in enumerate(all_outputs, 1) if one.error_code]
        totals: dict[str, int | float | str] = {
            "State": first.state,
            "ActiveRecipe": first.active_recipe,
            "ErrorCode": all_outputs[errors[0] - 1].error_code if errors else 0,
            "ErrorCamera": errors[0] if errors else 0,
            "ReadyCameras": sum(bits["Ready"]),
            "Cameras": self._cameras,
            "Triggers": sum(one.triggers for one in all_outputs),
            "Passed": sum(one.passed for one in all_outputs),
            "Failed": sum(one.failed for one in all_outputs),
            "Faults": sum(one.faults for one in all_outputs),
            "MissedTriggers": sum(one.missed_triggers for one in all_outputs),
            "ResultOverruns": sum(one.result_overruns for one in all_outputs),
        }
        block = self._block(HMI_FIELDS, totals)
        self._values[HMI : HMI + len(block)] = block

    def _block(self, fields: Sequence[Field], values: dict[str, int | float | str]) -> list[int]:
        block = [0] * (fields[-1].at + fields[-1].registers)
        for field in fields:
            block[field.at : field.at + field.registers] = self._encoded(
                field.kind, values[field.name]
            )
        return block

    def _put(self, at: int, kind: Kind, value: float | str) -> None:
        encoded = self._encoded(kind, value)
        self._values[at : at + len(encoded)] = encoded

    def _encoded(self, kind: Kind, value: float | str) -> list[int]:
        if isinstance(value, str):
            return self._orders.letters(value)
        if kind == "REAL":
            return self._orders.wide(int.from_bytes(struct.pack(">f", value), "big"))
        if kind in {"UDINT", "DWORD"}:
            return self._orders.wide(int(value) & 0xFFFF_FFFF)
        return [self._orders.narrow(int(value) & 0xFFFF)]


def camera_values(outputs: Outputs) -> dict[str, int | float | str]:
    """The values of a camera's block by their names."""
    result = outputs.result
    score = None if result is None else result.score
    flags = (
        outputs.ready,
        outputs.busy,
        outputs.acquired,
        outputs.result_valid,
        outputs.error_code != 0,
        outputs.missed_triggers > 0,
        outputs.result_overruns > 0,
        outputs.unsupervised,
        outputs.plc_lost,
        outputs.count_agrees,
    )
    told = {
        "ResultSeq": 0 if result is None else result.seq,
        "ResultTriggerSeq": 0 if result is None else result.trigger_seq,
        "Verdict": 0 if result is None else VERDICT_CODES[result.verdict],
        "Reason": 0 if result is None else reason_code(result.reason),
        "PartCount": 0 if result is None else result.part_count,
    }
    part_id = "" if result is None else result.part_id
    return {
        **told,
        "ScoreMilli": milli(score),
        "Score": -1.0 if score is None or not math.isfinite(score) else min(score, 1e30),
        "ResultPartIDLength": len(part_id),
        "ResultPartID": part_id,
        "LayoutVersion": LAYOUT_VERSION,
        "State": outputs.state,
        "StatusWord": _word(flags),
        "SessionEcho": outputs.session_echo,
        "CommandEcho": outputs.command_echo,
        "CommandState": outputs.command_state,
        "TriggerSeqEcho": outputs.trigger_echo,
        "AcquiredSeq": outputs.acquired_seq,
        "ActiveRecipe": outputs.active_recipe,
        "ErrorCode": outputs.error_code,
        "Errors": outputs.errors,
        "MissedTriggers": outputs.missed_triggers,
        "ResultOverruns": outputs.result_overruns,
        "Triggers": outputs.triggers,
        "Passed": outputs.passed,
        "Failed": outputs.failed,
        "Faults": outputs.faults,
        "ResetCountEcho": outputs.reset_count_echo,
        "Heartbeat": outputs.heartbeat,
        "ResultSeqEnd": told["ResultSeq"],
    }


def milli(score: float | None) -> int:
    """A score in thousandths of the limit, at most 32,767; -1: none.

    It is rounded towards the limit's own side: a FAIL is 1000 or more, a PASS is less.
    """
    if score is None or not math.isfinite(score) or score < 0:
        return -1
    return min(_MOST_MILLI, math.floor(score * 1000))


@dataclass(frozen=True)
class Place:
    """A row of the printed map."""

    address: int
    registers: int
    block: str
    name: str
    type: str
    access: str
    meaning: str


def places(cameras: Sequence[str], offset: int | None = None) -> Iterator[Place]:
    """Every value of the map, in the order of the blocks.

    With ``offset`` it is that of a PLC which is the server: it has the blocks of the cameras alone.
    """
    if offset is not None:
        yield from _camera_places(cameras, offset)
        return
    for block, base, fields in (
        ("overview", OVERVIEW, OVERVIEW_FIELDS),
        ("test", TESTS, TEST_FIELDS),
        ("panel", HMI, HMI_FIELDS),
    ):
        for field in fields:
            yield _place(block, base, field, "read")
    yield from _camera_places(cameras, 0)


def _camera_places(cameras: Sequence[str], offset: int) -> Iterator[Place]:
    for index, camera in enumerate(cameras):
        base = camera_base(index) + offset
        for field in CAMERA:
            yield _place(camera, base, field, "read")
        for field in PLC:
            yield _place(camera, base + PLC_OFFSET, field, "write")


def as_csv(cameras: Sequence[str], offset: int | None = None) -> str:
    """The map as CSV, to be imported by an engineering tool."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Place)])
    for place in places(cameras, offset):
        writer.writerow(dataclasses.astuple(place))
    return text.getvalue()


def as_markdown(cameras: Sequence[str], offset: int | None = None) -> str:
    """The map as tables for a person."""
    lines = []
    block = None
    for place in places(cameras, offset):
        if (place.block, place.access) != block:
            block = place.block, place.access
            who = "the PLC writes" if place.access == "write" else "the PLC reads"
            lines += ["", f"### {place.block}: {who}", ""]
            lines += ["| address | value | type | meaning |", "| --- | --- | --- | --- |"]
        last = place.address + place.registers - 1
        where = str(place.address) if place.registers == 1 else f"{place.address} to {last}"
        lines.append(f"| {where} | {place.name} | {place.type} | {place.meaning} |")
        if place.name == "StatusWord":
            base = 16 * place.address
            lines += [
                f"| bit {number} (coil {base + number}) | {name} | BOOL | {meaning} |"
                for number, (name, meaning) in enumerate(STATUS_BITS)
            ]
    return "\n".join(lines).strip() + "\n"


def _place(block: str, base: int, field: Field, access: str) -> Place:
    registers = 2 if field.name == "TestText" else field.registers
    return Place(base + field.at, registers, block, field.name, field.kind, access, field.meaning)


def _word(flags: Sequence[bool]) -> int:
    return sum(flag << number for number, flag in enumerate(flags))


def _swapped(value: int) -> int:
    return (value & 0xFF) << 8 | value >> 8
