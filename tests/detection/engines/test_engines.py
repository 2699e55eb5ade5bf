"""Every engine gives the verdicts of the others, or says why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inspector import Detector, Verdict
from inspector.detection import bundle as bundles
from inspector.detection.engines import Engine, base, onnxruntime, openvino
from inspector.errors import BundleError, Fault, GoldenError, ProviderError
from inspector.verdict import Reason
from inspector.version import install_command
from tests import running, tiny
from tests.paths import ROOT

DEMO = ROOT / "config" / "demo.onnx"
EXACT = ("cpu", "openvino")
AFFINITY = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system binds no thread to a core"
)


@pytest.mark.parametrize("provider", EXACT)
def test_an_engine_judges_as_the_reference_does(bundle_path, provider):
    detector = Detector.load(bundle_path, provider)
    assert detector.judge(tiny.good_picture()).score == 0.0
    assert detector.judge(tiny.bad_picture()).score == pytest.approx(127 / 64)
    detector.warm(2)
    scores, maps = detector.infer(np.stack([tiny.good_picture(), tiny.bad_picture()]))
    assert scores.dtype == maps.dtype == np.float32
    assert (list(scores), maps.shape) == ([0.0, pytest.approx(127 / 64)], (2, 64, 64))


@pytest.mark.parametrize("provider", EXACT)
def test_a_map_is_its_holders_own(bundle_path, provider):
    detector = Detector.load(bundle_path, provider)
    score, bad = detector.infer(tiny.bad_picture()[None])
    kept = bad.copy(), score.copy()
    for _ in range(3):
        detector.infer(tiny.good_picture()[None])
    assert np.array_equal(bad, kept[0])
    assert np.array_equal(score, kept[1])


@pytest.mark.parametrize("provider", EXACT)
def test_nan_is_a_fault_on_every_engine(bundle_path, provider):
    judgement = Detector.load(bundle_path, provider).judge(tiny.nan_picture())
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULT, Reason.NOT_FINITE)


@pytest.mark.parametrize("provider", EXACT)
def test_an_engine_fails_by_a_fault_and_heals(bundle_path, provider):
    detector = Detector.load(bundle_path, provider)
    with pytest.raises(Fault) as caught:
        detector.infer(tiny.good_picture(32)[None])
    assert caught.value.reason == Reason.INFERENCE_ERROR
    assert detector.health() == str(caught.value) != ""
    assert detector.judge(tiny.good_picture()).verdict is Verdict.PASS
    assert detector.health() == ""


def test_golden_images_agree_in_float32_on_openvino():
    assert Detector.load(DEMO, "openvino").provider == "OpenVINO"


def test_bf16_moves_the_scores_and_has_its_own_tolerance():
    engine = Engine(provider="openvino", precision="bf16")
    if openvino.missing("bf16"):
        with pytest.raises(ProviderError, match="no bf16"):
            Detector.load(DEMO, engine=engine)
        return
    detector = Detector.load(DEMO, engine=engine)
    assert detector.provider == "OpenVINO bf16"
    golden = detector.manifest.golden[0]
    moved = abs(detector.infer(golden.image()[None])[0][0] - golden.score)
    assert detector.manifest.golden_tolerance < moved < 0.05


def test_golden_image_that_moved_is_refused_on_openvino(tmp_path):
    golden = tiny.manifest(tiny.model())["golden"]
    golden[1]["score"] += 0.01
    path = tiny.write_bundle(tmp_path / "moved.onnx", golden=golden)
    with pytest.raises(GoldenError, match="on OpenVINO, expected"):
        Detector.load(path, "openvino")


def test_graph_that_openvino_refuses_is_one_line(tmp_path):
    def unknown_operator(graph: onnx.ModelProto) -> None:
        graph.graph.node[3].op_type = "NoSuchOperator"

    path = tiny.write_bundle(tmp_path / "odd.onnx", unknown_operator)
    with pytest.raises(BundleError, match=r"odd\.onnx: OpenVINO \S+ refuses") as caught:
        Detector.load(path, "openvino")
    assert "\n" not in str(caught.value)


WITHOUT = """
import sys
sys.modules["openvino"] = None
from inspector.cli import main as cli
sys.exit(cli.main(["run", sys.argv[1]]))
"""


def test_openvino_that_is_not_installed_is_no_start(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    camera = running.folder_camera(parts)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, provider="openvino")
    command = [sys.executable, "-c", WITHOUT, str(station)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=running.environment(), check=False
    )
    assert done.returncode == 13
    assert install_command("openvino") in done.stderr


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_constant_that_is_no_number_is_refused(tmp_path, kind, value):
    """In the network's first layers, int8 and OpenVINO would make a number of it."""

    def add(graph: onnx.ModelProto) -> None:
        weight = np.array([1.0, value], dtype=kind)
        graph.graph.initializer.append(numpy_helper.from_array(weight, "conv1.weight"))

    path = tiny.write_bundle(tmp_path / "bad.onnx", add)
    with pytest.raises(BundleError, match=r"bad\.onnx: constant 'conv1.weight' is damaged"):
        Detector.load(path)


