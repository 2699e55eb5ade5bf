"""The keys of each kind of camera, one file a kind; ``CameraConfig`` is any of them, by ``kind``.

A new kind takes a file here with its keys, a file in ``inspector/cameras/`` with its camera, and a
place in the union below.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inspector.config.cameras.base import CameraBase
from inspector.config.cameras.faulty import FaultyCamera
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.config.cameras.simulator import SimulatorCamera

__all__ = [
    "CameraBase",
    "CameraConfig",
    "FaultyCamera",
    "FolderCamera",
    "OpenCvCamera",
    "SimulatorCamera",
]

CameraConfig = Annotated[
    OpenCvCamera | FolderCamera | SimulatorCamera | FaultyCamera, Field(discriminator="kind")
]
