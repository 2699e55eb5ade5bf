"""A real station on commands: one trigger, one verdict, whatever happens to the station."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from inspector.client.commander import Commander
from inspector.errors import CommandError
from inspector.journal.reader import Reader
from inspector.wire.messages import ReplayCommand, VerdictMessage
from tests import running, tiny

FAIL_WHILE = """
import sys
from pathlib import Path
from inspector.cli import main as cli
from inspector.journal import writer as journal
from inspector.errors import JournalError
commit = journal.Journal.commit
def failing(self, triggers, verdicts):
    if Path(sys.argv[1]).with_name("full").exists():
        raise JournalError("the disk is full")
    commit(self, triggers, verdicts)
journal.Journal.commit = failing
sys.exit(cli.main(["run", sys.argv[1]]))
"""

SLOW_JUDGE = """
import sys, time
from inspector.cli import main as cli
from inspector.detection import detector
from inspector.detection.engines import Engine
from inspector.detection.engines.onnxruntime import OnnxRuntimeBackend
judge = detector.Detector.judge
def slow(self, frame, **options):
    time.sleep(0.4)
    return judge(self, frame, **options)
detector.Detector.judge = slow
sys.exit(cli.main(["run", sys.argv[1]]))
"""


def write(tmp_path: Path, bundle: Path, **keys: object) -> Path:
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=2000)
    return running.write_station(tmp_path / "station.yaml", bundle, camera, **keys)


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path) -> Path:
    return write(tmp_path, bundle_path)


def recorded(station: Path) -> list[VerdictMessage]:
    with contextlib.closing(Reader(station.parent / "journal")) as reader:
        return [
            VerdictMessage.model_validate_json(body)
            for epoch, last in reader.epochs()
            for body in reader.verdicts(epoch, 1, max(last, 1), 100_000)
        ]


def ready(daemon: running.Running) -> Commander:
    daemon.wait_for_log(r"state=Ready")
    return Commander(daemon.commands)


def test_one_trigger_one_verdict_however_often_it_is_sent(station):
    with running.running(station) as daemon, ready(daemon) as plc:
        first = [plc.trigger("top", number, f"p{number}") for number in range(1, 21)]
        again = [plc.trigger("top", number, f"p{number}", repeat=True) for number in range(1, 21)]
        with Commander(daemon.commands, session=plc.session) as restarted:
            once_more = restarted.trigger("top", 7, "p7", repeat=True)
            counted_anew = restarted.trigger("top", 1, "p1")
        conflict = plc.trigger("top", 8, "another")
    assert [v.trigger_seq for v in first] == list(range(1, 21))
    assert [v.seq for v in first] == list(range(1, 21))
    assert {v.verdict.value for v in first} == {"PASS", "FAIL"}
    assert again == [verdict.told_again() for verdict in first]
    assert once_more == again[6]
    assert not any(verdict.repeated for verdict in first)
    assert (counted_anew.seq, counted_anew.reason) == (21, "trigger_conflict")
    assert (conflict.verdict.value, conflict.reason) == ("FAULT", "trigger_conflict")
    assert [v.part_id for v in recorded(station)][:20] == [f"p{n}" for n in range(1, 21)]


def test_trigger_for_a_camera_that_takes_none_is_no_part(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    camera = running.folder_camera(parts, rate_hz=5, loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        for name in ("top", "nowhere"):
            with pytest.raises(CommandError, match=name):
                plc.trigger(name, 1)


def test_trigger_that_a_crash_left_is_a_fault_after_the_restart(station):
    session = "line-run-1"
    with running.running(station, program=SLOW_JUDGE) as daemon, ready(daemon) as plc:
        assert plc.trigger("top", 1, "p1").verdict.value == "PASS"
        threading.Timer(0.2, daemon.child.send_signal, (signal.SIGKILL,)).start()
        with Commander(daemon.commands, session=session) as other, pytest.raises(CommandError):
            other.trigger("top", 5, "p5", timeout_s=1.0)
        daemon.child.wait(running.START_S)
    with running.running(station) as daemon, ready(daemon) as plc:
        assert plc.trigger("top", 2, "p2").verdict.value in {"PASS", "FAIL"}
    found = recorded(station)
    assert [(v.part_id, v.reason) for v in found] == [
        ("p1", ""),
        ("p5", "restarted"),
        ("p2", ""),
    ]
    assert [v.seq for v in found] == [1, 1, 2]


def test_failing_journal_lets_ready_fall_and_passes_nothing(station):
    full = station.with_name("full")
    with running.running(station, program=FAIL_WHILE) as daemon, ready(daemon) as plc:
        assert plc.trigger("top", 1, "p1").verdict.value == "PASS"
        full.touch()
        with pytest.raises(CommandError, match="recorded"):
            plc.trigger("top", 2, "p2")
        daemon.wait_for_log(r"state=Error")
        assert plc.status().state == "Error"
        assert "disk is full" in plc.status().trouble
        full.unlink()
        daemon.wait_for_log(r"cured")
        deadline = time.monotonic() + 10
        while plc.status().state != "Ready" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert plc.trigger("top", 3, "p3").verdict.value in {"PASS", "FAIL"}
    found = {v.part_id: v for v in recorded(station)}
    assert found["p2"].verdict.value == "FAULT"
    assert found["p2"].reason == "journal_failed"


def test_missed_golden_part_lets_ready_fall_until_it_is_acknowledged(tmp_path, bundle_path):
    good = running.write_parts(tmp_path / "golden", tiny.good_picture()) / "000.png"
    station = write(tmp_path, bundle_path, self_test={"defect": str(good)})
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"self-test .*is a PASS")
        daemon.wait_for_log(r"state=Error")
        missed = plc.trigger("top", 1, "p1")
        assert (missed.verdict.value, missed.reason) == ("FAULT", "not_ready")
        bad = running.write_parts(tmp_path / "bad", tiny.bad_picture()) / "000.png"
        good.write_bytes(bad.read_bytes())
        plc.reload()
        assert plc.status().state == "Ready"
        assert plc.trigger("top", 2, "p2").verdict.value in {"PASS", "FAIL"}
    assert [v.part_id for v in recorded(station)] == ["p1", "p2"]


def test_bundle_that_fails_on_its_first_part_is_rolled_back(tmp_path, bundle_path):
    other = tiny.write_bundle(tmp_path / "other.onnx", name="other")
    parts = running.write_parts(tmp_path / "parts", tiny.nan_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(tmp_path / "station.yaml", bundle_path, camera)
    document = yaml.safe_load(station.read_text())
    document["recipes"]["next"] = {"top": {"bundle": str(other)}}
    station.write_text(yaml.safe_dump(document))
    with running.running(station) as daemon, ready(daemon) as plc:
        plc.recipe("next")
        found = plc.trigger("top", 1)
        assert (found.recipe, found.model.name) == ("r", "tiny")
        daemon.wait_for_log(r"rolled back")
        assert plc.status().recipe == "r"


FAIL_OTHER = """
import sys
from inspector.cli import main as cli
from inspector.detection import detector
from inspector.detection.engines import Engine
from inspector.detection.engines.onnxruntime import OnnxRuntimeBackend
judge = detector.Detector.judge
class Failing(OnnxRuntimeBackend):
    def infer(self, batch):
        raise detector.Fault("inference_error", self.health())
    def health(self):
        return "CUDA failure 999"
