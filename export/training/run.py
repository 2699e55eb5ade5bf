"""A training run's folder: what is in it, written so that nothing is ever half there."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from export.data.dataset import digest_file, fingerprint, open_good
from export.data.doubts import UnclearLayoutError
from export.data.layouts import Selection
from export.settings import ONE_SCALE, TrainSettings
from inspector.detection.manifest import Calibration, Exposure, Extension
from inspector.errors import OutputError, RunError, TrainingError
from inspector.files import output_errors, write_output
from inspector.imaging.geometry import Geometry
from inspector.shown import cell

Scores = npt.NDArray[np.float64]
_Model = TypeVar("_Model", bound=BaseModel)


OTHER_DATA: Final = "evaluation-"
"""Folders in the run's folder whose names begin so hold reports on other data."""

_AS_URL: Final = "file:"
"""Before an exact path, so that no spreadsheet takes a leading minus for a formula."""

NORMALISATION: Final = "normalisation.pt"

_OLDER_RUNS: Final[dict[str, Any]] = {"normalise": "none"}
"""How runs were made that do not have the setting yet; its default is another one now."""


class Candidate(BaseModel):
    """One set of settings and what it is worth by good parts alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    fit: Literal["stretch", "letterbox"]
    strides: tuple[int, ...]
    scales: tuple[float, ...] = (1.0,)
    """Absent in runs of older versions, which knew one scale."""
    sigma: float
    gmacs: float
    """Multiply-adds a part, in 10^9: backbone, descriptor and distances."""
    signal: float
    """Mean of the two figures below."""
    image_auroc: float
    pixel_auroc: float
    behind: float
    """How far the signal is below the best candidate's."""
    standard_error: float
    """Of ``behind``."""

    @property
    def as_good(self) -> bool:
        """True within one standard error of the best candidate."""
        return self.behind <= self.standard_error


class Choice(BaseModel):
    """How settings were found from good parts alone; ``candidates[chosen]`` was taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[Candidate, ...]
    chosen: int
    reason: str
    bank_parts: int
    held_out: int
    defects: int
    kinds: int
    left_out: tuple[str, ...] = ()
    """Kinds of defect that could not be drawn on these photos."""
    seconds: float


class Lesson(Extension):
    """One extension as the run's folder knows it; its photos are copied to ``added/<number>``."""

    folder: Path
    """Where the photos were taken from."""
    folds: int
    """Cross-fitting folds of the added parts; none for a single one."""
    pooled: bool
    """True: their scores count for the limit, beside those of the old parts."""


class Suspect(BaseModel):
    """A photo among the good parts that looks unlike the others (:mod:`export.training.outliers`).

    ``times``: how many times its score is that of a usual part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    times: float


class Facts(BaseModel):
    """What a run was started with; a resumed run must match it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    data: Path
    settings: TrainSettings
    geometry: Geometry
    fingerprint: str
    parts: int
    weights_sha256: str
    selection: Selection = Selection()
    """What a person said about which photos of the data set are the good parts."""
    choice: Choice | None = None
    """Where the settings come from, when they were chosen by ``--auto``."""
    lineage: tuple[Lesson, ...] = ()
    """Extensions since training, oldest first; ``parts`` counts theirs too."""

    @field_validator("settings", mode="before")
    @classmethod
    def _older(cls, value: Any) -> Any:
        """Settings of versions that knew no ``scales`` or ``normalise`` keep those' defaults."""
        if not isinstance(value, dict):
            return value
        if "scales" not in value:
            sized = value.get("bank_items") is not None or value.get("gamma_c") is not None
            value = value | ({"scales": (1.0,)} if sized else ONE_SCALE)
        return {**_OLDER_RUNS, **value}


