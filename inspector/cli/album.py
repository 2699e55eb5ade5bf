"""A folder of photos of good parts, and what is wrong with a photo beside the others in it."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from inspector.errors import ConfigError, Fault, OutputError
from inspector.files import write_output
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.images import IMAGE_SUFFIXES, encode_png, exposure, read_image, to_bgr8

Floats = npt.NDArray[np.float32]
ObjectionKind = Literal[
    "already there", "same part", "blurred", "overexposed", "underexposed", "other light"
]

FEWEST_OTHERS: Final = 5
"""Kept photos that a new one is compared with in light and sharpness; before, it is taken."""

_SIDE_PX: Final = 256
"""Measured at about the network's size: at the camera's, sensor noise would pass for sharpness."""
_CELLS: Final = 32
_WHITE: Final = 254
_BLACK: Final = 2
_CLIPPED: Final = 250.0
_EMPTY_SHARE: Final = 0.98
_CLIPPED_SHARE: Final = 0.05
_SPREADS: Final = 5.0
_BLUR_SPREADS: Final = 4.0
_MEMORY: Final = ".collect.json"


@dataclass(frozen=True)
class PhotoMeasures:
    """What is compared of one photo, within the region.

    ``brightness``: mean grey, 0..255. ``sharpness``: variance of the Laplacian. ``saturated`` and
    ``black``: shares of the pixels, 0..1. ``thumbnail``: grey float32 ``[32, 32]``;
    ``thumbnail_noise``: mean difference, in grey levels, of two thumbnails of one still scene.
    """

    brightness: float
    sharpness: float
    saturated: float
    black: float
    thumbnail: Floats
    thumbnail_noise: float


@dataclass(frozen=True)
class Objection:
    """One thing wrong with a photo: its kind, and a line with the figures and the cure."""

    kind: ObjectionKind
    text: str


class AlbumNotes(BaseModel):
    """What a folder remembers for the next session, in a hidden file beside the photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Box | None = None


def measure(image: npt.NDArray[Any], region: Box | None) -> PhotoMeasures:
    """Measure a camera frame (shapes as :meth:`Geometry.apply`). Raises :class:`Fault`."""
    geometry = Geometry(height=_SIDE_PX, width=_SIDE_PX, region=region)
    pixels = to_bgr8(geometry.crop(image))
    picture = geometry.apply(image)
    brightness, sharpness = exposure(picture)
    brightest = pixels.max(axis=2)
    step = _SIDE_PX // _CELLS
    cells = picture.mean(axis=2, dtype=np.float32).reshape(_CELLS, step, _CELLS, step)
    per_cell = max(1.0, brightest.size / _CELLS**2)
    return PhotoMeasures(
        brightness=brightness,
        sharpness=sharpness,
        saturated=float((brightest >= _WHITE).mean()),
        black=float((brightest <= _BLACK).mean()),
        thumbnail=cells.mean(axis=(1, 3)),
        # Of the difference of two normal variables, the mean size is 2 σ / √π.
        thumbnail_noise=2.0 / math.sqrt(math.pi) * _noise(pixels) / math.sqrt(per_cell),
    )