def of_other(self, frame, **options):
    if self.manifest.name == "other":
        self._backend = Failing(Engine())
    return judge(self, frame, **options)
detector.Detector.judge = of_other
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""The bundle 'other' passes every check, and fails on the line's first part."""


def test_status_after_a_rollback_is_that_of_the_judge_at_work(tmp_path, bundle_path):
    other = tiny.write_bundle(tmp_path / "other.onnx", name="other")
    station = write(tmp_path, bundle_path)
    document = yaml.safe_load(station.read_text())
    document["recipes"]["next"] = {"top": {"bundle": str(other)}}
    station.write_text(yaml.safe_dump(document))
    with running.running(station, program=FAIL_OTHER) as daemon, ready(daemon) as plc:
        plc.recipe("next")
        assert plc.status().recipe == "next"
        found = plc.trigger("top", 1)
        assert (found.recipe, found.model.name, found.reason) == ("r", "tiny", "")
        status = plc.status()
        assert (status.recipe, status.inference) == ("r", "")
        models = re.findall(r" model camera=top .*name=(\w+)", daemon.log)
        assert models == ["tiny", "other", "tiny"]


def test_part_that_waits_at_the_stop_gets_its_verdict(station):
    with running.running(station, program=SLOW_JUDGE) as daemon, ready(daemon) as plc:
        threading.Timer(0.2, daemon.child.send_signal, (signal.SIGTERM,)).start()
        assert plc.trigger("top", 1, "p1").part_id == "p1"
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    assert [v.part_id for v in recorded(station)] == ["p1"]