class Outcome(BaseModel):
    """What a finished run knows beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: str
    train_seconds: float
    calibration: Calibration
    exposure: Exposure
    golden: tuple[int, ...]
    """Indices into the good parts: the lowest, middle and highest held-out score."""
    remarks: tuple[str, ...] = ()
    """What a person should know about the photos: copies, mixed sizes."""
    exported_as: str = ""
    """The ``--name`` that the last export gave the model; "" while it has that of the data."""
    suspects: tuple[Suspect, ...] = ()
    """Photos to look at, the most unusual first; () in older runs."""
    all_good: bool = False
    """A person has looked at the suspects and calls them good: the limit allows for them."""
    drawn: tuple[float, ...] = ()
    """Raw scores of synthetic defects, by which limits are compared; () in older runs."""


class HeldOutFolds(NamedTuple):
    """Raw held-out scores that set a limit, fold by fold.

    A person has looked at the parts of ``vouched`` and says that they are good.
    """

    folds: tuple[Scores, ...]
    vouched: tuple[Scores, ...]

    @property
    def pooled(self) -> Scores:
        """Scores of all folds."""
        return np.concatenate([*self.folds, *self.vouched])


@dataclass(frozen=True)
class Run:
    """The folder of one run.

    ``run.json`` facts, ``checkpoint-<fit>.pt`` each fit's last finished epoch, ``heldout.csv``,
    ``heldout-maps.npz`` what a report shows of good parts, ``epochs.jsonl``, ``model.pt``,
    ``normalisation.pt`` gain and offset of each grid position, or that there are none,
    ``fold-<k>.pt`` each cross-fitting fold's model, ``added/<n>/`` photos of the n-th extension,
    ``outcome.json`` (written last: the run is finished).
    """

    folder: Path

    def facts(self) -> Facts:
        """Raises :class:`RunError` when the folder is no run."""
        return self._read("run.json", Facts)

    def outcome(self) -> Outcome:
        """Raises :class:`RunError` when the run is not finished."""
        if not (self.folder / "outcome.json").exists():
            self.facts()
            raise RunError(
                f"{self.folder}: training is not finished; go on with "
                f"'inspector-model train DATA -o {self.folder} --resume'"
            )
        return self._read("outcome.json", Outcome)

    def model_name(self) -> str:
        """What the model is called in every verdict, as long as no ``--name`` says otherwise."""
        return self.outcome().exported_as or self.facts().name

    def version(self) -> str:
        """The model's version in every verdict: day and photos."""
        return f"{self.outcome().created[:10].replace('-', '')}-{self.facts().fingerprint[:8]}"

    def photos(self, data: Path, digest: Callable[[Path], bytes] = digest_file) -> tuple[Path, ...]:
        """All good parts of the run: those of ``data``, then those of each extension.

        Each is read once, by ``digest``, for the SHA-256 of its contents. Raises :class:`RunError`
        when they are not the photos the run was made of.
        """
        facts = self.facts()
        if not data.is_dir():
            raise RunError(
                f"{data}: the photos the run was trained on are not there; give their folder with "
                f"--data"
            )
        others = RunError(
            f"{data}: not the good parts the run was trained on; give their folder with --data"
        )
        try:
            good = open_good(data, facts.selection)
        except UnclearLayoutError:
            raise others from None
        trained = facts.lineage[0].parent_fingerprint if facts.lineage else facts.fingerprint
        if fingerprint(good, data, digest) != trained:
            raise others
        for number, lesson in enumerate(facts.lineage, start=1):
            folder = self.folder / "added" / str(number)
            added = tuple(sorted(folder.glob("[!.]*")))
            if fingerprint(added, folder, digest) != lesson.fingerprint:
                raise RunError(
                    f"{folder}: not the photos that were taught; extend the former run again"
                )
            good += added
        return good

    def is_of(self, data: Path) -> bool:
        """True when ``data`` is what the run was trained on, wherever it lies now."""
        if data.resolve() == self.facts().data.resolve():
            return True
        try:
            self.photos(data)
        except TrainingError:
            return False
        return True

    def names(self, photos: Sequence[Path], data: Path) -> list[str]:
        """What ``heldout.csv`` calls ``photos``: a path in ``data``, or in the run's folder."""
        roots = (self.folder / "added", self.folder), (data, data)
        return [
            next(path.relative_to(root) for below, root in roots if path.is_relative_to(below))
            .as_posix()
            .encode("utf-8", "backslashreplace")
            .decode()
            for path in photos
        ]

    def check(self, *, resume: bool) -> None:
        """Raise :class:`RunError` when a run cannot be started here, or there is none to resume."""
        if (self.folder / "run.json").exists():
            if not resume:
                raise RunError(
                    f"{self.folder}: holds a run already; choose another folder with -o, or go on "
                    f"with it by --resume"
                )
        elif resume:
            raise RunError(f"{self.folder}: nothing to resume; leave out --resume")
        elif self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder}: a file, not a folder; choose another name with -o")
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise RunError(f"{self.folder}: not empty and not a run; choose another folder")

    def start(self, facts: Facts, *, resume: bool) -> None:
        """Claim the folder. Raises :class:`RunError`, :class:`OutputError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made: {error.strerror}") from None
        self.check(resume=resume)
        if resume:
            self._match(self.facts(), facts)
        else:
            self.write("run.json", facts.model_dump_json(indent=2).encode())

    def restart(self, facts: Facts) -> None:
        """Begin a finished run anew, as ``facts`` say. Raises :class:`OutputError`."""
        self.forget_evaluations()
        for pattern in ("outcome.json", "*.pt", "epochs.jsonl", "heldout*"):
            self.remove(pattern)
        self.write("run.json", facts.model_dump_json(indent=2).encode())

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run atomically. Raises :class:`OutputError`."""
        write_output(self.folder / name, data)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a torch state."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.write(name, buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """A torch state, None when there is none. Raises :class:`RunError` when it is damaged."""
        path = self.folder / name
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
            raise RunError(f"{path}: damaged; remove it and train with --resume") from None
        return dict(state)

    def forget_evaluations(self) -> None:
        """Remove the figures and reports of what was evaluated at a former limit."""
        for name in ("evaluation.json", "scores.csv", "report.html"):
            self.remove(name)
            self.remove(f"{OTHER_DATA}*/{name}")

    def remove(self, pattern: str) -> None:
        """Remove files that a finished run no longer needs."""
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)

    def log_epoch(self, record: dict[str, float | int | str]) -> None:
        """Append one epoch to ``epochs.jsonl``."""
        path = self.folder / "epochs.jsonl"
        with output_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_held_out(self, paths: list[str], folds: npt.NDArray[np.intp], scores: Scores) -> None:
        """``heldout.csv``: path, fold and raw score under the model that has not seen it.

        Of copies of one picture the first only. ``exact_path`` is the path as a URL where ``path``
        shows it otherwise, so that it acts on no terminal or spreadsheet.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("path", "fold", "score", "exact_path"))
        for path, fold, score in zip(paths, folds, scores, strict=True):
            exact = "" if cell(path) == path else f"{_AS_URL}{quote(path)}"
            writer.writerow((cell(path), int(fold), repr(float(score)), exact))
        self.write("heldout.csv", text.getvalue().encode("utf-8", "backslashreplace"))

    def held_out(self) -> tuple[npt.NDArray[np.intp], Scores]:
        """Fold and raw score of every held-out part. Raises :class:`RunError`."""
        _, folds, scores = self.held_out_parts()
        return folds, scores

    def held_out_parts(self) -> tuple[list[str], npt.NDArray[np.intp], Scores]:
        """Name, fold and raw score of every held-out part. Raises :class:`RunError`."""
        path = self.folder / "heldout.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            # A run of an earlier version has no exact paths.
            exact = [(row.get("exact_path") or "").removeprefix(_AS_URL) for row in rows]
            names = [unquote(one) or row["path"] for one, row in zip(exact, rows, strict=True)]
            folds = np.array([int(row["fold"]) for row in rows], dtype=np.intp)
            scores = np.array([float(row["score"]) for row in rows], dtype=np.float64)
        except (OSError, KeyError, ValueError, TypeError):
            raise RunError(f"{path}: missing or damaged; train again") from None
        return names, folds, scores

    def limit_folds(self, *, all_good: bool, pooled: bool | None = None) -> HeldOutFolds:
        """The held-out scores that set the limit.

        Those of an extension's parts count when its lesson says so, of the last one when
        ``pooled`` does. They are good parts by a person's word, and with ``all_good`` (as
        :class:`Outcome` has it) the parts of the data set are, too. Raises :class:`RunError`.
        """
        folds, scores = self.held_out()
        lineage = self.facts().lineage
        first = len(np.unique(folds)) - sum(lesson.folds for lesson in lineage)
        counted = list(range(first))
        of_data = 0 if all_good else first
        for lesson in lineage:
            counts = lesson.pooled if pooled is None or lesson is not lineage[-1] else pooled
            if counts:
                counted += range(first, first + lesson.folds)
            first += lesson.folds
        parts = [scores[folds == fold] for fold in counted]
        return HeldOutFolds(tuple(parts[:of_data]), tuple(parts[of_data:]))

    def _read(self, name: str, model: type[_Model]) -> _Model:
        path = self.folder / name
        try:
            return model.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise RunError(
                f"{self.folder}: not a training run (no {name}); "
                f"make one with 'inspector-model train DATA -o {self.folder}'"
            ) from None
        except NotADirectoryError:
            is_bundle = self.folder.suffix.lower() == ".onnx"
            raise RunError(
                f"{self.folder}: {'a bundle' if is_bundle else 'a file'}, not a run; name the "
                f"folder that 'inspector-model train DATA -o RUN' made"
                f"{'; a bundle judges photos with inspector judge BUNDLE PHOTOS' * is_bundle}"
            ) from None
        except (OSError, ValidationError):
            raise RunError(f"{path}: damaged, or of another version; train again") from None

    def _match(self, old: Facts, new: Facts) -> None:
        before, now = old.settings.model_dump(), new.settings.model_dump()
        # Where and with how much memory it is computed does not change the model asked for.
        free = {"device", "cache_gb", "weights"}
        if isinstance(before["backbone"], Path) and isinstance(now["backbone"], Path):
            free.add("backbone")  # A file may have been moved: its SHA-256 is compared below.
        for key in before:
            if key not in free and before[key] != now[key]:
                raise RunError(
                    f"{self.folder}: was started with {key} = {before[key]}, not {now[key]}; "
                    f"resume with the same settings, or choose another folder"
                )
        if old.fingerprint != new.fingerprint:
            raise RunError(
                f"{self.folder}: was started with other photos than {new.data} now holds; choose "
                f"another folder"
            )
        if old.weights_sha256 != new.weights_sha256:
            raise RunError(f"{self.folder}: was started with other backbone weights")
