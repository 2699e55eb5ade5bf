"""The function block that is shipped, as another maker's parser reads it, against the handshake."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.bridges.codes import ErrorCode
from inspector.bridges.fields import PlcFields, Ticket
from inspector.bridges.registers import camera_values
from inspector.bridges.results import LARGEST
from tests.bridges.parts import Plc, answer, status
from tests.paths import ROOT

pytestmark = pytest.mark.peers

BLOCK = ROOT / "docs" / "plc" / "function-block.st"
_PYTHON = ROOT / ".peers" / "structured-text" / "bin" / "python"
_PROGRAM = ROOT / "tests" / "bridges" / "structured_text.py"


def started(path: Path) -> subprocess.Popen[str]:
    if not _PYTHON.exists():
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("blark is not installed; run .ci/peers")
        pytest.skip("blark is not installed")
    command = [str(_PYTHON), str(_PROGRAM), str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wrong_with(path: Path) -> str:
    """What is wrong with a file; "" for nothing."""
    with started(path) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        return str(json.loads(child.stdout.readline()).get("wrong", ""))


class Running:
    """The block, called once a scan, and the bridge's side of the handshake at its registers."""

    def __init__(self, **settings: Any) -> None:
        self._settings = {"plc_heartbeat_s": 1.0} | settings
        self._child = started(BLOCK)
        assert "variables" in self._answer()
        self.now_ms = 0
        self.frames = 0
        self.new_bridge()
        self.is_wired = True
        self.told: dict[str, Any] = {}
        self.passes = self.rejects = self.missed = 0
        self.read: dict[str, Any] = {}

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()

    def new_bridge(self) -> None:
        self.plc = Plc(**self._settings)
        self.plc.bridge.status(status(frames=self.frames))

    def scan(self, **given: Any) -> dict[str, Any]:
        """One cycle of 20 ms: read, call, write."""
        self.now_ms += 20
        if self.is_wired:
            self.read = {f"In.{name}": value for name, value in self._registers().items()}
        told = self._call({"CommOk": self.is_wired, **self.read, **given})
        self.passes += told["Pass"]
        self.rejects += told["Reject"]
        self.missed += told["Missed"]
        if self.is_wired:
            self.plc.now_s = self.now_ms / 1000
            self.plc.fields = self._written(told)
            self.plc.actions += self.plc.bridge.scan(self.plc.fields, self.plc.now_s)
        self.told = told
        return told

    def set(self, **values: Any) -> None:
        """Have variables bear these, as after many parts."""
        self._call(values)

    def run(self, seconds: float) -> None:
        for _ in range(round(50 * seconds)):
            self.scan()

    def until(self, name: str, value: Any = True, within_s: float = 5.0) -> None:
        for _ in range(round(50 * within_s)):
            if self.scan()[name] == value:
                return
        raise AssertionError(f"{name} did not become {value}: {self.told}")

    def fire(self, part_id: str = "p") -> None:
        """The part stands before the camera."""
        self.scan(Fire=True, PartID=part_id)
        self.scan(Fire=False)

    def judge(self, **changes: Any) -> None:
        """The station answers the last trigger."""
        (*_, trigger) = [one for one in self.plc.actions if hasattr(one, "ticket")]
        self.plc.bridge.acquired(trigger.ticket)
        self.plc.bridge.verdict(trigger.ticket, answer(trigger.ticket, trigger.part_id, **changes))

    def picture(self, **changes: Any) -> None:
        """The camera on the trigger line took its next picture, and it was judged."""
        self.frames += 1
        told = {"session": "", "trigger_seq": None, "frame": self.frames}
        message = answer(Ticket("", 1), seq=self.frames, **(told | changes))
        self.plc.bridge.pictured(message, False, self.now_ms / 1000, self.now_ms / 1000)

    def empty_line(self) -> None:
        """Somebody has emptied the line, and says so."""
        self.scan(LineEmpty=True)
        self.scan(LineEmpty=False)

    def _registers(self) -> dict[str, Any]:
        block = camera_values(self.plc.bridge.outputs())
        names = (
            "ResultSeq ResultTriggerSeq Verdict Reason ScoreMilli LayoutVersion State SessionEcho"
        )
        names += (
            " TriggerSeqEcho AcquiredSeq StatusWord ActiveRecipe ErrorCode Heartbeat ResultSeqEnd"
            " PartCount ResetCountEcho"
        )
        return {name: block[name] for name in names.split()}

    def _written(self, told: dict[str, Any]) -> PlcFields:
        return PlcFields(
            session=told["Out.Session"],
            command=told["Out.Command"],
            trigger_seq=told["Out.TriggerSeq"],
            part_id=told["Out.PartID"],
            lot=told["Out.Lot"],
            recipe_id=told["Out.RecipeID"],
            result_ack=told["Out.ResultAck"],
            error_ack=told["Out.ErrorAck"],
            heartbeat=told["Out.Heartbeat"],
            reset_count=told["Out.ResetCount"],
        )

    def _call(self, given: dict[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"now_ms": self.now_ms, "given": given}) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found


