"""What is asked to be measured: options, categories, backbones, and cells of these."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError

from benchmarks.accuracy.methods import METHODS, OURS, Method
from benchmarks.checkout import RESULTS
from export.data.dataset import Sample, fingerprint, open_good, open_test
from export.data.photo_folders import list_photos
from export.data.photos import load_sample
from export.model.backbone import SPECS, Backbone
from export.settings import BackboneName, TrainSettings, typed
from export.training.auto import given
from inspector.config.yaml_file import in_words
from inspector.errors import ConfigError, DatasetError, WeightsError
from inspector.imaging import folders
from inspector.imaging.geometry import Geometry

DEFAULT_BACKBONES = ("efficientnet_lite0", "resnet18", "wide_resnet50_2")
NOT_SETTABLE = {"seed": "--seeds", "false_reject": "--false-reject", "backbone": "--backbones"}

Overrides = dict[str, Any]


@dataclass(frozen=True)
class Category:
    """A folder in MVTec AD layout; ``digest`` is of all its photos and masks."""

    name: str
    root: Path
    samples: tuple[Sample, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of the table: a method, or a variant of ours, with its own settings."""

    name: str
    method: str
    overrides: Overrides

    def settings(self, shared: Overrides) -> TrainSettings:
        made = METHODS[self.method].settings(validate({**shared}, self.name))
        return validate({**explicit(made), **self.overrides}, self.name)


@dataclass(frozen=True)
class Cell:
    """One figure to measure: entry on category with a backbone and a seed (in ``settings``)."""

    category: Category
    entry: Entry
    settings: TrainSettings
    weights_sha256: str

    @property
    def method(self) -> Method:
        return METHODS[self.entry.method]

    def __str__(self) -> str:
        chosen = self.settings
        return f"{self.category.name}, {chosen.backbone}, {self.entry.name}, seed {chosen.seed}"

    def spec(self) -> dict[str, Any]:
        """What the figures hang on beside the code. The name of a variant is not part of it."""
        dumped = self.settings.model_dump(mode="json")
        spec = {
            "data": self.category.digest,
            "method": self.entry.method,
            "settings": {key: dumped[key] for key in sorted(self.method.uses)},
            "weights": self.weights_sha256,
        }
        if self.method.chooses:
            # A setting that is given stays, even where it is the default.
            spec["given"] = sorted(self.method.chooses.intersection(given(self.settings)))
        return spec


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description="How well defects are told from good parts: image and pixel AUROC and more.",
        allow_abbrev=False,
        epilog="Methods: " + ", ".join(METHODS) + ".",
    )
    made.add_argument("data", type=Path, metavar="DATA_ROOT")
    made.add_argument("--categories", type=names, help="only these, by name")
    made.add_argument("--methods", type=names, help="only these methods and variants")
    made.add_argument(
        "--seeds",
        type=seeds,
        default=(0, 1, 2),
        help="how many, or a list such as 0,2 (one seed: 4,) [3]; rivals take the first only",
    )
    made.add_argument(
        "--backbones", type=names, default=DEFAULT_BACKBONES, help="those without weights here skip"
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[METHOD:]KEY=VALUE",
        help="a training setting, for ours and the rivals' features; or for one method alone",
    )
    made.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,...",
        help="our method under a name of its own, with these settings on top",
    )
    made.add_argument("--false-reject", default="1%", help="every method's target, or auto [1%%]")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    made.add_argument("--work", type=Path, default=cache / "line-inspector" / "accuracy")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of accuracy.md, json, png")
    made.add_argument("--again", action="store_true", help="measure anew what is there already")
    made.add_argument(
        "--any-code", action="store_true", help="reuse cells of other versions of the code too"
    )
    return made


