"""Photos of parts as the network sees them, each file opened once."""

from __future__ import annotations

import hashlib
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

from export.data.dataset import FEWEST_GOOD_PARTS, Mask, Sample, read_mask
from export.data.layouts import GOOD
from export.data.photo_folders import list_photos
from export.settings import ONE_ASPECT
from inspector.errors import (
    ConfigError,
    Fault,
    ImageError,
    MaskError,
    TooFewPartsError,
)
from inspector.imaging.folders import say_turned
from inspector.imaging.formats import is_turned
from inspector.imaging.geometry import Box, Geometry
from inspector.imaging.images import decode_file, to_bgr8
from inspector.verdict import Frame8

OnProgress = Callable[[int, int], None]
"""Called with (done, total) after every image."""

Index = npt.NDArray[np.intp]

MOST_KEPT: Final = 256_000_000
"""Bytes of photo files kept in memory for a second decoding, which training needs when photos of
several shapes ask for another size than the first photo does. Further files are opened again."""

_PLAIN_HEADERS: Final = ("PNG", "JPEG", "BMP", "WEBP")
"""Formats whose headers name the size that is stored. Pillow turns a TIFF as the file says."""

FULL_12_BIT: Final = 4095
"""16-bit files no brighter than this hold right-aligned 12-bit data: 16 levels after scaling."""


Shape = tuple[int, int]
"""Width and height of a photo, pixels."""


class PhotoFile:
    """The bytes of a photo, its file opened once. Raises :class:`ImageError` naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.content: npt.NDArray[np.uint8] = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise ImageError(
                f"{path}: {error.strerror or error}; remove the file or take the photo again"
            ) from None

    def digest(self) -> bytes:
        """SHA-256 of the bytes, as :func:`export.data.dataset.digest_file`."""
        return hashlib.sha256(self.content.data).digest()

    def decode(self) -> npt.NDArray[Any]:
        """The picture unchanged: uint8 or uint16, grey, BGR or BGRA; raises :class:`ImageError`."""
        try:
            return decode_file(self.content, self.path)
        except ValueError as error:
            raise ImageError(f"{error}; remove the file or take the photo again") from None

    def apply(self, geometry: Geometry) -> Frame8:
        """The picture at network size, uint8 BGR. Raises ImageError and RefusedPhotoError."""
        photo = self.decode()
        with _naming(self.path):
            return geometry.apply(photo)

    def crop(self, region: Box | None) -> Frame8:
        """The judged region at the photo's resolution, uint8 BGR; the whole photo for None.

        Raises :class:`ImageError`, :class:`RefusedPhotoError`.
        """
        photo = self.decode()
        with _naming(self.path):
            return to_bgr8(Geometry(height=64, width=64, region=region).crop(photo))


class KeptFiles:
    """Photo files, each opened once as long as their bytes fit into ``room``."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: dict[Path, PhotoFile] = {}

    def open(self, path: Path) -> PhotoFile:
        """The file, from memory when it was kept. Raises :class:`ImageError`."""
        file = self._kept.get(path)
        if file is None:
            file = PhotoFile(path)
            if file.content.size <= self._room:
                self._room -= file.content.size
                self._kept[path] = file
        return file


class RefusedPhotoError(ImageError):
    """A sound photo that the model refuses for its shape or colour, as it does on the line."""


class Loaded(NamedTuple):
    """A test photo as the network sees it.

    ``image``: uint8 BGR ``[H, W, 3]``. ``mask``: bool ``[H, W]``, all False for a good part, None
    for a defect without a mask, or whose mask has no pixel left at this size. ``inner``: rows and
    columns that the photo fills; the rest of a letterbox is the photo's reflection.
    """

    image: Frame8
    mask: Mask | None
    inner: tuple[slice, slice]