@pytest.fixture
def block() -> Iterator[Running]:
    with contextlib.closing(Running()) as made:
        made.until("MayFire")
        yield made


def test_a_good_part_passes_for_one_scan_and_is_acknowledged(block):
    for number in range(1, 4):
        block.fire(f"part-{number}")
        assert not block.told["MayFire"]
        block.judge()
        block.until("Pass")
        assert (block.told["DonePart"], block.told["Verdict"]) == (f"part-{number}", 1)
        block.scan()
        assert not block.told["Pass"]
        assert block.plc.bridge.outputs().result is None
        block.until("MayFire")
    assert (block.passes, block.rejects, block.missed) == (3, 0, 0)


@pytest.mark.parametrize("verdict", ["FAIL", "FAULT"])
def test_another_verdict_is_a_reject(block, verdict):
    block.fire()
    score = {"score": None} if verdict == "FAULT" else {"score": 2.0}
    block.judge(verdict=verdict, reason="anomaly", **score)
    block.until("Reject")
    assert block.told["Verdict"] == {"FAIL": 2, "FAULT": 3}[verdict]
    block.run(2)
    assert (block.passes, block.rejects, block.missed) == (0, 1, 0)


def test_no_result_in_the_blocks_own_time_is_a_reject_and_a_late_one_is_of_no_effect(block):
    block.set(PartTime=400)
    block.fire("slow")
    block.run(0.6)
    assert (block.passes, block.rejects, block.told["TimedOut"]) == (0, 1, 1)
    assert block.told["DonePart"] == "slow"
    block.judge()
    block.run(0.2)
    assert (block.passes, block.told["Discarded"]) == (0, 1)
    block.fire("next")
    block.judge()
    block.until("Pass")
    assert block.told["DonePart"] == "next"


def test_a_part_that_comes_in_the_scan_of_the_result_before_has_its_whole_time(block):
    block.set(PartTime=1000)
    block.fire("a")
    block.run(0.8)
    block.judge()
    block.scan(Fire=True, PartID="b")
    assert block.told["Pass"] and block.told["DonePart"] == "a" and not block.told["Missed"]
    block.run(0.8)
    assert block.rejects == 0
    block.judge()
    block.until("Pass")
    assert block.told["DonePart"] == "b" and block.rejects == 0


def test_a_part_that_comes_too_early_is_told_as_missed_and_the_other_one_keeps_its_verdict(block):
    block.fire("a")
    block.judge()
    block.plc.bridge.status(status("Error"))
    block.scan(Fire=True, PartID="b")
    assert block.told["Pass"] and block.told["Missed"] and not block.told["Reject"]
    assert block.told["DonePart"] == "a"
    block.run(2)
    assert (block.passes, block.rejects, block.missed) == (1, 0, 1)


