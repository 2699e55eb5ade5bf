"""Cameras: one contract (base.py), and one module for each kind that keeps it (docs/cameras.md).

``create`` makes a camera in this process; ``isolate`` makes the same camera in a process of its
own, which is what a station uses.
"""

from __future__ import annotations

import pkgutil
import sys
from typing import cast

import numpy as np
import numpy.typing as npt

from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame
from inspector.config.cameras import CameraConfig

__all__ = ["BadFrameError", "Camera", "CameraLostError", "Frame", "create", "isolate"]


def create(config: CameraConfig, memory: npt.NDArray[np.int64] | None = None) -> Camera:
    """The camera that ``config`` describes, not yet open.

    ``memory``: int64, ``config.memory_bytes`` long, for kinds that keep something in it that must
    outlive their process. None: the camera makes its own.
    """
    make = pkgutil.resolve_name(config.camera)
    return cast(Camera, make(config) if memory is None else make(config, memory))


def isolate(config: CameraConfig) -> Camera:
    """The camera that ``config`` describes, in a child process from ``open`` to ``close``.

    Elsewhere than on Linux it is in this process.
    """
    if sys.platform == "linux":
        from inspector.cameras.isolated.process import CameraProcess

        return CameraProcess(config)
    return create(config)
