"""Settings found from good parts alone: held-out parts against defects drawn on them.

Every candidate gets a memory bank of some of the good parts, without adaptation, and has to tell
the held-out parts from the same parts with a synthetic defect. Of the candidates that are not
measurably worse than the best, the one that costs least on the line is taken.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from export.data.dataset import open_good
from export.data.layouts import WHOLE, Selection
from export.data.photos import photo_shapes
from export.model.backbone import Backbone
from export.settings import TrainSettings, round_side, say_scales
from export.training.run import Candidate, Choice, Run
from export.training.train import OnStep
from export.training.trial import Trial, image_auroc, pixel_auroc
from inspector.errors import ConfigError, RunError
from inspector.imaging.geometry import STRIDE

Floats = npt.NDArray[np.float64]

MOST_PARTS: Final = 150
"""At most this many good parts are looked at: more make the choice slower, but no surer."""

CHOSEN: Final = ("size", "fit", "strides", "scales", "sigma")
SIZE_SHARES: Final = (1.0, 0.75, 0.5)
SMALLEST_PX: Final = 128
FEATURE_SETS: Final = (((16,), (1.0, 0.5)), ((8, 16), (1.0, 0.5)), ((8, 16), (0.5,)))
"""Strides and scales that are tried: the last has the grid of the first for a quarter of the work.
"""
SIGMA_SHARES: Final = (1.0, 0.5)
"""Sigmas that are tried, as shares of the default for an input and its strides."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Pick:
    """Result of :func:`pick`: arrays with an entry for each candidate, and two indices."""

    behind: Floats
    standard_error: Floats
    best: int
    chosen: int


def choose(
    data: Path, settings: TrainSettings, *, on_step: OnStep, selection: Selection = WHOLE
) -> tuple[TrainSettings, Choice]:
    """Fix size, fit, strides, scales and sigma for the good parts of ``data``, and say why.

    Options that ``settings`` was given explicitly stay as they are. No file under ``test/`` is
    opened; the same seed gives the same choice. Raises :class:`TrainingError`, and
    :class:`ConfigError` for a network from a file.
    """
    if isinstance(settings.backbone, Path):
        raise ConfigError(
            f"--auto: chooses for networks by name, and backbone is {settings.backbone}; leave "
            f"--auto out, and give size, strides and scales as the file allows"
        )
    began = time.monotonic()
    torch.use_deterministic_algorithms(True, warn_only=True)
    paths = open_good(data, selection)
    options = candidates(settings, settings.resolve(photo_shapes(paths)))
    random = np.random.default_rng([settings.seed, 3])
    sampled = np.sort(random.permutation(len(paths))[:MOST_PARTS])
    trial = Trial([paths[i] for i in sampled], options, random, on_step)
    held, part, kind = len(trial.held), trial.part, trial.kind
    answers = trial.run()
    resamples = random.multinomial(held, [1.0 / held] * held, size=_RESAMPLES)
    weights = np.vstack([np.ones((1, held)), resamples])
    image = np.stack([image_auroc(a, part, kind, weights) for a in answers], axis=1)
    pixel = np.stack([pixel_auroc(a, part, kind, weights) for a in answers], axis=1)
    signal = 0.5 * (image + pixel)
    gmacs = estimate_gmacs(options, trial.backbone, trial.device)
    found = pick(signal[0], signal[1:], gmacs)
    table = tuple(
        Candidate(
            size=option.input,
            fit=option.geometry().fit,
            strides=option.strides,
            scales=option.scales,
            sigma=option.sigma_px,
            gmacs=gmacs[i],
            signal=float(signal[0, i]),
            image_auroc=float(image[0, i]),
            pixel_auroc=float(pixel[0, i]),
            behind=float(found.behind[i]),
            standard_error=float(found.standard_error[i]),
        )
        for i, option in enumerate(options)
    )
    taken = table[found.chosen]
    chosen = settings.model_copy(update={name: getattr(taken, name) for name in CHOSEN})
    return chosen, Choice(
        candidates=table,
        chosen=found.chosen,
        reason=explain(table, found, given(settings)),
        bank_parts=len(trial.bank),
        held_out=held,
        defects=len(part),
        kinds=len(np.unique(kind)),
        seconds=round(time.monotonic() - began, 1),
    )


def recall(run: Run, settings: TrainSettings) -> tuple[TrainSettings, Choice]:
    """The choice of ``run``, which is to be resumed; options given in ``settings`` win over it.

    Raises :class:`RunError` when it was started without ``--auto``.
    """
    facts = run.facts()
    if facts.choice is None:
        raise RunError(f"{run.folder}: was started without --auto; resume it without")
    undecided = set(CHOSEN) - set(given(settings))
    asked = {name: getattr(settings, name) for name in settings.model_fields_set - undecided}
    return facts.settings.model_copy(update=asked), facts.choice


def given(settings: TrainSettings) -> tuple[str, ...]:
    """Names in :data:`CHOSEN` that the user has decided; "auto" decides nothing."""
    return tuple(
        name
        for name in CHOSEN
        if name in settings.model_fields_set and getattr(settings, name) not in {None, "auto"}
    )


