"""Teach in: falsely rejected parts enter the memory bank of a finished run, without training."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from export.bundle.assemble import PrecisionChoice, check_output, export_bundle
from export.data.dataset import GOOD, Sample, digest_file, fingerprint, list_photos
from export.data.photos import group_copies, load_sample, one_each
from export.model import cfa
from export.model.features import FeatureCache
from export.model.memory import MOST_REPLACED, teach
from export.training.calibrate import calibrate
from export.training.run import Facts, Lesson, Run, Scores
from export.training.train import OnStep, Scorer, Step, load_model, load_scorer
from inspector.detection import fitness
from inspector.detection.manifest import Calibration, Exposure, Manifest
from inspector.errors import DatasetError, ImageError, OutputError, RunError
from inspector.imaging.images import exposure
from inspector.verdict import Frame8

Index = npt.NDArray[np.intp]

MOST_FOLDS = 5
"""Added parts are cross-fitted in at most so many folds; fewer parts are left out one by one."""
DOUBTFUL = 1.5
"""Good parts are seldom rejected at so many times the limit."""
TOLERANT = 1.1
"""A person is told when taught parts raise the limit by more than this factor."""

_PICTURES_OF_STATIONS = ("_map.png", "_overlay.jpg")
_LIGHT = 2.0
"""How many times darker or brighter than any of the run's parts an added one may be."""


@dataclass(frozen=True)
class TaughtPart:
    """Scores of one added part: ``before`` in units of the old limit, the others of the new one.

    ``unseen``: under the model that was taught the other added parts only; None for a single one.
    """

    name: str
    before: float
    unseen: float | None
    now: float


@dataclass(frozen=True)
class Report:
    """What an extension did; ``limit_otherwise``: with the other choice of ``pooled``."""

    run: Run
    manifest: Manifest
    parts: tuple[TaughtPart, ...]
    former: Calibration
    limit_otherwise: float
    choices: tuple[str, ...] = ()
    """Which precision was chosen, and why; none when it was named."""

    def lines(self) -> list[str]:
        """What a person must know, beside the scores."""
        lesson = self.run.facts().lineage[-1]
        old, limit = self.former.threshold, self.manifest.calibration.threshold
        items = self.manifest.cfa.bank_items
        lines = [
            f"taught {lesson.parts} parts: {lesson.bank_replaced} of {items} items of the memory "
            f"bank replaced",
            f"limit {old:.4g} -> {limit:.4g} ({limit / old - 1:+.1%}) in raw distance",
        ]
        if lesson.folds:
            other = f"{self.limit_otherwise:.4g} ({self.limit_otherwise / old - 1:+.1%})"
            lines[-1] += (
                f"; without --raise-limit {other}"
                if lesson.pooled
                else f"; with --raise-limit {other}"
            )
        if limit > TOLERANT * old:
            lines.append(
                "note: the limit rises much, and defects may escape: run 'inspector-model evaluate'"
            )
        rejected = [part.name for part in self.parts if part.now >= 1.0]
        if rejected:
            lines.append(
                f"note: still rejected: {_listed(rejected)}; too much of them is new for one "
                f"lesson: train again with them among the others"
            )
        replaced = sum(lesson.bank_replaced for lesson in self.run.facts().lineage)
        if replaced >= int(MOST_REPLACED * items):
            lines.append(
                f"note: {replaced} of {items} items are from lessons, and less is left for the "
                f"parts trained on: train again soon, with the taught parts among them"
            )
        unseen = [part.unseen for part in self.parts if part.unseen is not None]
        if unseen:
            count = sum(score >= 1.0 for score in unseen)
            lines.append(
                f"parts like these: {count} of {len(unseen)} would be rejected by a model that was "
                f"taught the others only" + ("; teach more of their kind" if count else "")
            )
        else:
            lines.append(
                "parts like this: not known from one picture; teach a second part of its kind"
            )
        doubtful = [part.name for part in self.parts if part.before >= DOUBTFUL]
        if doubtful:
            lines.append(
                f"note: far over the limit before: {_listed(doubtful)}; look at them again: a "
                f"defect taught by mistake passes from now on"
            )
        already = sum(part.before < 1.0 for part in self.parts)
        if already:
            lines.append(f"{already} of the {len(self.parts)} parts were not rejected before")
        return lines


