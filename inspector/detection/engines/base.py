"""What the detector expects of the libraries that run a bundle's graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from inspector.config.station_file import Provider
from inspector.config.yaml_file import FrozenModel
from inspector.detection.bundle import Bundle
from inspector.verdict import FloatMap, Frame8


class Engine(FrozenModel):
    """Which library runs the graph, and how; ``str()`` names it for a person."""

    provider: Provider = "auto"
    threads: int = Field(default=0, ge=0, le=256)
    """Threads on the CPU; 0 means :func:`default_threads`."""
    precision: Literal["f32", "bf16"] = "f32"
    """The numbers that OpenVINO multiplies; the other libraries do as the bundle's graph says."""
    graph: bool = True
    """Capture and replay CUDA graphs, where the provider can."""

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
    """Runs the graph of one bundle; used by one thread at a time."""

    provider: str
    """The execution provider in use, as the library names it; "" before ``load``."""

    def load(self, bundle: Bundle) -> None:
        """Build a session for ``bundle``. Raises :class:`BundleError` or :class:`ProviderError`."""
        ...

    def warm(self, height: int, width: int, batch: int = 1) -> None:
        """Run every batch size from 1 to ``batch`` until the first real part is as quick as others.

        ``height`` and ``width`` are those of the network. Raises :class:`Fault`.
        """
        ...

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run the graph on uint8 BGR ``[N, H, W, 3]``.

        Returns ``score`` float32 ``[N]`` and ``anomaly_map`` float32 ``[N, H, W]``. The arrays are
        the caller's: no later inference writes to them. Raises :class:`Fault`
        (``inference_error``).
        """
        ...

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        ...


def usable_cores() -> list[int]:
    """One logical CPU for each physical core that this process may use, in ascending order."""
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
    """As many threads as cores, but one that is left for the cameras; with two or fewer, all."""
    cores = len(usable_cores())
    return cores - 1 if cores > 2 else cores


def one_line(error: Exception) -> str:
    """The message of a library's error, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
