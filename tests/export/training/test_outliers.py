"""Parts that look unlike the others are named; good ones seldom are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from export.data.layouts import Selection
from export.data.photos import Index
from export.model import cfa
from export.settings import TrainSettings
from export.training.outliers import Comparison, bound, find_suspects, measure_drawn, read_maps
from export.training.run import Outcome, Run
from export.training.train import Step, train
from inspector.errors import RunError
from tests.export.conftest import CPU, QUICK, draw_part, save, write_parts

SMALL = TrainSettings(size=(64, 64), strides=(8,), bank_items=64, sigma=4.0)


class Patches:
    """Features drawn for a test: ``[N, C, 8, 8]``."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def batch(self, index: Index) -> cfa.Levels:
        return [self.features[torch.from_numpy(index)]]


def compare(features: torch.Tensor, picture: Index | None = None) -> Comparison:
    model = cfa.build(
        SMALL,
        (features.shape[1],),
        lambda: iter([[features]]),
        scale=cfa.FeatureScale.identity((features.shape[1],)),
        seed=0,
        device=CPU,
    )
    picture = np.arange(len(features)) if picture is None else picture
    return Comparison(model, Patches(features), picture, SMALL, lambda done, total: None)


def good_features(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((count, 6, 8, 8), generator=generator)


@pytest.mark.parametrize("shape", ["gumbel", "exponential", "normal", "lognormal"])
@pytest.mark.parametrize("n", [15, 50, 300])
def test_of_good_parts_few_are_named(shape: str, n: int) -> None:
    of = {
        "gumbel": stats.gumbel_r(2.0, 0.3),
        "exponential": stats.expon(1.0, 0.5),
        "normal": stats.norm(2.0, 0.3),
        "lognormal": stats.lognorm(0.4),
    }[shape]
    rng = np.random.default_rng(2)
    draws = [of.rvs(size=n, random_state=rng) for _ in range(400)]
    # Each of two scores may have a quarter of a part.
    assert np.mean([(scores > bound(scores)).sum() for scores in draws]) < 0.6


def test_a_part_that_is_nearly_usual_is_not_named() -> None:
    scores = np.append(np.linspace(1.0, 1.02, 49), 1.15)
    assert not find_suspects([str(i) for i in range(50)], scores, scores)
    scores[49] = 1.25
    assert [one.name for one in find_suspects([str(i) for i in range(50)], scores, scores)] == [
        "49"
    ]


@pytest.mark.parametrize("bad", [1, 3, 6])
def test_bad_parts_do_not_hide_behind_their_number(bad: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        scores = np.append(1.0 + 0.1 * rng.gumbel(size=50), np.full(bad, 3.0))
        names = [str(i) for i in range(len(scores))]
        found = {one.name for one in find_suspects(names, scores, scores)}
        assert {str(50 + i) for i in range(bad)} <= found


def test_a_part_that_was_never_held_out_is_named_by_the_comparison() -> None:
    features = good_features(20)
    features[7, :, 3:5, 3:5] += 12.0
    scores = compare(features).scores
    held_out = np.full(20, np.nan)
    held_out[[1, 3, 5, 9, 12]] = 1.0
    found = find_suspects([str(i) for i in range(20)], held_out, scores)
    assert [one.name for one in found] == ["7"]
    assert found[0].times > 2


def test_two_alike_defects_do_not_hide_each_other() -> None:
    features = good_features(20)
    strange = torch.full((6, 2, 2), 12.0)
    features[4, :, 3:5, 3:5] = strange
    features[15, :, 5:7, 1:3] = strange + 0.01
    compared = compare(features)
    found = find_suspects([str(i) for i in range(20)], np.full(20, 1.0), compared.scores)
    assert {one.name for one in found} == {"4", "15"}
    # The map is warm where the defect is: rows 24 to 40 px, one value for each 8 px.
    assert np.unravel_index(compared.maps[4].argmax(), (8, 8))[0] in {3, 4}


def test_copies_are_one_part_and_do_not_hide_each_other() -> None:
    features = good_features(20)
    features[4, :, 3:5, 3:5] += 12.0
    features[15] = features[4]
    picture = np.arange(20)
    picture[15] = 4
    picture[16:] -= 1
    scores = compare(features, picture).scores
    assert np.isnan(scores[15])
    assert np.nanargmax(scores) == 4


def test_distances_in_large_units_stay_finite() -> None:
    # A warning of an overflow would be printed in the middle of a training.
    compared = compare(1e6 * good_features(12))
    assert np.isfinite(compared.maps).all()
    assert compared.maps.max() == pytest.approx(np.nanmax(compared.scores), rel=1e-5)


@pytest.fixture(scope="module")
def soiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 good parts, and two with stains among them."""
    data = write_parts(tmp_path_factory.mktemp("soiled") / "parts", test_good=0, defective=0)
    for seed in (2000, 2001):
        save(data / "train" / "good" / f"other-{seed}.png", draw_part(seed, "stain")[0])
    return data


@pytest.mark.long
def test_suspects_are_left_out_and_the_rest_is_learnt_from_the_features_that_are_there(
    soiled: Path, tmp_path: Path
) -> None:
    asked: list[Outcome] = []
    stages: list[str] = []

    def review(outcome: Outcome, spare: int) -> list[str]:
        assert (tmp_path / "run" / "outcome.json").exists()
        asked.append(outcome)
        return [suspect.name for suspect in outcome.suspects if "other" in suspect.name]

    settings = QUICK.model_copy(update={"epochs": 0})
    run = train(
        soiled,
        tmp_path / "run",
        settings,
        resume=False,
        on_step=lambda step: stages.append(step.stage) if step.done == step.total else None,
        review=review,
    )
    stained = {f"train/good/other-{seed}.png" for seed in (2000, 2001)}
    assert {one.name for one in asked[0].suspects} >= stained
    assert len(asked) == 1
    assert stages.count("backbone features") == 1
    chosen = Selection(leave_out=tuple(sorted(run.facts().selection.leave_out)))
    assert set(chosen.leave_out) == stained
    assert run.facts().parts == 24
    fresh = train(
        soiled,
        tmp_path / "fresh",
        settings,
        resume=False,
        on_step=lambda step: None,
        selection=chosen,
    )
    assert fresh.facts().fingerprint == run.facts().fingerprint
    (names, folds, scores), again = run.held_out_parts(), fresh.held_out_parts()
    assert names == again[0]
    assert folds.tolist() == again[1].tolist()
    assert scores == pytest.approx(again[2], rel=1e-3)
    assert run.outcome().calibration.threshold == pytest.approx(
        fresh.outcome().calibration.threshold, rel=1e-3
    )
    # In different folds the two alike stains hide each other from the held-out scores.
    assert asked[0].calibration.good_parts == 26


@pytest.mark.long
def test_training_without_suspects_can_be_resumed(soiled: Path, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"epochs": 0})

    def interrupt(step: Step) -> None:
        if reviewed and step.stage == "comparing parts":
            raise KeyboardInterrupt

    reviewed: list[Outcome] = []

    def review(outcome: Outcome, spare: int) -> list[str]:
        reviewed.append(outcome)
        return [outcome.suspects[0].name]

    with pytest.raises(KeyboardInterrupt):
        train(soiled, tmp_path / "run", settings, resume=False, on_step=interrupt, review=review)
    run = Run(tmp_path / "run")
    assert not (run.folder / "outcome.json").exists()
    selection = run.facts().selection
    assert selection.leave_out == (reviewed[0].suspects[0].name,)
    again = train(
        soiled, run.folder, settings, resume=True, on_step=lambda step: None, selection=selection
    )
    assert again.outcome().calibration.good_parts == 25


@pytest.mark.long
def test_kept_maps_are_of_the_highest_parts_and_damage_is_told(
    trained: Run, tmp_path: Path
) -> None:
    names, _, scores = trained.held_out_parts()
    maps = read_maps(trained, trained.facts().settings.input)
    highest = [names[i] for i in np.argsort(-scores, kind="stable")[:12]]
    assert set(highest) <= set(maps)
    suspects = {one.name for one in trained.outcome().suspects}
    for name in set(highest) - suspects:
        # A kept map has a value for each 8 px, so its highest lies a little below the map's own.
        assert maps[name].max() == pytest.approx(scores[names.index(name)], rel=0.1)
        assert maps[name].shape == trained.facts().settings.input
    (tmp_path / "heldout-maps.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(RunError, match=r"heldout-maps\.npz: damaged"):
        read_maps(Run(tmp_path), (64, 64))


def test_drawn_defects_score_higher_than_the_parts_that_they_are_drawn_on() -> None:
    images = np.stack([draw_part(seed)[0] for seed in range(3)])

    def measure(batch: np.ndarray) -> np.ndarray:
        seen = batch.astype(np.float32)[:, None]
        return np.abs(seen - images[None]).max(axis=4).min(axis=1)

    found = measure_drawn(measure, images, 5, lambda done, total: None)
    assert found.shape == (40, *images.shape[1:3])
    assert found.max(axis=(1, 2)).min() > 0
    assert measure(images).max() == 0
