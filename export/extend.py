"""Teach in: falsely rejected parts enter the memory bank of a finished run, without training."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.bundle.assemble import PrecisionChoice, check_output, export_bundle
from export.data.photos import one_each
from export.model.features import FeatureCache
from export.model.memory import MOST_REPLACED
from export.training.calibrate import calibrate
from export.training.lesson import LessonPhotos, read_lesson
from export.training.outliers import MAPS, measure_drawn
from export.training.run import Lesson, Run
from export.training.scorer import Scorer
from export.training.teacher import Teacher, Tested
from export.training.train import OnStep, Step, load_model, load_normaliser, load_scorer
from inspector.detection import fitness
from inspector.detection.manifest import Calibration, Manifest
from inspector.errors import OutputError, RunError

REPORT = "taught.json"
"""File of the extended run that tells what the lesson did, for programs."""
DOUBTFUL = 1.5
"""Good parts are seldom rejected at so many times the limit."""
TOLERANT = 1.1
"""A person is told when taught parts raise the limit by more than this factor."""


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
    """What an extension did.

    ``former`` is the parent's calibration. ``limit_otherwise`` is the raw limit that the other
    choice of ``pooled`` would have set.
    """

    run: Run
    manifest: Manifest
    parts: tuple[TaughtPart, ...]
    former: Calibration
    limit_otherwise: float
    choices: tuple[str, ...] = ()
    """Which precision was chosen, and why; none when it was named."""

    def document(self) -> dict[str, Any]:
        """What a program must know: ``taught.json`` (docs/teach-in.md)."""
        lineage, items = self.run.facts().lineage, self.manifest.cfa.bank_items
        return {
            "model": {"name": self.manifest.name, "version": self.manifest.version},
            "former_version": lineage[-1].parent_version,
            "parts": [dataclasses.asdict(part) for part in self.parts],
            "limit_before": self.former.threshold,
            "limit_now": self.manifest.calibration.threshold,
            "items": items,
            "items_replaced": lineage[-1].bank_replaced,
            "items_from_lessons": sum(lesson.bank_replaced for lesson in lineage),
            "items_from_lessons_at_most": int(MOST_REPLACED * items),
            "notes": self.lines(),
        }

    def lines(self) -> list[str]:
        """What a person must know, beside the scores."""
        lesson = self.run.facts().lineage[-1]
        old, limit = self.former.threshold, self.manifest.calibration.threshold
        items = self.manifest.cfa.bank_items
        lines = [
            f"taught {lesson.parts} parts: {lesson.bank_replaced} of {items} remembered patches "
            f"replaced",
            f"limit {old:.4g} -> {limit:.4g} ({limit / old - 1:+.1%}) in the model's own units",
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
                f"note: {replaced} of {items} remembered patches are from lessons, and fewer are "
                f"left for the parts trained on: train again soon, with the taught parts among them"
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
    the lowest that the held-out parts support, and ``name`` the model's, None for that of the run.
    The old held-out parts, scored again, set the limit. The taught parts do not, because they were
    picked from the tail of the scores and would put the limit too high; with ``pooled`` they count
    nevertheless. Run and bundle are both written whole or not at all. Raises
    :class:`TrainingError`.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    began = time.monotonic()
    outcome = parent.outcome()
    name = name or parent.model_name()
    _check_targets(folder, output)
    photos = read_lesson(parent, good, data, on_step)
    service = load_scorer(parent, device, weights)
    with _staged(folder) as staging:
        child = Run(staging)
        tested = _teach(parent, child, service, photos, on_step)
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        copies = _hand_down(
            parent, child, photos, tested, data=data, created=created, pooled=pooled
        )
        names = [*parent.names(photos.old, data), *child.names(copies, data)]
        drawn = _score_drawn(child, service, photos, on_step)
        calibration, golden = _set_limit(
            child,
            photos,
            tested,
            names=names,
            rate=rate,
            all_good=outcome.all_good,
            drawn=drawn,
        )
        finished = outcome.model_copy(
            update={
                "created": created,
                "train_seconds": round(time.monotonic() - began, 1),
                "calibration": calibration,
                "exposure": fitness.widen(outcome.exposure, photos.added_images),
                "golden": golden,
                "exported_as": name,
                "drawn": drawn,
            }
        )
        child.write("outcome.json", finished.model_dump_json(indent=2).encode())
        choices: list[str] = []
        manifest = export_bundle(
            child,
            load_scorer(child, torch.device("cpu"), weights),
            output,
            name=name,
            precision=precision,
            data=data,
            on_image=lambda done, total: on_step(Step("proving parity", done, total)),
            on_choice=choices.append,
        )
        report = Report(
            child,
            manifest,
            _score(photos, tested, outcome.calibration.threshold, calibration.threshold),
            outcome.calibration,
            _limit(child, rate, all_good=outcome.all_good, pooled=not pooled).threshold,
            tuple(choices),
        )
        child.write(REPORT, json.dumps(report.document(), indent=2, allow_nan=False).encode())
    return dataclasses.replace(report, run=Run(folder))


def _teach(
    parent: Run, child: Run, service: Scorer, photos: LessonPhotos, on_step: OnStep
) -> Tested:
    """Teach and test every model, on features that are taken once."""
    with FeatureCache(
        service.backbone,
        photos.images,
        device=service.device,
        cache_gb=service.settings.cache_gb,
        folder=child.folder,
        on_progress=lambda done, total: on_step(Step("backbone features", done, total)),
    ) as cache:
        teacher = Teacher(
            parent, child, cache, service, old_folds=photos.old_folds, on_step=on_step
        )
        return teacher.teach_and_test(photos.new_folds)


def _score_drawn(
    child: Run, service: Scorer, photos: LessonPhotos, on_step: OnStep
) -> tuple[float, ...]:
    """Scores of defects drawn on the first fold's parts, by its taught model."""
    first = "fold-0.pt" if (child.folder / "fold-0.pt").exists() else "model.pt"
    model = load_model(child, first, service.backbone, service.device)
    scorer = Scorer(
        service.backbone,
        model,
        service.settings,
        service.device,
        normaliser=load_normaliser(child),
    )
    drawn = measure_drawn(
        scorer.measure,
        photos.images[: len(photos.held)][photos.old_folds == 0],
        service.settings.seed,
        lambda done, total: on_step(Step("drawing defects", done, total)),
    )
    return tuple(round(score, 6) for score in scorer.peaks(drawn).tolist())


