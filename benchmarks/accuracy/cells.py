"""Cells of the table: measured once, kept in a file each, found again."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.fitting import Trained
from benchmarks.accuracy.plan import Category, Cell
from benchmarks.figures import commit, machine
from export.evaluation.evaluate import evaluate, write_output
from export.training.calibrate import calibrate, prediction
from export.training.train import Step, pick_device
from inspector.detection.manifest import Calibration
from inspector.errors import OutputError


class Store:
    """Finished cells, a file each. ``any_code``: those of other versions of the code serve too."""

    def __init__(self, folder: Path, *, any_code: bool) -> None:
        self.folder, self.any_code = folder, any_code
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}; give --work") from None

    def path(self, cell: Cell) -> Path:
        return self.folder / f"{self._stem(cell)}-{cell.method.code}.json"

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """A damaged file is as good as none."""
        paths = [self.path(cell)]
        if self.any_code:
            others = self.folder.glob(f"{self._stem(cell)}-*.json")
            paths += sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in paths:
            try:
                found = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and found.get("spec") == cell.spec():
                return found
        return None

    def keep(self, cell: Cell, result: dict[str, Any]) -> None:
        write_output(self.path(cell), json.dumps(result, indent=1))

    def drop_unfinished(self) -> None:
        """Remove this process's folders of cells in progress that a Ctrl-C left behind."""
        # Ctrl-C may come while a folder is made or removed, when no `with` looks after it.
        for folder in self.folder.glob(f"{_in_progress()}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _stem(self, cell: Cell) -> str:
        text = json.dumps(cell.spec(), sort_keys=True)
        slug = re.sub(r"[^A-Za-z0-9_]+", "_", cell.category.name)[:40]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"{slug}-{cell.entry.method}-{cell.settings.seed}-{digest}"


def _in_progress() -> str:
    return f"in-progress-{os.getpid()}-"


def measure(cell: Cell, work: Path, on_step: Callable[[Step], None]) -> dict[str, Any]:
    """Train in a folder of its own below ``work``, then judge the test photos."""
    with tempfile.TemporaryDirectory(dir=work, prefix=_in_progress()) as folder:
        trained = cell.method.fit(cell.category.root, Path(folder), cell.settings, on_step)
        figures = judge(cell.category, trained, on_step)
    chosen = trained.settings
    return {
        "spec": cell.spec(),
        "backbone": chosen.backbone,
        "method": cell.entry.method,
        "seed": chosen.seed,
        "figures": figures,
        "input": f"{chosen.input[0]}x{chosen.input[1]} {chosen.fit}",
        "settings": chosen.model_dump(mode="json", include=set(cell.method.uses)),
        "calibration": trained.calibration.model_dump(mode="json"),
        "limit_from": trained.limit_from,
        "device": str(pick_device(chosen.device)),
        "code": cell.method.code,
        "commit": commit(),
        "machine": machine(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def judge(category: Category, trained: Trained, on_step: Callable[[Step], None]) -> dict[str, Any]:
    """The figures of one cell; None where a figure is undefined."""
    evaluation = evaluate(
        category.samples,
        trained.score,
        trained.geometry,
        lambda done, total: on_step(Step("judging test photos", done, total)),
        root=category.root,
    )
    summary, limit = evaluation.summary(), trained.calibration
    rejects, escapes = evaluation.false_rejects, evaluation.escapes
    predicted = None
    if rejects.total:
        predicted = prediction(limit.good_rejected, limit.good_parts, rejects.total)
    good, defective = evaluation.good_scores, evaluation.defective_scores
    limits = {
        "at_auto": limit_for(limit, auto_rate(limit.good_parts)),
        "at_1_percent": limit_for(limit, 0.01),
        # No good test part is rejected; nobody has this limit, as it needs the test photos.
        "at_oracle": float(np.nextafter(max(good), np.inf)) if good else None,
    }
    return {
        **{name: summary.get(name) for name in ("image_auroc", "pixel_auroc", "aupro", "f1")},
        "false_reject_rate": rejects.value,
        "false_rejects": rejects.hits,
        "good_parts": rejects.total,
        "predicted_rejects": predicted,
        "inside": None if predicted is None else predicted[0] <= rejects.hits <= predicted[1],
        "escape_rate": escapes.value,
        "escapes": escapes.hits,
        "defective_parts": escapes.total,
        **{f"escapes_{at}": escaped(defective, limits[at]) for at in limits},
        "auto_rate": auto_rate(limit.good_parts),
        "faults": len(evaluation.faults),
        "unmasked": evaluation.unmasked,
        "train_seconds": trained.seconds,
        "head_ms": trained.time_head(),
        "items": trained.items,
        "megabytes": trained.megabytes,
    }


def auto_rate(n: int) -> float:
    """The lowest false-reject rate that ``n`` held-out parts support without extrapolation.

    1 / (n + 1), but no less than 0.5 %: with ever more parts the limit would creep up with the
    highest of them.
    """
    return max((1.0 + 1e-9) / (n + 1), 0.005)


def limit_for(calibration: Calibration, rate: float) -> float:
    """The limit that the same held-out parts give for ``rate``, in units of the limit they gave."""
    return calibrate([np.array(calibration.scores)], rate).threshold


def escaped(defective: Sequence[float], limit: float | None) -> float | None:
    """The share of ``defective`` scores below ``limit``; None when there are none, or no limit."""
    if limit is None or not defective:
        return None
    return float(np.mean(np.asarray(defective) < limit))
