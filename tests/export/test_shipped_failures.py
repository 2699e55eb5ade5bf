"""Failures that other inspection systems shipped, of the training wing; the line's are in
tests/test_shipped_failures.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.bundle import assemble
from export.bundle.graph import build_graph
from export.cli.main import main
from export.training.run import Run
from inspector import Detector, Verdict
from tests.export.conftest import draw_part

from .test_cli import fails


def test_08_exported_graph_that_scores_otherwise_leaves_no_file(
    trained: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = build_graph

    def off_by_one_percent(*arguments: object, **options: object) -> onnx.ModelProto:
        model = build(*arguments, **options)  # type: ignore[arg-type]
        for tensor in model.graph.initializer:
            if tensor.name == "map.rows":
                values = numpy_helper.to_array(tensor) * np.float32(1.004)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(assemble, "build_graph", off_by_one_percent)
    output = tmp_path / "disc.onnx"
    line = fails(
        capsys, ["export", "--precision", "fp32", str(trained.folder), "-o", str(output)], 25
    )
    assert "no file was written" in line
    assert list(tmp_path.iterdir()) == []


def test_09_limit_from_good_parts_alone_passes_good_parts(trained: Run, tmp_path: Path) -> None:
    """A limit at the smallest good score would reject all but one of the parts it was set from."""
    calibration = trained.outcome().calibration
    held_out = np.asarray(calibration.scores)
    assert len(held_out) == 24
    assert (held_out >= 1.0).sum() == calibration.good_rejected <= 1
    output = tmp_path / "disc.onnx"
    assert main(["export", "--precision", "fp32", str(trained.folder), "-o", str(output)]) == 0
    judge = Detector.load(output, "cpu", 1).judge
    # Never seen, of the same process; the fewest parts a limit can be set from are no many.
    good = [judge(draw_part(seed)[0]).verdict for seed in range(7000, 7060)]
    assert good.count(Verdict.PASS) >= 50
    assert good.count(Verdict.FAULT) == 0
    bad = [judge(draw_part(seed, "stain")[0]).verdict for seed in range(7100, 7110)]
    assert bad.count(Verdict.FAIL) >= 8