def plan(options: argparse.Namespace) -> tuple[list[Entry], Overrides]:
    """The table's rows, and the settings that all share. Raises :class:`ConfigError`."""
    shared: Overrides = {"false_reject": options.false_reject, "device": options.device}
    own: dict[str, Overrides] = {name: {} for name in METHODS}
    for text in options.set:
        method, colon, rest = text.partition(":")
        scoped = bool(colon) and "=" not in method
        if scoped and method not in METHODS:
            raise ConfigError(f"--set {text}: no method {method}; there are {', '.join(METHODS)}")
        (own[method] if scoped else shared).update(pairs(rest if scoped else text, "--set"))
    entries = [Entry(name, name, own[name]) for name in METHODS]
    for text in options.variant:
        name, colon, rest = text.partition(":")
        if not colon or not re.fullmatch(r"[\w.+-]+", name):
            raise ConfigError(f"--variant {text}: expected NAME:KEY=VALUE,KEY=VALUE")
        if name in {entry.name for entry in entries}:
            raise ConfigError(f"--variant {name}: is the name of another row")
        entries.append(Entry(name, OURS, {**own[OURS], **pairs(rest, f"--variant {name}")}))
    if options.methods:
        entries = choose(entries, options.methods, lambda entry: entry.name, "--methods")
    for entry in entries:
        entry.settings(shared)
    # As numbers: 1%, 0.01 and 1.0% are one target.
    shared["false_reject"] = validate(shared, "--false-reject").false_reject
    return entries, shared


def pairs(text: str, flag: str) -> Overrides:
    """``"size=512,strides=4,8,16"`` → {"size": "512", "strides": "4,8,16"}."""
    found: Overrides = {}
    for pair in re.split(r",(?=[a-z_]+=)", text):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{flag}: expected KEY=VALUE (found {pair!r})")
        if key in NOT_SETTABLE:
            raise ConfigError(f"{flag}: {key} is set by {NOT_SETTABLE[key]}")
        if key not in TrainSettings.model_fields:
            known = ", ".join(TrainSettings.model_fields)
            raise ConfigError(f"{flag}: no setting {key}; there are {known}")
        found[key] = None if value.lower() == "none" else value
    return found


