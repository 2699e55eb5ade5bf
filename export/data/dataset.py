"""The photos of a data set: good parts to train on, test photos with their masks.

:mod:`export.data.layouts` says which folders hold what.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from export.data.doubts import UnclearLayoutError
from export.data.layouts import GOOD, WHOLE, Layout, Selection, recognise
from export.data.photo_folders import is_twin, list_photos, photos_of_parts, twin_of
from inspector.errors import (
    DatasetError,
    ImageError,
    MaskError,
    TooFewPartsError,
)
from inspector.imaging import folders
from inspector.imaging.images import read_image

Mask = npt.NDArray[np.bool_]
"""``[H, W]``."""

FEWEST_GOOD_PARTS: Final = 10

_FORMATS = "PNG, JPEG, TIFF, WebP and others"
_LOSSLESS: Final = frozenset({".png", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ras", ".sr"}) | {
    ".pbm",
    ".pgm",
    ".ppm",
    ".pnm",
    ".pam",
}
"""Suffixes of masks whose values are those that were drawn."""
_MOST_LABELS: Final = 16
"""A picture of more grey levels is no mask."""
_ENDINGS: Final = ("", "_mask", "_gt", "_label")
"""What the name of a mask may have after that of its photo."""


@dataclass(frozen=True)
class Sample:
    """One test photo. ``kind`` is ``good`` or the kind of defect.

    ``mask`` may be missing, or a folder with a mask for each defect of the photo.
    """

    path: Path
    kind: str
    mask: Path | None


def open_layout(root: Path, selection: Selection = WHOLE) -> Layout:
    """How ``root`` is laid out. Raises :class:`DatasetError` when that leaves doubt."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise DatasetError(
            f"{root}: {what}; name a folder of photos of good parts, or one in MVTec AD layout "
            f"(train/good, test/<kind>, ground_truth/<kind>)"
        )
    return recognise(root, selection, is_black=_is_black, is_drawn=_is_drawn)


def open_good(root: Path, selection: Selection = WHOLE) -> tuple[Path, ...]:
    """The good parts to train on, sorted; no test photo and no mask of one is opened.

    Raises :class:`DatasetError` (missing, empty, in doubt) and :class:`TooFewPartsError` (fewer
    than ten).
    """
    layout = open_layout(root, selection)
    left_out = {root / name for name in selection.leave_out}
    found = tuple(layout.good_photos())
    missing = left_out - set(found)
    if missing:
        raise DatasetError(f"{min(missing)}: is not among the good parts; nothing to leave out")
    if not layout.good:
        folder = root / "train" / GOOD
        raise UnclearLayoutError(
            f"{root}: looked for good parts in {folder}, which is missing",
            "; put their photos there, or name the folder that holds nothing but photos of good "
            "parts with --good DIR",
        )
    folder = layout.good[0]
    if not found and layout.has_twins and list_photos(folder):
        raise DatasetError(
            f"{folder}: each photo has a mask beside it that marks a defect, so none is a good "
            f"part; name the folder that holds nothing but photos of good parts with --good DIR"
        )
    if not found:
        others = folders.left_out(folder)
        raise DatasetError(
            f"{folder}: no images; put photos of good parts there ({_FORMATS}), directly or in "
            f"subfolders{f'; not read: {others}' if others else ''}"
        )
    kept = tuple(path for path in found if path not in left_out)
    if len(kept) < FEWEST_GOOD_PARTS:
        raise TooFewPartsError(
            f"{folder}: {len(kept)} good parts, at least {FEWEST_GOOD_PARTS} are needed (100 make "
            f"a good start); add photos"
        )
    return kept


def open_test(root: Path, selection: Selection = WHOLE) -> tuple[Sample, ...]:
    """The test photos with their masks, sorted; empty when the layout has none.

    Raises :class:`DatasetError` for a missing root or photos outside a folder of their kind, and
    :class:`MaskError` for a mask without an image or an image with two masks.
    """
    layout = open_layout(root, selection)
    if layout.has_twins:
        return tuple(_twins(layout))
    for path in () if layout.test is None else list_photos(layout.test):
        if path.parent == layout.test:
            raise DatasetError(
                f"{path}: lies outside a folder of its kind; move it to {layout.test / GOOD} or "
                f"to a folder named after its defect"
            )
    masks = _Masks(layout)
    samples = []
    for folder, kind in layout.tests:
        found = photos_of_parts(folder)
        beside = layout.masks_beside(found)
        drawn = set(beside.values())
        for path in found:
            if path not in drawn:
                mask = masks.of(path, folder) or beside.get(path)
                samples.append(Sample(path, kind, None if kind == GOOD else mask))
    masks.refuse_unused()
    return tuple(samples)


