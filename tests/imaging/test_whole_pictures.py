"""A photo that is not whole, or that holds several pictures, is refused; it is never filled up."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inspector.imaging.formats import is_turned
from inspector.imaging.images import decode_file
from inspector.imaging.jpeg import decode_jpeg
from tests.videos import END, cut, encode, speckled

PICTURE = speckled(np.linspace(20, 230, 90 * 121 * 3).reshape(90, 121, 3))
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)
UNCHANGED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION


Image.init()
WRITES_AVIF = "AVIF" in Image.SAVE_ALL
"""Pillow's versions before 11.3 do not."""


def pillow(kind: str, picture: np.ndarray = PICTURE, mode: str = "", **options: object) -> bytes:
    image, file = Image.fromarray(picture), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def opencv(suffix: str, picture: np.ndarray = PICTURE, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, picture, options)[1])


DEEP = PICTURE.astype(np.uint16) * 257
JPEGS = {
    "baseline": encode(PICTURE),
    "every pixel's colour": encode(
        PICTURE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    ),
    "restarts": encode(PICTURE, *RESTARTS),
    "progressive": encode(PICTURE, *PROGRESSIVE),
    "progressive with restarts": encode(PICTURE, *PROGRESSIVE, *RESTARTS),
    "grey": encode(PICTURE[..., 0]),
    "progressive grey": encode(PICTURE[..., 0], *PROGRESSIVE),
    "printing colours": pillow("JPEG", mode="CMYK"),
    "RGB": pillow("JPEG", keep_rgb=True),
    "thumbnail": pillow("JPEG", progressive=True, exif=b"Exif\0\0" + encode(PICTURE[:40, :40])),
}
OTHERS = {
    "png": opencv(".png"),
    "png of 16 bit": opencv(".png", DEEP),
    "png by Pillow": pillow("PNG"),
    "png with a palette": pillow("PNG", mode="P"),
    "bmp": opencv(".bmp"),
    "grey bmp": opencv(".bmp", PICTURE[..., 0]),
    "tiff": opencv(".tiff"),
    "tiff of 16 bit": opencv(".tiff", DEEP),
    **{
        f"tiff by Pillow, {packed}": pillow("TIFF", compression=packed)
        for packed in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    },
    "big tiff": pillow("TIFF", big_tiff=True),
    "webp": pillow("WEBP"),
    "webp without loss": pillow("WEBP", lossless=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "jpeg 2000": opencv(".jp2"),
    "jpeg 2000 of 16 bit": opencv(".jp2", DEEP),
    "jpeg 2000 in tiles": pillow("JPEG2000", tile_size=(32, 32)),
    "grey jpeg 2000": pillow("JPEG2000", mode="L"),
    "jpeg 2000 without boxes": pillow("JPEG2000", no_jp2=True),
    "pbm": pillow("PPM", mode="1"),
    "pgm": pillow("PPM", mode="L"),
    "pgm of 16 bit": opencv(".pgm", DEEP[..., 0]),
    "ppm": pillow("PPM"),
    "ppm with a remark": pillow("PPM").replace(b"P6\n", b"P6\n# camera 7\n", 1),
    "pam": opencv(".pam"),
    "sun raster": opencv(".ras"),
    **({"gif": pillow("GIF", mode="P")} if cv2.haveImageReader("a.gif") else {}),
    **({"avif": pillow("AVIF")} if WRITES_AVIF and cv2.haveImageReader("a.avif") else {}),
}
FILES = JPEGS | OTHERS


def decode(data: bytes) -> np.ndarray:
    return decode_file(np.frombuffer(data, np.uint8), Path("part"))


def is_same_or_refused(data: bytes, whole: np.ndarray) -> bool:
    try:
        found = decode(data)
    except ValueError:
        return True
    return np.array_equal(found, whole)


def scans_of(jpeg: bytes) -> list[int]:
    """Where its scans begin."""
    return [found.start() for found in re.finditer(rb"\xff\xda", jpeg)]


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_photo_has_the_pixels_that_opencv_reads(kind):
    data = FILES[kind]
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), UNCHANGED)
    found = decode(data)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(decode(data + b"\0" * 50), expected)


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), end=st.booleans())
def test_a_photo_that_is_cut_anywhere_is_the_same_or_refused(kind, share, end):
    data = FILES[kind]
    tail = END if end and kind in JPEGS else b""
    assert is_same_or_refused(data[: int(share * len(data))] + tail, decode(data))


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_jpeg_that_lost_its_tail_is_refused(kind, share):
    with pytest.raises(ValueError, match=r"part: the image is "):
        decode(cut(JPEGS[kind], share))


