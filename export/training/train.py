"""Train: backbone features once, memory bank, adaptation of φ, cross-fitting, calibration."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from export.data.dataset import FEWEST_GOOD_PARTS, fingerprint, open_good
from export.data.layouts import WHOLE, Selection
from export.data.photos import GoodParts, Index, load_good, one_each
from export.model import cfa
from export.model.backbone import Backbone
from export.model.features import FeatureCache
from export.model.normalise import Normaliser
from export.settings import TrainSettings, shown_rate
from export.training import outliers
from export.training.calibrate import FLOOR, calibrate
from export.training.run import NORMALISATION, Choice, Facts, Outcome, Run
from export.training.scorer import Scorer, judge
from inspector.detection import fitness
from inspector.errors import RunError, TrainingError
from inspector.imaging.geometry import Geometry

_LEFT_OUT: Final = {"gain": None}
"""What is kept in place of a normaliser where ``normalise: auto`` decided for none."""

STEP_PATCHES = 2048
"""Patches of a step, drawn anew each time: their distances to the bank take most of its time."""

HOLD_OUT_SHARE = 0.3
"""Share of parts held out once, if that is enough for the rate; else parts are cross-fitted."""

FIRM = 3.0
"""Enough for a rate: so many of the parts held out once would be rejected at it."""


@dataclass(frozen=True)
class Step:
    """Progress of training, for a bar; ``fit`` names the model that is being adapted."""

    stage: str
    done: int
    total: int
    fit: str = ""
    loss: float | None = None


ADAPTING = "adapting φ"

OnStep = Callable[[Step], None]

Review = Callable[[Outcome, int], Sequence[str] | None]
"""Names of the suspects of a finished run that are no good parts; none of them when all are, and
None when nobody said so. The number is how many may be left out: enough good parts must remain."""


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA if there is one. Raises :class:`TrainingError` if ``cuda`` is absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: cuda was asked for, but PyTorch finds none; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train(
    data: Path,
    folder: Path,
    settings: TrainSettings,
    *,
    resume: bool,
    on_step: OnStep,
    choice: Choice | None = None,
    selection: Selection = WHOLE,
    review: Review | None = None,
) -> Run:
    """Train on the good parts of ``data`` and calibrate; opens no file under ``test/``.

    ``choice`` tells how ``--auto`` found the settings, and ``selection`` which photos a person
    takes for good parts; both are kept with the run. ``review`` is asked about parts that look
    unlike the others, once the run is finished; without those that it names the run is made again,
    from the features that are there, and if it names none the limit allows for all. Raises
    :class:`TrainingError`. KeyboardInterrupt leaves the last finished epoch on the disk.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = pick_device(settings.device)
    run = Run(folder)

    def geometry(shapes: Sequence[tuple[int, int]]) -> Geometry:
        resolved = settings.resolve(shapes)
        backbone.check_size(resolved.input)
        return resolved.geometry()

    def read(taken: Selection) -> tuple[list[str], GoodParts, Facts]:
        paths = open_good(data, taken)
        parts = load_good(
            paths,
            geometry,
            lambda done, total: on_step(Step("reading photos", done, total)),
        )
        digests = dict(zip(paths, parts.digests, strict=True))
        facts = Facts(
            name=data.resolve().name,
            data=data.resolve(),
            settings=settings.resolve(parts.shapes),
            geometry=parts.geometry,
            fingerprint=fingerprint(paths, data, digests.__getitem__),
            parts=len(paths),
            weights_sha256=backbone.weights_sha256,
            selection=taken,
            choice=choice,
        )
        return [path.relative_to(data).as_posix() for path in paths], parts, facts

    def compute(parts: GoodParts) -> FeatureCache:
        return FeatureCache(
            backbone,
            parts.images,
            device=device,
            cache_gb=settings.cache_gb,
            folder=folder,
            on_progress=lambda done, total: on_step(Step("backbone features", done, total)),
        )

    def learn(names: list[str], parts: GoodParts, facts: Facts, cache: FeatureCache) -> Outcome:
        began = time.monotonic()
        trainer = _Trainer(run, cache, backbone, facts.settings, device=device, on_step=on_step)
        outcome = trainer.fit_and_calibrate(names, parts, began)
        run.write("outcome.json", outcome.model_dump_json(indent=2).encode())
        run.remove("checkpoint-*.pt")
        return outcome

    # Photos that are missing or in doubt are told before weights that are missing.
    open_good(data, selection)
    backbone = Backbone(settings.backbone, settings.strides, settings.scales, settings.weights).to(
        device
    )
    settings = located(settings, backbone)
    names, parts, facts = read(selection)
    run.start(facts, resume=resume)
    if (folder / "outcome.json").exists():
        _check_rate(run, settings.false_reject)
        return run
    with compute(parts) as cache:
        outcome = learn(names, parts, facts, cache)
        left_out = None
        if review is not None and outcome.suspects:
            left_out = review(outcome, int(parts.picture.max()) + 1 - FEWEST_GOOD_PARTS)
        if not left_out:
            if left_out is not None:
                _vouch(run, outcome)
            return run
        fewer = (*selection.leave_out, *left_out)
        kept, others, facts = read(selection.model_copy(update={"leave_out": fewer}))
        run.restart(facts)
        rows = np.array([names.index(name) for name in kept])
        if np.array_equal(others.images, parts.images[rows]):
            learn(kept, others, facts, cache.only(rows))
            return run
    # A photo that was left out had decided the size, so that all look different now.
    with compute(others) as cache:
        learn(kept, others, facts, cache)
    return run


