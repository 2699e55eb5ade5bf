"""Cameras: one small contract (base.py), one module a kind (docs/cameras.md)."""

from __future__ import annotations

from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame
from inspector.cameras.folder import Folder
from inspector.cameras.opencv import OpenCv, has_gstreamer
from inspector.cameras.simulator import Simulator
from inspector.config import CameraConfig, FolderCamera, OpenCvCamera

__all__ = [
    "BadFrameError",
    "Camera",
    "CameraLostError",
    "Frame",
    "create",
    "has_gstreamer",
]


def create(config: CameraConfig) -> Camera:
    """The camera that ``config`` describes, not yet open."""
    if isinstance(config, OpenCvCamera):
        return OpenCv(config)
    if isinstance(config, FolderCamera):
        return Folder(config)
    return Simulator(config)
