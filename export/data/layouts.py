"""How a folder of photos is laid out: which are good parts, test photos and masks.

Names of folders tell and, for Kolektor's sets, names of files. A layout that leaves any doubt about
which parts are good is refused: one defect trained as good passes for ever.

::

    MVTec AD, LOCO, BTAD   train/good, test/<kind>, ground_truth/<kind>; "good" may be ok or normal
    VisA                   Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly
    KolektorSDD, SDD2      each photo with a mask beside it: <stem>_label or <stem>_GT
    good beside defects    good/, <kind>/ ..., mask/
    good parts only        photos in folders of which none sounds like anything else
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from inspector.errors import DatasetError
from inspector.imaging import folders

GOOD: Final = "good"
"""The kind of a test photo of a good part, whatever its folder is called."""

Role = Literal["good parts", "test photos", "masks", "not used"]
_Sound = Literal["good", "bad", "mask", ""]

_GOOD: Final = frozenset(
    {"good", "ok", "okay", "normal", "pass", "passed", "io", "clean", "defectfree", "nodefect"}
    | {"良品", "合格", "正常"}
)
_BAD: Final = frozenset(
    {"bad", "ng", "nok", "ko", "nio", "fail", "failed", "reject", "rejected", "rejects", "scrap"}
    | {"def", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal"}
    | {"faulty", "fault", "faults", "damaged", "damage", "broken", "crack", "cracks", "cracked"}
    | {"scratch", "scratches", "scratched", "stain", "stains", "stained", "dent", "dents", "hole"}
    | {"holes", "burr", "burrs", "chip", "chipped", "contamination", "missing", "bent", "cut"}
    | {"不良", "不良品", "次品", "缺陷", "异常"}
)
_LABEL: Final = frozenset({"label", "labels"})
"""Of a data set these are masks; a part on the line may well be a label."""
_NOT: Final = frozenset({"not", "no", "non", "un"})
_TRAIN: Final = frozenset({"train", "training"})
_TEST: Final = frozenset({"test", "testing"})
_SHORTEST_MISSPELT: Final = 4
_TWINS: Final = ("_label", "_GT")


def sound(name: str) -> _Sound:
    """What the name of a folder says of the photos in it; "" when it says nothing."""
    words = re.findall(r"[^\W_]+", name.lower())
    joined = "".join(words)
    if folders.sounds_like_mask(name) or {joined, *words} & _LABEL:
        return "mask"
    if {joined, *words} & _BAD:
        return "bad"
    if {joined, *words} & _GOOD:
        return "bad" if _NOT & set(words[:-1]) and joined not in _GOOD else "good"
    return ""


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

    @property
    def tests(self) -> tuple[tuple[Path, str], ...]:
        """Folders of test photos and their kinds. Raises :class:`DatasetError`."""
        inner = [] if self.test is None else subfolders(self.test)
        return self.kinds + tuple((folder, _kind(folder)) for folder in inner)

    def good_photos(self) -> Iterator[Path]:
        """The good parts, in the order of their folders."""
        for folder in self.good:
            for photo in list_photos(folder):
                if not self.has_twins or not (is_twin(photo) or self.is_defective(photo)):
                    yield photo

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
        found += [Row(path, "masks", "", self._count(path)) for path in self.masks]
        found += [Row(path, "not used", "", self._count(path)) for path in self.unused]
        return found

    def _parts_of(self, folder: Path) -> list[tuple[Path, int]]:
        """``folder`` by its subfolders, so that one that does not belong there is seen."""
        inner = [] if self.has_twins else subfolders(folder)
        rest = self._count(folder) - sum(self._count(part) for part in inner)
        own = [(folder, rest)] if rest or not inner else []
        return own + [(part, self._count(part)) for part in inner]

    def _count(self, folder: Path) -> int:
        return sum(not (self.has_twins and is_twin(path)) for path in list_photos(folder))


def recognise(
    root: Path, selection: Selection = WHOLE, *, is_black: Callable[[Path], bool]
) -> Layout:
    """The layout of ``root``; ``is_black`` says whether a mask file is black.

    Raises :class:`DatasetError` for one that leaves doubt, with what to do about it.
    """
    if selection.good:
        return _chosen(root, selection)
    inner = _subfolder(root, "data")
    if inner is not None and _subfolder(inner, "images") is not None:
        return _visa(root, inner)
    train, test = (_subfolder(root, *names) for names in (_TRAIN, _TEST))
    if train is not None or test is not None or _subfolder(root, "ground_truth") is not None:
        return _split(root, train, test, is_black)
    if _have_twins(root):
        return Layout("Kolektor", root, (root,), has_twins=True, is_defective=_by_twin(is_black))
    children = subfolders(root)
    for child in children:
        if meant := _misspelt(child.name):
            raise unclear(root, f"has a folder '{child.name}' (is '{meant}' meant?)")
    good = [child for child in children if sound(child.name) == "good"]
    if len(good) == 1 and not _direct(root):
        return _beside(root, good[0], [child for child in children if child != good[0]])
    if good:
        raise unclear(root, f"has good parts in {_names(good)} and other photos beside them")
    _refuse_doubtful(root)
    return Layout("good parts only", root, (root,))


def refuse_unless_good_only(root: Path) -> None:
    """Raise :class:`DatasetError` when a folder in ``root`` sounds like other than good parts."""
    for here, inner, _ in folders.walk(root):
        for name in inner:
            if sound(name) in {"bad", "mask"} or name.lower() in _TRAIN | _TEST:
                raise DatasetError(
                    f"{root}: holds '{(here / name).relative_to(root).as_posix()}', which sounds "
                    f"like something else than good parts; name a folder of nothing but good parts"
                )


def unclear(root: Path, why: str) -> DatasetError:
    """The refusal of a layout that leaves doubt, with the two ways to say what is meant."""
    return DatasetError(
        f"{root}: {why}: which are the good parts? Name their folder with --good DIR, or lay the "
        f"photos out as train/good, test/<kind> and ground_truth/<kind>"
    )


def list_photos(folder: Path) -> tuple[Path, ...]:
    """The photos in ``folder``; none when it is missing. Raises :class:`DatasetError`."""
    if not folder.exists():
        return ()
    try:
        return tuple(folders.find_images(folder))
    except OSError as error:
        raise _unreadable(error) from None


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
    for ending in _TWINS:
        for mask in sorted(photo.parent.glob(f"{_escape(photo.stem)}{ending}.*")):
            return mask
    return None


def _chosen(root: Path, selection: Selection) -> Layout:
    """The good parts where a person said; the rest of the data set is for testing where it can."""
    good = tuple(root / name for name in selection.good)
    rest = [
        child
        for child in subfolders(root)
        if not any(child == one or child in one.parents for one in good)
    ]
    test = next((child for child in rest if child.name.lower() in _TEST), None)
    kinds = [child for child in rest if sound(child.name) == "bad"]
    masks = tuple(child for child in rest if sound(child.name) == "mask")
    used = {*kinds, *masks, *([test] if test is not None else [])}
    return Layout(
        "as you said",
        root,
        good,
        tuple((kind, _kind(kind)) for kind in kinds),
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
    masks = _subfolder(inner, "masks")
    return Layout(
        "VisA",
        root,
        tuple(good),
        tuple((kind, _kind(kind)) for kind in kinds if kind not in good),
        masks=() if masks is None else (masks,),
    )


def _split(
    root: Path, train: Path | None, test: Path | None, is_black: Callable[[Path], bool]
) -> Layout:
    """Photos that somebody divided into ``train`` and ``test``."""
    rest = [child for child in subfolders(root) if child not in {train, test}]
    masks = tuple(child for child in rest if sound(child.name) == "mask")
    unused = tuple(child for child in rest if child not in masks)
    if train is not None and _have_twins(train):
        return Layout(
            "Kolektor",
            root,
            (train,),
            () if test is None else ((test, ""),),
            masks=masks,
            unused=unused,
            has_twins=True,
            is_defective=_by_twin(is_black),
        )
    inner = [] if train is None else subfolders(train)
    good = [child for child in inner if sound(child.name) == "good"]
    if len(good) > 1 or (good and train is not None and _direct(train)):
        raise unclear(train or root, f"has good parts in {_names(good)} and others beside them")
    for folder in good:
        _refuse_doubtful(folder)
    unused += tuple(child for child in inner if child not in good)
    is_usual = all(folder.name == GOOD for folder in good)
    name = "MVTec AD" if is_usual else "MVTec AD with other names"
    return Layout(name, root, tuple(good), (), test, masks, unused)


def _beside(root: Path, good: Path, others: Sequence[Path]) -> Layout:
    """Good parts in one folder, and beside it what is a defect, a mask, or neither."""
    masks = tuple(child for child in others if sound(child.name) == "mask")
    kinds = tuple(child for child in others if child not in masks)
    for folder in (good, *kinds):
        _refuse_doubtful(folder)
    return Layout(
        "good parts beside defects" if kinds else "good parts only",
        root,
        (good,),
        tuple((kind, kind.name) for kind in kinds),
        masks=masks,
    )


def _refuse_doubtful(root: Path) -> None:
    """Refuse a folder in which another one, at any depth, says what its photos are."""
    for here, inner, _ in folders.walk(root):
        for name in inner:
            if sound(name) or name.lower() in _TRAIN | _TEST:
                what = (here / name).relative_to(root).as_posix()
                raise unclear(root, f"has photos in '{what}' and others beside it")


def _misspelt(name: str) -> str:
    """The word for good parts that ``name`` is nearly; "" when it is none."""
    bare = "".join(re.findall(r"[^\W_]+", name.lower()))
    if sound(name) or len(bare) < _SHORTEST_MISSPELT:
        return ""
    return next(iter(difflib.get_close_matches(bare, sorted(_GOOD), 1, 0.85)), "")


def _kind(folder: Path) -> str:
    return GOOD if sound(folder.name) == "good" else folder.name


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


def _photo_of(twin: Path) -> Path:
    bare = twin.with_suffix("")
    ending = next(ending for ending in _TWINS if bare.name.endswith(ending))
    return bare.with_name(bare.name.removesuffix(ending))


def _by_twin(is_black: Callable[[Path], bool]) -> Callable[[Path], bool]:
    def is_defective(photo: Path) -> bool:
        mask = twin_of(photo)
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
