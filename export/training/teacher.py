"""Teaching without training: parts enter the memory banks of a run, and every model is tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.data.photos import Index
from export.model import cfa
from export.model.features import FeatureCache
from export.model.memory import teach
from export.model.normalise import Normaliser
from export.training.run import Run, Scores
from export.training.scorer import Scorer
from export.training.train import OnStep, Step, keep_normaliser, load_model

MOST_FOLDS = 5
"""Added parts are cross-fitted in at most so many folds; fewer parts are left out one by one."""


@dataclass(frozen=True)
class Tested:
    """Raw scores of the held-out parts of the run, and of the parts that were added.

    ``old``: held-out parts, each by a taught model that has not seen it. Of added parts ``before``
    is the score by the model as it was, ``after`` by the taught one, and ``unseen`` by the model
    that was taught the others only (NaN if it was not tested). ``replaced``: items of the bank.
    """

    old: Scores
    before: Scores
    unseen: Scores
    after: Scores
    replaced: int


def split_added(picture: Index, *, first: int, seed: int) -> Index:
    """Fold of each added part, numbered from ``first``; -1 when there is one picture only.

    ``picture``: see :func:`export.data.photos.group_copies`.
    """
    pictures = int(picture.max()) + 1
    if pictures == 1:
        return np.full(len(picture), -1, dtype=np.intp)
    order = np.random.default_rng([seed, 2, first]).permutation(pictures)
    fold_of = np.empty(pictures, dtype=np.intp)
    for fold, members in enumerate(np.array_split(order, min(MOST_FOLDS, pictures)), start=first):
        fold_of[members] = fold
    return fold_of[picture]


class Teacher:
    """Teaches the model in service and every fold's, and tests each on parts it has not seen.

    ``cache`` holds the run's held-out parts, whose folds are ``old_folds``, then the added ones.
    Taught models are written to ``child``.
    """

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

    def teach_and_test(self, new_folds: Index) -> Tested:
        """Teach every model, write it to the child run, and score each on parts new to it.

        ``new_folds`` ``[A]``: fold of each added part, -1 for one that no model can be tested on.
        """
        old = len(self.old_folds)
        added = old + np.arange(len(new_folds))
        groups = np.unique(new_folds[new_folds >= 0])
        self._total = 1 + len(np.unique(self.old_folds)) + len(groups)
        before = self._score(self._load("model.pt"), added, self.service.normaliser)
        model = self._load("model.pt")
        replaced = self._teach(model, added)
        self.child.save("model.pt", model.state_dict())
        distances = np.empty((old, *self.service.settings.grid), dtype=np.float32)
        for fold in np.unique(self.old_folds):
            index = np.flatnonzero(self.old_folds == fold)
            tester = model
            if not self._tested_by_service(fold):
                tester = self._load(f"fold-{fold}.pt")
                self._teach(tester, added)
                self.child.save(f"fold-{fold}.pt", tester.state_dict())
            distances[index] = self._scorer(tester).distances(self.cache, index)
        # Taught parts were picked for their high distances: they give no statistics.
        trained = self.old_folds < len(np.unique(self.old_folds)) - self._taught_folds()
        scorer = self._scorer(model)
        normaliser, scores = None, scorer.peaks(distances)
        if self.service.normaliser is not None:
            normaliser, scores = scorer.score_held_out(distances, trained)
        keep_normaliser(self.child, self.service.settings, normaliser)
        after = self._score(model, added, normaliser)
        unseen = np.full(len(added), np.nan)
        for fold in groups:
            tester = self._load("model.pt")
            self._teach(tester, added[new_folds != fold])
            self.child.save(f"fold-{fold}.pt", tester.state_dict())
            unseen[new_folds == fold] = self._score(tester, added[new_folds == fold], normaliser)
        return Tested(scores, before, unseen, after, replaced)

    def _tested_by_service(self, fold: int) -> bool:
        """A plain hold-out has one fold only, and no model of its own."""
        return fold == 0 and len(np.unique(self.old_folds)) - self._taught_folds() == 1

    def _taught_folds(self) -> int:
        """How many of the old folds, the last ones, are those of earlier lessons."""
        return sum(lesson.folds for lesson in self.parent.facts().lineage)

    def _load(self, name: str) -> cfa.CFA:
        return load_model(self.parent, name, self.service.backbone, self.cache.device)

    def _teach(self, model: cfa.CFA, index: Index) -> int:
        replaced = teach(model, self.cache.batches(index), self.limit, self.service.normaliser)
        self._done += 1
        self.on_step(Step("teaching", self._done, self._total))
        return replaced

    def _score(self, model: cfa.CFA, index: Index, normaliser: Normaliser | None) -> Scores:
        return self._scorer(model, normaliser).image_scores(self.cache, index)

    def _scorer(self, model: cfa.CFA, normaliser: Normaliser | None = None) -> Scorer:
        settings, device = self.service.settings, self.cache.device
        return Scorer(self.service.backbone, model, settings, device, normaliser=normaliser)
