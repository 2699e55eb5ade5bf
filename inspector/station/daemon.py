"""The station at work: cameras grab, one loop judges, the recorder commits and publishes.

The caller's thread owns the ledger and the judges. Cameras and pictures have threads of their own
(:mod:`inspector.workers`), so have the journal with the verdict socket (:mod:`inspector.recorder`)
and the command socket (:mod:`inspector.commands`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy.typing as npt

from inspector import cameras
from inspector.cameras.base import Camera
from inspector.config.cameras import CameraConfig
from inspector.config.station_file import Station
from inspector.errors import CommandError, Problems, StartupError
from inspector.journal.pictures import Archive
from inspector.journal.reader import Reader
from inspector.journal.schema import Recovered
from inspector.journal.writer import Journal
from inspector.judging.judge import judge_together
from inspector.judging.judges import Changeover, Judges
from inspector.logs import say
from inspector.station.grabber import Grabber
from inspector.station.inbox import Arrival, Call, Change, Inbox
from inspector.station.ledger import Ledger, Part
from inspector.station.metrics import Metrics
from inspector.station.pictures import PartPictures, Pictures
from inspector.station.recorder import Entry, Recorder, Timing
from inspector.station.systemd import Notifier
from inspector.station.triggers import Trigger
from inspector.threads import Worker
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.command_server import Commands
from inspector.wire.gate import Gate
from inspector.wire.messages import RecipeCommand, State, TriggerCommand, VerdictMessage
from inspector.wire.publisher import Publisher
from inspector.wire.requests import Request

_HOUSEKEEPING_EVERY_S: Final = 1.0
_POLL_S: Final = 0.1
_STOP_GRACE_S: Final = 2.0
_LAST_QUESTIONS_S: Final = 0.5
_STALLED_S: Final = 1.0
_MOST_WITH_PICTURES: Final = 50
_FAR_NS: Final = 60_000_000_000
_TORN: Final = "torn picture: it was written over while it was judged"


@dataclass
class _Open:
    """What a station holds while it works."""

    gate: Gate
    publisher: Publisher
    commands: Commands
    journal: Journal
    archive: Archive
    recovered: Recovered
    cameras: list[tuple[CameraConfig, Camera]]


class Daemon:
    """One start of one station."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._ledger = Ledger(station, str(uuid.uuid4()))
        self._status = self._ledger.status()
        self._inbox = Inbox(station.queue_size)
        self._judges = Judges(station)
        self._metrics = Metrics(station.station, [camera.name for camera in station.cameras])
        self._notifier = Notifier()
        self._publisher: Publisher | None = None
        self._recorder: Recorder | None = None
        self._pictures: Pictures | None = None
        self._grabbers: dict[str, Grabber] = {}
        self._changeover: Changeover | None = None
        self._frames: dict[Part, npt.NDArray[Any]] = {}
        self._requests: dict[Part, list[Request]] = {}
        self._obstacles: dict[str, tuple[Reason, str]] = {}
        self._lost: set[str] = set()
        self._stop_asked = False
        self._over = self._leaving = False

    def ask_to_stop(self) -> None:
        """Finish what was grabbed, then return from ``run``; any thread or signal handler."""
        self._stop_asked = True

    def run(self, wait_for_subscriber_s: float = 0.0) -> None:
        """Start, judge until every camera has ended or ``ask_to_stop``, and leave in order.

        Raises :class:`StartupError` (every problem together) before a part is judged.
        """
        say("state", state=self._ledger.state, station=self._station.station)
        with contextlib.ExitStack() as leave:
            leave.callback(self._notifier.close)
            opened = self._open(leave)
            self._work(opened, wait_for_subscriber_s)

    def _open(self, leave: contextlib.ExitStack) -> _Open:
        """Try everything that can refuse to start; ``leave`` closes it, the last one first."""
        station, sockets, folder = self._station, self._station.sockets, self._station.state_folder
        problems: list[StartupError] = []
        # Said last: what stands between the user and a verdict is the bundle and the camera.
        afterwards: list[StartupError] = []
        gate = publisher = commands = journal = archive = None

        @contextlib.contextmanager
        def trying(found: list[StartupError] = problems) -> Iterator[None]:
            try:
                yield
            except Problems as several:
                found.extend(several.problems)
            except StartupError as problem:
                found.append(problem)
            self._tell()

        with trying(afterwards):
            gate = Gate(station.security)
            leave.callback(gate.close)
        if gate is not None:
            with trying(afterwards):
                publisher = Publisher(sockets.verdicts, sockets.images, gate)
                self._publisher = publisher
                leave.callback(publisher.close)
                verdicts, images = publisher.addresses
                say("listening", verdicts=verdicts, images=images)
            with trying(afterwards):
                commands = Commands(
                    gate,
                    sockets.commands,
                    handle=self._hear,
                    status=lambda: self._status,
                    reader=lambda: Reader(folder),
                )
                leave.callback(commands.finish)
                say("commands", address=commands.address)
        if station.metrics is not None:
            with trying(afterwards):
                leave.callback(self._metrics.close)
                say("metrics", address=self._metrics.serve(station.metrics))
        with trying(afterwards):
            journal = Journal(folder, station.journal.verdict_days)
            leave.callback(journal.close)
            archive = Archive(folder, station.journal)
            say("journal", folder=folder)
        for camera, problem in self._judges.load():
            if problem is not None:
                problems.append(problem)
            else:
                self._installed(camera)
            self._tell()
        held: list[tuple[CameraConfig, Camera]] = []
        for config in station.cameras:
            with trying():
                source = cameras.isolate(config)
                leave.callback(source.close)
                source.open()
                held.append((config, source))
        problems += afterwards
        if problems or None in (gate, publisher, commands, journal, archive):
            self._enter("Error")
            raise problems[0] if len(problems) == 1 else Problems(problems)
        assert gate and publisher and commands and journal and archive
        recovered = journal.begin(self._ledger.epoch, time.time_ns() // 1000)
        self._enter("Initialized")
        return _Open(gate, publisher, commands, journal, archive, recovered, held)

    def _work(self, opened: _Open, wait_for_subscriber_s: float) -> None:
        publisher, commands = opened.publisher, opened.commands
        self._recover(opened.recovered)
        missed = dict(found for _ in self._station.cameras for found in self._test_itself())
        self._enter("Ready")
        for camera, why in missed.items():
            self._obstruct("self-test", Reason.NOT_READY, f"{camera}: {why}")
        if wait_for_subscriber_s > 0:
            heard = publisher.wait_for_subscriber(wait_for_subscriber_s, lambda: self._stop_asked)
            say("subscriber" if heard else "no subscriber")
        pictures = self._pictures = Pictures(
            publisher, opened.archive, self._inbox, self._metrics.dropped
        )
        recorder = self._recorder = Recorder(
            opened.journal,
            publisher,
            on_trouble=lambda text: self._inbox.call(
                partial(self._obstruct, "journal", Reason.JOURNAL_FAILED, text)
            ),
            on_group=self._note_group,
        )
        for config, source in opened.cameras:
            self._grabbers[config.name] = Grabber(config, source, self._inbox, pictures.has_room)
        grabbers = list(self._grabbers.values())
        last: State = "Error"
        try:
            for worker in (pictures, recorder, commands, *grabbers):
                worker.start()
            if not self._obstacles:
                self._ledger.start()
            self._tell_state()
            self._notifier.ready(f"judging with {self._ledger.provider}")
            self._serve(opened, recorder, pictures)
            last = "Halted"
        finally:
            with contextlib.ExitStack() as leave:
                leave.callback(commands.finish)
                leave.callback(self._refuse_the_rest, commands)
                leave.callback(pictures.finish)
                leave.callback(recorder.finish)
                self._notifier.stopping()
                self._stop(grabbers)
                # From here on no state leads to another.
                self._over = True
                if self._changeover is not None:
                    self._changeover.join()
                # Parts and commands that still wait get their answer before the last status.
                if self._ledger.state != last:
                    self._ledger.enter(last)
                self._obey_the_rest()
                self._close_parts()
                self._tell_state()
        _check_alive(pictures, recorder, commands)

    def _obey_the_rest(self) -> None:
        while (item := self._inbox.take(0.0)) is not None:
            if isinstance(item, Call):
                item.do()

    def _refuse_the_rest(self, commands: Commands) -> None:
        self._leaving = True
        if commands.served:
            # Who learns only from the last status what is missing can still ask for it.
            time.sleep(_LAST_QUESTIONS_S)
        self._obey_the_rest()

    def _recover(self, recovered: Recovered) -> None:
        now_ns = time.monotonic_ns()
        unanswered = [
            Trigger(*row.key, triggered_us=row.triggered_us, triggered_ns=now_ns)
            for row in recovered.unanswered
        ]
        self._ledger.recover(unanswered, recovered.answered)
        if unanswered:
            say("recovered", logging.WARNING, unanswered=len(unanswered))

    def _serve(self, opened: _Open, recorder: Recorder, pictures: Pictures) -> None:
        grabbers = list(self._grabbers.values())
        housekeeping = give_up = 0.0
        while True:
            self._notifier.ping()
            if self._stop_asked and not give_up:
                say("stopping")
                longest_s = max(grabber.config.timeout_ms for grabber in grabbers) / 1000
                give_up = time.monotonic() + longest_s + _STOP_GRACE_S
                for grabber in grabbers:
                    grabber.stop()
            # Before the crashes are looked for: a thread that dies in between has not ended.
            over = not any(grabber.is_alive() for grabber in grabbers)
            _check_alive(pictures, recorder, opened.commands, *grabbers)
            if opened.gate.crashed:
                raise RuntimeError("the thread that lets peers in has died")
            item = self._inbox.take(0.0 if over else self._patience_s())
            if isinstance(item, Arrival):
                self._take_parts(item)
            elif isinstance(item, Change):
                self._note_camera(item)
                housekeeping = 0.0
            elif isinstance(item, Call):
                item.do()
            elif over or (give_up and time.monotonic() > give_up):
                return
            self._close_parts()
            if time.monotonic() >= housekeeping:
                self._keep_house(opened)
                housekeeping = time.monotonic() + _HOUSEKEEPING_EVERY_S

    def _patience_s(self) -> float:
        due_ns = self._ledger.next_due_ns()
        if due_ns is None:
            return _POLL_S
        return min(_POLL_S, max(0.0, (due_ns - time.monotonic_ns()) / 1e9))

    def _take_parts(self, first: Arrival) -> None:
        """Judge ``first``; with others that wait, where their cameras share an engine and it pays.

        What is exposed later than its batch is judged is of no part before: order stays.
        """
        parts = [found for found in map(self._expose, self._with_others(first)) if found]
        if len(parts) == 1:
            self._judge(*parts[0])
        elif parts:
            self._judge_together(parts)

    def _with_others(self, first: Arrival) -> list[Arrival]:
        judge = self._judges[first.camera]
        largest = judge.batches.largest
        if first.image is None or largest == 1 or judge.on_probation:
            return [first]

        def choose(waiting: Sequence[Arrival]) -> int:
            arrivals = [first, *itertools.takewhile(fits, waiting)]
            now_ns = time.monotonic_ns()
            earliest_ns = self._ledger.next_due_ns()
            due_ns = [
                min(
                    (now_ns if arrival.since_ns is None else arrival.since_ns)
                    + self._grabbers[arrival.camera].config.deadline_ms * 1_000_000,
                    now_ns + _FAR_NS if earliest_ns is None else earliest_ns,
                )
                for arrival in arrivals
            ]
            return judge.batches.size(due_ns, now_ns) - 1

        def fits(arrival: Arrival) -> bool:
            other = self._judges[arrival.camera]
            return other.detector.engine is judge.detector.engine and not other.on_probation

        return [first, *self._inbox.take_more(choose, largest - 1)]

    def _expose(self, arrival: Arrival) -> tuple[Arrival, Part] | None:
        """The part that a picture is of; None: of none that is to be judged."""
        ticket = self._ledger.expose(
            arrival.camera,
            arrival.exposed_ns,
            arrival.grabbed_us or 0,
            arrival.part_id,
            arrival.since_ns,
        )
        if ticket is None:
            return None
        if arrival.image is None:
            self._ledger.fault(ticket, arrival.reason, arrival.detail)
            return None
        self._frames[ticket] = arrival.image
        return arrival, ticket

    def _judge_together(self, parts: list[tuple[Arrival, Part]]) -> None:
        started_ns = time.monotonic_ns()
        judgements = judge_together(
            [
                (self._judges[arrival.camera], arrival.image)
                for arrival, _ in parts
                if arrival.image is not None
            ]
        )
        if all(map(_inferred, judgements)):
            batches = self._judges[parts[0][0].camera].batches
            batches.note(len(parts), time.monotonic_ns() - started_ns)
        for (arrival, ticket), judgement in zip(parts, judgements, strict=True):
            failed = judgement.reason is Reason.INFERENCE_ERROR
            self._ledger.note_inference(arrival.camera, judgement.detail if failed else "")
            self._settle(arrival, ticket, judgement, started_ns)

    def _judge(self, arrival: Arrival, ticket: Part) -> None:
        assert arrival.image is not None
        started_ns = time.monotonic_ns()
        judge = self._judges[arrival.camera]
        judgement = judge.judge(arrival.image)
        if judge.on_probation and judgement.reason in {Reason.INFERENCE_ERROR, Reason.NOT_FINITE}:
            self._roll_back(f"{arrival.camera}: {judgement.detail}")
            judge = self._judges[arrival.camera]
            judgement = judge.judge(arrival.image)
        elif _inferred(judgement):
            judge.batches.note(1, time.monotonic_ns() - started_ns)
        self._ledger.note_inference(arrival.camera, judge.health())
        self._settle(arrival, ticket, judgement, started_ns)

    def _settle(
        self, arrival: Arrival, ticket: Part, judgement: Judgement, started_ns: int
    ) -> None:
        if not arrival.whole():
            # What was looked at is of two pictures, or of another part.
            del self._frames[ticket]
            self._ledger.fault(ticket, Reason.FRAME_UNREADABLE, _TORN)
            return
        if judgement.verdict is not Verdict.FAULT:
            self._judges.confirm(arrival.camera)
        self._ledger.judged(ticket, judgement, started_ns)

    def _close_parts(self) -> None:
        """Hand every verdict that is due to the recorder, in order."""
        for closed in self._ledger.close():
            verdict, judgement = closed.verdict, closed.ticket.judgement
            # A trigger that a crash left may be of a camera that the station file no longer has.
            recipe = self._station.recipes[self._station.recipe].get(verdict.camera)
            frame = self._frames.pop(closed.ticket, None)
            assert self._recorder is not None
            if frame is not None and self._recorder.lag > _MOST_WITH_PICTURES:
                # A disk that stalls must not fill the memory with pictures.
                frame = judgement = closed.ticket.judgement = None
                self._metrics.dropped("kept")
            shot = PartPictures(
                verdict,
                judgement,
                None if judgement is None else self._ledger.heatmap(verdict, judgement),
                frame,
                recipe.region if recipe else None,
                recipe.check_pictures if recipe else False,
            )
            requests = self._requests.pop(closed.ticket, [])
            self._judges.note(verdict)
            self._recorder.put(
                Entry(
                    verdict=verdict,
                    due_ns=self._deadline_ns(closed.ticket),
                    then=partial(self._published, closed.ticket, shot, requests),
                )
            )

    def _deadline_ns(self, ticket: Part) -> int | None:
        begun_ns, config = _begun_ns(ticket), self._grabbers.get(ticket.camera)
        if begun_ns is None or config is None:
            return None
        return begun_ns + config.config.deadline_ms * 1_000_000

    def _published(
        self,
        ticket: Part,
        shot: PartPictures,
        requests: list[Request],
        published: VerdictMessage | None,
        recorded: bool,
    ) -> None:
        """In the recorder's thread: the verdict is on the disk and on the wire."""
        assert published is not None and self._pictures is not None
        for request in requests:
            request.answer(published)
        self._metrics.verdict(published)
        begun_ns = _begun_ns(ticket)
        if begun_ns is not None:
            taken_s = (time.monotonic_ns() - begun_ns) / 1e9
            self._metrics.stage("trigger_to_verdict", taken_s, published.camera)
        if recorded and published == shot.verdict:
            self._pictures.show(shot)
        else:
            self._inbox.call(partial(self._ledger.amend, shot.verdict, published))
        if published.verdict is Verdict.FAULT:
            say(
                "fault",
                logging.WARNING,
                seq=published.seq,
                camera=published.camera,
                part=published.part_id,
                reason=published.reason,
                detail=published.detail,
            )

    def _note_group(self, timing: Timing) -> None:
        self._metrics.stage("commit", timing.commit_ms / 1e3)
        self._metrics.stage("publish", timing.publish_ms / 1e3)

    def _note_camera(self, change: Change) -> None:
        lost = change.state == "lost"
        if (lost or (change.state == "ended" and change.detail)) and (
            change.camera not in self._lost
        ):
            self._ledger.lost(change.camera, change.detail)
        if lost:
            self._lost.add(change.camera)
        elif change.camera in self._lost:
            self._lost.discard(change.camera)
            self._judges[change.camera].forget_frames()
        self._ledger.note_camera(change.camera, change.state, change.detail)
        say("camera", camera=change.camera, state=change.state, detail=change.detail)

    def _hear(self, request: Request) -> None:
        """In the commands' thread: the loop obeys between two parts, the camera looks at once."""
        command = request.command
        self._inbox.call(partial(self._obey, request))
        if isinstance(command, TriggerCommand):
            # After the call: a picture that comes before its trigger is of no part.
            grabber = self._grabbers.get(command.camera)
            if grabber is not None and not grabber.on_demand:
                grabber.want(request.received_ns)

    def _obey(self, request: Request) -> None:
        command = request.command
        if self._leaving:
            request.refuse("stopping", "the station stops")
        elif isinstance(command, TriggerCommand):
            self._trigger(request, command)
        elif self._changeover is not None:
            request.refuse("busy", "another recipe or reload is under way")
        elif isinstance(command, RecipeCommand):
            if command.recipe not in self._station.recipes:
                known = ", ".join(sorted(self._station.recipes))
                request.refuse("unknown", f"no recipe '{command.recipe}'; there are {known}")
            else:
                self._change_over(request, command.recipe)
        else:
            self._change_over(request, self._station.recipe)

    def _trigger(self, request: Request, command: TriggerCommand) -> None:
        trigger = Trigger(
            camera=command.camera,
            client=request.client,
            session=command.session,
            number=command.trigger_seq,
            part_id=command.part_id,
            triggered_us=request.received_us,
            triggered_ns=request.received_ns,
        )
        try:
            answer = self._ledger.trigger(trigger)
        except CommandError as error:
            request.refuse("unknown", str(error))
            return
        assert self._recorder is not None
        if answer.ticket is not None:
            self._requests.setdefault(answer.ticket, []).append(request)
        new = answer.kind != "repeated"

        def acknowledge(_: VerdictMessage | None, recorded: bool) -> None:
            if new and not recorded:
                request.refuse("journal", "the trigger could not be recorded; part not accepted")
                return
            request.accept()
            if answer.verdict is not None:
                self._inbox.call(tell_again)

        def tell_again() -> None:
            # Looked up now: what was judged may have gone out as another verdict.
            verdict = self._ledger.find(trigger)
            if verdict is not None:
                request.answer(verdict)

        # A repetition waits for its turn too: what it repeats may not be recorded yet.
        self._recorder.put(Entry(trigger=trigger if new else None, then=acknowledge))
        grabber = self._grabbers[trigger.camera]
        if answer.kind == "accepted" and grabber.on_demand:
            grabber.want(trigger.triggered_ns)

    def _change_over(self, request: Request, recipe: str) -> None:
        say("changeover", recipe=recipe)
        self._notifier.reloading(f"loading recipe {recipe}")
        self._changeover = Changeover(
            self._station.model_copy(update={"recipe": recipe}),
            lambda done: self._inbox.call_in_turn(partial(self._switch, request, done)),
            forget=recipe == self._station.recipe,
        )
        self._changeover.start()

    def _switch(self, request: Request, changeover: Changeover) -> None:
        """Between two parts: the bundles loaded, warmed and golden-checked take over."""
        self._changeover = None
        self._notifier.ready(f"judging with {self._ledger.provider}")
        if changeover.problems:
            for problem in changeover.problems:
                say("changeover refused", logging.ERROR, detail=problem)
            request.refuse("failed", "; ".join(str(problem) for problem in changeover.problems))
            return
        self._judges.switch(changeover)
        self._station = changeover.station
        self._ledger.select(changeover.station.recipe)
        for camera in self._station.cameras:
            self._installed(camera.name)
        self._obstruct("self-test", Reason.NOT_READY, "")
        self._tell()
        models = {camera.name: self._judges[camera.name].model for camera in self._station.cameras}
        request.finish(
            f"recipe {self._station.recipe}: "
            + ", ".join(f"{name} by {one.name} {one.version}" for name, one in models.items())
        )

    def _roll_back(self, why: str) -> None:
        say("changeover rolled back", logging.ERROR, detail=why)
        self._station = self._judges.roll_back()
        self._ledger.select(self._station.recipe)
        for camera in self._station.cameras:
            self._installed(camera.name)
        for name, why_missed in self._judges.missed:
            self._obstruct("self-test", Reason.NOT_READY, f"{name}: {why_missed}")
        self._tell()

    def _installed(self, camera: str) -> None:
        judge = self._judges[camera]
        self._ledger.install(camera, judge.model)
        self._ledger.provider = judge.detector.provider
        self._metrics.model(camera, judge.model, judge.detector.manifest)
        if judge.defect is None and self._station.self_test.every_s > 0:
            detail = "no golden defect in the bundle fails at this limit_factor; name a photo"
            say("no self-test", logging.WARNING, camera=camera, detail=detail)
        say("model", camera=camera, provider=judge.detector.provider, **judge.model.model_dump())

    def _obstruct(self, what: str, reason: Reason, detail: str) -> None:
        """Something keeps the station from being Ready; ``detail`` "": no longer."""
        if self._over:
            return
        before = bool(self._obstacles)
        if detail:
            say("not ready", logging.ERROR, why=what, detail=detail)
            self._obstacles[what] = (reason, detail)
            if not before:
                self._enter("Error", reason, detail)
        elif self._obstacles.pop(what, None) is not None:
            say("cured", why=what)
            if self._obstacles:
                self._ledger.blame(*next(iter(self._obstacles.values())))
            else:
                for state in ("Preoperational", "Initialized", "Ready"):
                    self._enter(state)
                self._ledger.start()
                self._tell_state()

    def _keep_house(self, opened: _Open) -> None:
        assert self._recorder is not None
        for camera, missed in self._test_itself():
            if missed:
                self._obstruct("self-test", Reason.NOT_READY, f"{camera}: {missed}")
        stalled_s = self._recorder.stalled_s
        if stalled_s > _STALLED_S:
            detail = f"the journal's disk has not answered for {stalled_s:.0f} s"
            self._obstruct("disk", Reason.JOURNAL_FAILED, detail)
        else:
            self._obstruct("disk", Reason.JOURNAL_FAILED, "")
        for camera, statistic in self._judges.drift():
            self._metrics.drift(camera, statistic)
        recorder = self._recorder
        self._metrics.journal(recorder.lag, bool(recorder.trouble), recorder.forgotten)
        self._tell()
        self._metrics.status(self._status)
        self._metrics.refused(opened.gate.refused)
        for name in self._grabbers:
            self._metrics.queue(name, self._inbox.waiting(name))
        self._notifier.status(
            f"{self._status.state}: {self._status.passed} passed, {self._status.failed} failed, "
            f"{self._status.faults} faults"
        )

    def _test_itself(self) -> Iterator[tuple[str, str]]:
        """Send one known defect that is due: (camera, why it was missed or "")."""
        parts_wait = any(self._inbox.waiting(name) for name in self._grabbers)
        for camera, missed in self._judges.self_test(parts_wait):
            say(
                "self-test",
                logging.ERROR if missed else logging.INFO,
                camera=camera,
                detail=missed or "caught",
            )
            self._metrics.self_test(camera, bool(missed))
            if missed:
                yield camera, missed

    def _tell(self) -> None:
        """Publish the status."""
        trouble = "; ".join(f"{what}: {detail}" for what, (_, detail) in self._obstacles.items())
        self._status = self._ledger.status().model_copy(
            update={"trouble": trouble, "drift": self._judges.drifting}
        )
        if self._recorder is not None and self._recorder.is_alive():
            self._recorder.put(Entry(status=self._status))
        elif self._publisher is not None:
            self._publisher.send_status(self._status)

    def _enter(self, state: State, reason: Reason = Reason.NOT_READY, detail: str = "") -> None:
        self._ledger.enter(state, reason, detail)
        self._tell_state()

    def _tell_state(self) -> None:
        self._tell()
        state = self._ledger.state
        tally: dict[str, int] = {}
        if state == "Halted":
            status = self._status
            tally = {"passed": status.passed, "failed": status.failed, "faults": status.faults}
        say("state", state=state, last_seq=self._status.last_seq, **tally)

    def _stop(self, grabbers: list[Grabber]) -> None:
        for grabber in grabbers:
            grabber.stop()
            if not grabber.ended(_STOP_GRACE_S):
                say("camera hangs", logging.ERROR, camera=grabber.config.name)


def _inferred(judgement: Judgement) -> bool:
    """Whether the part went through the network, which then took its usual time."""
    return judgement.judged is not None and judgement.reason is not Reason.INFERENCE_ERROR


def _begun_ns(ticket: Part) -> int | None:
    return ticket.trigger.triggered_ns if ticket.trigger else ticket.waiting_since_ns


def _check_alive(*workers: Worker) -> None:
    for worker in workers:
        if worker.crashed:
            raise RuntimeError(f"thread {worker.name} crashed; its error stands above")
