"""The evaluation as one HTML file that needs nothing else: no network, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt

from export.evaluation import charts, metrics
from export.evaluation.evaluate import Evaluation, RankedPicture
from export.evaluation.held_out import GoodPictures
from export.evaluation.wording import (
    UNDEFINED,
    say_count,
    say_of,
    say_percent,
    say_score,
    say_share,
    say_signal,
    say_threshold,
)
from export.training.run import Candidate, Choice
from inspector.detection.manifest import Calibration
from inspector.files import write_output
from inspector.imaging.geometry import Geometry
from inspector.imaging.heatmaps import overlay
from inspector.imaging.images import encode_jpeg
from inspector.shown import plain
from inspector.verdict import LIMIT, LIMIT_FACTOR_RANGE, Frame8, Verdict

_TEMPLATE = "report.html.j2"
_THUMBNAIL_PX = 288
_FEW = 6


@dataclass(frozen=True)
class _Tile:
    name: str
    value: str
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
    picture: RankedPicture
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
    good_pictures: GoodPictures | None = None,
    advice: Sequence[str] = (),
) -> None:
    """Write the report to ``path``, whole or not at all.

    ``facts`` are names and values for the section on training; ``holdout_scores`` are the held-out
    good parts' scores in units of the limit; ``choice`` tells how ``--auto`` found the settings;
    ``good_pictures`` are shown first; ``advice`` stands under the result.
    Raises :class:`OutputError`.
    """
    held_out: metrics.Floats = np.asarray(holdout_scores, dtype=np.float64)
    held_out = held_out[np.isfinite(held_out)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # What others called a photo or a folder may turn the direction of writing, or hold NUL.
        finalize=lambda value: plain(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": say_share,
        "score": say_score,
        "threshold": say_threshold,
        "of": say_of,
        "signal": say_signal,
    }
    html = environment.get_template(_TEMPLATE).render(
        title=title,
        evaluation=evaluation,
        calibration=calibration,
        facts=facts,
        sentences=headline(evaluation, calibration),
        advice=advice,
        tiles=_tiles(evaluation, calibration),
        histogram=charts.histogram(evaluation, held_out, width_in=7.6),
        small_histogram=charts.histogram(evaluation, held_out, width_in=4.4),
        curves=charts.curves(evaluation),
        thresholds=_thresholds(evaluation, held_out),
        factor_range=LIMIT_FACTOR_RANGE,
        calibration_words=_calibration_words(calibration),
        galleries=_good_galleries(evaluation, good_pictures or GoodPictures())
        + _galleries(evaluation),
        limit=LIMIT,
        choice=choice,
        candidates=_ranked(choice) if choice is not None else [],
        candidates_chart=charts.candidates_chart(choice) if choice is not None else None,
    )
    write_output(path, html)


def headline(evaluation: Evaluation, calibration: Calibration) -> list[str]:
    """The result in sentences, for a person who reads nothing else."""
    if not evaluation.rows:
        return [
            "There were no test photos: this report says how the limit was set, and nothing about "
            "how well defects are found.",
            _holdout_sentence(calibration),
        ]
    rejects, escapes = evaluation.false_rejects, evaluation.escapes
    halves = []
    if rejects.total:
        halves.append(
            f"of {say_count(rejects.total, 'good part')} {rejects.hits} would be rejected"
        )
    if escapes.total:
        halves.append(
            f"of {say_count(escapes.total, 'defective part')} {escapes.hits} would escape"
        )
    sentences = []
    if halves:
        both = "; ".join(halves)
        sentences.append(f"{both[0].upper()}{both[1:]}.")
    if not rejects.total:
        sentences.append(
            f"No good part was tested, so false rejects and F1 are not known. "
            f"{_holdout_sentence(calibration)}"
        )
    if not escapes.total:
        sentences.append("No defective part was tested, so escapes are not known.")
    if evaluation.faults:
        sentences.append(
            f"{say_count(len(evaluation.faults), 'photo')} could not be judged (FAULT, never a "
            f"pass on the line) and {'is' if len(evaluation.faults) == 1 else 'are'} left out of "
            f"every figure; they are listed below."
        )
    return sentences


def _tiles(evaluation: Evaluation, calibration: Calibration) -> list[_Tile]:
    if not evaluation.rows:
        least, most = calibration.predicted_rejects
        return [
            _Tile("Held-out good parts", str(calibration.good_parts), "the limit rests on them"),
            _Tile(
                "Asked for", say_percent(calibration.target_false_reject), "false rejects at most"
            ),
            _Tile(
                f"Rejects in the next {calibration.predicted_next:,}",
                f"{least}…{most}",
                "good parts, 95 % prediction interval",
            ),
        ]
    summary = evaluation.summary()
    best = "no good parts tested" if evaluation.escapes.total else "no defective parts tested"
    if "f1_best" in summary:
        best = f"best: {say_share(summary['f1_best'])} at {say_score(summary['f1_best_threshold'])}"
    return [
        _rate_tile("False rejects", evaluation.false_rejects, "good"),
        _rate_tile("Escapes", evaluation.escapes, "defective"),
        _Tile(
            "Image AUROC", say_share(summary.get("image_auroc")), "good and defective parts apart"
        ),
        _Tile("Pixel AUROC", say_share(evaluation.pixels.auroc), "good and defective pixels apart"),
        _Tile("AUPRO", say_share(evaluation.pixels.aupro), "overlap with defects, FPR up to 30 %"),
        _Tile("F1 at the limit", say_share(summary.get("f1")), best),
    ]


def _rate_tile(name: str, rate: metrics.Rate, of: str) -> _Tile:
    if rate.interval is None:
        return _Tile(name, UNDEFINED, f"no {of} parts tested")
    low, high = rate.interval
    return _Tile(
        name,
        say_percent(rate.value),
        f"{rate.hits} of {rate.total} {of}; 95 % interval {say_percent(low)} to "
        f"{say_percent(high)}",
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
        f"The limit was set from {say_count(calibration.good_parts, 'good part')} that the model "
        f"was not trained on, aiming to reject {say_percent(calibration.target_false_reject)} of "
        f"good parts{' (auto)' if calibration.automatic else ''}. Method: {calibration.method}. "
        f"Pooling: {calibration.pooling}.",
        f"{_holdout_sentence(calibration)} With 95 % confidence the true false-reject rate lies "
        f"between {say_percent(low)} and {say_percent(high)}; of the next "
        f"{calibration.predicted_next:,} good parts, {least} to {most} will be rejected if "
        f"nothing about the line changes.",
        f"Half of the held-out good parts score below {say_score(quantiles.q50)}, 95 % below "
        f"{say_score(quantiles.q95)}; the highest scores {say_score(quantiles.maximum)}. The "
        f"limit, 1, is {calibration.threshold:.6g} in the model's own units.",
    ]
    if "Kruskal-Wallis" in calibration.pooling:
        words.append(
            "The Kruskal-Wallis test asks whether scores differ between folds more than by "
            "chance; p near 0 says that they do."
        )
    if calibration.extrapolated:
        words.append(
            "The limit was extrapolated (estimated) from the highest scores; more good parts make "
            "it firmer."
        )
    if calibration.cost is not None:
        cost = calibration.cost
        words.append(
            f"Of {say_count(cost.drawn, 'synthetic defect')}, drawn on held-out good parts and "
            f"many of them hardly visible, {cost.passed} stay below the limit; below the limit "
            f"that the held-out parts support without extrapolation (auto) {cost.passed_at_auto} "
            f"do. The figures compare the two limits; your own defects are other ones."
        )
    return words


def _holdout_sentence(calibration: Calibration) -> str:
    reach = "reaches" if calibration.good_rejected == 1 else "reach"
    return (
        f"Of {say_count(calibration.good_parts, 'held-out good part')} {calibration.good_rejected} "
        f"{reach} the limit."
    )


def _galleries(evaluation: Evaluation) -> list[_Gallery]:
    escaped = [p for p in evaluation.missed if p.row.verdict is Verdict.PASS]
    rejected = [p for p in evaluation.good if p.row.verdict is Verdict.FAIL]
    caught = [p for p in evaluation.caught if p.row.verdict is Verdict.FAIL][:_FEW]
    shown: list[tuple[str, str, Sequence[RankedPicture]]] = [
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


def _good_galleries(evaluation: Evaluation, good: GoodPictures) -> list[_Gallery]:
    """Good parts to look at and, where no photo was tested, those with the highest scores."""
    shown = [
        (
            "Look at these before you go on",
            "Photos among the good parts that look unlike the others. A defect that is trained as "
            "good passes, and raises the limit: train again without those that show one "
            "(--leave-out). The heatmap compares a photo with all others but the one most like it.",
            good.suspects,
        ),
        (
            "Good parts with the highest scores",
            f"The {len(good.highest)} highest, judged by models that had not seen them.",
            () if evaluation.rows else good.highest,
        ),
    ]
    return [
        _Gallery(title, note, tuple(_card(picture, evaluation.geometry) for picture in pictures))
        for title, note, pictures in shown
        if pictures
    ]


def _card(picture: RankedPicture, geometry: Geometry) -> _Card:
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
    """The drawn defect in colour on a faded grey photo."""
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


def _ranked(choice: Choice) -> list[tuple[Candidate, str]]:
    """The candidates, best first, each with its remark."""
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


def _jpeg_uri(image: Frame8) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image, 82)).decode()}"
