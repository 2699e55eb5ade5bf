"""A trial of settings: parts held out of a small memory bank, and defects drawn on them."""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch

from export.data.dataset import FEWEST_GOOD_PARTS
from export.data.photos import MOST_KEPT, Index, KeptFiles, group_copies
from export.data.synthetic import defective, left_out
from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.settings import SCALES, TrainSettings, round_side
from export.training.train import OnStep, Step, pick_device
from inspector.errors import TooFewPartsError
from inspector.imaging.geometry import Box, Geometry
from inspector.verdict import Frame8

Floats = npt.NDArray[np.float64]
Slices = tuple[slice, slice]

CHOOSING: Final = "choosing settings"

HOLD_OUT_SHARE: Final = 0.25
FEWEST_HELD_OUT: Final = 5
WANTED_DEFECTS: Final = 84
"""Six of each kind, where every kind shows."""
MOST_DEFECTS_A_PART: Final = 10
"""So many kinds show on any photo, so that a part hardly gets one of them twice."""

_JUDGED_PX = 256
"""Longest side of the grid on which the maps of all candidates are compared."""

_BINS = 2048


@dataclass(frozen=True)
class Answers:
    """A candidate's scores of the P held-out parts and of the J defects drawn on them.

    ``clean`` ``[P]`` and ``spoiled`` ``[J]`` are scores. ``good_pixels`` ``[P, bins]`` counts the
    good pixels of all pictures of a part by rising score; ``defect_pixels`` ``[J, bins]`` is the
    share of a defect's pixels, each row adding up to 1.
    """

    clean: Floats
    spoiled: Floats
    good_pixels: Floats
    defect_pixels: Floats


