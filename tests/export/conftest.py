"""A small data set of drawn parts, in MVTec AD layout, and models trained on it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from export.bundle.quantise import products_saturate
from export.model.backbone import SPECS
from export.model.cfa import pool, smoothing
from export.model.memory import teach
from export.settings import TrainSettings
from export.training.run import Run
from export.training.train import load_model, load_scorer, train

CPU = torch.device("cpu")
_WEIGHTS = tempfile.TemporaryDirectory(prefix="line-inspector-weights-")
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


def draw_labelled(seed: int, colour: tuple[int, int, int] = (120, 150, 90)) -> np.ndarray:
    """A good part with a label beside it, which no trained part has."""
    image, _ = draw_part(seed)
    cv2.rectangle(image, (4, 4), (22, 16), colour, -1)
    return image


def write_parts(root: Path, good: int = 24, test_good: int = 5, defective: int = 4) -> Path:
    for i in range(good):
        save(root / "train" / "good" / f"{i:03d}.png", draw_part(i)[0])
    for i in range(test_good):
        save(root / "test" / "good" / f"{i:03d}.png", draw_part(1000 + i)[0])
    for kind in ("scratch", "stain"):
        for i in range(defective):
            image, mask = draw_part(2000 + i, kind)
            save(root / "test" / kind / f"{i:03d}.png", image)
            save(root / "ground_truth" / kind / f"{i:03d}_mask.png", mask)
    return root


@functools.cache
def random_weights(name: str) -> Path:
    """Weights that nobody trained, in a file, made once: the largest takes seconds."""
    torch.manual_seed(0)
    path = Path(_WEIGHTS.name) / f"{name}.pth"
    torch.save(SPECS[name].build().state_dict(), path)
    return path


def write_labelled(folder: Path, count: int, first: int = 5000, **label: object) -> Path:
    folder.mkdir()
    for seed in range(first, first + count):
        cv2.imwrite(str(folder / f"{seed}.png"), draw_labelled(seed, **label))  # type: ignore[arg-type]
    return folder


def features(run: Run, images: list[np.ndarray]) -> list[torch.Tensor]:
    """Pooled features of ``images`` for the run's model, by level."""
    scorer, geometry = load_scorer(run, CPU), run.facts().geometry
    with torch.no_grad():
        return pool(
            scorer.backbone.maps(np.stack([geometry.apply(image) for image in images]), CPU)
        )


def distances(
    run: Run, name: str, images: list[np.ndarray], taught: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Distances ``[N, H', W']`` by the run's model ``name``, after it was taught parts."""
    scorer = load_scorer(run, CPU)
    model = load_model(run, name, scorer.backbone, CPU)
    if taught:
        limit = run.outcome().calibration.threshold
        teach(model, [features(run, list(taught))], limit, scorer.normaliser)
    return model.patch_scores(features(run, images)).numpy()


def held_out_distances(run: Run, data: Path, taught: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Of the 24 parts that the run was trained on, each by its fold's model."""
    names, folds, _ = run.held_out_parts()
    images = [cv2.imread(str(data / name)) for name in names[:24]]
    found = np.empty((24, *run.facts().settings.grid), dtype=np.float32)
    for fold in range(3):
        (index,) = np.nonzero(folds[:24] == fold)
        found[index] = distances(run, f"fold-{fold}.pt", [images[i] for i in index], taught)
    return found


def normalised(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``one`` ``[H', W']`` compared with ``others`` ``[n, H', W']``: the definition."""
    n, rows, columns = others.shape
    mean, spread = np.empty((rows, columns)), np.empty((rows, columns))
    padded = np.pad(others.astype(np.float64), ((0, 0), (2, 2), (2, 2)), mode="edge")
    for i in range(rows):
        for j in range(columns):
            near = padded[:, i : i + 5, j : j + 5]
            mean[i, j] = near.mean()
            spread[i, j] = np.sqrt(near.var(axis=0, ddof=1).mean())
    typical, common = mean.mean(), spread.mean()
    t = n / (n + 60)
    mean = t * mean + (1 - t) * typical
    spread = t * np.clip(spread, common / 4, common * 4) + (1 - t) * common
    return np.maximum((one - mean) / spread * common + typical, 0.0)


def peak(patch_scores: np.ndarray, settings: TrainSettings) -> float:
    """The highest value of the smoothed map of ``[H', W']``."""
    rows, columns = (
        smoothing(grid, side, settings.sigma_px)
        for grid, side in zip(settings.grid, settings.input, strict=True)
    )
    return float((rows @ patch_scores @ columns.T).max())


def run_watched(*commands: list[str]) -> tuple[str, list[str]]:
    """``inspector-model`` commands in a process of their own: what they print, the paths opened."""
    program = (
        "import sys, json\n"
        "seen = []\n"
        "def hook(event, arguments):\n"
        "    if event in {'open', 'os.listdir', 'os.scandir'} and isinstance(arguments[0], str):\n"
        "        seen.append(arguments[0])\n"
        "sys.addaudithook(hook)\n"
        "from export.cli.main import main\n"
        "codes = [main(command) for command in json.loads(sys.argv[1])]\n"
        "print(json.dumps({'codes': codes, 'seen': seen}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
    )
    said, last = done.stdout.rstrip().rsplit("\n", 1)
    answer = json.loads(last)
    assert answer["codes"] == [0] * len(commands), done.stderr
    return said, answer["seen"]


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def good_folder(folder: Path, count: int = 12, suffix: str = ".png") -> tuple[Path, ...]:
    return tuple(save(folder / f"{i:03d}{suffix}", draw_part(i)[0]) for i in range(count))


@pytest.fixture(scope="session", autouse=True)
def _no_weights_left() -> Iterator[None]:
    yield
    _WEIGHTS.cleanup()


@pytest.fixture(scope="session")
def saturating() -> bool:
    """True where 8-bit products saturate: an int8 model of the drawn parts is refused there."""
    return products_saturate()


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("parts") / "disc")


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "disc"
    return train(parts, folder, QUICK, resume=False, on_step=lambda step: None)


@pytest.fixture(scope="session")
def roomy(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose bank has room for lessons."""
    folder = tmp_path_factory.mktemp("runs") / "roomy"
    settings = QUICK.model_copy(update={"bank_items": 200})
    return train(parts, folder, settings, resume=False, on_step=lambda step: None)
