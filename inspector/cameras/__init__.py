"""Cameras: one small contract (base.py), one module a kind (docs/cameras.md).

``create`` makes the camera itself; ``isolate`` the same camera in a process of its own, which is
what a station uses.
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

    ``memory``: int64, for kinds that ask for ``memory_bytes``.
    """
    make = pkgutil.resolve_name(config.camera)
    return cast(Camera, make(config) if memory is None else make(config, memory))


def isolate(config: CameraConfig) -> Camera:
    """The camera that ``config`` describes, to be opened in a child process (on Linux)."""
    if sys.platform == "linux":
        from inspector.cameras.isolated.process import CameraProcess

        return CameraProcess(config)
    return create(config)
