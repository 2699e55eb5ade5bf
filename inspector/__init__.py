"""The line wing: frames in, a PASS, FAIL or FAULT verdict and a heatmap for every part out."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

from inspector.version import VERSION

if TYPE_CHECKING:
    from inspector.detection.detector import Detector
    from inspector.verdict import Judgement, Verdict

# Set before ONNX Runtime loads, which from 1.29 on sends what it runs to Microsoft, and keeps an
# identity in HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = VERSION

__all__ = ["Detector", "Judgement", "Verdict", "__version__"]

_HOMES: Final = {
    "Detector": "inspector.detection.detector",
    "Judgement": "inspector.verdict",
    "Verdict": "inspector.verdict",
}


def __getattr__(name: str) -> Any:
    # Each name loads on first use (PEP 562), so that 'inspector --help' waits neither for NumPy nor
    # for ONNX Runtime.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'inspector' has no attribute {name!r}")
