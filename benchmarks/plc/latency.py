"""What a bridge adds to a verdict: its time, less that of the command socket in the same run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure

WARM: int = 20
"""Pairs before those that count."""


def figures(
    name: str,
    bridge_ms: Sequence[float],
    command_ms: Sequence[float],
    goals: Sequence[tuple[float, float]],
) -> list[Figure]:
    """The table of a row. ``goals``: share of the parts, and ms that the bridge may add there.

    The two are measured in turns, part by part; what is subtracted are quantiles of all, since a
    slow moment of the machine hits one of a pair and not the other.
    """
    found = []
    for share in (0.5, 0.99):
        label = f"p{100 * share:g}"
        over, under = quantile(bridge_ms, share), quantile(command_ms, share)
        found += [
            Figure(f"{name}, {label}", round(over, 3), "ms"),
            Figure(f"trigger to verdict over the command socket, {label}", round(under, 3), "ms"),
        ]
        for at, limit_ms in goals:
            if at == share:
                added = round(over - under, 3)
                found.append(
                    Figure(
                        f"the bridge adds, {label}",
                        added,
                        "ms",
                        f"≤ {limit_ms:g}",
                        added <= limit_ms,
                    )
                )
    return found
