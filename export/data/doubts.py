"""Layouts that leave any doubt about which parts are good are refused, and words say what to do.

One defect that is trained as good passes for ever, so a name that may mean a defect is enough.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from export.data.folder_names import is_kind, sound, telling, words_of_classes
from export.data.photo_folders import (
    has_depth,
    has_photos_itself,
    list_photos,
    subfolder,
    subfolders,
)
from inspector.errors import DatasetError
from inspector.imaging import folders

TRAIN: Final = frozenset({"train", "training"})
TEST: Final = frozenset({"test", "testing", "test_public"})
_TEXTS: Final = frozenset({".csv", ".tsv", ".json", ".jsonl", ".xml", ".txt", ".yaml", ".yml"})
_LISTS: Final = _TEXTS | {".xls", ".xlsx", ".ods"}
"""Suffixes of files that may say of each photo whether its part is good."""
_READ_OF_LIST: Final = 1 << 20
_OF_STATION: Final = re.compile(r"_(PASS|FAIL|FAULT)(_|$)")
"""A station's verdict in the name of a picture; what was rejected falsely is taught."""


class UnclearLayoutError(DatasetError):
    """A layout leaves doubt, or is not what a person said; ``why`` begins with the folder."""

    def __init__(self, why: str, cure: str) -> None:
        """``cure`` is for who may say which parts are good."""
        super().__init__(f"{why}{cure}")
        self.why = why


def unclear(root: Path, why: str, for_all: str = "") -> UnclearLayoutError:
    """The refusal of a layout that leaves doubt, with the two ways to say what is meant.

    ``for_all`` is what to type where all photos are good parts.
    """
    hint = f" ({for_all} if all of them are good parts)" if for_all else ""
    return UnclearLayoutError(
        f"{root}: {why}",
        f": which are the good parts? Name their folder with --good DIR{hint}, or lay the photos "
        f"out as train/good, test/<kind> and ground_truth/<kind>",
    )


def refuse_unless_good_only(root: Path) -> None:
    """Raise :class:`DatasetError` when a name in ``root`` may mean other than good parts.

    What a station calls its pictures after their verdicts does not: these are taught.
    """
    photos = list_photos(root)
    used = {parent for photo in photos for parent in photo.parents}
    for here, inner, _ in folders.walk(root):
        taken = [name for name in inner if here / name in used]
        told = telling(taken) if len(taken) > 1 else []
        for name in inner:
            says = sound(name)
            what = (here / name).relative_to(root).as_posix()
            if says in {"bad", "mask"} or name.lower() in TRAIN | TEST:
                raise DatasetError(
                    f"{root}: holds '{what}', which sounds like something else than good parts; "
                    f"name a folder of nothing but good parts"
                )
            if says != "good" and name in taken and (name in told or is_kind(name)):
                raise DatasetError(
                    f"{root}: holds '{what}', whose name may be that of a defect; give the folders "
                    f"of good parts one by one, such as {root / what}, or put their photos into "
                    f"one folder"
                )
    alike = [one for one in photos if sound(one.stem) == "bad" and not _OF_STATION.search(one.stem)]
    if 0 < len(alike) < len(photos):
        raise DatasetError(
            f"{root}: has {len(alike)} photos whose names sound like defects ({alike[0].name}) and "
            f"others beside them; name a folder of nothing but good parts"
        )


def refuse_doubtful(root: Path, beside: Path | None = None) -> None:
    """Refuse a folder in which another one, at any depth, says what its photos are.

    ``root`` may lie ``beside`` the good parts. If it is called so that all in it are defects, one
    that sounds like a defect, too, is no doubt.
    """
    known = {"bad"} if beside is not None and sound(root.name) == "bad" else set()
    for here, inner, _ in folders.walk(root):
        for name in inner:
            says = sound(name)
            tells = (says and says not in known) or name.lower() in TRAIN | TEST
            if tells and list_photos(here / name):
                what = (here / name).relative_to(root).as_posix()
                if beside is None:
                    raise unclear(root, f"has photos in '{what}' and others beside it")
                raise unclear(
                    root.parent,
                    f"'{beside.name}' was taken for the good parts, and '{root.name}' beside it "
                    f"for defects, but that has photos in '{what}', too",
                )


def refuse_other_than_named(root: Path, good: Path, named: set[Path]) -> None:
    """Refuse a folder in ``good``, which a person named, that sounds like other than good parts."""

    def sounds_other(folder: Path) -> bool:
        return sound(folder.name) in {"bad", "mask"} or folder.name.lower() in TEST

    for here, inner, _ in folders.walk(good):
        for folder in (here / name for name in inner):
            around = [one for one in (folder, *folder.parents) if good in one.parents]
            is_named = any(one in named and sounds_other(one) for one in around)
            if sounds_other(folder) and not is_named and list_photos(folder):
                what = folder.relative_to(root).as_posix()
                raise UnclearLayoutError(
                    f"{root}: --good names '{good.relative_to(root).as_posix()}', but that has "
                    f"photos in '{what}'",
                    f"; name with --good only folders of good parts, and '{what}', too, if its "
                    f"photos are good parts",
                )


