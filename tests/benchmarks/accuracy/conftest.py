"""Two small categories, and the options that make the table quick."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.export.conftest import write_parts

QUICK = [
    *("--set", "size=64"),
    *("--set", "epochs=1"),
    *("--set", "bank_items=24"),
    *("--set", "folds=2"),
    *("--set", "cfa-authors:size=64"),
    *("--set", "cfa-authors:epochs=1"),
    *("--backbones", "efficientnet_lite0"),
    *("--device", "cpu"),
]


def command(data: Path, place: Path, *more: str) -> list[str]:
    return [str(data), "--work", str(place / "work"), "--out", str(place / "out"), *QUICK, *more]


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories; nobody drew masks for the second."""
    root = tmp_path_factory.mktemp("categories")
    write_parts(root / "masked", good=14, test_good=3, defective=2)
    write_parts(root / "more" / "unmasked", good=12, test_good=2, defective=2)
    shutil.rmtree(root / "more" / "unmasked" / "ground_truth")
    return root