class Trial:
    """The same pictures for every candidate of ``options``.

    ``bank`` and ``held`` index ``paths``; ``part`` and ``kind``, both ``[J]``, give each defect's
    held-out part and kind; ``left_out`` names the kinds that could not be drawn on these photos.
    Raises :class:`TrainingError`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        options: Sequence[TrainSettings],
        random: np.random.Generator,
        on_step: OnStep,
    ) -> None:
        self.options = options
        first = options[0]
        self.device = pick_device(first.device)
        strides = tuple(sorted({stride for option in options for stride in option.strides}))
        scales = tuple(s for s in SCALES if any(s in option.scales for option in options))
        self.backbone = Backbone(first.backbone, strides, scales, first.weights).to(self.device)
        photos = _Photos(paths, first.region, KeptFiles(MOST_KEPT))
        inputs = {_input(option) for option in options}
        heads = [key for key, _ in itertools.groupby(options, _bank)]
        most = len(paths) + WANTED_DEFECTS
        self._bar = _Bar(on_step, most * (1 + 2 * len(inputs) + len(heads)))
        self._images: dict[Geometry, list[Frame8]] = {geometry: [] for geometry in inputs}
        self._inner: dict[Geometry, list[Slices]] = {geometry: [] for geometry in inputs}
        scale = min(1.0, _JUDGED_PX / max(first.input))
        height, width = (round_side(side * scale) for side in first.input)
        self._grid = Geometry(height=height, width=width)
        self.bank, self.held = self._split(photos, random)
        self.part, kinds, self._masks = self._spoil(photos, first.seed)
        self.left_out = left_out(kinds)
        _, self.kind = np.unique(kinds, return_inverse=True)

    def run(self) -> list[Answers]:
        """Every candidate's answers, in order."""
        found: list[Answers] = []
        with tempfile.TemporaryDirectory() as folder:
            for geometry, group in itertools.groupby(self.options, _input):
                with FeatureCache(
                    self.backbone,
                    np.stack(self._images.pop(geometry)),
                    device=self.device,
                    cache_gb=self.options[0].cache_gb,
                    folder=Path(folder),
                    on_progress=self._bar.follow(2, _name(geometry)),
                ) as cache:
                    for _, same in itertools.groupby(group, _bank):
                        found += self._try(list(same), cache, geometry)
                        self._bar.add(len(cache), _name(geometry))
        self._bar.finish()
        return found

    def _split(self, photos: _Photos, random: np.random.Generator) -> tuple[Index, Index]:
        """Read all parts; returns the indices of the bank's parts and of the held-out ones."""
        picture = group_copies(self._read_all(photos))
        groups = random.permutation(int(picture.max()) + 1)
        if len(groups) < FEWEST_GOOD_PARTS:
            raise TooFewPartsError(
                f"{photos.paths[0].parent}: of {len(picture)} good parts only {len(groups)} "
                f"differ, at least {FEWEST_GOOD_PARTS} are needed; photograph different parts"
            )
        count = max(FEWEST_HELD_OUT, round(HOLD_OUT_SHARE * len(groups)))
        held = np.isin(picture, groups[:count])
        return np.flatnonzero(~held), np.flatnonzero(held)

    def _read_all(self, photos: _Photos) -> Iterator[Frame8]:
        for photo in photos:
            self._take(photo)
            self._bar.add(1, "good parts")
            yield photo

    def _spoil(self, photos: _Photos, seed: int) -> tuple[Index, list[str], npt.NDArray[np.bool_]]:
        """Draw the defects; returns each one's held-out part ``[J]``, kind and mask."""
        each = max(1, min(round(WANTED_DEFECTS / len(self.held)), MOST_DEFECTS_A_PART))
        part = np.repeat(np.arange(len(self.held)), each)
        kinds, masks = [], []
        for made in defective(photos.only(self.held[part]), seed):
            self._take(made.image)
            mask = self._grid.apply_mask(made.mask)
            if not mask.any():
                # The defect is smaller than a cell of this grid: mark the cell that it lies in.
                row, column = np.argwhere(made.mask).mean(axis=0) / made.mask.shape
                mask[int(row * mask.shape[0]), int(column * mask.shape[1])] = True
            masks.append(mask)
            kinds.append(made.kind)
            self._bar.add(1, "synthetic defects")
        return part, kinds, np.stack(masks)

    def _take(self, photo: Frame8) -> None:
        for geometry, images in self._images.items():
            images.append(geometry.apply(photo))
            self._inner[geometry].append(geometry.inner(photo.shape))

    @torch.no_grad()
    def _try(
        self, options: list[TrainSettings], cache: FeatureCache, geometry: Geometry
    ) -> list[Answers]:
        """Answers of candidates that differ only in sigma, or in the number of items of a bank."""
        first = max(options, key=lambda option: option.items)
        levels = [
            number
            for number, level in enumerate(self.backbone.levels)
            if level.scale in first.scales and level.stride in first.strides
        ]
        channels = tuple(self.backbone.channels[level] for level in levels)

        def batches(index: Index) -> Iterator[cfa.Levels]:
            return ([maps[level] for level in levels] for maps in cache.batches(index))

        def bank() -> Iterator[cfa.Levels]:
            return batches(self.bank)

        model = cfa.build(
            first,
            channels,
            bank,
            scale=_measure_scale(first, channels, bank, self.device),
            seed=first.seed,
            device=self.device,
        )
        judged = np.concatenate([self.held, np.arange(len(self.bank) + len(self.held), len(cache))])
        inner = [self._inner[geometry][i] for i in judged]
        whole, patches = model.bank, {}
        for items in {option.items for option in options}:
            model.bank = whole[:items]
            patches[items] = torch.cat([model.patch_scores(part) for part in batches(judged)])
        return [self._answers(option, patches[option.items], inner) for option in options]

    def _answers(
        self, option: TrainSettings, patches: torch.Tensor, inner: list[Slices]
    ) -> Answers:
        rows, columns = (
            torch.from_numpy(cfa.smoothing(grid, side, option.sigma_px)).to(patches)
            for grid, side in zip(option.grid, option.input, strict=True)
        )
        parts = len(self.held)
        scores = np.empty(len(patches))
        maps = np.empty((len(patches), *self._masks.shape[1:]), dtype=np.float32)
        for i, patch in enumerate(patches):
            heat = (rows @ patch @ columns.T).cpu().numpy()
            scores[i] = heat.max()
            shape = (maps.shape[2], maps.shape[1])
            # Only the photo is compared: a letterbox's border would count as good pixels.
            maps[i] = cv2.resize(heat[inner[i]], shape, interpolation=cv2.INTER_LINEAR)
        good, bad = _count_pixels(maps, self._masks, self.part, parts)
        return Answers(scores[:parts], scores[parts:], good, bad)


def image_auroc(answers: Answers, part: Index, kind: Index, weights: Floats) -> Floats:
    """Image AUROC of spoiled against clean parts, ``[B]``, for ``weights`` ``[B, P]``.

    ``part`` and ``kind`` ``[J]`` are the trial's. Every kind counts alike, whatever its number of
    defects.
    """
    clean, spoiled = answers.clean, answers.spoiled[:, None]
    wins = np.where(spoiled == clean, 0.5, spoiled > clean)
    beaten = weights @ wins.T / weights.sum(axis=1, keepdims=True)
    return _mean_of_kinds(beaten, weights[:, part], kind)


def pixel_auroc(answers: Answers, part: Index, kind: Index, weights: Floats) -> Floats:
    """Pixel AUROC of defective against good pixels, ``[B]``; arguments of :func:`image_auroc`.

    Within a kind every defect counts alike, however large it is.
    """
    good = weights @ answers.good_pixels
    below = (np.cumsum(good, axis=1) - 0.5 * good) / good.sum(axis=1, keepdims=True)
    return _mean_of_kinds(below @ answers.defect_pixels.T, weights[:, part], kind)


