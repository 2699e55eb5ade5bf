"""Training wing: it makes one verified ONNX bundle of photos of good parts. Needs [train]."""

# The package sets environment variables that ONNX Runtime reads when it loads.
import inspector  # noqa: F401
