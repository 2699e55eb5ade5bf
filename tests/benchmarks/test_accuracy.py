"""The accuracy benchmark: resumable, the same whatever the test photos, and honest rivals."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
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
import torch

from export.model import cfa
from export.settings import TrainSettings
from export.training.train import Scorer
from inspector.errors import ConfigError, DatasetError
from tests.export.conftest import write_parts
from tests.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import accuracy  # noqa: E402
import accuracy_methods as methods  # noqa: E402
import accuracy_plan as planning  # noqa: E402
import accuracy_report as report  # noqa: E402
import accuracy_rivals as rivals  # noqa: E402

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
ALL_CELLS = 2 * (2 + 2 + 2 + 1 + 1 + 1 + 2)


def quiet(step: object) -> None:
    pass


def command(data: Path, place: Path, *more: str) -> list[str]:
    return [str(data), "--work", str(place / "work"), "--out", str(place / "out"), *QUICK, *more]


def document(place: Path) -> dict[str, Any]:
    return dict(json.loads((place / "out" / "accuracy.json").read_text()))


def figures(place: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """By category, row and seed; without what a clock measures."""
    return {
        (cell["category"], cell["row"], cell["seed"]): {
            name: value for name, value in cell["figures"].items() if name != "train_seconds"
        }
        for cell in document(place)["cells"]
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories; nobody drew masks for the second."""
    root = tmp_path_factory.mktemp("categories")
    write_parts(root / "masked", good=14, test_good=3, defective=2)
    write_parts(root / "more" / "unmasked", good=12, test_good=2, defective=2)
    shutil.rmtree(root / "more" / "unmasked" / "ground_truth")
    return root


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
    options = planning.parser().parse_args(command(data, measured, "--methods", "padim"))
    store = accuracy.Store(measured / "work", any_code=False)
    tolerant = accuracy.Store(measured / "work", any_code=True)
    (entry,), shared = planning.plan(options)
    category = planning.load(planning.find_categories(data, ["masked"])[0])
    networks, _ = planning.find_backbones(["efficientnet_lite0"], shared)
    (cell,) = planning.plan_cells(category, networks, [entry], shared, (0,))
    assert store.find(cell) is not None
    assert store.find(replace(cell, settings=cell.settings.model_copy(update={"epochs": 9})))
    for key, value in (("fit", "letterbox"), ("false_reject", 0.02), ("folds", 3), ("seed", 7)):
        changed = cell.settings.model_copy(update={key: value})
        assert tolerant.find(replace(cell, settings=changed)) is None
    copy = tmp_path / "masked"
    shutil.copytree(data / "masked", copy)
    shutil.copy(copy / "test" / "stain" / "000.png", copy / "test" / "good" / "000.png")
    other = planning.load(planning.Category("masked", copy))
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
        [sys.executable, str(BENCHMARKS / "accuracy.py"), *line],
        stderr=subprocess.PIPE,
        text=True,
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

    def told(cell: planning.Cell, *rest: Any) -> dict[str, Any]:
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


def test_rivals_see_the_input_of_our_model(data: Path, tmp_path: Path) -> None:
    more = ("--set", "fit=letterbox", "--set", "size=64x96", "--variant", "v:size=96,fit=stretch")
    options = planning.parser().parse_args(command(data, tmp_path, *more))
    entries, shared = planning.plan(options)
    inputs = {entry.name: entry.settings(shared) for entry in entries}
    for name in ("cfa", "patchcore", "patchcore-14", "padim"):
        assert (inputs[name].size, inputs[name].fit) == ((64, 96), "letterbox")
    assert (inputs["v"].size, inputs["v"].fit, inputs["v"].epochs) == ((96, 96), "stretch", 1)
    authors = inputs["cfa-authors"]
    assert (authors.size, authors.fit, authors.strides) == ((64, 64), "stretch", (4, 8, 16))
    assert authors.bank_init == "mean"
    assert all(made.false_reject == 0.01 for made in inputs.values())


def test_the_authors_recipe_is_theirs_to_the_field() -> None:
    base = TrainSettings(
        backbone="resnet18", size=(64, 64), epochs=9, seed=7, false_reject=0.02, folds=3
    )
    assert methods.authors_settings(base).model_dump() == {
        "backbone": "resnet18",
        "weights": None,
        "size": (224, 224),
        "region": None,
        "fit": "stretch",
        "strides": (4, 8, 16),
        "standardise": False,
        "descriptor_init": "random",
        "gamma_d": 1.0,
        "descriptor_width": None,
        "bank_init": "mean",
        "gamma_c": 1.0,
        "bank_items": None,
        "neighbours": 3,
        "hard_negatives": 3,
        "alpha": 0.1,
        "nu": 1e-3,
        "radius": 1e-5,
        "epochs": 30,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "weight_decay": 5e-4,
        "sigma": 4.0,
        "false_reject": 0.02,
        "folds": 5,
        "seed": 7,
        "device": "auto",
        "cache_gb": 4.0,
    }


