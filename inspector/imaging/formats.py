"""Which format a picture's file has, whether all of it is there, and whether it holds just one.

OpenCV decodes the formats, but some of its versions fill up what is missing, and none of them tells
that a file holds more than one picture. So the structure of each format is followed here to its
end, before anything is decoded. A format that does not say how long it is, is refused.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

_TRUNCATED: Final = "the image is truncated"
_SEVERAL: Final = "the image has more than one page or frame; save the one to judge alone"
NO_IMAGE: Final = (
    "not a readable image (PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, PBM, PGM, PPM, PAM, GIF, AVIF or "
    "Sun raster)"
)

HEAD_BYTES: Final = 64
"""So many bytes of a file are enough for :func:`format_of`."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TIFF: Final = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
"""How a TIFF begins: its byte order, and whether its offsets have 64 bits."""
_ORIENTATION: Final = 0x0112
_GAP: Final = rb"(?:\s|#[^\n]*\n)+"
_BITMAP: Final = re.compile(rb"P[456]" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)")
"""The head of a PBM, PGM or PPM: width and height."""
_MOST: Final = re.compile(_GAP + rb"(\d+)\s")
_SUN: Final = b"\x59\xa6\x6a\x95"
_BOXES: Final = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIC",
}
_MOST_TILES: Final = 65535
"""Of a JPEG 2000, by its standard."""
_REFUSED: Final = {
    "HEIC": "a HEIC photo, as phones make them, which OpenCV does not read; save it as JPEG or PNG",
    "text": "a PBM, PGM or PPM in plain text, of which nobody can tell whether all of it is there; "
    "save it in binary, or as PNG",
    "light": "holds amounts of light without a white (HDR, PFM or OpenEXR); save it as PNG or TIFF",
}
"""What is recognised in order to say why it is not read."""


def format_of(head: bytes) -> str:
    """What the first :data:`HEAD_BYTES` of a file are the beginning of; "" for no format."""
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head.startswith(_PNG):
        return "PNG"
    if head[:4] in _TIFF:
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:12] == b"jP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        return "JPEG 2000"
    if _BITMAP.match(head):
        return "PNM"
    if re.match(rb"P[123]" + _GAP + rb"\d", head):
        return "text"
    if head.startswith(b"P7\n"):
        return "PAM"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head.startswith(_SUN):
        return "Sun raster"
    if head[4:8] == b"ftyp":
        return _BOXES.get(head[8:12], "")
    if head.startswith((b"#?RADIANCE", b"#?RGBE", b"PF\n", b"Pf\n", b"\x76\x2f\x31\x01")):
        return "light"
    return ""


def is_photo(head: bytes) -> bool:
    """Whether a file of another suffix than those of pictures is one by its first bytes.

    No TIFF is: the raw files of cameras begin like it and hold a preview. Nor is what begins with
    the letters BM, unless the rest of a BMP's header follows.
    """
    kind = format_of(head)
    if kind == "BMP":
        return head[6:10] == b"\0\0\0\0" and head[14:18] in (
            b"\x28\0\0\0",
            b"\x6c\0\0\0",
            b"\x7c\0\0\0",
        )
    return kind not in {"", "TIFF", *_REFUSED}


def check_one_picture(data: memoryview) -> None:
    """Raise ValueError, which says what "the image" is, unless ``data`` is one whole picture.

    JPEGs are left to :mod:`inspector.imaging.jpeg`.
    """
    kind = format_of(bytes(data[:HEAD_BYTES]))
    if kind in _REFUSED:
        raise ValueError(_REFUSED[kind])
    if not kind:
        raise ValueError(NO_IMAGE)
    check = _CHECKS.get(kind)
    try:
        several = check is not None and check(data)
    except (struct.error, OverflowError, IndexError):
        # Offsets of 64 bits may be larger than any index.
        raise ValueError(_TRUNCATED) from None
    if several:
        raise ValueError(_SEVERAL)


def is_turned(data: memoryview) -> bool:
    """Whether the file says that its picture is to be shown turned or mirrored (EXIF)."""
    kind = format_of(bytes(data[:HEAD_BYTES]))
    with contextlib.suppress(struct.error, OverflowError, IndexError, ValueError):
        if kind == "AVIF":
            meta = b"".join(
                bytes(data[at:end]) for name, at, end in _boxes(data) if name == b"meta"
            )
            return re.search(rb"irot[\x01-\x03]|imir", meta) is not None
        return _place_of_turn(_exif(kind, data)) is not None
    return False