def _set_limit(
    child: Run,
    photos: LessonPhotos,
    tested: Tested,
    *,
    names: Sequence[str],
    rate: float | None,
    all_good: bool,
    drawn: Sequence[float],
) -> tuple[Calibration, tuple[int, ...]]:
    """Write ``heldout.csv``; the limit that follows from it, and which parts are the golden ones.

    ``names``: of all old parts, then of the added ones. Of copies of one picture the first counts.
    """
    old, new_folds = len(photos.held), photos.new_folds
    counted = one_each(np.flatnonzero(new_folds >= 0), photos.picture)
    rows = np.concatenate([np.arange(old), old + counted])
    index = np.concatenate([photos.held, len(photos.old) + np.arange(len(new_folds))])[rows]
    folds = np.concatenate([photos.old_folds, new_folds])[rows]
    scores = np.concatenate([tested.old, tested.unseen])[rows]
    child.write_held_out([names[i] for i in index], folds, scores)
    ranked = index[np.argsort(scores, kind="stable")]
    golden = int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])
    return _limit(child, rate, all_good=all_good, drawn=drawn), golden


def _limit(
    child: Run,
    rate: float | None,
    *,
    all_good: bool,
    pooled: bool | None = None,
    drawn: Sequence[float] = (),
) -> Calibration:
    folds, vouched = child.limit_folds(all_good=all_good, pooled=pooled)
    return calibrate(folds, rate, drawn=drawn, vouched=vouched)


def _score(
    photos: LessonPhotos, tested: Tested, former: float, limit: float
) -> tuple[TaughtPart, ...]:
    """The added parts' scores in units of the ``former`` and of the new ``limit``."""
    return tuple(
        TaughtPart(
            path.relative_to(photos.good).as_posix(),
            float(tested.before[i] / former),
            float(tested.unseen[i] / limit) if photos.new_folds[i] >= 0 else None,
            float(tested.after[i] / limit),
        )
        for i, path in enumerate(photos.added)
    )


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


def _hand_down(
    parent: Run,
    child: Run,
    photos: LessonPhotos,
    tested: Tested,
    *,
    data: Path,
    created: str,
    pooled: bool,
) -> tuple[Path, ...]:
    """Write what ``child`` has of its parent, and the lesson with copies of its photos.

    Returns the copies. The parent's evaluation is of another model and stays behind.
    """
    facts = parent.facts()
    added = child.folder / "added"
    copies, digest = photos.copy(added / str(len(facts.lineage) + 1))
    lesson = Lesson(
        created=created,
        parts=len(copies),
        fingerprint=digest,
        parent_version=parent.version(),
        parent_fingerprint=facts.fingerprint,
        bank_replaced=tested.replaced,
        folder=photos.good.resolve(),
        folds=len(np.unique(photos.new_folds[photos.new_folds >= 0])),
        pooled=pooled,
    )
    try:
        for number in map(str, range(1, len(facts.lineage) + 1)):
            shutil.copytree(parent.folder / "added" / number, added / number)
        for name in ("epochs.jsonl", MAPS):
            if (parent.folder / name).exists():
                shutil.copyfile(parent.folder / name, child.folder / name)
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
    return copies
