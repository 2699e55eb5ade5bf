"""Training wing: photos of good parts in, one verified ONNX bundle out. Needs the extra [train]."""

# For what it sets before ONNX Runtime loads.
import inspector  # noqa: F401
