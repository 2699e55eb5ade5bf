"""Anomaly maps as pictures that people look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from inspector.verdict import FloatMap, Frame8


def map_to_grey(anomaly_map: FloatMap) -> Frame8:
    """A map in units of the limit, float32 ``[H, W]``, as uint8 grey levels.

    128 is the limit, 255 nearly twice the limit or more; NaN counts as more.
    """
    finite = np.nan_to_num(anomaly_map, nan=2.0, posinf=2.0, neginf=0.0)
    grey = np.floor(np.clip(finite, 0.0, 255.0 / 128.0) * 128.0).astype(np.uint8)
    return np.asarray(grey, dtype=np.uint8)


def overlay(picture: Frame8, heat: Frame8) -> Frame8:
    """The judged picture under its heatmap, with white outlines around what reached the limit.

    ``picture``: uint8 BGR ``[H, W, 3]``; ``heat``: uint8 ``[h, w]`` as of :func:`map_to_grey`.
    Returns uint8 BGR ``[H, W, 3]``.
    """
    heat = np.asarray(
        cv2.resize(heat, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    )
    level = heat.astype(np.float32) - 128.0
    colours = cv2.applyColorMap(
        np.clip(128.0 + 2.0 * level, 0.0, 255.0).astype(np.uint8), cv2.COLORMAP_TURBO
    )
    # Below 0.85 of the limit the picture stays as it is, so that a good part looks like a photo.
    alpha = np.clip((level + 20.0) / 48.0, 0.0, 0.6)[:, :, None]
    mixed = (picture * (1.0 - alpha) + colours * alpha).astype(np.uint8)
    outlines, _ = cv2.findContours(
        (heat >= 128).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(mixed, outlines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(mixed, dtype=np.uint8)


def contact_sheet(tiles: Sequence[tuple[str, Frame8]], columns: int = 5) -> Frame8:
    """One picture of many: uint8 BGR pictures of one size, each under its caption (ASCII).

    They lie in rows of ``columns``, small ones enlarged.
    """
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
