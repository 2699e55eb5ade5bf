"""One start of one station: what it is made of, and the loop that keeps it going.

The caller's thread owns the ledger and the judges. Beside it run a thread a camera
(:mod:`~inspector.station.grabber`), one for the journal and the verdict socket
(:mod:`~inspector.station.recorder`), one for pictures (:mod:`~inspector.station.pictures`), one for
bundles that are sent (:mod:`~inspector.station.uploads`), one for the command socket
(:mod:`inspector.wire.command_server`) and one for the query socket
(:mod:`inspector.wire.query_server`), where there is one; they reach this one by the inbox.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from inspector.clock import ClockWatch
from inspector.config.station_file import Station
from inspector.errors import StartupError
from inspector.journal.reader import Reader
from inspector.journal.schema import Recovered
from inspector.judging.alarms import Alarms
from inspector.judging.judges import Judges
from inspector.logs import dropped, say
from inspector.station.delivery import Delivery, note_group
from inspector.station.grabber import Grabber
from inspector.station.inbox import Arrival, Call, Change, Inbox
from inspector.station.installs import Installs
from inspector.station.judge_loop import JudgeLoop
from inspector.station.ledger import Ledger
from inspector.station.metrics import Metrics
from inspector.station.orders import Orders, announce
from inspector.station.pictures import Pictures
from inspector.station.readiness import Readiness
from inspector.station.recorder import Recorder, StallWatch, StatusEntry
from inspector.station.standing import judging
from inspector.station.start import Opened, Start
from inspector.station.systemd import Notifier
from inspector.station.triggers import Trigger
from inspector.station.uploads import Uploads
from inspector.station.views import Views
from inspector.threads import Worker
from inspector.verdict import Reason
from inspector.wire.messages import State, StatusMessage
from inspector.wire.query_server import Queries

_HOUSEKEEPING_EVERY_S: Final = 1.0
_POLL_S: Final = 0.1
_STOP_GRACE_S: Final = 2.0
_LAST_QUESTIONS_S: Final = 0.5
_STALLED_S: Final = 1.0


class Daemon:
    """A station that can be run once, and asked to stop by any thread or signal handler."""

    def __init__(
        self,
        station: Station,
        recipe: str | None = None,
        file: Path | None = None,
        *,
        without_model: bool = False,
    ) -> None:
        """``recipe``: judge by this one of the station's; None: by the one of before the start.

        ``file``: what ``station`` was read from, to tell what was changed in it since; None: a
        program made it. ``without_model``: start also where a bundle's file is not there yet, show
        what the cameras see, and judge once a model was installed.
        """
        self._station = station
        self._recipe = recipe
        self._file = file
        self._without_model = without_model
        self._stop_asked = False
        self._reload_asked = False

    def ask_to_reload(self) -> None:
        """Read the bundles of the recipe in force again, as the command ``reload`` does."""
        self._reload_asked = True

    def ask_to_stop(self) -> None:
        """Finish what was grabbed, then return from ``run``."""
        self._stop_asked = True

    def run(self, wait_for_subscriber_s: float = 0.0) -> None:
        """Start, judge until every camera has ended or ``ask_to_stop``, and leave in order.

        Raises :class:`StartupError` (every problem together) before a part is judged.
        """
        station = self._station
        ledger = Ledger(station, str(uuid.uuid4()))
        judges = Judges(station)
        metrics = Metrics(station.station, [camera.name for camera in station.cameras])
        alarms = Alarms(station.alarm)
        readiness = Readiness(ledger, judges, alarms)
        systemd = Notifier()
        say("state", state=ledger.state, station=station.station)
        with contextlib.ExitStack() as leave:
            leave.callback(systemd.close)
            start = Start(
                station,
                leave,
                self._recipe,
                tell=readiness.tell,
                status=lambda: readiness.status,
                speak_through=readiness.speak_through,
                announce=lambda camera: announce(camera, judges, ledger, metrics),
                stop_asked=lambda: self._stop_asked,
                without_model=self._without_model,
            )
            try:
                opened = start.open(judges, metrics, ledger)
            except StartupError as problem:
                if self._stop_asked:
                    say("stopping", detail=problem)
                    readiness.enter("Halted")
                    return
                readiness.enter("Error")
                raise
            readiness.enter("Initialized")
            line = _Line(
                station,
                opened,
                ledger=ledger,
                judges=judges,
                alarms=alarms,
                metrics=metrics,
                readiness=readiness,
                systemd=systemd,
                file=self._file,
            )
            line.get_ready(opened.recovered)
            if wait_for_subscriber_s > 0:
                heard = opened.publisher.wait_for_subscriber(
                    wait_for_subscriber_s, lambda: self._stop_asked
                )
                say("subscriber" if heard else "no subscriber")
            line.work(lambda: self._stop_asked, self._reload_is_due)

    def _reload_is_due(self) -> bool:
        due, self._reload_asked = self._reload_asked, False
        return due


class _Line:
    """The threads of a station at work, and the loop between them."""

    def __init__(
        self,
        station: Station,
        opened: Opened,
        *,
        ledger: Ledger,
        judges: Judges,
        alarms: Alarms,
        metrics: Metrics,
        readiness: Readiness,
        systemd: Notifier,
        file: Path | None,
    ) -> None:
        self._station = station
        self._opened = opened
        self._ledger = ledger
        self._judges = judges
        self._alarms = alarms
        self._metrics = metrics
        self._readiness = readiness
        self._systemd = systemd
        self._lost: set[str] = set()
        self._clock_watch = ClockWatch()
        self._stall_watch = StallWatch()
        inbox = self._inbox = Inbox(station.queue_size)
        self._pictures = Pictures(opened.publisher, opened.archive, inbox, metrics.dropped)
        self._recorder = Recorder(
            opened.journal,
            opened.publisher,
            on_trouble=lambda text: inbox.call(
                partial(readiness.obstruct, "journal", Reason.JOURNAL_FAILED, text)
            ),
            on_group=partial(note_group, metrics),
        )
        self._grabbers = {
            config.name: Grabber(config, camera, inbox, self._pictures.has_room)
            for config, camera in opened.cameras
        }
        self._judge_loop = JudgeLoop(judges, ledger, inbox)
        self._delivery = Delivery(
            ledger=ledger,
            judges=judges,
            alarms=alarms,
            recorder=self._recorder,
            pictures=self._pictures,
            metrics=metrics,
            inbox=inbox,
        )
        installs = Installs(station, opened.bundles)
        self._uploads = Uploads(station.bundles_folder, station.journal.reserve_mb, installs.named)
        self._orders = Orders(
            station,
            opened.choice,
            ledger=ledger,
            judges=judges,
            alarms=alarms,
            inbox=inbox,
            recorder=self._recorder,
            readiness=readiness,
            grabbers=self._grabbers,
            metrics=metrics,
            systemd=systemd,
            file=file,
            protect=opened.archive.protect,
            uploads=self._uploads,
            installs=installs,
        )
        self._commands = opened.commands
        self._queries = None if opened.queries is None else Queries(opened.queries, self._views)
        readiness.speak_through(self._publish)

    def _open_reader(self) -> Reader:
        return Reader(
            self._station.state_folder,
            self._opened.journal.suspect,
            published=lambda: (self._ledger.epoch, self._recorder.published),
        )

    def _views(self, wake: Callable[[], None]) -> Views:
        return Views(
            wake,
            folder=self._station.state_folder,
            open_reader=self._open_reader,
            seen=self._pictures.seen,
            grabbers=self._grabbers,
            judging=partial(judging, self._judges, self._station),
        )

    def get_ready(self, recovered: Recovered) -> None:
        """Answer for what a crash left unanswered, and test the judges."""
        now_ns = time.monotonic_ns()
        unanswered = [
            Trigger(
                *row.key,
                triggered_us=row.triggered_us,
                triggered_ns=now_ns,
                lot=row.lot,
                purpose=row.purpose,
            )
            for row in recovered.unanswered
        ]
        self._ledger.recover(unanswered, recovered.answered)
        if unanswered:
            say("recovered", logging.WARNING, unanswered=len(unanswered))
        missed = [self._test_next_judge() for _ in self._grabbers]
        if self._opened.stop_order.since_us is None:
            self._readiness.enter("Ready")
        else:
            self._orders.stay_stopped(self._opened.stop_order)
        self._readiness.obstruct("recipe", Reason.NOT_READY, self._opened.choice.question)
        for why in filter(None, missed):
            self._readiness.obstruct("self_test", Reason.NOT_READY, why)
        self._orders.look_for_models()

    def work(self, stop_asked: Callable[[], bool], reload_is_due: Callable[[], bool]) -> None:
        """Judge until every camera has ended or ``stop_asked()``, then leave in order.

        ``reload_is_due()`` tells once of each time that the bundles are to be read again.
        """
        workers: tuple[Worker, ...] = (
            *(self._pictures, self._recorder, self._uploads),
            *self._lookers,
            *self._grabbers.values(),
        )
        last: State = "Error"
        try:
            for worker in workers:
                worker.start()
            self._commands.begin(self._orders.hear, self._open_reader)
            if self._ledger.state == "Ready":
                self._ledger.start()
            self._readiness.tell_state()
            provider = self._ledger.provider
            self._systemd.ready(f"judging with {provider}" if provider else "no model yet")
            self._serve(stop_asked, reload_is_due)
            last = "Halted"
        finally:
            with contextlib.ExitStack() as leave:
                leave.callback(self._orders.finish)
                leave.callback(self._commands.finish)
                leave.callback(self._uploads.finish)
                for one in self._lookers:
                    leave.callback(one.finish)
                leave.callback(self._answer_last_questions)
                leave.callback(self._pictures.finish)
                leave.callback(self._recorder.finish)
                self._systemd.stopping()
                self._readiness.leave()
                self._orders.give_up()
                # Parts and commands that still wait get their answer before the last status, and
                # before anything is waited for.
                if self._ledger.state != last:
                    self._ledger.enter(last)
                self._do_calls()
                self._delivery.close_parts()
                self._stop_cameras()
                self._do_calls()
                self._delivery.close_parts()
                self._readiness.tell_state()
        _check_alive(self._pictures, self._recorder, self._commands, self._uploads, *self._lookers)

    @property
    def _lookers(self) -> tuple[Queries, ...]:
        """Who serves those that only look."""
        return () if self._queries is None else (self._queries,)

    def _serve(self, stop_asked: Callable[[], bool], reload_is_due: Callable[[], bool]) -> None:
        grabbers = self._grabbers.values()
        housekeeping = give_up = 0.0
        while True:
            self._systemd.ping()
            if stop_asked() and not give_up:
                say("stopping")
                longest_s = max(grabber.config.timeout_ms for grabber in grabbers) / 1000
                give_up = time.monotonic() + longest_s + _STOP_GRACE_S
                for grabber in grabbers:
                    grabber.stop()
            if reload_is_due():
                self._orders.reload()
            # Before the crashes are looked for: a thread that dies in between has not ended.
            over = not any(grabber.is_alive() for grabber in grabbers)
            # Not those of queries and uploads: neither looking nor a new bundle stops the line.
            _check_alive(self._pictures, self._recorder, self._commands, *grabbers)
            if self._opened.gate.crashed:
                raise RuntimeError("the thread that lets peers in has died")
            item = self._inbox.take(0.0 if over else self._patience_s())
            if isinstance(item, Arrival):
                self._judge(item)
            elif isinstance(item, Change):
                self._note_camera(item)
                housekeeping = 0.0
            elif isinstance(item, Call):
                item.do()
            elif over or (give_up and time.monotonic() > give_up):
                return
            self._delivery.close_parts()
            stalled_s = self._stall_watch.look(self._recorder.stalled_s)
            if time.monotonic() >= housekeeping:
                self._keep_house(stalled_s)
                housekeeping = time.monotonic() + _HOUSEKEEPING_EVERY_S

    def _patience_s(self) -> float:
        due_ns = self._ledger.next_due_ns()
        if due_ns is None:
            return _POLL_S
        return min(_POLL_S, max(0.0, (due_ns - time.monotonic_ns()) / 1e9))

    def _judge(self, arrival: Arrival) -> None:
        failed = self._judge_loop.take(arrival)
        if failed is not None:
            self._orders.roll_back(failed.why)
            self._judge_loop.judge(failed.exposed)

    def _note_camera(self, change: Change) -> None:
        camera, is_lost = change.camera, change.state == "lost"
        has_failed = is_lost or (change.state == "ended" and bool(change.detail))
        if has_failed and camera not in self._lost:
            self._ledger.lost(camera, change.detail)
        if is_lost:
            self._lost.add(camera)
        elif camera in self._lost:
            self._lost.discard(camera)
            if camera in self._judges:
                self._judges[camera].reopened()
        self._ledger.note_camera(camera, change.state, change.detail)
        say("camera", camera=camera, state=change.state, detail=change.detail)

    def _keep_house(self, stalled_s: float) -> None:
        """Once a second: the clock, self-tests, the disk, figures and the status.

        ``stalled_s``: how long the disk has not answered a commit.
        """
        if jumped_s := self._clock_watch.jumped_s():
            say("clock", logging.WARNING, set_by_s=f"{jumped_s:+.0f}")
        readiness, recorder, metrics = self._readiness, self._recorder, self._metrics
        if missed := self._test_next_judge():
            readiness.obstruct("self_test", Reason.NOT_READY, missed)
        detail = ""
        if stalled_s > _STALLED_S:
            detail = f"the journal's disk has not answered for {stalled_s:.0f} s"
        readiness.obstruct("disk", Reason.JOURNAL_FAILED, detail)
        readiness.storage = {
            "journal": self._opened.journal.trouble,
            "pictures": self._opened.archive.trouble,
        }
        readiness.damaged = self._opened.journal.damaged
        for camera, statistic in self._judges.drift():
            metrics.drift(camera, statistic)
        metrics.journal(recorder.lag, bool(recorder.trouble), recorder.forgotten, readiness.damaged)
        readiness.tell()
        status = readiness.status
        metrics.status(status)
        metrics.alarms({one[:2] for one in self._alarms.standing(status.recipe)})
        metrics.refused(self._opened.gate.refused)
        metrics.unsent(self._commands.unsent + sum(one.unsent for one in self._lookers))
        metrics.log_dropped(dropped())
        for name in self._grabbers:
            metrics.queue(name, self._inbox.waiting(name))
        self._systemd.status(
            f"{status.state}: {status.passed} passed, {status.failed} failed, "
            f"{status.faults} faults"
        )

    def _test_next_judge(self) -> str:
        """Send one known defect that is due; which camera's judge missed it and why, or ""."""
        parts_wait = any(self._inbox.waiting(name) for name in self._grabbers)
        for camera, missed in self._judges.self_test(parts_wait):
            level = logging.ERROR if missed else logging.INFO
            say("self-test", level, camera=camera, detail=missed or "caught")
            self._metrics.self_test(camera, bool(missed))
            if missed:
                return f"{camera}: {missed}"
        return ""

    def _publish(self, status: StatusMessage) -> None:
        """After the verdicts that it counts, which go by the recorder while that works."""
        if self._recorder.is_alive():
            self._recorder.put(StatusEntry(status))
        else:
            self._opened.publisher.send_status(status)

    def _stop_cameras(self) -> None:
        for grabber in self._grabbers.values():
            grabber.stop()
            if not grabber.ended(_STOP_GRACE_S):
                say("camera hangs", logging.ERROR, camera=grabber.config.name)

    def _answer_last_questions(self) -> None:
        """Refuse new orders, but go on answering status and replay for half a second.

        Some clients learn only from the last status which verdicts they miss.
        """
        self._orders.refuse_from_now()
        if self._commands.served:
            time.sleep(_LAST_QUESTIONS_S)
        self._do_calls()

    def _do_calls(self) -> None:
        while (item := self._inbox.take(0.0)) is not None:
            if isinstance(item, Call):
                item.do()


def _check_alive(*workers: Worker) -> None:
    for worker in workers:
        if worker.crashed:
            raise RuntimeError(f"thread {worker.name} crashed; its error stands above")
