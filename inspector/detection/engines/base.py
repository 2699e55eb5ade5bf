"""The seam between the detector and the libraries that compute."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from inspector.config.station_file import Provider
from inspector.detection.bundle import Bundle
from inspector.verdict import FloatMap, Frame8


class Engine(BaseModel):
    """What computes, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Provider = "auto"
    threads: int = Field(default=0, ge=0, le=256)
    """0: :func:`default_threads`."""
    precision: Literal["f32", "bf16"] = "f32"
    """What OpenVINO multiplies in; the others do as the bundle's graph says."""
    graph: bool = True
    """Capture CUDA graphs where the provider can."""

    def __str__(self) -> str:
        words: list[str] = [self.provider]
        if self.provider == "openvino":
            words.append(self.precision)
        if self.provider in {"cpu", "openvino"}:
            count = self.threads or default_threads()
            words.append(f"{count} thread{'s' * (count > 1)}")
        elif not self.graph:
            words.append("without CUDA graph")
        return ", ".join(words)


class InferenceBackend(Protocol):
    """What runs the graph; used by one thread at a time."""

    provider: str
    """What is in use, as the library names it; "" before ``load``."""

    def load(self, bundle: Bundle) -> None:
        """Build a session. Raises :class:`BundleError` or :class:`ProviderError`."""
        ...

    def warm(self, height: int, width: int, batch: int = 1) -> None:
        """Run until the first real part is as quick as the next, for 1 to ``batch`` at once.

        Raises :class:`Fault`.
        """
        ...

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run uint8 ``[N, H, W, 3]``; float32 ``score [N]`` and ``anomaly_map [N, h, w]``.

        The arrays are the caller's: no later inference writes to them.
        Raises :class:`Fault` (``inference_error``).
        """
        ...

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        ...


def usable_cores() -> list[int]:
    """A logical CPU of each physical core that this process may use, in order."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    seen: set[str] = set()
    cores = []
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            core = siblings.read_text()
        except OSError:
            core = str(cpu)
        if core not in seen:
            seen.add(core)
            cores.append(cpu)
    return cores


def default_threads() -> int:
    """All cores but one for the cameras; with two or fewer, all of them."""
    cores = len(usable_cores())
    return cores - 1 if cores > 2 else cores


def one_line(error: Exception) -> str:
    """What a library said, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
