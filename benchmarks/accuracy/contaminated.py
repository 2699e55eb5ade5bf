"""Defective photos among the good parts: are they named, and what do they cost if they stay?

    python -m benchmarks.accuracy.contaminated DATA [--draws 20] [--photos 50] [--bank-items 512]

DATA is a category in MVTec AD layout. In each draw 1, 2 and 4 of its defective test photos are put
among random good parts. The rule of export/training/outliers.py names suspects; the model and its
limit are made with the defects, without them, and without the suspects. Each photo's features are
computed once, and so is their scale. Models are memory banks without adaptation, of fewer items
than the default, so that 60 draws take minutes; held-out scores, comparison, rule and limit are
the product's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.figures import Figure, publish
from export.data.dataset import open_good, open_test
from export.data.layouts import GOOD
from export.data.photos import load_good
from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.settings import TrainSettings
from export.training import outliers
from export.training.calibrate import calibrate
from export.training.scorer import Scorer

DEFECTS = (1, 2, 4)
MEASURED = 50
"""Good parts by which the feature scale is measured, once for all draws."""
Index = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
CPU = torch.device("cpu")


def ignore(_done: int, _total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Fitted:
    """Held-out scores of the parts it was made of, the auto limit, scores of all defects."""

    held_out: Floats
    limit: float
    defects: Floats
    model: cfa.CFA


class Bench:
    """Features of all good parts, then of all defective photos, and models of some of them."""

    def __init__(self, data: Path, settings: TrainSettings, folder: Path) -> None:
        good = open_good(data)
        bad = [sample.path for sample in open_test(data) if sample.kind != GOOD]
        photos = load_good([*good, *bad], lambda shapes: settings.resolve(shapes).geometry())
        self.settings = settings.resolve(photos.shapes)
        self.good, self.defects = np.arange(len(good)), len(good) + np.arange(len(bad))
        self.backbone = Backbone(
            settings.backbone, settings.strides, settings.scales, settings.weights
        )
        self.cache = FeatureCache(
            self.backbone,
            photos.images,
            device=CPU,
            cache_gb=settings.cache_gb,
            folder=folder,
            on_progress=ignore,
        )

        self.scale = cfa.measure_scale(
            self.settings,
            self.backbone.channels,
            lambda: self.cache.batches(self.good[:MEASURED]),
            CPU,
        )

    def fit(self, parts: Index, seed: int) -> Fitted:
        """Cross-fit ``parts`` and make the model in service."""
        settings, channels = self.settings, self.backbone.channels
        features = self.cache.only(parts)
        everything = np.arange(len(parts))

        def build(some: Index) -> Scorer:
            model = cfa.build(
                settings,
                channels,
                lambda: features.batches(some),
                scale=self.scale,
                seed=seed,
                device=CPU,
            )
            return Scorer(self.backbone, model, settings, CPU)

        distances = np.empty((len(parts), *settings.grid), dtype=np.float32)
        order = np.random.default_rng([seed, 1]).permutation(len(parts))
        for fold in np.array_split(order, settings.folds):
            tester = build(np.setdiff1d(everything, fold))
            distances[fold] = tester.distances(features, fold)
        service = build(everything)
        service.normaliser, held_out = service.score_held_out(
            distances, np.ones(len(parts), dtype=bool)
        )
        limit = calibrate([held_out], None).threshold
        return Fitted(
            held_out, limit, service.image_scores(self.cache, self.defects), service.model
        )

    def suspects(self, parts: Index, fitted: Fitted) -> set[int]:
        """The parts that the product's rule names."""
        comparison = outliers.Comparison(
            fitted.model,
            self.cache.only(parts),
            np.arange(len(parts)),
            self.settings,
            ignore,
        )
        found = outliers.find_suspects(
            [str(part) for part in parts], fitted.held_out, comparison.scores
        )
        return {int(suspect.name) for suspect in found}


@dataclass(frozen=True)
class Draw:
    """One draw. Escapes are among the defects that were not put among the good parts."""

    above: int
    above_named: int
    named: int
    good_named: int
    clean_limit: float
    limit: float
    after_limit: float
    others: int
    escapes: int
    escapes_after: int
    escapes_clean: int