def digest_file(path: Path) -> bytes:
    """SHA-256 of a file's contents. Raises :class:`ImageError` when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}; check the file") from None


def fingerprint(
    paths: Sequence[Path], root: Path, digest: Callable[[Path], bytes] = digest_file
) -> str:
    """SHA-256 over names relative to ``root`` and file contents, the same on every system.

    ``digest`` gives the SHA-256 of a file's contents. Raises :class:`ImageError` for a file that
    cannot be read.
    """
    named = sorted(
        (unicodedata.normalize("NFC", path.relative_to(root).as_posix()), path) for path in paths
    )
    whole = hashlib.sha256()
    for name, path in named:
        content = digest(path)
        whole.update(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() + content)
    return whole.hexdigest()


def _twins(layout: Layout) -> Iterator[Sample]:
    """Test photos of a set whose masks lie beside their photos.

    Where nobody divided them into train and test, those with a defect are for testing.
    """
    for folder in [folder for folder, _ in layout.tests] or layout.good:
        for path in list_photos(folder):
            if is_twin(path):
                continue
            if layout.is_defective(path):
                yield Sample(path, "defective", twin_of(path))
            elif layout.tests:
                yield Sample(path, GOOD, None)


class _Masks:
    """The masks of a layout, and which photos they belong to."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: dict[Path, dict[Path, list[Path]]] = {}
        self._folders: dict[Path, dict[Path, list[Path]]] = {}
        """For each folder of masks these by their path, or by that of their folder, below it."""
        self._owner: dict[Path, Path] = {}
        for root in layout.mask_folders:
            files, inner = self._files.setdefault(root, {}), self._folders.setdefault(root, {})
            for path in list_photos(root):
                below = path.relative_to(root)
                files.setdefault(below.with_suffix(""), []).append(path)
                inner.setdefault(below.parent, []).append(path)

    def of(self, photo: Path, folder: Path) -> Path | None:
        """The mask of a ``photo`` in ``folder``, that of its kind, or the folder of its masks."""
        names = photo.relative_to(self._layout.root).with_suffix("").parts
        depth = len(folder.relative_to(self._layout.root).parts)
        near = [root for root in self._files if root.parent in photo.parents]
        for start in range(len(names)):
            key = Path(*names[start:])
            # Only masks in the folder of a kind are called after less than the path below that.
            roots = [root for root in near if start <= depth or folder in root.parents]
            found = [
                mask
                for ending in _ENDINGS
                for root in roots
                for mask in self._files[root].get(key.with_name(f"{key.name}{ending}"), ())
            ]
            if len(found) > 1:
                raise MaskError(f"{photo}: has two masks, {found[0]} and {found[1]}; keep one")
            several = [mask for root in roots for mask in self._folders[root].get(key, ())]
            self._own([*found, *several], photo)
            if found or several:
                return found[0] if found else several[0].parent
        return None

    def refuse_unused(self) -> None:
        """Raise :class:`MaskError` for a mask that belongs to no photo."""
        for files in self._files.values():
            for mask in (mask for masks in files.values() for mask in masks):
                if mask not in self._owner:
                    raise MaskError(
                        f"{mask}: a mask without an image; add {self._image_of(mask)}, or remove "
                        f"the mask"
                    )

    def _own(self, masks: Sequence[Path], photo: Path) -> None:
        for mask in masks:
            other = self._owner.setdefault(mask, photo)
            if other != photo:
                raise MaskError(f"{mask}: belongs to {other} or to {photo}; rename the mask")

    def _image_of(self, mask: Path) -> Path:
        root = next(root for root in self._layout.mask_folders if root in mask.parents)
        below = mask.relative_to(root)
        homes = {folder.name: folder for folder, _ in self._layout.tests}
        name = f"{mask.stem.removesuffix('_mask')}.png"
        home = homes.get(below.parts[0]) if len(below.parts) > 1 else None
        if home is None and root.parent not in {self._layout.root, self._layout.test}:
            return root.parent / below.parent / name
        if home is None:
            test = self._layout.root / "test"
            return test / below.parent / name
        return home / Path(*below.parts[1:-1]) / name


def read_mask(path: Path) -> Mask:
    """The marked pixels of a mask, bool ``[H, W]``. Raises :class:`MaskError`."""
    try:
        drawn = read_image(path)
    except ValueError as error:
        raise MaskError(f"{error}; draw or copy the mask again") from None
    if drawn.ndim == 3:
        # An opaque alpha channel would mark every pixel as defective.
        drawn = drawn[:, :, :3].max(axis=2)
    # Labels 1, 2, 3 are defects too; in a JPEG, small values are only compression noise.
    lossy = path.suffix.lower() not in _LOSSLESS
    return np.asarray(drawn >= 128 if lossy else drawn > 0)


def _is_black(mask: Path) -> bool:
    return not read_mask(mask).any()


def _is_drawn(path: Path) -> bool:
    """Whether a picture has the few grey levels of a mask; what cannot be read is none."""
    try:
        drawn = read_image(path)
    except ValueError:
        return False
    levels = drawn.reshape(drawn.shape[0] * drawn.shape[1], -1)[:, :3]
    is_grey = bool((levels == levels[:, :1]).all())
    return is_grey and len(np.unique(levels[:, 0])) <= _MOST_LABELS