def extend(
    parent: Run,
    good: Path,
    folder: Path,
    output: Path,
    *,
    data: Path,
    device: torch.device,
    weights: Path | None,
    rate: float | None,
    pooled: bool,
    name: str | None,
    precision: PrecisionChoice,
    on_step: OnStep,
) -> Report:
    """Teach the photos in ``good`` to a finished run: a new run ``folder`` and a bundle ``output``.

    ``data`` holds the photos the run was trained on; ``rate`` is the false-reject target, None for
    the run's own. The limit is set by the old held-out parts, rescored: taught parts are no random
    sample, they were picked from the tail, so pooled with the others they put the limit too high;
    ``pooled`` does so nevertheless. Both results are whole or are not there. Raises
    :class:`TrainingError`.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    began = time.monotonic()
    facts, outcome = parent.facts(), parent.outcome()
    _check_targets(folder, output)
    old = parent.photos(data)
    added = _photos(good)
    _refuse_known(added, old, data / "test")
    names, old_folds, _ = parent.held_out_parts()
    place = {name: i for i, name in enumerate(parent.names(old, data))}
    if not set(names) <= set(place):
        raise RunError(f"{parent.folder / 'heldout.csv'}: not of these photos; train again")
    held = np.array([place[name] for name in names], dtype=np.intp)
    service = load_scorer(parent, device, weights)
    images = _load([*(old[i] for i in held), *added], facts, on_step)
    _check_light(added, images[len(held) :], outcome.exposure)
    with _staged(folder) as staging:
        child = Run(staging)
        with FeatureCache(
            service.backbone,
            images,
            device=device,
            cache_gb=facts.settings.cache_gb,
            folder=staging,
            on_progress=lambda done, total: on_step(Step("backbone features", done, total)),
        ) as cache:
            school = _School(parent, child, cache, service, old_folds=old_folds, on_step=on_step)
            picture = group_copies(images[len(held) :])
            new_folds = _split(picture, first=int(old_folds.max()) + 1, facts=facts)
            tested = school.teach_and_test(new_folds)
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        lesson = Lesson(
            created=created,
            parts=len(added),
            fingerprint=_copy(added, staging / "added" / str(len(facts.lineage) + 1)),
            parent_version=parent.version(),
            parent_fingerprint=facts.fingerprint,
            bank_replaced=tested.replaced,
            folder=good.resolve(),
            folds=len(np.unique(new_folds[new_folds >= 0])),
            pooled=pooled,
        )
        _carry_over(parent, child, lesson, data)
        rate = outcome.calibration.target_false_reject if rate is None else rate
        folds = np.concatenate([old_folds, new_folds])
        scores = np.concatenate([tested.old, tested.unseen])
        counted = one_each(np.flatnonzero(new_folds >= 0), picture)
        rows = np.concatenate([np.arange(len(held)), len(held) + counted])
        index = np.concatenate([held, len(old) + np.arange(len(added))])[rows]
        now = child.photos(data)
        child.write_held_out(child.names([now[i] for i in index], data), folds[rows], scores[rows])
        calibration = calibrate(child.limit_folds(), rate)
        ranked = index[np.argsort(scores[rows], kind="stable")]
        finished = outcome.model_copy(
            update={
                "created": created,
                "train_seconds": round(time.monotonic() - began, 1),
                "calibration": calibration,
                "exposure": fitness.widen(outcome.exposure, images[len(held) :]),
                "golden": (int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])),
            }
        )
        child.write("outcome.json", finished.model_dump_json(indent=2).encode())
        choices: list[str] = []
        manifest = export_bundle(
            child,
            load_scorer(child, torch.device("cpu"), weights),
            output,
            name=name or facts.name,
            precision=precision,
            data=data,
            on_image=lambda done, total: on_step(Step("proving parity", done, total)),
            on_choice=choices.append,
        )
    return Report(
        Run(folder),
        manifest,
        tuple(
            TaughtPart(
                path.relative_to(good).as_posix(),
                float(tested.before[i] / outcome.calibration.threshold),
                float(tested.unseen[i] / calibration.threshold) if new_folds[i] >= 0 else None,
                float(tested.after[i] / calibration.threshold),
            )
            for i, path in enumerate(added)
        ),
        outcome.calibration,
        calibrate(Run(folder).limit_folds(pooled=not pooled), rate).threshold,
        tuple(choices),
    )


@dataclass(frozen=True)
class _Tested:
    """Raw scores. ``old``: held-out parts; the others: added parts; ``unseen`` NaN untested."""

    old: Scores
    before: Scores
    unseen: Scores
    after: Scores
    replaced: int


class _School:
    """Teaches the model in service and every fold's, and tests each on parts it has not seen."""

    def __init__(
        self,
        parent: Run,
        child: Run,
        cache: FeatureCache,
        service: Scorer,
        *,
        old_folds: Index,
        on_step: OnStep,
    ) -> None:
        self.parent, self.child, self.cache = parent, child, cache
        self.service, self.old_folds, self.on_step = service, old_folds, on_step
        self.limit = parent.outcome().calibration.threshold
        self._done, self._total = 0, 1

    def teach_and_test(self, new_folds: Index) -> _Tested:
        """``new_folds``: fold of each added part, -1 for one that no model can be tested on."""
        old = len(self.old_folds)
        added = old + np.arange(len(new_folds))
        groups = np.unique(new_folds[new_folds >= 0])
        self._total = 1 + len(np.unique(self.old_folds)) + len(groups)
        before = self._score(self._load("model.pt"), added)
        model = self._load("model.pt")
        replaced = self._teach(model, added)
        self.child.save("model.pt", model.state_dict())
        after = self._score(model, added)
        scores = np.empty(old)
        for fold in np.unique(self.old_folds):
            index = np.flatnonzero(self.old_folds == fold)
            tester = model
            if not self._tested_by_service(fold):
                tester = self._load(f"fold-{fold}.pt")
                self._teach(tester, added)
                self.child.save(f"fold-{fold}.pt", tester.state_dict())
            scores[index] = self._score(tester, index)
        unseen = np.full(len(added), np.nan)
        for fold in groups:
            tester = self._load("model.pt")
            self._teach(tester, added[new_folds != fold])
            self.child.save(f"fold-{fold}.pt", tester.state_dict())
            unseen[new_folds == fold] = self._score(tester, added[new_folds == fold])
        return _Tested(scores, before, unseen, after, replaced)

    def _tested_by_service(self, fold: int) -> bool:
        """A plain hold-out has one fold only, and no model of its own."""
        taught = sum(lesson.folds for lesson in self.parent.facts().lineage)
        return fold == 0 and len(np.unique(self.old_folds)) - taught == 1

    def _load(self, name: str) -> cfa.CFA:
        return load_model(self.parent, name, self.service.backbone, self.cache.device)

    def _teach(self, model: cfa.CFA, index: Index) -> int:
        replaced = teach(model, self.cache.batches(index), self.limit)
        self._done += 1
        self.on_step(Step("teaching", self._done, self._total))
        return replaced

    def _score(self, model: cfa.CFA, index: Index) -> Scores:
        settings, device = self.service.settings, self.cache.device
        return Scorer(self.service.backbone, model, settings, device).image_scores(
            self.cache, index
        )