def _vouch(run: Run, outcome: Outcome) -> None:
    """Set the limit anew when a person says that the suspects are good parts."""
    folds, vouched = run.limit_folds(all_good=True)
    rate = outcome.calibration.asked
    calibration = calibrate(folds, rate, drawn=outcome.drawn, vouched=vouched)
    changed = outcome.model_copy(update={"calibration": calibration, "all_good": True})
    run.write("outcome.json", changed.model_dump_json(indent=2).encode())


def _check_rate(run: Run, rate: float | None) -> None:
    """Refuse to go on with a finished run for another false-reject ``rate``."""
    kept = run.outcome().calibration.asked
    if kept != rate:
        raise RunError(
            f"{run.folder}: is finished, with a limit for {shown_rate(kept)} false rejects; set "
            f"another one with 'inspector-model calibrate {run.folder} --false-reject "
            f"{shown_rate(rate)}'"
        )


def located(settings: TrainSettings, backbone: Backbone) -> TrainSettings:
    """``settings`` whose files are found from any folder, and with the network's only size."""
    files = {"backbone": settings.backbone, "weights": settings.weights}
    changes: dict[str, object] = {
        key: path.resolve() for key, path in files.items() if isinstance(path, Path)
    }
    if settings.size is None and backbone.sides is not None:
        changes["size"] = backbone.sides
    return settings.model_copy(update=changes)


def load_scorer(run: Run, device: torch.device, weights: Path | None = None) -> Scorer:
    """Load a finished run's model; scores are in units of its limit. Raises :class:`RunError`."""
    facts, outcome = run.facts(), run.outcome()
    settings = facts.settings
    backbone = Backbone(
        settings.backbone, settings.strides, settings.scales, weights or settings.weights
    ).to(device)
    if backbone.weights_sha256 != facts.weights_sha256:
        raise RunError(
            f"{run.folder}: was trained with other backbone weights; give --weights FILE"
        )
    return Scorer(
        backbone,
        load_model(run, "model.pt", backbone, device),
        settings,
        device,
        threshold=outcome.calibration.threshold,
        normaliser=load_normaliser(run),
    )


def load_model(run: Run, name: str, backbone: Backbone, device: torch.device) -> cfa.CFA:
    """Load the model in service, ``model.pt``, or that of fold k, ``fold-<k>.pt``.

    Raises :class:`RunError` when it is missing or of another version.
    """
    state = run.load(name)
    if state is None:
        raise RunError(f"{run.folder}: {name} is missing; train again")
    model = _empty_model(backbone, run.facts().settings)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise RunError(
            f"{run.folder}: {name} is of another version of this product; train again"
        ) from None
    return model.to(device)


