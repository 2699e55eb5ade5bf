"""From the trigger to the verdict in another process, and what the station adds to its model.

    python -m benchmarks.speed.end_to_end                       # 20,000 parts, 1 to 8 cameras
    python -m benchmarks.speed.end_to_end --quick               # does it work?
    python -m benchmarks.speed.end_to_end --bundle part.onnx --photos PHOTOS --threads 2

``inspector run`` in a process of its own, as a user starts it, its journal on this disk. This
process is the PLC: it sends triggers over ZeroMQ and takes the verdicts from the verdict socket.
The cameras replay bitmaps (``kind: folder``, uncompressed): drawing parts would cost a core.
Reading the file stands for exposure and transfer; it is measured here as well. Blocks of parts with
and without a subscriber to heatmaps, of bare inference (the same bundle, provider and threads,
here) and of commits to an idle journal on the same disk take turns, so that the differences hold on
a machine whose speed wanders. Then cold starts, the CPU time of an idle station, and triggers at a
rising rate until one misses its deadline.
``results/end_to_end.json`` and ``.png``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.checkout import DEMO, RESULTS
from benchmarks.figures import Figure, publish
from benchmarks.speed.end_to_end.bench import Bench
from benchmarks.speed.end_to_end.report import draw, latency_figures

CAMERAS = (1, 2, 4, 8)


def main() -> int:
    options = _options()
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as scratch,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bench = Bench(options, Path(scratch), progress)
        starts = bench.cold_starts()
        runs = {count: bench.run(count) for count in options.cameras}
    first = runs[options.cameras[0]]
    figures += latency_figures(first, options.cameras[0], goals=True)
    for count in options.cameras[1:]:
        figures += latency_figures(runs[count], count, goals=False)
    peak, cold = max(mb for _, mb in first.memory), float(np.median(starts))
    figures += [
        Figure("memory, 1 camera, PSS of the tree", peak, "MB", "<= 400", peak <= 400),
        Figure("  growth, last tenth - first tenth", first.growth_mb, "MB"),
        Figure("cold start to Ready, median", cold, "s", "<= 3", cold <= 3),
        Figure("CPU time of the idle station", first.idle_share * 100, "% of a core"),
    ]
    for count, run in runs.items():
        figures.append(Figure(f"rate until the deadline, {count} cameras", run.rate_hz, "parts/s"))
    command = f"python -m benchmarks.speed.end_to_end {' '.join(sys.argv[1:])}".strip()
    publish(options.name, command, figures)
    draw(runs, RESULTS / f"{options.name}.png")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.end_to_end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=DEMO)
    parser.add_argument("--photos", type=Path, help="at camera size; default: the simulator's")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: ONNX Runtime's choice")
    parser.add_argument("--parts", type=int, default=20_000)
    parser.add_argument(
        "--cameras", type=lambda text: tuple(map(int, text.split(","))), default=CAMERAS
    )
    parser.add_argument("--block", type=int, default=200, help="parts before the next takes turns")
    parser.add_argument("--deadline-ms", type=int, default=250)
    parser.add_argument("--minutes", type=float, default=15.0, help="for all; fewer parts then")
    parser.add_argument("--starts", type=int, default=5, help="cold ones")
    parser.add_argument("--folder", type=Path, help="where the journal is; default: TMPDIR")
    parser.add_argument("--quick", action="store_true", help="400 parts, 1 and 2 cameras")
    parser.add_argument("--name", default="end_to_end", help="of the files in results")
    options = parser.parse_args()
    if options.quick:
        options.parts, options.cameras, options.block, options.starts = 400, (1, 2), 50, 2
        options.name += "" if options.name != "end_to_end" else "_quick"
    return options


if __name__ == "__main__":
    sys.exit(main())
