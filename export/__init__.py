"""Training wing: photos of good parts in, one verified ONNX bundle out. Needs the extra [train]."""