def load_normaliser(run: Run) -> Normaliser | None:
    """What :func:`keep_normaliser` kept, None if it was None. Raises :class:`RunError`."""
    settings = run.facts().settings
    if settings.normalise == "none":
        return None
    state = run.load(NORMALISATION)
    if state is None:
        raise RunError(f"{run.folder}: {NORMALISATION} is missing; train again")
    if settings.normalise == "auto" and state == _LEFT_OUT:
        return None
    try:
        return Normaliser.from_state(state, settings.grid)
    except ValueError as error:
        raise RunError(f"{run.folder / NORMALISATION}: {error}; train again") from None


def keep_normaliser(run: Run, settings: TrainSettings, normaliser: Normaliser | None) -> None:
    """Write the normaliser of a run, or that it has none where the settings left that open."""
    if settings.normalise != "none":
        run.save(NORMALISATION, _LEFT_OUT if normaliser is None else normaliser.state())


def _empty_model(backbone: Backbone, settings: TrainSettings) -> cfa.CFA:
    descriptor = cfa.PatchDescriptor(
        backbone.channels,
        settings.width(sum(backbone.channels)),
        settings.grid,
        cfa.FeatureScale.identity(backbone.channels),
        init="identity",
        generator=torch.Generator(),
    )
    return cfa.CFA(descriptor, settings.items, settings)


