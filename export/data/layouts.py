"""How a folder of photos is laid out: which are good parts, test photos and masks.

Names of folders tell and, for Kolektor's sets, names of files. A layout that leaves any doubt about
which parts are good is refused: one defect trained as good passes for ever.

::

    MVTec AD, LOCO, BTAD   train/good, test/<kind>, ground_truth/<kind>; "good" may be ok or normal
    MVTec 3D-AD            as MVTec AD; of rgb/, xyz/ and gt/ in each folder rgb/ has the photos
    MVTec AD 2             train/good, test_public/<kind>, test_public/ground_truth/<kind>
    VisA                   Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly
    KolektorSDD, SDD2      each photo with a mask beside it: <stem>_label or <stem>_GT
    DAGM                   Train/, Test/, and masks of the defects in Train/Label, Test/Label
    good beside defects    good/, <kind>/ ..., mask/; Real-IAD has masks beside the photos
    good parts only        photos in one folder, or in several whose names tell nothing of the parts

:mod:`export.data.folder_names` knows what names tell.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from export.data.folder_names import (
    is_all_bad,
    is_kind,
    misspelt,
    sound,
    telling,
    tells,
    words_of_classes,
)
from inspector.errors import DatasetError
from inspector.imaging import folders

GOOD: Final = "good"
"""The kind of a test photo of a good part, whatever its folder is called."""

Role = Literal["good parts", "test photos", "masks", "not used"]

_TRAIN: Final = frozenset({"train", "training"})
_TEST: Final = frozenset({"test", "testing", "test_public"})
_TWINS: Final = folders.MASK_ENDINGS
_JPEG: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_COLOUR: Final = "rgb"
_DEPTH: Final = frozenset({"xyz", "depth"})
"""Folders beside one of colour photos: the same parts, measured in depth."""
_TEXTS: Final = frozenset({".csv", ".tsv", ".json", ".jsonl", ".xml", ".txt", ".yaml", ".yml"})
_LISTS: Final = _TEXTS | {".xls", ".xlsx", ".ods"}
"""Suffixes of files that may say of each photo whether its part is good."""
_READ_OF_LIST: Final = 1 << 20
_OF_STATION: Final = re.compile(r"_(PASS|FAIL|FAULT)(_|$)")
"""A station's verdict in the name of a picture; what was rejected falsely is taught."""


