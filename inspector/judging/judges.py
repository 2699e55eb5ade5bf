"""The judges of all cameras: how they are loaded, changed over and watched.

Two watches stand beside each detector: is the known defect still caught, and do good parts score
as they did when the limit was set?
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from inspector.config.station_file import Station
from inspector.detection.detector import Detector
from inspector.detection.signing import load_bundle_keys
from inspector.errors import BundleError, SelfTestError, StartupError
from inspector.files import read_within
from inspector.judging.batches import Batching
from inspector.judging.drift import Watch
from inspector.judging.judge import Judge
from inspector.logs import say
from inspector.threads import Worker
from inspector.wire.messages import VerdictMessage


class Judges:
    """The judges of all cameras, under the recipe in force."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.batching = Batching()
        self._judges: dict[str, Judge] = {}
        self._before: tuple[Station, dict[str, Judge], Batching] | None = None
        self._watches: dict[tuple[str, str, float], Watch] = {}

    def __getitem__(self, camera: str) -> Judge:
        return self._judges[camera]

    def __contains__(self, camera: str) -> bool:
        return camera in self._judges

    @property
    def lacking(self) -> tuple[str, ...]:
        """The cameras that have no judge: no model was made for them yet."""
        return tuple(one.name for one in self.station.cameras if one.name not in self._judges)

    def select(self, recipe: str) -> None:
        """Have ``load`` load this recipe of the station file."""
        self.station = self.station.model_copy(update={"recipe": recipe})

    def adopt(self, station: Station) -> None:
        """Have ``load`` load by the limits of ``station``."""
        self.station = self.station.model_copy(update={"recipes": station.recipes})

    def set_limit(self, recipe: str, camera: str, limit_factor: float) -> str:
        """Judge ``camera`` by another factor on the limit under ``recipe``, from its next part on.

        Returns why that is not done: a known defect would be missed; "" when it is done. Raises
        KeyError for a recipe or camera that the station file does not have.
        """
        station = self.station.with_limit(recipe, camera, limit_factor)
        if recipe == station.recipe and camera in self._judges:
            if missed := self._judges[camera].set_limit(limit_factor):
                return missed
            self._keep_watch(camera)
        self.station = station
        if self._before is not None:
            # The judges of before a changeover, too, should that be rolled back.
            before, judges, batching = self._before
            if recipe == before.recipe and camera in judges:
                judges[camera].set_limit(limit_factor)
            self._before = before.with_limit(recipe, camera, limit_factor), judges, batching
        return ""

    def _keep_watch(self, camera: str) -> None:
        # Watches outlive changeovers: a line that changes over every day drifts over weeks.
        judge = self._judges[camera]
        judge.drift = self._watches.setdefault(judge.key, judge.drift)

    def exchange(self, changeover: Changeover, camera: str) -> bool:
        """Let ``camera`` be judged by the bundle that ``changeover`` loaded for it alone.

        Under the recipe in force it takes over on probation, as in :meth:`switch`; True then. Under
        another one it will, when that is in force.
        """
        recipe = changeover.station.recipe
        bundle = changeover.station.active(camera).bundle
        station = self.station.with_bundle(recipe, camera, bundle)
        if recipe == self.station.recipe:
            self._before = self.station, self._judges, self.batching
            self.station, self._judges = station, self._judges | changeover.judges
            self._put_on_probation(self._judges[camera], forget=True)
            return True
        self.station = station
        if self._before is not None:
            before, judges, batching = self._before
            if recipe == before.recipe:
                judges = judges | changeover.judges
            self._before = before.with_bundle(recipe, camera, bundle), judges, batching
        return False

    def load(
        self, given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[str, StartupError | None]]:
        """Load every camera's judge; yields (camera, None), or why the camera has none.

        ``given_up`` is asked meanwhile whether the judges are still wanted.
        """
        for name, found in load(self.station, given_up):
            if isinstance(found, Judge):
                self._judges[name] = found
                self._watches[found.key] = found.drift
                yield name, None
            else:
                yield name, found
        if self.station.batching == "auto":
            self.batching.learn(self._judges.values())

    def switch(self, changeover: Changeover) -> None:
        """Let the judges that ``changeover`` loaded take over, on probation.

        Those before are kept until each new judge has judged a part, for :meth:`roll_back`.
        """
        self._before = self.station, self._judges, self.batching
        self.station, self._judges = changeover.station, changeover.judges
        self.batching = changeover.batching
        for judge in self._judges.values():
            self._put_on_probation(judge, changeover.forget)

    def _put_on_probation(self, judge: Judge, forget: bool) -> None:
        assert self._before is not None
        # A camera's first judge has none before it to go back to.
        if (before := self._before[1].get(judge.name)) is not None:
            judge.on_probation = True
            judge.take_over(before)
        if forget:
            self._watches.pop(judge.key, None)
        self._keep_watch(judge.name)

    def roll_back(self) -> Station:
        """Let the judges from before the last switch take over again; returns their station."""
        if self._before is None:
            raise RuntimeError("nothing to roll back to")
        failed = self._judges
        self.station, self._judges, self.batching = self._before
        self._before = None
        for name, judge in self._judges.items():
            judge.on_probation = False
            if name in failed:
                judge.take_over(failed[name])
        return self.station

    @property
    def missed(self) -> Iterator[tuple[str, str]]:
        """(camera, why) for each self-test that was missed and is not acknowledged."""
        for name, judge in self._judges.items():
            if judge.schedule.missed:
                yield name, judge.schedule.missed

    def confirm(self, camera: str) -> None:
        """A part of ``camera`` was judged: its judge is no longer on probation."""
        self._judges[camera].on_probation = False
        if not any(judge.on_probation for judge in self._judges.values()):
            self._before = None

    def note(self, verdict: VerdictMessage) -> None:
        """Let the watch over drift see a verdict; an alarm goes to the log."""
        judge = self._judges.get(verdict.camera)
        if judge is not None and judge.drift.note(verdict.verdict, verdict.score):
            say("drift", logging.WARNING, camera=verdict.camera, detail=judge.drift.detail())

    @property
    def drifting(self) -> str:
        """The cameras whose good parts drift, in words; "" when none do."""
        return "; ".join(f"{name}: {drift.detail()}" for name, drift in self.drifts())

    def drifts(self) -> Iterator[tuple[str, Watch]]:
        """(camera, the watch over its drift) of each camera whose good parts drift."""
        for name, judge in self._judges.items():
            if judge.drift.alarm:
                yield name, judge.drift

    def drift(self) -> Iterator[tuple[str, float]]:
        """(camera, evidence of its drift): 0 is none, 1 the alarm."""
        for name, judge in self._judges.items():
            yield name, judge.drift.statistic

    def self_test_all(self) -> Iterator[tuple[str, str]]:
        """Run every self-test now, also where one was missed; yields (camera, why it was missed).

        What was missed before is forgotten: the defect is found now, or missed again.
        """
        for name, judge in self._judges.items():
            judge.schedule.demand()
            missed = judge.self_test(parts_wait=False)
            if missed is not None:
                yield name, missed

    def self_test(self, parts_wait: bool) -> Iterator[tuple[str, str]]:
        """Run the first self-test that is due; yields (camera, why it was missed or "").

        At most one runs in a call, since parts may wait meanwhile.
        """
        for name, judge in self._judges.items():
            missed = judge.self_test(parts_wait)
            if missed is not None:
                yield name, missed
                return


