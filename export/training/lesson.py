"""The photos of a lesson: good parts to teach to a finished run, and which ones it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.data.dataset import digest_file, fingerprint, open_layout
from export.data.doubts import refuse_unless_good_only
from export.data.layouts import GOOD, Layout
from export.data.photo_folders import list_photos
from export.data.photos import MOST_KEPT, Index, KeptFiles, PhotoFile, group_copies
from export.training.run import Run
from export.training.teacher import split_added
from export.training.train import OnStep, Step
from inspector.detection.manifest import Exposure
from inspector.errors import DatasetError, ImageError, OutputError, RunError
from inspector.imaging.folders import HEATMAP_ENDINGS, find_heatmaps
from inspector.imaging.images import exposure
from inspector.verdict import Frame8

_OF_A_REGION = tuple(ending for ending in HEATMAP_ENDINGS if ending != ".map.png")
"""Endings of heatmaps whose pictures show the judged region alone, not the whole frame."""
_LIGHT = 2.0
"""How many times darker or brighter than any of the run's parts a taught one may be."""


@dataclass(frozen=True)
class LessonPhotos:
    """The run's good parts and the parts to teach, in the order of the arrays.

    ``old``: all of the run's; ``held`` ``[H]``: which of them are held out, in the order of
    ``heldout.csv``, and ``old_folds`` ``[H]`` their folds. ``added``: the paths of the A parts to
    teach, below ``good``. ``images``: uint8 BGR ``[H + A, h, w, 3]`` at network size.
    ``picture`` ``[A]``: see :func:`group_copies`. ``new_folds`` ``[A]``: see :func:`split_added`.
    """

    old: tuple[Path, ...]
    held: Index
    old_folds: Index
    good: Path
    added: tuple[Path, ...]
    _files: KeptFiles
    images: Frame8
    picture: Index
    new_folds: Index

    @property
    def added_images(self) -> Frame8:
        """``[A, h, w, 3]``."""
        return self.images[len(self.held) :]

    def copy(self, folder: Path) -> tuple[tuple[Path, ...], str]:
        """Copy the added photos, numbered, into the run; returns the copies and their fingerprint.

        A run must not depend on the folder the photos came from. Raises :class:`ImageError`,
        :class:`OutputError`.
        """
        copies = {folder / f"{i:04d}-{path.name[-60:]}": path for i, path in enumerate(self.added)}
        try:
            folder.mkdir(parents=True)
            for copy, path in copies.items():
                copy.write_bytes(self._files.open(path).content.data)
        except OSError as error:
            raise OutputError(
                f"{folder}: photos cannot be copied: {error.strerror}; free disk space"
            ) from None
        return tuple(copies), fingerprint(
            list(copies), folder, lambda copy: self._files.open(copies[copy]).digest()
        )


def read_lesson(parent: Run, good: Path, data: Path, on_step: OnStep) -> LessonPhotos:
    """Read the photos in ``good`` and those of the run in ``data``, each file once.

    Raises :class:`DatasetError` or :class:`ImageError` for photos that cannot be taught,
    :class:`RunError` when ``data`` does not hold the photos the run was trained on.
    """
    facts, geometry = parent.facts(), parent.facts().geometry
    names, old_folds, _ = parent.held_out_parts()
    added = _find(good)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_step(Step("reading photos", done, facts.parts + len(added)))

    shape = (len(names) + len(added), geometry.height, geometry.width, 3)
    images = np.empty(shape, dtype=np.uint8)
    row_of = {name: row for row, name in enumerate(names)}
    digests: dict[Path, bytes] = {}
    damaged: list[ImageError] = []

    def read_old(path: Path) -> bytes:
        file = PhotoFile(path)
        row = row_of.get(parent.names([path], data)[0])
        if row is not None:
            try:
                images[row] = file.apply(geometry)
            except ImageError as error:
                # Perhaps ``data`` is not the run's folder: that is told first, below.
                damaged.append(error)
        digests[path] = file.digest()
        count()
        return digests[path]

    old = parent.photos(data, read_old)
    if damaged:
        raise damaged[0]
    place = {name: i for i, name in enumerate(parent.names(old, data))}
    if not set(names) <= set(place):
        raise RunError(f"{parent.folder / 'heldout.csv'}: not of these photos; train again")
    files = KeptFiles(MOST_KEPT)
    new = {path: files.open(path).digest() for path in added}
    _refuse_known(new, digests.values(), open_layout(data, facts.selection))
    for row, path in enumerate(added, start=len(names)):
        images[row] = files.open(path).apply(geometry)
        count()
    _check_light(added, images[len(names) :], parent.outcome().exposure)
    picture = group_copies(images[len(names) :])
    return LessonPhotos(
        old,
        np.array([place[name] for name in names], dtype=np.intp),
        old_folds,
        good,
        added,
        files,
        images,
        picture,
        split_added(picture, first=int(old_folds.max()) + 1, seed=facts.settings.seed),
    )


def _find(folder: Path) -> tuple[Path, ...]:
    """The photos to teach. Raises :class:`DatasetError` when there is none, or not only photos."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DatasetError(f"{folder}: {what}; name a folder of photos of good parts to teach")
    refuse_unless_good_only(folder)
    paths = list_photos(folder)
    if not paths:
        raise DatasetError(
            f"{folder}: no images; put photos of the good parts there that were rejected "
            f"('inspector collect' takes them)"
        )
    for path in (*paths, *find_heatmaps(folder)):
        if path.name.endswith(_OF_A_REGION):
            raise DatasetError(
                f"{path}: a heatmap, not a photo; remove it: teach whole camera frames, as "
                f"'inspector collect' takes them"
            )
    return paths


def _refuse_known(added: Mapping[Path, bytes], old: Iterable[bytes], layout: Layout) -> None:
    """Photos of the run and the test photos it is evaluated on cannot be taught.

    ``added``: the SHA-256 of each photo to teach; ``old``: of the run's. Raises
    :class:`DatasetError`.
    """
    known: dict[bytes, str] = {}
    for folder, kind in layout.tests:
        fate = (
            "would be scored as unseen afterwards; remove it, or take it out of the test photos"
            if kind == GOOD
            else "shows a defect, and would pass from now on; remove it"
        )
        for path in list_photos(folder):
            place = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            known[digest_file(path)] = f"is the test photo {place}, {fate}"
    taught = (
        "the run knows this photo already; remove it and teach new ones, or raise the limit with "
        "'inspector-model calibrate'"
    )
    known |= dict.fromkeys(old, taught)
    again = [path for path, digest in added.items() if digest in known]
    if again:
        more = f" (and {len(again) - 1} more)" if len(again) > 1 else ""
        raise DatasetError(f"{again[0]}{more}: {known[added[again[0]]]}")


def _check_light(paths: Sequence[Path], images: Frame8, learnt: Exposure) -> None:
    """A black picture taught as good would let every black frame pass: :class:`ImageError`."""
    low, high = learnt.brightness
    for path, image in zip(paths, images, strict=True):
        brightness = exposure(image)[0]
        if not low / _LIGHT <= brightness <= high * _LIGHT:
            raise ImageError(
                f"{path}: mean brightness {brightness:.0f}, the run's parts have {low:.0f} to "
                f"{high:.0f}; take the photo in their light, or remove it"
            )