@pytest.mark.parametrize("sigma", [None, 3.0])
def test_rivals_maps_are_smoothed_as_ours(data: Path, tmp_path: Path, sigma: float | None) -> None:
    targets: list[rivals.Target] = []

    def make(*arguments: Any) -> rivals.Rival:
        targets.append(arguments[2])
        return rivals.PaDiM.fit(*arguments)

    chosen = TrainSettings(size=(64, 96), sigma=sigma, folds=2, device="cpu")
    trained = methods.fit_rival(make)(data / "masked", tmp_path, chosen, quiet)
    assert targets == [rivals.Target((64, 96), trained.settings.sigma_px)] * 3
    assert trained.settings.sigma_px == (8.0 if sigma is None else sigma)


def test_the_command_printed_says_that_other_code_served(data: Path, tmp_path: Path) -> None:
    for more in ([], ["--any-code"]):
        options = planning.parser().parse_args(command(data, tmp_path, *more))
        assert ("--any-code" in planning.command(options).split()) == bool(more)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--set", "bank=3"), "no setting bank"),
        (("--set", "size"), "expected KEY=VALUE"),
        (("--set", "size=65"), "multiples of 32"),
        (("--set", "seed=3"), "--seeds"),
        (("--set", "padin:size=64"), "no method padin"),
        (("--variant", "epochs=3"), "expected NAME:"),
        (("--variant", "padim:epochs=3"), "name of another row"),
        (("--methods", "padin"), "there are cfa,"),
        (("--false-reject", "80%"), "share below 50%"),
    ],
)
def test_a_wrong_option_is_named(
    data: Path, tmp_path: Path, option: tuple[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        planning.plan(planning.parser().parse_args([*command(data, tmp_path), *option]))


def test_settings_with_commas_are_one_value() -> None:
    found = planning.pairs("strides=4,8,16,epochs=2,region=1,2,3,4,bank_items=none", "--set")
    assert found == {
        "strides": "4,8,16",
        "epochs": "2",
        "region": "1,2,3,4",
        "bank_items": None,
    }
    assert [planning.seeds(text) for text in ("3", "0,2", "4,")] == [(0, 1, 2), (0, 2), (4,)]


def test_data_root_may_be_a_category_itself(data: Path, tmp_path: Path) -> None:
    assert [c.name for c in planning.find_categories(data, None)] == ["masked", "more/unmasked"]
    assert [c.name for c in planning.find_categories(data / "masked", None)] == ["masked"]
    with pytest.raises(DatasetError, match="no category"):
        planning.find_categories(tmp_path, None)
    with pytest.raises(ConfigError, match="there are masked, more/unmasked"):
        planning.find_categories(data, ["other"])


def test_a_backbone_without_weights_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    networks, skipped = planning.find_backbones(["resnet18", "efficientnet_lite0"], {})
    assert list(networks) == ["efficientnet_lite0"]
    assert len(skipped) == 1
    assert skipped[0].startswith("resnet18 skipped: resnet18-")


def features(images: int, channels: int, grid: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(images, channels, *grid, generator=torch.Generator().manual_seed(seed))


def test_patchcore_scores_as_its_formulae_say() -> None:
    bank = features(1, 7, (5, 6)).flatten(2)[0].T.contiguous()
    photos = features(3, 7, (4, 3), seed=1)
    maps = rivals.Maps((4, 3), rivals.Target((64, 96), 4.0), torch.device("cpu"))
    rival = rivals.PatchCore(bank, maps, None)
    scores, heat = rival.score(photos)
    items = bank.double().numpy()
    for n in range(3):
        patches = photos[n].double().numpy().reshape(7, -1).T
        distance = np.array([[np.linalg.norm(p - c) for c in items] for p in patches])
        per_patch = distance.min(axis=1)
        star = int(per_patch.argmax())
        item = int(distance[star].argmin())
        around = np.argsort([np.linalg.norm(c - items[item]) for c in items])[:9]
        exponentials = [math.exp(np.linalg.norm(patches[star] - items[m])) for m in around]
        weight = 1.0 - math.exp(per_patch[star]) / sum(exponentials)
        assert float(scores[n]) == pytest.approx(weight * per_patch[star], rel=1e-5)
        rows, columns = (cfa.smoothing(a, b, 4.0) for a, b in ((4, 64), (3, 96)))
        expected = rows @ per_patch.reshape(4, 3) @ columns.T
        np.testing.assert_allclose(heat[n].numpy(), expected, rtol=1e-5)


def test_reweighting_puts_the_item_before_its_copies() -> None:
    bank = torch.tensor([[0.0, 1.0]] * 12 + [[3.0, 0.0]])
    patch = torch.tensor([0.0, 3.0])
    for nearest in (0, 11):
        assert float(rivals.reweighted(patch, nearest, bank)) == pytest.approx(2.0 * 8 / 9)
    assert float(rivals.reweighted(patch, 0, bank[:1])) == 2.0


def test_patchcore_bank_is_a_tenth_of_all_patches() -> None:
    photos = features(6, 150, (9, 5))

    def batches() -> Any:
        return iter(torch.split(photos, 4))

    for pooled, patches in ((None, 45), ((14, 14), 196)):
        rival = rivals.PatchCore.fit(
            batches, 6, rivals.Target((64, 64), 4.0), 0, quiet, pooled=pooled
        )
        assert rival.items == round(6 * patches / 10)
        grid = photos if pooled is None else torch.nn.functional.adaptive_avg_pool2d(photos, pooled)
        every = {
            tuple(patch) for patch in grid.flatten(2).transpose(1, 2).reshape(-1, 150).tolist()
        }
        assert {tuple(item) for item in rival.bank.tolist()} <= every
        assert len({tuple(item) for item in rival.bank.tolist()}) == len(rival.bank) or pooled
        assert rival.score(photos)[1].shape == (6, 64, 64)


def test_patchcore_bank_is_a_tenth_of_all_patches_also_beyond_the_sampled_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rivals, "CORESET_POOL", 100)
    photos = features(6, 7, (9, 5))
    target = rivals.Target((64, 64), 4.0)
    rival = rivals.PatchCore.fit(lambda: iter(torch.split(photos, 4)), 6, target, 0, quiet)
    assert rival.items == len(rival.bank) == 27


@pytest.mark.parametrize("channels", [6, 130])
def test_padim_distances_are_mahalanobis(channels: int) -> None:
    photos = 5.0 + 2.0 * features(12, channels, (3, 4))
    rival = rivals.PaDiM.fit(
        lambda: iter(torch.split(photos, 5)), 12, rivals.Target((64, 64), 4.0), 0, quiet
    )
    kept = rival.channels.tolist()
    assert len(set(kept)) == min(channels, 100)
    fresh = features(2, channels, (3, 4), seed=3)
    found = rival.distances(fresh).numpy()
    for y in range(3):
        for x in range(4):
            good = photos[:, kept, y, x].double().numpy()
            inverse = np.linalg.inv(np.cov(good.T) + 0.01 * np.eye(len(kept)))
            for n in range(2):
                off = fresh[n, kept, y, x].double().numpy() - good.mean(axis=0)
                assert found[n, y, x] == pytest.approx(math.sqrt(off @ inverse @ off), rel=1e-3)


@pytest.mark.parametrize(("k", "j"), [(3, 3), (4, 2), (2, 5)])
def test_authors_loss_indexes_as_their_code(k: int, j: int) -> None:
    settings = TrainSettings(
        size=(64, 64),
        strides=(16,),
        standardise=False,
        descriptor_init="random",
        bank_init="mean",
        neighbours=k,
        hard_negatives=j,
        radius=2.0,
    )
    levels = [features(3, 6, (4, 4))]
    model = cfa.build(
        settings,
        (6,),
        lambda: iter([levels]),
        scale=cfa.FeatureScale.identity((6,)),
        seed=0,
        device=torch.device("cpu"),
    )
    phi = model.descriptor(levels).detach().double().permute(0, 2, 3, 1).reshape(-1, 6).numpy()
    bank, r, alpha, nu = model.bank.double().numpy(), 2.0, 0.1, 1e-3
    attract, repel = [], []
    for patch in phi:
        nearest = sorted(float(((patch - item) ** 2).sum()) for item in bank)[: k + j]
        attract += [max(0.0, d - r**2) for d in nearest[:k]]
        repel += [max(0.0, r**2 - d - alpha) for d in nearest[j:]]
    assert sum(attract) + sum(repel) > 0
    expected = sum(attract) / len(attract) / nu + sum(repel) / len(repel) / nu
    loss = methods.authors_loss(model, levels)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert model.descriptor.weight.grad is not None
    assert bool(model.descriptor.weight.grad.abs().sum() > 0)


def test_copies_of_a_picture_are_held_out_together(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "parts", good=12, test_good=1, defective=1)
    for i in range(6):
        shutil.copy(root / "train" / "good" / "000.png", root / "train" / "good" / f"copy{i}.png")
    chosen = TrainSettings(size=(64, 64), device="cpu")
    with methods._Parts(root, tmp_path, chosen, quiet) as parts:
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
    authors = methods.authors_settings(plain).model_copy(update={"size": (64, 64), "epochs": 0})
    for name, fit, chosen, expected in (
        ("rival", methods.fit_rival(rivals.PaDiM.fit), plain, 12),
        ("authors", methods.fit_authors, authors, 2),
    ):
        (tmp_path / name).mkdir()
        trained = fit(root, tmp_path / name, chosen, quiet)
        assert trained.calibration.good_parts == expected


def test_the_authors_cell_hangs_on_how_it_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inspect.getsource

    def changed(part: Any) -> str:
        return whole(part) + ("# changed" if part is Scorer else "")

    def load(name: str) -> str:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / "accuracy_methods.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return str(module.METHODS["cfa-authors"].code)

    assert load("methods_again") == methods.METHODS["cfa-authors"].code
    monkeypatch.setattr(inspect, "getsource", changed)
    assert load("methods_changed") != methods.METHODS["cfa-authors"].code
