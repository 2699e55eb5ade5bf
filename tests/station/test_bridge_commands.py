"""A real station and what bridges order and are told: pictures taken, lots, purposes, stops."""

from __future__ import annotations

import contextlib
import csv
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspector.client.commander import Commander
from inspector.client.exchange import Answer, Sent
from inspector.errors import CommandError
from inspector.journal.reader import Reader
from inspector.journal.schema import Delivered
from inspector.wire.messages import (
    DeliveredCommand,
    StatusMessage,
    VerdictMessage,
    decode_verdict,
)
from tests import running, tiny, videos

HELD = """
import sys, time
from pathlib import Path
from inspector.cli import main as cli
from inspector.detection import detector
from inspector.judging import self_test
from inspector.station.grabber import Grabber
flags = Path(sys.argv[1]).parent
judge, missed, hand_over = detector.Detector.judge, self_test.Defect.missed, Grabber._hand_over
def held(self, frame, **options):
    while (flags / "hold-judge").exists():
        time.sleep(0.005)
    return judge(self, frame, **options)
def failing(self, judgement):
    return "it was missed" if (flags / "miss").exists() else missed(self, judgement)
def late(self, arrival):
    while (flags / "hold-picture").exists():
        time.sleep(0.005)
    hand_over(self, arrival)
detector.Detector.judge = held
self_test.Defect.missed = failing
Grabber._hand_over = late
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""Its judge, its self-tests and its cameras fail or hang while there are files of these names."""


