"""``simulate``: draw a data set of simulated parts, in the folder layout of MVTec AD."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from inspector.cameras.simulated import conveyor as simulator
from inspector.cameras.simulated.conveyor import Domain, SimulatedPart
from inspector.cli.arguments import count, whole
from inspector.errors import OutputError
from inspector.files import output_errors, whole_folder
from inspector.imaging.images import encode_png
from inspector.progress import QUICK_S, Bars
from inspector.tables import print_next


@dataclass(frozen=True)
class _Item:
    path: Path
    domain: Domain
    index: int
    kind: str

    def draw(self, seed: int) -> SimulatedPart:
        return simulator.draw_kind(seed, self.index, self.kind, self.domain)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``simulate``."""
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--good", type=count, default=200, help="good parts to train with")
    parser.add_argument("--test-good", type=whole, default=40, help="good parts to test with")
    parser.add_argument("--defective", type=whole, default=60, help="defective parts")
    parser.add_argument("--seed", type=whole, default=0)


def run(options: argparse.Namespace) -> int:
    """Draw the data set; 0. Raises :class:`OutputError`."""
    write_dataset(
        options.out,
        good=options.good,
        test_good=options.test_good,
        defective=options.defective,
        seed=options.seed,
    )
    print(
        f"{options.out}: {options.good} good parts to train with, {options.test_good} good and "
        f"{options.defective} defective ones to test with"
    )
    print_next("inspector-model", "train", options.out, "-o", "run")
    return 0


def write_dataset(
    out: Path, good: int = 200, test_good: int = 40, defective: int = 60, seed: int = 0
) -> None:
    """Draw ``train/good``, ``test/<kind>`` and ``ground_truth/<kind>`` under ``out``.

    The kinds of defect take turns over the ``defective`` parts. The folder appears only when it is
    complete. Raises :class:`OutputError` when ``out`` is not empty or cannot be written.
    """
    with output_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"{out}: exists and is not an empty folder; choose another one")
        out.parent.mkdir(parents=True, exist_ok=True)
        stderr = Console(stderr=True)
        bar = Bars(*Bars.get_default_columns(), console=stderr, transient=True, quick_s=QUICK_S)
        with whole_folder(out) as folder, bar:
            items = list(_items(folder, good, test_good, defective))
            for item in bar.track(items, description="drawing parts"):
                _write(folder, item, item.draw(seed))


def _items(root: Path, good: int, test_good: int, defective: int) -> Iterator[_Item]:
    for index in range(good):
        yield _Item(root / f"train/good/{index:03d}.png", Domain.TRAIN_GOOD, index, simulator.GOOD)
    for index in range(test_good):
        yield _Item(root / f"test/good/{index:03d}.png", Domain.TEST_GOOD, index, simulator.GOOD)
    kinds = simulator.DEFECTS
    for index in range(defective):
        kind, number = kinds[index % len(kinds)], index // len(kinds)
        path = root / f"test/{kind}/{number:03d}.png"
        yield _Item(path, Domain.TEST_DEFECTIVE, index, kind)


def _write(root: Path, item: _Item, part: SimulatedPart) -> None:
    item.path.parent.mkdir(parents=True, exist_ok=True)
    item.path.write_bytes(encode_png(part.image))
    if item.kind == simulator.GOOD:
        return
    mask = root / "ground_truth" / item.kind / f"{item.path.stem}_mask.png"
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.write_bytes(encode_png(part.mask.astype("uint8") * 255))
