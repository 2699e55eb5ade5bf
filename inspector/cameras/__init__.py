"""Cameras: one small contract (base.py), one module a kind (docs/cameras.md).

``create`` makes the camera itself; ``isolate`` the same camera in a process of its own, which is
what a station uses.
"""

from __future__ import annotations

import sys

from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame
from inspector.cameras.faulty import Faulty
from inspector.cameras.folder import Folder
from inspector.cameras.opencv import OpenCv, has_gstreamer
from inspector.cameras.simulator import Simulator
from inspector.config import CameraConfig, FaultyCamera, FolderCamera, OpenCvCamera

__all__ = [
    "BadFrameError",
    "Camera",
    "CameraLostError",
    "Frame",
    "create",
    "has_gstreamer",
    "isolate",
]


def create(config: CameraConfig) -> Camera:
    """The camera that ``config`` describes, not yet open."""
    if isinstance(config, OpenCvCamera):
        return OpenCv(config)
    if isinstance(config, FolderCamera):
        return Folder(config)
    if isinstance(config, FaultyCamera):
        return Faulty(config)
    return Simulator(config)


def isolate(config: CameraConfig) -> Camera:
    """The camera that ``config`` describes, to be opened in a child process (on Linux)."""
    if sys.platform == "linux":
        from inspector.cameras.process import CameraProcess

        return CameraProcess(config)
    return create(config)
