"""The register map: its rules, its orders of words and bytes, and numbers that never change."""

from __future__ import annotations

import csv
import io
import struct

import pytest

from inspector.bridges import codes, registers
from inspector.bridges.codes import Command, CommandState, ErrorCode
from inspector.bridges.registers import ByteOrders, Registers, camera_base, milli
from inspector.verdict import Reason
from tests.bridges.parts import Plc, answer

BLOCKS = {
    "camera": (registers.CAMERA, 100),
    "plc": (registers.PLC, 100),
    "overview": (registers.OVERVIEW_FIELDS, 32),
    "tests": (registers.TEST_FIELDS, 20 + 32),
    "panel": (registers.HMI_FIELDS, 20),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_short_and_no_value_lies_on_another(name):
    fields, most = BLOCKS[name]
    end = 0
    for field in fields:
        assert field.at >= end
        end = field.at + field.registers
        if field.registers > 1:
            assert field.at % 2 == 0, field.name
    assert end <= most


def test_all_bases_are_even_and_the_blocks_stand_apart():
    rows = list(registers.places([f"c{number}" for number in range(16)]))
    taken = [address for row in rows for address in range(row.address, row.address + row.registers)]
    assert len(taken) == len(set(taken))
    assert all(row.address % 2 == 0 for row in rows if row.registers > 1)
    # Coils are numbered to 65,535.
    assert 16 * max(taken) + 15 <= 65_535


def test_a_result_has_its_number_at_both_ends():
    assert registers.CAMERA[0].name == "ResultSeq"
    assert registers.CAMERA[-1].name == "ResultSeqEnd"


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        (ByteOrders(), [0x1234, 0, 0x1234, 0x5678, 0x42F6, 0xE979, 0x4142, 0x4344]),
        (
            ByteOrders(word="low_first"),
            [0x1234, 0, 0x5678, 0x1234, 0xE979, 0x42F6, 0x4142, 0x4344],
        ),
        (
            ByteOrders(byte="low_first"),
            [0x3412, 0, 0x3412, 0x7856, 0xF642, 0x79E9, 0x4142, 0x4344],
        ),
        (
            ByteOrders(text="low_first"),
            [0x1234, 0, 0x1234, 0x5678, 0x42F6, 0xE979, 0x4241, 0x4443],
        ),
    ],
)
def test_the_test_registers_show_the_orders(orders, expected):
    assert Registers(1, orders).read(registers.TESTS, 8) == expected


@pytest.mark.parametrize("byte", ["high_first", "low_first"])
@pytest.mark.parametrize("text", ["high_first", "low_first"])
def test_what_the_plc_writes_is_read_in_its_order(byte, text):
    orders = ByteOrders(byte=byte, text=text)
    table = Registers(2, orders)
    base = camera_base(1) + registers.PLC_OFFSET
    assert table.fields(1).session is None and table.fields(1).trigger_seq is None
    assert table.write(base, [orders.narrow(770), orders.narrow(4)]) == 1
    assert table.write(base + 7, [orders.narrow(6)]) == 1
    assert table.write(base + 10, orders.letters("S/N 12")) == 1
    found = table.fields(1)
    assert (found.session, found.command, found.part_id) == (770, 4, "S/N 12")
    assert found.trigger_seq is None and table.fields(0).session is None


@pytest.mark.parametrize(
    ("length", "letters", "expected"),
    [
        (0, "", ""),
        (64, "x" * 64, "x" * 64),
        (65, "x" * 64, None),
        (65_535, "", None),
        (3, "a\tb", None),
        (4, "abc", None),
    ],
)
def test_a_part_id_is_read_whole_or_not_at_all(length, letters, expected):
    table = Registers(1, ByteOrders())
    base = camera_base(0) + registers.PLC_OFFSET
    table.write(base + 7, [length])
    table.write(base + 10, ByteOrders().letters(letters))
    assert table.fields(0).part_id == expected


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (None, -1),
        (float("nan"), -1),
        (float("inf"), -1),
        (-0.5, -1),
        (0.0, 0),
        (0.9999999999, 999),
        (1.0, 1000),
        (1.0001, 1000),
        (32.767, 32_767),
        (1e9, 32_767),
    ],
)
def test_a_score_in_thousandths(score, expected):
    assert milli(score) == expected


