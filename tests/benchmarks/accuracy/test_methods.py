"""What all methods share: copies of a picture are one part, and a cell hangs on its code."""

from __future__ import annotations

import importlib.util
import inspect
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import authors, methods, rivals
from benchmarks.accuracy.fitting import GoodParts
from export.settings import TrainSettings
from export.training.scorer import Scorer
from tests.export.conftest import write_parts


def quiet(step: object) -> None:
    pass


def test_copies_of_a_picture_are_held_out_together(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "parts", good=12, test_good=1, defective=1)
    for i in range(6):
        shutil.copy(root / "train" / "good" / "000.png", root / "train" / "good" / f"copy{i}.png")
    chosen = TrainSettings(size=(64, 64), device="cpu")
    with GoodParts(root, tmp_path, chosen, quiet) as parts:
        folds, held = parts.folds(5), parts.hold_out(0.2)
    copies = {0, *range(12, 18)}
    assert sorted(np.concatenate(folds).tolist()) == list(range(18))
    for index in (*folds, held):
        assert copies <= set(index.tolist()) or not copies & set(index.tolist())


def test_copies_of_a_picture_are_one_part_of_the_limit(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "parts", good=12, test_good=1, defective=1)
    for path in list((root / "train" / "good").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    plain = TrainSettings(size=(64, 64), epochs=0, device="cpu")
    theirs = authors.recipe(plain).model_copy(update={"size": (64, 64), "epochs": 0})
    for name, fit, chosen, expected in (
        ("rival", rivals.fitted(rivals.PaDiM.fit), plain, 12),
        ("authors", authors.fit, theirs, 2),
    ):
        (tmp_path / name).mkdir()
        trained = fit(root, tmp_path / name, chosen, quiet)
        assert trained.calibration.good_parts == expected


def test_our_cell_hangs_on_every_module_of_training_but_those_set_aside() -> None:
    hashed = {path.stem for path in methods._OURS}
    assert hashed >= {"backbone", "calibrate", "cfa", "dataset", "evaluate", "graph", "features"}
    assert hashed >= {"metrics", "settings", "train"}
    assert not hashed & {"auto", "charts", "report", "trial"}


def test_the_authors_cell_hangs_on_how_it_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inspect.getsource

    def changed(part: Any) -> str:
        return whole(part) + ("# changed" if part is Scorer else "")

    def load(name: str) -> str:
        spec = importlib.util.spec_from_file_location(name, methods.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return str(module.METHODS["cfa-authors"].code)

    assert load("methods_again") == methods.METHODS["cfa-authors"].code
    monkeypatch.setattr(inspect, "getsource", changed)
    assert load("methods_changed") != methods.METHODS["cfa-authors"].code
