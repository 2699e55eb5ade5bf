"""What was measured of a station, and its figures and curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np

from benchmarks.figures import Figure

mpl.use("Agg")

STAGES: Final = ("to the station", "picture", "wait", "judgement", "record and publish")
LATE: Final = {"deadline_missed", "queue_full", "over_trigger"}
"""Reasons of verdicts that came too late for their part."""


@dataclass
class Sample:
    """Latencies of one kind of block, ms: in all, and stage by stage."""

    total: list[float] = field(default_factory=list)
    stages: list[tuple[float, ...]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.total, share)) if self.total else float("nan")


@dataclass
class Run:
    """What one station with so many cameras did."""

    quiet: Sample = field(default_factory=Sample)
    """Nobody subscribes to heatmaps."""
    heard: Sample = field(default_factory=Sample)
    bare: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    """Of a camera's file."""
    commit: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, MB."""
    idle_share: float = 0.0
    rate_hz: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def growth_mb(self) -> float:
        values = [mb for _, mb in self.memory]
        tenth = max(1, len(values) // 10)
        return float(np.median(values[-tenth:]) - np.median(values[:tenth]))


def latency_figures(run: Run, count: int, goals: bool) -> list[Figure]:
    who = f"{count} cameras" if count > 1 else "1 camera"
    bare, commit = float(np.median(run.bare)), float(np.median(run.commit))
    p50, p99 = run.quiet.quantile(0.5), run.quiet.quantile(0.99)
    # All cameras look at one part at once: the last verdict waits for all models before it.
    extra = p50 - bare * (count + 1) / 2
    own = extra - float(np.median(run.reading))
    figures = [Figure(f"{who}: trigger to verdict, p50", p50, "ms")]
    if goals:
        figures.append(Figure("  less the bare model", extra, "ms", "<= 2", extra <= 2))
        figures.append(Figure("  less the camera's file, too", own, "ms"))
        figures.append(Figure("  p99", p99, "ms", "<= 1.5 x p50", p99 <= 1.5 * p50))
        ratio = float(np.quantile(run.bare, 0.99)) / bare
        figures.append(Figure("  p99 / p50", p99 / p50, ""))
        figures.append(Figure("  p99 / p50 of the bare model", ratio, ""))
    else:
        figures.append(Figure("  less the bare models before it, mean", extra, "ms"))
        figures.append(Figure("  p99", p99, "ms"))
    figures += [
        Figure("  p99.9", run.quiet.quantile(0.999), "ms"),
        Figure("  with heatmaps heard, p50", run.heard.quantile(0.5), "ms"),
        Figure("  with heatmaps heard, p99", run.heard.quantile(0.99), "ms"),
        Figure("  bare model, p50", bare, "ms"),
        Figure("  bare model, p99", float(np.quantile(run.bare, 0.99)), "ms"),
        Figure("  one commit to an idle journal, p50", commit, "ms"),
        Figure("  one commit to an idle journal, p99", float(np.quantile(run.commit, 0.99)), "ms"),
    ]
    stages = np.median(np.asarray(run.quiet.stages), axis=0)
    figures += [
        Figure(f"  {name}, p50", float(ms), "ms") for name, ms in zip(STAGES, stages, strict=True)
    ]
    figures.append(Figure("  parts", len(run.quiet.total) + len(run.heard.total), ""))
    late = sum(number for reason, number in run.reasons.items() if reason in LATE)
    figures.append(Figure("  of them too late", late, ""))
    return figures


def draw(runs: dict[int, Run], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for count, run in runs.items():
        for sample, style in ((run.quiet, "-"), (run.heard, ":")):
            total = np.sort(sample.total)
            label = f"{count} cameras{', heatmaps heard' if style == ':' else ''}"
            left.plot(total, 1 - np.arange(len(total)) / len(total), style, label=label)
    first = next(iter(runs.values()))
    bare = np.sort(first.bare)
    left.plot(bare, 1 - np.arange(len(bare)) / len(bare), "k--", label="bare model")
    left.set(yscale="log", xscale="log", xlabel="ms", ylabel="share of parts slower than that")
    left.set_title("trigger to verdict in another process")
    left.legend(fontsize=7)
    for count, run in runs.items():
        right.plot(*zip(*run.memory, strict=True), label=f"{count} cameras")
    right.set(xlabel="s", ylabel="MB", ylim=(0, None), title="memory of the process tree (PSS)")
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
