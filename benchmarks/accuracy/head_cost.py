"""What a smaller head costs in accuracy: width of φ, items of the bank, stride of the map.

    python -m benchmarks.accuracy.head_cost DATA_ROOT [--categories bottle,screw] [--rounds 30]
    python -m benchmarks.accuracy.head_cost DATA_ROOT --times    # those of the last run once more

Each (γ_d, M, strides) is a memory bank of the good parts without adaptation. What it is worth is
asked twice: of synthetic defects on held-out good parts, as ``train --auto`` does, and of the test
photos. What it costs is its exported graph's time against its own backbone alone, all graphs in
turns. Table, ``results/head_cost.json`` and the curve ``results/head_cost.png``.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import onnxruntime as ort
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.checkout import RESULTS
from benchmarks.figures import commit, machine
from benchmarks.graphs import random_scorer, rounds, session, trunk
from export.bundle.graph import build_graph
from export.data.dataset import open_good, open_test
from export.data.layouts import GOOD
from export.data.photos import load_good, load_sample, photo_shapes
from export.evaluation.metrics import PixelFigures, PixelTally, auroc
from export.model import cfa
from export.model.backbone import Backbone
from export.settings import BANK_ITEMS, TrainSettings
from export.training.auto import MOST_PARTS
from export.training.scorer import Scorer
from export.training.trial import Trial, image_auroc, pixel_auroc
from inspector.files import write_output

mpl.use("Agg")

GAMMAS: Final = (1.0, 1.75, 2.5, 4.0)
ITEMS: Final = (2 * BANK_ITEMS, BANK_ITEMS, BANK_ITEMS // 2)
STRIDES: Final = ((16,), (8, 16))
COST_SIZE: Final = (256, 256)


@dataclass
class Head:
    """One head; figures are means over the categories, AUROC."""

    gamma_d: float
    items: int
    strides: tuple[int, ...]
    cost: float = 0.0
    """Times the backbone alone."""
    image: dict[str, float] = field(default_factory=dict)
    pixel: dict[str, float] = field(default_factory=dict)
    synthetic: dict[str, float] = field(default_factory=dict)
    """Mean of image and pixel AUROC on synthetic defects."""

    def mean(self, what: str) -> float:
        """Of a figure, over the categories."""
        return float(np.mean(list(getattr(self, what).values())))

    def settings(self, **more: object) -> TrainSettings:
        """The product's defaults with this head."""
        return TrainSettings.model_validate(
            {"gamma_d": self.gamma_d, "bank_items": self.items, "strides": self.strides} | more
        )

    @property
    def default(self) -> bool:
        """True for the one the product comes with."""
        return (self.gamma_d, self.items, self.strides) == (1.0, BANK_ITEMS, (16,))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.head_cost", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", help="only these, by name")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", action="store_true", help="keep the accuracy of the last run")
    options = parser.parse_args()
    if options.times:
        document = json.loads((RESULTS / "head_cost.json").read_text())
        heads = [Head(**head | {"strides": tuple(head["strides"])}) for head in document["heads"]]
        time_heads(heads, options.rounds)
        document["times"] = {"commit": commit(), "rounds": options.rounds}
        publish(document, heads)
        return
    names = (
        (options.categories or "").split(",")
        if options.categories
        else sorted(path.parent.name for path in options.data.glob("*/train"))
    )
    heads = [
        Head(gamma, items, strides)
        for strides, gamma, items in itertools.product(STRIDES, GAMMAS, ITEMS)
    ]
    steps = len(names) * (len(STRIDES) + 1) + 1
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("heads", total=steps)
        for name in names:
            ask_synthetic(heads, name, options.data / name, options.seed)
            bar.advance(task)
            for strides in STRIDES:
                same = [head for head in heads if head.strides == strides]
                ask_photos(same, name, options.data / name, options.seed)
                bar.advance(task)
        time_heads(heads, options.rounds)
        bar.advance(task)
    document = {
        "benchmark": "head_cost",
        "command": "python -m benchmarks.accuracy.head_cost DATA_ROOT "
        f"--categories {','.join(names)} --rounds {options.rounds} --seed {options.seed}",
        "commit": commit(),
        "machine": machine() | {"onnxruntime": ort.__version__},
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    publish(document, heads)


def publish(document: dict[str, Any], heads: list[Head]) -> None:
    """Table, JSON and picture."""
    document["heads"] = [asdict(head) for head in heads]
    RESULTS.mkdir(exist_ok=True)
    write_output(RESULTS / "head_cost.json", json.dumps(document, indent=2) + "\n")
    draw(heads, RESULTS / "head_cost.png")
    show(heads)


def ask_synthetic(heads: list[Head], name: str, data: Path, seed: int) -> None:
    """Held-out good parts against the same with a defect drawn on them."""
    paths = open_good(data)
    options = [head.settings(seed=seed).resolve(photo_shapes(paths)) for head in heads]
    random = np.random.default_rng([seed, 3])
    sampled = np.sort(random.permutation(len(paths))[:MOST_PARTS])
    trial = Trial([paths[i] for i in sampled], options, random, on_step=quiet)
    weights = np.ones((1, len(trial.held)))
    for head, answers in zip(heads, trial.run(), strict=True):
        image, pixel = (
            float(measure(answers, trial.part, trial.kind, weights)[0])
            for measure in (image_auroc, pixel_auroc)
        )
        head.synthetic[name] = 0.5 * (image + pixel)


@torch.no_grad()
def ask_photos(heads: list[Head], name: str, data: Path, seed: int) -> None:
    """The test photos; ``heads`` share their strides."""
    paths = open_good(data)
    settings = heads[0].settings(seed=seed).resolve(photo_shapes(paths))
    device = torch.device("cpu")
    backbone = Backbone(settings.backbone, settings.strides, settings.scales, settings.weights)
    parts = load_good(paths, settings.geometry(), quiet)
    good = features(backbone, list(parts.images))
    loaded = [(sample.kind, load_sample(sample, parts.geometry)) for sample in open_test(data)]
    tested = features(backbone, [one.image for _, one in loaded])
    scale = cfa.FeatureScale.measure(iter(good), backbone.channels)
    for _, group in itertools.groupby(heads, lambda head: head.gamma_d):
        same = list(group)
        widest = max(same, key=lambda head: head.items)
        model = cfa.build(
            widest.settings(seed=seed).resolve(photo_shapes(paths)),
            backbone.channels,
            lambda: iter(good),
            scale=scale,
            seed=seed,
            device=device,
        )
        whole = model.bank
        for head in same:
            model.bank = whole[: head.items]
            scorer = Scorer(backbone, model, settings, device)
            scores: dict[bool, list[float]] = defaultdict(list)
            tally = PixelTally()
            maps = (one for levels in tested for one in scorer.maps(levels).numpy())
            for (kind, one), heat in zip(loaded, maps, strict=True):
                scores[kind == GOOD].append(float(heat.max()))
                if one.mask is not None:
                    tally.add(heat[one.inner], one.mask[one.inner])
            head.image[name] = auroc(scores[True], scores[False]) or 0.0
            head.pixel[name] = pixel_figure(tally.figures())


def quiet(*_: object) -> None:
    """Progress is told by the bar of all heads."""


def pixel_figure(figures: PixelFigures) -> float:
    """Pixel AUROC, 0 when undefined."""
    return figures.auroc or 0.0


def features(backbone: Backbone, images: list[np.ndarray]) -> list[cfa.Levels]:
    """Pooled features, eight pictures at a time."""
    device = torch.device("cpu")
    return [
        cfa.pool(backbone.maps(np.stack(images[start : start + 8]), device))
        for start in range(0, len(images), 8)
    ]


def time_heads(heads: list[Head], count: int) -> None:
    """Each head's graph against the bare backbone, in turns."""
    sessions = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, head in enumerate(heads):
            scorer, _ = random_scorer(head.settings(size=COST_SIZE), Path(scratch))
            graph = build_graph(scorer, precision="fp32")
            sessions[str(number)] = session(graph, 0)
            if number == 0:
                sessions["backbone"] = session(trunk(graph), 0)
    found = rounds(sessions, np.zeros((*COST_SIZE, 3), dtype=np.uint8), count)
    alone = float(np.median(found.pop("backbone")))
    for name, times in found.items():
        heads[int(name)].cost = float(np.median(times)) / alone


def show(heads: list[Head]) -> None:
    """The heads, cheapest first."""
    table = Table("γ_d", "items", "strides", "× backbone", "synthetic", "image", "pixel", "")
    for head in sorted(heads, key=lambda head: head.cost):
        table.add_row(
            f"{head.gamma_d:g}",
            str(head.items),
            ", ".join(map(str, head.strides)),
            f"{head.cost:.2f}",
            *(f"{head.mean(what):.4f}" for what in ("synthetic", "image", "pixel")),
            "default" if head.default else "",
        )
    Console().print(table)


def draw(heads: list[Head], path: Path) -> None:
    """Accuracy against cost; a line for each bank size and stride, a mark a γ_d."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for plot, what in zip(axes, ("synthetic", "image", "pixel"), strict=True):
        for strides, items in itertools.product(STRIDES, ITEMS):
            line = [head for head in heads if (head.strides, head.items) == (strides, items)]
            plot.plot(
                [head.cost for head in line],
                [head.mean(what) for head in line],
                marker="o" if strides == (16,) else "s",
                label=f"stride {', '.join(map(str, strides))}, {items} items",
            )
        chosen = next(head for head in heads if head.default)
        plot.plot(chosen.cost, chosen.mean(what), "k*", markersize=14, label="default")
        plot.set_xlabel("time of the model / its backbone alone")
        plot.set_ylabel(f"{what} AUROC, mean of categories")
    axes[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
