"""Unfit pictures are a FAULT with the reason; good parts and gross defects never are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inspector.cameras.simulated import conveyor as simulator
from inspector.cameras.simulated.conveyor import Domain
from inspector.detection import fitness
from inspector.detection.manifest import Exposure
from inspector.imaging.geometry import Box, Geometry

GEOMETRY = Geometry(height=192, width=224, region=Box(x=100, y=60, w=448, h=384), fit="stretch")


def frame(index: int, kind: str = simulator.GOOD) -> np.ndarray:
    domain = Domain.TEST_GOOD if kind == simulator.GOOD else Domain.TEST_DEFECTIVE
    return simulator.draw_kind(5, index, kind, domain).image


def noisy(image: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1.5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def reason(image: np.ndarray, learnt: Exposure) -> str:
    fault = fitness.check(GEOMETRY.apply(image), learnt)
    return "" if fault is None else fault.reason


@pytest.fixture(scope="module")
def learnt() -> Exposure:
    return fitness.learn(
        GEOMETRY.apply(simulator.draw_kind(5, i, simulator.GOOD, Domain.TRAIN_GOOD).image)
        for i in range(40)
    )


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [frame(i) for i in range(20)]


def test_new_good_parts_are_fit(learnt: Exposure, good: list[np.ndarray]) -> None:
    assert [reason(image, learnt) for image in good] == [""] * len(good)


@pytest.mark.parametrize("kind", simulator.DEFECTS)
def test_defects_of_the_simulator_are_judged(kind: str, learnt: Exposure) -> None:
    assert [reason(frame(i, kind), learnt) for i in range(6)] == [""] * 6


@pytest.mark.parametrize("light", [0.0, 0.03, 0.1])
def test_lamp_off_is_too_dark(light: float, learnt: Exposure, good: list[np.ndarray]) -> None:
    found = {reason(noisy(image * light), learnt) for image in good[:6]}
    assert found == {"too_dark"}


def test_lens_cap_without_noise_is_too_dark(learnt: Exposure) -> None:
    assert reason(np.zeros((480, 640, 3), np.uint8), learnt) == "too_dark"


def test_overexposed_is_saturated(learnt: Exposure, good: list[np.ndarray]) -> None:
    assert {reason(noisy(image * 6.0), learnt) for image in good[:6]} == {"saturated"}
    assert reason(np.full((480, 640, 3), 255, np.uint8), learnt) == "saturated"


@pytest.mark.parametrize("sigma", [3.0, 6.0])
def test_blur_is_out_of_focus_though_the_noise_is_sharp(
    sigma: float, learnt: Exposure, good: list[np.ndarray]
) -> None:
    blurred = [noisy(cv2.GaussianBlur(image, (0, 0), sigma)) for image in good[:6]]
    assert {reason(image, learnt) for image in blurred} == {"out_of_focus"}


def test_motion_blur_is_out_of_focus(learnt: Exposure, good: list[np.ndarray]) -> None:
    swept = [noisy(cv2.blur(image, (25, 1))) for image in good[:6]]
    assert {reason(cv2.blur(image, (1, 9)), learnt) for image in swept} == {"out_of_focus"}


def test_ordinary_changes_of_light_are_judged(learnt: Exposure, good: list[np.ndarray]) -> None:
    for factor in (0.6, 0.8, 1.2, 1.5):
        assert {reason(noisy(image * factor), learnt) for image in good[:4]} == {""}


@pytest.mark.parametrize("level", [0, 10, 90, 128, 255])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_gross_defect_is_judged(
    level: int, share: float, learnt: Exposure, good: list[np.ndarray]
) -> None:
    """Most of the region covered by something black, grey or white and without any detail."""
    for seed, image in enumerate(good[:3]):
        covered, side = image.copy(), np.sqrt(share)
        h, w = int(384 * side), int(448 * side)
        y, x = 60 + (384 - h) // 2, 100 + (448 - w) // 2
        covered[y : y + h, x : x + w] = level
        assert reason(noisy(covered, seed), learnt) == ""


def test_a_missing_or_black_part_is_judged(learnt: Exposure, good: list[np.ndarray]) -> None:
    belt = noisy(np.full((480, 640, 3), 50.0))
    assert reason(belt, learnt) == ""
    painted = [np.where(image > 90, 6, image).astype(np.uint8) for image in good[:4]]
    assert {reason(image, learnt) for image in painted} == {""}


def test_a_smooth_blank_of_the_same_colour_is_not_called_blurred(
    learnt: Exposure, good: list[np.ndarray]
) -> None:
    """Gone are holes and texture, but the outline is as sharp as ever."""
    for image in good[:4]:
        blank = image.copy()
        part = cv2.erode((image.mean(axis=2) > 100).astype(np.uint8), np.ones((9, 9))) > 0
        blank[part] = cv2.GaussianBlur(image, (0, 0), 8)[part]
        assert reason(noisy(blank), learnt) == ""


def test_an_empty_plain_background_is_not_called_blurred() -> None:
    """Parts of bright edges on plain grey: without one all detail is gone, and the part with it."""

    def disc(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        image = np.full((192, 192, 3), 90, np.uint8)
        centre = tuple(int(v) for v in rng.integers(80, 112, 2))
        cv2.circle(image, centre, 60, (200, 200, 200), -1, cv2.LINE_AA)
        cv2.circle(image, centre, 25, (120, 120, 120), -1, cv2.LINE_AA)
        return noisy(image, seed)

    learnt = fitness.learn(disc(i) for i in range(20))
    assert learnt.fitness is not None
    assert fitness.focus_limit(learnt.fitness) is not None
    soft = fitness.check(noisy(cv2.GaussianBlur(disc(50), (0, 0), 4)), learnt)
    assert soft is not None
    assert soft.reason == "out_of_focus"
    assert fitness.check(noisy(np.full((192, 192, 3), 90, np.uint8), 99), learnt) is None


def test_where_blur_does_not_show_focus_is_not_watched() -> None:
    plain = [noisy(np.full((64, 64, 3), 120, np.uint8), i) for i in range(12)]
    learnt = fitness.learn(plain)
    assert learnt.fitness is not None
    assert fitness.focus_limit(learnt.fitness) is None
    assert fitness.check(cv2.GaussianBlur(plain[0], (0, 0), 3), learnt) is None


def test_backlit_parts_are_fit_though_most_of_the_picture_is_white() -> None:
    def silhouette(seed: int) -> np.ndarray:
        image = np.full((128, 128, 3), 255, np.uint8)
        centre = tuple(int(v) for v in np.random.default_rng(seed).integers(54, 74, 2))
        cv2.circle(image, centre, 30, (20, 20, 20), -1, cv2.LINE_AA)
        return image

    learnt = fitness.learn(silhouette(i) for i in range(20))
    assert [fitness.check(silhouette(i), learnt) for i in range(100, 110)] == [None] * 10


def test_the_message_has_the_value_and_what_is_allowed(learnt: Exposure) -> None:
    dark = fitness.check(GEOMETRY.apply(np.full((480, 640, 3), 3, np.uint8)), learnt)
    assert dark is not None
    assert "mean brightness 3, good parts have at least" in str(dark)
    assert "\n" not in str(dark)


def test_an_older_bundle_tells_black_and_white_only(good: list[np.ndarray]) -> None:
    older = Exposure(brightness=(80.0, 110.0), sharpness=(100.0, 300.0))
    assert reason(np.zeros((480, 640, 3), np.uint8), older) == "too_dark"
    assert reason(np.full((480, 640, 3), 255, np.uint8), older) == "saturated"
    assert reason(cv2.GaussianBlur(good[0], (0, 0), 9), older) == ""
    anything = Exposure(brightness=(0.0, 255.0), sharpness=(0.0, 1e9))
    assert reason(np.zeros((480, 640, 3), np.uint8), anything) == ""


def test_widen_lets_in_what_was_taught_and_keeps_the_rest(
    learnt: Exposure, good: list[np.ndarray]
) -> None:
    assert learnt.fitness is not None
    dim = [GEOMETRY.apply(noisy(image * 0.1)) for image in good[:3]]
    wider = fitness.widen(learnt, dim)
    assert wider.fitness is not None
    assert [fitness.check(picture, wider) for picture in dim] == [None] * 3
    assert wider.brightness[0] < learnt.brightness[0]
    assert wider.brightness[1] == learnt.brightness[1]
    assert wider.fitness.brightest == learnt.fitness.brightest
    assert fitness.widen(learnt, []) == learnt
    older = Exposure(brightness=(80.0, 110.0), sharpness=(100.0, 300.0))
    assert fitness.widen(older, dim).fitness is None


def test_what_was_learnt_survives_the_manifest(learnt: Exposure, good: list[np.ndarray]) -> None:
    again = Exposure.model_validate_json(learnt.model_dump_json())
    assert again == learnt


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        fitness.learn([])
