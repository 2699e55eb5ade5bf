"""``simulate``: draw a data set of simulated parts, in the folder layout of MVTec AD."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from inspector.cameras.simulated import families
from inspector.cameras.simulated.conveyor import GOOD, Domain
from inspector.cameras.simulated.scene import Conditions, SimulatedPart
from inspector.cli.arguments import count, whole
from inspector.errors import OutputError
from inspector.files import output_errors, whole_folder
from inspector.imaging.images import encode_png
from inspector.progress import QUICK_S, Bars
from inspector.tables import Terminal, print_next


@dataclass(frozen=True)
class _Item:
    path: Path
    domain: Domain
    index: int
    kind: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``simulate``."""
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--good", type=count, default=200, help="good parts to train with")
    parser.add_argument("--test-good", type=whole, default=40, help="good parts to test with")
    parser.add_argument("--defective", type=whole, default=60, help="defective parts")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument(
        "--family",
        choices=families.NAMES,
        default=families.FLANGE,
        help="; ".join(f"{name}: {families.describe(name)}" for name in families.NAMES)
        + " [%(default)s]",
    )
    parser.add_argument(
        "--position-noise",
        type=position_noise,
        default={},
        metavar="PX|deg",
        help="how far good parts lie shifted and turned at most: 10px, 5deg or 10px,5deg [as the "
        "family's parts do]",
    )
    for name, what in (
        ("texture", "texture differs"),
        ("light", "light differs in level and gradient"),
    ):
        parser.add_argument(
            f"--{name}",
            type=factor,
            default=1.0,
            metavar="X",
            help=f"how much good parts' {what}: 0 not at all, 1 as usual, 2 twice as much",
        )


def run(options: argparse.Namespace) -> int:
    """Draw the data set; 0. Raises :class:`OutputError`."""
    usual = families.conditions(options.family)
    conditions = replace(
        usual, texture=options.texture, light=options.light, **options.position_noise
    )
    write_dataset(
        options.out,
        good=options.good,
        test_good=options.test_good,
        defective=options.defective,
        seed=options.seed,
        family=options.family,
        conditions=conditions,
    )
    print(
        f"{options.out}: {options.good} good parts to train with, {options.test_good} good and "
        f"{options.defective} defective ones to test with"
    )
    print_next("inspector-model", "train", options.out, "-o", "run")
    return 0


def write_dataset(
    out: Path,
    good: int = 200,
    test_good: int = 40,
    defective: int = 60,
    seed: int = 0,
    *,
    family: str = families.FLANGE,
    conditions: Conditions | None = None,
) -> None:
    """Draw ``train/good``, ``test/<kind>`` and ``ground_truth/<kind>`` under ``out``.

    Parts are of ``family`` and differ as ``conditions`` say, None: as its parts usually do. The
    kinds of defect take turns over the ``defective`` parts. The folder appears only when it is
    complete. Raises :class:`OutputError` when ``out`` is not empty or cannot be written.
    """
    differ = conditions or families.conditions(family)
    with output_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"{out}: exists and is not an empty folder; choose another one")
        out.parent.mkdir(parents=True, exist_ok=True)
        stderr = Terminal(stderr=True)
        bar = Bars(*Bars.get_default_columns(), console=stderr, transient=True, quick_s=QUICK_S)
        with whole_folder(out) as folder, bar:
            items = list(_items(folder, (good, test_good, defective), families.defects(family)))
            for item in bar.track(items, description="drawing parts"):
                part = families.draw_part(
                    family,
                    differ,
                    seed=seed,
                    index=item.index,
                    kind=item.kind,
                    domain=item.domain,
                )
                _write(folder, item, part)


def position_noise(text: str) -> dict[str, float]:
    """``10px``, ``5deg`` or both with a comma, as fields of ``Conditions``.

    Raises ArgumentTypeError.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(px|deg)\s*", part)
        key, most = ("turn_deg", 180.0) if match and match[2] == "deg" else ("shift_px", 60.0)
        if match is None or key in found or float(match[1]) > most:
            raise argparse.ArgumentTypeError(
                f"'{text}' is no position noise; give pixels up to 60px, degrees up to 180deg, or "
                f"both, such as 10px,5deg"
            )
        found[key] = float(match[1])
    return found


def factor(text: str) -> float:
    """A number from 0 to 4. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 4.0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 to 4")
    return value


def _items(root: Path, counts: tuple[int, int, int], kinds: tuple[str, ...]) -> Iterator[_Item]:
    good, test_good, defective = counts
    for index in range(good):
        yield _Item(root / f"train/good/{index:03d}.png", Domain.TRAIN_GOOD, index, GOOD)
    for index in range(test_good):
        yield _Item(root / f"test/good/{index:03d}.png", Domain.TEST_GOOD, index, GOOD)
    for index in range(defective):
        kind, number = kinds[index % len(kinds)], index // len(kinds)
        path = root / f"test/{kind}/{number:03d}.png"
        yield _Item(path, Domain.TEST_DEFECTIVE, index, kind)


def _write(root: Path, item: _Item, part: SimulatedPart) -> None:
    item.path.parent.mkdir(parents=True, exist_ok=True)
    item.path.write_bytes(encode_png(part.image))
    if item.kind == GOOD:
        return
    mask = root / "ground_truth" / item.kind / f"{item.path.stem}_mask.png"
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.write_bytes(encode_png(part.mask.astype("uint8") * 255))
