"""Is one commit slower than another? Both measured in turns on this machine.

    python -m benchmarks.speed.compare OLD_CHECKOUT [NEW_CHECKOUT] [--rounds 20] [--goal 1.03]

Each round measures both checkouts, the order changing, in processes of their own that use public
doors only: ``Detector.judge`` on the demo's bundle, and from a trigger to its verdict through a
running station. A figure is the ratio new/old of the medians over the rounds, with its 95 %
bootstrap interval; it holds unless the interval lies above the goal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.checkout import DEMO, ROOT
from benchmarks.figures import Figure, publish

WAYS = {"judge": "Detector.judge, demo's bundle", "verdict": "trigger to verdict, demo's station"}
RESAMPLES = 10_000
PROBE_TIMEOUT_S = 120


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.compare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("old", type=Path, help="folder of a checkout")
    parser.add_argument("new", type=Path, nargs="?", default=ROOT, help="default: this one")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--goal", type=float, default=1.03, help="highest ratio that is no slower")
    options = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {way: {"old": [], "new": []} for way in WAYS}
    sides = {"old": options.old.resolve(), "new": options.new.resolve()}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("measuring", total=options.rounds)
        for number in range(options.rounds):
            order = list(sides)[:: 1 if number % 2 else -1]
            for way in WAYS:
                for side in order:
                    times[way][side].append(probe(way, sides[side]))
            bar.advance(task)
    figures = []
    for way, words in WAYS.items():
        old, new = (np.asarray(times[way][side]) for side in ("old", "new"))
        ratio, low, high = ratio_of_medians(old, new)
        figures.append(Figure(f"{words}: old", float(np.median(old)), "ms"))
        figures.append(Figure(f"{words}: new", float(np.median(new)), "ms"))
        goal = f"95 % interval {low:.3f} to {high:.3f}, not above {options.goal:g}"
        figures.append(Figure(f"{words}: new / old", ratio, "", goal, low <= options.goal))
    versions = " ".join(version(folder) for folder in sides.values())
    publish("compare", f"python -m benchmarks.speed.compare ({versions})", figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


def ratio_of_medians(old: np.ndarray, new: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median of ``new`` over that of ``old``, and its 95 % interval; rounds are resampled whole."""
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(old), (RESAMPLES, len(old)))
    ratios = np.median(new[picked], axis=1) / np.median(old[picked], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(np.median(new) / np.median(old)), float(low), float(high)


def probe(way: str, checkout: Path) -> float:
    """Median time of one process that runs the code of ``checkout``, ms."""
    environment: Mapping[str, str] = os.environ | {"PYTHONPATH": str(checkout)}
    # By its path: the older checkout need not have this file.
    command = [sys.executable, str(Path(__file__).with_name("probe.py")), way, str(DEMO)]
    done = subprocess.run(
        command,
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr}")
    return float(json.loads(done.stdout)["median_ms"])


def version(folder: Path) -> str:
    done = subprocess.run(
        ["git", "-C", folder, "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or folder.name


if __name__ == "__main__":
    sys.exit(main())
