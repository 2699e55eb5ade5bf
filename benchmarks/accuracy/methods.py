"""The methods that are compared: ours, also with ``--auto``; the authors' CFA; rivals.

Every method sees good parts only and hands back the same thing, a :class:`Trained`: scores in units
of a limit that :func:`export.training.calibrate.calibrate` set on good parts it held out.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import export
from benchmarks.accuracy import authors, rivals
from benchmarks.accuracy.fitting import (
    Fit,
    GoodParts,
    Trained,
    graph_megabytes,
    head_of,
    pooled,
)
from export import settings
from export.data import dataset, misplaced, photos, pixels, synthetic
from export.evaluation import evaluate, metrics
from export.model import backbone, cfa, features
from export.settings import TrainSettings
from export.training import auto, calibrate, trial
from export.training.scorer import Scorer
from export.training.train import OnStep, load_scorer, pick_device, train
from inspector.imaging import geometry

OURS = "cfa"


@dataclass(frozen=True)
class Method:
    """``settings`` makes the method's own from the run's; ``uses`` names those that matter to it.

    ``chooses``: settings it finds for itself unless they are given.
    ``code``: digest of the source its figures hang on, as it was when this process started.
    """

    fit: Fit
    settings: Callable[[TrainSettings], TrainSettings]
    every_seed: bool
    uses: frozenset[str]
    code: str
    chooses: frozenset[str] = frozenset()


def digest_code(*parts: Any) -> str:
    """Of the source text of files, modules, classes and functions."""
    whole = hashlib.sha256()
    for part in parts:
        text = part.read_text() if isinstance(part, Path) else inspect.getsource(part)
        whole.update(hashlib.sha256(text.encode()).digest())
    return whole.hexdigest()[:16]


def fit_auto(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
    """Our CFA as ``inspector-model train --auto`` makes it; the choice counts as training."""
    found, choice = auto.choose(data, chosen, on_step=on_step)
    trained = fit_cfa(data, folder, found, on_step)
    return replace(trained, seconds=round(trained.seconds + choice.seconds, 1))


def fit_cfa(data: Path, folder: Path, chosen: TrainSettings, on_step: OnStep) -> Trained:
    """Our CFA as ``inspector-model train`` makes it."""
    run = train(data, folder / "run", chosen, resume=False, on_step=on_step)
    facts, outcome = run.facts(), run.outcome()
    scorer = load_scorer(run, pick_device(chosen.device))
    return Trained(
        features=pooled(scorer.backbone, scorer.device),
        head=head_of(scorer),
        settings=facts.settings,
        geometry=facts.geometry,
        calibration=outcome.calibration,
        seconds=outcome.train_seconds,
        items=len(scorer.model.bank),
        megabytes=graph_megabytes(scorer),
        limit_from=outcome.calibration.pooling,
    )


# Modules of ours that keep files, write reports or bundles, or teach in change no figure of a cell.
_ASIDE = {
    *("__init__", "assemble", "charts", "cli", "describe", "extend"),
    *("lesson", "memory", "parity", "report", "run", "teacher", "wording"),
}
_OURS = tuple(
    path
    for path in sorted(Path(export.__path__[0]).rglob("*.py"))
    if path.stem not in _ASIDE | {"auto", "misplaced", "pixels", "synthetic", "trial"}
)
_SHARED = (backbone, calibrate, dataset, photos, evaluate, features, metrics, geometry)
_DRAWN = (synthetic, misplaced, pixels)
_GRID = (
    cfa.pool,
    cfa.up_sample,
    cfa.smoothing,
    cfa.farthest_first,
    cfa.flatten,
    cfa.find_nearest,
    settings,
    GoodParts,
    rivals,
)
_EVERY_SETTING = frozenset(TrainSettings.model_fields) - {"weights", "device", "cache_gb"}
_RIVAL_SETTINGS = frozenset(
    {
        "backbone",
        "size",
        "region",
        "fit",
        "strides",
        "scales",
        "sigma",
        "false_reject",
        "folds",
        "seed",
    }
)

_RIVAL = digest_code(*_SHARED, *_GRID)

METHODS: dict[str, Method] = {
    OURS: Method(
        fit=fit_cfa,
        settings=lambda base: base,
        every_seed=True,
        uses=_EVERY_SETTING,
        code=digest_code(*_OURS, geometry, fit_cfa),
    ),
    "auto": Method(
        fit=fit_auto,
        settings=lambda base: base,
        every_seed=True,
        uses=_EVERY_SETTING,
        code=digest_code(*_OURS, geometry, fit_cfa, fit_auto, auto, trial, *_DRAWN),
        chooses=frozenset(auto.CHOSEN),
    ),
    "cfa-authors": Method(
        fit=authors.fit,
        settings=authors.recipe,
        every_seed=True,
        uses=_EVERY_SETTING,
        code=digest_code(*_SHARED, cfa, settings, authors, Scorer, GoodParts),
    ),
    "patchcore": Method(
        fit=rivals.fitted(rivals.PatchCore.fit),
        settings=lambda base: base,
        every_seed=False,
        uses=_RIVAL_SETTINGS,
        code=_RIVAL,
    ),
    "patchcore-14": Method(
        fit=rivals.fitted(rivals.patchcore_14),
        settings=lambda base: base,
        every_seed=False,
        uses=_RIVAL_SETTINGS,
        code=_RIVAL,
    ),
    "padim": Method(
        fit=rivals.fitted(rivals.PaDiM.fit),
        settings=lambda base: base,
        every_seed=False,
        uses=_RIVAL_SETTINGS,
        code=_RIVAL,
    ),
}
