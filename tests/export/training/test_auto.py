"""Settings chosen by good parts alone: the rule, what it looks at, and where it is shown."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.flop_counter import FlopCounterMode

from export.cli.main import main
from export.data import misplaced
from export.data.synthetic import KINDS
from export.model import cfa
from export.model.backbone import Backbone
from export.settings import TrainSettings
from export.training import auto, trial
from export.training.run import Choice, Run
from export.training.train import Step
from inspector.errors import TooFewPartsError
from tests.export.conftest import draw_part, run_watched, write_parts

pytestmark = pytest.mark.long

SMALL = TrainSettings(bank_items=64, epochs=0, folds=2, device="cpu")
OPTIONS = ["--bank-items", "64", "--epochs", "0", "--folds", "2", "--device", "cpu"]


def quiet(step: Step) -> None:
    pass


def resampled(behind: list[float], error: list[float]) -> np.ndarray:
    """Signals on two resamples, so that each candidate's difference has this standard error."""
    swing = np.array(error) / np.sqrt(2.0)
    return 0.9 - np.array(behind) + np.stack([swing, -swing])


def picked(behind: list[float], error: list[float], cost: list[float]) -> int:
    return auto.pick(0.9 - np.array(behind), resampled(behind, error), cost).chosen


def test_of_those_within_one_standard_error_the_cheapest_is_taken() -> None:
    assert picked([0.0, 0.010, 0.012, 0.2], [0, 0.011, 0.011, 0.1], [4.0, 3.0, 1.0, 0.1]) == 1
    assert picked([0.0, 0.010, 0.010, 0.2], [0, 0.011, 0.011, 0.1], [4.0, 3.0, 1.0, 0.1]) == 2


def test_the_best_is_taken_when_nothing_cheaper_is_near() -> None:
    assert picked([0.02, 0.0, 0.001], [0.01, 0, 0.01], [1.0, 2.0, 3.0]) == 1


def test_of_equally_cheap_ones_the_better_is_taken() -> None:
    assert picked([0.0, 0.02, 0.01], [0, 0.03, 0.03], [2.0, 1.0, 1.0]) == 2


def test_the_error_is_that_of_the_difference_on_shared_resamples() -> None:
    shared = np.random.default_rng(0).normal(0.9, 0.1, (400, 1))
    found = auto.pick(np.array([0.9, 0.89]), shared - [0.0, 0.01], [2.0, 1.0])
    # Both swing alike, so a small difference is a sure one.
    np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-12)
    assert found.chosen == 0