def test_a_cut_cable_and_a_stopped_heartbeat_reject_what_is_on_its_way(block):
    block.fire()
    block.is_wired = False
    block.scan()
    assert block.told["Reject"] and block.told["Phase"] == 0 and not block.told["MayFire"]
    block.run(1)
    block.is_wired = True
    block.until("MayFire")
    block.fire()
    block.plc.bridge.station_gone()
    block.run(1.2)
    assert block.told["Phase"] in {0, 1} and block.rejects == 2
    block.fire()
    assert (block.passes, block.missed) == (0, 1)
    block.plc.bridge.status(status())
    block.until("MayFire")


@pytest.mark.parametrize("error", [one for one in ErrorCode if one not in {0, 10}])
def test_every_error_clears_verdict_and_result_valid_and_lets_nothing_pass(block, error):
    block.fire("a")
    block.judge()
    block.until("Pass")
    assert (block.told["Verdict"], block.told["ResultValid"]) == (1, True)
    block.plc.bridge._error = error
    block.scan()
    assert (block.told["Verdict"], block.told["ResultValid"]) == (0, False)
    block.until("MayFire")
    assert block.plc.bridge.outputs().error_code == 0, "the block acknowledges"
    block.fire("b")
    block.plc.bridge._error = error
    block.judge()
    block.scan()
    assert not block.told["Pass"] and block.told["Reject"] and not block.told["ResultValid"]
    assert block.told["DonePart"] == "b"
    block.until("MayFire")
    block.fire("c")
    block.judge()
    block.until("Pass")


def test_an_error_that_comes_again_at_once_is_acknowledged_again(block):
    for _ in range(3):
        block.plc.bridge._error = ErrorCode.RECIPE_MISMATCH
        block.scan()
        block.plc.bridge._error = ErrorCode.RECIPE_MISMATCH
        block.run(0.2)
        assert block.plc.bridge.outputs().error_code == 0


def test_a_stopped_heartbeat_clears_verdict_and_result_valid(block):
    block.fire()
    block.judge()
    block.until("Pass")
    assert block.told["ResultValid"]
    block.plc.bridge.station_gone()
    block.run(1.2)
    assert (block.told["Verdict"], block.told["ResultValid"]) == (0, False)


@pytest.fixture
def counted() -> Iterator[Running]:
    """The block at a camera on a trigger line, in session, not counted yet."""
    with contextlib.closing(Running(hardware=True)) as made:
        made.set(Counted=True)
        made.until("Phase", 3)
        yield made


def counted_part(block: Running, part_id: str, **changes: Any) -> tuple[str, bool]:
    passes, rejects = block.passes, block.rejects
    block.fire(part_id)
    block.picture(**changes)
    for _ in range(100):
        if block.passes + block.rejects > passes + rejects:
            assert block.passes + block.rejects == passes + rejects + 1
            return block.told["DonePart"], block.passes > passes
        block.scan()
    raise AssertionError(block.told)


def test_a_camera_on_a_trigger_line_passes_nothing_until_the_line_was_emptied(counted):
    assert counted.told["NeedsReset"] and not counted.told["MayFire"]
    counted.fire("too early")
    counted.picture()
    counted.run(1.5)
    assert (counted.passes, counted.missed) == (0, 1)
    counted.empty_line()
    counted.until("MayFire")
    assert not counted.told["NeedsReset"]
    for number in range(1, 4):
        assert counted_part(counted, f"part-{number}") == (f"part-{number}", True)
        assert counted.told["Out.TriggerSeq"] == number
    bad = {"verdict": "FAIL", "reason": "anomaly", "score": 2.0}
    assert counted_part(counted, "bad", **bad) == ("bad", False)


def test_after_a_difference_every_part_is_a_reject_until_reset_count_is_echoed(counted):
    counted.empty_line()
    counted.until("MayFire")
    first = counted.told["Out.ResetCount"]
    assert counted_part(counted, "a") == ("a", True)
    counted.frames += 1  # The camera took a picture too many.
    assert counted_part(counted, "b") == ("b", False)
    assert counted.told["Reason"] == 102 and counted.told["NeedsReset"]
    counted.run(0.2)
    assert counted_part(counted, "c") == ("c", False)
    counted.run(0.2)
    counted.empty_line()
    counted.until("MayFire")
    assert counted.told["Out.ResetCount"] != first
    assert counted_part(counted, "d") == ("d", True)
    assert counted.told["Out.TriggerSeq"] == 1