def _split(picture: Index, *, first: int, facts: Facts) -> Index:
    """Fold of each added part, numbered from ``first``; -1 when there is one picture only.

    ``picture``: see :func:`group_copies`.
    """
    pictures = int(picture.max()) + 1
    if pictures == 1:
        return np.full(len(picture), -1, dtype=np.intp)
    order = np.random.default_rng([facts.settings.seed, 2, first]).permutation(pictures)
    fold_of = np.empty(pictures, dtype=np.intp)
    for fold, members in enumerate(np.array_split(order, min(MOST_FOLDS, pictures)), start=first):
        fold_of[members] = fold
    return fold_of[picture]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _check_targets(folder: Path, output: Path) -> None:
    if not folder.parent.is_dir():
        raise OutputError(f"{folder.parent}: no such folder; make it, or choose another one")
    check_output(output)
    if folder.exists():
        raise RunError(
            f"{folder}: is there already; remove it, or choose another folder with --run"
        )


def _photos(folder: Path) -> tuple[Path, ...]:
    """The photos to teach."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DatasetError(f"{folder}: {what}; name a folder of photos of good parts to teach")
    for layout in ("train", "test", "ground_truth"):
        if (folder / layout).is_dir():
            raise DatasetError(
                f"{folder}: holds a data set ('{layout}'), perhaps with defects; name a folder of "
                f"nothing but the good parts to teach"
            )
    paths = list_photos(folder)
    if not paths:
        raise DatasetError(
            f"{folder}: no images; put photos of the good parts there that were rejected "
            f"('inspector collect' takes them)"
        )
    for path in paths:
        if path.name.endswith(_PICTURES_OF_STATIONS):
            raise DatasetError(
                f"{path}: a heatmap, not a photo; remove it: teach whole camera frames, as "
                f"'inspector collect' takes them"
            )
    return paths


def _refuse_known(added: Sequence[Path], old: Sequence[Path], test: Path) -> None:
    """Photos of the run and of ``test``, the folder it is evaluated on, cannot be taught."""
    digests = [digest_file(path) for path in added]
    known: dict[bytes, str] = {}
    for path in list_photos(test):
        place = path.relative_to(test)
        fate = (
            "would be scored as unseen afterwards; remove it, or take it out of the test photos"
            if place.parts[0] == GOOD
            else "shows a defect, and would pass from now on; remove it"
        )
        known[digest_file(path)] = f"is the test photo {place.as_posix()}, {fate}"
    taught = (
        "the run knows this photo already; remove it and teach new ones, or raise the limit with "
        "'inspector-model calibrate'"
    )
    known |= {digest_file(path): taught for path in old}
    again = [i for i, digest in enumerate(digests) if digest in known]
    if again:
        more = f" (and {len(again) - 1} more)" if len(again) > 1 else ""
        raise DatasetError(f"{added[again[0]]}{more}: {known[digests[again[0]]]}")


def _load(paths: Sequence[Path], facts: Facts, on_step: OnStep) -> Frame8:
    geometry = facts.geometry
    images = np.empty((len(paths), geometry.height, geometry.width, 3), dtype=np.uint8)
    for i, path in enumerate(paths):
        images[i] = load_sample(Sample(path, GOOD, None), geometry).image
        on_step(Step("reading photos", i + 1, len(paths)))
    return images


def _check_light(paths: Sequence[Path], images: Frame8, learnt: Exposure) -> None:
    """A black picture taught as good would let every black frame pass."""
    low, high = learnt.brightness
    for path, image in zip(paths, images, strict=True):
        brightness = exposure(image)[0]
        if not low / _LIGHT <= brightness <= high * _LIGHT:
            raise ImageError(
                f"{path}: mean brightness {brightness:.0f}, the run's parts have {low:.0f} to "
                f"{high:.0f}; take the photo in their light, or remove it"
            )


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its name when all went well, and else is removed."""
    try:
        staging = Path(
            tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part")
        )
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from None
    try:
        staging.chmod(0o755)
        yield staging
        staging.replace(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy(paths: Sequence[Path], folder: Path) -> str:
    """Copy photos, numbered, so that the run does not depend on where they were; fingerprint."""
    copies = [folder / f"{i:04d}-{path.name[-60:]}" for i, path in enumerate(paths)]
    try:
        folder.mkdir(parents=True)
        for path, copy in zip(paths, copies, strict=True):
            shutil.copyfile(path, copy)
    except OSError as error:
        raise OutputError(
            f"{folder}: photos cannot be copied: {error.strerror}; free disk space"
        ) from None
    return fingerprint(copies, folder)


def _carry_over(parent: Run, child: Run, lesson: Lesson, data: Path) -> None:
    """What the child inherits; the parent's evaluation is of another model and stays behind."""
    facts = parent.facts()
    former = parent.folder / "added"
    try:
        for number in range(1, len(facts.lineage) + 1):
            shutil.copytree(former / str(number), child.folder / "added" / str(number))
        log = parent.folder / "epochs.jsonl"
        if log.exists():
            shutil.copyfile(log, child.folder / log.name)
    except OSError as error:
        raise OutputError(f"{child.folder}: cannot be written: {error}; free disk space") from None
    changed = facts.model_copy(
        update={
            "data": data.resolve(),
            "fingerprint": hashlib.sha256(
                f"{facts.fingerprint}+{lesson.fingerprint}".encode()
            ).hexdigest(),
            "parts": facts.parts + lesson.parts,
            "lineage": (*facts.lineage, lesson),
        }
    )
    child.write("run.json", changed.model_dump_json(indent=2).encode())