class _Photos(Sequence[Frame8]):
    """Judged regions of photos at the photos' own resolution, decoded on access."""

    def __init__(self, paths: Sequence[Path], region: Box | None, files: KeptFiles) -> None:
        self.paths = paths
        self._region, self._files = region, files
        # Defects of one part follow one another, so a few decoded photos are enough.
        self._decode = functools.lru_cache(maxsize=4)(lambda path: files.open(path).crop(region))

    def only(self, index: Index) -> _Photos:
        """The photos of ``index``, in its order."""
        return _Photos([self.paths[i] for i in index], self._region, self._files)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return self._decode(self.paths[index])


class _Bar:
    """One progress bar for the whole trial; its total is an estimate that is never overrun."""

    def __init__(self, on_step: OnStep, total: int) -> None:
        self._on_step, self._done, self._total = on_step, 0, total

    def add(self, units: int, note: str) -> None:
        """Advance the bar by ``units``."""
        self._done = min(self._done + units, self._total - 1)
        self._on_step(Step(CHOOSING, self._done, self._total, note))

    def follow(self, units: int, note: str) -> Callable[[int, int], None]:
        """A (done, total) callback whose every step counts as ``units``."""
        told = 0

        def tell(done: int, _: int) -> None:
            nonlocal told
            self.add(units * (done - told), note)
            told = done

        return tell

    def finish(self) -> None:
        """Fill the bar."""
        self._on_step(Step(CHOOSING, self._total, self._total))


def _input(option: TrainSettings) -> Geometry:
    """Geometry from a photo that is already cropped to the candidate's input."""
    return option.geometry().model_copy(update={"region": None})


def _name(geometry: Geometry) -> str:
    return f"{geometry.height}x{geometry.width} {geometry.fit}"


def _bank(option: TrainSettings) -> TrainSettings:
    """Settings that candidates with the same bank, or a part of it, share."""
    shared: dict[str, Any] = {"sigma": None}
    if option.bank_init == "coreset" and _is_unitless(option):
        # A bank is chosen greedily, so the first n items of a larger one are the bank of n items.
        shared |= {"bank_items": None, "gamma_c": None}
    return option.model_copy(update=shared)


def _is_unitless(settings: TrainSettings) -> bool:
    """True when no score's order depends on the unit of distance."""
    return (
        settings.standardise and settings.neighbours == 1 and settings.descriptor_init != "random"
    )


def _measure_scale(
    settings: TrainSettings, channels: tuple[int, ...], batches: Any, device: torch.device
) -> cfa.FeatureScale:
    if _is_unitless(settings):
        # Such a score is one distance: its unit does not change the order of scores, and measuring
        # the unit would take as long as building a bank.
        return cfa.FeatureScale.measure(batches(), channels)
    return cfa.measure_scale(settings, channels, batches, device)


def _mean_of_kinds(values: Floats, weights: Floats, kind: Index) -> Floats:
    """Weighted mean of ``values`` ``[B, J]`` within each kind, then the mean over present kinds."""
    of_kind = (kind[:, None] == np.unique(kind)).astype(np.float64)
    weight = weights @ of_kind
    there = weight > 0
    means = (values * weights) @ of_kind / np.where(there, weight, 1.0)
    return np.asarray(means.sum(axis=1) / there.sum(axis=1))


def _count_pixels(
    maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_], part: Index, parts: int
) -> tuple[Floats, Floats]:
    """Count pixels by score: ``good_pixels`` and ``defect_pixels`` of :class:`Answers`.

    ``maps`` ``[P + J, h, w]``, the clean parts first; ``masks`` ``[J, h, w]``.
    """
    highest = float(maps.max())
    lowest = max(float(maps.min()), 1e-4 * highest, 1e-30)
    span = max(math.log(highest / lowest), 1e-6) if highest > lowest else 1e-6
    good, bad = np.zeros((parts, _BINS)), np.zeros((len(masks), _BINS))
    for i, heat in enumerate(maps):
        place = np.log(np.maximum(heat, lowest) / lowest) * ((_BINS - 1) / span)
        bins = np.minimum(place, _BINS - 1).astype(np.intp)
        if i < parts:
            good[i] += np.bincount(bins.ravel(), minlength=_BINS)
        else:
            mask = masks[i - parts]
            good[part[i - parts]] += np.bincount(bins[~mask], minlength=_BINS)
            bad[i - parts] = np.bincount(bins[mask], minlength=_BINS) / mask.sum()
    return good, bad
