"""Figures of merit against scikit-learn, and against definitions written out slowly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from export.evaluation import metrics
from export.evaluation.metrics import Curve, PixelTally, Rate

slowly = settings(max_examples=60)

coarse = st.integers(0, 12).map(lambda v: v / 8)
fine = st.floats(0, 50, width=32)
scores = st.one_of(st.lists(coarse, max_size=25), st.lists(fine, max_size=25))
some_scores = st.one_of(
    st.lists(coarse, min_size=1, max_size=25), st.lists(fine, min_size=1, max_size=25)
)

SHAPE = (6, 7)
# Multiples of 1/64 have a bin of their own, so that only the algorithm is compared.
exact_map = arrays.arrays(np.float32, SHAPE, elements=st.integers(0, 40).map(lambda v: v / 64))
any_map = arrays.arrays(np.float32, SHAPE, elements=st.floats(0, 60, width=32))
mask = arrays.arrays(np.bool_, SHAPE, elements=st.booleans())
exact_images = st.lists(st.tuples(exact_map, mask), min_size=1, max_size=3)
any_images = st.lists(st.tuples(any_map, mask), min_size=1, max_size=3)
Images = list[tuple[np.ndarray, np.ndarray]]


def labels(good: list[float], defective: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[np.zeros(len(good)), np.ones(len(defective))], np.r_[good, defective]


@slowly
@given(some_scores, some_scores)
def test_auroc_is_scikit_learns(good: list[float], defective: list[float]) -> None:
    truth, values = labels(good, defective)
    assert metrics.auroc(good, defective) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)


@slowly
@given(some_scores, some_scores)
def test_roc_is_scikit_learns(good: list[float], defective: list[float]) -> None:
    truth, values = labels(good, defective)
    x, y, _ = roc_curve(truth, values, drop_intermediate=False)
    curve = metrics.roc(good, defective)
    assert curve is not None
    np.testing.assert_allclose(curve.x, x, atol=1e-12)
    np.testing.assert_allclose(curve.y, y, atol=1e-12)


def test_ties_count_one_half() -> None:
    assert metrics.auroc([1.0, 1.0], [1.0]) == 0.5
    assert metrics.auroc([0.0, 1.0], [1.0]) == 0.75


@slowly
@given(scores, some_scores, st.sampled_from(metrics.SWEEP))
def test_f1_is_scikit_learns(good: list[float], defective: list[float], threshold: float) -> None:
    truth, values = labels(good, defective)
    expected = f1_score(truth, values >= threshold, zero_division=0.0)
    assert metrics.f1(good, defective, threshold) == pytest.approx(expected)


@slowly
@given(scores, some_scores)
def test_best_f1_is_the_best_of_all(good: list[float], defective: list[float]) -> None:
    best = metrics.best_f1(good, defective)
    assert best is not None
    value, threshold = best
    assert metrics.f1(good, defective, threshold) == pytest.approx(value)
    tried = {t: metrics.f1(good, defective, t) for t in {*good, *defective}}
    assert value == pytest.approx(max(v for v in tried.values() if v is not None))


@slowly
@given(scores, scores)
def test_sweep_counts(good: list[float], defective: list[float]) -> None:
    for row in metrics.sweep(good, defective):
        assert row.escapes == Rate(sum(s < row.threshold for s in defective), len(defective))
        assert row.false_rejects == Rate(sum(s >= row.threshold for s in good), len(good))


def test_a_score_at_the_limit_is_rejected() -> None:
    row = metrics.sweep([1.0], [1.0], [1.0])[0]
    assert (row.false_rejects.hits, row.escapes.hits) == (1, 0)
    assert metrics.f1([1.0], [1.0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("hits", "total"), [(0, 20), (1, 20), (7, 9), (20, 20), (3, 5000)])
def test_interval_is_clopper_pearson(hits: int, total: int) -> None:
    interval = Rate(hits, total).interval
    assert interval is not None
    low, high = interval
    expected = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_undefined_is_none() -> None:
    assert metrics.auroc([], [1.0]) is None
    assert metrics.auroc([1.0], []) is None
    assert metrics.roc([], []) is None
    assert metrics.f1([1.0], []) is None
    assert metrics.best_f1([1.0], []) is None
    assert Rate(0, 0).value is None
    assert Rate(0, 0).interval is None
    lonely = metrics.kind_figures("scratch", [], 2, [0.5])
    assert (lonely.parts, lonely.caught, lonely.escaped, lonely.faults) == (2, 0, 0, 2)
    assert lonely.auroc is None
    assert lonely.lowest_score is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        metrics.auroc([0.5, bad], [1.0])
    with pytest.raises(ValueError, match="finite"):
        PixelTally().add(np.full(SHAPE, bad, np.float32), np.zeros(SHAPE, bool))


def test_kind_figures() -> None:
    figures = metrics.kind_figures("scratch", [0.5, 1.0, 2.0], 1, [0.25, 0.75])
    assert (figures.parts, figures.caught, figures.escaped, figures.faults) == (4, 2, 1, 1)
    assert figures.auroc == pytest.approx(5 / 6)
    assert figures.lowest_score == 0.5


def tally(images: Images) -> metrics.PixelFigures:
    pixels = PixelTally()
    for anomaly_map, truth in images:
        pixels.add(anomaly_map, truth)
    return pixels.figures()


def flat(images: Images) -> tuple[np.ndarray, np.ndarray]:
    truth = np.concatenate([m.ravel() for _, m in images])
    return truth, np.concatenate([a.ravel() for a, _ in images]).astype(np.float64)


def components(truth: np.ndarray) -> list[set[tuple[int, int]]]:
    """Groups of marked pixels that touch, corners included, by flood fill."""
    left = set(zip(*(axis.tolist() for axis in np.nonzero(truth)), strict=True))
    found = []
    while left:
        group, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            group.add((y, x))
            for step in itertools.product((-1, 0, 1), repeat=2):
                near = (y + step[0], x + step[1])
                if near in left:
                    left.remove(near)
                    border.append(near)
        found.append(group)
    return found


def slow_aupro(images: Images, limit: float) -> float:
    """MVTec's definition, threshold by threshold."""
    truth, values = flat(images)
    groups = [(a, group) for a, m in images for group in components(m)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(values.tolist()), reverse=True):
        fpr = float((values[~truth] >= threshold).mean())
        overlaps = [sum(a[at] >= threshold for at in group) / len(group) for a, group in groups]
        points.append((fpr, sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            cut = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + cut) / 2
        else:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def both_sorts(images: Images) -> bool:
    truth, _ = flat(images)
    return bool(truth.any() and not truth.all())


@pytest.mark.long
@slowly
@given(exact_images)
def test_pixel_auroc_is_scikit_learns(images: Images) -> None:
    figures = tally(images)
    if not both_sorts(images):
        assert figures.auroc is None
        return
    assert figures.auroc == pytest.approx(roc_auc_score(*flat(images)), abs=1e-12)


@slowly
@given(exact_images)
@pytest.mark.long
def test_aupro_is_the_slow_one(images: Images) -> None:
    figures = tally(images)
    if not both_sorts(images):
        assert figures.aupro is None
        assert figures.pro is None
        return
    assert figures.aupro == pytest.approx(slow_aupro(images, metrics.PRO_FPR_LIMIT), abs=1e-12)


@slowly
@given(any_images)
@pytest.mark.long
def test_binning_error_is_within_its_bound(images: Images) -> None:
    figures = tally(images)
    if figures.auroc is None or figures.aupro is None:
        return
    assert abs(figures.auroc - roc_auc_score(*flat(images))) <= figures.auroc_error + 1e-12
    slow = slow_aupro(images, metrics.PRO_FPR_LIMIT)
    assert abs(figures.aupro - slow) <= figures.aupro_error + 1e-12


def test_scores_that_share_a_bin_are_owned_up_to() -> None:
    """Two scores too close to be told apart: the true AUROC is 1, the bound says so."""
    one = np.float32(1.0)
    close = np.array([[one, np.nextafter(one, np.float32(2))]])
    figures = tally([(close, np.array([[False, True]]))])
    assert (figures.auroc, figures.auroc_error) == (0.5, 0.5)
    beyond = np.array([[5e3, 6e3, 1e-9, 1e-8]], dtype=np.float32)
    figures = tally([(beyond, np.array([[False, True, False, True]]))])
    assert (figures.auroc, figures.auroc_error) == (0.5, 0.25)


def test_figures_of_real_sized_maps_are_good_to_five_digits() -> None:
    rng = np.random.default_rng(7)
    images = []
    for _ in range(4):
        truth = np.zeros((128, 128), dtype=bool)
        truth[40:60, 30:80] = truth[90:93, 10:40] = True
        noise = rng.gamma(4.0, 0.1, truth.shape) + 0.25 * truth
        images.append((noise.astype(np.float32), truth))
    figures = tally(images)
    assert figures.auroc == pytest.approx(roc_auc_score(*flat(images)), abs=1e-6)
    assert figures.auroc_error < 2e-5
    assert figures.aupro_error < 5e-5


def test_corners_join_a_region() -> None:
    truth = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)
    heat = np.array([[4, 0, 0, 0], [0, 3, 0, 2]], dtype=np.float32)
    curve = tally([(heat, truth)]).pro
    assert curve is not None
    # Two regions: the diagonal pair counts one half for each of its pixels.
    np.testing.assert_allclose(curve.y, [0, 0.25, 0.5, 1, 1])
    np.testing.assert_allclose(curve.x, [0, 0, 0, 0, 1])


