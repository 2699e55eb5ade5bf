"""Distances compared with those of good parts at the same position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.model.normalise import MOST_GAIN, Normaliser, Statistics, does_harm
from tests.export.conftest import normalised


def drawn(seed: int, parts: int, grid: tuple[int, int] = (6, 7)) -> np.ndarray:
    """Distances of good parts: at each position another mean and another spread."""
    random = np.random.default_rng(seed)
    mean, spread = random.uniform(0.2, 2.0, grid), random.uniform(0.02, 0.5, grid)
    return np.abs(random.normal(mean, spread, (parts, *grid))).astype(np.float32)


def apply(normaliser: Normaliser, one: np.ndarray) -> np.ndarray:
    return normaliser(torch.from_numpy(one).double()).numpy()


@given(
    seed=st.integers(0, 10_000),
    parts=st.integers(3, 300),
    grid=st.tuples(st.integers(2, 9), st.integers(2, 9)),
)
@settings(max_examples=25)
def test_both_statistics_are_those_of_the_definition(
    seed: int, parts: int, grid: tuple[int, int]
) -> None:
    maps = drawn(seed, parts, grid)
    new = 3.0 * drawn(seed + 1, 1, grid)[0]
    statistics = Statistics(maps)
    np.testing.assert_allclose(
        apply(statistics.normaliser(), new), normalised(new, maps), rtol=1e-6
    )
    which = seed % parts
    own = apply(statistics.without(maps[which]), maps[which])
    others = np.delete(maps, which, axis=0)
    np.testing.assert_allclose(own, normalised(maps[which], others), rtol=1e-5, atol=1e-9)
    assert (own >= 0).all()


def test_the_unit_of_distance_stays_and_positions_become_alike() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(1.0, 0.1, (1000, 12, 12)).astype(np.float32)
    maps[:, :, 6:] = 2.0 + 3.0 * (maps[:, :, 6:] - 1.0)
    after = apply(Statistics(maps).normaliser(), maps)
    assert after.mean() == pytest.approx(maps.mean(), rel=0.02)
    assert after.std(axis=0).mean() == pytest.approx(maps.std(axis=0).mean(), rel=0.1)
    # Statistics are averaged over the neighbourhood, so that the border between the halves stays.
    for figure in (after.mean(axis=0), after.std(axis=0)):
        assert figure[:, -1].mean() == pytest.approx(figure[:, 0].mean(), rel=0.15)


def test_few_parts_change_little_and_many_change_much() -> None:
    def change(parts: int) -> float:
        maps = drawn(1, parts)
        return float(np.abs(Statistics(maps).normaliser().gain - 1.0).mean())

    assert change(10) < 0.5 * change(1000)
    assert Statistics(drawn(1, 60)).normaliser().weight == 0.5


def test_a_position_where_all_parts_are_alike_is_not_stretched_without_bound() -> None:
    maps = drawn(2, 5000, (12, 12))
    maps[:, :, :6] = 0.25
    normaliser = Statistics(maps).normaliser()
    assert 3.5 < normaliser.gain.max() <= MOST_GAIN
    assert np.isfinite(normaliser.offset).all()


def test_an_odd_part_among_those_held_out_does_not_blind_its_place() -> None:
    maps = drawn(6, 200, (40, 40))
    maps[0, :5, :5] = 500.0
    normaliser = Statistics(maps).normaliser()
    assert 1 / MOST_GAIN <= normaliser.gain.min() < 0.4


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_parts_that_are_all_alike_keep_their_distances(value: float) -> None:
    maps = np.full((20, 4, 4), value, dtype=np.float32)
    for normaliser in (Statistics(maps).normaliser(), Statistics(maps).without(maps[0])):
        np.testing.assert_allclose(apply(normaliser, 3 * maps[0]), 3 * maps[0], rtol=1e-6)


def test_nan_stays_and_nothing_is_negative() -> None:
    normaliser = Statistics(drawn(3, 40)).normaliser()
    distances = torch.zeros(2, 6, 7)
    distances[1, 2, 3] = torch.nan
    found = normaliser(distances)
    assert (found[0] >= 0).all()
    assert found.isnan().nonzero().tolist() == [[1, 2, 3]]


def test_the_inverse_is_the_largest_distance_with_that_value() -> None:
    normaliser = Statistics(drawn(4, 80)).normaliser()
    found = normaliser.invert(1.5)
    np.testing.assert_allclose(apply(normaliser, found), 1.5)
    assert (normaliser.invert(-100.0) == 0).all()


def test_statistics_survive_the_disk_and_fit_their_grid_only() -> None:
    normaliser = Statistics(drawn(5, 80)).normaliser()
    again = Normaliser.from_state(normaliser.state(), (6, 7))
    np.testing.assert_array_equal(again.gain, normaliser.gain)
    np.testing.assert_array_equal(again.offset, normaliser.offset)
    assert again.parts == 80
    with pytest.raises(ValueError, match="grid of 7x6"):
        Normaliser.from_state(normaliser.state(), (7, 6))
    with pytest.raises(ValueError, match="grid"):
        Normaliser.from_state({}, (6, 7))


def by_the_others(maps: np.ndarray) -> list[float]:
    statistics = Statistics(maps)
    return [float(apply(statistics.without(one), one).max()) for one in maps]


def by_all_of_them(maps: np.ndarray) -> list[float]:
    whole = Statistics(maps).normaliser()
    return [float(apply(whole, one).max()) for one in maps]


def exceeded(score: Callable[[np.ndarray], list[float]]) -> float:
    """How often a new part scores above all of twelve that were held out."""
    times = 0
    for seed in range(200):
        blocks = 2.0 + np.random.default_rng(seed).normal(size=(13, 1, 10)) * 0.2
        maps = blocks.repeat(5, axis=1).repeat(5, axis=2).astype(np.float32)
        new = float(apply(Statistics(maps[:12]).normaliser(), maps[12]).max())
        times += new > max(score(maps[:12]))
    return times / 200


def test_a_part_is_judged_without_its_own_statistics_as_a_new_part_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without shrinkage a part's own share in the statistics is the largest.
    monkeypatch.setattr("export.model.normalise.SHRINKAGE", 0)
    # Among 13 exchangeable parts each is the highest once in 13 draws: 0.077; 0.06 is three sigma.
    assert exceeded(by_the_others) == pytest.approx(1 / 13, abs=0.06)
    assert exceeded(by_all_of_them) > 0.15


@pytest.mark.parametrize(
    ("lost", "won", "harm"),
    [(0, 0, False), (1, 0, False), (2, 0, True), (5, 0, True), (4, 2, False), (9, 4, True)],
)
def test_harm_is_more_than_one_standard_error(lost: int, won: int, harm: bool) -> None:
    both = [True] * 3 + [False] * 7
    with_, without = (
        np.array(both + [first] * lost + [not first] * won) for first in (True, False)
    )
    assert does_harm(with_, without) == harm
    assert not does_harm(without, with_) or won > lost
