"""The PLC's side of the handshake, scan by scan, without a bridge."""

from __future__ import annotations

from typing import Any

from inspector.bridges.codes import LAYOUT_VERSION, ErrorCode
from inspector.bridges.registers import CAMERA
from inspector.bridges.simulated_plc import FunctionBlock, Mode, Seen

READY, VALID = 1, 8


class Bench:
    """A block, and the registers that it reads; the bridge's heart beats at each scan."""

    def __init__(self, **options: Any) -> None:
        self.block = FunctionBlock(**options)
        self.now_s = 100.0
        self.read: dict[str, int | float] = {field.name: 0 for field in CAMERA}
        self.read["LayoutVersion"] = LAYOUT_VERSION

    def scan(self, after_s: float = 0.01, **changes: int) -> list[Seen]:
        self.now_s += after_s
        self.read |= changes
        self.read["Heartbeat"] += 1
        return list(self.block.scan(self.read, self.now_s))

    def open(self) -> None:
        while self.block.mode is not Mode.RUNNING:
            self.scan(SessionEcho=self.block.block["Session"], TriggerSeqEcho=0, ErrorCode=0)
        self.scan(StatusWord=READY)
        assert self.block.may_trigger

    def fire(self, part_id: str) -> int:
        self.block.trigger(part_id, self.now_s)
        return self.block.block["TriggerSeq"]

    def result(self, trigger_seq: int, after_s: float = 0.01) -> list[Seen]:
        seq = int(self.read["ResultSeq"]) + 1
        return self.scan(
            after_s,
            StatusWord=READY | VALID,
            ResultSeq=seq,
            ResultSeqEnd=seq,
            ResultTriggerSeq=trigger_seq,
            TriggerSeqEcho=trigger_seq,
            Verdict=1,
        )


def test_a_plc_that_stood_still_takes_no_pass_after_its_own_time():
    bench = Bench(timeout_s=1.5)
    bench.open()
    seq = bench.fire("in time")
    assert [(one.part_id, one.passes) for one in bench.result(seq)] == [("in time", True)]
    seq = bench.fire("too late")
    assert [(one.part_id, one.verdict) for one in bench.result(seq, 1.6)] == [("too late", 0)]
    assert bench.block.discarded == 1, "the result is taken all the same, and of no effect"


def test_a_step_that_blocks_the_bridge_leads_to_another_session():
    bench = Bench()
    bench.open()
    before = bench.block.block["Session"]
    bench.scan(ErrorCode=int(ErrorCode.TRIGGER_STEP), StatusWord=16)
    assert bench.block.block["Session"] == 0
    bench.open()
    assert bench.block.block["Session"] not in {0, before}


def test_the_first_number_of_a_session_may_be_any_and_wraps():
    bench = Bench(first_seq=65_535)
    bench.open()
    numbers = []
    for part in ("a", "b"):
        numbers.append(bench.fire(part))
        assert [one.part_id for one in bench.result(numbers[-1])] == [part]
    assert numbers == [65_535, 1]


def test_an_error_is_acknowledged_again_and_again_and_no_pass_stands_beside_it():
    bench = Bench()
    bench.open()
    seq = bench.fire("a")
    bench.read["ErrorCode"] = int(ErrorCode.LOT)
    assert [(one.part_id, one.passes) for one in bench.result(seq)] == [("a", False)]
    acknowledged = [bench.block.block["ErrorAck"]]
    for _ in range(3):
        bench.scan()
        acknowledged.append(bench.block.block["ErrorAck"])
    assert acknowledged == [13, 0, 13, 0]
    bench.scan(ErrorCode=0)
    seq = bench.fire("b")
    assert [(one.part_id, one.passes) for one in bench.result(seq)] == [("b", True)]


COUNTS = 512


def test_a_camera_on_a_trigger_line_counts_from_an_echoed_reset_on():
    bench = Bench(counted=True)
    while bench.block.mode is not Mode.RUNNING:
        bench.scan(SessionEcho=bench.block.block["Session"])
    bench.scan(StatusWord=READY)
    assert bench.block.needs_reset and not bench.block.may_trigger
    bench.fire("too early")
    assert [(one.part_id, one.passes) for one in bench.scan()] == [("too early", False)]
    bench.block.empty_line()
    asked = bench.block.block["ResetCount"]
    assert asked and bench.block.block["TriggerSeq"] == 0
    bench.scan()
    assert bench.block.needs_reset, "not echoed yet"
    bench.fire("not empty")
    assert len(bench.scan(ResetCountEcho=asked, StatusWord=READY | COUNTS)) == 1
    assert bench.block.needs_reset, "a part came during the reset"
    bench.block.empty_line()
    assert bench.block.block["ResetCount"] not in {0, asked}
    bench.scan(ResetCountEcho=bench.block.block["ResetCount"])
    assert not bench.block.needs_reset and bench.block.may_trigger
    for number in (1, 2):
        assert bench.fire(f"part-{number}") == number
        bench.read["PartCount"] = number
        assert [one.passes for one in bench.result(number)] == [True]
    assert bench.fire("part-3") == 3
    bench.read["PartCount"] = 2
    assert [one.passes for one in bench.result(3)] == [False], "another count"
    bench.scan(StatusWord=READY)
    assert bench.block.needs_reset, "the counts differ"
