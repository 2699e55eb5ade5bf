"""Self-test: a known defect goes through the station from time to time, and must be caught.

Here is which defect is sent, when, and what counts as a miss; only the defect's photo is read from
a file. The result is nobody's part: it is never numbered, counted, recorded or published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inspector.config.station_file import SelfTest
from inspector.detection.detector import Detector
from inspector.detection.manifest import Manifest
from inspector.errors import ConfigError
from inspector.files import read_within, reason_of
from inspector.imaging.images import decode_file
from inspector.verdict import LIMIT, Judgement, Verdict


@dataclass(frozen=True)
class Defect:
    """What is sent: a photo at camera size, or a golden picture at network size with its score.

    ``score`` is in units of the calibrated limit, None for a photo; ``tolerance`` is how far the
    score may move.
    """

    name: str
    image: npt.NDArray[np.generic]
    score: float | None = None
    tolerance: float = 0.0

    def send(self, detector: Detector) -> Judgement:
        """Judge it by the detector that judges the line's parts, with the limit in force.

        Its picture is not checked: a defect may be dark, and must be judged all the same.
        """
        if self.score is None:
            return detector.judge(self.image, check_picture=False)
        return detector.judge_input(np.asarray(self.image, dtype=np.uint8))

    def test(self, detector: Detector) -> Tested:
        """Send it, and say how that went."""
        judgement = self.send(detector)
        score = None if judgement.score is None else judgement.score * judgement.limit_factor
        return Tested(time.time_ns() // 1000, score, self.missed(judgement))

    def missed(self, judgement: Judgement) -> str:
        """Why the station cannot be trusted after this ``judgement``, in words; "" when it can.

        A defect must be a FAIL. A golden one must also score as recorded: a score that has moved
        comes from another computation than the one that was proven.
        """
        if judgement.verdict is not Verdict.FAIL:
            found = judgement.detail or f"score {judgement.score:.3f}"
            return f"defect '{self.name}' is a {judgement.verdict} ({found})"
        if self.score is None or judgement.score is None:
            return ""
        found_score = judgement.score * judgement.limit_factor
        # The comparison is written so that a NaN fails it.
        if not abs(found_score - self.score) <= self.tolerance:
            return (
                f"defect '{self.name}' scores {found_score:.4f}, expected {self.score:.4f} within "
                f"{self.tolerance:g}"
            )
        return ""


def choose(
    settings: SelfTest,
    manifest: Manifest,
    limit_factor: float,
    read_file: Callable[[Path], bytes] = read_within,
) -> Defect | None:
    """Choose the defect: the photo that the station file names, else the worst golden picture.

    None when ``every_s`` is 0, or when no golden picture of the bundle must fail at the operator's
    ``limit_factor``. ``read_file`` gives the bytes of a file, within a time, or raises OSError.
    Raises :class:`ConfigError` when the photo cannot be read.
    """
    if settings.every_s == 0:
        return None
    if settings.defect is not None:
        return Defect(settings.defect.name, _photo(settings.defect, read_file))
    golden = max(manifest.golden, key=lambda picture: picture.score)
    if golden.score < (LIMIT + manifest.golden_tolerance) * limit_factor:
        return None
    return Defect(golden.name, golden.image(), golden.score, manifest.golden_tolerance)


@dataclass(frozen=True)
class Tested:
    """How a self-test went.

    ``at_us``: µs since the Unix epoch. ``score`` is in units of the calibrated limit, None where
    the picture could not be judged. ``missed`` is what :meth:`Defect.missed` said.
    """

    at_us: int
    score: float | None
    missed: str


class Schedule:
    """When the next self-test of one camera is due, and whether the last one was missed.

    ``every_s`` 0 means never; ``monotonic_ns`` is the clock. A miss stands until the operator has
    seen to it and has the station read its bundles again, which makes new judges and schedules, or
    has it tested again.
    """

    def __init__(self, every_s: float, monotonic_ns: Callable[[], int]) -> None:
        self._every_ns = round(every_s * 1e9)
        self._now_ns = monotonic_ns
        self._due_ns = monotonic_ns()
        self._at_once = True
        self.missed = ""
        """Why a self-test was a miss; "" while the station can be trusted."""

    def due(self, parts_wait: bool) -> bool:
        """True when a self-test should be sent now: at the start, then every ``every_s``.

        While parts wait it is put off for another ``every_s`` at most; then it comes between two
        parts. After a miss none is due: the station has stopped.
        """
        if not self._every_ns or self.missed:
            return False
        late_ns = self._now_ns() - self._due_ns
        return late_ns >= (self._every_ns if parts_wait and not self._at_once else 0)

    def demand(self) -> None:
        """Have one sent now, and forget a miss: it says anew if the station can be trusted."""
        self._due_ns, self._at_once, self.missed = self._now_ns(), True, ""

    def record(self, missed: str) -> None:
        """Note that a self-test ran; ``missed`` is what :meth:`Defect.missed` said of it."""
        self._at_once = False
        self._due_ns = self._now_ns() + self._every_ns
        self.missed = self.missed or missed


def _photo(path: Path, read_file: Callable[[Path], bytes]) -> npt.NDArray[np.generic]:
    try:
        return decode_file(np.frombuffer(read_file(path), np.uint8), path)
    except (OSError, ValueError) as error:
        cause = f"{path}: {reason_of(error)}" if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"self_test.defect: {cause}; name a photo of a defective part at camera size"
        ) from None
