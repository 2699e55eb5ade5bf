"""Teach in: rejected good parts pass afterwards, and everything proven before is proven again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from export.cli.main import main
from export.extend import Report, extend
from export.model.memory import MOST_REPLACED
from export.training.calibrate import calibrate
from export.training.run import Run
from export.training.train import Step, train
from inspector import Detector, Verdict
from inspector.detection import fitness
from inspector.detection.bundle import read
from inspector.detection.manifest import Manifest
from inspector.errors import OutputError, RunError
from tests.export.conftest import (
    CPU,
    QUICK,
    distances,
    draw_labelled,
    draw_part,
    held_out_distances,
    normalised,
    peak,
    run_watched,
    write_labelled,
    write_parts,
)

from .test_cli import fails


def extend_quietly(
    run: Run,
    good: Path,
    folder: Path,
    on_step: Callable[[Step], None] = lambda step: None,
    pooled: bool = False,
) -> Report:
    return extend(
        run,
        good,
        folder,
        folder.with_suffix(".onnx"),
        data=run.facts().data,
        device=CPU,
        weights=None,
        rate=None,
        pooled=pooled,
        name=None,
        precision="fp32",
        on_step=on_step,
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("rejected") / "labelled", 6)


@pytest.fixture(scope="module")
def judged(roomy: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The trained run after 'evaluate'; a person has said that its one odd part is good."""
    folder = tmp_path_factory.mktemp("runs") / "judged"
    shutil.copytree(roomy.folder, folder)
    assert Run(folder).outcome().calibration.strays == 1
    assert main(["calibrate", str(folder), "--false-reject", "auto", "--all-good"]) == 0
    assert Run(folder).outcome().calibration.strays == 0
    assert main(["evaluate", str(folder)]) == 0
    return Run(folder)