class Selection(BaseModel):
    """What a person said about which photos of a data set are good parts.

    Paths are relative to the data set, with slashes. ``good``: the folders that hold them, none
    for those that :func:`recognise` finds. ``leave_out``: photos that are not to be trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    good: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()


WHOLE: Final = Selection()
"""Nobody said anything: the layout tells."""


@dataclass(frozen=True)
class Row:
    """A folder of a data set, as it is told to a person: its role and how many photos it has."""

    folder: Path
    role: Role
    kind: str
    photos: int


@dataclass(frozen=True)
class Layout:
    """Where the photos of a data set lie; to know it no test photo and no mask of one is opened.

    ``good``: folders of good parts; ``kinds``: folders of test photos and their kinds; ``test``:
    a folder with more of these; ``masks``: folders in which a mask has the path of its photo below
    the folder of its kind.
    """

    name: str
    root: Path
    good: tuple[Path, ...]
    kinds: tuple[tuple[Path, str], ...] = ()
    test: Path | None = None
    masks: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()
    has_twins: bool = False
    """True for a set whose photos have their masks beside them; not black is defective."""
    is_defective: Callable[[Path], bool] = field(default=lambda _: False, repr=False)
    """Of a photo with a twin: True when its mask is not black."""
    is_black: Callable[[Path], bool] = field(default=lambda _: False, repr=False)
    is_drawn: Callable[[Path], bool] = field(default=lambda _: False, repr=False)
    """Of a picture that is called as a JPEG beside it: True when it is a mask by its contents."""

    @property
    def tests(self) -> tuple[tuple[Path, str], ...]:
        """Folders of test photos and their kinds. Raises :class:`DatasetError`."""
        inner = [] if self.test is None else subfolders(self.test)
        kinds = [folder for folder in inner if sound(folder.name) != "mask"]
        for folder in kinds:
            # What only tells when or where is no defect: its good parts would count as escapes.
            if not sound(folder.name) and not tells(folder.name) and list_photos(folder):
                raise UnclearLayoutError(
                    f"{folder}: its name says neither that the test photos in it are good nor what "
                    f"is wrong",
                    f"; rename it to '{GOOD}', or after the defect",
                )
        return self.kinds + _kinds_of(kinds)

    @property
    def mask_folders(self) -> tuple[Path, ...]:
        """Folders of masks, also those that lie among test photos, at any depth."""
        if self.has_twins:
            return self.masks
        homes = [self.test] if self.test is not None else []
        homes += [path if path.parent == self.root else path.parent for path, _ in self.kinds]
        inner = [
            here / name
            for home in dict.fromkeys(homes)
            for here, names, _ in folders.walk(home)
            for name in names
            if sound(name) == "mask" and sound(here.name) != "mask"
        ]
        return self.masks + tuple(inner)

    def good_photos(self) -> Iterator[Path]:
        """The good parts, in the order of their folders.

        Raises :class:`DatasetError` for one whose mask marks a defect, and for a link to what has
        another role.
        """
        others = [*(path for path, _ in self.kinds), *self.masks]
        taken = [path.resolve() for path in (*others, self.test) if path is not None]
        for folder in self.good:
            found = list_photos(folder) if self.has_twins else photos_of_parts(folder)
            beside = {} if self.has_twins else self.masks_beside(found)
            masks = set(beside.values())
            for photo in found:
                if self.has_twins and (is_twin(photo) or self.is_defective(photo)):
                    continue
                if photo in masks:
                    continue
                if photo in beside and not self.is_black(beside[photo]):
                    raise DatasetError(
                        f"{photo}: lies among the good parts, but its mask {beside[photo].name} "
                        f"marks a defect; move both to a folder of defects, or remove the mask"
                    )
                real = photo.resolve()
                if any(one in real.parents for one in taken):
                    raise DatasetError(
                        f"{photo}: lies among the good parts, but is a link to {real}, which is "
                        f"none; remove the link"
                    )
                yield photo

    def masks_beside(self, found: Sequence[Path]) -> dict[Path, Path]:
        """The mask of each photo of ``found`` that has one beside it."""
        return {
            photo: mask
            for photo, mask in _pairs(found)
            if photo.stem != mask.stem or self.is_drawn(mask)
        }

    def rows(self) -> list[Row]:
        """Every folder with its role, its kind and its number of photos."""
        found = [
            Row(part, "good parts", "", count)
            for folder in self.good
            for part, count in self._parts_of(folder)
        ]
        if self.has_twins:
            defective = [
                sum(self.is_defective(p) for p in list_photos(folder) if not is_twin(p))
                for folder in self.good
            ]
            good_rows = [
                Row(row.folder, row.role, row.kind, row.photos - bad)
                for row, bad in zip(found, defective, strict=True)
            ]
            found = good_rows + [
                Row(row.folder, "not used", "defective", bad)
                for row, bad in zip(found, defective, strict=True)
                if bad
            ]
        found += [Row(path, "test photos", kind, self._count(path)) for path, kind in self.tests]
        found += [Row(path, "masks", "", len(list_photos(path))) for path in self.mask_folders]
        if not self.has_twins:
            for path in (*self.good, *(path for path, _ in self.tests)):
                parts = photos_of_parts(path)
                if beside := len(parts) - self._count(path):
                    found.append(Row(path, "masks", "beside their photos", beside))
                depth = [photo for photo in list_photos(path) if _is_depth(photo, path)]
                if depth:
                    found.append(Row(path, "not used", "depth", len(depth)))
        found += [Row(path, "not used", "", self._count(path)) for path in self.unused]
        return found

    def _parts_of(self, folder: Path) -> list[tuple[Path, int]]:
        """``folder`` by its subfolders, so that one that does not belong there is seen."""
        counts: dict[Path, int] = {}
        for photo in self._counted(folder):
            below = photo.relative_to(folder).parts
            part = folder / below[0] if len(below) > 1 and not self.has_twins else folder
            counts[part] = counts.get(part, 0) + 1
        return sorted(counts.items()) or [(folder, 0)]

    def _count(self, folder: Path) -> int:
        return len(self._counted(folder))

    def _counted(self, folder: Path) -> list[Path]:
        if self.has_twins:
            return [path for path in list_photos(folder) if not is_twin(path)]
        found = photos_of_parts(folder)
        # No test photo is opened to count it, so there names have to tell.
        pairs = self.masks_beside(found) if folder in self.good else dict(_pairs(found))
        masks = set(pairs.values())
        return [path for path in found if path not in masks]


def recognise(
    root: Path,
    selection: Selection = WHOLE,
    *,
    is_black: Callable[[Path], bool],
    is_drawn: Callable[[Path], bool],
) -> Layout:
    """The layout of ``root``.

    ``is_black`` says whether a mask file is black, ``is_drawn`` whether a picture is a mask by its
    contents. Raises :class:`DatasetError` for a layout that leaves doubt, with what to do about it.
    """
    layout = _chosen(root, selection) if selection.good else _recognised(root, is_black)
    return replace(layout, is_black=is_black, is_drawn=is_drawn)


def _recognised(root: Path, is_black: Callable[[Path], bool]) -> Layout:
    inner = _subfolder(root, "data")
    if inner is not None and _subfolder(inner, "images") is not None:
        return _visa(root, inner)
    train, test = (_subfolder(root, *names) for names in (_TRAIN, _TEST))
    if train is not None or test is not None or _subfolder(root, "ground_truth") is not None:
        return _split(root, train, test, is_black)
    children = subfolders(root)
    good = [child for child in children if sound(child.name) == "good"]
    if not good and _have_twins(root):
        return Layout("Kolektor", root, (root,), has_twins=True, is_defective=_by_twin(is_black))
    for child in children:
        if meant := misspelt(child.name):
            raise unclear(root, f"has a folder '{child.name}' (is '{meant}' meant?)")
    if len(good) == 1 and not _direct(root):
        return _beside(root, good[0], [child for child in children if child != good[0]])
    if good:
        raise unclear(root, f"has good parts in {_names(good)} and other photos beside them")
    _refuse_whole_sets(root, children)
    name = root.absolute().name
    if is_all_bad(name) or folders.sounds_like_mask(name):
        what = "defects" if is_all_bad(name) else "masks"
        raise unclear(root, f"has the name of a folder of {what}", "--good .")
    _refuse_doubtful(root)
    _refuse_unlike_heap(root, root)
    _refuse_lists(root)
    return Layout("good parts only", root, (root,))


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
            if says in {"bad", "mask"} or name.lower() in _TRAIN | _TEST:
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
        and not _is_depth(photo, folder)
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder`` that are not hidden, by name. Raises :class:`DatasetError`."""
    try:
        _, names, _ = next(folders.walk(folder))
    except OSError as error:
        raise _unreadable(error) from None
    return [folder / name for name in names]


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


