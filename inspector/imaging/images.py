"""Pictures: from files and cameras to uint8 BGR, to PNG and JPEG, and measurements on pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from inspector.errors import Fault
from inspector.imaging.formats import HEAD_BYTES, check_one_picture, format_of, without_turn
from inspector.imaging.jpeg import decode_jpeg, is_jpeg
from inspector.verdict import FloatMap, Frame8, Reason

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
    | {".jp2", ".j2k", ".jpc", ".jpf", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".gif", ".avif"}
    | {".ras", ".sr"}
)
"""What is called so must be a picture; what is called otherwise may be one."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
# OpenCV's log is silenced: the errors raised here say in one line what is wrong with a file.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def to_bgr8(frame: npt.NDArray[Any]) -> Frame8:
    """A picture of a camera or a file as uint8 BGR ``[H, W, 3]``; one that is so already, as it is.

    ``frame``: uint8 or uint16, ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` (BGR) or ``[H, W, 4]``
    (BGRA). 16 bit values are divided by 257, whatever the picture's brightest is, so that a black
    frame stays black. Raises :class:`Fault` (``frame_shape``) for any other shape or dtype.
    """
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if (
        frame.size == 0
        or frame.ndim not in (2, 3)
        or (frame.ndim == 3 and frame.shape[2] not in (3, 4))
    ):
        raise Fault(Reason.FRAME_SHAPE.value, f"a frame of shape {frame.shape} is not a picture")
    if frame.dtype == np.uint16:
        frame = (frame // 257).astype(np.uint8)
    elif frame.dtype != np.uint8:
        raise Fault(
            Reason.FRAME_SHAPE.value, f"a frame of {frame.dtype} is neither uint8 nor uint16"
        )
    if frame.ndim == 2:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if frame.shape[2] == 4:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR), dtype=np.uint8)
    return frame


def read_image(path: Path) -> npt.NDArray[Any]:
    """Read an image file as it is: uint8 or uint16, grey ``[H, W]``, BGR or BGRA ``[H, W, C]``.

    Whatever the file says about the way to show it (EXIF orientation), the pixels come as they are
    stored. Raises ValueError with path and cause when the file is missing, damaged, in a format
    that is not read, or holds more than one page or frame.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    return decode_file(data, path)


def decode_file(data: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[Any]:
    """The picture in the bytes uint8 ``[n]`` of the file ``path``: as :func:`read_image`."""
    if data.size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        return _decode_only(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _decode_only(data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The one whole picture in a file. Raises ValueError, which says what "the image" is not."""
    if is_jpeg(data[:3].tobytes()):
        return decode_jpeg(data.tobytes())
    check_one_picture(data.data)
    data = without_turn(data)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        kind = format_of(data[:HEAD_BYTES].tobytes())
        raise ValueError(f"not a readable image: a damaged {kind}, or one of a kind unknown here")
    return image


def shrink(picture: npt.NDArray[Any], longest_px: int) -> Frame8:
    """A picture as :func:`to_bgr8` takes it, as uint8 BGR, no side longer than ``longest_px``.

    One that is smaller keeps its size. Raises :class:`Fault` or ValueError for what is no picture.
    """
    height, width = picture.shape[:2]
    scale = longest_px / max(height, width, 1)
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        # Before the colours are made: of a large picture that is most of the work.
        try:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        except cv2.error:
            raise ValueError(f"a frame of shape {picture.shape} is not a picture") from None
    return to_bgr8(picture)


def encode_png(image: Frame8) -> bytes:
    """A uint8 picture, grey ``[H, W]`` or BGR ``[H, W, 3]``, as PNG, which loses nothing.

    Raises ValueError when it is no such picture.
    """
    return _encode("PNG", image)


def encode_jpeg(image: Frame8, quality: int = 85) -> bytes:
    """A uint8 BGR picture ``[H, W, 3]`` as JPEG; ``quality`` is 0 to 100.

    Raises ValueError when it is no such picture, or larger than 65,500 pixels a side.
    """
    return _encode("JPEG", image, (cv2.IMWRITE_JPEG_QUALITY, quality))


def _encode(kind: str, image: Frame8, options: Sequence[int] = ()) -> bytes:
    try:
        done, data = cv2.imencode(f".{kind.lower()}", image, options)
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"cannot encode a picture of shape {image.shape} as {kind}")
    return bytes(data)


def decode(data: bytes) -> Frame8:
    """The picture in the bytes of a PNG or JPEG: uint8, grey ``[H, W]`` or BGR ``[H, W, 3]``.

    Raises ValueError when there is none.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError("not a readable picture")
    return np.asarray(image, dtype=np.uint8)


def png_size(data: bytes) -> tuple[int, int]:
    """(width, height) that the bytes of a PNG name. Raises ValueError when they are no PNG."""
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError("not a PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def exposure(picture: Frame8) -> tuple[float, float]:
    """Brightness (mean grey level, 0..255) and sharpness (variance of the Laplacian).

    ``picture``: uint8 BGR ``[H, W, 3]``.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return float(grey.mean()), float(cv2.Laplacian(grey, cv2.CV_32F).var())


def half_grey(picture: Frame8) -> FloatMap:
    """The grey levels of a picture at half its size, each the mean of four.

    ``picture``: uint8 BGR ``[H, W, 3]``. Returns float32 ``[H // 2, W // 2]``.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def edge_energy(grey: FloatMap) -> FloatMap:
    """Square of the Laplacian (over 4 neighbours) of grey levels, float32 ``[H, W]``.

    It is 0 on the border, where neighbours are missing.
    """
    energy = np.zeros_like(grey)
    inner = np.s_[1:-1, 1:-1]
    np.square(cv2.Laplacian(grey, cv2.CV_32F, ksize=1)[inner], out=energy[inner])
    return energy


def gaussian_blur(grey: FloatMap, sigma: float) -> FloatMap:
    """Grey levels, float32 ``[H, W]``, blurred by a Gaussian of ``sigma`` pixels.

    Beyond its border the picture goes on as its reflection.
    """
    side = 2 * math.ceil(3 * sigma) + 1
    blurred = cv2.GaussianBlur(grey, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float32)
