"""The evaluation as one HTML file that needs nothing else: no network, no scripts."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from export import metrics
from export.evaluate import Evaluation, Picture, write_output
from export.run import Candidate, Choice
from inspector.bundle import Calibration
from inspector.frame import Geometry, encode_jpeg, overlay
from inspector.verdict import LIMIT, LIMIT_FACTOR_RANGE, Frame8, Verdict

UNDEFINED: Final = "–"

_TEMPLATE = "report.html.j2"
_THUMBNAIL_PX = 288
_FEW = 6
_HISTOGRAM_END = 4.0
_GOOD, _DEFECTIVE, _HELD_OUT = "#2f6f9f", "#d1722c", "#5d6b78"
_INK, _GRID = "#33414d", "#e3e8ec"


@dataclass(frozen=True)
class _Tile:
    name: str
    value: str
    note: str


@dataclass(frozen=True)
class _Chart:
    source: str
    title: str
    note: str


@dataclass(frozen=True)
class _Threshold:
    value: float
    remark: str
    escapes: metrics.Rate
    false_rejects: metrics.Rate
    held_out: metrics.Rate


@dataclass(frozen=True)
class _Card:
    picture: Picture
    image: str
    heat: str
    mask: str | None


@dataclass(frozen=True)
class _Gallery:
    title: str
    note: str
    cards: tuple[_Card, ...]


def write_report(  # noqa: PLR0917
    evaluation: Evaluation,
    path: Path,
    title: str,
    facts: Mapping[str, str],
    calibration: Calibration,
    holdout_scores: Sequence[float] | npt.NDArray[Any],
    choice: Choice | None = None,
) -> None:
    """Write the report to ``path``, whole or not at all.

    ``facts``: what is worth knowing about the training, name and value; ``holdout_scores``: the
    held-out good parts' scores in units of the limit; ``choice``: how settings were found, when
    they were not given. Raises :class:`OutputError`.
    """
    held_out: metrics.Floats = np.asarray(holdout_scores, dtype=np.float64)
    held_out = held_out[np.isfinite(held_out)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": _share,
        "score": _score,
        "threshold": _threshold,
        "of": _of,
        "signal": _signal,
    }
    html = environment.get_template(_TEMPLATE).render(
        title=title,
        evaluation=evaluation,
        calibration=calibration,
        facts=facts,
        sentences=headline(evaluation, calibration),
        tiles=_tiles(evaluation, calibration),
        histogram=_histogram(evaluation, held_out, width_in=7.6),
        small_histogram=_histogram(evaluation, held_out, width_in=4.4),
        curves=_curves(evaluation),
        thresholds=_thresholds(evaluation, held_out),
        factor_range=LIMIT_FACTOR_RANGE,
        calibration_words=_calibration_words(calibration),
        galleries=_galleries(evaluation),
        limit=LIMIT,
        choice=choice,
        candidates=_ranked(choice) if choice is not None else [],
        candidates_chart=_candidates_chart(choice) if choice is not None else None,
    )
    write_output(path, html)


def headline(evaluation: Evaluation, calibration: Calibration) -> list[str]:
    """What the evaluation says, in sentences for a person who reads nothing else."""
    if not evaluation.rows:
        return [
            "There were no test photos: this report says how the limit was set, and nothing about "
            "how well defects are found.",
            _holdout_sentence(calibration),
        ]
    rejects, escapes = evaluation.false_rejects, evaluation.escapes
    halves = []
    if rejects.total:
        halves.append(f"of {_parts(rejects.total, 'good part')} {rejects.hits} would be rejected")
    if escapes.total:
        halves.append(f"of {_parts(escapes.total, 'defective part')} {escapes.hits} would escape")
    sentences = []
    if halves:
        both = "; ".join(halves)
        sentences.append(f"{both[0].upper()}{both[1:]}.")
    if not rejects.total:
        sentences.append("No good part was tested, so false rejects are not known.")
    if not escapes.total:
        sentences.append("No defective part was tested, so escapes are not known.")
    if evaluation.faults:
        sentences.append(
            f"{_parts(len(evaluation.faults), 'photo')} could not be judged (FAULT, never a pass "
            f"on the line) and {'is' if len(evaluation.faults) == 1 else 'are'} left out of every "
            f"figure; they are listed below."
        )
    return sentences


def _tiles(evaluation: Evaluation, calibration: Calibration) -> list[_Tile]:
    if not evaluation.rows:
        least, most = calibration.predicted_rejects
        return [
            _Tile("Held-out good parts", str(calibration.good_parts), "the limit rests on them"),
            _Tile("Asked for", _percent(calibration.target_false_reject), "false rejects at most"),
            _Tile(
                f"Rejects in the next {calibration.predicted_next:,}",
                f"{least}…{most}",
                "good parts, 95 % prediction interval",
            ),
        ]
    summary = evaluation.summary()
    best = "no defective parts tested"
    if "f1_best" in summary:
        best = f"best: {_share(summary['f1_best'])} at {_score(summary['f1_best_threshold'])}"
    return [
        _rate_tile("False rejects", evaluation.false_rejects, "good"),
        _rate_tile("Escapes", evaluation.escapes, "defective"),
        _Tile("Image AUROC", _share(summary.get("image_auroc")), "good and defective parts apart"),
        _Tile("Pixel AUROC", _share(evaluation.pixels.auroc), "good and defective pixels apart"),
        _Tile("AUPRO", _share(evaluation.pixels.aupro), "overlap with defects, FPR up to 30 %"),
        _Tile("F1 at the limit", _share(summary.get("f1")), best),
    ]


def _rate_tile(name: str, rate: metrics.Rate, of: str) -> _Tile:
    if rate.interval is None:
        return _Tile(name, UNDEFINED, f"no {of} parts tested")
    low, high = rate.interval
    return _Tile(
        name,
        _percent(rate.value),
        f"{rate.hits} of {rate.total} {of}; 95 % interval {_percent(low)} to {_percent(high)}",
    )


def _thresholds(evaluation: Evaluation, held_out: metrics.Floats) -> list[_Threshold]:
    good, defective = evaluation.good_scores, evaluation.defective_scores
    remarks = {LIMIT: "the limit in force"}
    best = metrics.best_f1(good, defective) if good else None
    if best is not None:
        remarks.setdefault(best[1], "best F1")
    if defective:
        remarks.setdefault(min(defective), "highest with no escape")
    rows = []
    for value in sorted({*metrics.SWEEP, *remarks}):
        test = metrics.sweep(good, defective, (value,))[0]
        held = metrics.sweep(held_out, (), (value,))[0].false_rejects
        rows.append(
            _Threshold(value, remarks.get(value, ""), test.escapes, test.false_rejects, held)
        )
    return rows


def _calibration_words(calibration: Calibration) -> list[str]:
    low, high = calibration.interval
    least, most = calibration.predicted_rejects
    quantiles = calibration.quantiles
    words = [
        f"The limit was set from {_parts(calibration.good_parts, 'good part')} that the model was "
        f"not trained on, aiming to reject {_percent(calibration.target_false_reject)} of good "
        f"parts. Method: {calibration.method}. Pooling: {calibration.pooling}.",
        f"{_holdout_sentence(calibration)} With 95 % confidence the true false-reject rate lies "
        f"between {_percent(low)} and {_percent(high)}; of the next {calibration.predicted_next:,} "
        f"good parts, {least} to {most} will be rejected if nothing about the line changes.",
        f"Half of the held-out good parts score below {_score(quantiles.q50)}, 95 % below "
        f"{_score(quantiles.q95)}; the highest scores {_score(quantiles.maximum)}. The limit, 1, "
        f"is {calibration.threshold:.6g} in the model's own units.",
    ]
    if calibration.extrapolated:
        words.append(
            "The limit was extrapolated from the highest scores; more good parts make it firmer."
        )
    return words


def _holdout_sentence(calibration: Calibration) -> str:
    reach = "reaches" if calibration.good_rejected == 1 else "reach"
    return (
        f"Of {_parts(calibration.good_parts, 'held-out good part')} {calibration.good_rejected} "
        f"{reach} the limit."
    )


def _galleries(evaluation: Evaluation) -> list[_Gallery]:
    escaped = [p for p in evaluation.missed if p.row.verdict is Verdict.PASS]
    rejected = [p for p in evaluation.good if p.row.verdict is Verdict.FAIL]
    caught = [p for p in evaluation.caught if p.row.verdict is Verdict.FAIL][:_FEW]
    shown: list[tuple[str, str, Sequence[Picture]]] = [
        (
            "Worst misses",
            f"Defective parts that would escape, lowest score first "
            f"({len(escaped)} of {evaluation.escapes.hits}).",
            escaped,
        )
        if escaped
        else (
            "Narrowest catches",
            "No defective part escapes; these come closest to it.",
            evaluation.missed[:_FEW],
        ),
        (
            "Worst false alarms",
            f"Good parts that would be rejected, highest score first "
            f"({len(rejected)} of {evaluation.false_rejects.hits}).",
            rejected,
        )
        if rejected
        else (
            "Closest calls among the good parts",
            "No good part is rejected; these come closest to it.",
            evaluation.good[:_FEW],
        ),
        ("Clearest catches", "Defective parts with the highest scores.", caught),
    ]
    return [
        _Gallery(title, note, tuple(_card(picture, evaluation.geometry) for picture in pictures))
        for title, note, pictures in shown
        if pictures
    ]


def _card(picture: Picture, geometry: Geometry) -> _Card:
    mask = None
    if picture.mask is not None and picture.mask.any():
        mask = _jpeg_uri(_thumbnail(_draw_mask(picture.image, picture.mask), geometry))
    return _Card(
        picture,
        _jpeg_uri(_thumbnail(picture.image, geometry)),
        _jpeg_uri(_thumbnail(overlay(picture.image, picture.heat), geometry)),
        mask,
    )


def _draw_mask(image: Frame8, mask: npt.NDArray[np.bool_]) -> Frame8:
    """The drawn defect in colour on a faded grey photo: shows what, and where."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:, :, None]
    faded = np.repeat(grey // 3 + 150, 3, axis=2)
    faded[mask] = (0.35 * faded[mask] + 0.65 * np.array([44, 114, 209])).astype(np.uint8)
    return np.asarray(faded, dtype=np.uint8)


def _thumbnail(image: Frame8, geometry: Geometry) -> Frame8:
    """At most :data:`_THUMBNAIL_PX` a side, with the proportions the camera saw."""
    aspect = geometry.width / geometry.height
    if geometry.fit == "stretch" and geometry.aspect is not None:
        aspect = geometry.aspect
    width = round(_THUMBNAIL_PX * min(1.0, aspect))
    height = round(_THUMBNAIL_PX * min(1.0, 1.0 / aspect))
    size = (max(1, width), max(1, height))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _histogram(evaluation: Evaluation, held_out: metrics.Floats, width_in: float) -> _Chart | None:
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
    # An edge falls on the limit, so that no bar has parts of both verdicts.
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
        note += f" The last bar holds all scores above {_score(float(edges[-2]))}."
    return _Chart(_svg_uri(figure), "Scores", note)


def _curves(evaluation: Evaluation) -> list[_Chart]:
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
        charts.append(_Chart(_svg_uri(figure), "ROC of images", f"AUROC {_share(auroc)}"))
    if pixels.roc is not None:
        figure, axes = _roc_axes(pixels.roc)
        axes.set_xlabel("good pixels marked")
        axes.set_ylabel("defective pixels marked")
        note = f"AUROC {_share(pixels.auroc)} (exact to ±{pixels.auroc_error:.1g})"
        charts.append(_Chart(_svg_uri(figure), "ROC of pixels", note))
    if pixels.pro is not None:
        figure, axes = _roc_axes(pixels.pro)
        axes.axvspan(0.0, metrics.PRO_FPR_LIMIT, color=_GOOD, alpha=0.08, linewidth=0)
        axes.set_xlabel("good pixels marked")
        axes.set_ylabel("mean overlap with each defect")
        note = f"AUPRO {_share(pixels.aupro)} (exact to ±{pixels.aupro_error:.1g}), shaded part"
        charts.append(_Chart(_svg_uri(figure), "Overlap per region", note))
    return charts


def _ranked(choice: Choice) -> list[tuple[Candidate, str]]:
    """The candidates, best first, with what there is to say of each."""
    best = max(choice.candidates, key=lambda candidate: candidate.signal)
    rows = []
    for number, candidate in enumerate(choice.candidates):
        words = [
            word
            for word, true in (
                ("chosen", number == choice.chosen),
                ("highest signal", candidate is best),
                ("as good", candidate.as_good and candidate is not best),
            )
            if true
        ]
        rows.append((candidate, ", ".join(words)))
    return sorted(rows, key=lambda row: -row[0].signal)


def _candidates_chart(choice: Choice) -> _Chart | None:
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
    return _Chart(_svg_uri(figure), "Signal and cost of each candidate", note)


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


def _jpeg_uri(image: Frame8) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image, 82)).decode()}"