def _chosen(root: Path, selection: Selection) -> Layout:
    """The good parts where a person said; the rest of the data set is for testing where it can."""
    good = tuple(root / name for name in selection.good)
    for folder, name in zip(good, selection.good, strict=True):
        if not folder.is_dir():
            raise UnclearLayoutError(
                f"{root}: has no folder '{name}', which --good names",
                "; name one that is there, relative to the data folder or by its whole path",
            )
    named = set(good)
    # The photos of a folder in another one that is named come with those of that one.
    good = tuple(
        one
        for one in dict.fromkeys(good)
        if not any(
            other in one.parents
            and not any(sound(name) == "mask" for name in one.relative_to(other).parts)
            for other in named
        )
    )
    for folder in good:
        _refuse_other_than_named(root, folder, named)
    rest = [
        child
        for child in subfolders(root)
        if not any(child == one or child in one.parents or one in child.parents for one in good)
    ]
    test = next((child for child in rest if child.name.lower() in _TEST), None)
    kinds = [child for child in rest if sound(child.name) == "bad"]
    masks = tuple(child for child in rest if sound(child.name) == "mask")
    used = {*kinds, *masks, *([test] if test is not None else [])}
    return Layout(
        "good parts named by --good",
        root,
        good,
        _kinds_of(kinds),
        test,
        masks,
        tuple(child for child in rest if child not in used),
    )


def _visa(root: Path, inner: Path) -> Layout:
    images = _subfolder(inner, "images") or inner
    kinds = subfolders(images)
    good = [kind for kind in kinds if sound(kind.name) == "good"]
    if len(good) != 1:
        raise unclear(images, f"has no one folder of good parts among {_names(kinds)}")
    _refuse_doubtful(good[0])
    _refuse_unlike_heap(root, good[0])
    masks = _subfolder(inner, "masks")
    others = [kind for kind in kinds if kind not in good]
    _refuse_no_kinds(root, good[0], others)
    return Layout(
        "VisA",
        root,
        tuple(good),
        _kinds_of(others),
        masks=() if masks is None else (masks,),
    )