def validate(given: Overrides, what: str) -> TrainSettings:
    """Raises :class:`ConfigError` in words."""
    try:
        return TrainSettings.model_validate({key: typed(key, one) for key, one in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{first['loc'][0]}: " if first["loc"] else ""
        raise ConfigError(f"{what}: {key}{in_words(first)}") from None


def explicit(made: TrainSettings) -> Overrides:
    return {key: getattr(made, key) for key in made.model_fields_set}


def plan_cells(
    category: Category,
    networks: dict[str, str],
    entries: list[Entry],
    shared: Overrides,
    chosen_seeds: Sequence[int],
) -> list[Cell]:
    cells = []
    for network, digest in networks.items():
        for entry in entries:
            every = METHODS[entry.method].every_seed
            for seed in chosen_seeds if every else chosen_seeds[:1]:
                made = entry.settings({**shared, "backbone": network, "seed": seed})
                cells.append(Cell(category, entry, made, digest))
    return cells


def find_categories(root: Path, wanted: Sequence[str] | None) -> list[Category]:
    """Folders with ``train/good`` at or below ``root``. Raises :class:`DatasetError`."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; name one that holds MVTec AD categories")
    found: list[Category] = []
    try:
        for folder, below, _ in folders.walk(root):
            if (folder / "train" / "good").is_dir():
                below.clear()
                name = folder.relative_to(root).as_posix()
                found.append(Category(root.resolve().name if name == "." else name, folder))
    except OSError as error:
        raise DatasetError(
            f"{error.filename}: {error.strerror}; make the folder readable"
        ) from None
    if not found:
        raise DatasetError(
            f"{root}: no category in MVTec AD layout (train/good, test/<kind>, ground_truth/<kind>)"
        )
    if wanted:
        return choose(found, wanted, lambda category: category.name, "--categories")
    return found


def load(category: Category) -> Category:
    """With its test photos' names and its digest. Raises :class:`TrainingError` of some kind.

    Damaged test photos and masks are found here, not after hours of training.
    """
    samples = open_test(category.root)
    if not samples:
        raise DatasetError(f"{category.root}: no photos under test; nothing to measure")
    for sample in samples:
        load_sample(sample, Geometry(height=64, width=64))
    masks = [
        mask
        for sample in samples
        if sample.mask is not None
        for mask in (list_photos(sample.mask) if sample.mask.is_dir() else [sample.mask])
    ]
    paths = [*open_good(category.root), *(sample.path for sample in samples), *masks]
    return replace(category, samples=samples, digest=fingerprint(paths, category.root))


def find_backbones(wanted: Sequence[str], shared: Overrides) -> tuple[dict[str, str], list[str]]:
    """SHA-256 of the weights of those at hand, and a line for each that is not."""
    networks: dict[str, str] = {}
    skipped = []
    for name in wanted:
        if name not in get_args(BackboneName):
            known = ", ".join(get_args(BackboneName))
            raise ConfigError(f"--backbones: no backbone {name}; there are {known}")
        made = validate({**shared, "backbone": name}, "--set")
        try:
            in_a_package = SPECS[name].weights.endswith("-pytorch-model")
            if made.weights is None and not in_a_package:
                # It takes seconds to import, which the networks in packages do without.
                from torchvision import models

                # Looked for here first: a benchmark downloads nothing by itself.
                file = Path(models.get_model_weights(name).IMAGENET1K_V1.url).name
                if not (Path(torch.hub.get_dir()) / "checkpoints" / file).exists():
                    raise WeightsError(f"{file} is not in $TORCH_HOME/hub/checkpoints")
            networks[name] = Backbone(
                made.backbone, made.strides, made.scales, made.weights
            ).weights_sha256
        except WeightsError as error:
            skipped.append(f"{name} skipped: {shorten(str(error), made.weights, '')}")
    return networks, skipped


def shorten(text: str, path: Path | None, shown: str) -> str:
    """``text`` without this machine's folders: ``path`` becomes ``shown``, or its bare name."""
    if path is None:
        return text
    shown = shown or path.name
    return text.replace(str(path.resolve()), shown).replace(str(path), shown)


def names(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError("expected names, separated by commas")
    return found


def seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts if part) or not parts[0]:
        raise argparse.ArgumentTypeError("expected a number of seeds, or a list such as 0,1,2")
    if len(parts) == 1:
        if int(parts[0]) < 1:
            raise argparse.ArgumentTypeError("at least one seed is needed")
        return tuple(range(int(parts[0])))
    return tuple(dict.fromkeys(int(part) for part in parts if part))


def choose(
    things: list[Any], wanted: Sequence[str], name_of: Callable[[Any], str], flag: str
) -> list[Any]:
    known = {name_of(thing): thing for thing in things}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{flag}: no {name}; there are {', '.join(known)}")
    return [thing for name, thing in known.items() if name in wanted]


def command(options: argparse.Namespace) -> str:
    """The command that gives these results, without this machine's folders."""
    words = ["python -m benchmarks.accuracy DATA_ROOT"]
    if options.categories:
        words.append(f"--categories {','.join(options.categories)}")
    if options.methods:
        words.append(f"--methods {','.join(options.methods)}")
    words.append(f"--seeds {','.join(map(str, options.seeds))}{',' * (len(options.seeds) == 1)}")
    words.append(f"--backbones {','.join(options.backbones)}")
    for text in options.set:
        # Only a file's place is this machine's.
        kept = [pair for pair in text.split(",") if "weights=" not in pair]
        words += [f"--set {','.join(kept)}"] if kept else []
    words += [f"--variant {text}" for text in options.variant]
    words += ["--any-code"] * options.any_code
    return " ".join([*words, f"--false-reject {options.false_reject}"])
