"""What runs a bundle's graph: one module a library, behind :class:`InferenceBackend`."""

from __future__ import annotations

from inspector.detection.engines.base import Engine, InferenceBackend

__all__ = ["Engine", "InferenceBackend", "create"]


def create(engine: Engine) -> InferenceBackend:
    """The backend for ``engine``, nothing loaded. Raises :class:`ProviderError`."""
    if engine.provider == "openvino":
        from inspector.detection.engines.openvino import OpenVinoBackend

        return OpenVinoBackend(engine)
    from inspector.detection.engines.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(engine)
