"""Evaluation of drawn parts by a plain model, its CSV, and the report made of it."""

from __future__ import annotations

import base64
import csv
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from export.data.dataset import Sample, open_good, open_test
from export.data.layouts import GOOD
from export.data.photos import load_good, load_sample
from export.evaluation.evaluate import GALLERY_SIZE, Evaluation, ScoreBatch, evaluate
from export.evaluation.report import write_report
from inspector.detection.manifest import Calibration, Quantiles
from inspector.errors import ImageError, OutputError
from inspector.imaging.geometry import Geometry
from inspector.imaging.images import decode
from inspector.verdict import Verdict
from tests.export.conftest import write_parts

GEOMETRY = Geometry(height=64, width=96, aspect=1.5)

Scored = tuple[np.ndarray, np.ndarray]


def learn_mean(root: Path, limit: float = 90.0) -> ScoreBatch:
    """The simplest model there is: how far a part is from the mean good part."""
    mean = load_good(open_good(root), GEOMETRY).images.astype(np.float32).mean(axis=0)

    def score(batch: np.ndarray) -> Scored:
        distance = np.abs(batch.astype(np.float32) - mean).mean(axis=3) / limit
        maps = np.stack([cv2.GaussianBlur(one, (0, 0), 1.5) for one in distance])
        return maps.max(axis=(1, 2)), maps

    return score


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("data") / "disc", test_good=16, defective=15)


@pytest.fixture(scope="module")
def model(root: Path) -> ScoreBatch:
    return learn_mean(root)


@pytest.fixture(scope="module")
def judged(root: Path, model: ScoreBatch) -> Evaluation:
    return evaluate(open_test(root), model, GEOMETRY, root=root)


def test_heat_around_a_letterboxed_photo_is_in_no_pixel_figure(root: Path) -> None:
    tall = Geometry(height=96, width=64, fit="letterbox", border="mirror")
    rows = tall.inner((80, 120, 3))[0]

    def perfect(batch: np.ndarray) -> Scored:
        maps = np.ones((len(batch), 96, 64), dtype=np.float32)
        maps[:, rows] = 0.1
        return maps.max(axis=(1, 2)), maps

    samples = [sample for sample in open_test(root) if sample.mask is not None]
    figures = evaluate(samples, perfect, tall, root=root).pixels
    # Inside every pixel is alike; counted with the border, defects would rank lower.
    assert figures.auroc == pytest.approx(0.5)


def calibration(**changes: object) -> Calibration:
    known = {
        "method": "order statistic of held-out good scores",
        "pooling": "one hold-out, scored by the model in service",
        "target_false_reject": 0.005,
        "good_parts": 40,
        "good_rejected": 1,
        "threshold": 3.25,
        "interval": (0.0006, 0.132),
        "predicted_next": 1000,
        "predicted_rejects": (1, 126),
        "extrapolated": False,
        "quantiles": Quantiles(q05=0.3, q25=0.4, q50=0.5, q75=0.6, q95=0.8, q99=0.95, maximum=1.01),
        "remarks": (),
    }
    return Calibration.model_validate(known | changes)


HELD_OUT = np.linspace(0.3, 1.01, 40)


