"""Frame geometry: the one road from camera pixels to network pixels, and back.

Training and the line both call :meth:`Geometry.apply`, so they cannot drift apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from inspector.errors import Fault
from inspector.verdict import LIMIT, FloatMap, Frame8, Reason, Region

STRIDE = 32
"""Network input sizes are multiples of this, so that every backbone pads as it was trained."""

# What is wrong with a file is said by us, in one line.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})

_ASPECT_TOLERANCE = 0.02


class Box(BaseModel):
    """A rectangle in camera pixels; ``x``, ``y`` is the upper left corner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: int = Field(ge=0, le=100_000, strict=True)
    y: int = Field(ge=0, le=100_000, strict=True)
    w: int = Field(gt=0, le=100_000, strict=True)
    h: int = Field(gt=0, le=100_000, strict=True)


class Geometry(BaseModel):
    """How a camera frame becomes the network's input.

    ``region`` is cut out first (None: the whole frame), then brought to ``height`` × ``width``:
    ``stretch`` fills it, ``letterbox`` keeps the aspect ratio; around the picture lies its
    reflection (``border`` ``mirror``: no edge where the part has none) or its border pixels
    (``repeat``, as bundles did that do not name it).
    ``aspect`` is the region's width / height in training when all photos shared one, else None;
    ``frame`` the photos' (width, height) when all shared one and ``region`` is cut out of them: at
    another resolution the same region would be another piece of the part. ``colour``: all photos
    had colour; a grey frame is then a raw Bayer mosaic, or of a camera set up otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(ge=64, le=2048, multiple_of=STRIDE)
    width: int = Field(ge=64, le=2048, multiple_of=STRIDE)
    region: Box | None = None
    fit: Literal["stretch", "letterbox"] = "stretch"
    border: Literal["repeat", "mirror"] = "repeat"
    aspect: float | None = None
    frame: tuple[int, int] | None = None
    colour: bool = False

    def crop(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Cut the region out of ``frame`` (a view). Raises :class:`Fault` when it is outside."""
        if self.frame is not None and (frame.shape[1], frame.shape[0]) != self.frame:
            raise Fault(
                Reason.FRAME_SHAPE.value,
                f"frame is {frame.shape[1]}x{frame.shape[0]} px, but the model's region was chosen "
                f"in frames of {self.frame[0]}x{self.frame[1]}",
            )
        if self.region is None:
            return frame
        x, y, w, h = self.region.x, self.region.y, self.region.w, self.region.h
        if frame.shape[0] < y + h or frame.shape[1] < x + w:
            raise Fault(
                Reason.FRAME_SHAPE.value,
                f"frame is {frame.shape[1]}x{frame.shape[0]} px, but the region "
                f"x={x} y={y} w={w} h={h} reaches beyond it",
            )
        return frame[y : y + h, x : x + w]

    def apply(self, frame: npt.NDArray[Any]) -> Frame8:
        """Region and resize.

        ``frame``: uint8 or uint16, ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` (BGR) or
        ``[H, W, 4]`` (BGRA), any strides. Returns contiguous uint8 BGR ``[height, width, 3]``.
        Raises :class:`Fault` (``frame_shape``) for anything else.
        """
        if self.colour and (frame.ndim == 2 or frame.shape[2:] == (1,)):
            raise Fault(
                Reason.FRAME_SHAPE.value,
                "a grey frame, but the model was trained on colour photos: a raw Bayer picture? "
                "Set the camera's pixel format to colour",
            )
        bgr = to_bgr8(self.crop(frame))
        self.check_aspect(bgr.shape[1], bgr.shape[0])
        top, left, inner_h, inner_w = self._inner(bgr.shape[0], bgr.shape[1])
        resized = _resize(bgr, inner_w, inner_h)
        if (inner_h, inner_w) != (self.height, self.width):
            padded = cv2.copyMakeBorder(
                resized,
                top,
                self.height - inner_h - top,
                left,
                self.width - inner_w - left,
                cv2.BORDER_REFLECT_101 if self.border == "mirror" else cv2.BORDER_REPLICATE,
            )
            return np.ascontiguousarray(padded, dtype=np.uint8)
        return np.ascontiguousarray(resized, dtype=np.uint8)

    def check_aspect(self, width: int, height: int) -> None:
        """Raise :class:`Fault` when a region of this size, in camera pixels, would be distorted."""
        if self.aspect is None or self.fit == "letterbox":
            return
        aspect = width / height
        if abs(aspect / self.aspect - 1.0) > _ASPECT_TOLERANCE:
            raise Fault(
                Reason.FRAME_SHAPE.value,
                f"judged region is {width}x{height} px (width/height "
                f"{aspect:.3f}), but the model was trained at {self.aspect:.3f}",
            )

    def apply_mask(self, mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """The same geometry for a ground-truth mask ``[H, W]``; padding is good."""
        cropped = np.ascontiguousarray(self.crop(mask)).astype(np.uint8)
        rows, columns = self.inner(cropped.shape)
        inner_h, inner_w = rows.stop - rows.start, columns.stop - columns.start
        out = np.zeros((self.height, self.width), dtype=np.bool_)
        scaled = _resize(np.where(cropped > 0, 255, 0).astype(np.uint8), inner_w, inner_h)
        solid = scaled >= 128
        # A defect too thin to fill half a pixel anywhere would be lost: it is kept at an eighth.
        count, labels = cv2.connectedComponents((scaled >= 32).astype(np.uint8), connectivity=8)
        thin = np.setdiff1d(np.arange(1, count), labels[solid])
        out[rows, columns] = solid | np.isin(labels, thin)
        return out

    def regions(
        self, anomaly_map: FloatMap, frame_shape: tuple[int, ...], most: int = 32
    ) -> tuple[Region, ...]:
        """Connected areas of ``anomaly_map`` at or above the limit, highest peak first.

        ``anomaly_map``: float32 ``[height, width]``; ``frame_shape``: the camera frame's shape.
        At most ``most`` regions, in camera pixels and inside the frame.
        """
        # Most parts are good, and nearly all the time below went into looking for nothing.
        if not (anomaly_map >= LIMIT).any():
            return ()
        box = self.region
        source_h, source_w = (box.h, box.w) if box else (frame_shape[0], frame_shape[1])
        origin_x, origin_y = (box.x, box.y) if box else (0, 0)
        heat = self._fold(anomaly_map, source_h, source_w)
        inner_h, inner_w = heat.shape
        hot = heat >= LIMIT
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            hot.astype(np.uint8), connectivity=8
        )
        peaks = np.zeros(count, dtype=np.float32)
        np.maximum.at(peaks, labels[hot].astype(np.intp), heat[hot])
        found = []
        for label in np.argsort(-peaks[1:], kind="stable")[:most] + 1:
            x, y, w, h = (int(v) for v in stats[label, :4])
            x0 = _clip(x * source_w / inner_w, source_w - 1)
            y0 = _clip(y * source_h / inner_h, source_h - 1)
            x1 = max(_clip((x + w) * source_w / inner_w, source_w, up=True), x0 + 1)
            y1 = max(_clip((y + h) * source_h / inner_h, source_h, up=True), y0 + 1)
            found.append(
                Region(origin_x + x0, origin_y + y0, x1 - x0, y1 - y0, float(peaks[label]))
            )
        return tuple(found)

    def _fold(self, anomaly_map: FloatMap, source_h: int, source_w: int) -> FloatMap:
        """The map on the picture alone; what lies around it goes to the place it is a copy of."""
        rows, columns = self.inner((source_h, source_w))
        if (rows.stop - rows.start, columns.stop - columns.start) == anomaly_map.shape:
            return anomaly_map
        mode: Literal["reflect", "edge"] = "reflect" if self.border == "mirror" else "edge"
        folded = anomaly_map
        for inside in (rows, columns):
            size = folded.shape[0]
            source = np.pad(
                np.arange(inside.stop - inside.start), (inside.start, size - inside.stop), mode=mode
            )
            out = np.zeros((inside.stop - inside.start, folded.shape[1]), dtype=np.float32)
            for line, target in enumerate(source):
                np.maximum(out[target], folded[line], out=out[target])
            folded = out.T
        return folded

    def inner(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the network's input that a region of ``shape`` (h, w) fills."""
        top, left, height, width = self._inner(shape[0], shape[1])
        return slice(top, top + height), slice(left, left + width)

    def _inner(self, source_h: int, source_w: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the picture inside the network's input."""
        if self.fit == "stretch":
            return 0, 0, self.height, self.width
        scale = min(self.height / source_h, self.width / source_w)
        inner_h = min(self.height, max(1, round(source_h * scale)))
        inner_w = min(self.width, max(1, round(source_w * scale)))
        return (self.height - inner_h) // 2, (self.width - inner_w) // 2, inner_h, inner_w


def to_bgr8(frame: npt.NDArray[Any]) -> Frame8:
    """Any camera or file picture as uint8 BGR.

    16 bit is divided by 257, a fixed scale: a black frame stays black. Raises :class:`Fault`
    (``frame_shape``) when shape or dtype are not those of a picture.
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
    """An image file as it is: uint8 or uint16, grey, BGR or BGRA.

    Raises ValueError with the cause when the file is missing, truncated or not an image.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    if data.size == 0:
        raise ValueError(f"{path}: the file is empty")
    if truncated(data):
        raise ValueError(f"{path}: the image is truncated")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"{path}: not a readable image (PNG, JPEG, BMP or TIFF)")
    return image


def find_images(root: Path) -> list[Path]:
    """The image files under ``root``, at any depth, by path. Raises OSError."""
    found: list[Path] = []
    for folder, _, names in os.walk(root, onerror=_refuse):
        # Hidden files are what other systems leave behind, such as macOS's '._001.png'.
        found += [
            Path(folder, name)
            for name in names
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _refuse(error: OSError) -> None:
    raise error


def truncated(data: npt.NDArray[np.uint8]) -> bool:
    """True when a PNG or JPEG lacks its end marker: OpenCV would fill the rest with grey."""
    raw, tail = data[:8].tobytes(), data[-4096:].tobytes()
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in tail
    if raw.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    return False


def encode_png(image: Frame8) -> bytes:
    """Lossless PNG of a uint8 picture, grey ``[H, W]`` or BGR ``[H, W, 3]``."""
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise ValueError(f"cannot encode a picture of shape {image.shape} as PNG")
    return bytes(data)


def encode_jpeg(image: Frame8, quality: int = 85) -> bytes:
    """JPEG of a uint8 BGR picture ``[H, W, 3]``."""
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"cannot encode a picture of shape {image.shape} as JPEG")
    return bytes(data)


def decode(data: bytes) -> Frame8:
    """A PNG or JPEG as uint8, grey ``[H, W]`` or BGR ``[H, W, 3]``. Raises ValueError."""
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError("not a readable picture")
    return np.asarray(image, dtype=np.uint8)


def exposure(picture: Frame8) -> tuple[float, float]:
    """Mean grey level (0..255) and sharpness (variance of the Laplacian) of uint8 BGR pixels."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return float(grey.mean()), float(cv2.Laplacian(grey, cv2.CV_32F).var())


def half_grey(picture: Frame8) -> FloatMap:
    """Grey levels float32 ``[H // 2, W // 2]`` of uint8 BGR pixels, each the mean of four."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def edge_energy(grey: FloatMap) -> FloatMap:
    """Square of the Laplacian (4 neighbours) of grey levels float32 ``[H, W]``; 0 on the border."""
    energy = np.zeros_like(grey)
    inner = np.s_[1:-1, 1:-1]
    np.square(cv2.Laplacian(grey, cv2.CV_32F, ksize=1)[inner], out=energy[inner])
    return energy


def map_to_grey(anomaly_map: FloatMap) -> Frame8:
    """A map in units of the limit as 8 bit: 128 is the limit, 255 is twice the limit or more."""
    finite = np.nan_to_num(anomaly_map, nan=2.0, posinf=2.0, neginf=0.0)
    grey = np.floor(np.clip(finite, 0.0, 255.0 / 128.0) * 128.0).astype(np.uint8)
    return np.asarray(grey, dtype=np.uint8)


def overlay(picture: Frame8, heat: Frame8) -> Frame8:
    """The judged picture with its heatmap over it, and the outline of what reached the limit.

    ``picture``: uint8 BGR ``[H, W, 3]``; ``heat``: uint8 ``[h, w]``, 128 is the limit.
    """
    heat = np.asarray(
        cv2.resize(heat, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    )
    level = heat.astype(np.float32) - 128.0
    colours = cv2.applyColorMap(
        np.clip(128.0 + 2.0 * level, 0.0, 255.0).astype(np.uint8), cv2.COLORMAP_TURBO
    )
    # Below 0.85 of the limit the part shows untouched: a good part looks like a photo.
    alpha = np.clip((level + 20.0) / 48.0, 0.0, 0.6)[:, :, None]
    mixed = (picture * (1.0 - alpha) + colours * alpha).astype(np.uint8)
    outlines, _ = cv2.findContours(
        (heat >= 128).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(mixed, outlines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(mixed, dtype=np.uint8)


def contact_sheet(tiles: Sequence[tuple[str, Frame8]], columns: int = 5) -> Frame8:
    """Uint8 BGR pictures of one size, each under its caption (ASCII), in rows of ``columns``."""
    height, width = tiles[0][1].shape[:2]
    zoom, band, gap = -(-224 // width), 22, 6
    height, width, columns = height * zoom, width * zoom, min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (rows * (height + band + gap) + gap, columns * (width + gap) + gap, 3)
    sheet = np.full(size, 24, dtype=np.uint8)
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (235, 235, 235)
    for number, (caption, picture) in enumerate(tiles):
        y = gap + number // columns * (height + band + gap)
        x = gap + number % columns * (width + gap)
        cv2.putText(sheet, caption, (x, y + 15), font, 0.42, white, 1, cv2.LINE_AA)
        grown = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
        sheet[y + band : y + band + height, x : x + width] = grown
    return sheet


def _resize(image: Frame8, width: int, height: int) -> Frame8:
    shrinking = width <= image.shape[1] and height <= image.shape[0]
    return np.asarray(
        cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        ),
        dtype=np.uint8,
    )


def _clip(value: float, high: int, up: bool = False) -> int:
    return int(min(max(np.ceil(value) if up else np.floor(value), 0), high))
