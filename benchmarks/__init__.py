"""What is measured, and how it is told: every benchmark is a module, run from the checkout's root.

``python -m benchmarks.accuracy`` compares methods on your photos; ``accuracy/`` also has
``families``, ``teach_in``, ``contaminated``, ``limits``, ``photos_to_verdicts`` and ``head_cost``.
``python -m benchmarks.speed.latency`` and its neighbours (``end_to_end``, ``rivals``, ``sparse``,
``gpu``) take times; ``gpu.sh`` takes all those of a GPU. ``python -m benchmarks.faults`` breaks a
station on purpose and counts, ``python -m benchmarks.plc`` a line with its PLCs. Results go to
``results/``; ``RESULTS.md`` says what they mean.
"""

import os

# As `inspector` does, for modules that load ONNX Runtime before it or without it: from 1.29 on ONNX
# Runtime sends what it runs to Microsoft, and keeps an identity in HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