class Page(HTMLParser):
    """What a browser would find: tags, their attributes, and the text a person reads."""

    void = {"meta", "img", "br", "source"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def report(evaluation: Evaluation, folder: Path, **changes: object) -> Page:
    path = folder / "report.html"
    facts = {"backbone": "mean of <good> parts", "seed": "0"}
    write_report(evaluation, path, "Discs", facts, calibration(**changes), HELD_OUT)
    return Page(path)


def test_rows_are_the_photos_in_order(root: Path, model: ScoreBatch, judged: Evaluation) -> None:
    samples = open_test(root)
    assert [row.path for row in judged.rows] == [
        sample.path.relative_to(root).as_posix() for sample in samples
    ]
    for sample, row in list(zip(samples, judged.rows, strict=True))[::7]:
        scores, _ = model(load_sample(sample, GEOMETRY)[0][None])
        assert row.score == pytest.approx(float(scores[0]))
        assert row.kind == sample.kind
        assert row.verdict is (Verdict.FAIL if row.score >= 1.0 else Verdict.PASS)


def test_figures_are_those_of_the_rows(judged: Evaluation) -> None:
    counts = Counter((row.kind == GOOD, row.verdict) for row in judged.rows)
    summary = judged.summary()
    assert summary["good_parts"] == 16
    assert summary["defective_parts"] == 30
    assert summary["false_rejects"] == counts[True, Verdict.FAIL]
    assert summary["escapes"] == counts[False, Verdict.PASS]
    assert summary["escape_rate"] == counts[False, Verdict.PASS] / 30
    assert 0 < summary["escapes"] < 30
    truth = [row.kind != GOOD for row in judged.rows]
    expected = roc_auc_score(truth, [row.score for row in judged.rows])
    assert summary["image_auroc"] == pytest.approx(expected)
    for figures in judged.kinds:
        rows = [row for row in judged.rows if row.kind == figures.kind]
        assert figures.parts == len(rows) == 15
        assert figures.caught == sum(row.verdict is Verdict.FAIL for row in rows)
        assert figures.caught + figures.escaped == 15


def test_pixel_figures_are_those_of_all_maps(
    root: Path, model: ScoreBatch, judged: Evaluation
) -> None:
    loaded = [load_sample(sample, GEOMETRY) for sample in open_test(root)]
    _, maps = model(np.stack([part.image for part in loaded]))
    truth = np.stack([part.mask for part in loaded if part.mask is not None])
    assert judged.pixels.auroc == pytest.approx(
        roc_auc_score(truth.ravel(), maps.ravel()), abs=max(1e-6, judged.pixels.auroc_error)
    )
    assert judged.pixels.auroc_error < 1e-4
    assert judged.pixels.aupro is not None
    assert 0.3 < judged.pixels.aupro <= 1.0


def test_batches_change_nothing(root: Path, model: ScoreBatch, judged: Evaluation) -> None:
    seen: list[tuple[int, int]] = []
    again = evaluate(
        open_test(root),
        model,
        GEOMETRY,
        lambda done, total: seen.append((done, total)),
        root=root,
        batch_size=5,
    )
    assert again.rows == judged.rows
    assert again.summary() == judged.summary()
    assert seen == [(min(done, 46), 46) for done in range(5, 51, 5)]


def test_gallery_holds_the_worst(judged: Evaluation) -> None:
    good = sorted((r.score for r in judged.rows if r.kind == GOOD), reverse=True)
    defective = sorted(r.score for r in judged.rows if r.kind != GOOD)
    assert [p.row.score for p in judged.good] == good[:GALLERY_SIZE]
    assert [p.row.score for p in judged.missed] == defective[:GALLERY_SIZE]
    assert [p.row.score for p in judged.caught] == defective[::-1][:GALLERY_SIZE]
    for picture in (*judged.good, *judged.missed, *judged.caught):
        assert picture.image.shape == (64, 96, 3)
        assert (picture.heat.max() >= 128) == (picture.row.verdict is Verdict.FAIL)


def blinded(model: ScoreBatch) -> ScoreBatch:
    """``model``, giving NaN for the first part of every batch."""

    def score(batch: np.ndarray) -> Scored:
        scores, maps = model(batch)
        scores[0] = maps[0, 0, 0] = np.nan
        return scores, maps

    return score


def test_nan_is_a_fault_and_in_no_figure(root: Path, model: ScoreBatch, tmp_path: Path) -> None:
    evaluation = evaluate(open_test(root), blinded(model), GEOMETRY, root=root, batch_size=23)
    assert [row.path for row in evaluation.faults] == ["test/good/000.png", "test/scratch/007.png"]
    summary = evaluation.summary()
    assert (summary["good_parts"], summary["defective_parts"], summary["faults"]) == (15, 29, 2)
    assert np.isfinite(list(summary.values())).all()
    assert {kind.kind: kind.faults for kind in evaluation.kinds} == {"scratch": 1, "stain": 0}
    page = report(evaluation, tmp_path)
    assert "2 photos could not be judged (FAULT" in page.text
    assert "Could not be judged" in page.text
    assert "test/scratch/007.png" in page.text
    evaluation.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        faults = [row for row in csv.DictReader(file) if row["verdict"] == "FAULT"]
    assert [row["score"] for row in faults] == ["", ""]


def test_csv_has_every_score_to_the_last_bit(judged: Evaluation, tmp_path: Path) -> None:
    judged.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "kind", "score", "verdict"]
    assert [(p, k, float(s), Verdict(v)) for p, k, s, v in rows[1:]] == [
        (row.path, row.kind, row.score, row.verdict) for row in judged.rows
    ]


