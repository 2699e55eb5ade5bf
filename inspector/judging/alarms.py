"""Alarms: do clearly more parts FAIL, or FAULT, than is usual? A test by run length, no I/O.

Each verdict is a Bernoulli observation: 1 for a FAIL (or a FAULT), 0 otherwise. A Bernoulli CUSUM
(Reynolds and Stoumbos, "A CUSUM chart for monitoring a proportion when inspecting continuously",
Journal of Quality Technology 31, 1999) adds the log-likelihood ratio of a raised share against the
usual one and never falls below 0; it raises the alarm at a limit. It is the same chart as the
geometric CUSUM on the run lengths between such parts (Bourke, Journal of Quality Technology 23,
1991), so nothing depends on where a window of time would begin: a handful of FAILs in a row raise
it, and so do hundreds of parts of which slightly too many fail.

Three of them run side by side, for causes that spoil 5, 20 and 80 of 100 parts which would else
have been all right. The limit is ``log(3 A)``: the sum of their Shiryaev-Roberts statistics grows
by at most 3 a part on average while the share is at most the usual one, and is above each CUSUM.
So on average at least ``A`` parts lie between two false alarms (Lorden's bound, Annals of
Mathematical Statistics 42, 1971), if parts fail independently. Defects that come in bursts raise it
more often: that is what it is for.

The evidence is bounded by the limit, and an alarm ends when all of it is gone: after some 30 good
parts when it was short, after some 250 however long it lasted, or when the operator has the watch
begin anew.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from inspector.config.station_file import Alarm
from inspector.logs import say
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import VerdictMessage

_SPOILT: Final = (0.05, 0.2, 0.8)
"""Shares of otherwise good parts that a cause may spoil; a CUSUM is tuned to each."""
_RECENT: Final = 50
"""FAULTs among whose reasons the most frequent one is looked for."""

_TOLD_BY_STATE: Final = frozenset({Reason.NOT_READY, Reason.JOURNAL_FAILED, Reason.RESTARTED})
"""FAULTs of a station that is not Ready, whose state says so, and says why."""

_TOO_SLOW: Final = (
    "this computer does not keep up: check what else runs on it, then try 'inspector tune' and "
    "compare deadline_ms with the rate of the line"
)
_MODEL: Final = "the model cannot be computed: see the log, then restart the station"
FIRST_LOOK: Final = {
    Reason.NOT_FINITE: _MODEL,
    Reason.INFERENCE_ERROR: _MODEL,
    Reason.FRAME_SHAPE: "pictures have another size or pixel type than the recipe needs: check the "
    "camera's resolution and format",
    Reason.FRAME_UNREADABLE: "pictures arrive damaged: check cable and network, or the files",
    Reason.CAMERA_LOST: "the camera is lost: check its power, cable and network",
    Reason.QUEUE_FULL: _TOO_SLOW,
    Reason.DEADLINE_MISSED: _TOO_SLOW,
    Reason.TOO_DARK: "pictures are too dark: check lamp and exposure time",
    Reason.SATURATED: "pictures are too bright: check lamp, exposure time and stray light",
    Reason.OUT_OF_FOCUS: "pictures are blurred: check lens, distance and dirt on the glass",
    Reason.FROZEN: "the camera sends the same picture again and again: switch it off and on",
    Reason.OVER_TRIGGER: "triggers come before the last picture is taken: check the sensor for "
    "double pulses, and the distance between parts",
    Reason.TRIGGER_CONFLICT: "trigger numbers are used twice: the PLC must open another session "
    "when it counts from the beginning again",
}
"""Where to look first, by the reason of most FAULTs."""


class RateWatch:
    """The watch over one share; used by one thread at a time.

    ``usual`` is the share, above 0 and below 1, that needs no alarm; ``parts_between_false_alarms``
    is ``A`` above, 0 for no alarm ever.
    """

    def __init__(self, usual: float, parts_between_false_alarms: int) -> None:
        self._limit = math.log(max(1, len(_SPOILT) * parts_between_false_alarms))
        self._is_off = parts_between_false_alarms == 0
        raised = [usual + spoilt * (1.0 - usual) for spoilt in _SPOILT]
        self._steps = [
            (math.log((1.0 - share) / (1.0 - usual)), math.log(share / usual)) for share in raised
        ]
        """What each CUSUM adds for a part that is all right, and for one that is not."""
        self._levels = [0.0] * len(_SPOILT)
        self._runs = [(0, 0)] * len(_SPOILT)
        """Parts, and bad ones among them, since each CUSUM was last 0: since when it may be so."""
        self.counted = 0, 0
        """Parts that were bad when the last alarm was raised, and parts that were counted."""
        self.alarm = ""
        """While an alarm stands: the same in words, such as ``9 of 9``."""

    def note(self, bad: bool) -> bool:
        """Count a part; True when it raises the alarm or ends it."""
        if self._is_off:
            return False
        before = self.alarm
        for i, steps in enumerate(self._steps):
            level = min(self._limit, max(0.0, self._levels[i] + steps[bad]))
            parts, bads = self._runs[i]
            self._levels[i] = level
            self._runs[i] = (parts + 1, bads + bad) if level > 0.0 else (0, 0)
        highest = max(self._levels)
        if not before and highest >= self._limit:
            parts, bads = self._runs[self._levels.index(highest)]
            self.counted = bads, parts
            self.alarm = f"{bads} of {parts}"
        elif before and highest == 0.0:
            self.alarm = ""
        return self.alarm != before


class Standing(NamedTuple):
    """An alarm that stands: FAIL or FAULT (``kind``) of a camera, ``words`` for a person.

    ``bad`` of ``parts`` were so when it was raised, ``usual`` is the share that needs none.
    ``reason`` is that of most of the last FAULTs, "" of a FAIL; ``has_passed``: any part had.
    """

    camera: str
    kind: Verdict
    words: str
    bad: int
    parts: int
    usual: float
    reason: str
    has_passed: bool


class _Camera:
    """The watches over one camera under one recipe."""

    def __init__(self, settings: Alarm) -> None:
        self.watches = {
            Verdict.FAIL: RateWatch(settings.fail_share, settings.parts_between_false_alarms),
            Verdict.FAULT: RateWatch(settings.fault_share, settings.parts_between_false_alarms),
        }
        self.usual = {Verdict.FAIL: settings.fail_share, Verdict.FAULT: settings.fault_share}
        self.standing: dict[Verdict, Standing] = {}
        """What stands of each kind."""
        self.has_passed = False
        self.reasons: collections.deque[Reason] = collections.deque(maxlen=_RECENT)

    def describe(self, name: str, kind: Verdict, recipe: str) -> Standing:
        """An alarm of ``kind`` that was just raised, in words, with where to look first."""
        most = None
        if kind is Verdict.FAULT:
            most, _ = collections.Counter(self.reasons).most_common(1)[0]
            look = f"most of them {most.value}: {FIRST_LOOK.get(most, 'see the log')}"
        elif self.has_passed:
            look = (
                "parts have passed before: look at a part that failed and at its heatmap; if the "
                "part is good, look for a moved camera or lamp, dirt, or another picture format"
            )
        else:
            look = (
                f"none has passed so far: check that recipe '{recipe}' is for this "
                f"product, then that camera, lens, light and picture format are those of the "
                f"photos that it was trained on"
            )
        usual = self.usual[kind]
        words = (
            f"{self.watches[kind].alarm} parts {kind.value}, usual are at most "
            f"{usual * 100:g} in 100; {look}"
        )
        reason = "" if most is None else most.value
        counted = self.watches[kind].counted
        return Standing(name, kind, words, *counted, usual, reason, self.has_passed)


class Alarms:
    """The alarms of all cameras, each recipe by itself; every method may be called by any thread.

    A changeover brings the watches of its recipe, as they stood: alarms of other recipes rest.
    """

    def __init__(self, settings: Alarm) -> None:
        self._settings = settings
        self._cameras: dict[tuple[str, str], _Camera] = {}
        self._lock = threading.Lock()

    def note(self, verdict: VerdictMessage) -> None:
        """Count a verdict as it was published; an alarm, and its end, goes to the log.

        A FAULT does not count in the share of FAIL. One of a station that is not Ready counts
        nowhere.
        """
        reason = Reason(verdict.reason)
        if reason in _TOLD_BY_STATE:
            return
        kind = verdict.verdict
        with self._lock:
            key = verdict.recipe, verdict.camera
            camera = self._cameras.get(key)
            if camera is None:
                camera = self._cameras[key] = _Camera(self._settings)
            if kind is Verdict.FAULT:
                camera.reasons.append(reason)
            for each, watch in camera.watches.items():
                # A part that was not judged says nothing of how many judged parts fail.
                is_judged = kind is not Verdict.FAULT
                if (is_judged or each is Verdict.FAULT) and watch.note(kind is each):
                    camera.standing.pop(each, None)
                    if watch.alarm:
                        raised = camera.describe(verdict.camera, each, verdict.recipe)
                        camera.standing[each] = raised
                    _log(verdict, each, raised.words if watch.alarm else "")
            camera.has_passed = camera.has_passed or kind is Verdict.PASS

    def forget(self, recipe: str | None = None, camera: str | None = None) -> None:
        """Begin anew, as after a repair; given both, only for this camera under this recipe."""
        with self._lock:
            if recipe is None or camera is None:
                self._cameras.clear()
            else:
                self._cameras.pop((recipe, camera), None)

    def standing(self, recipe: str) -> Iterator[Standing]:
        """Each alarm that stands under ``recipe``."""
        with self._lock:
            found = [
                one
                for (of, _), camera in self._cameras.items()
                if of == recipe
                for one in camera.standing.values()
            ]
        yield from found

    def in_words(self, recipe: str) -> str:
        """What stands under ``recipe``; "" when nothing does."""
        return "; ".join(f"{one.camera}: {one.words}" for one in self.standing(recipe))


def _log(verdict: VerdictMessage, kind: Verdict, words: str) -> None:
    level = logging.WARNING if words else logging.INFO
    where = {"recipe": verdict.recipe, "camera": verdict.camera, "seq": verdict.seq}
    say("alarm" if words else "alarm over", level, verdict=kind, **where, detail=words)
