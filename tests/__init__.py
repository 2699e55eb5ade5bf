"""The tests, in the rooms of the code that they test."""

import os

# The tests run side by side, one on each core. A library that takes all cores for itself would slow
# all of them down; NumPy, OpenCV and torch read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
