"""``inspector-model`` from the command line: the whole road, and every bad input's one line."""

from __future__ import annotations

import argparse
import csv
import json
import os
import pty
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

import inspector.cli.main
from export.bundle import assemble, quantise
from export.bundle.assemble import _named
from export.bundle.graph import build_graph
from export.cli.arguments import settings_of
from export.cli.main import main
from export.cli.train import _again, _ask, add_arguments, chosen
from export.data.layouts import Selection
from export.settings import TrainSettings
from export.training.run import Outcome, Run, Suspect
from export.training.scorer import Scorer
from export.training.train import load_scorer
from inspector import Detector, Verdict
from inspector.config.yaml_file import load_yaml
from inspector.detection.bundle import read
from inspector.detection.manifest import Calibration, Golden
from inspector.errors import ParityError
from inspector.verdict import FloatMap, Frame8
from inspector.version import install_command
from tests import tiny, videos
from tests.export.conftest import CPU, draw_part, save, write_labelled, write_parts
from tests.paths import ROOT

CONFIG = ROOT / "config"


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    capsys.readouterr()
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("inspector-model: error: ")]
    assert len(errors) == 1, lines
    assert not any("Traceback" in line for line in lines)
    return errors[0]


def train_arguments(data: Path, output: Path) -> list[str]:
    quick = ["--size", "64x96", "--epochs", "0", "--bank-items", "30", "--folds", "2"]
    return ["train", str(data), "-o", str(output), *quick]