@pytest.fixture(scope="module")
def taught(judged: Run, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return extend_quietly(judged, labelled, tmp_path_factory.mktemp("extended") / "part2")


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.long
def test_taught_parts_pass_and_so_do_others_of_their_kind(taught: Report) -> None:
    assert all(part.before >= 1.0 for part in taught.parts)
    assert all(part.now < 1.0 for part in taught.parts)
    assert all(part.unseen is not None and part.unseen < 1.0 for part in taught.parts)
    detector = Detector.load(taught.run.folder.with_suffix(".onnx"))
    assert detector.judge(draw_labelled(9000)).verdict is Verdict.PASS
    assert detector.judge(draw_part(9000)[0]).verdict is Verdict.PASS


def test_the_run_tells_programs_what_the_lesson_did(taught: Report) -> None:
    told = json.loads((taught.run.folder / "taught.json").read_text())
    assert [(one["name"], one["before"], one["unseen"], one["now"]) for one in told["parts"]] == [
        (one.name, one.before, one.unseen, one.now) for one in taught.parts
    ]
    assert told["limit_now"] == taught.manifest.calibration.threshold
    assert told["limit_before"] == taught.former.threshold
    assert told["model"]["version"] == taught.run.version() != told["former_version"]
    assert told["notes"] == taught.lines()


def test_defects_are_still_found(taught: Report, parts: Path) -> None:
    detector = Detector.load(taught.run.folder.with_suffix(".onnx"))
    defective = [p for kind in ("scratch", "stain") for p in (parts / "test" / kind).iterdir()]
    scores = [detector.judge(cv2.imread(str(path))).score or 0.0 for path in defective]
    # With 24 parts the limit of the default rate is extrapolated far above all good ones.
    folds, vouched = taught.run.limit_folds(all_good=True)
    limit = calibrate(folds, 0.02, vouched=vouched).threshold
    assert min(scores) > limit / taught.manifest.calibration.threshold
    assert len(scores) == 8
    stained = draw_labelled(9001)
    cv2.circle(stained, (45, 45), 6, (20, 30, 60), -1)
    assert detector.judge(stained).verdict is Verdict.FAIL


def test_limits_of_light_and_focus_take_the_taught_parts_in(
    taught: Report, judged: Run, labelled: Path
) -> None:
    before, after = judged.outcome().exposure, taught.manifest.exposure
    added = [judged.facts().geometry.apply(cv2.imread(str(path))) for path in labelled.iterdir()]
    assert after != before
    assert after == fitness.widen(before, added)
    assert len(taught.manifest.calibration.scores) == taught.manifest.calibration.good_parts


def test_the_bank_keeps_its_size_and_most_of_its_items(taught: Report, roomy: Run) -> None:
    before, after = roomy.load("model.pt"), taught.run.load("model.pt")
    assert before is not None
    assert after is not None
    assert after["bank"].shape == before["bank"].shape
    changed = int((after["bank"] != before["bank"]).any(dim=1).sum())
    assert (
        0
        < changed
        == taught.run.facts().lineage[0].bank_replaced
        <= MOST_REPLACED * len(before["bank"])
    )
    assert all(torch.equal(after[key], before[key]) for key in before if key != "bank")


def test_the_bundle_is_proven_anew_and_says_where_it_comes_from(
    taught: Report, judged: Run, parts: Path
) -> None:
    manifest = read(taught.run.folder.with_suffix(".onnx")).manifest
    assert manifest == taught.manifest
    parent = judged.facts()
    (extension,) = manifest.lineage
    assert extension.parts == 6
    assert extension.parent_version == judged.version() != manifest.version
    assert extension.parent_fingerprint == parent.fingerprint != manifest.training_fingerprint
    assert extension.bank_replaced == taught.run.facts().lineage[0].bank_replaced
    assert manifest.training_parts == 24 + 6
    assert manifest.parity is not None
    assert manifest.parity.images == 24 + 6 + 13
    assert manifest.parity.verdict_flips == 0
    assert [golden.name for golden in manifest.golden][-1] == "drawn defect"
    assert (judged.folder / "evaluation.json").exists()
    assert manifest.evaluation == {}
    assert not list(taught.run.folder.glob("evaluation.json"))
    assert "/" not in manifest.model_dump_json(include={"lineage"})


@pytest.mark.long
def test_a_lesson_reads_each_of_its_photos_once(
    roomy: Run, labelled: Path, parts: Path, tmp_path: Path
) -> None:
    arguments = ["extend", "--precision", "fp32", str(roomy.folder), "--good", str(labelled)]
    _, seen = run_watched([*arguments, "-o", str(tmp_path / "part2.onnx")])
    opened = Counter(Path(path) for path in seen if path.endswith(".png"))
    # Their heads say whether they are to be shown turned; then each is read once.
    assert [opened[path] for path in labelled.iterdir()] == [2] * 6
    # To be read for the lesson, to be recognised for the bundle, and for its proof.
    golden = Run(tmp_path / "part2-run").outcome().golden
    good = sorted((parts / "train" / "good").iterdir())
    for index, path in enumerate(good):
        assert opened[path] == 3 + (index in golden), path
    for path in (parts / "test").glob("*/*.png"):
        assert opened[path] == 2, path


@pytest.mark.long
def test_the_parent_run_is_left_as_it_was(
    judged: Run, labelled: Path, tmp_path: Path, taught: Report
) -> None:
    before = contents(judged.folder)
    extend_quietly(judged, labelled, tmp_path / "part2")
    assert contents(judged.folder) == before
    same = contents(tmp_path / "part2")
    for name in ("model.pt", "fold-0.pt", "fold-4.pt", "heldout.csv"):
        assert same[name] == contents(taught.run.folder)[name]


@pytest.mark.long
def test_old_parts_are_rescored_by_a_taught_model_that_has_not_seen_them(
    judged: Run, taught: Report, labelled: Path, parts: Path
) -> None:
    names, folds, former = judged.held_out_parts()
    new_names, new_folds, scores = taught.run.held_out_parts()
    assert new_names[:24] == names
    assert list(new_folds[:24]) == list(folds)
    added = [cv2.imread(str(path)) for path in sorted(labelled.iterdir())]
    settings = judged.facts().settings
    for run, images, expected in (
        (judged, [], former),
        (judged, added, scores),
        (taught.run, [], scores),
    ):
        found = held_out_distances(run, parts, images)
        for row in (0, 7, 23):
            own = peak(normalised(found[row], np.delete(found, row, axis=0)), settings)
            assert expected[row] == pytest.approx(own, rel=1e-4)


@pytest.mark.long
def test_added_parts_are_scored_by_a_model_taught_the_others_only(
    judged: Run, taught: Report, labelled: Path, parts: Path
) -> None:
    names, folds, scores = taught.run.held_out_parts()
    added = [cv2.imread(str(path)) for path in sorted(labelled.iterdir())]
    assert [Path(name).parent.as_posix() for name in names[24:]] == ["added/1"] * 6
    assert sorted(set(folds[24:])) == [3, 4, 5, 6, 7]
    old = held_out_distances(taught.run, parts, [])
    for row in range(6):
        others = [image for i, image in enumerate(added) if folds[24 + i] != folds[24 + row]]
        (found,) = distances(judged, "model.pt", [added[row]], others)
        own = peak(normalised(found, old), judged.facts().settings)
        assert scores[24 + row] == pytest.approx(own, rel=1e-4)
        assert taught.parts[row].unseen == pytest.approx(
            own / taught.manifest.calibration.threshold, rel=1e-4
        )


def test_the_limit_rests_on_the_old_parts_rescored(taught: Report, judged: Run) -> None:
    folds, scores = taught.run.held_out()
    calibration = taught.run.outcome().calibration
    old = [scores[folds == fold] for fold in range(3)]
    assert calibration.threshold == calibrate([], None, vouched=old).threshold
    assert calibration.threshold != judged.outcome().calibration.threshold
    assert calibration.good_parts == 24
    everything = [scores[folds == fold] for fold in np.unique(folds)]
    assert taught.limit_otherwise == calibrate([], None, vouched=everything).threshold
    assert taught.run.outcome().all_good


@pytest.mark.long
def test_taught_parts_raise_the_limit_only_when_asked(
    judged: Run, labelled: Path, taught: Report, tmp_path: Path
) -> None:
    tolerant = extend_quietly(judged, labelled, tmp_path / "part2", pooled=True)
    assert tolerant.manifest.calibration.threshold == taught.limit_otherwise
    assert tolerant.manifest.calibration.good_parts == 30
    more = write_labelled(tmp_path / "more", 2, first=7000)
    again = extend_quietly(tolerant.run, more, tmp_path / "part3")
    assert again.manifest.calibration.good_parts == 30
    folder = str(again.run.folder)
    assert main(["calibrate", folder, "--false-reject", "auto"]) == 0
    assert again.run.outcome().calibration == again.manifest.calibration


@pytest.mark.long
def test_one_odd_part_does_not_blind_the_model(judged: Run, tmp_path: Path) -> None:
    good = write_labelled(tmp_path / "good", 4)
    odd = draw_part(3)[0]
    cv2.circle(odd, (20, 20), 9, (0, 0, 255), -1)
    cv2.circle(odd, (100, 60), 9, (0, 255, 255), -1)
    cv2.imwrite(str(good / "odd.png"), odd)
    report = extend_quietly(judged, good, tmp_path / "part2")
    assert report.manifest.calibration.threshold < 1.2 * report.former.threshold
    assert report.limit_otherwise > 1.5 * report.former.threshold
    (doubtful,) = [line for line in report.lines() if "far over the limit before" in line]
    assert "odd.png" in doubtful
    detector = Detector.load(tmp_path / "part2.onnx")
    assert detector.judge(draw_part(9001, "stain")[0]).verdict is Verdict.FAIL


@pytest.mark.long
def test_an_extended_run_is_a_run_like_any_other(
    taught: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(taught.run.folder, folder)
    good = write_labelled(tmp_path / "red", 3, first=6000, colour=(60, 60, 190))
    output = tmp_path / "part3.onnx"
    assert (
        main(["extend", "--precision", "fp32", str(folder), "--good", str(good), "-o", str(output)])
        == 0
    )
    told = capsys.readouterr().out
    assert ", 0 verdicts differ; " in told
    assert told.endswith(f"next: inspector-model evaluate {tmp_path / 'part3-run'}\n")
    shutil.rmtree(good)
    run = Run(tmp_path / "part3-run")
    assert [lesson.parts for lesson in run.facts().lineage] == [6, 3]
    assert run.facts().lineage[1].parent_version == taught.manifest.version
    folds, _ = run.held_out()
    assert np.bincount(folds).tolist() == [8, 8, 8, 2, 1, 1, 1, 1, 1, 1, 1]
    assert main(["calibrate", str(run.folder), "--false-reject", "5%"]) == 0
    assert main(["evaluate", str(run.folder)]) == 0
    assert main(["export", "--precision", "fp32", str(run.folder), "-o", str(output)]) == 0
    manifest = read(output).manifest
    assert [extension.parts for extension in manifest.lineage] == [6, 3]
    assert manifest.parity is not None
    assert manifest.parity.images == 24 + 9 + 13
    assert manifest.evaluation["escapes"] == 0
    detector = Detector.load(output)
    assert detector.judge(draw_labelled(9002)).score < 1.2
    assert detector.judge(draw_labelled(9003, (60, 60, 190))).score < 1.2
    capsys.readouterr()
    assert main(["show", str(output)]) == 0
    assert capsys.readouterr().out.count("taught in") == 2


@pytest.mark.long
def test_one_part_alone_is_taught_and_not_cross_fitted(
    roomy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_labelled(tmp_path / "one", 1)
    # Copies of the picture are no second part.
    shutil.copyfile(good / "5000.png", good / "copy.png")
    output = tmp_path / "part2.onnx"
    arguments = [
        "extend",
        "--precision",
        "fp32",
        str(roomy.folder),
        "--good",
        str(good),
        "-o",
        str(output),
    ]
    assert main([*arguments, "--run", str(tmp_path / "mine"), "--name", "disc B"]) == 0
    printed = capsys.readouterr().out
    assert "not known from one picture" in printed
    manifest = read(output).manifest
    assert manifest.name == "disc B"
    assert manifest.calibration.good_parts == 24
    assert Run(tmp_path / "mine").facts().lineage[0].folds == 0
    judged = Detector.load(output).judge(draw_labelled(5000))
    assert judged.verdict is Verdict.PASS
    once_more = write_labelled(tmp_path / "more", 2, first=7000)
    report = extend_quietly(Run(tmp_path / "mine"), once_more, tmp_path / "part3")
    assert report.manifest.calibration.good_parts == 24
    assert np.bincount(report.run.held_out()[0]).tolist() == [8, 8, 8, 1, 1]
    assert report.manifest.training_parts == 24 + 2 + 2
    assert report.manifest.name == "disc B"


@pytest.mark.long
def test_copies_of_taught_parts_count_once_and_are_left_out_together(
    judged: Run, labelled: Path, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    shutil.copytree(labelled, good)
    for path in labelled.iterdir():
        shutil.copyfile(path, good / f"{path.stem}-copy.png")
    report = extend_quietly(judged, good, tmp_path / "part2", pooled=True)
    assert report.manifest.calibration.good_parts == len(report.run.held_out()[1]) == 24 + 6
    unseen = [part.unseen for part in report.parts]
    assert None not in unseen
    assert unseen[::2] == pytest.approx(unseen[1::2], rel=1e-5)


@pytest.mark.long
def test_a_plain_hold_out_is_rescored_by_the_model_in_service(
    parts: Path, labelled: Path, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"false_reject": 0.45, "epochs": 0})
    parent = train(parts, tmp_path / "run", settings, resume=False, on_step=lambda step: None)
    names, folds, _ = parent.held_out_parts()
    assert set(folds) == {0}
    assert not list(parent.folder.glob("fold-*.pt"))
    report = extend_quietly(parent, labelled, tmp_path / "part2")
    new_names, _, scores = report.run.held_out_parts()
    assert new_names[: len(names)] == names
    photos = [cv2.imread(str(parts / name)) for name in names]

    def score_first(run: Run) -> float:
        found = distances(run, "model.pt", photos)
        return peak(normalised(found[0], found[1:]), settings)

    settings = parent.facts().settings
    assert scores[0] == pytest.approx(score_first(report.run), rel=1e-4)
    more = write_labelled(tmp_path / "more", 2, first=7000)
    again = extend_quietly(report.run, more, tmp_path / "part3")
    _, _, scores = again.run.held_out_parts()
    assert scores[0] == pytest.approx(score_first(again.run), rel=1e-4)


@pytest.mark.long
def test_another_false_reject_target_may_be_set(roomy: Run, labelled: Path, tmp_path: Path) -> None:
    arguments = ["extend", "--precision", "fp32", str(roomy.folder), "--good", str(labelled), "-o"]
    arguments += [str(tmp_path / "part2.onnx"), "--false-reject", "20%"]
    assert main(arguments) == 0
    calibration = read(tmp_path / "part2.onnx").manifest.calibration
    assert calibration.target_false_reject == 0.2
    assert calibration.good_rejected == 4
    assert not calibration.automatic
    assert calibration.cost is not None
    assert calibration.cost.drawn == 40


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda good, parts: None, 20, "no such folder"),
        (lambda good, parts: good.mkdir(), 20, "no images"),
        (lambda good, parts: good.write_text("photos"), 20, "is a file"),
        (lambda good, parts: shutil.copytree(parts, good), 20, "holds 'ground_truth'"),
        (
            lambda good, parts: shutil.copytree(parts / "train" / "good", good / "monday"),
            20,
            "(and 23 more): the run knows this photo already",
        ),
        (
            lambda good, parts: shutil.copytree(parts / "test" / "scratch", good),
            20,
            "(and 3 more): is the test photo scratch/000.png, shows a defect",
        ),
        (
            lambda good, parts: shutil.copytree(parts / "test" / "good", good),
            20,
            "(and 4 more): is the test photo good/000.png, would be scored as unseen afterwards",
        ),
        (
            lambda good, parts: write_labelled(good, 2).joinpath("5000.png").write_bytes(b"none"),
            21,
            "5000.png",
        ),
        (
            lambda good, parts: (write_labelled(good, 2) / "5000.png").rename(good / "a_map.png"),
            20,
            "a heatmap, not a photo",
        ),
        (
            lambda good, parts: shutil.copy(
                write_labelled(good, 2) / "5000.png", good / "5000_overlay.jpg"
            ),
            20,
            "a heatmap, not a photo",
        ),
        (
            lambda good, parts: cv2.imwrite(
                str(write_labelled(good, 2) / "dark.png"), draw_part(1)[0] // 16
            ),
            21,
            "mean brightness",
        ),
    ],
)
def test_what_cannot_be_taught_is_refused_in_one_line(
    make: Callable[[Path, Path], object],
    code: int,
    said: str,
    roomy: Run,
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, output = tmp_path / "good", tmp_path / "out" / "part2.onnx"
    output.parent.mkdir()
    make(good, parts)
    arguments = [
        "extend",
        "--precision",
        "fp32",
        str(roomy.folder),
        "--good",
        str(good),
        "-o",
        str(output),
    ]
    assert said in fails(capsys, arguments, code)
    assert list(output.parent.iterdir()) == []


def test_a_run_that_cannot_be_extended_is_refused_in_one_line(
    roomy: Run, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path, *more: str) -> str:
        arguments = ["extend", "--precision", "fp32", str(folder), "--good", str(labelled), "-o"]
        return fails(capsys, [*arguments, str(tmp_path / "part2.onnx"), *more], 27)

    assert "not a training run" in refused(tmp_path)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(roomy.folder, unfinished)
    (unfinished / "outcome.json").unlink()
    assert "not finished; go on with" in refused(unfinished)
    foldless = tmp_path / "foldless"
    shutil.copytree(roomy.folder, foldless)
    (foldless / "fold-1.pt").unlink()
    assert "fold-1.pt is missing; train again" in refused(foldless)
    assert "give their folder with --data" in refused(roomy.folder, "--data", "moved")
    other = write_parts(tmp_path / "other", good=12)
    assert "give their folder with --data" in refused(roomy.folder, "--data", str(other))
    taken = tmp_path / "part2-run"
    taken.mkdir()
    assert "choose another folder with --run" in refused(roomy.folder)
    assert not (tmp_path / "part2.onnx").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_as_output_is_refused_before_the_work(
    roomy: Run, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "part2.onnx"
    output.mkdir()
    arguments = [
        "extend",
        "--precision",
        "fp32",
        str(roomy.folder),
        "--good",
        str(labelled),
        "-o",
        str(output),
    ]
    assert "is a folder; name the bundle's file" in fails(capsys, arguments, 26)
    with pytest.raises(OutputError, match="is a folder"):
        extend_quietly(roomy, labelled, tmp_path / "part2", on_step=lambda step: pytest.fail())
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.long
def test_moved_photos_are_found_with_data(
    roomy: Run, parts: Path, labelled: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(roomy.folder, run)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "data": str(tmp_path / "gone")}))
    moved = tmp_path / "moved"
    shutil.copytree(parts, moved)
    arguments = [
        "extend",
        "--precision",
        "fp32",
        str(run),
        "--good",
        str(labelled),
        "--data",
        str(moved),
    ]
    assert main([*arguments, "-o", str(tmp_path / "part2.onnx")]) == 0
    child = Run(tmp_path / "part2-run")
    assert child.facts().data == moved.resolve()
    lost = next((child.folder / "added" / "1").iterdir())
    lost.unlink()
    with pytest.raises(RunError, match="not the photos that were taught"):
        child.photos(moved)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["backbone features", "teaching", "proving parity"])
def test_an_interrupt_leaves_nothing_half_done(
    stage: str, roomy: Run, labelled: Path, tmp_path: Path
) -> None:
    def interrupt(step: Step) -> None:
        if step.stage == stage and step.done == step.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extend_quietly(roomy, labelled, tmp_path / "part2", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_bundles_and_runs_without_lineage_still_load(roomy: Run, taught: Report) -> None:
    old = json.loads(taught.manifest.model_dump_json(exclude={"lineage"}))
    assert Manifest.model_validate(old).lineage == ()
    facts = roomy.facts()
    written = json.loads(facts.model_dump_json(exclude={"lineage"}))
    assert type(facts).model_validate(written) == facts