CRASH_CHANGEOVER = """
import sys
from inspector.cli import main as cli
from inspector.judging import judges
load, calls = judges.load, []
def once(station, *more):
    calls.append(station)
    if len(calls) == 2:
        raise MemoryError("a bug")
    yield from load(station, *more)
judges.load = once
sys.exit(cli.main(["run", sys.argv[1]]))
"""

STALL = """
import sys, time
from pathlib import Path
from inspector.cli import main as cli
from inspector.journal import writer as journal
commit = journal.Journal.commit
def slow(self, triggers, verdicts):
    while verdicts and Path(sys.argv[1]).with_name("stall").exists():
        time.sleep(0.02)
    commit(self, triggers, verdicts)
journal.Journal.commit = slow
sys.exit(cli.main(["run", sys.argv[1]]))
"""


def test_changeover_that_crashes_is_refused_and_the_next_one_works(station):
    with running.running(station, program=CRASH_CHANGEOVER) as daemon, ready(daemon) as plc:
        with pytest.raises(CommandError, match="crashed"):
            plc.reload()
        assert "r:" in plc.reload()
        assert plc.trigger("top", 1).verdict.value in {"PASS", "FAIL"}


@pytest.mark.long
def test_repeated_trigger_never_gets_what_was_not_recorded(station):
    full = station.with_name("full")
    with running.running(station, program=FAIL_WHILE) as daemon, ready(daemon) as plc:
        full.touch()
        for repeat in (False, True, True):
            with pytest.raises(CommandError, match="recorded") as refused:
                plc.trigger("top", 1, "p1", repeat=repeat)
            assert refused.value.code == "journal"
        full.unlink()
        daemon.wait_for_log(r"cured")
        again = plc.trigger("top", 1, "p1", repeat=True)
        assert (again.verdict.value, again.reason) == ("FAULT", "journal_failed")
        assert again.repeated


def test_two_changeovers_without_a_part_then_a_failing_model_is_rolled_back(tmp_path, bundle_path):
    other = tiny.write_bundle(tmp_path / "other.onnx", name="other")
    parts = running.write_parts(tmp_path / "parts", tiny.nan_picture(), tiny.good_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(tmp_path / "station.yaml", bundle_path, camera)
    document = yaml.safe_load(station.read_text())
    document["recipes"]["next"] = {"top": {"bundle": str(other)}}
    station.write_text(yaml.safe_dump(document))
    with running.running(station) as daemon, ready(daemon) as plc:
        plc.recipe("next")
        plc.recipe("r")
        plc.recipe("next")
        assert plc.trigger("top", 1).reason == "not_finite"
        assert plc.trigger("top", 2).verdict.value == "PASS"
        assert plc.trigger("top", 3).reason == "not_finite"


def test_disk_that_stalls_lets_ready_fall_and_no_late_pass_out(station):
    stall = station.with_name("stall")
    text = station.read_text().replace("deadline_ms: 2000", "deadline_ms: 300")
    station.write_text(text)
    with running.running(station, program=STALL) as daemon, ready(daemon) as plc:
        assert plc.trigger("top", 1).verdict.value == "PASS"
        stall.touch()
        found = []
        threads = []
        for number in (2, 3):

            def trigger(number: int = number) -> None:
                with Commander(daemon.commands, session=plc.session) as other:
                    found.append(other.trigger("top", number, timeout_s=20))

            threads.append(threading.Thread(target=trigger))
            threads[-1].start()
            time.sleep(0.3)
        daemon.wait_for_log(r"has not answered")
        stall.unlink()
        for thread in threads:
            thread.join()
        daemon.wait_for_log(r"cured")
    late = next(verdict for verdict in found if verdict.trigger_seq == 3)
    assert (late.verdict.value, late.reason) == ("FAULT", "deadline_missed")


SLOW_SYNC = """
import sys, time
from pathlib import Path
from inspector.cli import main as cli
from inspector.journal import writer as journal
commit = journal.Journal.commit
def slow(self, triggers, verdicts):
    commit(self, triggers, verdicts)
    if verdicts and Path(sys.argv[1]).with_name("slow").exists():
        time.sleep(0.6)
journal.Journal.commit = slow
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""A disk on which a verdict is written at once, and synced after 600 ms."""


@pytest.mark.long
def test_late_pass_is_overwritten_before_anybody_hears_of_it(station):
    text = station.read_text().replace("deadline_ms: 2000", "deadline_ms: 300")
    station.write_text(text)
    late = (3, "FAULT", "deadline_missed")
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running.running(station, program=SLOW_SYNC))
        plc = stack.enter_context(ready(daemon))
        subscriber = stack.enter_context(daemon.subscriber())
        assert [plc.trigger("top", n).verdict.value for n in (1, 2)] == ["PASS", "FAIL"]
        station.with_name("slow").touch()
        found: list[VerdictMessage] = []
        asking = threading.Thread(target=lambda: found.append(plc.trigger("top", 3)))
        asking.start()
        replayed, on_disk = _watch(daemon, station, asking)
        asking.join()
        station.with_name("slow").unlink()
        again = plc.trigger("top", 3, repeat=True)
        *_, heard = running.until(subscriber, lambda one: getattr(one, "seq", 0) == 3)
    assert [(one.seq, one.verdict.value, one.reason) for one in found] == [late]
    assert (again.seq, again.reason, again.repeated) == (3, "deadline_missed", True)
    assert (heard.seq, heard.verdict.value, heard.reason) == late
    # The PASS lay on the disk, while the station replayed nothing of it.
    assert on_disk == ["", "deadline_missed"]
    assert replayed == ["deadline_missed"]
    assert [one.reason for one in recorded(station)] == ["", "anomaly", "deadline_missed"]


