"""Which photos a folder holds: the one rule for training, cameras, judging, tuning and collecting.

Image files at any depth, by path. Links are followed, and each real folder counts once, under the
first path that leads to it: a link in a circle ends. Hidden files and folders are left out: they
are thumbnails, notes, and the "._" twins that macOS leaves on memory cards. So are pipes, sockets
and devices, whatever their names.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from inspector.imaging.images import IMAGE_SUFFIXES


def find_images(root: Path) -> list[Path]:
    """The photos under ``root``, sorted by the parts of their paths below it.

    So those of a folder stay together. ``root`` itself may be hidden or a link. Raises OSError when
    it is missing or no folder, and when a folder in it cannot be read.
    """
    found = [
        here / name
        for here, _, files in walk(root)
        for name in files
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and _ends(here / name)
    ]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def left_out(root: Path) -> str:
    """The files under ``root`` that :func:`find_images` leaves out, such as "5 .webp, 1 .txt".

    "" when there is none; hidden ones are not counted. Raises OSError.
    """
    suffixes = Counter(
        Path(name).suffix.lower() or "without a suffix"
        for _, _, files in walk(root)
        for name in files
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES
    )
    often = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {suffix}" for suffix, count in often)


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
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(here), folders, sorted(name for name in files if not name.startswith("."))


def _ends(path: Path) -> bool:
    """False for what may be read for ever; what cannot be looked at is left to its reader."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _refuse(error: OSError) -> None:
    raise error