def test_a_part_that_comes_during_the_reset_undoes_it(counted):
    counted.scan(LineEmpty=True, Fire=True, PartID="not empty")
    counted.scan(LineEmpty=False, Fire=False)
    counted.run(0.5)
    assert counted.missed == 1 and counted.told["NeedsReset"] and not counted.told["MayFire"]
    counted.picture()
    counted.run(1.5)
    counted.empty_line()
    counted.until("MayFire")
    assert counted_part(counted, "a") == ("a", True)


def test_an_edge_before_the_result_of_the_part_before_is_counted_and_missed(counted):
    counted.empty_line()
    counted.until("MayFire")
    counted.fire("a")
    counted.fire("b")
    assert counted.missed == 1
    counted.picture()
    counted.picture()
    counted.run(0.2)
    assert (counted.passes, counted.rejects, counted.told["DonePart"]) == (1, 0, "a")
    assert counted_part(counted, "c") == ("c", True)
    assert counted.told["Out.TriggerSeq"] == 3


@pytest.mark.parametrize("who", ["bridge", "plc"])
def test_who_starts_again_asks_for_an_empty_line(counted, who):
    counted.empty_line()
    counted.until("MayFire")
    assert counted_part(counted, "a") == ("a", True)
    if who == "bridge":
        counted.new_bridge()
    else:
        kept = {name: counted.told[name] for name in ("LastSession", "LastReset")}
        counted.close()
        counted._child = started(BLOCK)
        counted._answer()
        counted.set(Counted=True, **kept)
    counted.run(2)
    counted.fire("b")
    counted.picture()
    counted.run(2)
    assert counted.passes == 1 and counted.told["NeedsReset"]
    counted.empty_line()
    counted.until("MayFire")
    assert counted_part(counted, "c") == ("c", True)


def test_a_new_bridge_is_met_with_a_new_session(block):
    before = block.told["LastSession"]
    block.fire()
    block.new_bridge()
    block.run(0.1)
    assert block.rejects == 1
    block.until("MayFire")
    assert block.told["LastSession"] != before
    block.fire()
    block.judge()
    block.until("Pass")


def test_numbers_wrap_past_none(block):
    block.set(**{"Seq": LARGEST - 1, "Out.TriggerSeq": 0})
    block.plc.bridge._last = block.plc.bridge._echo = LARGEST - 1
    seen = []
    for _ in range(3):
        block.until("MayFire")
        block.fire()
        seen.append(block.told["Out.TriggerSeq"])
        block.judge()
        block.until("Pass")
    assert seen == [LARGEST, 1, 2]


def test_the_file_compiles_as_far_as_its_grammar_and_names_go():
    assert wrong_with(BLOCK) == ""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("END_CASE;", "", "Unexpected"),
        ("Reject := FALSE;", "Rejekt := FALSE;", "Rejekt is not declared"),
        ("In.ErrorCode = 10", "In.ErrorKode = 10", "In.ErrorKode is not declared"),
        ("Phase        : INT;", "Step : INT;", "Step is a word of the language"),
        ("    Seq          : UINT;", "    Seq, Idle : UINT;", "used nowhere: Idle"),
        ("    Seq          : UINT;", "    Seq, Awaited : UINT;", "Awaited is declared twice"),
        ("FireEdge(CLK := Fire)", "FireEdge(CLOCK := Fire)", "FireEdge has no CLOCK"),
        ("BeatTimer.Q OR", "BeatTimer.QQ OR", "BeatTimer.QQ is not declared"),
    ],
)
def test_what_no_compiler_would_take_is_found(tmp_path, old, new, why):
    text = BLOCK.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "wrong.st").write_text(text.replace(old, new, 1), encoding="utf-8")
    assert why in wrong_with(tmp_path / "wrong.st")
