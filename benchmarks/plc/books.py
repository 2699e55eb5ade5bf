"""The accounts of parts: what stood before the camera, what the PLC made of it, and who says so.

Each part has a picture of its own brightness, which the tiny bundle turns into a score that is
known beforehand. So a result that belongs to another part is seen by its score, whatever it says of
itself, and a defective part that passes is seen whatever the station believes. A good and a bad
picture in turn would not do: their order is lost when a station starts again.

A PLC ends every part, by its own time at the latest, even if no result ever comes. So its time-outs
count only as far as something was done to the line that explains them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.figures import Figure
from inspector.bridges.codes import VERDICT_CODES
from inspector.files import write_whole
from inspector.imaging.images import encode_png
from inspector.journal.reader import Reader
from inspector.verdict import Verdict
from inspector.wire.messages import VerdictMessage
from tests import tiny

PASS, FAIL, FAULT = (VERDICT_CODES[one] for one in (Verdict.PASS, Verdict.FAIL, Verdict.FAULT))
NONE: Final = 0
OVERRUN: Final = "result_overrun"

_GOOD_STEPS: Final = tuple(range(48))
_BAD_STEPS: Final = tuple(range(80, 120))
"""Grey levels away from what the bundle expects; its limit is 64 of them."""
_EXACT: Final = 1e-3
_SLACK_S: Final = 0.25
"""Beyond its own time a PLC may be late by this: a scan that waited for a busy machine."""


@dataclass(frozen=True)
class Part:
    """A part that was triggered. ``score`` is what its picture scores."""

    part_id: str
    score: float
    begun_s: float

    @property
    def is_bad(self) -> bool:
        """True for a part that must not pass."""
        return self.score >= 1.0


@dataclass(frozen=True)
class End:
    """How a part ended for the PLC.

    ``verdict`` NONE: the PLC's own time; ``reason`` then may say ``restart``: the PLC forgot it.
    ``told_id`` is the part that the result itself names, ``score`` −1 where it has none.
    """

    part_id: str
    verdict: int
    reason: str
    score: float
    told_id: str
    ended_s: float


class Stand:
    """Where parts stand before a camera: a file that is the camera's picture."""

    def __init__(self, folder: Path, name: str, first: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "000.png"
        self._name = name
        self._count = first
        self._pictures = {
            step: encode_png(np.full((tiny.SIDE, tiny.SIDE, 3), tiny.GREY + step, np.uint8))
            for step in (*_GOOD_STEPS, *_BAD_STEPS)
        }
        self.place()

    def place(self) -> tuple[str, float]:
        """The next part comes, every third of them defective; its id, and what it scores."""
        self._count += 1
        turn, kind = divmod(self._count, 3)
        # The steps go round in different lengths, so that neighbours never score alike.
        step = _BAD_STEPS[turn % 40] if kind == 0 else _GOOD_STEPS[(7 * turn + 24 * kind) % 48]
        write_whole(self._path, self._pictures[step], durable=False)
        return f"{self._name}-{self._count:06}", step / tiny.LIMIT_GREY_LEVELS


class Books:
    """What all PLCs of a line have triggered, and how each part ended."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self.parts: dict[str, Part] = {}
        self.ends: list[End] = []
        self.disturbed: list[tuple[float, float]] = []
        """When something was done to the line, until it worked again; monotonic, s."""

    def trigger(self, part_id: str, score: float) -> None:
        """A part was triggered."""
        with self._lock:
            self.parts[part_id] = Part(part_id, score, time.monotonic())

    def take_back(self, part_id: str) -> None:
        """The trigger was refused in the answer to it: nothing was started."""
        with self._lock:
            del self.parts[part_id]

    def end(
        self, part_id: str, verdict: int, reason: str = "", score: float = -1.0, told_id: str = ""
    ) -> None:
        """A part has ended."""
        with self._lock:
            self.ends.append(End(part_id, verdict, reason, score, told_id, time.monotonic()))

    @property
    def triggered(self) -> int:
        """How many parts were triggered."""
        return len(self.parts)


@dataclass
class Accounts:
    """The sums."""

    triggers: int = 0
    results: int = 0
    overruns: int = 0
    timeouts: int = 0
    restarts: int = 0
    doubled: int = 0
    unknown: int = 0
    bad: int = 0
    bad_caught: int = 0
    passes: int = 0
    false_passes: int = 0
    swapped: int = 0
    late_passes: int = 0
    unexplained: int = 0
    contradicted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> int:
        """Triggers less results, overruns and the PLC's own time-outs, whichever way it differs."""
        ended = self.results + self.overruns + self.timeouts
        return abs(self.triggers - ended) + self.doubled + self.unknown


def settle(books: Books, journal: Mapping[str, str]) -> Accounts:
    """Add up; ``journal`` has each part's verdict as the station recorded it."""
    sums = Accounts(triggers=len(books.parts))
    sums.bad = sum(part.is_bad for part in books.parts.values())
    seen: Counter[str] = Counter()
    for end in books.ends:
        part = books.parts.get(end.part_id)
        if part is None:
            sums.unknown += 1
            continue
        seen[end.part_id] += 1
        if seen[end.part_id] > 1:
            sums.doubled += 1
        if end.verdict == NONE:
            sums.timeouts += 1
            sums.restarts += end.reason == "restart"
            sums.unexplained += not _is_explained(part, end, books)
        elif end.reason == OVERRUN:
            sums.overruns += 1
        else:
            sums.results += 1
        sums.reasons[end.reason or {PASS: "pass", FAIL: "fail"}.get(end.verdict, "none")] += 1
        if end.verdict == PASS:
            sums.passes += 1
            sums.false_passes += part.is_bad
            sums.late_passes += end.ended_s > part.begun_s + books.timeout_s + _SLACK_S
        sums.bad_caught += end.verdict == FAIL and part.is_bad
        if end.verdict != NONE:
            names_another = end.told_id != end.part_id
            scores_another = end.verdict != FAULT and abs(end.score - part.score) > _EXACT
            sums.swapped += names_another or scores_another
        if end.verdict in {PASS, FAIL}:
            sums.contradicted += (
                journal.get(end.part_id) != {PASS: "PASS", FAIL: "FAIL"}[end.verdict]
            )
    return sums


def _is_explained(part: Part, end: End, books: Books) -> bool:
    """Whether something was done to the line while the part was on its way."""
    return any(begun <= end.ended_s and part.begun_s <= healed for begun, healed in books.disturbed)


def journalled(folder: Path) -> dict[str, str]:
    """Each part's verdict in the station's journal; one that stands there twice has both."""
    found: dict[str, str] = {}
    with Reader(folder) as reader:
        for body in reader.walk():
            message = VerdictMessage.model_validate_json(body)
            before = found.get(message.part_id)
            verdict = message.verdict.value
            found[message.part_id] = verdict if before is None else f"{before}, {verdict}"
    return found


def figures(
    sums: Accounts, done: Counter[str], kinds: Sequence[str], more: Sequence[Figure] = ()
) -> list[Figure]:
    """The table of a row about parts; ``done``: how often each of ``kinds`` was."""

    def none(name: str, value: int, of: str = "parts") -> Figure:
        return Figure(name, value, of, "0", value == 0)

    missed = [kind for kind in kinds if not done[kind]]
    return [
        Figure("triggers", sums.triggers, "parts"),
        Figure("results seen", sums.results, "parts", "above 0", sums.results > 0),
        Figure("overruns told", sums.overruns, "parts"),
        Figure("the PLC's own time-outs", sums.timeouts, "parts"),
        Figure("of these forgotten by a PLC that restarted", sums.restarts, "parts"),
        none("triggers less results, overruns and time-outs", sums.missing),
        Figure("known-bad parts", sums.bad, "parts"),
        Figure(
            "known-bad parts seen as FAIL", sums.bad_caught, "parts", "above 0", sums.bad_caught > 0
        ),
        Figure("passes", sums.passes, "parts", "above 0", sums.passes > 0),
        none("false passes", sums.false_passes),
        none("another part's result", sums.swapped),
        none("passes after the PLC's own time", sums.late_passes),
        none("time-outs while nothing was done to the line", sums.unexplained),
        none("results that the journal tells otherwise", sums.contradicted),
        *[
            Figure(f"results with reason {reason}", count, "parts")
            for reason, count in sorted(sums.reasons.items())
            if reason not in {"pass", "fail", "none", "anomaly", "restart", OVERRUN}
        ],
        *[Figure(f"done to the line: {kind}", done[kind], "times") for kind in kinds],
        Figure("kinds of these not done", len(missed), "", "0", not missed),
        *more,
    ]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; False when it did not come in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
