"""Which photos a folder holds: the one rule for training, cameras, judging, tuning and collecting.

Image files at any depth, by path: what has a picture's suffix, and what begins as a picture does,
whatever it is called. Links are followed, and each real folder counts once, under the first path
that leads to it: a link in a circle ends. Hidden files and folders are left out: they are
thumbnails, notes, and the "._" twins that macOS leaves on memory cards. So are the folders that
systems and network stores make by themselves (__MACOSX, @eaDir, $RECYCLE.BIN), pipes, sockets and
devices, whatever their names, copies that programs leave behind (.part, .bak), and the heatmaps
that this product writes beside the pictures that they belong to.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from inspector.imaging.formats import HEAD_BYTES, is_photo, is_turned
from inspector.imaging.images import IMAGE_SUFFIXES

MASK_ENDINGS: Final = ("_mask", "_gt", "_GT", "_label")
"""What the name of a mask that lies beside its photo has more than that of the photo."""
HEATMAP_ENDINGS: Final = (".map.png", "_map.png", "_overlay.jpg")
"""What the name of a heatmap has after that of its picture, without the suffix of that.

The first is that of a station's pictures folder, the others of 'watch --save' and 'judge -o'.
"""
_MASKS: Final = frozenset(
    {"mask", "masks", "groundtruth", "gt", "annotation", "annotations"}
    | {"segmentation", "segmentations", "heatmap", "heatmaps"}
)
_OF_SYSTEMS: Final = frozenset(
    {"__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}
    | {"$recycle.bin", "recycler", "system volume information", "lost+found"}
)
"""Folders that a system makes beside people's own: thumbnails, deleted files, twins of a zip."""
_LEFT_BEHIND: Final = frozenset(
    {".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".bak", ".old", ".orig"}
)
"""Suffixes of files that are not whole yet, or copies of others."""


def find_images(root: Path) -> list[Path]:
    """The photos under ``root``, sorted by the parts of their paths below it.

    So those of a folder stay together. ``root`` itself may be hidden or a link. Raises OSError when
    it is missing or no folder, and when a folder in it cannot be read.
    """
    found = []
    for here, _, files in walk(root):
        maps = _heatmaps_among(files)
        found += [here / name for name in files if name not in maps and _counts(here / name)]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def find_heatmaps(root: Path) -> list[Path]:
    """What :func:`find_images` leaves out under ``root`` as a heatmap. Raises OSError."""
    return [here / name for here, _, files in walk(root) for name in sorted(_heatmaps_among(files))]


def _heatmaps_among(names: Sequence[str]) -> set[str]:
    """Names that end as those of heatmaps, each beside a picture that is called so without it."""
    paths = [Path(name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    pictures = {path.stem for path in paths} | {path.name for path in paths}
    return {
        name
        for name in names
        for ending in HEATMAP_ENDINGS
        if name.lower().endswith(ending) and name[: -len(ending)] in pictures
    }


def find_parts(root: Path) -> tuple[list[Path], list[Path]]:
    """The photos of parts under ``root``, as :func:`find_images`, and the masks beside them.

    A mask lies in a folder that is called so below ``root``, or beside its photo. Where there is
    nothing else, these are what is meant. Raises OSError.
    """
    found = find_images(root)
    stems = {path.with_suffix("") for path in found}
    masks = [path for path in found if _is_mask(path, root, stems)]
    if len(masks) == len(found):
        return found, []
    left = set(masks)
    return [path for path in found if path not in left], masks


def _is_mask(path: Path, root: Path, stems: set[Path]) -> bool:
    if any(sounds_like_mask(name) for name in path.relative_to(root).parts[:-1]):
        return True
    bare = path.with_suffix("")
    return any(
        bare.name.endswith(ending) and bare.with_name(bare.name.removesuffix(ending)) in stems
        for ending in MASK_ENDINGS
    )


def sounds_like_mask(name: str) -> bool:
    """Whether a folder called ``name`` holds masks, which say where a part is defective."""
    words = re.findall(r"[^\W_]+", name.lower())
    return not _MASKS.isdisjoint({"".join(words), *words})


def remarks(root: Path, photos: Sequence[Path] = (), masks: Sequence[Path] = ()) -> list[str]:
    """What a person should know about the photos in ``root``, a line each.

    That is how many files :func:`find_images` leaves out, by suffix, how many heatmaps, how many
    ``masks`` a caller leaves out, and how many of ``photos`` say that they are to be shown turned.
    Raises OSError.
    """
    lines = []
    if others := left_out(root):
        why = "no photos, or hidden" if _hidden_folders(root) else "no photos"
        lines.append(f"not read in {root}, since they are {why}: {others}")
    if maps := find_heatmaps(root):
        lines.append(
            f"not read in {root}, since they are heatmaps of the photos beside them: {len(maps)}"
        )
    if masks:
        lines.append(f"not read in {root}, since they are masks by their names: {len(masks)}")
    return lines + turned_among(photos)


def turned_among(photos: Sequence[Path]) -> list[str]:
    """A line on how many of ``photos`` are to be shown turned; none where none is."""
    turned = sum(map(_is_turned, photos))
    return [say_turned(turned, len(photos))] if turned else []


def say_turned(turned: int, photos: int) -> str:
    """The remark that ``turned`` of ``photos`` are to be shown otherwise than they are stored."""
    return (
        f"{turned} of {photos} photos say that they are to be shown turned (EXIF orientation); "
        f"they are read as they are stored, as a camera would give them"
    )


def left_out(root: Path) -> str:
    """The files under ``root`` that are no photos by themselves, such as "5 .heic, 1 .txt".

    After them hidden folders are counted, and those that systems make: "1 hidden folder (.day1)".
    "" when there is none; hidden files and heatmaps are not counted. Raises OSError.
    """
    suffixes = Counter(
        Path(name).suffix.lower() or "without a suffix"
        for here, _, files in walk(root)
        for name in files
        if not _counts(here / name)
    )
    often = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} {suffix}" for suffix, count in often]
    if hidden := _hidden_folders(root):
        names = Counter(path.name for path in hidden)
        first = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        told.append(f"{len(hidden)} hidden folder{'s' if len(hidden) > 1 else ''} ({first})")
    return ", ".join(told)


def _hidden_folders(root: Path) -> list[Path]:
    """The folders that :func:`walk` leaves out for their names."""
    found = []
    for here, _, _ in walk(root):
        with os.scandir(here) as inside:
            found += [here / one.name for one in inside if _is_of_system(one.name) and one.is_dir()]
    return found


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """``os.walk`` by the rule of this module: each folder, the names of its folders and files.

    Who removes names of folders keeps the walk from going there. Raises OSError.
    """
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        # A path cannot tell that a mounted folder was seen before.
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_of_system(name))
        yield Path(here), folders, sorted(name for name in files if not name.startswith("."))


def _is_of_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _counts(path: Path) -> bool:
    """Whether a file is a photo; one that cannot be looked at is left to its reader."""
    suffix = path.suffix.lower()
    has_suffix = suffix in IMAGE_SUFFIXES
    try:
        mode = path.stat().st_mode
        # A pipe or a device may be read for ever.
        if not stat.S_ISREG(mode):
            return has_suffix and stat.S_ISDIR(mode)
        if has_suffix:
            return True
        if suffix in _LEFT_BEHIND or path.name.endswith("~"):
            return False
        with path.open("rb") as file:
            return is_photo(file.read(HEAD_BYTES))
    except OSError:
        return has_suffix


def _is_turned(path: Path) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            try:
                return is_turned(view)
            finally:
                view.release()
    except (OSError, ValueError):
        # Whoever reads the photo says what is wrong with it; an empty file cannot be mapped.
        return False


def _refuse(error: OSError) -> None:
    raise error