@pytest.mark.parametrize("write", ["csv", "report"])
def test_output_that_cannot_be_written(judged: Evaluation, tmp_path: Path, write: str) -> None:
    occupied = tmp_path / "out"
    (occupied / "inside").mkdir(parents=True)
    for path in (occupied, tmp_path / "nowhere" / "out"):
        with pytest.raises(OutputError, match=r"out: cannot be written: "):
            if write == "csv":
                judged.write_csv(path)
            else:
                write_report(judged, path, "Discs", {}, calibration(), HELD_OUT)
    assert list(tmp_path.iterdir()) == [occupied]


def test_a_photo_the_model_refuses_is_a_fault(tmp_path: Path, model: ScoreBatch) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    whole = evaluate(open_test(root), model, GEOMETRY, root=root)
    wide = root / "test" / "good" / "000.png"
    assert cv2.imwrite(str(wide), cv2.resize(cv2.imread(str(wide)), (300, 80)))
    evaluation = evaluate(open_test(root), model, GEOMETRY, root=root, batch_size=1)
    assert [row.path for row in evaluation.faults] == ["test/good/000.png"]
    assert np.isnan(evaluation.faults[0].score)
    assert evaluation.rows[1:] == whole.rows[1:]
    assert evaluation.summary()["faults"] == 1
    other = GEOMETRY.model_copy(update={"aspect": 3.0})
    nothing = evaluate(open_test(root)[1:], model, other, root=root)
    assert len(nothing.faults) == len(nothing.rows) == len(whole.rows) - 1
    assert "could not be judged" in report(nothing, tmp_path).text


def test_unreadable_test_photo_names_the_file(tmp_path: Path, model: ScoreBatch) -> None:
    root = write_parts(tmp_path / "disc", good=10)
    (root / "test" / "stain" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"test/stain/001\.png: the image is truncated"):
        evaluate(open_test(root), model, GEOMETRY)


def test_report_needs_nothing_else(judged: Evaluation, tmp_path: Path) -> None:
    page = report(judged, tmp_path)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"} == set()
    sources = page.attributes("src") + page.attributes("srcset")
    assert len(sources) > 30
    for source in sources:
        kind, data = re.fullmatch(r"data:image/(jpeg|svg\+xml);base64,(.+)", source).groups()  # type: ignore[union-attr]
        raw = base64.b64decode(data, validate=True)
        if kind == "jpeg":
            # The camera's proportions, not the network's.
            assert decode(raw).shape == (192, 288, 3)
        else:
            assert b"</svg>" in raw
    assert not re.search(r"https?://|url\(|@import", page.html)
    assert "default-src 'none'" in page.html
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_report_says_what_was_found(judged: Evaluation, tmp_path: Path) -> None:
    page = report(judged, tmp_path, remarks=("folds differ",))
    rejects, escapes = judged.false_rejects, judged.escapes
    assert (
        f"Of 16 good parts {rejects.hits} would be rejected; of 30 defective parts "
        f"{escapes.hits} would escape." in page.text
    )
    summary = judged.summary()
    assert f"Image AUROC {summary['image_auroc']:.3f}" in page.text
    assert f"AUPRO {judged.pixels.aupro:.3f}" in page.text
    assert f"1.00 {escapes.hits} of 30" in page.text
    for title in ("Kinds of defect", "What another limit would do", "ROC of images"):
        assert title in page.text
    assert "Worst misses" in page.text
    assert "Of 40 held-out good parts 1 reaches the limit." in page.text
    assert "between 0.06 % and 13.2 %; of the next 1,000 good parts, 1 to 126" in page.text
    assert "folds differ" in page.text
    assert "mean of <good> parts" in page.text
    lowest = min((r for r in judged.rows if r.kind != GOOD), key=lambda row: row.score)
    assert lowest.path in page.text


