"""OpenVINO on the CPU (extra ``[openvino]``). The only owner of the ``openvino`` package."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from inspector.detection.bundle import INPUT, OUTPUTS, Bundle
from inspector.detection.engines.base import Engine, default_threads, one_line
from inspector.errors import BundleError, Fault, ProviderError
from inspector.verdict import FloatMap, Frame8, Reason

try:
    import openvino as ov
except ImportError:
    ov = None

_DEVICE: Final = "CPU"


class OpenVinoBackend:
    """OpenVINO; a program for each batch size, since fixed shapes are a seventh quicker."""

    def __init__(self, engine: Engine) -> None:
        """Raises :class:`ProviderError` where OpenVINO is not installed, or cannot bf16."""
        if why := missing(engine.precision):
            raise ProviderError(f"provider: openvino: {why}")
        self.provider = ""
        self._engine = engine
        self._core = ov.Core()
        self._model: bytes = b""
        self._programs: dict[tuple[int, ...], Any] = {}
        self._trouble = ""

    def load(self, bundle: Bundle) -> None:
        """Compile for one picture. Raises :class:`BundleError`."""
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
        """Compile for each size, and run it three times."""
        for count in range(1, batch + 1):
            for _ in range(3):
                self.infer(np.zeros((count, height, width, 3), dtype=np.uint8))

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run a batch. Raises :class:`Fault` (``inference_error``)."""
        if not self._model:
            raise RuntimeError("infer before load")
        try:
            found = self._program(batch.shape).infer({INPUT: batch})
            # Copies: the request's own memory is written again by the next inference.
            score, anomaly_map = (np.array(found[name], dtype=np.float32) for name in OUTPUTS)
        except (RuntimeError, ValueError) as error:
            self._trouble = one_line(error)
            raise Fault(Reason.INFERENCE_ERROR.value, self._trouble) from None
        self._trouble = ""
        return score, anomaly_map

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self._trouble

    def _program(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._programs:
            model = self._core.read_model(self._model)
            model.reshape({INPUT: list(shape)})
            hints = {
                "PERFORMANCE_HINT": "LATENCY",
                # Its own default on CPUs that have it is bf16, which moves the scores.
                "INFERENCE_PRECISION_HINT": self._engine.precision,
                "INFERENCE_NUM_THREADS": self._engine.threads or default_threads(),
            }
            compiled = self._core.compile_model(model, _DEVICE, hints)
            self._programs[shape] = compiled.create_infer_request()
        return self._programs[shape]


def missing(precision: str = "f32") -> str:
    """Why OpenVINO cannot serve here, with the cure; "" when nothing speaks against it."""
    if ov is None:
        return (
            "the openvino package is not installed; pip install 'line-inspector[openvino]', or "
            "set provider: auto or cpu"
        )
    if precision == "bf16" and "BF16" not in ov.Core().get_property(
        _DEVICE, "OPTIMIZATION_CAPABILITIES"
    ):
        return "this CPU has no bf16; choose f32"
    return ""


def version() -> str:
    """Of OpenVINO, "" where it is not installed."""
    return "" if ov is None else str(ov.__version__)
