"""The accuracy table: rows over seeds and categories, as Markdown, JSON and a picture."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from benchmarks.accuracy.literature import SOURCES, Published, published
from benchmarks.figures import machine
from inspector.errors import OutputError
from inspector.files import write_whole

Result = dict[str, Any]
"""One cell: ``row``, ``category``, ``backbone``, ``seed``, ``figures`` and what it hangs on."""

AVERAGED = (
    "image_auroc",
    "pixel_auroc",
    "aupro",
    "f1",
    "false_reject_rate",
    "escape_rate",
    "escapes_at_auto",
    "escapes_at_1_percent",
    "escapes_at_oracle",
    "head_ms",
    "train_seconds",
    "items",
    "megabytes",
)
ALL = "mean of categories"
DRAWN = (("image_auroc", "image AUROC"), ("pixel_auroc", "pixel AUROC"))
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Row:
    """A method on a category (or on :data:`ALL`) with one backbone, over its seeds.

    ``mean`` and ``spread`` (sample standard deviation) by figure, None when undefined.
    """

    category: str
    backbone: str
    row: str
    seeds: tuple[int, ...]
    input: str
    mean: dict[str, float | None]
    spread: dict[str, float | None]
    false_rejects: tuple[int, ...]
    good_parts: int
    inside: int
    """Of the cells with good test parts: false rejects inside the predicted interval."""
    predicted: int
    literature: Published | None = None
    categories: int = 1


def headline(figures: dict[str, Any]) -> str:
    """A finished cell in one line."""
    return (
        f"image AUROC {number(figures['image_auroc'])}, pixel {number(figures['pixel_auroc'])}, "
        f"false rejects {figures['false_rejects']} of {figures['good_parts']}, escapes "
        f"{figures['escapes']} of {figures['defective_parts']}, {figures['train_seconds']:.0f} s"
    )


def publish(
    folder: Path,
    results: Sequence[Result],
    *,
    command: str,
    commit: str,
    false_reject: float | None,
    skipped: Sequence[str],
    failed: Sequence[str],
) -> list[str]:
    """Write ``accuracy.md``, ``.json`` and ``.png``; returns the Markdown's lines.

    Raises :class:`OutputError`.
    """
    rows = summarise(results)
    here = {"commit": commit, "machine": machine(), "command": command}
    lines = markdown(
        rows, results, here=here, false_reject=false_reject, skipped=skipped, failed=failed
    )
    document = {
        "benchmark": "accuracy",
        **here,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "false_reject_target": false_reject,
        "rows": [asdict(row) for row in rows],
        "cells": [{k: v for k, v in cell.items() if k != "spec"} for cell in results],
        "skipped": list(skipped),
        "failed": list(failed),
    }
    files = {
        "accuracy.md": "\n".join([*lines, ""]).encode(),
        "accuracy.json": (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
        "accuracy.png": draw(rows),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise OutputError(
            f"{folder}: results cannot be written: {error.strerror or error}; give --out"
        ) from None
    return lines


def summarise(results: Sequence[Result]) -> list[Row]:
    """Rows of each backbone: by category, then the mean of categories, in the order met."""
    rows = []
    for backbone in _distinct(results, "backbone"):
        of_backbone = [cell for cell in results if cell["backbone"] == backbone]
        categories = _distinct(of_backbone, "category")
        for category in categories:
            of_category = [cell for cell in of_backbone if cell["category"] == category]
            rows += [
                _row([cell for cell in of_category if cell["row"] == name])
                for name in _distinct(of_category, "row")
            ]
        if len(categories) > 1:
            rows += [
                _mean_row([cell for cell in of_backbone if cell["row"] == name])
                for name in _distinct(of_backbone, "row")
            ]
    return rows


def _row(cells: list[Result]) -> Row:
    figures = [cell["figures"] for cell in cells]
    mean, spread = {}, {}
    for name in AVERAGED:
        # A kept cell of an earlier version of the code may lack a figure.
        mean[name], spread[name] = _mean([f.get(name) for f in figures])
    first = cells[0]
    return Row(
        category=first["category"],
        backbone=first["backbone"],
        row=first["row"],
        seeds=tuple(cell["seed"] for cell in cells),
        input=_common_input(cells),
        mean=mean,
        spread=spread,
        false_rejects=tuple(f["false_rejects"] for f in figures),
        good_parts=figures[0]["good_parts"],
        inside=sum(f["inside"] is True for f in figures),
        predicted=sum(f["inside"] is not None for f in figures),
        literature=published(
            first["category"],
            first["method"],
            (figures[0]["good_parts"], figures[0]["defective_parts"]),
        ),
    )


def _mean_row(cells: list[Result]) -> Row:
    """Means over categories, seed by seed; the spread is that of the seeds' means."""
    categories = _distinct(cells, "category")
    # Only seeds that have every category: a mean over other categories is another quantity.
    seeds = [
        seed
        for seed in _distinct(cells, "seed")
        if sum(cell["seed"] == seed for cell in cells) == len(categories)
    ]
    mean, spread = {}, {}
    for name in AVERAGED:
        by_seed = [
            _mean([cell["figures"].get(name) for cell in cells if cell["seed"] == seed])[0]
            for seed in seeds
        ]
        mean[name], spread[name] = _mean(by_seed)
    figures = [cell["figures"] for cell in cells]
    return Row(
        category=ALL,
        backbone=cells[0]["backbone"],
        row=cells[0]["row"],
        seeds=tuple(seeds),
        input=_common_input(cells),
        mean=mean,
        spread=spread,
        false_rejects=tuple(f["false_rejects"] for f in figures),
        good_parts=sum(f["good_parts"] for f in figures),
        inside=sum(f["inside"] is True for f in figures),
        predicted=sum(f["inside"] is not None for f in figures),
        categories=len(categories),
    )


