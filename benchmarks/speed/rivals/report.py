"""Rows of a group: ratios against the same run, the goals, a table and bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.speed.rivals.plan import BACKBONE, BLURRED, CFA, GROUPS, OURS, PATCHCORE, TUNED

DEFAULT: Final = "int8"
"""What an export has, unless it is asked for another one, on a CPU that gains by it (VNNI)."""


@dataclass
class Row:
    """Times in ms, medians; None where nothing was measured, ``note`` then says why."""

    name: str
    p50: float | None = None
    p90: float | None = None
    whole_p50: float | None = None
    to_backbone: float | None = None
    to_ours: dict[str, float] = field(default_factory=dict)
    """Times our model of the same backbone and size, by precision."""
    model_mb: float | None = None
    memory_mb: float | None = None
    map: list[int] = field(default_factory=list)
    note: str = ""


def compare(rows: Iterable[Row]) -> None:
    """Fill in the ratios; all of them against medians of the same run."""
    by_name = {row.name: row for row in rows}
    bare = by_name.get(BACKBONE, Row("")).p50
    ours = {precision: by_name.get(name, Row("")).p50 for precision, name in OURS.items()}
    for row in by_name.values():
        if row.p50 is None:
            continue
        row.to_backbone = row.p50 / bare if bare else None
        row.to_ours = {precision: row.p50 / own for precision, own in ours.items() if own}


def goals(groups: dict[str, Any]) -> list[dict[str, Any]]:
    """Each goal with its figure and whether it holds; None where a part of it was not measured."""
    found = []

    def judge(group: str, name: str, mine: str, theirs: Sequence[str], limit: float) -> None:
        if group not in groups:
            return
        p50 = {row["name"]: row["p50"] for row in groups[group]["rows"]}
        known = [p50[rival] for rival in theirs if p50.get(rival) is not None]
        own = p50.get(mine)
        value = own / min(known) if own is not None and known else None
        holds = None if value is None else value <= limit
        found.append({"name": f"{group}: {name}", "value": value, "limit": limit, "holds": holds})

    for group in GROUPS:
        fastest = (CFA, f"{CFA} f32")
        for engine, own in (("", OURS["int8"]), (" on OpenVINO", TUNED)):
            name = f"our int8{engine} / anomalib's CFA, OpenVINO at its fastest"
            judge(group, name, own, fastest, 0.125)
    first = next(iter(GROUPS))
    for precision in (DEFAULT, "fp32"):
        own = OURS[precision]
        judge(first, f"our {precision} / anomavision's PatchCore with blur", own, [BLURRED], 0.6)
        judge(first, f"our {precision} / anomavision's PatchCore, no blur", own, [PATCHCORE], 1.0)
    return found


def table(group: str, rows: Iterable[Row]) -> Table:
    out = Table(title=f"{group}: milliseconds, median")
    for title in ("model", "ms", "× backbone", "× our fp32", "× our int8", "whole path ms"):
        out.add_column(title, justify="left" if title == "model" else "right")
    for title in ("model MB", "memory MB", "map"):
        out.add_column(title, justify="right")
    out.add_column("note")
    for row in rows:
        out.add_row(*cells(row))
    return out


def cells(row: Row) -> Iterator[str]:
    """A dash for every figure that was not measured."""

    def shown(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    yield row.name
    yield shown(row.p50, 1)
    yield shown(row.to_backbone, 2)
    for precision in OURS:
        yield shown(row.to_ours.get(precision), 2)
    yield shown(row.whole_p50, 1)
    yield shown(row.model_mb, 1)
    yield shown(row.memory_mb, 0)
    yield "×".join(str(side) for side in row.map) or "–"
    yield row.note


def draw(groups: dict[str, Any], path: Path) -> None:
    """Bars of every row that has a time, a panel for each group."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {
        name: [row for row in group["rows"] if row["p50"] is not None]
        for name, group in groups.items()
    }
    shown = {name: rows for name, rows in shown.items() if rows}
    if not shown:
        return
    heights = [len(rows) for rows in shown.values()]
    figure, axes = plt.subplots(
        len(shown),
        figsize=(9, 0.8 * len(shown) + 0.24 * sum(heights)),
        layout="constrained",
        squeeze=False,
        height_ratios=heights,
    )
    for axis, (name, rows) in zip(axes[:, 0], shown.items(), strict=True):
        mine = [row["name"].startswith("ours") or row["name"] == BACKBONE for row in rows]
        colours = ["tab:orange" if own else "tab:blue" for own in mine]
        bars = axis.barh([row["name"] for row in rows], [row["p50"] for row in rows], color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize="small")
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_xlabel("ms")
        axis.set_title(name)
        axis.tick_params(axis="y", labelsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
