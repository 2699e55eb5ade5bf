"""Frame geometry: how camera pixels become network pixels, and how regions of a map lead back.

Training and the line both call :meth:`Geometry.apply`, so a model sees on the line what it was
trained on.
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

_ASPECT_TOLERANCE = 0.02
"""Largest relative difference of width / height from training's."""
_HALF, _EIGHTH = 128, 32
"""Values of a mask's scaled pixel (0..255) that a defect fills to a half and to an eighth."""


class Box(BaseModel):
    """A rectangle in camera pixels; ``x``, ``y`` is the upper left corner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: int = Field(ge=0, le=100_000, strict=True)
    y: int = Field(ge=0, le=100_000, strict=True)
    w: int = Field(gt=0, le=100_000, strict=True)
    h: int = Field(gt=0, le=100_000, strict=True)


class Geometry(BaseModel):
    """How a camera frame becomes the network's input: ``region`` is cut out, then resized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(ge=64, le=2048, multiple_of=STRIDE)
    width: int = Field(ge=64, le=2048, multiple_of=STRIDE)
    """The network's input size, in pixels."""
    region: Box | None = None
    """What is judged, in camera pixels; None means the whole frame."""
    fit: Literal["stretch", "letterbox"] = "stretch"
    """``stretch`` fills the network's input, ``letterbox`` keeps the aspect ratio."""
    border: Literal["repeat", "mirror"] = "repeat"
    """What lies around a letterboxed picture.

    ``mirror`` is its reflection, which has no edge where the part has none; ``repeat`` its border
    pixels, as in older bundles, which do not name this.
    """
    aspect: float | None = None
    """The region's width / height in training, when all photos shared one, else None."""
    frame: tuple[int, int] | None = None
    """(width, height) of the photos, when all shared one and ``region`` was chosen in them.

    At another resolution the same region would be another piece of the part.
    """
    colour: bool = False
    """True when all photos had colour.

    A grey frame is then a raw Bayer mosaic, or its camera is set up otherwise.
    """

    def crop(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Cut the region out of ``frame``, as a view.

        Raises :class:`Fault` (``frame_shape``) when the region reaches beyond the frame, or was
        chosen in frames of another size.
        """
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
        """Cut the region out of ``frame`` and bring it to network size.

        ``frame``: uint8 or uint16, ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` (BGR) or
        ``[H, W, 4]`` (BGRA), any strides. Returns contiguous uint8 BGR ``[height, width, 3]``.
        It shares no memory with ``frame``. Raises :class:`Fault` (``frame_shape``) for anything
        that is no such picture.
        """
        if self.colour and (frame.ndim == 2 or frame.shape[2:] == (1,)):
            raise Fault(
                Reason.FRAME_SHAPE.value,
                "a grey frame, but the model was trained on colour photos: a raw Bayer picture? "
                "Set the camera's pixel format to colour",
            )
        bgr = to_bgr8(self.crop(frame))
        self.check_aspect(bgr.shape[1], bgr.shape[0])
        rows, columns = self.inner(bgr.shape)
        resized = _resize(bgr, columns.stop - columns.start, rows.stop - rows.start)
        if resized.shape[:2] != (self.height, self.width):
            padded = cv2.copyMakeBorder(
                resized,
                rows.start,
                self.height - rows.stop,
                columns.start,
                self.width - columns.stop,
                cv2.BORDER_REFLECT_101 if self.border == "mirror" else cv2.BORDER_REPLICATE,
            )
            return np.ascontiguousarray(padded, dtype=np.uint8)
        return np.ascontiguousarray(resized, dtype=np.uint8)

    def check_aspect(self, width: int, height: int) -> None:
        """Raise :class:`Fault` when a region of this size would be distorted, in camera pixels."""
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
        """Bring a ground-truth mask ``[H, W]`` (above 0: defective) to network size.

        Returns bool ``[height, width]``; what lies around a letterboxed picture is good.
        """
        cropped = np.ascontiguousarray(self.crop(mask)).astype(np.uint8)
        rows, columns = self.inner(cropped.shape)
        inner_h, inner_w = rows.stop - rows.start, columns.stop - columns.start
        out = np.zeros((self.height, self.width), dtype=np.bool_)
        scaled = _resize(np.where(cropped > 0, 255, 0).astype(np.uint8), inner_w, inner_h)
        solid = scaled >= _HALF
        # A defect that fills no pixel to a half would be lost: its pixels count from an eighth on.
        faint = (scaled >= _EIGHTH).astype(np.uint8)
        count, labels = cv2.connectedComponents(faint, connectivity=8)
        thin = np.setdiff1d(np.arange(1, count), labels[solid])
        out[rows, columns] = solid | np.isin(labels, thin)
        return out

    def regions(
        self, anomaly_map: FloatMap, frame_shape: tuple[int, ...], most: int = 32
    ) -> tuple[Region, ...]:
        """Connected areas of ``anomaly_map`` at or above the limit, highest peak first.

        ``anomaly_map``: float32 ``[height, width]``, in units of the limit; ``frame_shape``: the
        shape of the camera frame. Returns at most ``most`` regions, in camera pixels and inside
        the frame.
        """
        # Most parts are good, and nearly all the time would go into looking for nothing.
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
        """The map on the picture alone, without the border around a letterboxed one.

        Each value in the border goes to the place of which the border is a copy there, if it is
        higher than the value of that place.
        """
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

    def covered(self, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Where a map lies over a camera frame of ``shape`` (h, w, ...): x, y, w, h, camera pixels.

        The border of a letterboxed picture reaches beyond the region.
        """
        box = self.region or Box(x=0, y=0, w=shape[1], h=shape[0])
        rows, columns = self.inner((box.h, box.w))
        x_scale = box.w / (columns.stop - columns.start)
        y_scale = box.h / (rows.stop - rows.start)
        return (
            box.x - columns.start * x_scale,
            box.y - rows.start * y_scale,
            self.width * x_scale,
            self.height * y_scale,
        )

    def inner(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the network's input that a region of ``shape`` (h, w, ...) fills."""
        if self.fit == "stretch":
            return slice(0, self.height), slice(0, self.width)
        scale = min(self.height / shape[0], self.width / shape[1])
        height = min(self.height, max(1, round(shape[0] * scale)))
        width = min(self.width, max(1, round(shape[1] * scale)))
        top, left = (self.height - height) // 2, (self.width - width) // 2
        return slice(top, top + height), slice(left, left + width)


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
