"""The detector: one bundle on one execution provider, a frame in and a judgement out.

The only owner of ONNX Runtime. Training proves parity with this class and the line judges with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from inspector import bundle as bundles
from inspector.bundle import Bundle, Manifest
from inspector.config import Provider
from inspector.errors import BundleError, Fault, GoldenError, ProviderError
from inspector.frame import Box, Geometry
from inspector.verdict import FloatMap, Frame8, Judgement, Reason, Verdict, decide

_NAMES: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CURES: Final = {
    "cuda": "install the NVIDIA driver and pip install 'line-inspector[cuda]', or set provider: "
    "auto or cpu",
    "tensorrt": "install the NVIDIA driver, pip install 'line-inspector[cuda]' and the TensorRT "
    "libraries that ONNX Runtime asks for, or set provider: auto or cpu",
}
_ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    # pybind11 registers each as a direct child of Exception; plain RuntimeError is its fallback.
    *(
        error
        for error in vars(ort_errors).values()
        if isinstance(error, type) and issubclass(error, Exception)
    ),
    RuntimeError,
    ValueError,
    MemoryError,
)
_FATAL_ONLY: Final = 4
_SCORE_SLACK: Final = 1e-3
"""Largest relative difference of ``score`` and its map's maximum that rounding (fp16) explains."""

# A provider that cannot start is reported by us, in one line, not by ONNX Runtime's log.
ort.set_default_logger_severity(_FATAL_ONLY)