def _split(
    root: Path, train: Path | None, test: Path | None, is_black: Callable[[Path], bool]
) -> Layout:
    """Photos that somebody divided into ``train`` and ``test``."""
    rest = [child for child in subfolders(root) if child not in {train, test}]
    masks = tuple(child for child in rest if sound(child.name) == "mask")
    unused = tuple(child for child in rest if child not in masks)
    inner = [] if train is None else subfolders(train)
    good = [child for child in inner if sound(child.name) == "good"]
    if train is not None and not good and (_have_twins(train) or _have_labels(train)):
        is_dagm = _have_labels(train)
        return Layout(
            "DAGM" if is_dagm else "Kolektor",
            root,
            (train,),
            () if test is None else ((test, ""),),
            masks=masks,
            unused=unused,
            has_twins=True,
            is_defective=_by_twin(is_black, has_all=not is_dagm),
        )
    if len(good) > 1 or (good and train is not None and _direct(train)):
        raise unclear(train or root, f"has good parts in {_names(good)} and others beside them")
    for folder in good:
        _refuse_doubtful(folder)
        _refuse_unlike_heap(root, folder)
    unused += tuple(child for child in inner if child not in good)
    is_usual = all(folder.name == GOOD for folder in good)
    name = "MVTec AD" if is_usual else "MVTec AD with other names"
    if any(_has_depth({child.name for child in subfolders(folder)}) for folder in good):
        name = "MVTec 3D-AD, colour photos alone"
    return Layout(name, root, tuple(good), (), test, masks, unused)


def _beside(root: Path, good: Path, others: Sequence[Path]) -> Layout:
    """Good parts in one folder, and beside it what is a defect, a mask, or neither."""
    masks = tuple(child for child in others if sound(child.name) == "mask")
    kinds = tuple(child for child in others if child not in masks)
    _refuse_doubtful(good)
    _refuse_unlike_heap(root, good)
    _refuse_no_kinds(root, good, kinds)
    for folder in kinds:
        _refuse_doubtful(folder, beside=good)
    return Layout(
        "good parts beside defects" if kinds else "good parts only",
        root,
        (good,),
        _kinds_of(kinds),
        masks=masks,
    )


def _refuse_doubtful(root: Path, beside: Path | None = None) -> None:
    """Refuse a folder in which another one, at any depth, says what its photos are.

    ``root`` may lie ``beside`` the good parts. If it is called so that all in it are defects, one
    that sounds like a defect, too, is no doubt.
    """
    known = {"bad"} if beside is not None and sound(root.name) == "bad" else set()
    for here, inner, _ in folders.walk(root):
        for name in inner:
            says = sound(name)
            tells = (says and says not in known) or name.lower() in _TRAIN | _TEST
            if tells and list_photos(here / name):
                what = (here / name).relative_to(root).as_posix()
                if beside is None:
                    raise unclear(root, f"has photos in '{what}' and others beside it")
                raise unclear(
                    root.parent,
                    f"'{beside.name}' was taken for the good parts, and '{root.name}' beside it "
                    f"for defects, but that has photos in '{what}', too",
                )


def _refuse_other_than_named(root: Path, good: Path, named: set[Path]) -> None:
    """Refuse a folder in ``good``, which a person named, that sounds like other than good parts."""

    def sounds_other(folder: Path) -> bool:
        return sound(folder.name) in {"bad", "mask"} or folder.name.lower() in _TEST

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


def _refuse_no_kinds(root: Path, good: Path, others: Iterable[Path]) -> None:
    """Refuse a folder beside the ``good`` parts whose name cannot be that of a defect."""
    for folder in others:
        if not is_kind(folder.name) and list_photos(folder):
            raise unclear(
                root,
                f"has '{folder.name}' beside the good parts in '{good.name}', and its name does "
                f"not say whether its parts are good",
            )


def _refuse_whole_sets(root: Path, children: Sequence[Path]) -> None:
    """Refuse a folder of data sets, or one around a single set, by naming them."""
    sets = [child for child in children if _is_set(child)]
    if not sets or _direct(root):
        return
    if len(sets) > 1:
        raise UnclearLayoutError(
            f"{root}: holds data sets of its own ({_names(sets)})", f"; name one, such as {sets[0]}"
        )
    raise unclear(root, f"has a data set of its own in {_names(sets)} (give {sets[0]})")