class Changeover(Worker):
    """A thread that loads, warms and checks the judges of ``station`` beside those at work.

    It calls ``done`` at its end: then ``judges`` is complete, or ``problems`` says why not.
    ``forget``: the operator wants the watches over drift and alarms to begin anew. After
    :meth:`give_up` no file is waited for, and ``problems`` says so. ``only``: the judge of
    this camera alone.
    """

    def __init__(
        self,
        station: Station,
        done: Callable[[Changeover], None],
        *,
        forget: bool,
        only: str | None = None,
    ) -> None:
        super().__init__("changeover")
        self.station = station
        self.forget = forget
        self.judges: dict[str, Judge] = {}
        self.batching = Batching()
        self.problems: list[StartupError] = []
        self._done = done
        self._only = only
        self._given_up = False

    @property
    def given_up(self) -> bool:
        """True once the judges are no longer wanted."""
        return self._given_up

    def give_up(self) -> None:
        """The judges are no longer wanted; any thread may call, and does not wait."""
        self._given_up = True

    def work(self) -> None:
        """Load the judges, and tell ``done``."""
        whole = False
        try:
            for name, found in load(self.station, lambda: self._given_up, self._only):
                if isinstance(found, Judge):
                    self.judges[name] = found
                else:
                    self.problems.append(found)
            for name, judge in self.judges.items():
                if missed := judge.self_test(parts_wait=False):
                    self.problems.append(SelfTestError(f"camera {name}: self-test: {missed}"))
            if self.station.batching == "auto":
                self.batching.learn(self.judges.values())
            whole = True
        finally:
            if not whole:
                self.problems.append(StartupError("the changeover crashed; the log says how"))
            self._done(self)


def load(
    station: Station, given_up: Callable[[], bool] = lambda: False, only: str | None = None
) -> Iterator[tuple[str, Judge | StartupError]]:
    """Load a judge for every camera under the recipe in force; yields why where that fails.

    ``only``: for this camera alone.

    Cameras with the same bundle share its session. A file that is not read within the station's
    ``load_timeout_s``, or before ``given_up()``, is a problem.
    """
    loaded: dict[Path, Detector | StartupError] = {}
    read_file = partial(read_within, timeout_s=station.load_timeout_s, given_up=given_up)
    try:
        keys = load_bundle_keys(station.security.bundle_keys)
    except StartupError as problem:
        yield station.cameras[0].name, problem
        return
    for camera in station.cameras:
        if only not in (None, camera.name):
            continue
        recipe = station.active(camera.name)
        # Not Path.resolve, which asks the disk: it may hang.
        path = Path(os.path.normpath(recipe.bundle))
        try:
            if path not in loaded:
                loaded[path] = Detector.load(
                    recipe.bundle,
                    station.provider,
                    station.threads,
                    keys=keys,
                    read_file=read_file,
                )
            found = loaded[path]
            if isinstance(found, Detector):
                if station.is_installed(station.recipe, camera.name):
                    _check_name(found)
                detector = found.adapted(recipe.region, recipe.limit_factor)
                yield camera.name, Judge(station, camera, detector, read_file)
            else:
                yield camera.name, found
        except StartupError as problem:
            # The problem is kept, so that a bundle that two cameras share is loaded only once.
            loaded.setdefault(path, problem)
            yield camera.name, problem


def _check_name(detector: Detector) -> None:
    """Refuse an installed bundle that is no longer the one that it was. Raises BundleError."""
    if detector.path.stem != detector.sha256:
        raise BundleError(f"{detector.path}: another bundle lies there than was installed")
