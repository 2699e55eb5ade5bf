"""Folders of parts, in MVTec AD layout or with good parts only.

::

    DATA/train/good/*.png                          good parts, the only photos that training opens
    DATA/test/<kind>/*.png                         kind is "good" or the name of a defect
    DATA/ground_truth/<kind>/<stem>_mask.png       or <stem>.png; not black is defective
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inspector.errors import (
    DatasetError,
    ImageError,
    MaskError,
    TooFewPartsError,
)
from inspector.imaging import folders

GOOD: Final = "good"
FEWEST_GOOD_PARTS: Final = 10

_FORMATS = "PNG, JPEG, BMP or TIFF"


@dataclass(frozen=True)
class Sample:
    """One test photo. ``kind`` is ``good`` or the kind of defect; ``mask`` may be missing."""

    path: Path
    kind: str
    mask: Path | None


def open_good(root: Path) -> tuple[Path, ...]:
    """The good parts to train on, sorted; nothing under ``test`` or ``ground_truth`` is opened.

    Raises :class:`DatasetError` (missing, empty, laid out in another way) and
    :class:`TooFewPartsError` (fewer than ten).
    """
    _check_folder(root)
    folder = root
    if any((root / name).is_dir() for name in ("train", "test", "ground_truth")):
        folder = root / "train" / GOOD
        if not folder.is_dir():
            raise DatasetError(
                f"{root}: looked for good parts in {folder}, which is missing; put their photos "
                f"there, or name a folder that holds nothing but photos of good parts"
            )
    paths = list_photos(folder)
    if not paths:
        raise DatasetError(
            f"{folder}: no images; put photos of good parts there ({_FORMATS}), directly or in "
            f"subfolders"
        )
    if len(paths) < FEWEST_GOOD_PARTS:
        raise TooFewPartsError(
            f"{folder}: {len(paths)} good parts, at least {FEWEST_GOOD_PARTS} are needed (100 make "
            f"a good start); add photos"
        )
    return paths


def open_test(root: Path) -> tuple[Sample, ...]:
    """The test photos with their masks, sorted; empty when there is no ``test`` folder.

    Raises :class:`DatasetError` for a missing root or photos outside a folder of their kind, and
    :class:`MaskError` for a mask without an image or an image with two masks.
    """
    _check_folder(root)
    test, truth = root / "test", root / "ground_truth"
    samples: list[Sample] = []
    used: set[Path] = set()
    masks = _masks(truth)
    for path in list_photos(test):
        relative = path.relative_to(test)
        if len(relative.parts) < 2:
            raise DatasetError(
                f"{path}: lies outside a folder of its kind; move it to {test / GOOD} or to a "
                f"folder named after its defect"
            )
        bare = relative.with_suffix("")
        found = [
            mask
            for key in (bare.with_name(f"{bare.name}_mask"), bare)
            for mask in masks.get(key, ())
        ]
        if len(found) > 1:
            raise MaskError(f"{path}: has two masks, {found[0]} and {found[1]}; keep one")
        used.update(found)
        kind = relative.parts[0]
        samples.append(Sample(path, kind, found[0] if found and kind != GOOD else None))
    for mask in (mask for group in masks.values() for mask in group):
        if mask not in used:
            image = test / mask.relative_to(truth).parent / mask.stem.removesuffix("_mask")
            raise MaskError(f"{mask}: a mask without an image; add {image}.png, or remove the mask")
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


def list_photos(folder: Path) -> tuple[Path, ...]:
    """The photos in ``folder`` (:mod:`inspector.imaging.folders`); empty when there is none.

    Raises :class:`DatasetError` for a folder that cannot be read.
    """
    if not folder.exists():
        return ()
    try:
        return tuple(folders.find_images(folder))
    except OSError as error:
        raise DatasetError(
            f"{error.filename}: {error.strerror}; make the folder readable"
        ) from None


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise DatasetError(
            f"{root}: {what}; name a folder of photos of good parts, or one in MVTec AD layout "
            f"(train/good, test/<kind>, ground_truth/<kind>)"
        )


def _masks(truth: Path) -> dict[Path, list[Path]]:
    """Mask files by their path below ``truth`` without its suffix."""
    masks: dict[Path, list[Path]] = {}
    for path in list_photos(truth):
        masks.setdefault(path.relative_to(truth).with_suffix(""), []).append(path)
    return masks
