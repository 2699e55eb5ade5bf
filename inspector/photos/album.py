"""A folder of photos of good parts, which one ``collect`` at a time fills."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from inspector.errors import ConfigError, Fault, InspectorError, OutputError
from inspector.files import write_output
from inspector.imaging.folders import find_images, remarks
from inspector.imaging.formats import is_turned
from inspector.imaging.geometry import Box
from inspector.imaging.images import decode_file, encode_jpeg, encode_png, read_image, shrink
from inspector.photos.checks import (
    Objection,
    PhotoMeasures,
    find_twin,
    is_same,
    measure,
    stands_out,
)

_NOTES: Final = ".collect.json"
_PREVIEW: Final = ".preview.jpg"


class OtherShapeError(ValueError):
    """A picture's size, or number of channels, is not that of the photos in the album."""


class AlbumNotes(BaseModel):
    """What a folder remembers for the next session, in a hidden file beside the photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Box | None = None


class Album:
    """The photos of one folder, which is locked for other processes until ``close``.

    ``load`` comes first. ``len()`` is the number of photos in it that training would read.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing, and lock it.

        Raises :class:`OutputError`, and :class:`ConfigError` for notes that cannot be read.
        """
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
            self.notes = self._recall()
            stems = [path.stem for path in folder.iterdir()]
        except BlockingIOError:
            self._release()
            raise OutputError(
                f"{folder}: another collect writes there; end it first, or choose another folder"
            ) from None
        except OSError as error:
            self._release()
            raise OutputError(f"{folder}: cannot be read: {error.strerror}") from None
        except InspectorError:
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
        """Unlock the folder, and remove it if it was made here and stayed empty."""
        self._release()
        if self._is_new:
            with suppress(OSError):
                self.folder.rmdir()

    def load(self, region: Box | None, on_photo: Callable[[int, int], None]) -> list[str]:
        """Measure the photos in the folder within ``region``, and note it for the next session.

        Returns a line for each photo that training would refuse, and for what it would not read.
        ``on_photo`` is called after each with the number measured and their total. Raises
        :class:`OutputError`.
        """
        self.region = region
        self._names, self._measures = [], []
        if region is not None or self.notes.region is not None:
            self.notes = AlbumNotes(region=region)
            write_output(self.folder / _NOTES, self.notes.model_dump_json())
        try:
            paths = find_images(self.folder)
            problems = remarks(self.folder, paths)
        except OSError as error:
            raise OutputError(
                f"{error.filename or self.folder}: cannot be read: {error.strerror}; make the "
                f"folder readable"
            ) from None
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

    def as_png(self, data: bytes) -> bytes:
        """A picture file, whatever its format, as the lossless PNG that the album keeps of it.

        Raises :class:`Fault` or ValueError for none, and :class:`OtherShapeError`.
        """
        image = decode_file(np.frombuffer(data, dtype=np.uint8), Path("photo"))
        if self._names:
            there = read_image(self.folder / self._names[0])
            if image.shape != there.shape:
                raise OtherShapeError(f"{_size(image)}; the photos there are {_size(there)}")
        return encode_png(image)

    def measure_png(self, png: bytes) -> PhotoMeasures:
        """Measure a frame that came as a PNG. Raises :class:`Fault` or ValueError for none."""
        image = decode_file(np.frombuffer(png, dtype=np.uint8), Path("picture"))
        return measure(image, self.region)

    def judge(self, measures: PhotoMeasures) -> list[Objection]:
        """What is wrong with a new photo beside those in the folder; [] when nothing is."""
        for name, other in zip(self._names, self._measures, strict=True):
            if is_same(measures, other):
                return [Objection("already there", f"the same picture as {name}", name)]
        found = stands_out(measures, self._measures)
        twin = find_twin(measures, self._measures)
        if twin is not None:
            which, difference = twin
            text = (
                f"same part photographed twice? (differs from {self._names[which]} by "
                f"{difference:.2f} grey levels, no more than noise): put another part there"
            )
            found.insert(0, Objection("same part", text, self._names[which]))
        return found

    def add(self, image: npt.NDArray[Any], measures: PhotoMeasures) -> str:
        """Write the whole frame as a lossless PNG and return its name. Raises OutputError."""
        return self.add_png(encode_png(image), measures)

    def add_png(self, png: bytes, measures: PhotoMeasures) -> str:
        """Write a frame that is a PNG already and return its name. Raises :class:`OutputError`."""
        while (path := self.folder / f"{self.next_name}.png").exists():
            self._next += 1
        write_output(path, png)
        self._next += 1
        self._names.append(path.name)
        self._measures.append(measures)
        return path.name

    def remove(self, name: str) -> None:
        """Delete a photo of the album. Raises KeyError for another name, :class:`OutputError`."""
        if name not in self._names:
            raise KeyError(name)
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{name}: cannot be deleted: {error.strerror}") from None
        at = self._names.index(name)
        del self._names[at], self._measures[at]

    def photos(self) -> list[tuple[str, PhotoMeasures]]:
        """Name and measures of each photo, in the order in which they came."""
        return list(zip(self._names, self._measures, strict=True))

    def stand_out(self) -> dict[str, list[Objection]]:
        """What is wrong with photos, now that there are others to compare them with, by name."""
        found = {name: stands_out(measures, self._measures) for name, measures in self.photos()}
        return {name: objections for name, objections in found.items() if objections}

    def doubtful(self) -> list[str]:
        """A line for each photo that stands out."""
        return [
            f"{name}: {'; '.join(objection.text for objection in found)}"
            for name, found in self.stand_out().items()
        ]

    def write_preview(self, jpeg: bytes) -> Path:
        """Write a picture to read coordinates from, hidden from training; returns its path.

        Raises :class:`OutputError`.
        """
        path = self.folder / _PREVIEW
        write_output(path, jpeg)
        return path

    def _recall(self) -> AlbumNotes:
        path = self.folder / _NOTES
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


def _size(image: npt.NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}, {'grey' if image.ndim == 2 else 'colour'}"


def says_turned(data: bytes) -> bool:
    """Whether a picture file says that it is to be shown turned or mirrored (EXIF)."""
    return is_turned(memoryview(data))


def small_jpeg(photo: Path, longest_px: int) -> bytes:
    """A photo as JPEG, no side longer than ``longest_px``. Raises :class:`Fault` or ValueError."""
    return encode_jpeg(shrink(read_image(photo), longest_px))


__all__ = ["Album", "AlbumNotes", "Box", "OtherShapeError", "says_turned", "small_jpeg"]