def _parts(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _percent(value: float | None) -> str:
    """0.00512 as "0.51 %"; as many digits as say something."""
    if value is None:
        return UNDEFINED
    percent = 100.0 * value
    digits = 2 if 0.0 < percent < 1.0 else 1
    return f"{percent:.{digits}f}".removesuffix(".0") + " %"


def _share(value: float | None) -> str:
    """An AUROC or its like; only a perfect one reads 1.000."""
    if value is None:
        return UNDEFINED
    return f"{value:.3f}" if value == 1.0 or value < 0.9995 else "> 0.999"


def _score(value: float | None) -> str:
    """Two digits after the point; what is below the limit never reads 1.00."""
    if value is None:
        return UNDEFINED
    text = f"{value:.2f}" if value < 100 else f"{value:.3g}"
    return "< 1.00" if text == "1.00" and value < LIMIT else text


def _threshold(value: float) -> str:
    """A listed threshold as it is; one found in the data rounded down, so that it still holds."""
    return f"{value:.2f}" if value in metrics.SWEEP else f"{math.floor(value * 1000) / 1000:.3f}"


def _of(rate: metrics.Rate) -> str:
    if not rate.total:
        return UNDEFINED
    return f"{rate.hits} of {rate.total} ({_percent(rate.value)})"


def _signal(value: float) -> str:
    """Four digits: candidates lie close together. Only a perfect one reads 1.0000."""
    return f"{value:.4f}" if value == 1.0 or value < 0.99995 else "> 0.9999"
