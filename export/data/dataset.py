"""Folders of parts: MVTec AD layout, or simply a folder of good parts.

::

    DATA/train/good/*.png                          good parts, the only thing training opens
    DATA/test/<kind>/*.png                         kind is "good" or the name of a defect
    DATA/ground_truth/<kind>/<stem>_mask.png       or <stem>.png; not black is defective
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.settings import ONE_ASPECT
from inspector.errors import (
    ConfigError,
    DatasetError,
    Fault,
    ImageError,
    MaskError,
    TooFewPartsError,
)
from inspector.imaging import folders
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.images import decode_file, read_image, to_bgr8
from inspector.verdict import Frame8

GOOD: Final = "good"
FEWEST_GOOD_PARTS: Final = 10

Progress = Callable[[int, int], None]
"""Called with (done, total) after every image."""

Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

MOST_KEPT: Final = 256_000_000
"""Bytes of photo files held until all their shapes are known."""

FULL_12_BIT: Final = 4095
"""16-bit files no brighter than this hold right-aligned 12-bit data: 16 levels after scaling."""

_FORMATS = "PNG, JPEG, BMP or TIFF"


@dataclass(frozen=True)
class Sample:
    """One test photo. ``kind`` is ``good`` or the kind of defect; ``mask`` may be missing."""

    path: Path
    kind: str
    mask: Path | None


Shape = tuple[int, int]
"""Width and height of a photo, pixels."""


class PhotoFile:
    """The bytes of a photo, its file opened once. Raises :class:`ImageError` naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data: npt.NDArray[np.uint8] = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise ImageError(
                f"{path}: {error.strerror or error}; remove the file or take the photo again"
            ) from None

    def digest(self) -> bytes:
        """SHA-256 of the bytes, as :func:`digest_file`."""
        return hashlib.sha256(self.data.data).digest()

    def decode(self) -> npt.NDArray[Any]:
        """The picture as it is: uint8 or uint16, grey, BGR or BGRA; raises :class:`ImageError`."""
        try:
            return decode_file(self.data, self.path)
        except ValueError as error:
            raise ImageError(f"{error}; remove the file or take the photo again") from None

    def apply(self, geometry: Geometry) -> Frame8:
        """At network size, uint8 BGR; raises :class:`ImageError`, :class:`RefusedPhotoError`."""
        photo = self.decode()
        with _naming(self.path):
            return geometry.apply(photo)


class RefusedPhotoError(ImageError):
    """A sound photo that the model refuses for its shape or colour, as it does on the line."""


class Loaded(NamedTuple):
    """A test photo as the network sees it.

    ``image``: uint8 BGR ``[H, W, 3]``. ``mask``: bool ``[H, W]``, all False for a good part, None
    for a defect that nobody drew a mask for, or none of whose pixels is left at this size.
    ``inner``: rows and columns that the photo fills; the rest of a letterbox is its reflection.
    """

    image: Frame8
    mask: Mask | None
    inner: tuple[slice, slice]


@dataclass(frozen=True)
class GoodParts:
    """The good parts as the network sees them.

    ``images``: uint8 BGR ``[N, H, W, 3]``. ``picture`` ``[N]``: see :func:`group_copies`.
    ``geometry``: the one asked for, with what all photos share: ``aspect`` when it is one within
    1 %, ``frame`` when a region is cut out. ``shapes`` and ``digests`` (SHA-256 of the file) are a
    photo's each. ``remarks``: lines for a person about photos that differ in size or colour, or
    are copies of one another.
    """

    images: Frame8
    picture: Index
    geometry: Geometry
    shapes: tuple[Shape, ...]
    digests: tuple[bytes, ...]
    remarks: tuple[str, ...]


