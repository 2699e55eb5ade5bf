"""Runs and bundles of versions that knew one scale mean what they meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle.describe import describe
from export.settings import BANK_ITEMS, TrainSettings
from export.training.run import Choice, Run
from export.training.train import load_scorer, train
from inspector.detection.manifest import Manifest
from inspector.errors import RunError
from tests import tiny
from tests.export.conftest import CPU, draw_part


def quiet(*_: object) -> None:
    pass


def make_older(run: Run, folder: Path, **settings: Any) -> Run:
    """A copy of ``run`` whose settings are written as a version without ``scales`` wrote them."""
    shutil.copytree(run.folder, folder)
    document = json.loads((folder / "run.json").read_text())
    del document["settings"]["scales"]
    document["settings"] |= settings
    (folder / "run.json").write_text(json.dumps(document))
    return Run(folder)


@pytest.mark.long
def test_an_older_run_has_one_scale_and_its_own_bank(trained: Run, tmp_path: Path) -> None:
    assert BANK_ITEMS != 4096
    older = make_older(trained, tmp_path / "a", bank_items=None).facts().settings
    assert (older.scales, older.items) == ((1.0,), 4096)
    older = make_older(trained, tmp_path / "b", bank_items=None, gamma_c=2.0).facts().settings
    assert (older.scales, older.bank_items, older.gamma_c) == ((1.0,), None, 2.0)
    older = make_older(trained, tmp_path / "c").facts().settings
    assert (older.scales, older.bank_items) == ((1.0,), trained.facts().settings.bank_items)
    assert trained.facts().settings.scales == (1.0, 0.5)


def test_an_older_run_still_judges_as_it_did(parts: Path, tmp_path: Path) -> None:
    one = TrainSettings(size=(64, 96), epochs=0, bank_items=48, folds=2, device="cpu", scales="1")
    run = train(parts, tmp_path / "run", one, resume=False, on_step=quiet)
    older = make_older(run, tmp_path / "older")
    pictures = np.stack([run.facts().geometry.apply(draw_part(7)[0])])
    expected = load_scorer(run, CPU)(pictures)[0]
    np.testing.assert_array_equal(load_scorer(older, CPU)(pictures)[0], expected)


def test_an_older_run_is_not_resumed_with_two_scales(
    parts: Path, trained: Run, tmp_path: Path
) -> None:
    older = make_older(trained, tmp_path / "older")
    (older.folder / "outcome.json").unlink()
    with pytest.raises(RunError, match=r"started with scales = \(1\.0,\), not \(1\.0, 0\.5\)"):
        train(parts, older.folder, trained.facts().settings, resume=True, on_step=quiet)


def test_an_older_choice_and_an_older_bundle_name_no_scales() -> None:
    candidate = {"size": (64, 64), "fit": "stretch", "strides": (16,), "sigma": 8.0, "gmacs": 1.0}
    candidate |= dict.fromkeys(
        ("signal", "image_auroc", "pixel_auroc", "behind", "standard_error"), 0.5
    )
    numbers = dict.fromkeys(("chosen", "bank_parts", "held_out", "defects", "kinds", "seconds"), 0)
    choice = Choice.model_validate({"candidates": [candidate], "reason": "", **numbers})
    assert choice.candidates[0].scales == (1.0,)
    document = tiny.manifest(tiny.model())
    assert "scales" not in document["cfa"]
    older = Manifest.model_validate(document)
    assert dict(describe(older))["network"].endswith("at full resolution")
    document["cfa"]["scales"] = (1.0, 0.5)
    newer = Manifest.model_validate(document)
    assert dict(describe(newer))["network"].endswith("at full and half resolution")
