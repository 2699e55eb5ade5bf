"""A small data set of drawn parts, in MVTec AD layout, and a model trained on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from export.run import Run
from export.settings import TrainSettings
from export.train import train

QUICK = TrainSettings(size=(64, 96), epochs=2, bank_items=48, folds=3, device="cpu")


def draw_part(seed: int, defect: str = "") -> tuple[np.ndarray, np.ndarray]:
    """A grey disc on a dark belt, uint8 BGR ``[80, 120, 3]``, and the defect's mask."""
    rng = np.random.default_rng(seed)
    image = np.full((80, 120, 3), 40, dtype=np.uint8)
    centre = (60 + int(rng.integers(-3, 4)), 40 + int(rng.integers(-3, 4)))
    cv2.circle(image, centre, 28, (170, 175, 180), -1, cv2.LINE_AA)
    cv2.circle(image, centre, 9, (50, 50, 50), -1, cv2.LINE_AA)
    mask = np.zeros((80, 120), dtype=np.uint8)
    if defect == "scratch":
        cv2.line(mask, (centre[0] + 10, 30), (centre[0] + 20, 55), 255, 3)
    elif defect == "stain":
        cv2.circle(mask, (centre[0] - 16, centre[1] + 6), 6, 255, -1)
    image[mask > 0] = (20, 30, 60) if defect == "stain" else (250, 250, 250)
    noisy = image.astype(np.float32) + rng.normal(0, 4, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def write_parts(root: Path, good: int = 24, test_good: int = 5, defective: int = 4) -> Path:
    for i in range(good):
        _write(root / "train" / "good" / f"{i:03d}.png", draw_part(i)[0])
    for i in range(test_good):
        _write(root / "test" / "good" / f"{i:03d}.png", draw_part(1000 + i)[0])
    for kind in ("scratch", "stain"):
        for i in range(defective):
            image, mask = draw_part(2000 + i, kind)
            _write(root / "test" / kind / f"{i:03d}.png", image)
            _write(root / "ground_truth" / kind / f"{i:03d}_mask.png", mask)
    return root


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("parts") / "disc")


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "disc"
    return train(parts, folder, QUICK, resume=False, on_step=lambda step: None)