@dataclass(frozen=True)
class GoodParts:
    """The good parts as the network sees them.

    ``images``: uint8 BGR ``[N, H, W, 3]``. ``picture`` ``[N]``: see :func:`group_copies`.
    ``geometry``: the one asked for, completed by the values that all photos share: ``aspect`` if
    their aspect ratios agree within 1 %, ``frame`` if a region is cut out. ``shapes`` and
    ``digests`` (SHA-256 of the file) have an entry for each photo. ``remarks``: lines for a person
    about photos that differ in size or colour, are copies of one another, or to be shown turned.
    """

    images: Frame8
    picture: Index
    geometry: Geometry
    shapes: tuple[Shape, ...]
    digests: tuple[bytes, ...]
    remarks: tuple[str, ...]


def load_good(
    paths: Sequence[Path],
    geometry: Geometry | Callable[[Sequence[Shape]], Geometry],
    on_progress: OnProgress | None = None,
) -> GoodParts:
    """Decode good parts through ``geometry``, or through its result for the shapes of all photos.

    Each file is opened once and its picture kept at network size only (:data:`MOST_KEPT` tells the
    exception). Raises :class:`ImageError` naming the file, :class:`TooFewPartsError` when fewer
    than ten of the pictures differ, and what ``geometry`` raises.
    """
    reading = _Reading(paths, geometry, on_progress)
    images, geometry = reading.images, reading.geometry
    picture = group_copies(images)
    different = int(picture.max()) + 1
    if different < FEWEST_GOOD_PARTS:
        same = "all the same picture" if different == 1 else "copies of one another"
        raise TooFewPartsError(
            f"{_parent(paths)}: {len(paths)} good parts, but they are {same} ({different} "
            f"different, at least {FEWEST_GOOD_PARTS} are needed); photograph different parts"
        )
    if 0 < reading.brightest_deep <= FULL_12_BIT:
        raise ImageError(
            f"{_parent(paths)}: 16-bit photos that use only the lowest {reading.brightest_deep} of "
            f"65535 levels (12-bit data?); have the camera left-align its pixels, or multiply them "
            f"by 16"
        )
    counts = Counter(reading.shapes)
    shared = {
        "aspect": _common_aspect(counts, geometry),
        "frame": reading.shapes[0] if geometry.region is not None and len(counts) == 1 else None,
        "colour": reading.grey == 0,
    }
    return GoodParts(
        images,
        picture,
        geometry.model_copy(update=shared),
        tuple(reading.shapes),
        tuple(reading.digests),
        _remarks(len(paths), different, counts, reading.grey, reading.turned),
    )