@pytest.mark.parametrize("kind", ["progressive", "progressive grey", "progressive with restarts"])
def test_a_progressive_jpeg_must_have_all_its_scans(kind):
    data = JPEGS[kind]
    begins = scans_of(data)
    assert len(begins) > 3
    for at in begins[1:]:
        with pytest.raises(ValueError, match="some of its scans are missing"):
            decode_jpeg(data[:at] + END)


def test_a_jpeg_with_a_scan_for_each_colour_must_have_all():
    """Pillow writes no such file, but a progressive one that is declared sequential is read so."""
    whole = JPEGS["progressive"]
    frame = whole.index(b"\xff\xc2")
    one = bytearray(whole)
    one[frame + 1] = 0xC0
    # The first scan of the progressive one has all three colours: take one from it.
    at = scans_of(whole)[0]
    del one[at + 5 + 2 * 2 : at + 5 + 2 * 3]
    one[at + 3], one[at + 4] = one[at + 3] - 2, 2
    with pytest.raises(ValueError, match="some of its scans are missing"):
        decode_jpeg(bytes(one[: scans_of(bytes(one))[1]]) + END)


def test_a_jpeg_of_a_camera_that_leaves_out_the_usual_tables_is_whole():
    whole = JPEGS["baseline"]
    without, at = whole[:2], 2
    while whole[at : at + 2] != b"\xff\xda":
        end = at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        without += whole[at:end] if whole[at + 1] != 0xC4 else b""
        at = end
    assert len(without) + 400 < at
    np.testing.assert_array_equal(decode_jpeg(without + whole[at:]), decode_jpeg(whole))


def test_a_code_that_decoders_fill_up_silently_is_refused():
    for marker in (0xC3, 0xC9, 0xCA):
        coded = bytearray(JPEGS["baseline"])
        coded[coded.index(b"\xff\xc0") + 1] = marker
        with pytest.raises(ValueError, match="arithmetic-coded or lossless JPEG; save it as PNG"):
            decode_jpeg(bytes(coded))


def test_a_second_jpeg_in_one_file_is_refused_unless_it_is_a_preview():
    first, second = JPEGS["baseline"], JPEGS["grey"]
    with pytest.raises(ValueError, match="followed by another one"):
        decode_jpeg(first + second)
    # As phones save a photo with its depth or brightness map behind it.
    index = b"\xff\xe2" + (2 + 8).to_bytes(2, "big") + b"MPF\0II*\0"
    preview = first[:2] + index + first[2:] + second
    np.testing.assert_array_equal(decode_jpeg(preview), decode_jpeg(first))


def several(kind: str) -> bytes:
    pages = [Image.fromarray(page) for page in (PICTURE, 255 - PICTURE)]
    file = io.BytesIO()
    pages[0].save(file, kind, save_all=True, append_images=pages[1:])
    return file.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP", "GIF", *(["AVIF"] if WRITES_AVIF else [])])
def test_a_photo_with_more_than_one_page_or_frame_is_refused(kind):
    with pytest.raises(ValueError, match=r"^part: the image has more than one page or frame"):
        decode(several(kind))


@pytest.mark.parametrize("kind", ["ppm", "pbm", "pam"])
def test_bitmaps_one_after_another_are_refused(kind):
    with pytest.raises(ValueError, match=r"^part: the image has more than one page or frame"):
        decode(OTHERS[kind] * 2)