def _watch(
    daemon: running.Running, station: Path, asking: threading.Thread
) -> tuple[list[str], list[str]]:
    """Reasons that verdict 3 had: by replay, and in the file."""
    replayed: list[str] = []
    on_disk: list[str] = []
    with Commander(daemon.commands) as desk:
        while True:
            is_over = not asking.is_alive()
            for reasons, verdicts in (
                (on_disk, [one for one in recorded(station) if one.seq == 3]),
                (replayed, [one for one in _replay(desk) if one.seq == 3]),
            ):
                if verdicts and reasons[-1:] != [verdicts[0].reason]:
                    reasons.append(verdicts[0].reason)
            if is_over:
                return replayed, on_disk
            time.sleep(0.02)


def _replay(desk: Commander) -> tuple[VerdictMessage, ...]:
    command = ReplayCommand(id="replay", since_us=0)
    return desk.wait(desk.send(command)).verdicts


def stands_still(pid: int) -> bool:
    """Whether every thread of a process is stopped."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((one / "stat").read_text().rpartition(") ")[2].startswith("T") for one in threads)


@pytest.mark.long
def test_station_that_stood_still_takes_no_picture_for_what_it_missed(station):
    with running.running(station) as daemon, ready(daemon) as plc:
        assert plc.trigger("top", 1).verdict.value == "PASS"
        daemon.child.send_signal(signal.SIGSTOP)
        # Each of its threads goes on until the kernel looks at it.
        while not stands_still(daemon.child.pid):
            time.sleep(0.01)
        # Far longer than the deadline, as this process may be held up, too.
        threading.Timer(2.5, daemon.child.send_signal, (signal.SIGCONT,)).start()
        missed = plc.trigger("top", 2)
        # Had it taken a picture, the next part would be the good one again.
        after = plc.trigger("top", 3)
    assert (missed.reason, missed.grabbed_us) == ("deadline_missed", None)
    assert (after.verdict.value, after.reason) == ("FAIL", "anomaly")


@pytest.mark.long
def test_commands_of_the_last_moments_are_answered(station):
    with running.running(station, program=SLOW_JUDGE) as daemon, ready(daemon) as plc:
        threading.Timer(0.1, daemon.child.send_signal, (signal.SIGTERM,)).start()
        answers = []
        for number in range(1, 50):
            try:
                answers.append(plc.trigger("top", number, timeout_s=2.0).reason)
            except CommandError as error:
                answers.append(error.code)
                break
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    assert set(answers) <= {"", "anomaly", "not_ready", "deadline_missed", "stopping"}, answers


@pytest.mark.long
def test_journal_that_fails_at_the_stop_is_no_crash(station):
    failing = FAIL_WHILE.partition("sys.exit")[0]
    # So late that the loop has ended by then.
    failing = failing.replace("        raise", "        time.sleep(0.8)\n        raise")
    program = SLOW_JUDGE.replace("sys.exit", failing + "sys.exit")
    with running.running(station, program=program) as daemon, ready(daemon) as plc:

        def fail_and_stop() -> None:
            station.with_name("full").touch()
            daemon.child.send_signal(signal.SIGTERM)

        threading.Timer(0.2, fail_and_stop).start()
        with contextlib.suppress(CommandError):
            assert plc.trigger("top", 1, timeout_s=5.0).verdict.value == "FAULT"
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    assert "state=Halted" in daemon.log
    assert "Traceback" not in daemon.log
