"""A frame in, a judgement out: the detector, its bundle, and the engines that run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.detection.detector import Detector

__all__ = ["Detector"]


def __getattr__(name: str) -> Any:
    # The bundle's manifest and its keys are read without ONNX Runtime.
    if name == "Detector":
        from inspector.detection.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