@pytest.mark.parametrize("kind", [kind for kind in OTHERS if "bmp" not in kind])
def test_a_photo_that_lost_its_tail_is_refused_before_it_is_decoded(kind, monkeypatch):
    """OpenCV's versions differ in what they fill up; of BMP and TIFF none fills up anything."""
    decoded = []
    monkeypatch.setattr(cv2, "imdecode", lambda data, _: decoded.append(data) or PICTURE)
    data = OTHERS[kind]
    assert decode(data) is PICTURE
    if "tiff" not in kind:
        for share in (0.3, 0.6, 0.9, 0.97):
            with pytest.raises(ValueError, match="part: the image is truncated"):
                decode(data[: int(share * len(data))])
        assert len(decoded) == 1


def test_a_tiff_is_refused_for_a_second_page_that_was_cut_off():
    whole = several("TIFF")
    one = len(pillow("TIFF"))
    for length in (one, one + 500, len(whole) - 1):
        with pytest.raises(ValueError, match=r"more than one page|truncated|not a readable image"):
            decode(whole[:length])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P3\n2 1\n255\n1 2 3 4 5 6\n", "in plain text, of which nobody can tell"),
        (b"P5\n2 1\n4095\n\0\1\0\1", "counts grey levels to 4095; save it with 8 or 16 bits"),
        (b"P5\n2 1\n15\n\0\1", "counts grey levels to 15; save it with 8 or 16 bits"),
        (opencv(".hdr", PICTURE.astype(np.float32)), "amounts of light without a white"),
        (opencv(".pfm", PICTURE.astype(np.float32)), "amounts of light without a white"),
        (b"\0\0\0\x18ftypheic" + bytes(90), "HEIC photo, as phones make them"),
        (pillow("TGA"), r"not a readable image \(PNG, JPEG, BMP, TIFF, WebP"),
        (b"GIF89a" + bytes(90), "an unknown block in a GIF"),
    ],
)
def test_what_is_not_read_says_why(data, words):
    with pytest.raises(ValueError, match=words):
        decode(data)


def test_a_jpeg_2000_of_12_bits_would_be_dark_and_is_refused():
    data = bytearray(OTHERS["jpeg 2000 without boxes"])
    data[42] = 11
    with pytest.raises(ValueError, match="has levels of 12 bits; save it with 8 or 16"):
        decode(bytes(data))


TURNED = Image.Exif()
TURNED[0x0112] = 6
UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_an_orientation_is_told_and_leaves_the_pixels_as_they_are(kind):
    if kind == "AVIF" and not (WRITES_AVIF and cv2.haveImageReader("a.avif")):
        pytest.skip("this Pillow writes, or this OpenCV reads, no AVIF")
    plain, turned = pillow(kind, exif=UPRIGHT), pillow(kind, exif=TURNED)
    assert (is_turned(memoryview(plain)), is_turned(memoryview(turned))) == (False, True)
    assert not is_turned(memoryview(pillow(kind)))
    np.testing.assert_array_equal(decode(turned), decode(plain))


@pytest.mark.parametrize("way", range(2, 9))
@pytest.mark.parametrize("more", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}])
def test_a_tiff_is_never_turned(way, more):
    exif = Image.Exif()
    exif[0x0112] = way
    turned = pillow("TIFF", exif=exif, **more)
    assert is_turned(memoryview(turned))
    np.testing.assert_array_equal(decode(turned), PICTURE[..., ::-1])


@settings(max_examples=200)
@given(
    start=st.sampled_from(
        [
            b"\xff\xd8\xff",
            b"II*\0",
            b"MM\0+",
            b"\x89PNG\r\n\x1a\n",
            b"BM",
            b"",
            b"GIF89a",
            b"P5 ",
            b"P7\n",
            b"RIFF\x20\0\0\0WEBP",
            b"\xff\x4f\xff\x51",
            b"\0\0\0\x0cjP  \r\n\x87\n",
            b"\0\0\0\x10ftypavif",
            b"\x59\xa6\x6a\x95",
        ]
    ),
    rest=st.binary(max_size=300),
)
def test_no_bytes_raise_anything_but_one_line(start, rest):
    is_turned(memoryview(start + rest))
    try:
        decode(start + rest)
    except ValueError as error:
        assert "\n" not in str(error)