def refuse_no_kinds(root: Path, good: Path, others: Iterable[Path]) -> None:
    """Refuse a folder beside the ``good`` parts whose name cannot be that of a defect."""
    for folder in others:
        if not is_kind(folder.name) and list_photos(folder):
            raise unclear(
                root,
                f"has '{folder.name}' beside the good parts in '{good.name}', and its name does "
                f"not say whether its parts are good",
            )


def refuse_whole_sets(root: Path, children: Sequence[Path]) -> None:
    """Refuse a folder of data sets, or one around a single set, by naming them."""
    sets = [child for child in children if _is_set(child)]
    if not sets or has_photos_itself(root):
        return
    if len(sets) > 1:
        raise UnclearLayoutError(
            f"{root}: holds data sets of its own ({quoted(sets)})", f"; name one, such as {sets[0]}"
        )
    raise unclear(root, f"has a data set of its own in {quoted(sets)} (give {sets[0]})")


def _is_set(folder: Path) -> bool:
    names = [child.name for child in subfolders(folder) if list_photos(child)]
    known = {name.lower() for name in names}
    is_split = not known.isdisjoint(TRAIN) and bool(known - TRAIN)
    is_visa = "data" in known and subfolder(folder / names[0], "images") is not None
    return is_split or is_visa or {"good", "bad"} <= {sound(name) for name in names}


def refuse_unlike_heap(root: Path, good: Path) -> None:
    """Refuse photos in ``good`` in several folders, or of names, of which one may mean defects.

    ``good`` is ``root`` for a heap of good parts only.
    """
    photos = list_photos(good)
    for_all = f"--good {shlex.quote(good.relative_to(root).as_posix())}"
    inside: dict[Path, set[str]] = defaultdict(set)
    for photo in photos:
        parts = photo.relative_to(good).parts
        for depth, name in enumerate(parts):
            # "" stands for the photos that lie in the folder itself.
            inside[good.joinpath(*parts[:depth])].add(name if depth < len(parts) - 1 else "")
    for here, names in inside.items():
        if len(names) < 2 or has_depth(names):
            continue
        if told := telling(names - {""}):
            where = (here / told[0]).relative_to(root).as_posix()
            raise unclear(root, f"has photos in '{where}' and others beside it", for_all)
    says = {photo: sound(photo.stem) for photo in photos}
    # A mask beside a photo of a good part is told by its contents.
    for other, what in (("bad", "defects"), ("mask", "masks"))[: 2 if good == root else 1]:
        alike = [photo for photo in photos if says[photo] == other]
        if 0 < len(alike) < len(photos):
            why = f"has {len(alike)} photos whose names sound like {what} ({alike[0].name})"
            raise unclear(root, f"{why} and others beside them", for_all)
    called_good = [photo for photo in photos if says[photo] == "good"]
    usual = {word for photo in called_good for word in words_of_classes(photo.stem)}
    others = [photo for photo in photos if words_of_classes(photo.stem) - usual]
    if called_good and others:
        raise unclear(
            root,
            f"has {len(called_good)} photos whose names sound like good parts "
            f"({called_good[0].name}) and {len(others)} that are called otherwise "
            f"({others[0].name})",
            for_all,
        )


def refuse_lists(root: Path) -> None:
    """Refuse a heap in which a file may say which of its photos are good."""
    photos = set(list_photos(root))
    names, stems = {photo.name for photo in photos}, {photo.stem for photo in photos}
    for here, _, files in folders.walk(root):
        for path in (here / name for name in files):
            if not photos or path.suffix.lower() not in _LISTS or path in photos:
                continue
            below = path.relative_to(root)
            is_called = sound(path.stem) or any(sound(one) == "mask" for one in below.parts[:-1])
            if is_called or path.stem in stems or _lists(path, names):
                why = f"has '{below.as_posix()}', which may say which photos are good and is not "
                raise unclear(root, f"{why}read", "--good .")


def _lists(path: Path, names: set[str]) -> bool:
    """Whether a text names one of the photos called ``names``."""
    if path.suffix.lower() not in _TEXTS:
        return False
    try:
        with path.open("rb") as file:
            text = file.read(_READ_OF_LIST).decode("utf-8", "replace")
    except OSError:
        return False
    return not names.isdisjoint(re.findall(r"[^\s,;:|\"'<>/\\]+", text))


def quoted(found: Iterable[Path]) -> str:
    """The names of folders in a sentence."""
    return ", ".join(f"'{path.name}'" for path in found) or "its folders"