class _Trainer:
    """Fits a run's models: the one in service, then one for each fold."""

    def __init__(
        self,
        run: Run,
        cache: FeatureCache,
        backbone: Backbone,
        settings: TrainSettings,
        *,
        device: torch.device,
        on_step: OnStep,
    ) -> None:
        self.run, self.cache, self.backbone = run, cache, backbone
        self.settings, self.device, self.on_step = settings, device, on_step
        self._done, self._total = 0, 0
        self._scale = cfa.FeatureScale.identity(backbone.channels)

    def fit_and_calibrate(self, names: list[str], parts: GoodParts, began: float) -> Outcome:
        settings, n = self.settings, len(names)
        channels = self.backbone.channels
        everything = np.arange(n)
        self.on_step(Step(ADAPTING, 0, 1, "feature scale"))
        self._scale = cfa.measure_scale(
            settings, channels, lambda: self.cache.batches(everything), self.device
        )
        held = _split(parts, settings)
        training = np.setdiff1d(everything, held[0]) if len(held) == 1 else everything
        rests = [np.setdiff1d(everything, index) for index in held] if len(held) > 1 else []
        self._total = settings.epochs * sum(self._steps(index) for index in [training, *rests])
        model = self._fit("service", training)
        fold_of = np.full(n, -1, dtype=np.intp)
        distances = np.empty((n, *settings.grid), dtype=np.float32)
        scorer = Scorer(self.backbone, model, settings, self.device)
        for number, index in enumerate(held):
            tested = model
            if rests:
                tested = self._fit(f"fold {number + 1} of {len(held)}", rests[number])
                self.run.save(f"fold-{number}.pt", tested.state_dict())
            scorer = Scorer(self.backbone, tested, settings, self.device)
            scored = one_each(index, parts.picture)
            distances[scored] = scorer.distances(self.cache, scored)
            fold_of[scored] = number
        tested_parts = np.flatnonzero(fold_of >= 0)
        scores = np.full(n, np.nan)
        drawn = outliers.measure_drawn(
            scorer.measure,
            parts.images[scored],
            settings.seed,
            self._follow("drawing defects"),
        )
        judged = judge(scorer, distances[tested_parts], drawn)
        normaliser, scores[tested_parts] = judged.normaliser, judged.held_out
        if not np.isfinite(scores[tested_parts]).all():
            raise TrainingError(
                "training diverged: held-out scores are not finite; lower --learning-rate"
            )
        self.run.write_held_out(
            [names[i] for i in tested_parts], fold_of[tested_parts], scores[tested_parts]
        )
        self.run.save("model.pt", model.state_dict())
        keep_normaliser(self.run, self.settings, normaliser)
        ranked = tested_parts[np.argsort(scores[tested_parts], kind="stable")]
        calibration = calibrate(
            [scores[fold_of == number] for number in range(len(held))],
            settings.false_reject,
            drawn=judged.drawn.tolist(),
        )
        comparison = outliers.Comparison(
            model, self.cache, parts.picture, settings, self._follow("comparing parts")
        )
        suspects = outliers.find_suspects(names, scores, comparison.scores)
        outliers.keep_maps(
            self.run,
            names,
            [(int(part), int(fold_of[part])) for part in ranked[-outliers.SHOWN :]],
            suspects,
            features=self.cache,
            comparison=comparison,
            tester=lambda fold: self._tester(fold, normaliser) if rests else scorer,
        )
        return Outcome(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            train_seconds=round(time.monotonic() - began, 1),
            calibration=calibration,
            exposure=fitness.learn(parts.images),
            golden=(int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])),
            remarks=(*parts.remarks, *judged.remarks),
            suspects=suspects,
            drawn=tuple(round(score, 6) for score in judged.drawn.tolist()),
        )

    def _follow(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.on_step(Step(stage, done, total))

    def _tester(self, fold: int, normaliser: Normaliser | None) -> Scorer:
        """The model that has not seen the parts of ``fold``, as it was saved."""
        model = load_model(self.run, f"fold-{fold}.pt", self.backbone, self.device)
        return Scorer(self.backbone, model, self.settings, self.device, normaliser=normaliser)

    def _steps(self, index: Index) -> int:
        """Number of steps in one epoch."""
        return -(-len(index) // self.settings.batch_size)

    def _fit(self, name: str, index: Index) -> cfa.CFA:
        """Adapt φ to the parts ``index``, from the checkpoint of this fit if there is one."""
        settings = self.settings
        slug = name.replace(" ", "-")
        # Each fold has a seed of its own; the model in service has the run's seed.
        salt = 0 if name == "service" else int(name.split()[1])
        checkpoint = self.run.load(f"checkpoint-{slug}.pt")
        if checkpoint is None:
            self.on_step(Step(ADAPTING, self._done, self._total, f"{name}: memory bank"))
            model = cfa.build(
                settings,
                self.backbone.channels,
                lambda: self.cache.batches(index),
                scale=self._scale,
                seed=settings.seed + 1000 * salt,
                device=self.device,
            )
        else:
            model = _empty_model(self.backbone, settings).to(self.device)
            model.load_state_dict(checkpoint["model"])
        optimiser = torch.optim.AdamW(
            [*model.descriptor.parameters(), model.radius],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            amsgrad=True,
        )
        first = 0
        steps = self._steps(index)
        if checkpoint is not None:
            optimiser.load_state_dict(checkpoint["optimiser"])
            first = checkpoint["epochs"]
            self._done += first * steps
        for epoch in range(first, settings.epochs):
            draws = np.random.default_rng([settings.seed, salt, epoch])
            shuffled = draws.permutation(index)
            sums = np.zeros(2)
            for step in range(steps):
                chosen = shuffled[step * settings.batch_size : (step + 1) * settings.batch_size]
                patches = len(chosen) * settings.grid[0] * settings.grid[1]
                sample = None
                if patches > STEP_PATCHES:
                    drawn = draws.choice(patches, STEP_PATCHES, replace=False, shuffle=False)
                    sample = torch.from_numpy(drawn).to(self.device)
                attract, repel = model.loss(self.cache.batch(chosen), sample)
                loss = attract + repel
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                sums += (attract.item(), repel.item())
                self._done += 1
                if not torch.isfinite(loss):
                    raise TrainingError(
                        "training diverged: the loss is not finite; lower --learning-rate"
                    )
                self.on_step(Step(ADAPTING, self._done, self._total, name, loss.item()))
            self.run.log_epoch(
                {
                    "fit": name,
                    "epoch": epoch + 1,
                    "l_att": sums[0] / steps,
                    "l_rep": sums[1] / steps,
                    "r": model.radius.item(),
                }
            )
            self.run.save(
                f"checkpoint-{slug}.pt",
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "epochs": epoch + 1,
                },
            )
        return model


def _split(parts: GoodParts, settings: TrainSettings) -> list[Index]:
    """Parts to hold out: one share of them if that is enough for the rate asked, else folds."""
    picture = parts.picture
    groups = np.random.default_rng([settings.seed, 1]).permutation(int(picture.max()) + 1)
    once = int(len(groups) * HOLD_OUT_SHARE)
    if once * (settings.false_reject or FLOOR) >= FIRM:
        return [np.flatnonzero(np.isin(picture, groups[:once]))]
    folds = np.array_split(groups, min(settings.folds, len(groups)))
    return [np.flatnonzero(np.isin(picture, fold)) for fold in folds]
