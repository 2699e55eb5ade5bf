"""Arithmetic on pixels that drawn defects share: filling, grain, smooth noise."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]


def fill(values: Floats, known: Floats) -> Floats:
    """``values`` where ``known`` is 1, continued smoothly to where it is 0 (coarse to fine)."""
    height, width = known.shape
    weight = known[:, :, None]
    if min(height, width) <= 3 or known.min() > 0.5:
        mean = (values * weight).sum(axis=(0, 1)) / max(float(known.sum()), 1e-6)
        return f32(values * weight + mean * (1 - weight))
    half = ((width + 1) // 2, (height + 1) // 2)
    fewer = np.asarray(cv2.resize(known, half, interpolation=cv2.INTER_AREA))
    sums = deep(cv2.resize(f32(values * weight), half, interpolation=cv2.INTER_AREA))
    coarse = fill(f32(sums / np.maximum(fewer, 1e-6)[:, :, None]), f32(fewer > 1e-3))
    filled = values * weight
    guess = deep(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    for _ in range(4):
        guess = filled + guess * (1 - weight)
        guess = deep(cv2.blur(f32(guess), (3, 3)))
    return f32(filled + guess * (1 - weight))


def grain(pixels: Floats, rng: Rng) -> Floats:
    """Noise as strong as the camera's, ``[H, W, 1]``."""
    grey = pixels.mean(axis=2)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    sigma = min(float(np.median(np.abs(cv2.filter2D(grey, -1, kernel)))) / 4.05, 8.0)
    return f32(sigma * rng.standard_normal(grey.shape, dtype=np.float32))[:, :, None]


def smooth(rng: Rng, shape: tuple[int, ...], cells: int) -> Floats:
    """Smooth noise of ``shape``, standard deviation near 1, about ``cells`` bumps across."""
    coarse = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return f32(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number between ``low`` and ``high``, as often in each octave."""
    return float(math.exp(rng.uniform(math.log(low), math.log(max(low, high)))))


def deep(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``[H, W]`` as ``[H, W, 1]``, because OpenCV drops a single channel."""
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def f32(values: npt.NDArray[Any]) -> Floats:
    """``values`` as float32."""
    return np.asarray(values, dtype=np.float32)