def some_answers(seed: int) -> tuple[trial.Answers, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Answers with their maps and masks; 4 parts, 3 defects each, kinds of unequal number."""
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(4), 3)
    kind = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0])
    maps = rng.gamma(4.0, 0.2, (16, 12, 10)).astype(np.float32)
    masks = np.zeros((12, 12, 10), dtype=np.bool_)
    for i in range(12):
        row, column = rng.integers(0, 7, 2)
        masks[i, row : row + 2 + i % 3, column : column + 3] = True
        maps[4 + i][masks[i]] *= 1.4
    good, bad = trial._count_pixels(maps, masks, part, 4)
    scores = maps.max(axis=(1, 2)).astype(np.float64)
    return trial.Answers(scores[:4], scores[4:], good, bad), part, kind, maps, masks


def test_the_figures_are_aurocs_with_every_kind_counting_alike() -> None:
    answers, part, kind, maps, masks = some_answers(1)
    image, pixel = [], []
    good = np.concatenate([maps[:4].ravel(), *(maps[4 + i][~masks[i]] for i in range(12))])
    for number in range(3):
        chosen = np.flatnonzero(kind == number)
        scores = [*answers.clean, *answers.spoiled[chosen]]
        image.append(roc_auc_score([0] * 4 + [1] * len(chosen), scores))
        own = [maps[4 + i][masks[i]] for i in chosen]
        pixel.append(
            np.mean([roc_auc_score([0] * len(good) + [1] * len(bad), [*good, *bad]) for bad in own])
        )
    whole = np.ones((1, 4))
    assert trial.image_auroc(answers, part, kind, whole)[0] == pytest.approx(np.mean(image))
    found = trial.pixel_auroc(answers, part, kind, whole)[0]
    assert found == pytest.approx(np.mean(pixel), abs=1e-3)


def test_a_weight_of_two_is_a_part_that_is_there_twice() -> None:
    answers, part, kind, _, _ = some_answers(2)
    drawn = np.array([0, 2, 2, 3])
    of = np.concatenate([np.flatnonzero(part == p) for p in drawn])
    again = trial.Answers(
        answers.clean[drawn],
        answers.spoiled[of],
        answers.good_pixels[drawn],
        answers.defect_pixels[of],
    )
    weights = np.array([[1.0, 0.0, 2.0, 1.0]])
    for figure in (trial.image_auroc, trial.pixel_auroc):
        expected = figure(again, np.repeat(np.arange(4), 3), kind[of], np.ones((1, 4)))
        np.testing.assert_allclose(figure(answers, part, kind, weights), expected)


def grid_of(settings: TrainSettings, *shapes: tuple[int, int]) -> list[TrainSettings]:
    return auto.candidates(settings, settings.resolve(shapes))


def values(options: list[TrainSettings], name: str) -> set[object]:
    return {getattr(option, name) for option in options}


def test_candidates_lie_around_the_default() -> None:
    found = grid_of(SMALL, (1000, 750))
    assert found[0].input == SMALL.resolve([(1000, 750)]).input == (384, 512)
    assert values(found, "size") == {(384, 512), (288, 384), (192, 256)}
    features = {(option.strides, option.scales) for option in found}
    assert features == {((16,), (1.0, 0.5)), ((8, 16), (1.0, 0.5)), ((8, 16), (0.5,))}
    assert (found[0].strides, found[0].scales) == (SMALL.strides, SMALL.scales)
    assert values(found, "fit") == {"stretch"}
    assert found[0].sigma == found[0].model_copy(update={"sigma": None}).sigma_px
    defaults = [option.model_copy(update={"sigma": None}).sigma_px for option in found]
    shares = [option.sigma_px / by for option, by in zip(found, defaults, strict=True)]
    assert shares == [1.0, 0.5] * 9


def test_the_default_smoothing_of_a_long_part_is_tried_first() -> None:
    default = SMALL.resolve([(2048, 256)])
    assert (default.input, default.sigma_px) == ((64, 512), 8.0)
    found = [option for option in grid_of(SMALL, (2048, 256)) if option.input == (64, 512)]
    tried = [(option.strides, option.scales[0], option.sigma) for option in found]
    assert tried == [
        ((16,), 1.0, 8.0),
        ((16,), 1.0, 4.0),
        ((8, 16), 1.0, 4.0),
        ((8, 16), 1.0, 2.0),
        ((8, 16), 0.5, 8.0),
        ((8, 16), 0.5, 4.0),
    ]


def test_fit_is_a_question_only_when_photos_differ_in_shape() -> None:
    assert values(grid_of(SMALL, (640, 480), (480, 640)), "fit") == {"stretch", "letterbox"}
    kept = SMALL.model_copy(update={"fit": "letterbox"})
    assert values(grid_of(kept, (640, 480), (480, 640)), "fit") == {"letterbox"}
    assert values(grid_of(kept, (640, 480)), "fit") == {"letterbox"}


def test_what_is_given_stays() -> None:
    given: dict[str, Any] = {"size": (256, 320), "strides": (4, 8), "sigma": 5.0}
    given |= {"fit": "stretch", "scales": (0.5,)}
    for name, value in given.items():
        found = grid_of(SMALL.model_copy(update={name: value}), (640, 480), (480, 640))
        assert values(found, name) == {value}
        assert len(found) > 1
    assert len(grid_of(SMALL.model_copy(update=given), (640, 480), (480, 640))) == 1
    undecided = {"size": None, "fit": "auto", "sigma": None}
    assert auto.given(SMALL.model_copy(update=undecided)) == ()


def test_no_candidate_is_smaller_than_a_backbone_can_use() -> None:
    for shape in ((256, 256), (2000, 300), (64, 64)):
        sizes = values(grid_of(SMALL, shape), "size")
        assert all(max(size) >= auto.SMALLEST_PX for size in sizes)
        assert all(side % 32 == 0 and side >= 64 for size in sizes for side in size)
    tiny = SMALL.model_copy(update={"bank_items": None, "gamma_c": 20.0})
    assert all(option.items >= 4 for option in grid_of(tiny, (256, 256)))


@pytest.mark.parametrize(
    ("strides", "scales"), [((16,), (1.0,)), ((16,), (1.0, 0.5)), ((8, 16), (0.5,))]
)
def test_cost_is_what_the_operations_add_up_to(
    strides: tuple[int, ...], scales: tuple[float, ...]
) -> None:
    cpu = torch.device("cpu")
    option = SMALL.model_copy(
        update={
            "size": (128, 192),
            "fit": "stretch",
            "bank_items": 300,
            "strides": strides,
            "scales": scales,
        }
    )
    backbone = Backbone(option.backbone, strides, scales, None)
    picture = np.zeros((1, 128, 192, 3), dtype=np.uint8)

    def batches() -> list[cfa.Levels]:
        return [cfa.pool(backbone.maps(picture, cpu))]

    model = cfa.build(
        option,
        backbone.channels,
        lambda: iter(batches()),
        scale=cfa.FeatureScale.identity(backbone.channels),
        seed=0,
        device=cpu,
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.patch_scores(batches()[0])
    every = Backbone(option.backbone, (8, 16), (1.0, 0.5), None)
    for network in (backbone, every):
        (found,) = auto.estimate_gmacs([option], network, cpu)
        assert found == pytest.approx(counter.get_total_flops() / 2e9, rel=0.01)


@pytest.fixture(scope="module")
def chosen(parts: Path) -> tuple[TrainSettings, Choice]:
    return auto.choose(parts, SMALL, on_step=quiet)


def test_the_choice_is_one_of_the_candidates_and_nothing_else_changes(
    chosen: tuple[TrainSettings, Choice],
) -> None:
    settings, choice = chosen
    taken = choice.candidates[choice.chosen]
    found = {name: getattr(settings, name) for name in auto.CHOSEN}
    assert found == {name: getattr(taken, name) for name in auto.CHOSEN}
    assert settings == SMALL.model_copy(update=found)
    assert taken.as_good
    assert all(
        one.gmacs >= taken.gmacs for one in choice.candidates if one.as_good and one is not taken
    )
    assert choice.bank_parts + choice.held_out == 24
    assert choice.held_out == 6
    assert choice.defects == 60
    assert choice.kinds == len(KINDS) - len(choice.left_out)
    assert "doubled" not in choice.left_out


def test_what_could_not_be_drawn_is_said() -> None:
    assert auto.say_left_out(()) == ""
    assert auto.say_left_out(("turned",)) == "Not drawn, for they showed on no photo: turned."
    said = auto.say_left_out(("doubled", "missing", "shifted", "turned", "warp"))
    assert said.startswith("No part stands out in the photos")
    assert said.endswith("showed on no photo: warp.")


def test_photos_of_a_texture_are_not_asked_about_misplaced_parts(tmp_path: Path) -> None:
    for i in range(12):
        noise = np.random.default_rng(i).normal(120, 30, (64, 96, 1)).clip(0, 255)
        place = tmp_path / "train" / "good" / f"{i:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), noise.astype(np.uint8).repeat(3, axis=2))
    fixed = SMALL.model_copy(update={"size": (64, 96), "strides": (16,), "scales": (1.0,)})
    _, choice = auto.choose(tmp_path, fixed, on_step=quiet)
    assert set(misplaced.KINDS) <= set(choice.left_out)
    assert "No part stands out in the photos" in choice.reason


def test_the_signal_sees_that_detail_is_lost(chosen: tuple[TrainSettings, Choice]) -> None:
    for strides in ((16,), (8, 16)):
        signal = {
            width: max(
                one.signal
                for one in chosen[1].candidates
                if one.strides == strides and one.size[1] == width
            )
            for width in (256, 128)
        }
        assert 0.5 < signal[128] < signal[256] - 0.02 < 0.98


def test_the_same_seed_gives_the_same_choice(parts: Path) -> None:
    fixed = SMALL.model_copy(update={"size": (64, 96)})
    found = [
        auto.choose(parts, fixed.model_copy(update={"seed": seed}), on_step=quiet)
        for seed in (0, 0, 1)
    ]
    dumped = [choice.model_dump(exclude={"seconds"}) for _, choice in found]
    assert found[0][0] == found[1][0]
    assert dumped[0] == dumped[1]
    assert dumped[0]["candidates"][0]["signal"] != dumped[2]["candidates"][0]["signal"]


def test_progress_rises_to_its_end(parts: Path) -> None:
    steps: list[Step] = []
    fixed = SMALL.model_copy(update={"size": (64, 96)})
    auto.choose(parts, fixed, on_step=steps.append)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert {step.total for step in steps} == {done[-1]}
    assert {step.stage for step in steps} == {trial.CHOOSING}


def test_photos_of_two_shapes_are_tried_both_ways(tmp_path: Path) -> None:
    data = write_parts(tmp_path / "mixed", good=12, test_good=0, defective=0)
    for i in range(6):
        turned = np.rot90(draw_part(50 + i)[0])
        assert cv2.imwrite(str(data / "train" / "good" / f"t{i}.png"), np.ascontiguousarray(turned))
    fixed = SMALL.model_copy(update={"size": (128, 128), "strides": (16,), "scales": (0.5,)})
    _, choice = auto.choose(data, fixed, on_step=quiet)
    assert {one.fit for one in choice.candidates} == {"letterbox", "stretch"}
    assert len({one.signal for one in choice.candidates}) == 4
    assert "letterbox" in choice.reason or "stretch" in choice.reason


def test_a_region_is_cut_out_first(parts: Path) -> None:
    region = TrainSettings(region="30,10,64,64").region
    fixed = SMALL.model_copy(update={"region": region, "size": (64, 64), "sigma": 2.0})
    settings, cropped = auto.choose(parts, fixed, on_step=quiet)
    _, whole = auto.choose(parts, fixed.model_copy(update={"region": None}), on_step=quiet)
    assert settings.region == region
    assert cropped.candidates[0].signal != whole.candidates[0].signal


def test_copies_of_a_photo_are_not_held_out_from_their_own_bank(tmp_path: Path) -> None:
    data = write_parts(tmp_path / "twins", good=12, test_good=0, defective=0)
    paths = sorted((data / "train" / "good").iterdir())
    for path in paths:
        (path.parent / f"copy-{path.name}").write_bytes(path.read_bytes())
    fixed = SMALL.model_copy(update={"size": (64, 96), "fit": "stretch", "strides": (16,)})
    paths = sorted((data / "train" / "good").iterdir())
    tried = trial.Trial(paths, [fixed], np.random.default_rng(0), quiet)
    bank = {paths[i].name.removeprefix("copy-") for i in tried.bank}
    held = {paths[i].name.removeprefix("copy-") for i in tried.held}
    assert not bank & held
    assert bank | held == {f"{i:03d}.png" for i in range(12)}
    for path in paths[:12]:
        path.write_bytes(paths[0].read_bytes())
    with pytest.raises(TooFewPartsError, match="photograph different parts"):
        auto.choose(_only(data, paths[:12]), SMALL, on_step=quiet)


def _only(data: Path, kept: list[Path]) -> Path:
    for path in (data / "train" / "good").iterdir():
        if path not in kept:
            path.unlink()
    return data


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str, list[str]]:
    """A run of ``train --auto``: what it printed, and the paths it opened or listed."""
    folder = tmp_path_factory.mktemp("auto") / "run"
    arguments = ["train", str(parts), "-o", str(folder), "--auto", "--strides", "16", *OPTIONS]
    said, seen = run_watched(arguments)
    return Run(folder), said, seen


@pytest.mark.long
def test_choosing_opens_nothing_under_test(parts: Path, run: tuple[Run, str, list[str]]) -> None:
    inside = [path for path in run[2] if path.startswith(str(parts))]
    # Its size from its header, then to choose and to draw on, then to train on.
    assert set(Counter(path for path in inside if path.endswith(".png")).values()) == {3}
    assert len({path for path in inside if path.endswith(".png")}) == 24
    # Its folders are listed, so that a person is told how many photos were taken for what.
    beside = [path for path in inside if "/test" in path or "/ground_truth" in path]
    assert not [path for path in beside if Path(path).suffix]


def test_the_run_keeps_the_choice_and_says_why(run: tuple[Run, str, list[str]]) -> None:
    facts = run[0].facts()
    choice = facts.choice
    assert choice is not None
    taken = choice.candidates[choice.chosen]
    assert (facts.settings.size, facts.settings.sigma) == (taken.size, taken.sigma)
    assert {one.strides for one in choice.candidates} == {(16,)}
    assert f"settings: {auto.in_plain_words(choice)}\n" in run[1]
    assert choice.reason.endswith("strides as given.")
    assert f"from good parts alone: {choice.held_out} that were kept back" in run[1]


def test_calibrate_and_evaluate_keep_the_choice_and_the_report_shows_it(
    run: tuple[Run, str, list[str]],
) -> None:
    before = run[0].facts().choice
    assert before is not None
    assert main(["calibrate", str(run[0].folder), "--false-reject", "2%"]) == 0
    assert main(["evaluate", str(run[0].folder)]) == 0
    assert run[0].facts().choice == before
    html = (run[0].folder / "report.html").read_text()
    section = html[html.index("Why these settings") :].partition("</section>")[0]
    assert before.reason in section
    assert section.count('<th scope="row">') == len(before.candidates)
    (row,) = [line for line in section.splitlines() if 'class="here"' in line]
    taken = before.candidates[before.chosen]
    assert f"{taken.size[0]}x{taken.size[1]}" in row
    assert "chosen" in row
    assert "data:image/svg+xml" in section


def test_a_run_without_auto_has_no_such_section(trained: Run, tmp_path: Path) -> None:
    assert trained.facts().choice is None
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    assert main(["evaluate", str(folder)]) == 0
    assert "Why these settings" not in (folder / "report.html").read_text()


@pytest.mark.parametrize("flags", [["--auto"], []])
def test_a_resumed_run_goes_on_with_what_was_chosen(
    parts: Path,
    run: tuple[Run, str, list[str]],
    tmp_path: Path,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_bytes((run[0].folder / "run.json").read_bytes())
    monkeypatch.setattr(auto, "choose", None)
    arguments = ["train", str(parts), "-o", str(folder), "--resume", *flags, *OPTIONS]
    assert main([*arguments, "--sigma", "77"]) != 0
    assert "sigma" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "settings: " in capsys.readouterr().out
    assert Run(folder).facts() == run[0].facts()
    first, again = run[0].load("model.pt"), Run(folder).load("model.pt")
    assert first is not None
    assert again is not None
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_run_started_without_auto_is_not_resumed_with_it(
    parts: Path, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(parts), "-o", str(trained.folder), "--resume", "--auto"]) != 0
    assert "was started without --auto" in capsys.readouterr().err


def test_a_folder_in_use_is_refused_before_anything_is_measured(
    parts: Path, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(parts), "-o", str(trained.folder), "--auto"]) != 0
    said = capsys.readouterr().err
    assert "by --resume" in said
    assert trial.CHOOSING not in said


def test_a_config_file_decides_too(parts: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("size: 64x96\nsigma: 1.5\nbank_items: 64\nepochs: 0\nfolds: 2\n")
    folder = tmp_path / "run"
    assert main(["train", str(parts), "-o", str(folder), "--auto", "--config", str(config)]) == 0
    facts = Run(folder).facts()
    assert facts.choice is not None
    assert {one.size for one in facts.choice.candidates} == {(64, 96)}
    assert {one.sigma for one in facts.choice.candidates} == {1.5}
    assert {one.strides for one in facts.choice.candidates} == {(16,), (8, 16)}
