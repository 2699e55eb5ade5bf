"""Cameras: one small contract, one file a kind."""

from inspector.cameras.base import Camera, Frame

__all__ = ["Camera", "Frame"]
