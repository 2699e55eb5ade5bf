"""How a folder of photos is laid out: which are good parts, test photos and masks.

Names of folders tell and, for Kolektor's sets, names of files. :mod:`export.data.doubts` refuses a
layout that leaves any doubt about which parts are good.

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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from export.data.doubts import (
    TEST,
    TRAIN,
    UnclearLayoutError,
    quoted,
    refuse_doubtful,
    refuse_lists,
    refuse_no_kinds,
    refuse_other_than_named,
    refuse_unlike_heap,
    refuse_whole_sets,
    unclear,
)
from export.data.folder_names import is_all_bad, misspelt, sound, tells
from export.data.photo_folders import (
    has_depth,
    has_photos_itself,
    have_labels,
    have_twins,
    is_depth,
    is_twin,
    list_photos,
    pairs,
    photos_of_parts,
    subfolder,
    subfolders,
    twin_of,
)
from inspector.errors import DatasetError
from inspector.imaging import folders

GOOD: Final = "good"
"""The kind of a test photo of a good part, whatever its folder is called."""

Role = Literal["good parts", "test photos", "masks", "not used"]


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
            for photo, mask in pairs(found)
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
                depth = [photo for photo in list_photos(path) if is_depth(photo, path)]
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
        beside = self.masks_beside(found) if folder in self.good else dict(pairs(found))
        masks = set(beside.values())
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
    inner = subfolder(root, "data")
    if inner is not None and subfolder(inner, "images") is not None:
        return _visa(root, inner)
    train, test = (subfolder(root, *names) for names in (TRAIN, TEST))
    if train is not None or test is not None or subfolder(root, "ground_truth") is not None:
        return _split(root, train, test, is_black)
    children = subfolders(root)
    good = [child for child in children if sound(child.name) == "good"]
    if not good and have_twins(root):
        return Layout("Kolektor", root, (root,), has_twins=True, is_defective=_by_twin(is_black))
    for child in children:
        if meant := misspelt(child.name):
            raise unclear(root, f"has a folder '{child.name}' (is '{meant}' meant?)")
    if len(good) == 1 and not has_photos_itself(root):
        return _beside(root, good[0], [child for child in children if child != good[0]])
    if good:
        raise unclear(root, f"has good parts in {quoted(good)} and other photos beside them")
    refuse_whole_sets(root, children)
    name = root.absolute().name
    if is_all_bad(name) or folders.sounds_like_mask(name):
        what = "defects" if is_all_bad(name) else "masks"
        raise unclear(root, f"has the name of a folder of {what}", "--good .")
    refuse_doubtful(root)
    refuse_unlike_heap(root, root)
    refuse_lists(root)
    return Layout("good parts only", root, (root,))


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
        refuse_other_than_named(root, folder, named)
    rest = [
        child
        for child in subfolders(root)
        if not any(child == one or child in one.parents or one in child.parents for one in good)
    ]
    test = next((child for child in rest if child.name.lower() in TEST), None)
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
    images = subfolder(inner, "images") or inner
    kinds = subfolders(images)
    good = [kind for kind in kinds if sound(kind.name) == "good"]
    if len(good) != 1:
        raise unclear(images, f"has no one folder of good parts among {quoted(kinds)}")
    refuse_doubtful(good[0])
    refuse_unlike_heap(root, good[0])
    masks = subfolder(inner, "masks")
    others = [kind for kind in kinds if kind not in good]
    refuse_no_kinds(root, good[0], others)
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
    if train is not None and not good and (have_twins(train) or have_labels(train)):
        is_dagm = have_labels(train)
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
    if len(good) > 1 or (good and train is not None and has_photos_itself(train)):
        raise unclear(train or root, f"has good parts in {quoted(good)} and others beside them")
    for folder in good:
        refuse_doubtful(folder)
        refuse_unlike_heap(root, folder)
    unused += tuple(child for child in inner if child not in good)
    is_usual = all(folder.name == GOOD for folder in good)
    name = "MVTec AD" if is_usual else "MVTec AD with other names"
    if any(has_depth({child.name for child in subfolders(folder)}) for folder in good):
        name = "MVTec 3D-AD, colour photos alone"
    return Layout(name, root, tuple(good), (), test, masks, unused)


def _beside(root: Path, good: Path, others: Sequence[Path]) -> Layout:
    """Good parts in one folder, and beside it what is a defect, a mask, or neither."""
    masks = tuple(child for child in others if sound(child.name) == "mask")
    kinds = tuple(child for child in others if child not in masks)
    refuse_doubtful(good)
    refuse_unlike_heap(root, good)
    refuse_no_kinds(root, good, kinds)
    for folder in kinds:
        refuse_doubtful(folder, beside=good)
    return Layout(
        "good parts beside defects" if kinds else "good parts only",
        root,
        (good,),
        _kinds_of(kinds),
        masks=masks,
    )


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
    if not is_told or has_photos_itself(folder) or has_depth(child.name for child in inner):
        return [(folder, GOOD if says == "good" else folder.name)]
    return [(child, f"{folder.name}/{child.name}") for child in inner]


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