def _common_input(cells: list[Result]) -> str:
    inputs = _distinct(cells, "input")
    return str(inputs[0]) if len(inputs) == 1 else "several"


def markdown(
    rows: Sequence[Row],
    results: Sequence[Result],
    *,
    here: dict[str, Any],
    false_reject: float | None,
    skipped: Sequence[str],
    failed: Sequence[str],
) -> list[str]:
    """A table a backbone, and what a reader must know beside it."""
    most = max(row.categories for row in rows)
    target = "the auto rate of" if false_reject is None else f"{false_reject:.2%}"
    lines = [
        "# Accuracy",
        "",
        f"`{here['command']}`",
        "",
        f"Commit {here['commit'] or 'unknown'}; {here['machine']['processor']}, "
        f"{here['machine']['cores']} cores, Python {here['machine']['python']}; "
        f"computed on {', '.join(_distinct(results, 'device'))}. Mean ± sample standard deviation "
        f"over seeds. Every limit is calibrated on good parts alone for {target} false "
        f"rejects; F1, false rejects and escapes are counted at that limit.",
    ]
    others = sorted({cell["commit"] for cell in results} - {here["commit"]})
    if others:
        lines.append(f"Some cells were measured at commit {', '.join(o or '?' for o in others)}.")
    for backbone in dict.fromkeys(row.backbone for row in rows):
        lines += [
            "",
            f"## {backbone}",
            "",
            "| category | method | input | seeds | image AUROC | pixel AUROC | AUPRO | F1 | "
            "false rejects | as predicted | escapes | at the auto limit | at 1 % | at the oracle "
            "limit | head ms | train s | bank items | MB | image AUROC, paper | pixel AUROC, paper "
            "| source |",
            "| --- | --- | --- |" + " --: |" * 17 + " --- |",
        ]
        for row in rows:
            if row.backbone == backbone:
                lines.append(_line(row, most))
    lines += ["", *_notes(results)]
    for title, found in (("Skipped", skipped), ("Failed", failed)):
        if found:
            lines += ["", f"{title}:", *(f"* {line}" for line in found)]
    return lines


def _line(row: Row, most: int) -> str:
    def value(name: str, digits: int = 4) -> str:
        return spread_text(row.mean[name], row.spread[name], digits)

    counted = "–"
    if row.predicted:
        share = percent(row.mean["false_reject_rate"])
        counts = ", ".join(map(str, row.false_rejects))
        counted = share if row.category == ALL else f"{counts} of {row.good_parts} ({share})"
    category, paper = row.category, row.literature
    if category == ALL:
        category = f"**{ALL}**" + (f" ({row.categories} of {most})" * (row.categories < most))
    cells = (
        category,
        row.row,
        row.input,
        str(len(row.seeds)),
        value("image_auroc"),
        value("pixel_auroc"),
        value("aupro"),
        value("f1", 3),
        counted,
        f"{row.inside} of {row.predicted}" if row.predicted else "–",
        *(
            percent(row.mean[name], row.spread[name])
            for name in (
                "escape_rate",
                "escapes_at_auto",
                "escapes_at_1_percent",
                "escapes_at_oracle",
            )
        ),
        number(row.mean["head_ms"], 1),
        number(row.mean["train_seconds"], 0),
        number(row.mean["items"], 0),
        number(row.mean["megabytes"], 1),
        number(paper.image if paper else None, 3),
        number(paper.pixel if paper else None, 3),
        paper.source if paper else "–",
    )
    return "| " + " | ".join(cells) + " |"


