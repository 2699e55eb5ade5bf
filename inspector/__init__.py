"""The line wing: frames in, a PASS, FAIL or FAULT verdict and a heatmap for every part out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from inspector.verdict import Judgement, Verdict
from inspector.version import VERSION

if TYPE_CHECKING:
    from inspector.detection.detector import Detector

# Before ONNX Runtime loads: from 1.29 on it sends what it runs to Microsoft, and keeps an identity
# in HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = VERSION

__all__ = ["Detector", "Judgement", "Verdict", "__version__"]


def __getattr__(name: str) -> Any:
    # ONNX Runtime loads on first use, so that --help and subscribers start at once.
    if name == "Detector":
        from inspector.detection.detector import Detector

        return Detector
    raise AttributeError(f"module 'inspector' has no attribute {name!r}")
