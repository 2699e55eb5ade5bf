"""Where things lie in this checkout, and how child processes find its packages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
DEMO: Final = ROOT / "config" / "demo.onnx"
"""The demo's bundle."""


def environment() -> dict[str, str]:
    """For a child process: ``python -m`` finds this checkout's packages wherever it starts."""
    earlier = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{earlier}" if earlier else str(ROOT)}