@pytest.mark.long
def test_report_without_misses_shows_the_narrowest(root: Path, tmp_path: Path) -> None:
    strict = evaluate(open_test(root), learn_mean(root, limit=1.0), GEOMETRY, root=root)
    page = report(strict, tmp_path)
    assert "of 30 defective parts 0 would escape" in page.text
    assert "Narrowest catches" in page.text
    assert "Worst false alarms" in page.text
    assert "highest score first (12 of 16)" in page.text
    lenient = evaluate(open_test(root), learn_mean(root, limit=1e4), GEOMETRY, root=root)
    page = report(lenient, tmp_path)
    assert "Closest calls among the good parts" in page.text
    assert "Worst false alarms" not in page.text
    assert "Clearest catches" not in page.text


def only(evaluation_root: Path, model: ScoreBatch, keep: str) -> Evaluation:
    samples = open_test(evaluation_root)
    chosen = {
        "good": [s for s in samples if s.kind == GOOD],
        "defective": [s for s in samples if s.kind != GOOD],
        "no masks": [Sample(s.path, s.kind, None) for s in samples],
    }
    return evaluate(chosen[keep], model, GEOMETRY, root=evaluation_root)


@pytest.mark.parametrize(
    ("keep", "absent", "said"),
    [
        (
            "good",
            {"image_auroc", "pixel_auroc", "aupro", "f1", "f1_best", "escape_rate"},
            "No defective part was tested, so escapes are not known.",
        ),
        (
            "defective",
            {"image_auroc", "false_reject_rate", "f1", "f1_best", "f1_best_threshold"},
            "No good part was tested, so false rejects and F1 are not known. Of 40 held-out good "
            "parts 1 reaches the limit.",
        ),
        ("no masks", {"pixel_auroc", "aupro"}, "Defective photos without a mask"),
    ],
)
def test_undefined_figures_are_dashes(
    root: Path, model: ScoreBatch, tmp_path: Path, keep: str, absent: set[str], said: str
) -> None:
    evaluation = only(root, model, keep)
    summary = evaluation.summary()
    assert absent.isdisjoint(summary)
    assert np.isfinite(list(summary.values())).all()
    page = report(evaluation, tmp_path)
    assert said in page.text
    assert "–" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_without_test_photos_only_the_limit_is_reported(tmp_path: Path, model: ScoreBatch) -> None:
    evaluation = evaluate((), model, GEOMETRY)
    assert evaluation.summary() == {}
    evaluation.write_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == "path,kind,score,verdict\n"
    page = report(evaluation, tmp_path, extrapolated=True)
    assert "There were no test photos" in page.text
    assert "The limit was extrapolated" in page.text
    assert "1.00 1 of 40 (2.5 %) the limit in force" in page.text
    assert len(page.attributes("src")) == 1
    for title in ("Kinds of defect", "Curves", "Worst", "escape"):
        assert title not in page.text.replace("lets more escape", "")


def test_names_cannot_break_out_of_the_page(tmp_path: Path, model: ScoreBatch) -> None:
    root = write_parts(tmp_path / "disc", good=10, test_good=1, defective=1)
    evil = root / "test" / "<script>alert(1)<" / 'a"onload="x.png'
    evil.parent.mkdir()
    (root / "test" / "scratch" / "000.png").rename(evil)
    (root / "ground_truth" / "scratch" / "000_mask.png").unlink()
    evaluation = evaluate(open_test(root), model, GEOMETRY, root=root)
    path = tmp_path / "report.html"
    write_report(evaluation, path, "</title><script>", {"<b>": "<i>"}, calibration(), HELD_OUT)
    page = Page(path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<b> <i>" in page.text
    assert not page.attributes("onload")
    assert 'test/<script>alert(1)</a"onload="x.png' in page.text


def test_names_of_others_neither_turn_nor_cut_the_page(judged: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    odd = "d\u202eisc\0\x9b[2J\u2028"
    write_report(judged, path, odd, {odd: odd}, calibration(), HELD_OUT)
    html = path.read_text(encoding="utf-8")
    assert html.count(r"d\u202eisc\x00\x9b[2J\u2028") >= 3
    assert not set(odd) & {*"\u202e\0\x9b\u2028"} & set(html)
