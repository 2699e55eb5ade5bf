"""Families of parts: repeatable, truthful masks, and conditions that do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.cameras.simulated import families
from inspector.cameras.simulated.conveyor import GOOD, Domain, draw_kind
from inspector.cameras.simulated.scene import Conditions, SimulatedPart
from inspector.cli.main import main
from inspector.imaging.images import read_image

STILL = Conditions(shift_px=0.0, turn_deg=0.0, texture=0.0, light=0.0)


def draw(
    family: str,
    kind: str = GOOD,
    index: int = 0,
    conditions: Conditions | None = None,
    domain: Domain = Domain.TEST_DEFECTIVE,
) -> SimulatedPart:
    chosen = conditions or families.conditions(family)
    return families.draw_part(family, chosen, seed=3, index=index, kind=kind, domain=domain)


def test_there_are_at_least_six_families_each_with_six_defects() -> None:
    assert len(families.NAMES) >= 7
    for family in families.NAMES:
        assert len(families.defects(family)) >= 6
        assert families.describe(family)


def test_the_flange_is_the_conveyors() -> None:
    for kind in (GOOD, "dent"):
        ours, theirs = draw("flange", kind), draw_kind(3, 0, kind, Domain.TEST_DEFECTIVE)
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.mask, theirs.mask)


@pytest.mark.parametrize("family", families.NAMES)
def test_same_numbers_same_part_other_numbers_another(family: str) -> None:
    first, again = draw(family), draw(family)
    assert np.array_equal(first.image, again.image)
    assert first.image.shape == (480, 640, 3)
    assert not first.mask.any()
    others = [draw(family, index=1), draw(family, domain=Domain.TRAIN_GOOD)]
    assert not any(np.array_equal(first.image, other.image) for other in others)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        # The first defect of each family in make test, all of them in make test-benchmarks.
        pytest.param(family, kind, marks=() if number == 0 else pytest.mark.long)
        for family in families.NAMES[1:]
        for number, kind in enumerate(families.defects(family))
    ],
)
def test_the_mask_is_where_the_defect_is(family: str, kind: str) -> None:
    for index in (0, 1):
        bad, twin = draw(family, kind, index), draw(family, GOOD, index)
        change = np.abs(bad.image.astype(int) - twin.image).max(axis=2)
        near = cv2.dilate(bad.mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert bad.truth == kind
        assert bad.mask.sum() >= 25
        # A missing part casts no shadow, which is outside the mask.
        assert np.quantile(change[~near], 0.999) < 25
        assert np.percentile(change[bad.mask], 80) >= 5


@pytest.mark.parametrize("family", families.NAMES)
def test_without_noise_only_belt_sensor_and_focus_differ(family: str) -> None:
    one, two = (draw(family, index=index, conditions=STILL).image for index in (0, 1))
    same = np.abs(cv2.blur(one, (9, 9)).astype(int) - cv2.blur(two, (9, 9))).mean()
    usual = [draw(family, index=index, conditions=Conditions(30.0, 20.0)).image for index in (0, 1)]
    moved = np.abs(cv2.blur(usual[0], (9, 9)).astype(int) - cv2.blur(usual[1], (9, 9))).mean()
    if family != "cookie":
        # The chips of a cookie lie elsewhere on each, which is no texture.
        assert same < 6
    assert moved > same


@pytest.mark.long
@pytest.mark.parametrize("family", ["brushed", "textile", "gear", "flange"])
def test_texture_and_light_scale_the_spread_of_good_parts(family: str) -> None:
    def spread(conditions: Conditions) -> np.ndarray:
        parts = [draw(family, index=i, conditions=conditions).image for i in range(4)]
        return np.stack(parts).astype(float)[:, 200:280, 260:380]

    # Adjacent pixels tell texture, means of pictures tell light.
    fine = [
        np.std(np.diff(spread(replace(STILL, texture=t)).mean(axis=3).std(axis=0)), axis=None)
        for t in (0.0, 3.0)
    ]
    assert fine[1] > fine[0]
    level = [spread(replace(STILL, light=x)).mean(axis=(1, 2, 3)).std() for x in (0.0, 3.0)]
    assert level[1] > 3 * level[0]


def test_position_noise_moves_a_part_as_far_as_it_says() -> None:
    found = []
    for index in range(8):
        grey = draw("label", index=index, conditions=replace(STILL, shift_px=25.0)).image
        rows, columns = np.nonzero(grey.min(axis=2) > 150)
        found.append((columns.mean(), rows.mean()))
    away = np.abs(np.array(found) - np.mean(found, axis=0)).max(axis=0)
    assert (away > 8).all()
    assert (away < 52).all()


@pytest.mark.long
def test_simulate_draws_a_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "board"
    options = ["--good", "2", "--test-good", "1", "--defective", "8", "--family", "board"]
    noise = ["--position-noise", "12px,3deg", "--texture", "0.5", "--light", "0"]
    assert main(["simulate", str(out), *options, *noise]) == 0
    assert {p.name for p in (out / "ground_truth").iterdir()} == set(families.defects("board"))
    expected = families.draw_part(
        "board",
        Conditions(12.0, 3.0, 0.5, 0.0),
        seed=0,
        index=1,
        kind=GOOD,
        domain=Domain.TRAIN_GOOD,
    )
    assert np.array_equal(read_image(out / "train/good/001.png"), expected.image)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--family", "bolt"], "invalid choice"),
        (["--position-noise", "5"], "no position noise"),
        (["--position-noise", "90px"], "up to 60px"),
        (["--position-noise", "5px,6px"], "no position noise"),
        (["--texture", "-1"], "no number from 0 to 4"),
        (["--light", "nan"], "no number from 0 to 4"),
    ],
)
def test_a_wrong_option_is_refused(
    tmp_path: Path, option: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", str(tmp_path / "out"), *option])
    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
