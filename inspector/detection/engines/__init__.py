"""What runs a bundle's graph: a module for each library, behind :class:`InferenceBackend`."""

from __future__ import annotations

from inspector.detection.engines.base import Engine, InferenceBackend

__all__ = ["Engine", "InferenceBackend", "create"]


def create(engine: Engine) -> InferenceBackend:
    """The backend that ``engine`` asks for; it has no bundle yet.

    Raises :class:`ProviderError` when the library is not installed or cannot do it here.
    """
    if engine.provider == "openvino":
        from inspector.detection.engines.openvino import OpenVinoBackend

        return OpenVinoBackend(engine)
    from inspector.detection.engines.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(engine)
