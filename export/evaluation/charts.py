"""The drawings of a report, as SVG."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from export.evaluation import metrics
from export.evaluation.evaluate import Evaluation
from export.evaluation.wording import say_score, say_share
from export.training.run import Choice
from inspector.verdict import LIMIT

_HISTOGRAM_END = 4.0
_GOOD, _DEFECTIVE, _HELD_OUT = "#2f6f9f", "#d1722c", "#5d6b78"
_INK, _GRID = "#33414d", "#e3e8ec"


@dataclass(frozen=True)
class Chart:
    """``source``: a data URI; ``note``: a sentence below it."""

    source: str
    title: str
    note: str


def histogram(evaluation: Evaluation, held_out: metrics.Floats, width_in: float) -> Chart | None:
    """The scores of good, defective and held-out parts; None when there are none."""
    every: list[tuple[str, npt.NDArray[Any], str, Literal["step", "stepfilled"]]] = [
        ("good", np.asarray(evaluation.good_scores), _GOOD, "stepfilled"),
        ("defective", np.asarray(evaluation.defective_scores), _DEFECTIVE, "stepfilled"),
        ("good, held out", held_out, _HELD_OUT, "step"),
    ]
    groups = [group for group in every if group[1].size]
    if not groups:
        return None
    highest = max(float(scores.max()) for _, scores, _, _ in groups)
    end = min(max(1.25, 1.02 * highest), _HISTOGRAM_END)
    # An edge lies on the limit, so that no bar holds parts of both verdicts.
    bars_below = max(8, round(36 / end))
    edges = np.arange(math.ceil(end * bars_below) + 1) * LIMIT / bars_below
    figure, axes = _axes(width_in, 2.9)
    for name, scores, colour, kind in groups:
        axes.hist(
            np.minimum(scores, edges[-1]),
            bins=list(edges),
            weights=np.full(scores.size, 1.0 / scores.size),
            histtype=kind,
            color=colour,
            alpha=0.55 if kind == "stepfilled" else 1.0,
            linewidth=1.4,
            label=f"{name} ({scores.size})",
        )
    axes.axvline(LIMIT, color=_INK, linewidth=1.4, linestyle=(0, (4, 3)))
    axes.annotate(
        "limit",
        (LIMIT, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(5, -11),
        textcoords="offset points",
        color=_INK,
    )
    axes.set_xlim(0.0, float(edges[-1]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_xlabel("score, in units of the limit")
    axes.set_ylabel("share of the group")
    figure.legend(
        frameon=False, loc="outside upper left", ncols=len(groups), columnspacing=1.2, fontsize=9
    )
    note = "Each group adds up to 100 %. A part right of the limit is rejected."
    if highest > edges[-1]:
        note += f" The last bar holds all scores above {say_score(float(edges[-2]))}."
    return Chart(_svg_uri(figure), "Scores", note)


def curves(evaluation: Evaluation) -> list[Chart]:
    """ROC of images, ROC of pixels and overlap per region, as far as each is defined."""
    charts = []
    image = metrics.roc(evaluation.good_scores, evaluation.defective_scores)
    pixels = evaluation.pixels
    if image is not None:
        auroc = metrics.auroc(evaluation.good_scores, evaluation.defective_scores)
        at_limit = (evaluation.false_rejects.value, evaluation.escapes.value)
        figure, axes = _roc_axes(image)
        if at_limit[0] is not None and at_limit[1] is not None:
            axes.plot(at_limit[0], 1.0 - at_limit[1], "o", color=_DEFECTIVE, label="at the limit")
            axes.legend(frameon=False, loc="lower right")
        axes.set_xlabel("good parts rejected")
        axes.set_ylabel("defective parts caught")
        charts.append(Chart(_svg_uri(figure), "ROC of images", f"AUROC {say_share(auroc)}"))
    if pixels.roc is not None:
        figure, axes = _roc_axes(pixels.roc)
        axes.set_xlabel("good pixels marked")
        axes.set_ylabel("defective pixels marked")
        note = f"AUROC {say_share(pixels.auroc)} (exact to ±{pixels.auroc_error:.1g})"
        charts.append(Chart(_svg_uri(figure), "ROC of pixels", note))
    if pixels.pro is not None:
        figure, axes = _roc_axes(pixels.pro)
        axes.axvspan(0.0, metrics.PRO_FPR_LIMIT, color=_GOOD, alpha=0.08, linewidth=0)
        axes.set_xlabel("good pixels marked")
        axes.set_ylabel("mean overlap with each defect")
        note = f"AUPRO {say_share(pixels.aupro)} (exact to ±{pixels.aupro_error:.1g}), shaded part"
        charts.append(Chart(_svg_uri(figure), "Overlap per region", note))
    return charts


def candidates_chart(choice: Choice) -> Chart | None:
    """Signal against cost of each candidate; None for a single candidate."""
    if len(choice.candidates) < 2:
        return None
    chosen = choice.candidates[choice.chosen]
    figure, axes = _axes(7.6, 2.9)
    for near, colour, name in ((True, _GOOD, "as good as the best"), (False, "#b7c0c8", "worse")):
        shown = [candidate for candidate in choice.candidates if candidate.as_good is near]
        if shown:
            axes.plot(
                [candidate.gmacs for candidate in shown],
                [candidate.signal for candidate in shown],
                "o",
                color=colour,
                label=name,
            )
    axes.plot(
        chosen.gmacs,
        chosen.signal,
        "o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=_DEFECTIVE,
        markeredgewidth=2.0,
        label="chosen",
    )
    axes.set_xlim(left=0.0)
    axes.margins(y=0.15)
    axes.set_xlabel("work a part, 10⁹ multiply-adds")
    axes.set_ylabel("signal")
    figure.legend(frameon=False, loc="outside upper left", ncols=3, columnspacing=1.2, fontsize=9)
    note = "Each dot is a candidate: the further left, the faster on the line."
    return Chart(_svg_uri(figure), "Signal and cost of each candidate", note)


def _roc_axes(curve: metrics.Curve) -> tuple[Figure, Axes]:
    figure, axes = _axes(3.6, 3.2)
    drawn = metrics.thin(curve)
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1.2)
    axes.plot(drawn.x, drawn.y, color=_GOOD, linewidth=2.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0.0, 0.25, 0.5, 0.75, 1.0]))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    return figure, axes


def _axes(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_INK)
    axes.tick_params(axis="x", pad=6)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_HELD_OUT)
    return figure, axes


def _svg_uri(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}"
