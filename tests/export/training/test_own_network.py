"""A run on a network of one's own: trained, exported, moved, resumed, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from export.bundle.assemble import export_bundle
from export.cli.main import main
from export.settings import TrainSettings
from export.training.run import Run
from export.training.train import load_scorer, train
from inspector.detection import bundle
from inspector.detection.detector import Detector
from inspector.errors import ConfigError, ParityError, RunError, WeightsError
from tests.export.conftest import QUICK, draw_part
from tests.export.networks import convolutional, transformer

CPU = torch.device("cpu")


def quick(path: Path, **options: object) -> TrainSettings:
    given = {"backbone": path, "strides": (8, 16), "epochs": 1, **options}
    return TrainSettings.model_validate({**QUICK.model_dump(exclude_unset=True), **given})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convolutional(tmp_path_factory.mktemp("networks") / "mine.onnx").path


@pytest.fixture(scope="module")
def own(parts: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "own"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(network.parent)
        settings = quick(Path("mine.onnx"))
        return train(parts, folder, settings, resume=False, on_step=lambda step: None)


def moved(run: Run, network: Path, to: Path) -> tuple[Run, Path]:
    """A copy of ``run`` that knows the file at a place where it no longer is, and the file."""
    shutil.copytree(run.folder, to / "run")
    facts = to / "run" / "run.json"
    facts.write_text(facts.read_text().replace(str(network), str(to / "gone" / "mine.onnx")))
    return Run(to / "run"), shutil.copy(network, to / "elsewhere.onnx")


def test_a_run_knows_its_file_from_any_folder(own: Run, network: Path) -> None:
    facts = own.facts()
    assert facts.settings.backbone == network.resolve()
    assert facts.weights_sha256 == hashlib.sha256(network.read_bytes()).hexdigest()
    scorer = load_scorer(own, CPU)
    good, bad = draw_part(1001)[0], draw_part(2001, "scratch")[0]
    scores, _ = scorer(np.stack([facts.geometry.apply(image) for image in (good, bad)]))
    assert scores[0] < 1.0 < scores[1]


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_its_bundle_is_proven_and_names_the_file(
    precision: str, own: Run, parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "part.onnx"
    scorer = load_scorer(own, CPU)
    manifest = export_bundle(
        own,
        scorer,
        output,
        name="disc",
        precision=precision,  # type: ignore[arg-type]
        data=parts,
        on_image=lambda done, total: None,
    )
    assert manifest.parity is not None and manifest.parity.verdict_flips == 0
    found = bundle.read(output).manifest.cfa
    assert (found.backbone, found.strides) == ("mine.onnx", (8, 16))
    assert found.weights_sha256 == own.facts().weights_sha256
    assert str(own.facts().settings.backbone).encode() not in output.read_bytes()
    images = np.stack([own.facts().geometry.apply(draw_part(seed)[0]) for seed in (1003, 1004)])
    detector = Detector.load(output, provider="cpu")
    np.testing.assert_allclose(detector.infer(images)[1], scorer(images)[1], rtol=0, atol=1e-3)


def test_8_bits_are_proven_or_refused(own: Run, tmp_path: Path) -> None:
    """Random features in 8 bits may judge otherwise, and then no file is left."""
    output = tmp_path / "part.onnx"
    code = main(["export", str(own.folder), "-o", str(output), "--precision", "int8"])
    if code == ParityError.exit_code:
        assert not output.exists()
    else:
        assert code == 0
        found = bundle.read(output).manifest
        assert found.precision == "int8" and found.parity is not None
        assert found.parity.verdict_flips <= 0.005 * found.parity.images


def test_half_precision_is_refused_and_nothing_written(
    own: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "part.onnx"
    command = ["export", str(own.folder), "-o", str(output), "--precision", "fp16"]
    assert main(command) == ConfigError.exit_code
    assert (
        "fp16: the network from the file mine.onnx keeps its own number format"
        in capsys.readouterr().err
    )
    assert not output.exists()


@pytest.mark.long
def test_a_transformer_is_not_brought_to_8_bits(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = quick(transformer(tmp_path / "vit.onnx", 16).path, strides=(16,), folds=2)
    run = train(parts, tmp_path / "run", settings, resume=False, on_step=lambda step: None)
    output = tmp_path / "part.onnx"
    command = ["export", str(run.folder), "-o", str(output)]
    assert main([*command, "--precision", "int8"]) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "vit.onnx works by MatMul, and only convolutions are brought to 8 bits" in said
    assert not output.exists()
    assert main(command) == 0
    assert bundle.read(output).manifest.precision in {"fp32", "mixed"}


def test_a_moved_file_is_named_by_weights(
    own: Run, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, elsewhere = moved(own, network, tmp_path)
    command = ["export", str(run.folder), "-o", str(tmp_path / "part.onnx"), "--precision", "fp32"]
    assert main(command) == WeightsError.exit_code
    said = capsys.readouterr().err
    assert "gone" in said and "for a run with --weights" in said
    assert main([*command, "--weights", str(elsewhere)]) == 0
    assert bundle.read(tmp_path / "part.onnx").manifest.cfa.backbone == "mine.onnx"
    other = convolutional(tmp_path / "other.onnx", seed=1).path
    with pytest.raises(RunError, match="other backbone weights; give --weights"):
        load_scorer(run, CPU, other)


@pytest.mark.long
def test_training_goes_on_with_a_moved_file_and_no_other(
    own: Run, parts: Path, network: Path, tmp_path: Path
) -> None:
    run, elsewhere = moved(own, network, tmp_path)
    for name in ("outcome.json", "model.pt"):
        (run.folder / name).unlink()
    other = convolutional(tmp_path / "other.onnx", seed=1).path
    with pytest.raises(RunError, match="other backbone weights"):
        train(parts, run.folder, quick(other), resume=True, on_step=lambda step: None)
    train(parts, run.folder, quick(elsewhere), resume=True, on_step=lambda step: None)
    assert run.outcome().calibration.threshold == pytest.approx(
        own.outcome().calibration.threshold, rel=1e-5
    )
    with pytest.raises(RunError, match="was started with backbone = "):
        train(parts, run.folder, QUICK, resume=True, on_step=lambda step: None)


def test_a_file_for_one_size_sets_the_size(parts: Path, tmp_path: Path) -> None:
    fixed = convolutional(tmp_path / "fixed.onnx", sides=(96, 128)).path
    settings = quick(fixed, size=None, scales=(1.0,), folds=2)
    run = train(parts, tmp_path / "run", settings, resume=False, on_step=lambda step: None)
    assert run.facts().settings.size == (96, 128)
    assert load_scorer(run, CPU).settings.grid == (12, 16)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--size", "64x96"), 24, "takes pictures of 96x128 px, not 64x96; give --size 96x128"),
        (("--scales", "1,0.5"), 24, "so it sees no half picture; give --scales 1"),
        (("--strides", "4"), 24, "no output stride_4; it has stride_8, stride_16"),
        (("--strides", "16,8"), 10, "strides must be in rising order"),
        (("--strides", "8,20"), 10, "strides must be multiples of the smallest"),
        (("--weights", "w.pth"), 10, "weights belong to a network by name"),
        (("--auto",), 10, "--auto: chooses for networks by name"),
        (("--backbone", "resnet19"), 10, "--backbone: expected efficientnet_lite0, "),
        (("--backbone", "absent.onnx"), 24, "absent.onnx: no such network file"),
    ],
)
def test_what_does_not_fit_is_said_before_photos_are_read(
    options: tuple[str, ...],
    code: int,
    words: str,
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fixed = convolutional(tmp_path / "fixed.onnx", sides=(96, 128)).path
    command = ["train", str(parts), "-o", str(tmp_path / "run"), "--strides", "8"]
    given = ["--backbone", str(fixed), "--scales", "1", *options]
    assert main([*command, *given]) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said, said
    assert not (tmp_path / "run").exists()
