"""The table: resumable, the same whatever the test photos, and every failure told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import cells, literature, methods, plan, report
from tests.benchmarks.accuracy.conftest import command
from tests.export.conftest import write_parts
from tests.running import environment

# The fixture of the first test measures 22 cells, which other work on the machine makes slow.
pytestmark = pytest.mark.timeout(300)

ALL_CELLS = 2 * (2 + 2 + 2 + 1 + 1 + 1 + 2)


def document(place: Path) -> dict[str, Any]:
    return dict(json.loads((place / "out" / "accuracy.json").read_text()))


def figures(place: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """By category, row and seed; without what a clock measures."""
    return {
        (cell["category"], cell["row"], cell["seed"]): {
            name: value
            for name, value in cell["figures"].items()
            if name not in {"train_seconds", "head_ms"}
        }
        for cell in document(place)["cells"]
    }


@pytest.fixture(scope="module")
def measured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measured")
    line = command(data, place, "--seeds", "2", "--variant", "wide:strides=4,8,epochs=0")
    assert accuracy.main(line) == 0
    return place


def test_every_category_method_and_seed_is_measured(measured: Path) -> None:
    found = {(row["category"], row["row"]): row for row in document(measured)["rows"]}
    rows = [*methods.METHODS, "wide"]
    categories = ["masked", "more/unmasked", report.ALL]
    assert list(found) == [(category, row) for category in categories for row in rows]
    for (_, row), content in found.items():
        every = {"cfa", "auto", "cfa-authors", "wide"}
        assert content["seeds"] == ([0, 1] if row in every else [0])
    assert len(figures(measured)) == ALL_CELLS


def test_rows_are_mean_and_spread_of_their_cells(measured: Path) -> None:
    cells = figures(measured)
    for row in document(measured)["rows"]:
        if row["category"] == report.ALL:
            values = [
                np.mean([cells[name, row["row"], seed]["image_auroc"] for name in names])
                for seed in row["seeds"]
                for names in [("masked", "more/unmasked")]
            ]
        else:
            values = [
                cells[row["category"], row["row"], seed]["image_auroc"] for seed in row["seeds"]
            ]
        assert row["mean"]["image_auroc"] == pytest.approx(np.mean(values))
        spread = row["spread"]["image_auroc"]
        if len(values) == 1:
            assert spread is None
        else:
            assert spread == pytest.approx(np.std(values, ddof=1))


def test_a_category_without_masks_has_no_pixel_figures(measured: Path) -> None:
    for (category, _, _), cell in figures(measured).items():
        unmasked = category == "more/unmasked"
        assert (cell["pixel_auroc"] is None) == (cell["aupro"] is None) == unmasked
        assert cell["unmasked"] == (4 if unmasked else 0)
        assert 0.0 <= cell["image_auroc"] <= 1.0
    lines = (measured / "out" / "accuracy.md").read_text().splitlines()
    assert any(line.startswith("| more/unmasked | padim") and "| – |" in line for line in lines)


def test_counts_agree_with_rates_and_prediction(measured: Path) -> None:
    for cell in figures(measured).values():
        assert cell["good_parts"] in {2, 3}
        assert cell["defective_parts"] == 4
        assert cell["false_reject_rate"] == cell["false_rejects"] / cell["good_parts"]
        assert cell["escape_rate"] == cell["escapes"] / 4
        low, high = cell["predicted_rejects"]
        assert cell["inside"] == (low <= cell["false_rejects"] <= high)
        assert cell["faults"] == 0


def test_escapes_are_ordered_as_their_limits(measured: Path) -> None:
    for cell in document(measured)["cells"]:
        found, n = cell["figures"], cell["calibration"]["good_parts"]
        # Of so few parts the auto rate is higher than 1 %, so its limit is lower.
        assert found["auto_rate"] == pytest.approx(1 / (n + 1))
        assert 0.0 <= found["escapes_at_auto"] <= found["escapes_at_1_percent"] <= 1.0
        # The run asked for 1 %, too.
        assert found["escapes_at_1_percent"] == found["escape_rate"]
        assert 0.0 <= found["escapes_at_oracle"] <= 1.0
        if found["false_rejects"]:
            assert found["escapes_at_oracle"] >= found["escape_rate"]
        else:
            assert found["escapes_at_oracle"] <= found["escape_rate"]
        assert found["head_ms"] > 0
    row = document(measured)["rows"][0]
    assert row["mean"]["head_ms"] > 0
    assert "head ms" in (measured / "out" / "accuracy.md").read_text()


def test_papers_are_quoted_for_their_own_test_set_only(measured: Path) -> None:
    assert literature.published("mvtec/bottle", "patchcore", (20, 63)).image == 1.0
    assert literature.published("bottle", "padim", (20, 63)).image is None
    assert literature.published("bottle", "patchcore", (3, 63)) is None
    assert literature.published("bottle", "cfa", (20, 63)) is None
    for published in literature._FIGURES.values():
        assert published.source in literature.SOURCES
    cells = [dict(cell) for cell in document(measured)["cells"] if cell["row"] == "padim"]
    for cell in cells:
        cell["category"] = "bottle"
        cell["figures"] = cell["figures"] | {"good_parts": 20, "defective_parts": 63}
    (row,) = report.summarise(cells)
    assert row.literature == literature.published("bottle", "padim", (20, 63))
    assert "| – | 0.983 | Defard 2021 |" in report._line(row, 1)
    assert all(row["literature"] is None for row in document(measured)["rows"])


def test_a_kept_cell_without_a_figure_leaves_it_empty(measured: Path) -> None:
    cells = [dict(cell) for cell in document(measured)["cells"] if cell["row"] == "padim"]
    for cell in cells:
        cell["figures"] = {k: v for k, v in cell["figures"].items() if k != "head_ms"}
    assert all(row.mean["head_ms"] is None for row in report.summarise(cells))


def test_results_name_no_folder_of_this_machine(data: Path, measured: Path) -> None:
    for name in ("accuracy.json", "accuracy.md"):
        text = (measured / "out" / name).read_text()
        assert str(data) not in text
        assert str(measured) not in text
        assert str(Path.home()) not in text
    picture = (measured / "out" / "accuracy.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_a_second_run_reuses_every_cell(
    data: Path, measured: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (measured / "work").iterdir()}
    first = document(measured)
    line = command(data, measured, "--seeds", "2", "--variant", "renamed:strides=4,8,epochs=0")
    assert accuracy.main(line) == 0
    assert f"{ALL_CELLS} of {ALL_CELLS} cells reused" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (measured / "work").iterdir()} == before
    for old, new in zip(first["cells"], document(measured)["cells"], strict=True):
        assert new == old | {"row": new["row"]}
        assert new["row"] == old["row"].replace("wide", "renamed")


def test_only_what_is_missing_or_damaged_is_measured(
    data: Path, measured: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(measured / "work", tmp_path / "work")
    missing, damaged = sorted((tmp_path / "work").glob("*padim*"))
    missing.unlink()
    damaged.write_text(damaged.read_text()[:100])
    line = command(data, tmp_path, "--methods", "padim,patchcore")
    assert accuracy.main(line) == 0
    assert "2 of 4 cells reused" in capfd.readouterr().err
    assert missing.exists()
    old = figures(measured)
    assert figures(tmp_path) == {key: old[key] for key in figures(tmp_path)}


def test_changed_code_photos_or_settings_are_measured_anew(
    data: Path, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = plan.parser().parse_args(command(data, measured, "--methods", "padim"))
    store = cells.Store(measured / "work", any_code=False)
    tolerant = cells.Store(measured / "work", any_code=True)
    (entry,), shared = plan.plan(options)
    category = plan.load(plan.find_categories(data, ["masked"])[0])
    networks, _ = plan.find_backbones(["efficientnet_lite0"], shared)
    (cell,) = plan.plan_cells(category, networks, [entry], shared, (0,))
    assert store.find(cell) is not None
    assert store.find(replace(cell, settings=cell.settings.model_copy(update={"epochs": 9})))
    for key, value in (("fit", "letterbox"), ("false_reject", 0.02), ("folds", 3), ("seed", 7)):
        changed = cell.settings.model_copy(update={key: value})
        assert tolerant.find(replace(cell, settings=changed)) is None
    copy = tmp_path / "masked"
    shutil.copytree(data / "masked", copy)
    shutil.copy(copy / "test" / "stain" / "000.png", copy / "test" / "good" / "000.png")
    other = plan.load(plan.Category("masked", copy))
    assert tolerant.find(replace(cell, category=other)) is None
    changed_code = replace(methods.METHODS["padim"], code="0" * 16)
    monkeypatch.setitem(methods.METHODS, "padim", changed_code)
    assert store.find(cell) is None
    assert tolerant.find(cell) is not None


def test_again_measures_anew(data: Path, measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured / "work", tmp_path / "work")
    line = command(data, tmp_path, "--methods", "patchcore-14", "--categories", "masked")
    path = next((tmp_path / "work").glob("masked-patchcore-14-*"))
    before = path.stat().st_mtime_ns
    assert accuracy.main([*line, "--again"]) == 0
    assert path.stat().st_mtime_ns > before
    key = ("masked", "patchcore-14", 0)
    assert figures(tmp_path) == {key: figures(measured)[key]}


def test_an_interrupt_loses_only_the_cell_in_progress(
    data: Path, measured: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = command(data, tmp_path, "--methods", "cfa,padim", "--seeds", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.accuracy", *line],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    work, deadline = tmp_path / "work", time.monotonic() + 60
    while not list(work.glob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == accuracy.INTERRUPTED
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not list(work.glob("in-progress-*"))
    assert not (tmp_path / "out").exists()
    kept = len(list(work.iterdir()))
    assert 1 <= kept < 6
    assert accuracy.main(line) == 0
    assert f"{kept} of 6 cells reused" in capfd.readouterr().err
    old = figures(measured)
    assert figures(tmp_path) == {key: old[key] for key in figures(tmp_path)}


def test_a_folder_that_a_ctrl_c_left_behind_is_removed(tmp_path: Path) -> None:
    store = cells.Store(tmp_path, any_code=False)
    (tmp_path / f"in-progress-{os.getpid()}-x" / "run").mkdir(parents=True)
    (tmp_path / "in-progress-1-of-another-process").mkdir()
    (tmp_path / "kept.json").write_text("{}")
    store.drop_unfinished()
    assert {path.name for path in tmp_path.iterdir()} == {
        "in-progress-1-of-another-process",
        "kept.json",
    }


def test_a_failing_cell_says_why_and_the_others_go_on(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(data / "masked", root / "fine")
    shutil.copytree(data / "masked", root / "broken")
    next((root / "broken" / "train" / "good").iterdir()).write_bytes(b"no picture")
    write_parts(root / "few", good=3, test_good=1, defective=1)
    assert accuracy.main(command(root, tmp_path, "--methods", "padim")) == 1
    said = [ln for ln in capfd.readouterr().err.splitlines() if "failed:" in ln]
    assert len(said) == 2
    result = document(tmp_path)
    assert [cell["category"] for cell in result["cells"]] == ["fine"]
    few, broken = result["failed"]
    assert few.startswith("few: DATA_ROOT/few/train/good: 3 good parts")
    assert broken.startswith("broken, efficientnet_lite0, padim, seed 0: DATA_ROOT/broken/train")
    assert str(tmp_path) not in (tmp_path / "out" / "accuracy.json").read_text()


def test_odd_test_photos_are_faults_and_damaged_ones_are_found_before_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    for name in ("damaged", "mask", "odd"):
        shutil.copytree(data / "masked", root / name)
    photo = root / "damaged" / "test" / "scratch" / "001.png"
    photo.write_bytes(photo.read_bytes()[:-50])
    mask = root / "mask" / "ground_truth" / "stain" / "000_mask.png"
    cv2.imwrite(str(mask), np.ones((9, 9), np.uint8))
    cv2.imwrite(str(root / "odd" / "test" / "good" / "000.png"), np.zeros((80, 300, 3), np.uint8))
    grey = root / "odd" / "test" / "stain" / "000.png"
    cv2.imwrite(str(grey), cv2.imread(str(grey), cv2.IMREAD_GRAYSCALE))
    begun: list[str] = []
    measure = accuracy.measure

    def told(cell: plan.Cell, *rest: Any) -> dict[str, Any]:
        begun.append(cell.category.name)
        return measure(cell, *rest)

    monkeypatch.setattr(accuracy, "measure", told)
    assert accuracy.main(command(root, tmp_path, "--methods", "padim")) == 1
    assert begun == ["odd"]
    result = document(tmp_path)
    first, second = result["failed"]
    assert first.startswith("damaged: DATA_ROOT/damaged/test/scratch/001.png: ")
    assert second.startswith("mask: DATA_ROOT/mask/ground_truth/stain/000_mask.png: mask is 9x9 px")
    (cell,) = result["cells"]
    assert cell["figures"]["faults"] == 2
    assert (cell["figures"]["good_parts"], cell["figures"]["defective_parts"]) == (2, 3)


def test_test_photos_change_no_model_and_no_limit(
    data: Path, measured: Path, tmp_path: Path
) -> None:
    root = tmp_path / "masked"
    shutil.copytree(data / "masked", root)
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "ground_truth")
    other = write_parts(tmp_path / "other", good=0, test_good=4, defective=1)
    shutil.copytree(other / "test", root / "test")
    assert accuracy.main(command(root, tmp_path, "--seeds", "1")) == 0
    before = {
        cell["row"]: cell["calibration"]
        for cell in document(measured)["cells"]
        if cell["category"] == "masked" and cell["seed"] == 0
    }
    after = {cell["row"]: cell["calibration"] for cell in document(tmp_path)["cells"]}
    assert set(after) == set(methods.METHODS)
    assert after == {row: before[row] for row in after}