def draw(bench: Bench, clean: Fitted, good: Index, bad: Index, seed: int) -> Draw:
    """Put ``bad`` among ``good``; ``clean`` is the model of ``good`` alone."""
    parts = np.concatenate([good, bad])
    soiled = bench.fit(parts, seed)
    named = bench.suspects(parts, soiled)
    kept = np.array([part for part in parts if part not in named])
    after = clean if set(kept) == set(good) else bench.fit(kept, seed)
    above = {int(part) for part in bad if clean.defects[part - bench.defects[0]] >= clean.limit}
    others = ~np.isin(bench.defects, bad)

    def escapes(fitted: Fitted) -> int:
        return int((fitted.defects[others] < fitted.limit).sum())

    return Draw(
        len(above),
        len(above & named),
        len(named & set(bad.tolist())),
        len(named & set(good.tolist())),
        clean.limit,
        soiled.limit,
        after.limit,
        int(others.sum()),
        escapes(soiled),
        escapes(after),
        escapes(clean),
    )


def figures_of(count: int, draws: Sequence[Draw]) -> list[Figure]:
    """The figures of all draws with ``count`` defective photos."""
    name = f"{count} defective"
    above = sum(one.above for one in draws)
    share = sum(one.above_named for one in draws) / max(above, 1)
    beside = float(np.median([one.good_named for one in draws]))
    others = sum(one.others for one in draws)
    return [
        Figure(
            f"{name}: named of those above the clean limit",
            share,
            f"of {above}",
            ">= 0.9",
            share >= 0.9,
        ),
        Figure(f"{name}: named", sum(one.named for one in draws), f"of {count * len(draws)}"),
        Figure(f"{name}: good parts named beside, median", beside, "parts", "<= 1", beside <= 1),
        Figure(
            f"{name}: good parts named beside, most", max(one.good_named for one in draws), "parts"
        ),
        Figure(
            f"{name}: limit over the clean one, median",
            float(np.median([one.limit / one.clean_limit for one in draws])),
            "",
        ),
        Figure(
            f"{name}: the same without the suspects",
            float(np.median([one.after_limit / one.clean_limit for one in draws])),
            "",
        ),
        Figure(f"{name}: escapes with them", sum(one.escapes for one in draws) / others, "share"),
        Figure(
            f"{name}: escapes without the suspects",
            sum(one.escapes_after for one in draws) / others,
            "share",
        ),
        Figure(
            f"{name}: escapes of the clean model",
            sum(one.escapes_clean for one in draws) / others,
            "share",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.contaminated", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--photos", type=int, default=50, help="good parts in each draw")
    parser.add_argument("--bank-items", type=int, default=512)
    options = parser.parse_args()
    settings = TrainSettings(bank_items=options.bank_items, epochs=0)
    found: dict[int, list[Draw]] = {count: [] for count in DEFECTS}
    none_named: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.data, settings, Path(folder))
        for seed in range(options.draws):
            random = np.random.default_rng(seed)
            good = np.sort(random.permutation(bench.good)[: options.photos])
            clean = bench.fit(good, seed)
            none_named.append(len(bench.suspects(good, clean)))
            bad = random.permutation(bench.defects)
            for count in DEFECTS:
                one = draw(bench, clean, good, np.sort(bad[:count]), seed)
                found[count].append(one)
                print(f"draw {seed}, {count} defective: {one}", flush=True)
    none = float(np.median(none_named))
    figures = [
        Figure("no defective photo: good parts named, median", none, "parts", "<= 1", none <= 1)
    ]
    for count, draws in found.items():
        figures += figures_of(count, draws)
    publish(
        "contaminated",
        f"python -m benchmarks.accuracy.contaminated DATA_ROOT/{options.data.name} --draws "
        f"{options.draws} --photos {options.photos} --bank-items {options.bank_items}",
        figures,
    )


if __name__ == "__main__":
    main()
