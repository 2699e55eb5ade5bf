"""ONNX Runtime on the CPU, CUDA or TensorRT; no other module of the line imports it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from platformdirs import user_cache_path

from inspector.detection.bundle import INPUT, OUTPUTS, Bundle
from inspector.detection.engines.base import Engine, default_threads, one_line, usable_cores
from inspector.errors import BundleError, Fault, ProviderError
from inspector.logs import say
from inspector.verdict import FloatMap, Frame8, Reason
from inspector.version import install_command

_NAMES: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CURES: Final = {
    "cuda": "install the NVIDIA driver and run {install}, or set provider: auto or cpu",
    "tensorrt": "install the NVIDIA driver, run {install} and install the TensorRT libraries "
    "that ONNX Runtime asks for, or set provider: auto or cpu",
}
ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    # pybind11 makes each a direct child of Exception, and falls back on a plain RuntimeError.
    *(
        error
        for error in vars(ort_errors).values()
        if isinstance(error, type) and issubclass(error, Exception)
    ),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)
"""Whatever a session of ONNX Runtime may raise."""
_FATAL_ONLY: Final = 4
_LARGEST_BATCH: Final = 8
"""The largest batch that TensorRT plans for; for a larger one it would plan anew."""

# The backend reports a provider that cannot start in one line; ONNX Runtime's own log is silenced.
ort.set_default_logger_severity(_FATAL_ONLY)


@dataclass(frozen=True)
class _Buffers:
    """Device memory for one batch size; a captured CUDA graph reads and writes its addresses."""

    binding: Any
    options: Any
    image: Any
    outputs: tuple[Any, Any]


class OnnxRuntimeBackend:
    """ONNX Runtime on the provider that was asked for, or an error.

    Only ``auto`` chooses: CUDA where that starts, else the CPU.
    """

    def __init__(self, engine: Engine) -> None:
        self.provider = ""
        self._engine = engine
        self._asked = engine.provider
        self._session: ort.InferenceSession | None = None
        self._captures = False
        """Whether CUDA graphs are captured."""
        self._caller_cores: set[int] = set()
        """The cores that the calling thread has for itself while it infers; empty: any core."""
        self._buffers: dict[int, _Buffers] = {}
        self._last_error = ""

    def load(self, bundle: Bundle) -> None:
        """Build a session for ``bundle``. Raises :class:`BundleError` or :class:`ProviderError`."""
        if self._asked == "cpu":
            session = self._create(bundle, "cpu")
        elif self._asked == "auto":
            session = self._create(bundle, "cpu" if missing("cuda") else "cuda")
        else:
            cause = missing(self._asked)
            if cause:
                raise self._refused(cause)
            session = self._create(bundle, self._asked)
            if _provider_of(session) != _NAMES[self._asked]:
                raise self._refused(
                    f"ONNX Runtime {ort.__version__} gave {_provider_of(session)} instead "
                    f"(its libraries did not load)"
                )
        self._session = session
        self.provider = _provider_of(session)

    def warm(self, height: int, width: int, batch: int = 1) -> None:
        """Run each batch size up to ``batch`` three times.

        Memory arenas and cuDNN's choice of algorithms settle within that. CUDA graphs are captured
        here and nowhere else, since a capture takes longer than a part may.
        """
        for count in range(batch, 0, -1):
            blank = np.zeros((count, height, width, 3), dtype=np.uint8)
            # A second capture would replay the first graph, which uses the first buffers.
            if self._captures and count not in self._buffers:
                self._capture(blank)
            for _ in range(3):
                self.infer(blank)

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """Run a batch, as :class:`InferenceBackend` says."""
        session = self._loaded
        try:
            buffers = self._buffers.get(len(batch))
            if buffers is not None:
                score, anomaly_map = self._replay(buffers, batch)
            else:
                options = _run_options("-1") if self._captures else None
                with _pinned_to(self._caller_cores):
                    score, anomaly_map = session.run(list(OUTPUTS), {INPUT: batch}, options)
            # Outputs that are no numbers refuse it: such a graph is no bundle's.
            found = np.asarray(score, np.float32), np.asarray(anomaly_map, np.float32)
        except ORT_ERRORS as error:
            self._last_error = one_line(error)
            raise Fault(Reason.INFERENCE_ERROR.value, self._last_error) from None
        self._last_error = ""
        return found

    @property
    def _loaded(self) -> ort.InferenceSession:
        if self._session is None:
            raise RuntimeError("infer before load")
        return self._session

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self._last_error

    def _capture(self, batch: Frame8) -> None:
        """Capture a CUDA graph for this batch size; if that is refused, it runs without one."""
        try:
            buffers = self._allocate(batch)
            self._replay(buffers, batch)
        except ORT_ERRORS as error:
            say("cuda_graph_refused", logging.WARNING, batch=len(batch), detail=one_line(error))
        else:
            self._buffers[len(batch)] = buffers

    def _allocate(self, batch: Frame8) -> _Buffers:
        count, height, width, _ = batch.shape
        binding = self._loaded.io_binding()
        image = ort.OrtValue.ortvalue_from_numpy(batch, "cuda", 0)
        binding.bind_ortvalue_input(INPUT, image)
        outputs = tuple(
            ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
            for shape in ((count,), (count, height, width))
        )
        for name, value in zip(OUTPUTS, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        # The batch size numbers its graph; the number 0 is ONNX Runtime's own.
        return _Buffers(binding, _run_options(str(count)), image, (outputs[0], outputs[1]))

    def _replay(self, buffers: _Buffers, batch: Frame8) -> tuple[Any, Any]:
        buffers.image.update_inplace(np.ascontiguousarray(batch))
        self._loaded.run_with_iobinding(buffers.binding, buffers.options)
        score, anomaly_map = buffers.outputs
        return score.numpy(), anomaly_map.numpy()

    def _create(self, bundle: Bundle, kind: str) -> ort.InferenceSession:
        self._captures = self._engine.graph and kind != "cpu" and can_be_captured(bundle)
        try:
            session = self._open(bundle, kind)
        except ORT_ERRORS as error:
            if self._captures:
                # A session without CUDA graphs is slower, but it judges.
                say("cuda_graph_refused", logging.WARNING, detail=one_line(error))
                self._engine = self._engine.model_copy(update={"graph": False})
                return self._create(bundle, kind)
            if kind != "cpu" and self._asked != "auto":
                raise self._refused(one_line(error)) from None
            if kind != "cpu":
                return self._create(bundle, "cpu")
            raise BundleError(
                f"ONNX Runtime {ort.__version__} refuses the model: {one_line(error)}; "
                f"export it again or upgrade onnxruntime"
            ) from None
        session.disable_fallback()
        return session

    def _open(self, bundle: Bundle, kind: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        # Threads that spin double the latency as soon as another process wants the core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        threads = self._engine.threads or default_threads()
        options.intra_op_num_threads = threads
        affinities = _thread_affinities(threads)
        if affinities:
            # The scheduler would wake all threads on one core after a pause.
            options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
            self._caller_cores = set(usable_cores()[:1]) if kind == "cpu" else set()
        providers: list[str | tuple[str, dict[str, Any]]] = [_NAMES["cpu"]]
        if kind != "cpu":
            _preload()
            providers.insert(0, (_NAMES["cuda"], _cuda_options(self._captures)))
        if kind == "tensorrt":
            providers.insert(0, (_NAMES["tensorrt"], tensorrt_options(bundle, self._captures)))
        return ort.InferenceSession(bundle.data, options, providers=providers, enable_fallback=0)

    def _refused(self, cause: str) -> ProviderError:
        # Asked for now: the command depends on the folder that the program works in.
        cure = _CURES[self._asked].format(install=install_command("cuda"))
        return ProviderError(f"provider: {self._asked}: {cause}; {cure}")


def missing(kind: str) -> str:
    """Why the provider ``cuda`` or ``tensorrt`` cannot work here; "" when nothing is missing."""
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


def version() -> str:
    """The version of ONNX Runtime."""
    return str(ort.__version__)


def can_be_captured(bundle: Bundle) -> bool:
    """False for a graph that, replayed, would read freed memory of the host; the log says so."""
    # GatherND's kernel copies offsets from the stack (ONNX Runtime's gather_nd.cc).
    if b"GatherND" not in bundle.data:
        return True
    say("cuda_graph_refused", logging.WARNING, detail="it holds GatherND; export the model again")
    return False


def _cuda_options(captures: bool) -> dict[str, str]:
    return {
        # TF32 keeps 10 bits of a product, and scores would leave the golden tolerance.
        "use_tf32": "0",
        # Shapes are fixed, so an arena that doubles would hold memory that nobody asks for.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "enable_cuda_graph": str(int(captures)),
    }


def tensorrt_options(bundle: Bundle, captures: bool) -> dict[str, str]:
    """TensorRT's options for ``bundle``, among them the folder where it keeps what it built.

    ``captures``: capture CUDA graphs. Raises :class:`ProviderError` when the folder cannot be used.
    """
    cache = _tensorrt_cache()
    geometry, precision = bundle.manifest.geometry, bundle.manifest.precision
    picture = f"x{geometry.height}x{geometry.width}x3"
    return {
        "trt_fp16_enable": str(precision == "fp16"),
        "trt_int8_enable": str(precision == "int8"),
        "trt_cuda_graph_enable": str(captures),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": f"{INPUT}:1{picture}",
        "trt_profile_opt_shapes": f"{INPUT}:1{picture}",
        "trt_profile_max_shapes": f"{INPUT}:{_LARGEST_BATCH}{picture}",
    }


def _tensorrt_cache() -> Path:
    """The folder for TensorRT's engines, which take minutes to build; made when it is missing.

    It lies in the cache that systemd gives the station (``CacheDirectory=``), else in the user's.
    TensorRT names the files by model, GPU and its own version. Raises :class:`ProviderError`.
    """
    # Several folders are joined by colons (systemd.exec(5), CACHE_DIRECTORY).
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    cache = (Path(given) if given else user_cache_path("line-inspector")) / "tensorrt"
    cause = ""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cause = f"cannot be made: {error.strerror}"
    if not cause and not os.access(cache, os.W_OK | os.X_OK):
        cause = "cannot be written"
    if cause:
        raise ProviderError(
            f"provider: tensorrt: {cache}: {cause}; set CACHE_DIRECTORY to a folder that the "
            f"station may write, or provider: cuda"
        )
    return cache


def _thread_affinities(threads: int) -> str:
    """A core for each thread that ONNX Runtime starts, as its option names them; "": too few.

    Its cores are numbered from 1. The calling thread computes, too, so it starts one thread fewer.
    """
    cores = usable_cores()[1:threads]
    return ";".join(str(core + 1) for core in cores) if len(cores) == threads - 1 else ""


@contextlib.contextmanager
def _pinned_to(cores: set[int]) -> Iterator[None]:
    """Keep the calling thread on ``cores`` meanwhile; without any, wherever it may run."""
    if not cores:
        yield
        return
    # It may have woken on the core of one of the session's threads, and both would share it.
    before = os.sched_getaffinity(0)
    # An administrator may have taken the core away: that is slower, but no reason to stop.
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def _run_options(graph_id: str) -> ort.RunOptions:
    """Options of one run; ``graph_id`` names the CUDA graph to capture or replay, "-1" none."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    return options


def _provider_of(session: ort.InferenceSession) -> str:
    return str(session.get_providers()[0])


def _preload() -> None:
    """Load the CUDA and cuDNN libraries of the ``[cuda]`` extra, from ONNX Runtime 1.21 on."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()