def _notes(results: Sequence[Result]) -> list[str]:
    lines = [
        "False rejects: good test parts at or above the limit, a count for each seed. As predicted:"
        " in how many cells that count lay inside the 95 % prediction interval of the calibration."
        " Pixel figures are measured at the network's input size; means are over categories that"
        " have the figure. Train s: with everything the"
        " limit needs, photos already read. MB: what a station needs, float32.",
        "",
        "Escapes are counted at the limit of the run, and at three others from the same scores. At "
        "the auto limit: the rate that the held-out parts support, 1 / (n + 1) but no less than "
        "0.5 %. At 1 %: asked of the same held-out parts. At the oracle limit: the least at which "
        "no good test part is rejected, which only the test photos tell; it says what a better "
        "limit could reach, and rises with the number of good test parts. Head ms: all that "
        "follows the network's pooled maps, one picture, PyTorch on the machine above.",
        "",
        "Papers: "
        + "; ".join(f"{name}: {said}" for name, said in SOURCES.items())
        + ". They train larger networks on other crops, so their figures are no goal here. No "
        "figure stands where none is known for the category by itself.",
        "",
        "Limits:",
    ]
    for name in _distinct(results, "row"):
        found = [cell["limit_from"] for cell in results if cell["row"] == name]
        # What follows the bracket is one cell's test statistic.
        said = dict.fromkeys(text.partition(" (")[0] for text in found)
        lines.append(f"* {name}: {' or '.join(said)}.")
    unmasked = {
        cell["category"]: cell["figures"]["unmasked"]
        for cell in results
        if cell["figures"]["unmasked"]
    }
    if unmasked:
        counts = ", ".join(f"{count} of {name}" for name, count in unmasked.items())
        lines += ["", f"Defective photos without a mask, left out of pixel figures: {counts}."]
    faults = sum(cell["figures"]["faults"] for cell in results)
    if faults:
        lines += ["", f"{faults} photos could not be judged and are in no figure."]
    return lines


def draw(rows: Sequence[Row]) -> bytes:
    """Dots with the seeds' spread: a panel a figure and backbone, a band a category. PNG."""
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    names = list(dict.fromkeys(row.row for row in rows))
    categories = list(dict.fromkeys(row.category for row in rows))
    # The mean comes last in every backbone, so its band is the lowest.
    categories.sort(key=lambda name: name == ALL)
    band = max(0.5, 0.16 * len(names) + 0.14)
    height = (
        len(backbones) * (band * len(categories) + 0.9) + 0.5 + 0.24 * math.ceil(len(names) / 4)
    )
    drawing = Drawing(figsize=(11.0, height), dpi=130, layout="constrained")
    panels = drawing.subplots(len(backbones), len(DRAWN), squeeze=False, sharey=True)
    for line, backbone in enumerate(backbones):
        for panel, (name, title) in zip(panels[line], DRAWN, strict=True):
            values = []
            for row in rows:
                mean = row.mean[name]
                if row.backbone != backbone or mean is None:
                    continue
                spread = row.spread[name] or 0.0
                values.append(mean - spread)
                order = names.index(row.row)
                offset = (order - (len(names) - 1) / 2) * 0.8 / max(len(names), 2)
                panel.errorbar(
                    mean,
                    categories.index(row.category) + offset,
                    xerr=spread,
                    fmt=MARKERS[order % len(MARKERS)],
                    color=COLOURS[order % len(COLOURS)],
                    markersize=5,
                    capsize=2,
                    linewidth=1.2,
                )
            panel.set_title(f"{title}, {backbone}", fontsize=10, loc="left")
            panel.set_yticks(range(len(categories)), categories, fontsize=9)
            panel.set_ylim(len(categories) - 0.5, -0.5)
            low = min(values, default=0.9)
            margin = 0.06 * max(1.0 - low, 0.01)
            panel.set_xlim(low - margin, 1.0 + margin)
            panel.tick_params(axis="x", labelsize=8)
            panel.grid(axis="x", color="#dddddd", linewidth=0.6)
            panel.set_axisbelow(True)
            for edge in range(len(categories) - 1):
                panel.axhline(edge + 0.5, color="#bbbbbb", linewidth=0.6)
            for side in ("top", "right"):
                panel.spines[side].set_visible(False)
    handles = [
        panels[0][0].plot(
            [], [], MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)], label=name
        )[0]
        for i, name in enumerate(names)
    ]
    drawing.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(names)),
        frameon=False,
        fontsize=9,
    )
    buffer = BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def spread_text(mean: float | None, spread: float | None, digits: int) -> str:
    return number(mean, digits) + ("" if spread is None else f" ± {spread:.{digits}f}")


def percent(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" + ("" if spread is None else f" ± {spread:.1%}")


def _mean(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation of the values that are defined."""
    defined = [value for value in values if value is not None]
    if not defined:
        return None, None
    spread = statistics.stdev(defined) if len(defined) > 1 else None
    return statistics.fmean(defined), spread


def _distinct(cells: Sequence[Result], key: str) -> list[Any]:
    return list(dict.fromkeys(cell[key] for cell in cells))
