"""JPEG, decoded so that a picture which is not whole is refused.

Most decoders only warn of data that ends too early and fill up the rest: with grey, or in a stream
with the picture before. Here a warning is an error, and a JPEG of several scans must have them all.
The pixels are those of OpenCV, which has the same decoder (libjpeg-turbo).
"""

from __future__ import annotations

import re
import struct
from typing import Final

import cv2
import numpy as np
import simplejpeg

from inspector.verdict import Frame8

_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_MOST_PIXELS: Final = 1 << 30
"""As in OpenCV: larger ones are corrupt headers."""

_HUFFMAN: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Markers of frames with Huffman codes. Decoders fill up an arithmetic code without a warning."""
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})
"""Markers between 0xC0 and 0xCF that begin no frame."""
_PROGRESSIVE, _SCAN, _TRAILER = 0xC2, 0xDA, 0xD9
_NEXT_MARKER: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""The end of a scan's codes, in which 0xFF is followed by 0 or by a restart marker."""


def is_jpeg(data: bytes) -> bool:
    """Whether ``data`` begins like a JPEG."""
    return data[:3] == b"\xff\xd8\xff"


def decode_jpeg(data: bytes) -> Frame8:
    """The whole picture in the bytes of a JPEG: uint8, grey ``[H, W]`` or BGR ``[H, W, 3]``.

    Bytes after its end are ignored, unless another picture begins there. Raises ValueError, whose
    text says what is wrong with "the image", for anything else than one whole picture.
    """
    _check_whole(data)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > _MOST_PIXELS:
            raise ValueError(f"{width}x{height} px are too many")
        if colours in ("CMYK", "YCCK"):
            # The strict decoder does not make BGR of printing colours; it only looks for damage.
            simplejpeg.decode_jpeg(data, "CMYK")
            return _print_colours(data)
        decoded = simplejpeg.decode_jpeg(data, "GRAY" if colours == "Gray" else "BGR")
    except ValueError as error:
        raise ValueError(f"the image is damaged: {_in_one_line(error)}") from None
    picture: Frame8 = decoded.reshape(height, width) if colours == "Gray" else decoded
    return picture


def _print_colours(data: bytes) -> Frame8:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(str(error)) from None
    if image is None:
        raise ValueError("its colours cannot be converted")
    return np.asarray(image, np.uint8)


def _check_whole(data: bytes) -> None:
    """Raise ValueError when scans are missing, or when another picture follows.

    The decoder cannot tell: a file may end after each scan, and a picture after another is ignored.
    """
    if not is_jpeg(data):
        raise ValueError("the image is no JPEG")
    frame, several = _Frame(), False
    at = len(_START)
    try:
        while True:
            if data[at] != 0xFF:
                raise ValueError("the image is damaged: no marker where one must be")
            marker = data[at + 1]
            if marker == 0xFF:
                at += 1
                continue
            if marker == _TRAILER:
                break
            (length,) = struct.unpack_from(">H", data, at + 2)
            segment = data[at + 4 : at + 2 + length]
            if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
                frame.begin(marker, segment)
            several |= marker == 0xE2 and segment.startswith(b"MPF\0")
            at += 2 + length
            if marker == _SCAN:
                frame.add_scan(segment)
                at = _end_of_scan(data, at, frame.is_complete)
    except (IndexError, struct.error):
        raise ValueError("the image is truncated") from None
    if not frame.is_complete:
        raise ValueError("the image is truncated: some of its scans are missing")
    # The multi-picture format keeps previews and depth maps behind the picture itself.
    if data[at + 2 : at + 5] == b"\xff\xd8\xff" and not several:
        raise ValueError("the image is followed by another one; only one is a part")


def _end_of_scan(data: bytes, at: int, complete: bool) -> int:
    """Where the first marker after the codes at ``at`` stands; after the last scan, the end's."""
    if complete:
        # With the last scan the decoder stops, and only the end marker may follow.
        end = data.find(_END, at)
        if end < 0:
            raise IndexError
        return end
    found = _NEXT_MARKER.search(data, at)
    if found is None:
        raise IndexError
    return found.end() - 2


class _Frame:
    """Which bits of which coefficients the scans have brought so far."""

    def __init__(self) -> None:
        self._progressive = False
        self._missing: dict[int, list[int]] = {}
        """For each component, for each coefficient, the bits not yet there; 99: all of them."""

    def begin(self, marker: int, segment: bytes) -> None:
        if marker not in _HUFFMAN:
            raise ValueError("the image is an arithmetic-coded or lossless JPEG; save it as PNG")
        self._progressive = marker == _PROGRESSIVE
        count = segment[5]
        self._missing = {segment[6 + 3 * number]: [99] * 64 for number in range(count)}

    def add_scan(self, segment: bytes) -> None:
        count = segment[0]
        first, last, bits = (segment[1 + 2 * count + number] for number in range(3))
        for number in range(count):
            missing = self._missing.get(segment[1 + 2 * number])
            if missing is None:
                raise ValueError("the image is damaged: a scan of a component that it has not")
            if self._progressive:
                missing[first : last + 1] = [bits & 15] * (last + 1 - first)
            else:
                missing[:] = [0] * 64

    @property
    def is_complete(self) -> bool:
        return bool(self._missing) and not any(map(any, self._missing.values()))


def _in_one_line(error: ValueError) -> str:
    return " ".join(str(error).split())