def open_good(root: Path) -> tuple[Path, ...]:
    """The good parts to train on, sorted; looks at nothing under ``test`` or ``ground_truth``.

    Raises :class:`DatasetError` (missing, empty, laid out otherwise) and
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


def load_good(
    paths: Sequence[Path],
    geometry: Geometry | Callable[[Sequence[Shape]], Geometry],
    on_progress: Progress | None = None,
) -> GoodParts:
    """Decode good parts through ``geometry``, or what it gives for the shapes of all photos.

    Each file is opened once, and its picture held at network size only: photos of one shape are
    brought to the size that the first one asks for. When others then ask for another size, the
    files are decoded again, from their bytes as far as :data:`MOST_KEPT` goes, else from the disk.
    Raises :class:`ImageError` naming the file, :class:`TooFewPartsError` when fewer than ten of the
    pictures differ, and what ``geometry`` raises.
    """
    resolve = geometry if callable(geometry) else lambda _: geometry
    found: Geometry | None = None
    images = np.empty(0, dtype=np.uint8)
    shapes: list[Shape] = []
    digests: list[bytes] = []
    kept: list[PhotoFile] = []
    room = MOST_KEPT if callable(geometry) else 0
    grey = brightest_deep = 0
    for index, path in enumerate(paths):
        file = PhotoFile(path)
        photo = file.decode()
        shapes.append((photo.shape[1], photo.shape[0]))
        digests.append(file.digest())
        if index == 0:
            with suppress(ConfigError):
                found = resolve(shapes)
                images = np.empty((len(paths), found.height, found.width, 3), dtype=np.uint8)
        if found is not None:
            with _naming(path):
                images[index] = found.apply(photo)
        room -= file.data.size
        if room >= 0:
            kept.append(file)
        grey += photo.ndim == 2 or photo.shape[2] == 1
        if photo.dtype == np.uint16:
            brightest_deep = max(brightest_deep, int(photo.max()))
        if on_progress is not None:
            on_progress(index + 1, len(paths))
    final = resolve(shapes)
    if final != found:
        images = np.empty((len(paths), final.height, final.width, 3), dtype=np.uint8)
        for index, path in enumerate(paths):
            file = kept[index] if index < len(kept) else PhotoFile(path)
            if file.digest() != digests[index]:
                raise ImageError(f"{path}: changed while it was read; train again")
            images[index] = file.apply(final)
    picture = group_copies(images)
    different = int(picture.max()) + 1
    if different < FEWEST_GOOD_PARTS:
        same = "all the same picture" if different == 1 else "copies of one another"
        raise TooFewPartsError(
            f"{_parent(paths)}: {len(paths)} good parts, but they are {same} ({different} "
            f"different, at least {FEWEST_GOOD_PARTS} are needed); photograph different parts"
        )
    if 0 < brightest_deep <= FULL_12_BIT:
        raise ImageError(
            f"{_parent(paths)}: 16-bit photos that use only the lowest {brightest_deep} of 65535 "
            f"levels (12-bit data?); have the camera left-align its pixels, or multiply them by 16"
        )
    counts = Counter(shapes)
    shared = {
        "aspect": _common_aspect(counts, final),
        "frame": shapes[0] if final.region is not None and len(counts) == 1 else None,
        "colour": grey == 0,
    }
    return GoodParts(
        images,
        picture,
        final.model_copy(update=shared),
        tuple(shapes),
        tuple(digests),
        _remarks(len(paths), different, counts, grey),
    )


def group_copies(images: Iterable[npt.NDArray[Any]]) -> Index:
    """Number of the picture that each of the N images shows, ``[N]``: copies share one.

    A split goes by pictures, or a part would be tested by a model that has seen its copy. The
    numbers, from 0 without a gap, hang on the pictures alone, not on their order.
    """
    keys = [f"{hashlib.sha256(image.tobytes()).hexdigest()} {image.shape}" for image in images]
    return np.unique(keys, return_inverse=True)[1]


def one_each(index: Index, picture: Index) -> Index:
    """``index`` with the first photo of every picture only; ``picture`` is of all photos."""
    return index[np.sort(np.unique(picture[index], return_index=True)[1])]


def photo_shapes(paths: Sequence[Path]) -> list[Shape]:
    """Of each photo, from its header. Raises :class:`ImageError`."""
    shapes = []
    for path in paths:
        try:
            with warnings.catch_warnings():
                # A line-scan photo may be as large as Pillow takes a bomb to be.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as photo:
                    shapes.append(photo.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            height, width = PhotoFile(path).decode().shape[:2]
            shapes.append((width, height))
    return shapes


def load_sample(sample: Sample, geometry: Geometry) -> Loaded:
    """One test photo and its truth through ``geometry``.

    Raises :class:`ImageError`, :class:`RefusedPhotoError` and :class:`MaskError` naming the file.
    """
    photo = PhotoFile(sample.path).decode()
    with _naming(sample.path):
        image = geometry.apply(photo)
    inner = geometry.inner(geometry.crop(photo).shape)
    if sample.kind == GOOD:
        return Loaded(image, np.zeros(image.shape[:2], dtype=np.bool_), inner)
    if sample.mask is None:
        return Loaded(image, None, inner)
    try:
        drawn = read_image(sample.mask)
    except ValueError as error:
        raise MaskError(f"{error}; draw or copy the mask again") from None
    if drawn.shape[:2] != photo.shape[:2]:
        raise MaskError(
            f"{sample.mask}: mask is {_size(drawn)} px, its image {sample.path} is {_size(photo)} "
            f"px; save the mask at the image's size"
        )
    if drawn.ndim == 3:
        # An opaque alpha channel would mark every pixel as defective.
        drawn = drawn[:, :, :3].max(axis=2)
    # Labels 1, 2, 3 are defects too; in a JPEG, small values are only compression noise.
    lossy = sample.mask.suffix.lower() in {".jpg", ".jpeg"}
    mask = geometry.apply_mask(drawn >= 128 if lossy else drawn > 0)
    return Loaded(image, mask if mask.any() else None, inner)


def read_region(path: Path, region: Box | None) -> Frame8:
    """The judged region of a photo, uint8 BGR at the photo's resolution, None: all of it.

    Raises :class:`ImageError` naming the file.
    """
    photo = PhotoFile(path).decode()
    with _naming(path):
        return to_bgr8(Geometry(height=64, width=64, region=region).crop(photo))


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

    ``digest``: the SHA-256 of a file's contents. Raises :class:`ImageError` for a file that cannot
    be read.
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
    """Mask files by their path below ``truth``, suffix left out."""
    masks: dict[Path, list[Path]] = {}
    for path in list_photos(truth):
        masks.setdefault(path.relative_to(truth).with_suffix(""), []).append(path)
    return masks


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A photo that the geometry refuses is named."""
    try:
        yield
    except Fault as fault:
        raise RefusedPhotoError(
            f"{path}: {fault}; remove the photo, or take it as the others were taken"
        ) from None


def _common_aspect(shapes: Counter[Shape], geometry: Geometry) -> float | None:
    if geometry.region is not None:
        return geometry.region.w / geometry.region.h
    aspects = [width / height for width, height in shapes]
    if max(aspects) > min(aspects) * ONE_ASPECT:
        return None
    width, height = shapes.most_common(1)[0][0]
    return width / height


def _remarks(count: int, different: int, shapes: Counter[Shape], grey: int) -> tuple[str, ...]:
    remarks = []
    if different < count:
        remarks.append(f"{count - different} of {count} good parts are copies of another photo")
    if len(shapes) > 1:
        widths, heights = zip(*shapes, strict=True)
        remarks.append(
            f"photos come in {len(shapes)} sizes, from {min(widths)}x{min(heights)} to "
            f"{max(widths)}x{max(heights)} px; all are brought to the network's size"
        )
    if 0 < grey < count:
        remarks.append(f"{grey} of {count} photos are grey, the others in colour")
    return tuple(remarks)


def _parent(paths: Sequence[Path]) -> Path:
    folders = {path.parent for path in paths}
    first = paths[0].parent
    return first if len(folders) == 1 else first.parent


def _size(image: npt.NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