class _Reading:
    """One reading of photos: their ``images`` through ``geometry``, their shapes and digests.

    ``grey`` counts photos without colour, ``turned`` those to be shown turned; ``brightest_deep``
    is the largest value in 16-bit photos.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        geometry: Geometry | Callable[[Sequence[Shape]], Geometry],
        on_progress: OnProgress | None,
    ) -> None:
        self.shapes: list[Shape] = []
        self.digests: list[bytes] = []
        self.grey = self.brightest_deep = self.turned = 0
        self._paths = paths
        self._files = KeptFiles(MOST_KEPT if callable(geometry) else 0)
        resolve = geometry if callable(geometry) else lambda _: geometry
        self.images, tried = self._read_all(resolve, on_progress)
        self.geometry = resolve(self.shapes)
        if self.geometry != tried:
            del self.images
            self.images = self._decode_again()

    def _read_all(
        self, resolve: Callable[[Sequence[Shape]], Geometry], on_progress: OnProgress | None
    ) -> tuple[Frame8, Geometry | None]:
        """Open each file once; pictures get the size that the first photo by itself asks for."""
        images, tried = np.empty((0, 0, 0, 3), dtype=np.uint8), None
        for index, path in enumerate(self._paths):
            file = self._files.open(path)
            photo = file.decode()
            self._note(file, photo)
            if index == 0:
                # The first photo by itself may fit no size although all photos together do.
                with suppress(ConfigError):
                    tried = resolve(self.shapes)
                    images = _empty(len(self._paths), tried)
            if tried is not None:
                with self._blaming(path, tried):
                    images[index] = tried.apply(photo)
            if on_progress is not None:
                on_progress(index + 1, len(self._paths))
        return images, tried

    @contextmanager
    def _blaming(self, path: Path, geometry: Geometry) -> Iterator[None]:
        """Raise a fault as :class:`RefusedPhotoError`, or if no photo is at fault as ConfigError.

        That is when the region lies in none of them.
        """
        try:
            with _naming(path):
                yield
        except RefusedPhotoError:
            region = geometry.region
            if region is None:
                raise
            shapes = photo_shapes(self._paths)
            if any(region.x + region.w <= w and region.y + region.h <= h for w, h in shapes):
                raise
            widest, highest = (max(sides) for sides in zip(*shapes, strict=True))
            raise ConfigError(
                f"region {region.x},{region.y},{region.w},{region.h}: reaches beyond the photos, "
                f"which have {widest}x{highest} px; give one within them, by --region or in the "
                f"file of --config"
            ) from None

    def _note(self, file: PhotoFile, photo: npt.NDArray[Any]) -> None:
        self.shapes.append((photo.shape[1], photo.shape[0]))
        self.digests.append(file.digest())
        self.turned += is_turned(file.content.data)
        self.grey += photo.ndim == 2 or photo.shape[2] == 1
        if photo.dtype == np.uint16:
            self.brightest_deep = max(self.brightest_deep, int(photo.max()))

    def _decode_again(self) -> Frame8:
        """Pictures through the geometry that all photos ask for."""
        images = _empty(len(self._paths), self.geometry)
        for index, path in enumerate(self._paths):
            file = self._files.open(path)
            if file.digest() != self.digests[index]:
                raise ImageError(f"{path}: was changed while it was read; begin again")
            with self._blaming(path, self.geometry):
                images[index] = self.geometry.apply(file.decode())
        return images


def _empty(count: int, geometry: Geometry) -> Frame8:
    return np.empty((count, geometry.height, geometry.width, 3), dtype=np.uint8)


def group_copies(images: Iterable[npt.NDArray[Any]]) -> Index:
    """Number of the picture that each of the N images shows, ``[N]``; copies have one number.

    Parts are split by picture, or a part would be tested by a model that has seen its copy. The
    numbers count from 0 without a gap and depend on the pictures alone, not on their order.
    """
    keys = [f"{hashlib.sha256(image.tobytes()).hexdigest()} {image.shape}" for image in images]
    return np.unique(keys, return_inverse=True)[1]


def one_each(index: Index, picture: Index) -> Index:
    """``index`` with only the first photo of each picture; ``picture`` covers all photos."""
    return index[np.sort(np.unique(picture[index], return_index=True)[1])]


def photo_shapes(paths: Sequence[Path]) -> list[Shape]:
    """The shape of each photo, from its header. Raises :class:`ImageError`."""
    shapes = []
    for path in paths:
        try:
            with warnings.catch_warnings():
                # Pillow takes large photos, such as those of line scans, for decompression bombs.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path, formats=_PLAIN_HEADERS) as photo:
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
    drawn = np.zeros(photo.shape[:2], dtype=np.bool_)
    for path in list_photos(sample.mask) if sample.mask.is_dir() else (sample.mask,):
        mask = read_mask(path)
        if mask.shape != drawn.shape:
            raise MaskError(
                f"{path}: mask is {_size(mask)} px, its image {sample.path} is {_size(photo)} px; "
                f"save the mask at the image's size"
            )
        drawn |= mask
    mask = geometry.apply_mask(drawn)
    return Loaded(image, mask if mask.any() else None, inner)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Raise a fault of the geometry as :class:`RefusedPhotoError`, which names the photo."""
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


def _remarks(
    count: int, different: int, shapes: Counter[Shape], grey: int, turned: int
) -> tuple[str, ...]:
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
    if turned:
        remarks.append(say_turned(turned, count))
    return tuple(remarks)


def _parent(paths: Sequence[Path]) -> Path:
    folders = {path.parent for path in paths}
    first = paths[0].parent
    return first if len(folders) == 1 else first.parent


def _size(image: npt.NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