def test_a_result_in_registers():
    plc = Plc()
    plc.open()
    ticket = plc.trigger(5, part_id="A-1")
    plc.bridge.verdict(ticket, answer(ticket, "A-1", verdict="FAIL", score=1.5, reason="anomaly"))
    table = Registers(1, ByteOrders())
    table.show(0, plc.outputs)
    table.show_all([plc.outputs])
    block = table.read(200, 70)
    assert block[:6] == [1, 5, 2, 1, 1500, 0] and block[69] == 1
    assert struct.unpack(">f", struct.pack(">2H", *block[6:8])) == (1.5,)
    assert block[8] == 3 and block[10:12] == [0x412D, 0x3100]
    assert block[44] & 0b1000, "ResultValid"
    assert table.read(9, 1) == [1] and table.read(8, 1) == [0]
    plc.write(result_ack=1)
    table.show(0, plc.outputs)
    block = table.read(200, 70)
    assert block[:5] == [0, 0, 0, 0, 65_535] and block[6:8] == [0xBF80, 0]


def test_counters_wrap_at_32_bits():
    table = Registers(1, ByteOrders())
    assert table._encoded("UDINT", 2**32 + 7) == [0, 7]


def test_the_map_as_csv_has_every_value_once():
    rows = list(csv.DictReader(io.StringIO(registers.as_csv(["top", "side"]))))
    names = [(row["block"], row["access"], row["name"]) for row in rows]
    assert len(names) == len(set(names))
    assert ("side", "write", "TriggerSeq") in names


def test_reason_codes_never_change():
    assert codes.REASON_CODES == {
        "": 0,
        "anomaly": 1,
        "not_finite": 2,
        "frame_shape": 3,
        "frame_unreadable": 4,
        "inference_error": 5,
        "camera_lost": 6,
        "queue_full": 7,
        "deadline_missed": 8,
        "too_dark": 9,
        "saturated": 10,
        "out_of_focus": 11,
        "frozen": 12,
        "over_trigger": 13,
        "trigger_conflict": 14,
        "not_ready": 15,
        "restarted": 16,
        "journal_failed": 17,
        "result_overrun": 100,
        "recipe_mismatch": 101,
        "count_mismatch": 102,
        "bad_text": 103,
        "refused": 104,
        "record_only": 105,
        "other_part": 106,
        "aborted": 107,
        "unknown": 255,
    }


def test_every_reason_of_the_station_has_a_number():
    assert {reason.value for reason in Reason} <= set(codes.REASON_CODES)
    assert codes.reason_code("of a later version") == 255


def test_codes_of_commands_errors_verdicts_and_states_never_change():
    assert [(one.name, one.value) for one in Command] == [
        ("NONE", 0),
        ("START", 1),
        ("STOP", 2),
        ("RESET", 3),
        ("RECIPE", 4),
    ]
    assert [one.value for one in CommandState] == [0, 1, 2, 3]
    assert {one.name: one.value for one in ErrorCode} == {
        "NONE": 0,
        "COMMAND_UNKNOWN": 1,
        "COMMAND_NOT_READY": 2,
        "COMMAND_NOT_CLEARED": 3,
        "COMMAND_STANDING": 4,
        "COMMAND_REFUSED": 5,
        "RECIPE_UNKNOWN": 6,
        "SESSION_STANDING": 7,
        "TRIGGER_NO_SESSION": 8,
        "TRIGGER_NOT_READY": 9,
        "TRIGGER_STEP": 10,
        "TRIGGER_STANDING": 11,
        "PART_ID": 12,
        "LOT": 13,
        "RESULTS_FULL": 14,
        "COUNT_MISMATCH": 15,
        "RESET_NOT_EMPTY": 16,
        "RECIPE_MISMATCH": 17,
        "MEAS_ID_USED": 18,
        "ARGUMENT": 19,
        "RESULT_UNKNOWN": 20,
    }
    assert set(codes.ERROR_MEANINGS) == set(ErrorCode)
    assert {str(verdict): code for verdict, code in codes.VERDICT_CODES.items()} == {
        "PASS": 1,
        "FAIL": 2,
        "FAULT": 3,
    }
    assert list(codes.STATE_CODES.items()) == [
        ("", 0),
        ("Preoperational", 1),
        ("Initialized", 2),
        ("Ready", 3),
        ("SingleExecution", 4),
        ("ContinuousExecution", 5),
        ("Halted", 6),
        ("Error", 7),
    ]