def _noise(pixels: npt.NDArray[np.uint8]) -> float:
    """Standard deviation of the sensor's noise in grey levels, from the middle of the picture.

    Immerkær's mask, which answers neither to a level nor to a slope; the median leaves edges out.
    """
    top, left = (max(0, (side - 512) // 2) for side in pixels.shape[:2])
    grey = pixels[top : top + 512, left : left + 512].mean(axis=2, dtype=np.float32)
    if min(grey.shape) < 3:
        return 0.0
    across = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    return float(np.median(np.abs(both)) / 0.6745 / 6.0)


class Album:
    """The photos of one folder. One process at a time may hold it; ``close`` lets it go.

    ``len()`` is the number of photos that training would read.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing. Raises :class:`OutputError`, ConfigError."""
        self.folder = folder
        self.region: Box | None = None
        self._names: list[str] = []
        self._measures: list[PhotoMeasures] = []
        self._is_new = not folder.exists()
        for name in ("train", "test", "ground_truth"):
            if (folder / name).is_dir():
                raise OutputError(
                    f"{folder}: holds a whole data set ({name}/); collect into "
                    f"{folder / 'train' / 'good'}"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise OutputError(f"{folder}: not a folder to write to: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.remembered = self._recall()
            stems = [path.stem for path in folder.iterdir()]
        except BlockingIOError:
            self._release()
            raise OutputError(
                f"{folder}: another collect writes there; end it first, or choose another folder"
            ) from None
        except (OSError, ConfigError):
            self._release()
            raise
        self._next = 1 + max((int(s) for s in stems if s.isascii() and s.isdecimal()), default=-1)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def next_name(self) -> str:
        """What the next photo will be called, without its suffix."""
        return f"{self._next:04d}"

    def close(self) -> None:
        """Let the folder go; one that was made for nothing is removed."""
        self._release()
        if self._is_new:
            with suppress(OSError):
                self.folder.rmdir()

    def load(self, region: Box | None, on_photo: Callable[[int, int], None]) -> list[str]:
        """Measure the photos that are there, and remember ``region``.

        Returns a line for each photo that training would refuse; ``on_photo`` gets (done, total).
        Raises :class:`OutputError`.
        """
        self.region = region
        if region is not None or self.remembered.region is not None:
            memory = AlbumNotes(region=region)
            write_output(self.folder / _MEMORY, memory.model_dump_json())
        problems = []
        paths = sorted(_photos(self.folder))
        for done, path in enumerate(paths):
            name = path.relative_to(self.folder).as_posix()
            try:
                measures = measure(read_image(path), region)
            except ValueError as error:
                problems.append(f"{error}; delete it: training would refuse it")
            except Fault as fault:
                problems.append(f"{path}: {fault}; delete it: training would refuse it")
            else:
                self._names.append(name)
                self._measures.append(measures)
            on_photo(done + 1, len(paths))
        return problems

    def judge(self, measures: PhotoMeasures) -> list[Objection]:
        """What is wrong with a new photo beside those that are there; [] when nothing is."""
        for name, other in zip(self._names, self._measures, strict=True):
            if _is_same(measures, other):
                return [Objection("already there", f"the very picture that {name} is")]
        found = _stands_out(measures, self._measures)
        twin = _twin(measures, self._measures)
        if twin is not None:
            which, difference = twin
            text = (
                f"same part photographed twice? (differs from {self._names[which]} by "
                f"{difference:.2f} grey levels, no more than noise): put another part there"
            )
            found.insert(0, Objection("same part", text))
        return found

    def add(self, image: npt.NDArray[Any], measures: PhotoMeasures) -> str:
        """Write the whole frame as lossless PNG; its name. Raises :class:`OutputError`."""
        while (path := self.folder / f"{self.next_name}.png").exists():
            self._next += 1
        write_output(path, encode_png(image))
        self._next += 1
        self._names.append(path.name)
        self._measures.append(measures)
        return path.name

    def doubtful(self) -> list[str]:
        """Photos in the folder that stand out now that there are others to compare with."""
        lines = []
        for name, mine in zip(self._names, self._measures, strict=True):
            found = _stands_out(mine, self._measures)
            if found:
                lines.append(f"{name}: {'; '.join(objection.text for objection in found)}")
        return lines

    def write_preview(self, jpeg: bytes) -> Path:
        """Keep a picture to read coordinates from, hidden from training; OutputError."""
        path = self.folder / ".preview.jpg"
        write_output(path, jpeg)
        return path

    def _recall(self) -> AlbumNotes:
        path = self.folder / _MEMORY
        try:
            return AlbumNotes.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return AlbumNotes()
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError:
            raise ConfigError(
                f"{path}: not as collect wrote it; delete it and give --region again"
            ) from None

    def _release(self) -> None:
        os.close(self._lock)


def _photos(folder: Path) -> Iterator[Path]:
    """What training reads: images at any depth, hidden ones left out."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(here, name)


def _median(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the standard deviation as the median deviation tells it."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(np.asarray(values) - middle)))


def _stands_out(mine: PhotoMeasures, others: Sequence[PhotoMeasures]) -> list[Objection]:
    # Sharpness grows with light: a dark photo is not to be called blurred.
    return list(_light(mine, others)) or list(_blur(mine, others))


def _is_same(mine: PhotoMeasures, other: PhotoMeasures) -> bool:
    return (
        (mine.brightness, mine.sharpness) == (other.brightness, other.sharpness)
        and (mine.saturated, mine.black) == (other.saturated, other.black)
        and np.array_equal(mine.thumbnail, other.thumbnail)
    )


def _light(mine: PhotoMeasures, others: Sequence[PhotoMeasures]) -> Iterator[Objection]:
    if mine.saturated >= _EMPTY_SHARE:
        text = f"overexposed ({mine.saturated:.0%} of the region saturated): shorten the exposure"
        yield Objection("overexposed", text)
        return
    if mine.black >= _EMPTY_SHARE:
        text = f"underexposed ({mine.black:.0%} of the region black): is the lens cap on?"
        yield Objection("underexposed", text)
        return
    if len(others) < FEWEST_OTHERS:
        return
    usual, spread = _median([other.saturated for other in others])
    if mine.saturated > usual + max(_CLIPPED_SHARE, _SPREADS * spread):
        yield Objection(
            "overexposed",
            f"overexposed ({mine.saturated:.0%} of the region saturated, the others {usual:.0%}): "
            f"shorten the exposure, look for a reflection",
        )
        return
    usual, spread = _median([other.black for other in others])
    if mine.black > usual + max(_CLIPPED_SHARE, _SPREADS * spread):
        yield Objection(
            "underexposed",
            f"underexposed ({mine.black:.0%} of the region black, the others {usual:.0%}): "
            f"check the lamp and the exposure",
        )
        return
    usual, spread = _median([other.brightness for other in others])
    if abs(mine.brightness - usual) > max(10.0, 0.2 * usual, _SPREADS * spread):
        yield Objection(
            "other light",
            f"{'brighter' if mine.brightness > usual else 'darker'} than the others (brightness "
            f"{mine.brightness:.0f}, the others {usual:.0f}): check the lamp, fix the exposure",
        )


def _blur(mine: PhotoMeasures, others: Sequence[PhotoMeasures]) -> Iterator[Objection]:
    if len(others) < FEWEST_OTHERS:
        return
    usual, spread = _median([math.log(max(other.sharpness, 1e-3)) for other in others])
    below = usual - math.log(max(mine.sharpness, 1e-3))
    if below > max(math.log(2.0), _BLUR_SPREADS * spread):
        yield Objection(
            "blurred",
            f"blurred (sharpness {mine.sharpness:.0f}, the others {math.exp(usual):.0f}): hold "
            f"still, check focus",
        )


def _twin(mine: PhotoMeasures, others: Sequence[PhotoMeasures]) -> tuple[int, float] | None:
    """The photo that differs from this one by no more than noise, and by how much."""
    if not others:
        return None
    new, old = mine.thumbnail, np.stack([other.thumbnail for other in others])
    lit = (new < _CLIPPED) & (old < _CLIPPED)
    # A lamp that flickers is no other part; saturated cells cannot tell how bright it was.
    gain = (new * lit).sum((1, 2)) / np.maximum((old * lit).sum((1, 2)), 1.0)
    gain = np.where(lit.mean((1, 2)) > 0.05, np.clip(gain, 0.8, 1.25), 1.0)
    changes = np.abs(new - np.minimum(old * gain[:, None, None], 255.0))
    counted = (new < _CLIPPED) | (old < _CLIPPED)
    mean = (changes * counted).sum((1, 2)) / np.maximum(counted.sum((1, 2)), 1)
    # Most of the picture may be a belt that never changes: no single cell may move much either.
    limit = min(max(2.0 * mine.thumbnail_noise, 0.5), 1.0)
    mean[changes.max((1, 2)) > 6.0 * limit] = np.inf
    which = int(np.argmin(mean))
    return (which, float(mean[which])) if mean[which] <= limit else None