def test_threads_leave_a_core_to_the_cameras(monkeypatch):
    for cores, threads in ((1, 1), (2, 2), (4, 3), (16, 15)):
        monkeypatch.setattr(base, "usable_cores", lambda cores=cores: list(range(cores)))
        assert base.default_threads() == threads


PINNED = """
import os, sys
from pathlib import Path
from inspector import Detector
before = {task.name for task in Path("/proc/self/task").iterdir()}
detector = Detector.load(sys.argv[1], "cpu", 2)
for task in Path("/proc/self/task").iterdir():
    if task.name not in before:
        print(sorted(os.sched_getaffinity(int(task.name))))
"""


@pytest.mark.skipif(len(base.usable_cores()) < 2, reason="one core")
def test_a_threads_core_is_its_own(bundle_path):
    """Not pinned, two threads wake on one core after a pause and take twice as long."""
    command = [sys.executable, "-c", PINNED, str(bundle_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=running.environment(), check=True
    )
    assert done.stdout.split("\n")[:-1] == [str([base.usable_cores()[1]])]


@AFFINITY
def test_a_core_that_was_taken_away_is_no_fault(bundle_path):
    """``systemctl set-property AllowedCPUs=`` while the station runs."""
    detector = Detector.load(bundle_path, "cpu")
    before = os.sched_getaffinity(0)
    detector.engine._caller_cores = {4095}
    with pytest.raises(OSError, match="Invalid argument"):
        os.sched_setaffinity(0, detector.engine._caller_cores)
    assert detector.judge(tiny.good_picture()).verdict is Verdict.PASS
    assert os.sched_getaffinity(0) == before


def test_tensorrt_keeps_its_engines_where_systemd_says(tmp_path, bundle_path, monkeypatch):
    bundle = bundles.read(bundle_path)
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    options = onnxruntime.tensorrt_options(bundle, captures=True)
    assert Path(options["trt_engine_cache_path"]) == tmp_path / "one" / "tensorrt"
    assert (tmp_path / "one" / "tensorrt").is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "file"))
    with pytest.raises(ProviderError, match="file/tensorrt: cannot be made: Not a directory"):
        onnxruntime.tensorrt_options(bundle, captures=True)


def test_a_batch_size_is_captured_once(bundle_path, monkeypatch):
    """A second capture under its number would replay the first, into buffers that are gone."""
    backend = Detector.load(bundle_path, "cpu").engine
    captured = []

    def capture(batch):
        captured.append(len(batch))
        backend._buffers[len(batch)] = None

    monkeypatch.setattr(backend, "_captures", True)
    monkeypatch.setattr(backend, "_capture", capture)
    for largest in (1, 2, 4):
        backend.warm(64, 64, largest)
    assert captured == [1, 2, 4, 3]


def test_a_graph_that_reads_freed_memory_is_not_captured(bundle_path, tmp_path, caplog):
    """Decision 29 (docs/decisions); what was exported before has the node."""

    def gather(graph: onnx.ModelProto) -> None:
        graph.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), np.int64), "at"))
        graph.graph.node.append(onnx.helper.make_node("GatherND", ["map", "at"], ["unused"]))

    assert onnxruntime.can_be_captured(bundles.read(bundle_path))
    old = bundles.read(tiny.write_bundle(tmp_path / "old.onnx", gather))
    assert not onnxruntime.can_be_captured(old)
    assert "export the model again" in caplog.text


@AFFINITY
def test_cores_are_those_the_process_may_use():
    before = os.sched_getaffinity(0)
    last = max(before)
    os.sched_setaffinity(0, {last})
    try:
        assert base.usable_cores() == [last]
    finally:
        os.sched_setaffinity(0, before)
