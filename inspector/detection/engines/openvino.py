"""OpenVINO on the CPU (extra ``[openvino]``); no other module imports ``openvino``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from inspector.detection.bundle import INPUT, OUTPUTS, Bundle
from inspector.detection.engines.base import Engine, default_threads, one_line
from inspector.errors import BundleError, Fault, ProviderError
from inspector.verdict import FloatMap, Frame8, Reason
from inspector.version import install_command

try:
    import openvino as ov
except ImportError:
    ov = None

_DEVICE: Final = "CPU"


class OpenVinoBackend:
    """OpenVINO, with a compiled program for each batch size: fixed shapes are a seventh quicker."""

    def __init__(self, engine: Engine) -> None:
        """Raises :class:`ProviderError` where OpenVINO is not installed, or the CPU has no bf16."""
        if why := missing(engine.precision):
            raise ProviderError(f"provider: openvino: {why}")
        self.provider = ""
        self._engine = engine
        self._core = ov.Core()
        self._model: bytes = b""
        self._programs: dict[tuple[int, ...], Any] = {}
        self._last_error = ""

    def load(self, bundle: Bundle) -> None:
        """Compile the graph for a batch of one. Raises :class:`BundleError`."""
        self._model = bundle.data
        geometry = bundle.manifest.geometry
        try:
            self._program((1, geometry.height, geometry.width, 3))
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO {version()} refuses the model: {one_line(error)}; set provider: cpu"
            ) from None
        self.provider = "OpenVINO" if self._engine.precision == "f32" else "OpenVINO bf16"

    def warm(self, height: int, width: int, batch: int = 1) -> None:
        """Compile the graph for each batch size up to ``batch``, and run it three times."""
        for count in range(1, batch + 1):
            for _ in range(3):
                self.infer(np.zeros((count, height, width, 3), dtype=np.uint8))

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run a batch, as :class:`InferenceBackend` says."""
        if not self._model:
            raise RuntimeError("infer before load")
        try:
            found = self._program(batch.shape).infer({INPUT: batch})
            # These are copies: the next inference writes to the request's own memory.
            score, anomaly_map = (np.array(found[name], dtype=np.float32) for name in OUTPUTS)
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            self._last_error = one_line(error)
            raise Fault(Reason.INFERENCE_ERROR.value, self._last_error) from None
        self._last_error = ""
        return score, anomaly_map

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self._last_error

    def _program(self, shape: tuple[int, ...]) -> Any:
        """The graph, compiled for a batch of this ``shape``."""
        if shape not in self._programs:
            model = self._core.read_model(self._model)
            model.reshape({INPUT: list(shape)})
            hints = {
                "PERFORMANCE_HINT": "LATENCY",
                # OpenVINO's default is bf16 on CPUs that have it, which moves the scores.
                "INFERENCE_PRECISION_HINT": self._engine.precision,
                "INFERENCE_NUM_THREADS": self._engine.threads or default_threads(),
            }
            compiled = self._core.compile_model(model, _DEVICE, hints)
            self._programs[shape] = compiled.create_infer_request()
        return self._programs[shape]


def missing(precision: str = "f32") -> str:
    """Why OpenVINO cannot run here in ``precision``, and the cure; "" when it can."""
    if ov is None:
        return (
            f"the openvino package is not installed; run {install_command('openvino')}, or set "
            f"provider: auto or cpu"
        )
    if precision == "bf16" and "BF16" not in ov.Core().get_property(
        _DEVICE, "OPTIMIZATION_CAPABILITIES"
    ):
        return "this CPU has no bf16; choose f32"
    return ""


def version() -> str:
    """The version of OpenVINO; "" where it is not installed."""
    return "" if ov is None else str(ov.__version__)
