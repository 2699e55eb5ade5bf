"""The jobs of an OPC UA camera: each ends once, and as its own part or as a FAULT."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inspector.bridges.codes import BridgeReason
from inspector.bridges.fields import Delivered, Trigger
from inspector.bridges.jobs import Finished, Job, JobError, Jobs
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import CameraStatus, StatusMessage, VerdictMessage
from tests import messages
from tests.stations import verdict

TIMEOUT_S = 1.0


def status(**changes: object) -> StatusMessage:
    camera = CameraStatus(name="top", state="running", detail="", frames=1)
    made = messages.status(0, state="Ready", recipe="r", cameras=(camera,))
    return made.model_copy(update=changes)


class Line(RuleBasedStateMachine):
    """A station and a client that do what they like, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs("top", "run", TIMEOUT_S)
        self.now_s = 0.0
        self.started: dict[str, Job] = {}
        self.ended: dict[str, Finished] = {}
        self.under_way: list[Trigger] = []
        self.seq = 0
        self.sent: dict[int, Trigger] = {}

    def take(self) -> None:
        for action in self.jobs.actions():
            if isinstance(action, Trigger):
                self.under_way.append(action)
            elif isinstance(action, Delivered):
                assert action.origin.seq in self.sent
        for end in self.jobs.finished():
            assert end.job.meas_id not in self.ended, "a job ended twice"
            self.ended[end.job.meas_id] = end
            if end.result.verdict is Verdict.PASS:
                # Its own verdict, live, and of the recipe that was in force.
                assert end.message is not None and not end.message.repeated
                assert end.job.part_id in {"", end.message.part_id}
                assert (end.message.session, end.message.trigger_seq) == tuple(end.job.ticket)
                assert end.message.recipe == end.job.recipe

    @rule(meas=st.sampled_from(["", "", "a:1", "a:2", "free"]), part=st.sampled_from(["", "p"]))
    def start(self, meas: str, part: str) -> None:
        try:
            job = self.jobs.start(meas, part, "", "", self.now_s)
        except JobError:
            return
        assert job.meas_id not in self.started, "one id, two measurements"
        self.started[job.meas_id] = job
        self.take()

    @rule()
    def ready(self) -> None:
        self.jobs.status(status())

    @rule(state=st.sampled_from(["Initialized", "Error", "SingleExecution"]))
    def stands(self, state: str) -> None:
        self.jobs.status(status(state=state, recipe="other" if state == "Error" else "r"))

    @rule()
    def gone(self) -> None:
        self.jobs.station_gone()

    @rule(data=st.data())
    def acquired(self, data: st.DataObject) -> None:
        if self.under_way:
            self.jobs.acquired(data.draw(st.sampled_from(self.under_way)).ticket)
            self.jobs.acquisitions()

    @rule(data=st.data(), good=st.booleans(), wrong=st.sampled_from(["", "", "part", "again"]))
    def judged(self, data: st.DataObject, good: bool, wrong: str) -> None:
        if not self.under_way:
            return
        trigger = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(trigger)
        self.seq += 1
        self.sent[self.seq] = trigger
        message = verdict(
            self.seq,
            camera="top",
            recipe="r",
            part_id="another" if wrong == "part" else trigger.part_id,
            session=trigger.ticket.session,
            trigger_seq=trigger.ticket.number,
            verdict=Verdict.PASS if good else Verdict.FAIL,
            reason="" if good else Reason.ANOMALY.value,
            repeated=wrong == "again",
        )
        self.jobs.verdict(trigger.ticket, message)
        self.take()

    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        if self.under_way:
            trigger = data.draw(st.sampled_from(self.under_way))
            self.under_way.remove(trigger)
            self.jobs.refused(trigger.ticket)
            self.take()

    @rule()
    def abort(self) -> None:
        self.jobs.abort()
        self.take()

    @rule(s=st.sampled_from([0.1, 0.6, 2.0]))
    def wait(self, s: float) -> None:
        self.now_s += s
        self.jobs.pass_time(self.now_s)
        self.take()

    @invariant()
    def what_is_late_has_ended(self) -> None:
        for meas, job in self.started.items():
            assert meas in self.ended or self.now_s < job.due_s

    def teardown(self) -> None:
        self.wait(10.0)
        assert set(self.started) == set(self.ended)


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60, stateful_step_count=30)


def started() -> tuple[Jobs, Job]:
    jobs = Jobs("top", "run", TIMEOUT_S)
    jobs.status(status())
    job = jobs.start("", "p", "r", "lot", 0.0)
    assert jobs.actions() == [Trigger(job.ticket, "p", "lot")]
    return jobs, job


def of(job: Job, **changes: object) -> VerdictMessage:
    return verdict(
        1,
        **{
            "camera": "top",
            "recipe": "r",
            "part_id": "p",
            "session": job.ticket.session,
            "trigger_seq": job.ticket.number,
            "verdict": Verdict.PASS,
            "reason": "",
            **changes,
        },
    )


def test_no_picture_is_taken_before_the_one_before():
    jobs, job = started()
    assert jobs.state == "SingleExecution"
    try:
        jobs.start("", "q", "", "", 0.1)
    except JobError as error:
        assert error.code.name == "TRIGGER_NOT_READY"
    else:
        raise AssertionError
    jobs.acquired(job.ticket)
    assert jobs.state == "Ready" and jobs.acquisitions() == [job]
    assert jobs.start("", "q", "", "", 0.1).ticket.number == 2


def test_a_record_a_study_and_another_part_never_pass():
    for changes, reason in (
        ({"repeated": True}, BridgeReason.RECORD_ONLY),
        ({"purpose": "study"}, BridgeReason.RECORD_ONLY),
        ({"part_id": "another"}, BridgeReason.OTHER_PART),
        ({"camera": "side"}, BridgeReason.OTHER_PART),
        ({"trigger_seq": 7}, BridgeReason.OTHER_PART),
        ({"recipe": "other"}, BridgeReason.RECIPE_MISMATCH),
    ):
        jobs, job = started()
        jobs.verdict(job.ticket, of(job, **changes))
        (end,) = jobs.finished()
        assert (end.result.verdict, end.result.reason) == (Verdict.FAULT, reason.value)


def test_what_comes_too_late_is_told_to_the_station_and_to_nobody_else():
    for ends, outcome in ((lambda jobs: jobs.abort(), "discarded"), (None, "timed_out")):
        jobs, job = started()
        if ends is None:
            jobs.pass_time(TIMEOUT_S)
        else:
            ends(jobs)
        (end,) = jobs.finished()
        assert end.result.verdict is Verdict.FAULT and end.is_aborted is (ends is not None)
        jobs.verdict(job.ticket, of(job))
        assert jobs.finished() == []
        (told,) = jobs.actions()
        assert isinstance(told, Delivered) and told.outcome == outcome
