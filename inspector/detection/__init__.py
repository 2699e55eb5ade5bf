"""A frame in, a judgement out: the detector, its bundle, and the engines that run it."""