def test_small_defects_weigh_as_much_as_large_ones() -> None:
    truth = np.zeros((20, 20), dtype=bool)
    truth[:10, :10] = truth[15, 15] = True
    heat = np.where(truth, 2.0, 0.5).astype(np.float32)
    heat[15, 15] = 0.25
    figures = tally([(heat, truth)])
    assert figures.aupro == pytest.approx(0.5, abs=1e-9)
    assert figures.auroc == pytest.approx(100 / 101)


def test_good_images_only_have_no_pixel_figures() -> None:
    figures = tally([(np.ones(SHAPE, np.float32), np.zeros(SHAPE, bool))])
    assert (figures.auroc, figures.aupro, figures.roc, figures.pro) == (None,) * 4
    assert tally([]).auroc is None


def test_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"map is \(6, 7\), mask is \(5, 5\)"):
        PixelTally().add(np.ones(SHAPE, np.float32), np.zeros((5, 5), bool))


def test_thin_keeps_the_shape() -> None:
    x = np.linspace(0, 1, 50_000)
    curve = Curve(x, x**0.05)
    drawn = metrics.thin(curve, points=300)
    assert drawn.x.size <= 300
    assert (drawn.x[0], drawn.x[-1], drawn.y[-1]) == (0.0, 1.0, 1.0)
    assert np.abs(np.interp(x, drawn.x, drawn.y) - curve.y).max() < 0.03
    assert metrics.thin(drawn, points=300) is drawn