class InferenceBackend(Protocol):
    """What runs the graph; ONNX Runtime is one, others fit behind the same four verbs."""

    provider: str
    """Execution provider in use, as the backend names it; "" before ``load``."""

    def load(self, model: bytes) -> None:
        """Build a session of a serialised ONNX model.

        Raises :class:`BundleError` (refused model) or :class:`ProviderError`.
        """
        ...

    def warm(self, height: int, width: int) -> None:
        """Run until the first real part is as quick as the next. Raises :class:`Fault`."""
        ...

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run uint8 ``[N, H, W, 3]``; float32 ``score [N]`` and ``anomaly_map [N, h, w]``.

        Raises :class:`Fault` (``inference_error``).
        """
        ...

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        ...


class OnnxRuntimeBackend:
    """ONNX Runtime on the provider asked for, or not at all: it never changes providers."""

    def __init__(self, provider: Provider = "auto", threads: int = 0) -> None:
        self.provider = ""
        self._asked = provider
        self._threads = threads
        self._session: ort.InferenceSession | None = None
        self._trouble = ""

    def load(self, model: bytes) -> None:
        """Build the session. Raises :class:`BundleError` or :class:`ProviderError`."""
        if self._asked == "cpu":
            session = self._create(model, "cpu")
        elif self._asked == "auto":
            session = self._create(model, "cpu" if _missing("cuda") else "cuda")
        else:
            cause = _missing(self._asked)
            if cause:
                raise self._refused(cause)
            session = self._create(model, self._asked)
            if _serving(session) != _NAMES[self._asked]:
                raise self._refused(
                    f"ONNX Runtime {ort.__version__} gave {_serving(session)} instead "
                    f"(its libraries did not load)"
                )
        self._session = session
        self.provider = _serving(session)

    def warm(self, height: int, width: int) -> None:
        """Three parts: memory arenas and cuDNN's choice of algorithms settle within them."""
        for _ in range(3):
            self.infer(np.zeros((1, height, width, 3), dtype=np.uint8))

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run a batch. Raises :class:`Fault` (``inference_error``)."""
        if self._session is None:
            raise RuntimeError("infer before load")
        try:
            score, anomaly_map = self._session.run(list(bundles.OUTPUTS), {bundles.INPUT: batch})
        except _ORT_ERRORS as error:
            self._trouble = _one_line(error)
            raise Fault(Reason.INFERENCE_ERROR.value, self._trouble) from None
        self._trouble = ""
        return np.asarray(score, dtype=np.float32), np.asarray(anomaly_map, dtype=np.float32)

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self._trouble

    def _create(self, model: bytes, kind: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = _FATAL_ONLY
        # Spinning threads double the latency as soon as a neighbour wants the core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[str | tuple[str, dict[str, Any]]] = [_NAMES["cpu"]]
        if kind != "cpu":
            # TF32 keeps 10 bits of a product: scores would leave the golden tolerance.
            providers.insert(0, (_NAMES["cuda"], {"use_tf32": "0"}))
            _preload()
        if kind == "tensorrt":
            providers.insert(0, _NAMES["tensorrt"])
        try:
            session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except _ORT_ERRORS as error:
            if kind != "cpu" and self._asked != "auto":
                raise self._refused(_one_line(error)) from None
            if kind != "cpu":
                return self._create(model, "cpu")
            raise BundleError(
                f"ONNX Runtime {ort.__version__} refuses the model: {_one_line(error)}; "
                f"export it again or upgrade onnxruntime"
            ) from None
        session.disable_fallback()
        return session

    def _refused(self, cause: str) -> ProviderError:
        return ProviderError(f"provider: {self._asked}: {cause}; {_CURES[self._asked]}")


class Detector:
    """A bundle, ready to judge; made by :meth:`load`."""

    def __init__(
        self,
        bundle: Bundle,
        backend: InferenceBackend,
        region: Box | None = None,
        limit_factor: float = 1.0,
    ) -> None:
        _check_region(bundle, region)
        # The session has its own copy of the graph.
        self._bundle = dataclasses.replace(bundle, data=b"")
        self.manifest: Manifest = bundle.manifest
        self.sha256: str = bundle.sha256
        self.path: Path = bundle.path
        self.limit_factor = limit_factor
        geometry = bundle.manifest.geometry
        self.geometry: Geometry = (
            geometry.model_copy(update={"region": region, "frame": None}) if region else geometry
        )
        self._backend = backend

    @classmethod
    def load(
        cls,
        path: Path | str,
        provider: Provider = "auto",
        threads: int = 0,
        *,
        region: Box | None = None,
        limit_factor: float = 1.0,
        verify: bool = True,
        keys: Sequence[Ed25519PublicKey] = (),
    ) -> Detector:
        """Read and check a bundle, start its session, warm it, replay its golden images.

        ``region`` (camera pixels) replaces the bundle's; ``limit_factor`` multiplies the limit;
        ``threads`` 0 is ONNX Runtime's choice; ``verify=False`` skips the golden images; one of
        ``keys``, if there are any, must have signed the bundle. Raises :class:`BundleError`,
        :class:`SignatureError`, :class:`GoldenError` or :class:`ProviderError`.
        """
        bundle = bundles.read(Path(path), keys)
        backend = OnnxRuntimeBackend(provider, threads)
        try:
            backend.load(bundle.data)
        except BundleError as error:
            raise BundleError(f"{bundle.path}: {error}") from None
        detector = cls(bundle, backend, region, limit_factor)
        detector._start(verify)
        return detector

    def adapted(self, region: Box | None = None, limit_factor: float = 1.0) -> Detector:
        """The same session for another region and factor. Raises :class:`BundleError`."""
        return Detector(self._bundle, self._backend, region, limit_factor)

    @property
    def provider(self) -> str:
        """Execution provider in use, as ONNX Runtime names it."""
        return self._backend.provider

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self._backend.health()

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Bare outputs for pictures at input size, no operator's factor applied.

        ``batch``: uint8 BGR ``[N, H, W, 3]``. Returns ``score`` float32 ``[N]`` and
        ``anomaly_map`` float32 ``[N, h, w]``. Raises :class:`Fault`.
        """
        return self._backend.infer(batch)

    def judge(self, frame: npt.NDArray[Any]) -> Judgement:
        """Judge one frame at camera size (uint8 or uint16, grey, BGR or BGRA).

        Whatever is wrong with the part or the inference is a FAULT in the answer, never an error.
        """
        judged = self._prepare(frame)
        if isinstance(judged, Judgement):
            return judged
        return self._judge(judged, self.geometry, frame.shape)

    @property
    def engine(self) -> object:
        """What runs the graph; detectors that share it may judge together."""
        return self._backend

    @staticmethod
    def judge_together(parts: Sequence[tuple[Detector, npt.NDArray[Any]]]) -> list[Judgement]:
        """Judge frames in one batch, each by its own detector; all have the same ``engine``.

        Each as ``judge`` would: what is wrong with one is no fault of the others, and when the
        batch fails they are judged one by one.
        """
        prepared = [detector._prepare(frame) for detector, frame in parts]
        pictures = [one for one in prepared if not isinstance(one, Judgement)]
        outputs: Iterator[tuple[np.float32, FloatMap]] | None = None
        if len(pictures) > 1:
            with contextlib.suppress(Fault):
                scores, maps = parts[0][0]._backend.infer(np.stack(pictures))
                if len(scores) == len(maps) == len(pictures):
                    outputs = zip(scores, maps, strict=True)
        judgements = []
        for (detector, frame), judged in zip(parts, prepared, strict=True):
            if isinstance(judged, Judgement):
                judgements.append(judged)
            elif outputs is None:
                judgements.append(detector._judge(judged, detector.geometry, frame.shape))
            else:
                found = next(outputs)
                judgements.append(
                    detector._conclude(*found, judged, detector.geometry, frame.shape)
                )
        return judgements

    def judge_input(self, picture: Frame8) -> Judgement:
        """Judge a picture at network size (uint8 BGR ``[H, W, 3]``), such as a golden one.

        As ``judge`` does, but for the geometry: regions are in the picture's own pixels.
        """
        height, width = picture.shape[:2]
        return self._judge(picture, Geometry(height=height, width=width), picture.shape)

    def _prepare(self, frame: npt.NDArray[Any]) -> Frame8 | Judgement:
        if not isinstance(frame, np.ndarray) or frame.ndim not in (2, 3):
            shape = getattr(frame, "shape", type(frame).__name__)
            return self._fault(Reason.FRAME_SHAPE, f"a frame of shape {shape} is not a picture")
        try:
            return self.geometry.apply(frame)
        except Fault as fault:
            return self._fault(Reason(fault.reason), str(fault))

    def _judge(self, judged: Frame8, geometry: Geometry, frame_shape: tuple[int, ...]) -> Judgement:
        try:
            scores, maps = self._backend.infer(judged[np.newaxis])
        except Fault as fault:
            return self._fault(Reason(fault.reason), str(fault), judged)
        return self._conclude(scores[0], maps[0], judged, geometry, frame_shape)

    def _conclude(
        self,
        raw_score: np.float32,
        raw_map: FloatMap,
        judged: Frame8,
        geometry: Geometry,
        frame_shape: tuple[int, ...],
    ) -> Judgement:
        raw, anomaly_map = float(raw_score), raw_map / np.float32(self.limit_factor)
        if not (math.isfinite(raw) and np.isfinite(anomaly_map).all()):
            return self._fault(Reason.NOT_FINITE, "the model's output is not a number", judged)
        score = float(anomaly_map.max())
        if abs(raw / self.limit_factor - score) > _SCORE_SLACK * max(1.0, abs(score)):
            detail = f"the model's score {raw:.6g} is not its map's maximum {raw_map.max():.6g}"
            return self._fault(Reason.INFERENCE_ERROR, detail, judged)
        verdict, reason = decide(score)
        if verdict is Verdict.FAULT:
            return self._fault(reason, f"a score of {score:.6g} is impossible", judged)
        return Judgement(
            verdict,
            score,
            reason,
            anomaly_map,
            geometry.regions(anomaly_map, frame_shape),
            judged,
            self.limit_factor,
        )

    def _fault(self, reason: Reason, detail: str, judged: Frame8 | None = None) -> Judgement:
        return Judgement(
            Verdict.FAULT,
            None,
            reason,
            judged=judged,
            limit_factor=self.limit_factor,
            detail=detail,
        )

    def _start(self, verify: bool) -> None:
        height, width = self.geometry.height, self.geometry.width
        try:
            self._backend.warm(height, width)
            score, anomaly_map = self.infer(np.zeros((1, height, width, 3), dtype=np.uint8))
        except Fault as fault:
            raise BundleError(f"{self.path}: {fault}; export it again") from None
        if score.shape != (1,) or anomaly_map.shape != (1, height, width):
            raise BundleError(
                f"{self.path}: outputs have shapes {score.shape} and {anomaly_map.shape}, "
                f"expected (1,) and {(1, height, width)}; export it again"
            )
        if verify:
            self._replay_golden()

    def _replay_golden(self) -> None:
        tolerance = self.manifest.golden_tolerance
        for golden in self.manifest.golden:
            try:
                found = float(self.infer(golden.image()[np.newaxis])[0][0])
            except Fault as fault:
                raise BundleError(f"{self.path}: {fault}; export it again") from None
            # Written so that NaN is a difference.
            if not abs(found - golden.score) <= tolerance:
                raise GoldenError(
                    f"{self.path}: golden image '{golden.name}' scores {found:.6f} on "
                    f"{self.provider}, expected {golden.score:.6f} within {tolerance:g}; choose "
                    f"another provider, or export the model again on this machine"
                )


def _check_region(bundle: Bundle, region: Box | None) -> None:
    if region is None:
        return
    try:
        bundle.manifest.geometry.check_aspect(region.w, region.h)
    except Fault as fault:
        raise BundleError(
            f"{bundle.path}: {fault}; choose a region of that shape, or train for this one"
        ) from None


def _serving(session: ort.InferenceSession) -> str:
    return str(session.get_providers()[0])


def _missing(kind: str) -> str:
    """Why an NVIDIA provider cannot work here, in words; "" when nothing speaks against it."""
    if _NAMES[kind] not in ort.get_available_providers():
        return f"this ONNX Runtime {ort.__version__} was built without it"
    library = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver ({library}) on this machine"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the NVIDIA driver does not start (see nvidia-smi)"
    return "" if count.value else "the NVIDIA driver finds no GPU"


def _preload() -> None:
    """Load CUDA and cuDNN of the ``[cuda]`` extra; ONNX Runtime before 1.21 cannot."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