class Line:
    """A station, and the files that hold it up."""

    def __init__(self, station: Path, daemon: running.Running) -> None:
        self.station = station
        self.daemon = daemon

    @contextlib.contextmanager
    def flag(self, name: str) -> Iterator[None]:
        path = self.station.with_name(name)
        path.touch()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def commander(self, **options: str) -> Commander:
        return Commander(self.daemon.commands, **options)

    def recorded(self) -> list[VerdictMessage]:
        with Reader(self.station.parent / "journal") as reader:
            return [decode_verdict(body) for body in reader.walk()]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A camera of every kind, all of which wait for triggers."""
    folder = tmp_path_factory.mktemp("line")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    video = videos.write_avi(folder / "parts.avi", [tiny.good_picture()] * 50)
    plug = running.Plug()
    on_trigger = {"trigger": "software", "deadline_ms": 5000}
    cameras = [
        running.folder_camera(parts, loop=True, **on_trigger),
        {"name": "simulated", "kind": "simulator", **on_trigger},
        {
            "name": "live",
            "kind": "opencv",
            "source": f"http://127.0.0.1:{plug.port}/",
            **on_trigger,
        },
        {"name": "video", "kind": "opencv", "source": str(video), **on_trigger},
        {
            "name": "faulty",
            "kind": "faulty",
            "path": str(parts),
            "steps": [{"do": "frames"}],
            **on_trigger,
        },
    ]
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    alarm = {"parts_between_false_alarms": 1000}
    station = running.write_station(folder / "station.yaml", bundle, *cameras, alarm=alarm)
    try:
        with running.running(station, program=HELD) as daemon:
            daemon.wait_for_log(r"state=Ready")
            yield Line(station, daemon)
    finally:
        plug.pull()


def answers_until(
    commander: Commander, holds: Callable[[], bool], within_s: float = 10.0
) -> list[Answer]:
    found: list[Answer] = []
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, [answer.kind for answer in found]
        if (answer := commander.receive(0.2)) is not None:
            found.append(answer)
    while (answer := commander.receive(0.0)) is not None:
        found.append(answer)
    return found


def kinds(answers: list[Answer], sent: Sent) -> list[str]:
    return [answer.kind for answer in answers if answer.sent is sent]


def camera_status(status: StatusMessage, name: str) -> bool:
    return next(one.ready_for_trigger for one in status.cameras if one.name == name)


@pytest.mark.parametrize("camera", ["top", "simulated", "live", "video", "faulty"])
def test_part_may_move_before_it_is_judged(line, camera):
    with line.commander() as plc:
        with line.flag("hold-judge"):
            before_us = time.time_ns() // 1000
            sent = plc.send_trigger(camera, 1)
            answers = answers_until(plc, lambda: sent.acquired_us is not None)
            assert kinds(answers, sent) == ["accepted", "acquired"]
            assert before_us <= sent.acquired_us <= time.time_ns() // 1000
        answers = answers_until(plc, lambda: sent.is_done)
        assert kinds(answers, sent) == ["verdict"]
    assert sent.verdict.grabbed_us == sent.acquired_us
    assert sent.verdict.trigger_seq == 1


def test_camera_is_ready_again_when_its_picture_is_taken(line):
    with line.commander() as plc, line.commander() as desk:
        # A lost moment of the camera's start is none of its triggers.
        answers_until(plc, lambda: camera_status(desk.status(), "live"))
        with line.flag("hold-picture"):
            sent = plc.send_trigger("live", 1)
            answers_until(plc, lambda: sent.accepted)
            answers_until(plc, lambda: not camera_status(desk.status(), "live"), within_s=5)
            assert camera_status(desk.status(), "top")
            assert sent.acquired_us is None
        answers_until(plc, lambda: sent.is_done)
        answers_until(plc, lambda: camera_status(desk.status(), "live"), within_s=5)


def test_triggers_without_a_picture_hear_of_none_and_repetitions_of_one(line):
    told: list[int] = []
    with line.commander() as plc:
        first = plc.trigger("top", 1, on_acquired=told.append)
        again = plc.trigger("top", 1, repeat=True, on_acquired=told.append)
        assert told == [first.grabbed_us] * 2
        assert again == first.told_again()
        used = plc.trigger("top", 1, "another", on_acquired=told.append)
        assert (used.reason, used.grabbed_us, len(told)) == ("trigger_conflict", None, 2)


def test_a_trigger_that_is_repeated_meanwhile_hears_of_its_picture_too(line):
    with line.commander() as plc, line.commander(session=plc.session) as restarted:
        with line.flag("hold-judge"):
            sent = plc.send_trigger("top", 1)
            answers_until(plc, lambda: sent.acquired_us is not None)
            again = restarted.send_trigger("top", 1, repeat=True)
        answers = answers_until(restarted, lambda: again.is_done)
        answers_until(plc, lambda: sent.is_done)
    assert kinds(answers, again) == ["accepted", "acquired", "verdict"]
    assert again.acquired_us == sent.acquired_us
    assert again.verdict.seq == sent.verdict.seq


def test_only_production_counts(line):
    with line.commander() as plc:
        first = plc.trigger("top", 1)
        answers_until(plc, lambda: plc.status().last_seq == first.seq)
        before = plc.status()
        found = [
            plc.trigger("top", number, lot="A-17", purpose=purpose)
            for number, purpose in enumerate(["production", "challenge", "study", "study"], 2)
        ]
        again = plc.trigger("top", 4, repeat=True, lot="B", purpose="production")
        answers_until(plc, lambda: plc.status().last_seq == found[-1].seq)
        after = plc.status()
    assert [one.purpose for one in found] == ["production", "challenge", "study", "study"]
    assert {one.lot for one in found} == {"A-17"}
    assert again == found[2].told_again()
    assert not any(one.may_pass for one in [*found[2:], again])

    def counts(status: StatusMessage) -> list[int]:
        return [status.passed + status.failed, status.challenges, status.studies, status.last_seq]

    grown = [b - a for a, b in zip(counts(before), counts(after), strict=True)]
    assert grown == [1, 1, 2, 4]
    sum_of_all = after.passed + after.failed + after.faults + after.challenges + after.studies
    assert sum_of_all == after.last_seq


def test_what_became_of_a_verdict_stands_beside_it(line, tmp_path):
    with line.commander() as plc:
        verdict = plc.trigger("top", 1, "widget", lot="A-17", purpose="challenge")
        body = line.recorded()[verdict.seq - 1]
        for outcome, at_us in (("failed", 5), ("acknowledged", 9), ("acknowledged", 11)):
            plc.delivered(verdict.epoch, verdict.seq, outcome, at_us)
        for epoch, seq in ((verdict.epoch, verdict.seq + 1000), ("another", 1)):
            with pytest.raises(CommandError, match="not in the journal") as refused:
                plc.delivered(epoch, seq, "acknowledged")
            assert refused.value.code == "unknown"
    with Reader(line.station.parent / "journal") as reader:
        assert reader.delivered(verdict.epoch, 1, verdict.seq) == [
            Delivered(verdict.epoch, verdict.seq, "", "failed", 5),
            Delivered(verdict.epoch, verdict.seq, "", "acknowledged", 9),
        ]
    assert line.recorded()[verdict.seq - 1] == body == verdict
    table = tmp_path / "verdicts.csv"
    code, _, error = running.inside("export-verdicts", line.station, "-o", table)
    assert (code, error) == (0, "")
    with table.open(encoding="utf-8", newline="") as file:
        row = list(csv.DictReader(file))[verdict.seq - 1]
    assert (row["part_id"], row["lot"], row["purpose"]) == ("widget", "A-17", "challenge")
    assert row["acknowledged_us"] == "9"
    assert row["delivered"] == (
        '[{"client":"","outcome":"failed","at_us":5},'
        '{"client":"","outcome":"acknowledged","at_us":9}]'
    )


def test_reports_wait_for_no_answer_and_cost_no_verdict_its_place(line):
    with line.commander() as plc:
        first = plc.trigger("top", 1)
        reports = [
            plc.send(DeliveredCommand(epoch=first.epoch, seq=seq, outcome="discarded", at_us=seq))
            for seq in range(1, first.seq + 1)
        ]
        verdict = plc.trigger("top", 2)
        assert verdict.seq == first.seq + 1
        answers_until(plc, lambda: all(one.is_done for one in reports))
        assert {one.result().kind for one in reports} == {"done"}


def test_stopped_station_refuses_triggers_until_it_is_started(line):
    with line.commander() as plc, line.commander() as desk:
        verdict = plc.trigger("top", 1)
        assert "stopped at" in desk.stop()
        status = desk.status()
        assert (status.state, status.trouble) == ("Initialized", "")
        assert "inspector start" in status.stopped
        assert not any(camera.ready_for_trigger for camera in status.cameras)
        assert desk.stop() == f"already {status.stopped}"
        for number in (2, 2, 3):
            with pytest.raises(CommandError, match="the station is stopped at") as refused:
                plc.trigger("top", number)
            assert refused.value.code == "not_ready"
        # What was judged before is told again all the same.
        assert plc.trigger("top", 1, repeat=True) == verdict.told_again()
        code, text, _ = running.inside("status", line.daemon.commands)
        assert (code, "stopped at" in text) == (1, True)
        assert "state Ready" in desk.start()
        assert "was not stopped" in desk.start()
        assert (desk.status().state, desk.status().stopped) == ("Ready", "")
        # A refused number was not used.
        assert plc.trigger("top", 2).seq == verdict.seq + 1


def test_a_stop_leaves_no_open_part_without_a_verdict(line):
    with line.commander() as plc, line.commander() as desk:
        answers_until(plc, lambda: camera_status(desk.status(), "live"))
        with line.flag("hold-picture"):
            sent = plc.send_trigger("live", 1)
            answers_until(plc, lambda: sent.accepted)
            desk.stop()
            answers = answers_until(plc, lambda: sent.is_done)
        desk.start()
    assert kinds(answers, sent) == ["verdict"]
    assert (sent.verdict.reason, sent.verdict.grabbed_us) == ("not_ready", None)
    assert "stopped at" in sent.verdict.detail


def test_orders_on_the_command_line(line):
    at = ["--address", line.daemon.commands]
    assert running.inside("stop", *at)[:2][0] == 0
    code, _, error = running.inside("trigger", "top", *at)
    assert (code, error.count("\n")) == (30, 1)
    assert "not_ready: the station is stopped" in error
    assert running.inside("start", *at)[1].startswith("started")
    assert running.inside("reset", *at)[1] == "nothing to reset; state Ready\n"
    code, text, _ = running.inside("trigger", "top", "--lot", "L", "--purpose", "study", *at)
    assert code in (0, 1)
    assert "(study)" in text


@pytest.mark.long
def test_parts_that_are_no_production_raise_no_alarm(line):
    def alarm_after(purpose: str) -> str:
        with line.commander() as plc:
            sent = [plc.send_trigger("top", 1, purpose=purpose)]
            for number in range(2, 61):
                answers_until(plc, lambda: sent[-1].is_done)
                sent.append(plc.send_trigger("top", number, purpose=purpose))
            answers_until(plc, lambda: sent[-1].is_done)
            assert {one.verdict.reason for one in sent} == {"", "anomaly"}
            answers_until(plc, lambda: plc.status().last_seq == sent[-1].verdict.seq)
            return plc.status().alarm

    assert alarm_after("study") == ""
    assert alarm_after("challenge") == ""
    assert "parts FAIL" in alarm_after("production")


@pytest.mark.long
def test_reset_leads_out_of_an_error_through_the_self_test(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    bad = running.write_parts(tmp_path / "bad", tiny.bad_picture()) / "000.png"
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(
        tmp_path / "station.yaml", bundle_path, camera, self_test={"defect": str(bad)}
    )
    tmp_path.joinpath("miss").touch()
    with running.running(station, program=HELD) as daemon, Commander(daemon.commands) as desk:
        daemon.wait_for_log(r"state=Error")
        with pytest.raises(CommandError, match="self-test: top: it was missed") as refused:
            desk.reset()
        assert refused.value.code == "not_ready"
        with pytest.raises(CommandError, match="in state Error"):
            desk.start()
        assert desk.trigger("top", 1).reason == "not_ready"
        # A stop holds, also over the error.
        desk.stop()
        tmp_path.joinpath("miss").unlink()
        assert desk.reset() == "reset; state Initialized"
        with pytest.raises(CommandError, match="stopped"):
            desk.trigger("top", 2)
        desk.start()
        assert desk.trigger("top", 2).verdict.value == "PASS"
    # The states are the station's own, in the order that OPC 40100-1 draws.
    states = re.findall(r" state=(\w+)", daemon.log)
    after = states[states.index("Error") + 1 :]
    assert [state for state, before in zip(after, ["", *after], strict=False) if state != before][
        -3:
    ] == ["Preoperational", "Initialized", "Ready"]


@pytest.mark.long
def test_crashes_undo_neither_stop_nor_start_and_leave_a_fault_without_a_picture(
    tmp_path, bundle_path
):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=60_000)
    station = running.write_station(tmp_path / "station.yaml", bundle_path, camera)

    @contextlib.contextmanager
    def start() -> Iterator[tuple[running.Running, Commander]]:
        with (
            running.running(station, program=HELD) as daemon,
            Commander(daemon.commands, session="s") as plc,
        ):
            yield daemon, plc
            daemon.child.send_signal(signal.SIGKILL)
            daemon.child.wait(running.START_S)

    with start() as (daemon, plc):
        daemon.wait_for_log(r"state=Ready")
        plc.stop()
    tmp_path.joinpath("hold-picture").touch()
    with start() as (daemon, plc):
        daemon.wait_for_log(r" stopped .*before this start")
        assert "state=Ready" not in daemon.log
        assert plc.status().state == "Initialized"
        with pytest.raises(CommandError, match="stopped"):
            plc.trigger("top", 1)
        plc.start()
        sent = plc.send_trigger("top", 1, "p1", lot="A-17", purpose="study", timeout_s=60)
        answers = answers_until(plc, lambda: sent.accepted)
    assert kinds(answers, sent) == ["accepted"]
    told: list[int] = []
    with start() as (daemon, plc):
        daemon.wait_for_log(r"state=Ready")
        found = plc.trigger("top", 1, "p1", repeat=True, on_acquired=told.append)
        answers_until(plc, lambda: plc.status().last_seq == 1)
        status = plc.status()
    assert (found.reason, found.lot, found.purpose) == ("restarted", "A-17", "study")
    assert (found.repeated, told) == (True, [])
    assert (status.faults, status.studies) == (0, 1)


@pytest.mark.long
def test_stop_makes_a_source_wait_and_loses_none_of_its_parts(tmp_path, bundle_path):
    pictures = [tiny.good_picture() for _ in range(60)]
    parts = running.write_parts(tmp_path / "parts", *pictures)
    camera = running.folder_camera(parts, deadline_ms=60_000)
    paced = running.write_parts(tmp_path / "paced", tiny.good_picture())
    belt = running.folder_camera(paced, "belt", rate_hz=50, loop=True)
    station = running.write_station(tmp_path / "station.yaml", bundle_path, camera, belt)
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running.running(station, "--wait-for-subscriber", "10"))
        desk = stack.enter_context(Commander(daemon.commands))
        subscriber = stack.enter_context(daemon.subscriber())
        *_, _ = running.until(subscriber, lambda one: getattr(one, "camera", "") == "top")
        desk.stop()
        last = desk.status().last_seq

        def frames() -> int:
            return next(one.frames for one in desk.status().cameras if one.name == "belt")

        # The belt runs on under its camera, and makes no parts.
        answers_until(desk, lambda: frames() > 20)
        assert desk.status().last_seq <= last + 1
        desk.start()
        heard = list(
            running.until(
                subscriber,
                lambda one: (
                    isinstance(one, StatusMessage)
                    and any(each.state == "ended" for each in one.cameras)
                ),
            )
        )
    assert heard
    with Reader(tmp_path / "journal") as reader:
        found = [decode_verdict(body) for body in reader.walk()]
    shown = [one for one in found if one.camera == "top"]
    assert [one.part_id for one in shown] == [f"{number:03}.png" for number in range(60)]
    assert [one.reason for one in shown if one.reason] in ([], ["not_ready"])