def _is_set(folder: Path) -> bool:
    names = [child.name for child in subfolders(folder) if list_photos(child)]
    known = {name.lower() for name in names}
    is_split = not known.isdisjoint(_TRAIN) and bool(known - _TRAIN)
    is_visa = "data" in known and _subfolder(folder / names[0], "images") is not None
    return is_split or is_visa or {"good", "bad"} <= {sound(name) for name in names}


def _refuse_unlike_heap(root: Path, good: Path) -> None:
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
        if len(names) < 2 or _has_depth(names):
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


def _refuse_lists(root: Path) -> None:
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


def _has_depth(names: Iterable[str]) -> bool:
    """Whether folders beside one another hold colour and depth of the same parts."""
    known = {name.lower() for name in names}
    return {_COLOUR} < known <= _DEPTH | {_COLOUR}


def _is_depth(photo: Path, folder: Path) -> bool:
    """Whether a photo below ``folder`` lies in a folder of depth beside one of colour."""
    here = folder
    for name in photo.relative_to(folder).parts[:-1]:
        if name.lower() in _DEPTH and _subfolder(here, _COLOUR) is not None:
            return True
        here /= name
    return False


def _kinds_of(found: Iterable[Path]) -> tuple[tuple[Path, str], ...]:
    """Folders of test photos and their kinds; a folder of all defects is told by those in it."""
    return tuple(pair for folder in found for pair in _split_kinds(folder))


def _split_kinds(folder: Path) -> list[tuple[Path, str]]:
    """``NG`` by ``NG/scratch`` and ``NG/dent``, where each photo lies in such a folder."""
    says = sound(folder.name)
    inner = [
        child
        for child in (subfolders(folder) if says == "bad" else ())
        if sound(child.name) != "mask" and list_photos(child)
    ]
    # A day or a camera is no kind of defect.
    is_told = any(tells(child.name) for child in inner)
    if not is_told or _direct(folder) or _has_depth(child.name for child in inner):
        return [(folder, GOOD if says == "good" else folder.name)]
    return [(child, f"{folder.name}/{child.name}") for child in inner]


def _subfolder(folder: Path, *names: str) -> Path | None:
    return next((one for one in subfolders(folder) if one.name.lower() in names), None)


def _direct(folder: Path) -> bool:
    """True when photos lie in ``folder`` itself."""
    return any(path.parent == folder for path in list_photos(folder))


def _have_twins(folder: Path) -> bool:
    """True when every mask in ``folder`` lies beside its photo, and there are some."""
    found = list_photos(folder)
    stems = {path.with_suffix("") for path in found if not is_twin(path)}
    twins = [path for path in found if is_twin(path)]
    return bool(twins) and all(_photo_of(path) in stems for path in twins)


def _have_labels(folder: Path) -> bool:
    """True for photos whose masks, for some of them, lie in a folder of masks beside them."""
    inner = subfolders(folder)
    if not all(sound(child.name) == "mask" for child in inner):
        return False
    masks = [path for child in inner for path in list_photos(child)]
    stems = {path.stem for path in list_photos(folder) if path.parent == folder}
    return bool(masks) and all(is_twin(path) and _photo_of(path).name in stems for path in masks)


def _pairs(found: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
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


def _photo_of(twin: Path) -> Path:
    bare = twin.with_suffix("")
    ending = next(ending for ending in _TWINS if bare.name.endswith(ending))
    return bare.with_name(bare.name.removesuffix(ending))


def _by_twin(is_black: Callable[[Path], bool], *, has_all: bool = True) -> Callable[[Path], bool]:
    """Whether a photo is defective by its mask; with ``has_all`` each must have one."""

    def is_defective(photo: Path) -> bool:
        mask = twin_of(photo)
        if mask is None and not has_all:
            return False
        if mask is None:
            raise DatasetError(
                f"{photo}: has no mask beside it, as the others have; add it, or remove the photo"
            )
        return not is_black(mask)

    return is_defective


def _unreadable(error: OSError) -> DatasetError:
    return DatasetError(f"{error.filename}: {error.strerror}; make the folder readable")


def _names(found: Iterable[Path]) -> str:
    return ", ".join(f"'{path.name}'" for path in found) or "its folders"


def _escape(stem: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", stem)
