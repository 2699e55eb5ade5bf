"""What lies in the folders of a data set: photos, masks beside them, depth beside colour.

Every function reads names alone and opens no picture. All raise :class:`DatasetError` for a folder
that cannot be read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from export.data.folder_names import sound
from inspector.errors import DatasetError
from inspector.imaging import folders

_TWINS: Final = folders.MASK_ENDINGS
_JPEG: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_COLOUR: Final = "rgb"
_DEPTH: Final = frozenset({"xyz", "depth"})
"""Folders beside one of colour photos: the same parts, measured in depth."""


def list_photos(folder: Path) -> tuple[Path, ...]:
    """The photos in ``folder``; none when it is missing. Raises :class:`DatasetError`."""
    if not folder.exists():
        return ()
    try:
        return tuple(folders.find_images(folder))
    except OSError as error:
        raise _unreadable(error) from None


def photos_of_parts(folder: Path) -> tuple[Path, ...]:
    """The photos in ``folder`` without those in folders of masks, and of depth beside colour.

    Raises :class:`DatasetError`.
    """
    return tuple(
        photo
        for photo in list_photos(folder)
        if not any(sound(name) == "mask" for name in photo.relative_to(folder).parts[:-1])
        and not is_depth(photo, folder)
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder`` that are not hidden, by name. Raises :class:`DatasetError`."""
    try:
        _, names, _ = next(folders.walk(folder))
    except OSError as error:
        raise _unreadable(error) from None
    return [folder / name for name in names]


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first folder in ``folder`` that has one of these names in lower case; None without."""
    return next((one for one in subfolders(folder) if one.name.lower() in names), None)


def has_photos_itself(folder: Path) -> bool:
    """True when photos lie in ``folder`` itself."""
    return any(path.parent == folder for path in list_photos(folder))


def is_twin(path: Path) -> bool:
    """True for a mask that lies beside its photo."""
    return path.stem.endswith(_TWINS)


def twin_of(photo: Path) -> Path | None:
    """The mask that lies beside ``photo``; None when there is none."""
    inner = [child for child in subfolders(photo.parent) if sound(child.name) == "mask"]
    for folder in (photo.parent, *inner):
        for ending in _TWINS:
            for mask in sorted(folder.glob(f"{_escape(photo.stem)}{ending}.*")):
                return mask
    return None


def _photo_of(twin: Path) -> Path:
    bare = twin.with_suffix("")
    ending = next(ending for ending in _TWINS if bare.name.endswith(ending))
    return bare.with_name(bare.name.removesuffix(ending))


def pairs(found: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Photos and the masks that lie beside them by their names.

    A mask is called as its photo and ``_mask`` or alike, or as a JPEG, without being one.
    """
    called: dict[Path, list[Path]] = defaultdict(list)
    for path in found:
        called[path.with_suffix("")].append(path)
    for path in found:
        if is_twin(path) and (photos := called.get(_photo_of(path))):
            yield photos[0], path
        elif path.suffix.lower() not in _JPEG:
            same = called[path.with_suffix("")]
            photo = next((one for one in same if one.suffix.lower() in _JPEG), None)
            if photo is not None:
                yield photo, path


def have_twins(folder: Path) -> bool:
    """True when every mask in ``folder`` lies beside its photo, and there are some."""
    found = list_photos(folder)
    stems = {path.with_suffix("") for path in found if not is_twin(path)}
    twins = [path for path in found if is_twin(path)]
    return bool(twins) and all(_photo_of(path) in stems for path in twins)


def have_labels(folder: Path) -> bool:
    """True for photos whose masks, for some of them, lie in a folder of masks beside them."""
    inner = subfolders(folder)
    if not all(sound(child.name) == "mask" for child in inner):
        return False
    masks = [path for child in inner for path in list_photos(child)]
    stems = {path.stem for path in list_photos(folder) if path.parent == folder}
    return bool(masks) and all(is_twin(path) and _photo_of(path).name in stems for path in masks)


def has_depth(names: Iterable[str]) -> bool:
    """Whether folders beside one another hold colour and depth of the same parts."""
    known = {name.lower() for name in names}
    return {_COLOUR} < known <= _DEPTH | {_COLOUR}


def is_depth(photo: Path, folder: Path) -> bool:
    """Whether a photo below ``folder`` lies in a folder of depth beside one of colour."""
    here = folder
    for name in photo.relative_to(folder).parts[:-1]:
        if name.lower() in _DEPTH and subfolder(here, _COLOUR) is not None:
            return True
        here /= name
    return False


def _unreadable(error: OSError) -> DatasetError:
    return DatasetError(f"{error.filename}: {error.strerror}; make the folder readable")


def _escape(stem: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", stem)
