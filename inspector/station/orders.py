"""What peers order over the command socket: triggers, recipes, stop and start, deliveries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal

from inspector.config.station_file import Station
from inspector.errors import (
    BundleError,
    CommandError,
    GoldenError,
    SelfTestError,
    SignatureError,
    StartupError,
)
from inspector.journal.schema import (
    BundleInForce,
    Deed,
    Delivered,
    LimitInForce,
    Mark,
    Report,
    StopOrder,
)
from inspector.judging.alarms import Alarms
from inspector.judging.judges import Changeover, Judges
from inspector.logs import say
from inspector.station.deeds import bundle_deed, deed_of, limit_deed, parts_taught
from inspector.station.file_changes import changes_since
from inspector.station.grabber import Grabber
from inspector.station.inbox import Inbox
from inspector.station.installs import Installs
from inspector.station.ledger import Ledger
from inspector.station.metrics import Metrics
from inspector.station.readiness import Readiness
from inspector.station.recipes import RecipeChoice, settled
from inspector.station.recorder import KeepEntry, Recorder, ReportEntry, TriggerEntry
from inspector.station.systemd import Notifier
from inspector.station.triggers import Trigger
from inspector.station.uploads import Uploads
from inspector.verdict import Reason
from inspector.wire.messages import (
    AcknowledgeCommand,
    DeliveredCommand,
    InstallCommand,
    LimitCommand,
    MarkCommand,
    RecipeCommand,
    RefusalCause,
    ResetCommand,
    RevertCommand,
    StartCommand,
    StopCommand,
    TriggerCommand,
    UploadCommand,
)
from inspector.wire.requests import Request

_CHANGEOVER_GRACE_S: Final = 2.0


class Orders:
    """Hears commands in the command socket's thread, and obeys them in the station's own.

    A changeover loads, warms and checks its bundles in a thread beside the judges at work; it
    takes over between two parts. Until its judge has judged a part it can be rolled back.

    ``station`` is as its file has it, ``choice`` the recipe that the start went on with. ``file``
    is what ``station`` was read from: whoever orders a changeover hears what was changed in it.
    ``protect`` is called with (epoch, seq) of each part that is marked. ``uploads`` writes what is
    sent of bundles, ``installs`` knows which are in force.
    """

    def __init__(
        self,
        station: Station,
        choice: RecipeChoice,
        *,
        ledger: Ledger,
        judges: Judges,
        alarms: Alarms,
        inbox: Inbox,
        recorder: Recorder,
        readiness: Readiness,
        grabbers: Mapping[str, Grabber],
        metrics: Metrics,
        systemd: Notifier,
        protect: Callable[[str, int], None],
        uploads: Uploads,
        installs: Installs,
        file: Path | None = None,
    ) -> None:
        self._station = station
        self._file = file
        self._choice = self._choice_before = choice
        self._ledger = ledger
        self._judges = judges
        self._alarms = alarms
        self._inbox = inbox
        self._recorder = recorder
        self._readiness = readiness
        self._grabbers = grabbers
        self._metrics = metrics
        self._systemd = systemd
        self._protect = protect
        self._uploads = uploads
        self._installs = installs
        self._named = self._installs.named
        self._unsure = frozenset[str]()
        """Bundles that are replaced, though the journal could not record that yet."""
        self._new: BundleInForce | None = None
        """What the changeover under way is to put in force; None: a recipe, or all bundles."""
        self._changeover: Changeover | None = None
        self._ordered_by: Request | None = None
        self._leaving = False

    def hear(self, request: Request) -> None:
        """In the commands' thread: the station obeys between two parts, a camera looks at once."""
        if isinstance(request.command, DeliveredCommand | MarkCommand):
            self._report(request, request.command)
            return
        if isinstance(request.command, UploadCommand):
            self._uploads.put(request)
            return
        if isinstance(request.command, InstallCommand):
            # Behind the pieces that were sent before it.
            obey = partial(self._inbox.call, partial(self._obey, request))
            self._uploads.put(request, obey)
            return
        if isinstance(request.command, StartCommand | StopCommand | ResetCommand):
            # In turn: what was handed over before a stop is judged, and a start stays behind it.
            self._inbox.call_in_turn(partial(self._obey, request))
            return
        self._inbox.call(partial(self._obey, request))
        if isinstance(request.command, TriggerCommand):
            # After the call: a picture that comes before its trigger is of no part.
            self._want(request.command.camera, request.received_ns, accepted=False)

    def stay_stopped(self, order: StopOrder) -> None:
        """The station was stopped before this start."""
        say("stopped", logging.WARNING, by=order.client, detail="since before this start")
        self._pause(True)
        self._readiness.stop(order)

    def look_for_models(self) -> None:
        """Without a model for each camera the station judges nothing, and shows its pictures."""
        lacking = self._judges.lacking
        for grabber in self._grabbers.values():
            grabber.only_show(bool(lacking))
        self._readiness.lack(lacking)

    def refuse_from_now(self) -> None:
        """The station stops: whatever is ordered from here on is refused."""
        self._leaving = True

    def give_up(self) -> None:
        """Refuse a changeover that is under way, without waiting for it."""
        if self._changeover is not None:
            self._changeover.give_up()
            if self._ordered_by is not None:
                self._ordered_by.refuse("stopping", "the station stops")

    def finish(self) -> None:
        """Wait for the thread of a changeover that was given up, but not for ever.

        A library that still builds its session cannot be interrupted: its thread is left, and ends
        with the process.
        """
        if self._changeover is not None:
            self._changeover.join(_CHANGEOVER_GRACE_S)
            if self._changeover.is_alive():
                say("changeover left", logging.WARNING, recipe=self._changeover.station.recipe)

    def roll_back(self, why: str) -> None:
        """Put what was before the last changeover in force again."""
        say("changeover rolled back", logging.ERROR, detail=why)
        self._judges.roll_back()
        self._ledger.adopt(self._judges.station)
        undo = self._installs.take_back()
        if undo is None:
            deed = self._rolled_back(why)
            self._take_over(self._choice_before, deed=deed)
        else:
            undone, now = undo
            self._take_over(self._choice_before)
            sha256, at_us = self._judges[now.camera].model.sha256, time.time_ns() // 1000
            note = f"rolled back: {why}"
            self._record_bundle(
                now, bundle_deed(now, undone.sha256, sha256, at_us=at_us, note=note)
            )
        for name, missed in self._judges.missed:
            self._readiness.obstruct("self_test", Reason.NOT_READY, f"{name}: {missed}")
        self.look_for_models()
        self._readiness.tell()

    def _want(self, camera: str, triggered_ns: int, *, accepted: bool) -> None:
        if (grabber := self._grabbers.get(camera)) is not None:
            grabber.want(triggered_ns, accepted=accepted)

    def _obey(self, request: Request) -> None:
        command = request.command
        if self._leaving:
            request.refuse("stopping", "the station stops")
        elif isinstance(command, TriggerCommand):
            self._trigger(request, command)
        elif isinstance(command, StopCommand):
            self._stop(request)
        elif isinstance(command, StartCommand):
            self._start(request)
        elif isinstance(command, AcknowledgeCommand):
            self._acknowledge(request, command)
        elif self._changeover is not None:
            request.refuse("busy", "another recipe or reload is under way", "loading")
        elif isinstance(command, ResetCommand):
            self._reset(request)
        elif isinstance(command, LimitCommand):
            self._set_limit(request, command)
        elif isinstance(command, InstallCommand | RevertCommand):
            self._exchange(request, command)
        elif isinstance(command, RecipeCommand):
            recipes = self._judges.station.recipes
            if command.recipe not in recipes:
                known = ", ".join(sorted(recipes))
                request.refuse(
                    "unknown",
                    f"no recipe '{command.recipe}'; at the start the station file had {known}",
                    "recipe",
                )
            else:
                self._change_over(request, command.recipe)
        else:
            self._change_over(request, self._judges.station.recipe)

    def _trigger(self, request: Request, command: TriggerCommand) -> None:
        trigger = Trigger(
            camera=command.camera,
            client=request.client,
            session=command.session,
            number=command.trigger_seq,
            part_id=command.part_id,
            triggered_us=request.received_us,
            triggered_ns=request.received_ns,
            sent_us=command.sent_us,
            lot=command.lot,
            purpose=command.purpose,
        )
        try:
            answer = self._ledger.trigger(
                trigger, request, repeat=command.repeat, age_us=request.age_us
            )
        except CommandError as error:
            request.refuse("unknown", str(error), "camera")
            return
        if answer.kind == "stopped":
            if self._readiness.lacks_model:
                request.refuse("not_ready", "the station is without a model yet", "obstacle")
            else:
                request.refuse("not_ready", f"the station is {self._readiness.stopped}", "stopped")
            return
        if answer.kind == "expired":
            window_s = self._judges.station.repeat_window_s
            request.refuse(
                "expired",
                f"no verdict of trigger {trigger.number} of the last {window_s:g} s; it makes no "
                f"part, as it is said to be a repetition",
            )
            return
        if answer.kind == "conflict":
            # The journal knows an open trigger by its name, which this one shares with another: it
            # is accepted when its verdict, which it has already, is recorded.
            return

        def acknowledge(recorded: bool) -> None:
            if not recorded:
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

        # A repetition waits for its turn too: what it repeats may not be recorded yet. While its
        # verdict is owed it is recorded again, which makes sure that it is in the journal.
        owed = trigger if answer.verdict is None else None
        self._recorder.put(TriggerEntry(owed, acknowledge))
        if answer.kind == "accepted":
            self._want(trigger.camera, trigger.triggered_ns, accepted=True)

    def _stop(self, request: Request) -> None:
        if self._readiness.is_over:
            request.refuse("stopping", "the station stops")
            return
        if self._readiness.stopped:
            request.finish(f"already {self._readiness.stopped}")
            return
        order = StopOrder(self._station.station, request.received_us, request.client)
        say("stopped", by=request.client)
        self._pause(True)
        self._readiness.stop(order)
        deed = deed_of(request, subject=self._station.station)
        self._keep(request, order, self._readiness.stopped, deed)

    def _start(self, request: Request) -> None:
        if self._readiness.is_over:
            request.refuse("stopping", "the station stops")
        elif self._readiness.is_obstructed:
            trouble = self._readiness.trouble
            request.refuse("not_ready", f"the station is in state Error: {trouble}", "obstacle")
        elif not self._readiness.stopped:
            request.finish(f"it was not stopped; state {self._ledger.state}")
        else:
            say("started", by=request.client)
            self._readiness.start()
            self._pause(False)
            order = StopOrder(self._station.station, None)
            deed = deed_of(request, subject=self._station.station)
            self._keep(request, order, f"started; state {self._ledger.state}", deed)

    def _reset(self, request: Request) -> None:
        if self._readiness.is_over:
            request.refuse("stopping", "the station stops")
            return
        if not self._readiness.is_obstructed:
            request.finish(f"nothing to reset; state {self._ledger.state}")
            return
        say("reset", by=request.client)
        before = self._readiness.trouble
        missed = []
        for camera, why in self._judges.self_test_all():
            level = logging.ERROR if why else logging.INFO
            say("self-test", level, camera=camera, detail=why or "caught")
            self._metrics.self_test(camera, bool(why))
            missed += [f"{camera}: {why}"] if why else []
        self._readiness.obstruct("self_test", Reason.NOT_READY, "; ".join(missed))
        deed = deed_of(
            request,
            subject=self._station.station,
            before=before,
            after=self._readiness.trouble or self._ledger.state,
        )
        self._recorder.put(KeepEntry(None, deed=deed))
        if self._readiness.is_obstructed:
            trouble = self._readiness.trouble
            detail = f"the station stays in state Error: {trouble}"
            request.refuse("not_ready", detail, "obstacle")
        else:
            request.finish(f"reset; state {self._ledger.state}")

    def _acknowledge(self, request: Request, command: AcknowledgeCommand) -> None:
        """Somebody has seen an alarm: that is told, and changes nothing else."""
        kind, where = command.kind, command.where
        alarm = self._readiness.alarm(kind, where)
        if alarm is None:
            request.refuse("unknown", f"no alarm '{kind}' of '{where}' stands", "alarm")
            return
        if alarm.acknowledged_us is not None:
            request.finish(f"alarm {kind} of {where}: acknowledged before")
            return
        told = {
            "by": command.by,
            "client": request.client,
            "acknowledged_us": request.received_us,
        }
        self._readiness.acknowledge(alarm.model_copy(update=told))
        say("acknowledged", alarm=kind, where=where, by=command.by or request.client)
        deed = deed_of(request, subject=f"{kind}/{where}", note=alarm.detail)
        self._keep(request, None, f"alarm {kind} of {where}: acknowledged", deed)

    def _pause(self, paused: bool) -> None:
        for grabber in self._grabbers.values():
            grabber.pause(paused)

    def _set_limit(self, request: Request, command: LimitCommand) -> None:
        """Between two parts: another factor on the limit of a camera."""
        recipe, camera, factor = command.recipe, command.camera, command.limit_factor
        recipes = self._judges.station.recipes
        if camera not in recipes.get(recipe, {}):
            request.refuse("unknown", f"no recipe '{recipe}' with a camera '{camera}'", "recipe")
            return
        before = recipes[recipe][camera].limit_factor
        if missed := self._judges.set_limit(recipe, camera, factor):
            detail = f"camera {camera}: not at limit_factor {factor:g}: {missed}"
            say("limit refused", logging.ERROR, by=request.client, detail=detail)
            request.refuse("failed", detail, "self_test")
            return
        self._ledger.adopt(self._judges.station)
        say(
            "limit",
            recipe=recipe,
            camera=camera,
            limit_factor=factor,
            before=before,
            by=command.by or request.client,
        )
        if recipe == self._judges.station.recipe and camera in self._judges:
            announce(camera, self._judges, self._ledger, self._metrics)
            self._readiness.tell()
        limit = LimitInForce(
            self._station.station,
            recipe,
            camera,
            factor,
            self._station.recipes[recipe][camera].limit_factor,
        )
        deed = limit_deed(
            limit, before, at_us=request.received_us, client=request.client, by=command.by
        )
        done = f"recipe {recipe}, camera {camera}: limit_factor {factor:g}, before {before:g}"
        self._keep(request, limit, done, deed)

    def _keep(
        self, request: Request, order: StopOrder | LimitInForce | None, done: str, deed: Deed
    ) -> None:
        """Answer ``request`` once the journal has ``order``, so that a restart goes on with it."""

        def answer(recorded: bool) -> None:
            if recorded:
                request.finish(done)
            else:
                request.refuse("journal", f"{done}, but that could not be recorded yet", "in_force")

        self._recorder.put(KeepEntry(order, answer, deed))

    def _report(self, request: Request, command: DeliveredCommand | MarkCommand) -> None:
        """In the commands' thread: no part waits for what is told, nor that for a part."""
        if self._leaving or not self._recorder.is_alive():
            request.refuse("stopping", "the station stops")
            return
        report: Report
        if isinstance(command, DeliveredCommand):
            report = Delivered(
                command.epoch, command.seq, request.client, command.outcome, command.at_us
            )
        else:
            report = Mark(
                command.epoch,
                command.seq,
                request.client,
                command.by,
                command.label,
                command.note,
                request.received_us,
            )

        def answer(recorded: bool | None) -> None:
            if recorded:
                if isinstance(report, Mark):
                    self._protect(report.epoch, report.seq)
                request.finish()
            elif recorded is None:
                request.refuse("journal", "it could not be recorded")
            else:
                verdict = f"verdict {command.seq} of epoch '{command.epoch}'"
                request.refuse("unknown", f"{verdict} is not in the journal, or no longer", "part")

        self._recorder.put(ReportEntry(report, answer))

    def reload(self) -> None:
        """Read the bundles of the recipe in force again: what nobody waits for to be done."""
        if self._changeover is None and not self._leaving:
            self._change_over(None, self._judges.station.recipe)

    def _exchange(self, request: Request, command: InstallCommand | RevertCommand) -> None:
        """Load another bundle of one camera beside the judges at work."""
        recipe, camera = command.recipe, command.camera
        if camera not in self._station.recipes.get(recipe, {}):
            request.refuse("unknown", f"no recipe '{recipe}' with a camera '{camera}'", "recipe")
            return
        now = self._installs.now(recipe, camera)
        forward = isinstance(command, InstallCommand)
        if forward:
            if command.sha256 == now.sha256:
                request.finish("this bundle is in force already")
                return
        elif command.sha256 not in ("", now.sha256):
            request.refuse("unknown", "this bundle is no longer in force", "superseded")
            return
        elif not now.sha256:
            detail = "the station file's own bundle is in force already"
            request.refuse("unknown", detail, "own_bundle")
            return
        new = self._installs.after(command)
        said_by = command.by or request.client
        say("install" if forward else "revert", recipe=recipe, camera=camera, by=said_by)
        self._ordered_by, self._new = request, new
        self._systemd.reloading(f"loading the bundle of {camera}")
        station = self._judges.station.model_copy(update={"recipe": recipe})
        self._changeover = Changeover(
            station.with_bundle(recipe, camera, self._installs.path(new)),
            self._hand_over,
            forget=True,
            only=camera,
        )
        self._changeover.start()

    def _change_over(self, request: Request | None, recipe: str) -> None:
        say("changeover", recipe=recipe)
        self._ordered_by = request
        self._systemd.reloading(f"loading recipe {recipe}")
        station = self._judges.station
        self._changeover = Changeover(
            station.model_copy(update={"recipe": recipe}),
            self._hand_over,
            forget=recipe == station.recipe,
        )
        self._changeover.start()

    def _hand_over(self, changeover: Changeover) -> None:
        """In the changeover's thread, which may wait for the disk: the station's own may not."""
        changed = ""
        try:
            if self._file is not None:
                changed = changes_since(self._file, self._station, lambda: changeover.given_up)
        finally:
            self._inbox.call_in_turn(partial(self._switch, changeover, changed))

    def _switch(self, changeover: Changeover, changed: str) -> None:
        """Between two parts: the bundles loaded, warmed and golden-checked take over.

        ``changed`` says what the station file has that is not in force; or "".
        """
        request, self._ordered_by = self._ordered_by, None
        new, self._new = self._new, None
        self._changeover = None
        self._systemd.ready(f"judging with {self._ledger.provider}")
        if changed:
            say("station file", logging.WARNING, detail=changed)
        if changeover.problems:
            for problem in changeover.problems:
                say("changeover refused", logging.ERROR, detail=problem)
            if request is not None:
                why = [str(problem) for problem in changeover.problems]
                if new is not None:
                    # Where the station has put it says nothing to those who sent it.
                    where = f"{self._station.installed(new.sha256)}: "
                    why = [one.replace(where, "") for one in why]
                cause = _cause_of(changeover.problems[0])
                request.refuse("failed", "; ".join(filter(None, (*why, changed))), cause)
            return
        if new is not None and request is not None:
            self._put_in(request, changeover, new, changed)
            return
        models_before = self._models()
        self._installs.settle()
        self._judges.switch(changeover)
        if changeover.forget:
            self._alarms.forget()
        recipe, choice = changeover.station.recipe, self._choice
        deed = self._changed_over(request, models_before, recipe)
        if request is not None and isinstance(request.command, RecipeCommand):
            choice = settled(self._station, recipe, "command")
        done = f"recipe {recipe}: {self._models()}"

        def answer(recorded: bool) -> None:
            if request is None:
                return
            if recorded:
                request.finish("; ".join(filter(None, (done, changed))))
            else:
                detail = f"{recipe} is in force, but could not be recorded yet"
                request.refuse("journal", detail, "in_force")

        self._choice_before = self._choice
        self._take_over(choice, answer, deed)
        self._readiness.obstruct("self_test", Reason.NOT_READY, "")
        self.look_for_models()
        self._readiness.tell()

    def _put_in(
        self, request: Request, changeover: Changeover, new: BundleInForce, changed: str
    ) -> None:
        """Between two parts: one camera's other bundle takes over, or will with its recipe."""
        recipe, camera = new.recipe, new.camera
        loaded = changeover.judges[camera].model
        now = self._installs.now(recipe, camera)
        model_before, lessons = None, 0
        if recipe == self._judges.station.recipe and camera in self._judges:
            model_before = self._judges[camera].model
            manifests = (one[camera].detector.manifest for one in (self._judges, changeover.judges))
            lessons = parts_taught(*manifests)
        in_force = self._judges.exchange(changeover, camera)
        self._ledger.adopt(self._judges.station)
        self._installs.take(new, on_probation=in_force)
        if in_force:
            self._choice_before = self._choice
            self._alarms.forget(recipe, camera)
            announce(camera, self._judges, self._ledger, self._metrics)
            missed = "; ".join(f"{name}: {why}" for name, why in self._judges.missed)
            self._readiness.obstruct("self_test", Reason.NOT_READY, missed)
            self.look_for_models()
        self._readiness.tell()
        before = now.sha256 or now.of_file
        model = f"{loaded.name} {loaded.version}"
        note = model
        if model_before is not None:
            before = model_before.sha256
            note = f"{model_before.name} {model_before.version} to {model}"
        if lessons:
            note += f", taught {lessons} good parts"
        deed = deed_of(
            request, subject=f"{recipe}/{camera}", before=before, after=loaded.sha256, note=note
        )
        own = "" if new.sha256 else ", the station file's own"
        done = f"recipe {recipe}, camera {camera}: {model}{own}, sha256 {loaded.sha256[:12]}"

        def answer(recorded: bool) -> None:
            if recorded:
                request.finish("; ".join(filter(None, (done, changed))))
            else:
                detail = f"{done} is in force, but could not be recorded yet"
                request.refuse("journal", detail, "in_force")

        self._record_bundle(new, deed, answer)

    def _record_bundle(
        self, new: BundleInForce, deed: Deed, then: Callable[[bool], None] = lambda _: None
    ) -> None:
        """Record which bundle is in force; what is then named no longer is deleted after that."""
        named = self._installs.named
        dropped, self._named = self._named - named, named

        def answer(recorded: bool) -> None:
            # A start after a crash may still need what the journal does not know to be replaced.
            self._unsure = frozenset() if recorded else self._unsure | dropped
            self._uploads.keep(named | self._unsure)
            then(recorded)

        self._recorder.put(KeepEntry(new, answer, deed))

    def _models(self) -> str:
        """By which models the cameras are judged, in words."""
        names = (one.name for one in self._station.cameras if one.name in self._judges)
        found = ((name, self._judges[name].model) for name in names)
        return ", ".join(f"{name} by {model.name} {model.version}" for name, model in found)

    def _changed_over(self, request: Request | None, models_before: str, recipe: str) -> Deed:
        """What the changeover that has just taken over was, as a deed."""
        if request is None:
            at_us = time.time_ns() // 1000
            note = "by a signal (SIGHUP)"
            return Deed(at_us, "reload", "", "", recipe, models_before, self._models(), note)
        if isinstance(request.command, RecipeCommand):
            return deed_of(
                request, subject=self._station.station, before=self._choice.recipe, after=recipe
            )
        return deed_of(request, subject=recipe, before=models_before, after=self._models())

    def _rolled_back(self, why: str) -> Deed:
        """The station has gone back to what was before the last changeover."""
        return Deed(
            time.time_ns() // 1000,
            "recipe",
            "",
            "",
            self._station.station,
            self._choice.recipe,
            self._choice_before.recipe,
            f"rolled back: {why}",
        )

    def _take_over(
        self,
        choice: RecipeChoice,
        then: Callable[[bool], None] = lambda _: None,
        deed: Deed | None = None,
    ) -> None:
        """The judges were changed: judge by ``choice``, and record it before its first verdict."""
        self._choice = choice
        self._ledger.select(choice.recipe, choice.source)
        for camera in self._judges.station.cameras:
            if camera.name in self._judges:
                announce(camera.name, self._judges, self._ledger, self._metrics)
        self._readiness.obstruct("recipe", Reason.NOT_READY, choice.question)
        self._recorder.put(KeepEntry(choice.kept, then, deed))


def announce(camera: str, judges: Judges, ledger: Ledger, metrics: Metrics) -> None:
    """Say by which model ``camera`` is judged from now on: to the ledger, metrics and the log."""
    judge = judges[camera]
    ledger.install(camera, judge.model)
    ledger.provider = judge.detector.provider
    metrics.model(camera, judge.model, judge.detector.manifest)
    if judge.defect is None and judges.station.self_test.every_s > 0:
        detail = "no golden defect in the bundle fails at this limit_factor; name a photo"
        say("no self-test", logging.WARNING, camera=camera, detail=detail)
    say("model", camera=camera, provider=judge.detector.provider, **judge.model.model_dump())


def _cause_of(problem: StartupError) -> RefusalCause | Literal[""]:
    """What the refusal of bundles that could not be used is about."""
    match problem:
        case SelfTestError():
            return "self_test"
        case SignatureError():
            return "signature"
        case GoldenError():
            return "golden"
        case BundleError():
            return "bundle"
    return ""