def without_turn(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``data`` such that OpenCV gives the pixels as they are stored: it turns a TIFF unasked."""
    if bytes(data[:4]) not in _TIFF:
        return data
    try:
        place = _place_of_turn(data.data)
    except (struct.error, OverflowError, IndexError):
        return data
    if place is None:
        return data
    upright = data.copy()
    upright[place] = 1
    return upright


def _exif(kind: str, data: memoryview) -> memoryview:
    """The EXIF block of a picture, which is a TIFF without pixels; empty where there is none."""
    if kind == "TIFF":
        return data
    if kind == "JPEG":
        at = 2
        while data[at] == 0xFF and data[at + 1] != 0xDA:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if data[at + 1] == 0xE1 and bytes(data[at + 4 : at + 10]) == b"Exif\0\0":
                return data[at + 10 : at + 2 + length]
            at += 2 + length
    elif kind == "PNG":
        for name, at, end in _png_chunks(data):
            if name == b"eXIf":
                return data[at:end]
    elif kind == "WebP":
        for name, at, end in _riff_chunks(data):
            if name == b"EXIF":
                has_prefix = bytes(data[at : at + 6]) == b"Exif\0\0"
                return data[at + 6 * has_prefix : end]
    return data[:0]


def _place_of_turn(tiff: memoryview) -> int | None:
    """Where the first directory of a TIFF says otherwise than that it is upright; None if nowhere.

    The place is that of the value's lower byte; the value is below 256.
    """
    head = _TIFF.get(bytes(tiff[:4]))
    if head is None:
        return None
    order, big = head
    count, offset, size = ("Q", "Q", 20) if big else ("H", "I", 12)
    (at,) = struct.unpack_from(f"{order}{offset}", tiff, 8 if big else 4)
    (entries,) = struct.unpack_from(f"{order}{count}", tiff, at)
    at += struct.calcsize(count)
    for entry in range(at, at + entries * size, size):
        (tag,) = struct.unpack_from(f"{order}H", tiff, entry)
        if tag == _ORIENTATION:
            place = entry + (12 if big else 8)
            (value,) = struct.unpack_from(f"{order}H", tiff, place)
            return place + (order == ">") if 2 <= value <= 8 else None
    return None


def _is_animated_png(data: memoryview) -> bool:
    """Whether a PNG announces an animation. Raises ValueError when it lacks its end."""
    if b"IEND" not in bytes(data[-4096:]):
        raise ValueError(_TRUNCATED)
    for name, _, _ in _png_chunks(data):
        if name in (b"acTL", b"IDAT"):
            return name == b"acTL"
    return False


def _png_chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    at = len(_PNG)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, at + 8 + length
        at += 12 + length


def _has_more_pages(data: memoryview) -> bool:
    """Whether the first page's directory in a TIFF names another one."""
    order, big = _TIFF[bytes(data[:4])]
    count, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    (at,) = struct.unpack_from(f"{order}{offset}", data, 8 if big else 4)
    (entries,) = struct.unpack_from(f"{order}{count}", data, at)
    at += struct.calcsize(count) + entries * entry
    (following,) = struct.unpack_from(f"{order}{offset}", data, at)
    return bool(following != 0)


def _is_animated_webp(data: memoryview) -> bool:
    names = [name for name, _, _ in _riff_chunks(data)]
    if b"ANIM" in names or b"ANMF" in names:
        return True
    if sum(name in (b"VP8 ", b"VP8L") for name in names) != 1:
        raise ValueError(_TRUNCATED)
    return False


def _riff_chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    (size,) = struct.unpack_from("<I", data, 4)
    end, at = 8 + size, 12
    if end > len(data):
        raise ValueError(_TRUNCATED)
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise ValueError(_TRUNCATED)
        yield name, at + 8, at + 8 + length
        at += 8 + length + length % 2


def _has_more_bitmaps(data: memoryview) -> bool:
    """Of a PBM, PGM or PPM; raises ValueError also for grey levels that OpenCV would not scale."""
    text = bytes(data[:4096])
    head = _BITMAP.match(text)
    if head is None:
        raise ValueError(_TRUNCATED)
    width, height, at = int(head[1]), int(head[2]), head.end() + 1
    if text[1:2] == b"4":
        return _more_follow(data, at + height * ((width + 7) // 8))
    most = _MOST.match(text, head.end())
    if most is None:
        raise ValueError(_TRUNCATED)
    bytes_each = _bytes_of_level(int(most[1]))
    colours = 3 if text[1:2] == b"6" else 1
    return _more_follow(data, most.end() + width * height * colours * bytes_each)


def _has_more_maps(data: memoryview) -> bool:
    """Of a PAM."""
    head, mark, _ = bytes(data[:4096]).partition(b"ENDHDR\n")
    named = dict(re.findall(rb"^(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d+)", head, re.MULTILINE))
    if not mark or len(named) != 4:
        raise ValueError(_TRUNCATED)
    width, height, depth = (int(named[name]) for name in (b"WIDTH", b"HEIGHT", b"DEPTH"))
    each = _bytes_of_level(int(named[b"MAXVAL"]))
    return _more_follow(data, len(head) + len(mark) + width * height * depth * each)


def _bytes_of_level(most: int) -> int:
    if most not in (255, 65535):
        raise ValueError(f"the image counts grey levels to {most}; save it with 8 or 16 bits")
    return 1 if most == 255 else 2


def _more_follow(data: memoryview, end: int) -> bool:
    """Whether a further bitmap begins at ``end``, where the first one ends."""
    if end > len(data):
        raise ValueError(_TRUNCATED)
    return re.match(rb"\s*P[1-7]\s", bytes(data[end : end + HEAD_BYTES])) is not None


def _has_more_frames(data: memoryview) -> bool:
    """Of a GIF."""
    at = 13 + _palette(data[10])
    frames = 0
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            frames += 1
            at += 11 + _palette(data[at + 9])
        elif data[at] == 0x21:
            at += 2
        else:
            raise ValueError("the image is damaged: an unknown block in a GIF")
        while data[at]:
            at += 1 + data[at]
        at += 1
    if frames == 0:
        raise ValueError(_TRUNCATED)
    return frames > 1


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _check_sun(data: memoryview) -> bool:
    width, height, depth, length, kind, _, palette = struct.unpack_from(">7I", data, 4)
    # The oldest kind leaves out how long it is, since it is never compressed.
    rows = height * (2 * ((width * depth + 15) // 16))
    if 32 + palette + (rows if kind in (0, 1) else length) > len(data):
        raise ValueError(_TRUNCATED)
    if kind > 2:
        raise ValueError(NO_IMAGE)
    return False


def _boxes(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes of an ISO file: their names, and where their contents begin and end."""
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if name == b"\0\0\0\0":
            return
        end = at + length if length else len(data)
        if end > len(data) or end < at + head:
            raise ValueError(_TRUNCATED)
        yield name, at + head, end
        at = end
    # What is left is the beginning of a box, or what a disk has put behind the file.
    if any(data[at:]):
        raise ValueError(_TRUNCATED)


def _is_sequence(data: memoryview) -> bool:
    """Of an AVIF."""
    found = [name for name, _, _ in _boxes(data)]
    if b"moov" in found or bytes(data[8:12]) == b"avis":
        return True
    if b"meta" not in found or b"mdat" not in found:
        raise ValueError(_TRUNCATED)
    return False


def _has_more_codestreams(data: memoryview) -> bool:
    """Of a JPEG 2000; raises ValueError also for levels that OpenCV would not scale."""
    if data[0] == 0xFF:
        _check_codestream(data)
        return False
    streams = [data[at:end] for name, at, end in _boxes(data) if name == b"jp2c"]
    if not streams:
        raise ValueError(_TRUNCATED)
    for stream in streams:
        _check_codestream(stream)
    return len(streams) > 1


def _check_codestream(data: memoryview) -> None:
    """Follow the tile-parts of a JPEG 2000 codestream to its end marker."""
    right, lower, _, _, wide, high, from_x, from_y, count = struct.unpack_from(">8IH", data, 8)
    for component in range(42, 42 + 3 * count, 3):
        if data[component] not in (7, 15):
            bits = (data[component] & 0x7F) + 1
            raise ValueError(f"the image has levels of {bits} bits; save it with 8 or 16 bits")
    tiles = -(-(right - from_x) // max(1, wide)) * -(-(lower - from_y) // max(1, high))
    if not 0 < tiles <= _MOST_TILES:
        raise ValueError(NO_IMAGE)
    missing = set(range(tiles))
    at = 2
    while True:
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == 0xFFD9:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker != 0xFF90:
            at += 2 + length
            continue
        tile, size = struct.unpack_from(">HI", data, at + 4)
        missing.discard(tile)
        # The last tile-part may leave its length out: it ends with the codestream.
        at = at + size if size else _end_marker(data, at)
    if missing:
        raise ValueError(_TRUNCATED)


def _end_marker(data: memoryview, at: int) -> int:
    found = bytes(data[at:]).rfind(b"\xff\xd9")
    if found < 0:
        raise ValueError(_TRUNCATED)
    return at + found


_CHECKS: Final[dict[str, Callable[[memoryview], bool]]] = {
    "PNG": _is_animated_png,
    "TIFF": _has_more_pages,
    "WebP": _is_animated_webp,
    "JPEG 2000": _has_more_codestreams,
    "PNM": _has_more_bitmaps,
    "PAM": _has_more_maps,
    "GIF": _has_more_frames,
    "AVIF": _is_sequence,
    "Sun raster": _check_sun,
}
"""For each format, whether a file holds more than one picture; ValueError when it is not whole.
A BMP can hold just one, and OpenCV refuses it when anything is missing."""