def candidates(settings: TrainSettings, resolved: TrainSettings) -> list[TrainSettings]:
    """A small grid around the default, which comes first; candidates of one input are adjacent.

    ``resolved`` is ``settings`` with size and fit fixed for the photos.
    """
    fixed = given(settings)
    sizes = [resolved.input] if "size" in fixed else _sizes(resolved.input)
    mixed = "fit" not in fixed and resolved.fit == "letterbox"
    fits = ("letterbox", "stretch") if mixed else (resolved.fit,)
    features = dict.fromkeys(
        (
            settings.strides if "strides" in fixed else strides,
            settings.scales if "scales" in fixed else scales,
        )
        for strides, scales in FEATURE_SETS
    )
    kept = settings.sigma if "sigma" in fixed else None
    grids = [
        resolved.model_copy(
            update={"size": size, "fit": fit, "strides": strides, "scales": scales, "sigma": kept}
        )
        for size, fit, (strides, scales) in itertools.product(sizes, fits, features)
    ]
    made = [
        one.model_copy(update={"sigma": one.sigma_px * share})
        for one in grids
        for share in ((1.0,) if "sigma" in fixed else SIGMA_SHARES)
    ]
    # With M = H'·W'/γ_c a coarse grid may leave too few items.
    return [one for one in made if one.items >= one.neighbours + one.hard_negatives]


def pick(signal: Floats, resampled: Floats, cost: Sequence[float]) -> Pick:
    """Choose the cheapest of the candidates within one standard error of the best.

    ``signal`` is ``[C]``; ``resampled`` ``[B, C]`` is the signal on B resamples of the held-out
    parts. All candidates share the resamples, so the standard error is that of the difference to
    the best. Of equally cheap candidates the better one is taken.
    """
    best = int(signal.argmax())
    behind = signal[best] - signal
    error = (resampled[:, [best]] - resampled).std(axis=0, ddof=1)
    near = np.flatnonzero(behind <= error).tolist()
    chosen = min(near, key=lambda i: (cost[i], behind[i], i))
    return Pick(behind, error, best, chosen)


def estimate_gmacs(
    options: Sequence[TrainSettings], backbone: Backbone, device: torch.device
) -> list[float]:
    """Work of each option in 10^9 multiply-adds a part: backbone, φ level by level, distances to C.

    ``backbone`` has the strides and scales of all ``options``; a pass of it costs what its deepest
    map costs.
    """
    side = 4 * STRIDE
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.network(torch.zeros(1, 3, side, side, device=device))
    frozen = cast(int, counter.get_total_flops()) / 2 / side**2
    found = []
    for option in options:
        levels = [
            level
            for level in backbone.levels
            if level.scale in option.scales and level.stride in option.strides
        ]
        pixels = math.prod(option.input)
        rows, columns = option.grid
        width = option.width(sum(level.channels for level in levels))
        work = frozen * sum(scale**2 for scale in option.scales) * pixels
        work += option.items * width * rows * columns
        for level in levels:
            height, across = (side // level.patch_px for side in option.input)
            work += level.channels * width * height * across
            if level.patch_px > option.patch_px:
                # It is up-sampled by one matrix along the rows and one along the columns.
                work += width * rows * across * (height + columns)
        found.append(work / 1e9)
    return found


def explain(table: Sequence[Candidate], found: Pick, fixed: Sequence[str]) -> str:
    """One sentence that names the candidate taken and the reason, for the report."""
    taken, best = table[found.chosen], table[found.best]
    fits = len({candidate.fit for candidate in table}) > 1
    kept = f"; {', '.join(fixed)} as given" if fixed else ""
    if len(table) == 1:
        return f"{describe(taken, fits)}: the only candidate{kept}."
    if found.chosen == found.best:
        return (
            f"{describe(taken, fits)}: the highest signal of {len(table)} candidates, and none "
            f"that is cheaper lies within one standard error of it{kept}."
        )
    near = sum(candidate.as_good for candidate in table)
    return (
        f"{describe(taken, fits)}: the cheapest of the {near} among {len(table)} candidates that "
        f"lie within one standard error of the highest signal, that of "
        f"{describe(best, fits)}{kept}."
    )


def in_plain_words(choice: Choice) -> str:
    """The choice in a line for the screen; :func:`explain` gives the exact rule for the report."""
    taken, tried = choice.candidates[choice.chosen], len(choice.candidates)
    words = describe(taken, len({candidate.fit for candidate in choice.candidates}) > 1)
    near = sum(candidate.as_good for candidate in choice.candidates)
    if tried == 1:
        return f"{words}; nothing else was left to choose"
    if near == 1:
        return f"{words}; of {tried} that were tried these find the drawn defects best"
    return (
        f"{words}; of {tried} that were tried {near} find the drawn defects equally well, and "
        f"these are judged fastest"
    )


def describe(candidate: Candidate, fit: bool) -> str:
    """A candidate's settings in words."""
    strides = candidate.strides
    return (
        f"{candidate.size[0]}x{candidate.size[1]}{f' {candidate.fit}' if fit else ''}, "
        f"stride{'s' if len(strides) > 1 else ''} {' and '.join(map(str, strides))} "
        f"{say_scales(candidate.scales)}, sigma {candidate.sigma:g}"
    )


def _sizes(default: tuple[int, int]) -> list[tuple[int, int]]:
    """The default input, and smaller ones whose longest side is at least :data:`SMALLEST_PX`."""
    sizes = [default]
    for share in SIZE_SHARES[1:]:
        height, width = (round_side(side * share) for side in default)
        if max(height, width) >= SMALLEST_PX and (height, width) not in sizes:
            sizes.append((height, width))
    return sizes
