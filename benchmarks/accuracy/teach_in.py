"""What teaching in a few rejected good parts does to the others of their kind, and to defects.

    python -m benchmarks.accuracy.teach_in DATA_ROOT [--categories bottle,screw] [--parts 60]

A green spot is painted at a random place on good parts that no training saw; all are rejected, some
are taught, the others judged by the new bundle. With the commands a user types.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, publish
from export.cli.main import main as inspector_model
from export.training.run import Run
from inspector.detection.detector import Detector
from inspector.imaging.folders import find_images
from inspector.verdict import Verdict

SPOTTED = 16
TAUGHT = (1, 3, 8)
SPOT_SHARE = 1 / 24
GREEN = (60, 160, 40)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.teach_in", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", default="bottle,screw")
    parser.add_argument("--parts", type=int, default=60, help="good parts trained on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures: list[Figure] = []
    for category in options.categories.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            data = options.data.resolve() / category
            figures += measure(category, data, Path(scratch), options.parts, options.seed)
    publish(
        "teach_in",
        f"python -m benchmarks.accuracy.teach_in DATA_ROOT --categories {options.categories} "
        f"--parts {options.parts} --seed {options.seed}",
        figures,
    )


def measure(category: str, data: Path, scratch: Path, parts: int, seed: int) -> list[Figure]:
    random = np.random.default_rng(seed)
    photos = find_images(data / "train" / "good")
    drawn = [photos[i] for i in random.permutation(len(photos))[: parts + SPOTTED]]
    own = scratch / "data"
    (own / "train" / "good").mkdir(parents=True)
    for path in drawn[:parts]:
        shutil.copy(path, own / "train" / "good")
    for name in ("test", "ground_truth"):
        (own / name).symlink_to(data / name)
    spotted = scratch / "spotted"
    spotted.mkdir()
    for path in drawn[parts:]:
        cv2.imwrite(str(spotted / f"{path.stem}.png"), paint(cv2.imread(str(path)), random))
    run = scratch / "run"
    command("train", own, "-o", run, "--seed", seed)
    command("export", run, "-o", scratch / "part.onnx", "--precision", "fp32")
    names = sorted(path.name for path in spotted.iterdir())
    before = rejected(scratch / "part.onnx", [spotted / name for name in names])
    found = [
        Figure(f"{category}: spotted parts rejected before", before, f"of {len(names)}"),
        Figure(f"{category}: image AUROC before", image_auroc(run), ""),
    ]
    for count in TAUGHT:
        lesson, bundle = scratch / f"lesson-{count}", scratch / f"part{count}.onnx"
        lesson.mkdir()
        for name in names[:count]:
            shutil.copy(spotted / name, lesson)
        command("extend", run, "--precision", "fp32", "--good", lesson, "-o", bundle)
        child = scratch / f"part{count}-run"
        replaced = Run(child).facts().lineage[-1].bank_replaced
        taught = f"{category}: {count} taught"
        others = [spotted / name for name in names[count:]]
        found += [
            Figure(
                f"{taught}, others that pass",
                len(others) - rejected(bundle, others),
                f"of {len(others)}",
            ),
            Figure(
                f"{taught}, taught that pass",
                count - rejected(bundle, [spotted / name for name in names[:count]]),
                f"of {count}",
            ),
            Figure(f"{taught}, items replaced", replaced, "of 4096"),
            Figure(f"{taught}, image AUROC", image_auroc(child), ""),
        ]
    return found


def paint(image: npt.NDArray[Any], random: np.random.Generator) -> npt.NDArray[Any]:
    """A round green spot on the middle half of the picture, where the part is."""
    height, width = image.shape[:2]
    centre = (int(random.uniform(0.3, 0.7) * width), int(random.uniform(0.3, 0.7) * height))
    radius = max(4, round(SPOT_SHARE * min(height, width)))
    cv2.circle(image, centre, radius, GREEN, -1, cv2.LINE_AA)
    return image


def rejected(bundle: Path, photos: Sequence[Path]) -> int:
    """How many photos the model rejects, whether or not a station would judge their pictures."""
    detector = Detector.load(bundle, "cpu")
    judgements = (detector.judge(cv2.imread(str(path)), check_picture=False) for path in photos)
    return sum(judgement.verdict is not Verdict.PASS for judgement in judgements)


def image_auroc(run: Path) -> float:
    command("evaluate", run)
    return float(json.loads((run / "evaluation.json").read_text())["image_auroc"])


def command(*words: object) -> None:
    if code := inspector_model([str(word) for word in words]):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