@pytest.mark.long
def test_a_person_sees_what_was_taken_for_what_and_can_say_otherwise(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "disc", tmp_path / "run"
    shutil.copytree(parts / "train" / "good", data / "monday")
    shutil.copytree(parts / "test" / "scratch", data / "scratch")
    line = fails(capsys, train_arguments(data, run), 20)
    assert "'scratch'" in line and "--good DIR" in line
    out = data / "monday" / "003.png"
    said = ["--good", str(data / "monday"), "--leave-out", str(out)]
    assert main([*train_arguments(data, run), *said]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "monday good parts 24" in told.replace("│", "").replace("  ", " ")
    assert "test photos: scratch" in told
    assert Run(run).facts().parts == 23
    # Every later command knows which photos were meant.
    assert main(["evaluate", str(run)]) == 0
    output = tmp_path / "disc.onnx"
    assert main(["export", "--precision", "fp32", str(run), "-o", str(output)]) == 0
    assert f"next: inspector judge {output} {data / 'scratch'}" in capsys.readouterr().out
    assert "does not lie in" in fails(
        capsys, [*train_arguments(data, tmp_path / "other"), "--good", "/"], 20
    )


def test_photos_to_bundle_to_verdict(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = tmp_path / "run", tmp_path / "disc.onnx"
    assert main(train_arguments(parts, run)) == 0
    told = capsys.readouterr().out
    assert "of good parts (auto); of 24 that the model had not seen" in told
    assert "about 1 good part in 24 may be rejected" in told
    assert "150 photos allow 1 in 150" in told
    assert "trial: the program drew 40 defects on good parts, many of them hardly visible" in told
    assert told.endswith(f"next: inspector-model evaluate {run}\n")
    assert main(["calibrate", str(run), "--false-reject", "2%"]) == 0
    told = capsys.readouterr().out
    assert "24 photos can tell 1 good part in 24, and 2.00% was asked; of 40 defects drawn" in told
    assert told.endswith(f"next: inspector-model evaluate {run}\n")
    assert main(["evaluate", str(run)]) == 0
    assert capsys.readouterr().out.endswith(f"next: inspector-model export {run} -o part.onnx\n")
    assert (run / "report.html").stat().st_size > 10_000
    assert len((run / "scores.csv").read_text().splitlines()) == 1 + 13
    assert main(["export", "--precision", "fp32", str(run), "-o", str(output)]) == 0
    told = capsys.readouterr().out
    assert "checked: 37 photos judged by the file and by the model, 0 verdicts differ" in told
    assert told.endswith(f"next: inspector judge {output} {parts / 'test'}\n")
    assert main(["show", str(output)]) == 0
    told = capsys.readouterr().out
    assert "patches of good parts" in told
    assert "those of 24 unseen good parts at the same place, which count for 29%" in told
    assert main(["show", str(output), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["calibration"]["target_false_reject"] == 0.02
    assert shown["calibration"]["cost"]["passed"] >= shown["calibration"]["cost"]["passed_at_auto"]
    assert shown["parity"]["images"] == 24 + 13
    assert shown["normalisation"] == {"good_parts": 24, "weight": 24 / (24 + 60)}
    assert shown["evaluation"] == json.loads((run / "evaluation.json").read_text())
    assert [golden["name"] for golden in shown["golden"]][-1] == "drawn defect"
    detector = Detector.load(output)
    assert detector.judge(draw_part(9000)[0]).verdict is Verdict.PASS
    stained = detector.judge(draw_part(9001, "stain")[0])
    assert stained.verdict is Verdict.FAIL
    mask = draw_part(9001, "stain")[1]
    ys, xs = np.nonzero(mask)
    region = stained.regions[0]
    assert region.x <= xs.mean() <= region.x + region.w
    assert region.y <= ys.mean() <= region.y + region.h


def soiled_parts(root: Path) -> Path:
    """A folder of good parts only, with two stained ones among them."""
    for seed in range(24):
        save(root / f"{seed:03d}.png", draw_part(seed)[0])
    for seed in (2000, 2001):
        save(root / "late" / f"odd-{seed}.png", draw_part(seed, "stain")[0])
    return root


@pytest.mark.long
def test_photos_unlike_the_others_are_named_shown_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = soiled_parts(tmp_path / "parts"), tmp_path / "run"
    assert main([*train_arguments(data, run), "--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert "look at these before you go on" in told
    assert "late/odd-2000.png" in told
    (again,) = [line for line in told.splitlines() if line.startswith("without them: ")]
    words = shlex.split(again.removeprefix("without them: "))
    assert {"late/odd-2000.png", "late/odd-2001.png"} <= set(words)
    assert words[words.index("--seed") + 1] == "3"
    assert main(["evaluate", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Look at these before you go on" in page
    assert "Heatmap, score" in page
    assert "Good parts with the highest scores" in page
    assert page.count('<figure class="card">') >= 12 + 2
    assert main(words[1:]) == 0
    facts = Run(tmp_path / "run-2").facts()
    assert facts.settings == Run(run).facts().settings
    assert {"late/odd-2000.png", "late/odd-2001.png"} <= set(facts.selection.leave_out)


@pytest.mark.long
def test_photos_to_leave_out_may_be_named_in_several_ways(tmp_path: Path) -> None:
    data = soiled_parts(tmp_path / "parts")
    arguments = [*train_arguments(data, tmp_path / "run"), "--leave-out", "003.png"]
    assert main([*arguments, "--leave-out", str(data / "late")]) == 0
    assert Run(tmp_path / "run").facts().selection.leave_out == (
        "003.png",
        "late/odd-2000.png",
        "late/odd-2001.png",
    )


def test_a_name_that_two_photos_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = soiled_parts(tmp_path / "parts")
    for folder in ("early", "late"):
        save(data / folder / "same.png", draw_part(50)[0])
    line = fails(capsys, [*train_arguments(data, tmp_path / "run"), "--leave-out", "same.png"], 20)
    assert "2 photos" in line and "early/same.png" in line


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        *[("y", "abc"), (" All ", "abc"), ("2", "b"), ("3, 1", "ca"), ("1 1", "a")],
        *[("", ""), ("n", ""), (" None", "")],
    ],
)
def test_an_answer_names_what_to_leave_out(answer: str, left: str) -> None:
    assert chosen(answer, ["a", "b", "c"]) == list(left)


@pytest.mark.parametrize("answer", ["0", "4", "1 x", "yes 1", "what?"])
def test_an_answer_that_is_none_is_asked_for_again(answer: str) -> None:
    assert chosen(answer, ["a", "b", "c"]) is None


def asked_for(answers: Sequence[str], spare: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is left out of three suspects by these answers, and how many questions were asked."""
    suspects = tuple(Suspect(name=name, times=3.0) for name in "abc")
    limit = Calibration.model_construct(good_parts=10 + spare)
    outcome = Outcome.model_construct(suspects=suspects, calibration=limit)
    left = iter(answers)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: (asked.append(text), next(left))[1])
    return _ask(Progress(disable=True))(outcome, spare), asked


def test_too_few_good_parts_are_told_before_they_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left, asked = asked_for(["y"], 3, monkeypatch)
    assert (left, len(asked)) == (["a", "b", "c"], 1)
    assert "different good parts" not in capsys.readouterr().out
    left, asked = asked_for(["y", "2 3", "2"], 1, monkeypatch)
    assert (left, len(asked)) == (["b"], 3)
    assert "at most 1 of them" in asked[0] and "y: " not in asked[0]
    told = capsys.readouterr().out
    assert "without them 8 different good parts would be left, and at least 10 are needed" in told
    # Nobody is asked what cannot be; and nobody has said that all are good parts.
    left, asked = asked_for([], 0, monkeypatch)
    assert (left, asked) == (None, [])
    assert "without them 7 different good parts" in capsys.readouterr().out


def test_the_command_without_the_suspects_works_whatever_their_names(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    typed = ["./-data", "-o", "./-run", "--good=-a", "--good", "b", "c", "--size", "64x96"]
    options = parser.parse_args(typed)
    selection = Selection(good=("-a", "b", "c"), leave_out=("-0.png",))
    suspects = [Suspect(name=name, times=3.0) for name in ("-1.png", "d e.png")]
    words = shlex.split(_again(options, selection, suspects))
    assert words[:2] == ["inspector-model", "train"]
    assert {"--leave-out=-1.png", "--leave-out=-0.png"} <= set(words)
    again = parser.parse_args(words[2:])
    assert (again.data, again.output) == (Path("-data"), Path("-run-2"))
    assert sorted(map(str, again.good)) == ["-a", "b", "c"]
    assert sorted(map(str, again.leave_out)) == ["-0.png", "-1.png", "d e.png"]
    assert again.size == "64x96"


@pytest.mark.long
@pytest.mark.parametrize("answer", ["y", ""])
def test_at_a_terminal_one_question_is_asked(tmp_path: Path, answer: str) -> None:
    data, run = soiled_parts(tmp_path / "parts"), tmp_path / "run"
    ours, theirs = pty.openpty()
    program = "import sys; from export.cli.main import main; sys.exit(main())"
    arguments = [sys.executable, "-c", program, *train_arguments(data, run)]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        seen = b""
        while b"such as 1 3: " not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, f"{answer}\n".encode())
        # Linux reports the end of a terminal as EIO.
        with suppress(OSError):
            while part := os.read(ours, 4096):
                seen += part
        assert child.wait(60) == 0
    os.close(ours)
    told = seen.decode(errors="replace")
    assert told.count("Train again without them?") == 1
    left = Run(run).facts().selection.leave_out
    odd = {"late/odd-2000.png", "late/odd-2001.png"}
    assert odd <= set(left) if answer else not left
    outcome = Run(run).outcome()
    assert outcome.all_good is not bool(answer)
    assert outcome.calibration.strays == 0 or answer
    assert Run(run).outcome().calibration.good_parts == 26 - len(left)


@pytest.mark.long
def test_region_and_size_travel_in_the_bundle(parts: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "disc.onnx"
    arguments = [*train_arguments(parts, run), "--region", "20,10,80,60"]
    assert main(arguments) == 0
    assert (
        main(["export", "--precision", "fp32", str(run), "-o", str(output), "--name", "cropped"])
        == 0
    )
    manifest = read(output).manifest
    assert manifest.name == Run(run).model_name() == "cropped"
    assert manifest.geometry.region is not None
    assert manifest.geometry.region.model_dump() == {"x": 20, "y": 10, "w": 80, "h": 60}
    assert (manifest.geometry.height, manifest.geometry.width) == (64, 96)


@pytest.mark.parametrize("precision", ["fp16", pytest.param("int8", marks=pytest.mark.long)])
def test_a_lower_precision_is_proven_by_its_verdicts(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    saturating: bool,
    precision: str,
) -> None:
    output = tmp_path / "part.onnx"
    arguments = ["export", str(trained.folder), "-o", str(output), "--precision", precision]
    if saturating and precision == "int8":
        line = fails(capsys, arguments, ParityError.exit_code)
        assert "8-bit products saturate on this machine's processor, which has no VNNI" in line
        assert line.endswith("; no file was written; use --precision fp32 or mixed")
        assert not output.exists()
        return
    assert main(arguments) == 0
    manifest = read(output).manifest
    assert manifest.precision == precision
    parity = manifest.parity
    assert parity is not None
    assert parity.tolerance is None
    assert parity.verdict_flips <= parity.flips_allowed * parity.images < 1
    assert parity.auroc_change is not None
    assert parity.auroc_change >= -0.001
    assert parity.validation is not None
    assert parity.test is not None
    assert (parity.validation.images, parity.test.images) == (24, 13)
    kinds = parity.validation, parity.test
    assert max(kind.largest_map_difference for kind in kinds) == parity.largest_map_difference > 0
    # A station takes it: its golden pictures carry the scores of this precision.
    assert Detector.load(output, provider="cpu").manifest.golden == manifest.golden


def test_mixed_is_as_exact_as_fp32(trained: Run, tmp_path: Path) -> None:
    output = tmp_path / "mixed.onnx"
    assert main(["export", str(trained.folder), "-o", str(output), "--precision", "mixed"]) == 0
    by_kind = Counter(node.op_type for node in onnx.load(output).graph.node)
    assert (by_kind["DequantizeLinear"], by_kind["MatMulIntegerToFloat"]) == (0, 1)
    manifest = Detector.load(output, provider="cpu").manifest
    assert manifest.precision == "mixed"
    assert manifest.parity is not None
    assert (manifest.parity.tolerance, manifest.parity.verdict_flips) == (1e-3, 0)


@pytest.mark.long
def test_int8_multiplies_in_8_bits(trained: Run, parts: Path) -> None:
    photos, geometry = trained.photos(parts), trained.facts().geometry
    graph = assemble._graph(load_scorer(trained, CPU), "int8", photos, geometry).graph
    by_kind = Counter(node.op_type for node in graph.node)
    assert by_kind["DequantizeLinear"] > 20
    assert by_kind["MatMulIntegerToFloat"] > 0


def test_fp16_that_changes_verdicts_is_refused(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "half.onnx"
    build = build_graph

    def coarse(scorer: Scorer, *, precision: str) -> onnx.ModelProto:
        graph = build(scorer, precision=precision)
        for tensor in graph.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16 and tensor.name.endswith(".weight"):
                values = np.round(onnx.numpy_helper.to_array(tensor), 1)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return graph

    monkeypatch.setattr(assemble, "build_graph", coarse)
    arguments = ["export", str(trained.folder), "-o", str(output), "--precision", "fp16"]
    assert "use --precision fp32" in fails(capsys, arguments, ParityError.exit_code)
    assert not output.exists()


@pytest.mark.long
def test_int8_that_changes_verdicts_is_refused(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "int8.onnx"
    rough = quantise.quantise
    # Ranges taken from black pictures cut everything off.
    monkeypatch.setattr(quantise, "quantise", lambda graph, shown: rough(graph, [0 * shown[0]]))
    arguments = ["export", str(trained.folder), "-o", str(output), "--precision", "int8"]
    assert "use --precision fp32" in fails(capsys, arguments, ParityError.exit_code)
    assert not output.exists()


@pytest.fixture(scope="module")
def quantised() -> dict[bool, onnx.ModelProto]:
    """The run's graph in 8 bits, by whether it saw black pictures only: one for all tests."""
    return {}


@pytest.mark.parametrize(
    ("speed", "rough", "chosen", "said"),
    [
        pytest.param(
            *(2.5, False, "int8", "precision: int8, 2.50 times as fast as fp32 on this machine"),
            marks=pytest.mark.long,
        ),
        (1.1, False, "mixed", "precision: mixed, 1.10 times as fast as fp32 on this machine"),
        (1.0, False, "fp32", "precision: fp32; int8 is 1.00 times as fast"),
        pytest.param(
            *(2.5, True, "mixed", "int8 was tried and is refused: the file does not judge as the"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_export_chooses_what_is_quicker_and_proven(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    saturating: bool,
    quantised: dict[bool, onnx.ModelProto],
    speed: float,
    rough: bool,
    chosen: str,
    said: str,
) -> None:
    if saturating and chosen == "int8":
        chosen, said = "mixed", "; 8-bit products saturate on this machine's processor"
    output = tmp_path / "part.onnx"
    careful = quantise.quantise

    def once(graph: onnx.ModelProto, shown: list[Frame8]) -> onnx.ModelProto:
        if rough not in quantised:
            quantised[rough] = careful(graph, [0 * shown[0]] if rough else shown)
        return quantised[rough]

    monkeypatch.setattr(quantise, "quantise", once)
    monkeypatch.setattr(assemble, "times_as_fast", lambda one, other: speed)
    assert main(["export", str(trained.folder), "-o", str(output)]) == 0
    assert said in capsys.readouterr().out
    manifest = read(output).manifest
    assert (manifest.precision, manifest.parity is not None) == (chosen, True)


def test_a_precision_that_does_not_run_here_is_not_chosen(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(graph: onnx.ModelProto, _: object) -> onnx.ModelProto:
        graph.graph.node[3].op_type = "NoSuchOperator"
        return graph

    output = tmp_path / "part.onnx"
    monkeypatch.setattr(quantise, "quantise", unknown)
    monkeypatch.setattr(assemble, "times_as_fast", lambda one, other: 1.0)
    assert main(["export", str(trained.folder), "-o", str(output)]) == 0
    assert "precision: fp32; int8 does not run here: " in capsys.readouterr().out
    assert read(output).manifest.precision == "fp32"


@pytest.mark.long
def test_the_speed_of_two_bundles_is_measured(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "part.onnx"
    assert main(["export", "--precision", "fp32", str(trained.folder), "-o", str(output)]) == 0
    one, other = (Detector.load(output, provider="cpu", verify=False) for _ in range(2))
    infer = other.infer

    def slow(batch: Frame8) -> tuple[FloatMap, FloatMap]:
        until = time.perf_counter() + 0.2
        while time.perf_counter() < until:
            pass
        return infer(batch)

    monkeypatch.setattr(assemble, "_ROUNDS", 5)
    monkeypatch.setattr(other, "infer", slow)
    assert assemble.times_as_fast(one, other) > 2 > assemble.times_as_fast(other, one)


@pytest.mark.long
def test_the_literal_graph_is_a_bundle_like_any_other(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "reference.onnx"
    arguments = [
        "export",
        "--precision",
        "fp32",
        str(trained.folder),
        "-o",
        str(output),
        "--reference",
    ]
    assert "leave --precision out" in fails(capsys, [*arguments, "--precision", "int8"], 10)
    assert main(arguments) == 0
    assert onnx.load(output).graph.name == "cfa_reference"
    assert Detector.load(output, provider="cpu").manifest.precision == "fp32"


def test_other_photos_than_the_run_was_trained_on_are_not_exported(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_parts(tmp_path / "other", good=23)
    extra, _ = draw_part(777)
    cv2.imwrite(str(other / "train" / "good" / "999.png"), extra)
    output = tmp_path / "disc.onnx"
    arguments = [
        "export",
        "--precision",
        "fp32",
        str(trained.folder),
        "-o",
        str(output),
        "--data",
        str(other),
    ]
    assert "give their folder with --data" in fails(capsys, arguments, 27)
    assert not output.exists()


@pytest.fixture(scope="module")
def told_which_are_good(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A data set whose good parts a person named, and a run on it."""
    data, run = (tmp_path_factory.mktemp("told") / name for name in ("disc", "run"))
    shutil.copytree(parts / "train" / "good", data / "monday")
    shutil.copytree(parts / "test" / "scratch", data / "scratch")
    assert main([*train_arguments(data, run), "--good", str(data / "monday")]) == 0
    return data, Run(run)


@pytest.mark.long
def test_data_that_lacks_the_folders_of_good_parts_is_not_the_run_s(
    told_which_are_good: tuple[Path, Run],
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = told_which_are_good
    at = [str(run.folder), "--data", str(parts)]
    assert not run.is_of(parts)
    assert main(["evaluate", *at, "-o", str(tmp_path / "report")]) == 0
    output = str(tmp_path / "part.onnx")
    line = fails(capsys, ["export", *at, "-o", output, "--precision", "fp32"], 27)
    assert "not the good parts the run was trained on; give their folder with --data" in line
    labelled = str(write_labelled(tmp_path / "labelled", 2))
    line = fails(capsys, ["extend", *at, "--good", labelled, "-o", output], 27)
    assert "not the good parts the run was trained on" in line
    # What has an order of its own, and leaves doubt, is refused without an option of 'train'.
    other = tmp_path / "other"
    shutil.copytree(data / "scratch", other / "scratch")
    shutil.copytree(data / "monday", other / "tuesday")
    line = fails(capsys, ["evaluate", str(run.folder), "--data", str(other)], 20)
    assert "--good" not in line and "test/good and test/<kind>" in line


def test_a_folder_of_good_parts_that_is_not_there_is_named(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*train_arguments(parts, tmp_path / "run"), "--good", "monday"]
    assert "has no folder 'monday', which --good names" in fails(capsys, arguments, 20)


def test_a_missing_output_folder_is_said_before_the_work(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "absent" / "disc.onnx"
    line = fails(
        capsys, ["export", "--precision", "fp32", str(trained.folder), "-o", str(output)], 26
    )
    assert "no such folder; make it" in line


@pytest.mark.parametrize("command", ["export", "extend"])
def test_a_folder_as_output_is_refused_before_the_work(
    command: str,
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(*_: object) -> None:
        pytest.fail("it began to work")

    monkeypatch.setattr("export.extend.load_scorer", work)
    monkeypatch.setattr("export.training.train.load_scorer", work)
    arguments = [command, "--precision", "fp32", str(trained.folder), "-o", str(tmp_path)]
    if command == "extend":
        labelled = write_labelled(tmp_path / "labelled", 2)
        arguments += ["--good", str(labelled), "--run", str(tmp_path / "run2")]
    line = fails(capsys, arguments, 26)
    assert f"{tmp_path}: is a folder; name the bundle's file with -o" in line


@pytest.mark.long
def test_a_report_on_other_data_leaves_the_run_s_own(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    assert main(["evaluate", str(run)]) == 0
    names = ("evaluation.json", "scores.csv", "report.html")
    own = {name: (run / name).read_bytes() for name in names}
    other = write_parts(tmp_path / "other", good=12)
    shutil.rmtree(other / "train")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(other)]) == 0
    assert f"report: {run / 'evaluation-other' / 'report.html'}" in capsys.readouterr().out
    assert {path.name for path in (run / "evaluation-other").iterdir()} == set(names)
    line = fails(capsys, ["evaluate", str(run), "--data", str(other)], 26)
    assert "evaluation-other: is there already; remove it, or name a folder with -o" in line
    out = tmp_path / "new" / "report"
    assert main(["evaluate", str(run), "--data", str(other), "-o", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == set(names)
    assert {name: (run / name).read_bytes() for name in names} == own
    # The limit of all of them is another one now.
    assert main(["calibrate", str(run), "--false-reject", "20%"]) == 0
    assert not list(run.rglob("report.html"))


def test_golden_pictures_are_named_by_their_scores(trained: Run, tmp_path: Path) -> None:
    output = tmp_path / "disc.onnx"
    assert main(["export", "--precision", "fp32", str(trained.folder), "-o", str(output)]) == 0
    golden = read(output).manifest.golden
    names = ["good, low", "good, middle", "good, high", "drawn defect"]
    assert [one.name for one in golden] == names
    scores = [one.score for one in golden]
    assert scores[:3] == sorted(scores[:3])
    assert scores[3] > scores[2]


@pytest.mark.long
def test_a_test_photo_of_another_shape_is_a_fault_and_stops_no_export(
    trained: Run, parts: Path, tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(parts, data)
    shutil.copytree(trained.folder, run)
    photo = cv2.imread(str(data / "test" / "good" / "000.png"))
    cv2.imwrite(str(data / "test" / "good" / "000.png"), cv2.resize(photo, (300, 80)))
    assert main(["evaluate", str(run), "--data", str(data)]) == 0
    assert "test/good/000.png,good,,FAULT" in (run / "scores.csv").read_text()
    output = tmp_path / "disc.onnx"
    assert (
        main(["export", "--precision", "fp32", str(run), "--data", str(data), "-o", str(output)])
        == 0
    )
    parity = read(output).manifest.parity
    assert parity is not None
    assert parity.images == 24 + 12


@pytest.mark.long
def test_a_run_that_catches_nothing_is_not_waved_on_to_export(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(trained.folder, run.folder)
    outcome = run.outcome()
    # As one odd part among few would set it.
    high = outcome.calibration.model_copy(update={"threshold": outcome.calibration.threshold * 99})
    changed = outcome.model_copy(update={"calibration": high})
    run.write("outcome.json", changed.model_dump_json().encode())
    assert main(["evaluate", str(run.folder)]) == 0
    told = capsys.readouterr().out
    assert "More than half of the defective parts pass, although" in told
    assert f"next: inspector-model calibrate {run.folder} --false-reject" in told
    assert "inspector-model export" not in told
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "calibrate RUN --false-reject" in page
    assert main(shlex.split(told.splitlines()[-1].removeprefix("next: "))[1:]) == 0
    assert "of them pass at this limit" in capsys.readouterr().out
    assert main(["evaluate", str(run.folder)]) == 0
    assert "inspector-model export" in capsys.readouterr().out


@pytest.mark.long
def test_runs_are_compared_side_by_side_with_what_differs(
    trained: Run, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(trained.folder, one)
    assert main([*train_arguments(parts, two), "--false-reject", "20%"]) == 0
    assert main(["evaluate", str(two)]) == 0
    for stale in ("evaluation.json", "scores.csv"):
        (one / stale).unlink(missing_ok=True)

    def compared() -> tuple[dict[str, list[str]], str]:
        capsys.readouterr()
        assert main(["compare", str(one), str(two)]) == 0
        out = capsys.readouterr().out
        rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
        return {row[0]: row[1:] for row in rows if len(row) == 3}, out

    rows, out = compared()
    assert rows["setting bank_items"] == ["48", "30"]
    assert rows["setting epochs"] == ["2", "0"]
    assert "setting size" not in rows
    summary = json.loads((two / "evaluation.json").read_text())
    assert rows["defective parts that pass"] == ["-", f"{summary['escapes']:.4g}"]
    assert "note: one was not evaluated at its limit" in out
    assert main(["evaluate", str(one)]) == 0
    verdicts = [
        {
            row["path"]: row["verdict"]
            for row in csv.DictReader((run / "scores.csv").read_text().splitlines())
        }
        for run in (one, two)
    ]
    differing = sum(verdicts[0][path] != verdicts[1][path] for path in verdicts[0])
    rows, out = compared()
    assert rows["verdicts unlike those of one"] == ["0 of 13", f"{differing} of 13"]
    assert "note:" not in out
    (one / "evaluation.json").write_text("{")
    line = fails(capsys, ["compare", str(one), str(two)], 27)
    assert "its evaluation is damaged" in line


@pytest.mark.long
def test_calibrating_anew_removes_the_figures_of_the_former_limit(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(train_arguments(parts, run)) == 0
    assert main(["evaluate", str(run)]) == 0
    before = Run(run).outcome().calibration.threshold
    assert main(["calibrate", str(run), "--false-reject", "20%"]) == 0
    assert Run(run).outcome().calibration.threshold < before
    assert not {"evaluation.json", "scores.csv", "report.html"} & {p.name for p in run.iterdir()}
    line = fails(capsys, [*train_arguments(parts, run), "--resume"], 27)
    assert "inspector-model calibrate" in line


@pytest.mark.long
def test_a_station_without_torch_is_told_what_to_install(trained: Run, tmp_path: Path) -> None:
    output = tmp_path / "disc.onnx"
    assert main(["export", "--precision", "fp32", str(trained.folder), "-o", str(output)]) == 0
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'scipy', 'sklearn', 'matplotlib', 'PIL']))\n"
        "from export.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = run("show", str(output))
    assert shown.returncode == 0, shown.stderr
    assert "patches of good parts" in shown.stdout
    evaluated = run("evaluate", str(trained.folder))
    trained_without = run("train", str(tmp_path), "-o", str(tmp_path / "run"))
    for refused in (evaluated, trained_without):
        assert refused.returncode == 3
        assert refused.stderr.count("\n") == 1
        assert f"run {install_command('train')}" in refused.stderr


def test_right_aligned_12_bit_photos_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(12):
        deep = draw_part(i)[0].astype(np.uint16) * 16
        cv2.imwrite(str(tmp_path / f"{i}.tiff"), deep)
    line = fails(capsys, train_arguments(tmp_path, tmp_path.parent / "deep-run"), 21)
    assert "12-bit" in line


@pytest.mark.long
def test_16_bit_tiff_photos_train_like_their_8_bit_twins(tmp_path: Path) -> None:
    for i in range(12):
        image = draw_part(i)[0]
        for folder, picture in (("shallow", image), ("deep", image.astype(np.uint16) * 257)):
            path = tmp_path / folder / f"{i}.tiff"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), picture)
    for folder in ("shallow", "deep"):
        assert main(train_arguments(tmp_path / folder, tmp_path / f"run-{folder}")) == 0
    limits = [
        Run(tmp_path / f"run-{f}").outcome().calibration.threshold for f in ("shallow", "deep")
    ]
    assert limits[0] == limits[1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "room"), [("export", 1_000_000), ("extend", 2_000), ("extend", 1_000_000)]
)
def test_a_full_disk_leaves_the_old_bundle(
    command: str, room: int, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "disc.onnx"
    output.parent.mkdir()
    output.write_bytes(b"the bundle in service")
    arguments = [command, "--precision", "fp32", str(trained.folder), "-o", str(output)]
    if command == "extend":
        arguments += ["--good", str(write_labelled(tmp_path / "labelled", 6))]
    # Writing past this size fails as on a full disk: a model's file, or the bundle.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        line = fails(capsys, arguments, 26)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written" in line
    assert output.read_bytes() == b"the bundle in service"
    assert [path.name for path in output.parent.iterdir()] == ["disc.onnx"]


def test_missing_and_empty_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, train_arguments(tmp_path / "absent", tmp_path / "run"), 20)
    assert "absent" in line
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(capsys, train_arguments(tmp_path / "empty", tmp_path / "run"), 20)
    assert not (tmp_path / "run").exists()


def test_a_truncated_photo_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_parts(tmp_path / "data", good=12)
    broken = data / "train" / "good" / "005.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    assert str(broken) in fails(capsys, train_arguments(data, tmp_path / "run"), 21)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["cut JPEG", "JPEG without its last scans", "pages"])
def test_a_photo_that_holds_no_one_whole_picture_is_named(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parts(tmp_path / "data", good=12)
    part = draw_part(5)[0]
    bad = data / "train" / "good" / ("005.tiff" if what == "pages" else "005.jpg")
    if what == "pages":
        assert cv2.imwritemulti(str(bad), [part, part])
    elif what == "cut JPEG":
        bad.write_bytes(videos.cut(videos.encode(part), 0.8))
    else:
        whole = videos.encode(part, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
        bad.write_bytes(whole[: whole.rindex(b"\xff\xda")] + videos.END)
    (data / "train" / "good" / "005.png").unlink()
    said = fails(capsys, train_arguments(data, tmp_path / "run"), 21)
    assert f"{bad}: the image " in said
    assert "remove the file or take the photo again" in said


def test_a_photo_outside_the_region_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parts(tmp_path / "data", good=12)
    small = data / "train" / "good" / "003.png"
    cv2.imwrite(str(small), draw_part(3)[0][:40, :50])
    arguments = [*train_arguments(data, tmp_path / "run"), "--region", "20,10,80,60"]
    line = fails(capsys, arguments, 21)
    assert str(small) in line
    assert "50x40" in line


def test_identical_and_too_few_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = write_parts(tmp_path / "few", good=9)
    assert "9 good parts" in fails(capsys, train_arguments(few, tmp_path / "run"), 23)
    same = tmp_path / "same"
    same.mkdir()
    for i in range(12):
        cv2.imwrite(str(same / f"{i}.png"), draw_part(0)[0])
    assert "same picture" in fails(capsys, train_arguments(same, tmp_path / "run"), 23)


def test_a_mask_without_an_image(
    trained: Run, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parts(tmp_path / "data", good=12)
    (data / "test" / "stain" / "001.png").unlink()
    line = fails(capsys, ["evaluate", str(trained.folder), "--data", str(data)], 22)
    assert "001_mask.png" in line


def test_weights_of_the_wrong_network(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights at all")
    arguments = [*train_arguments(parts, tmp_path / "run"), "--weights", str(weights)]
    assert str(weights) in fails(capsys, arguments, 24)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("epochs: 5\nepohs: 3\n", ":2: epohs", "unknown key; did you mean 'epochs'?"),
        ("epochs: 1_0\n", ":1: epochs", "YAML reads 1_0 as the number 10"),
        ("epochs: many\n", ":1: epochs", "many"),
        ("epochs: yes\n", ":1: epochs", "must be a whole number (found yes, which YAML reads as"),
        ("seed: '3'\n", ":1: seed", "must be a whole number (found '3')"),
        ("seed: 010\n", ":1: seed", "YAML reads 010 as the number 8"),
        ("folds: 5.0\n", ":1: folds", "must be a whole number (found 5.0)"),
        ("cache_gb: 1:30\n", ":1: cache_gb", "YAML reads 1:30 as the number 90"),
        ("sigma: no\n", ":1: sigma", "must be a number (found no, which YAML reads as"),
        ("bank_items: yes\n", ":1: bank_items", "must be a whole number (found yes"),
        ("false_reject: no\n", ":1: false_reject", "must be a number (found no"),
        ("false_reject: 0.7\n", ":1: false_reject", "expected a share below 50%"),
        ("scales: yes\n", ":1: scales", "such as 1,0.5 (found yes"),
        ("strides: [yes]\n", ":1: strides[0]", "must be a whole number (found yes"),
        ("size: yes\n", ":1: size", "expected HEIGHTxWIDTH such as 256x320"),
        ("size: 256.0\n", ":1: size", "or auto (found 256.0)"),
        ("region: yes\n", ":1: region", "expected x,y,w,h in camera pixels"),
        ("backbone: on\n", ":1: backbone", "put it in quotes: 'on'"),
        ("weights:\n", ":1: weights", "is empty; give a value, or leave the key out"),
        ("size: 250x250\n", "file", "multiples of 32"),
        ("gamma_c: 4\nbank_items: 10\n", "file", "not both"),
        ("epochs: [1\n", ":2", "not YAML"),
    ],
)
def test_a_wrong_training_file_names_line_and_key(
    text: str, where: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(text)
    arguments = ["train", str(tmp_path), "-o", str(tmp_path / "run"), "--config", str(config)]
    line = fails(capsys, arguments, 10)
    assert str(config) in line
    assert where in line
    assert what in line


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--epochs", "x"),
        ("--size", "256,288"),
        ("--region", "1,2,3"),
        ("--region", "0,0,0,5"),
        ("--false-reject", "half"),
        ("--false-reject", "100%"),
        ("--strides", "8;16"),
        ("--scales", "full"),
        ("--alpha", "inf"),
        ("--bank-items", "5000000000"),
    ],
)
def test_a_wrong_option_names_itself(
    flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flag in fails(capsys, ["train", str(tmp_path), "-o", "run", flag, value], 10)


def test_a_typed_number_is_one_as_in_a_file(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        "epochs: 7\nsigma: 2\nscales: 1\nstrides: 8\nsize: 128\nfalse_reject: 0.02\n"
        "learning_rate: 2e-4\n"
    )
    typed = {"epochs": "7", "sigma": "2", "scales": "1", "strides": "8", "size": "128"}
    typed["learning_rate"] = "0.0002"
    assert settings_of({**typed, "false_reject": "2%"}) == settings_of({}, config)
    assert settings_of({"sigma": "auto", "learning_rate": "1e-3"}, config).learning_rate == 0.001


def test_shipped_configurations_load_and_hold_the_defaults() -> None:
    assert load_yaml(CONFIG / "train.yaml", TrainSettings) == TrainSettings()
    paper = load_yaml(CONFIG / "train-paper.yaml", TrainSettings)
    assert (paper.bank_init, paper.epochs, paper.strides) == ("ema", 30, (4, 8, 16))
    assert paper.scales == (1.0,)


@pytest.mark.long
def test_every_command_says_what_it_does_not_read_and_how_far_it_is(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, output = tmp_path / "disc", tmp_path / "run", tmp_path / "disc.onnx"
    shutil.copytree(parts, data)
    (data / "train" / "good" / "IMG_7.heic").write_bytes(b"from a phone")
    shutil.copytree(data / "train" / "good", tmp_path / "more")
    for photo in list((tmp_path / "more").glob("*.png"))[3:]:
        photo.unlink()
    for number, photo in enumerate((tmp_path / "more").glob("*.png")):
        assert cv2.imwrite(str(photo), draw_part(7000 + number)[0])
    commands = {
        "looking at the photos: 24 of 24, took ": train_arguments(data, run),
        "judging test photos: 13 of 13, took ": ["evaluate", str(run)],
        "checking that the file judges as the model does: 37 of 37, took ": [
            *("export", "--precision", "fp32", str(run), "-o", str(output))
        ],
        "learning the new good parts: ": [
            *("extend", "--precision", "fp32", str(run), "--good", str(tmp_path / "more")),
            *("-o", str(tmp_path / "disc2.onnx")),
        ],
    }
    for line, arguments in commands.items():
        assert main(arguments) == 0
        said = capsys.readouterr()
        folder = tmp_path / "more" if arguments[0] == "extend" else data
        assert f"not read in {folder}, since they are no photos: 1 .heic\n" in said.out
        assert sum(one.startswith(line) for one in said.err.splitlines()) == 1, said.err


def test_a_region_larger_than_the_photos_is_blamed_itself(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(parts, tmp_path / "run")
    config = tmp_path / "train.yaml"
    config.write_text("region: 0,0,9000,64\n")
    for where in (("--region", "0,0,9000,64"), ("--config", str(config))):
        line = fails(capsys, [*arguments, *where], 10)
        # The file has no key '--region', and the option is no line of a file.
        assert ": region 0,0,9000,64: reaches beyond the photos, which have " in line
        assert "by --region or in the file of --config" in line
        assert "remove the photo" not in line
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "{bundle}"],
        ["export", "{bundle}", "-o", "{folder}/other.onnx"],
        ["calibrate", "{bundle}", "--false-reject", "1%"],
        ["extend", "{bundle}", "--good", "{folder}", "-o", "{folder}/other.onnx"],
    ],
)
def test_a_bundle_is_no_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny.write_bundle(tmp_path / "part.onnx")
    arguments = [word.format(bundle=bundle, folder=tmp_path) for word in words]
    assert f"{bundle}: a bundle, not a run; name the folder" in fails(capsys, arguments, 27)


def test_a_name_in_a_bundle_acts_on_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "d\u202eisc\x1b[2J\x9b\x7f"
    bundle = tiny.write_bundle(tmp_path / "part.onnx", name=name)
    assert main(["show", str(bundle), "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["name"] == name
    assert printed.isascii() and printed.replace("\n", "").isprintable()
    assert main(["show", str(bundle)]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_a_run_is_no_bundle(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, ["show", str(trained.folder)], 11)
    assert f"{trained.folder}: a run, not a bundle; write its bundle with" in line
    photo = trained.facts().data
    assert inspector.cli.main.main(["judge", str(trained.folder), str(photo)]) == 11
    assert f"{trained.folder}: a run, not a bundle" in capsys.readouterr().err
    assert "a folder, not a bundle" in fails(capsys, ["show", str(trained.folder.parent)], 11)
    assert inspector.cli.main.main(["check", "part.onnx"]) == 10
    assert "part.onnx: a bundle, not a YAML file" in capsys.readouterr().out


@given(st.lists(st.floats(0, 2), min_size=4, max_size=4))
def test_names_of_known_photos_follow_their_scores(scores: list[float]) -> None:
    picture = tiny.png(tiny.good_picture())
    pictures = [Golden(name="x", png=picture, score=score) for score in scores[:3]]
    drawn = Golden(name="drawn defect", png=picture, score=scores[3])
    named = _named([*pictures, drawn])
    assert [golden.name for golden in named] == [
        "good, low",
        "good, middle",
        "good, high",
        "drawn defect",
    ]
    assert [golden.score for golden in named] == [*sorted(scores[:3]), scores[3]]


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a training run" in fails(capsys, ["evaluate", str(tmp_path)], 27)


def test_show_refuses_a_bit_flipped_bundle(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "disc.onnx"
    assert main(["export", "--precision", "fp32", str(trained.folder), "-o", str(output)]) == 0
    data = bytearray(output.read_bytes())
    data[len(data) // 2] ^= 1
    output.write_bytes(data)
    assert "checksum" in fails(capsys, ["show", str(output)], 11)
