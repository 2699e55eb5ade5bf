"""Does a limit keep what it promises? Random splits of good parts, and escapes at an oracle limit.

    python -m benchmarks.accuracy.limits DATA_ROOT [--sets bottle,paper] [--splits 100]
        [--bank-items 256]

The good parts of a set, those of its training and test folders together, are split at random:
most of them make a model and its limit, by cross-fitting, and the others are the next parts of a
line. Their rejects are held against the interval that is printed with the limit, for `auto` and for
a named rate that the parts cannot tell. Defective photos give the escapes at each limit and at an
oracle's: the one that rejects the promised share of the next parts. Each photo's features and the
scale are computed once. Models are memory banks without adaptation and of few items, so that 100
splits take minutes: the promise does not depend on how good a model is.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.contaminated import CPU, MEASURED, Index, ignore
from benchmarks.figures import Figure, publish
from export.data.dataset import open_good, open_test
from export.data.layouts import GOOD
from export.data.photos import load_good
from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.settings import TrainSettings
from export.training.calibrate import calibrate, prediction
from export.training.scorer import Scorer

NAMED = 0.005
SIZES = (31, 60, 120)
"""Good parts that make a model, in turn; a set with fewer than twice as many gives half of them."""
MOST_PHOTOS = 250
"""Of each set at most so many good parts are read, and a third as many defective ones."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """One split at one rate: rejects among ``parts`` next ones, and escapes as shares."""

    promised: float
    parts: int
    rejected: int
    inside: bool
    escapes: float
    oracle: float


def splits(data: Path, count: int, items: int, folder: Path) -> tuple[list[Split], list[Split]]:
    """``count`` splits of the good parts of ``data``, at the auto rate and at the named one."""
    settings = TrainSettings(bank_items=items, epochs=0)
    tests = open_test(data)
    random = np.random.default_rng(0)
    good = [*open_good(data), *(sample.path for sample in tests if sample.kind == GOOD)]
    bad = [sample.path for sample in tests if sample.kind != GOOD]
    good = [good[i] for i in random.permutation(len(good))[:MOST_PHOTOS]]
    bad = [bad[i] for i in random.permutation(len(bad))[: MOST_PHOTOS // 3]]
    photos = load_good([*good, *bad], lambda shapes: settings.resolve(shapes).geometry())
    settings = settings.resolve(photos.shapes)
    backbone = Backbone(settings.backbone, settings.strides, settings.scales, settings.weights)
    channels = backbone.channels
    with FeatureCache(
        backbone,
        photos.images,
        device=CPU,
        cache_gb=settings.cache_gb,
        folder=folder,
        on_progress=ignore,
    ) as cache:
        first = np.arange(min(MEASURED, len(good)))
        scale = cfa.measure_scale(settings, channels, lambda: cache.batches(first), CPU)

        def fit(made_of: Index, seed: int) -> Scorer:
            model = cfa.build(
                settings,
                channels,
                lambda: cache.batches(made_of),
                scale=scale,
                seed=seed,
                device=CPU,
            )
            return Scorer(backbone, model, settings, CPU)

        auto: list[Split] = []
        named: list[Split] = []
        for seed in range(count):
            order = np.random.default_rng([seed, 7]).permutation(len(good))
            size = min(SIZES[seed % len(SIZES)], len(good) // 2)
            own, later = order[:size], order[size:]
            folds = np.array_split(own, settings.folds)
            service = fit(own, seed)
            distances = [
                fit(np.setdiff1d(own, fold), seed).distances(cache, fold) for fold in folds
            ]
            service.normaliser, held = service.score_held_out(
                np.concatenate(distances), np.ones(len(own), dtype=bool)
            )
            judged = np.concatenate([later, np.arange(len(good), len(good) + len(bad))])
            scores = service.image_scores(cache, judged)
            following, defects = scores[: len(later)], scores[len(later) :]
            for rate, found in ((None, auto), (NAMED, named)):
                made = calibrate([held], rate)
                low, high = prediction(made.good_rejected, made.good_parts, len(later))
                rejected = int((following >= made.threshold).sum())
                oracle = np.quantile(following, 1.0 - made.target_false_reject)
                found.append(
                    Split(
                        made.target_false_reject,
                        len(later),
                        rejected,
                        low <= rejected <= high,
                        float((defects < made.threshold).mean()),
                        float((defects < oracle).mean()),
                    )
                )
    return auto, named


def figures_of(name: str, found: list[Split]) -> list[Figure]:
    """What all splits of a set, or of all sets, say about one rate."""
    inside = 100.0 * float(np.mean([one.inside for one in found]))
    promised = float(np.mean([one.promised for one in found]))
    rejected = float(np.mean([one.rejected / one.parts for one in found]))
    ratio = rejected / promised
    return [
        Figure(
            f"{name}: rejects inside the printed interval", inside, "of 100", ">= 90", inside >= 90
        ),
        Figure(f"{name}: false rejects promised, mean", promised, ""),
        Figure(f"{name}: false rejects, mean", rejected, ""),
        Figure(f"{name}: false rejects over promised", ratio, "", "<= 1.5", ratio <= 1.5),
        Figure(f"{name}: escapes, mean", float(np.mean([one.escapes for one in found])), "share"),
        Figure(
            f"{name}: escapes at an oracle limit, mean",
            float(np.mean([one.oracle for one in found])),
            "share",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.limits", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", type=Path, help="folder of data sets in MVTec AD layout")
    parser.add_argument("--sets", default="", help="which of them, with commas; default: all")
    parser.add_argument("--splits", type=int, default=100, help="over all sets together")
    parser.add_argument("--bank-items", type=int, default=256)
    options = parser.parse_args()
    names = [name for name in options.sets.split(",") if name] or sorted(
        path.parent.parent.name for path in options.data.glob("*/train/good")
    )
    each = -(-options.splits // len(names))
    figures: list[Figure] = []
    all_auto: list[Split] = []
    all_named: list[Split] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            auto, named = splits(options.data / name, each, options.bank_items, Path(folder))
        figures += figures_of(f"{name}, auto", auto) + figures_of(f"{name}, {NAMED:.1%}", named)
        all_auto += auto
        all_named += named
        print(f"{name}: {len(auto)} splits", flush=True)
    figures = [
        *figures_of("all sets, auto", all_auto),
        *figures_of(f"all sets, {NAMED:.1%}", all_named),
        *figures,
    ]
    publish(
        "limits",
        f"python -m benchmarks.accuracy.limits DATA_ROOT --sets {','.join(names)} --splits "
        f"{options.splits} --bank-items {options.bank_items}",
        figures,
    )


if __name__ == "__main__":
    main()
