"""Frame geometry: the one road from camera pixels to network pixels, and back.

Training and the line both call :meth:`Geometry.apply`, so they cannot drift apart.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from inspector.errors import Fault
from inspector.imaging.images import to_bgr8
from inspector.verdict import LIMIT, FloatMap, Frame8, Reason, Region

STRIDE = 32
"""Network input sizes are multiples of this, so that every backbone pads as it was trained."""

# What is wrong with a file is said by us, in one line.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

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
