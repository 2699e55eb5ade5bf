from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from inspector import Detector, Verdict
from inspector.detection.detector import BatchItem
from inspector.errors import BundleError, Fault, GoldenError, ProviderError
from inspector.imaging.geometry import Box
from inspector.verdict import Reason
from tests import running, tiny


def test_good_part_passes(bundle_path):
    judgement = Detector.load(bundle_path).judge(tiny.good_picture())
    assert (judgement.verdict, judgement.score, judgement.reason) == (
        Verdict.PASS,
        0.0,
        Reason.NONE,
    )
    assert judgement.regions == ()
    assert judgement.anomaly_map.shape == (64, 64)
    assert judgement.judged.shape == (64, 64, 3)


def test_defect_fails_with_its_region_in_camera_pixels(bundle_path):
    detector = Detector.load(bundle_path)
    for side in (64, 256):
        judgement = detector.judge(tiny.bad_picture(side))
        assert judgement.verdict is Verdict.FAIL
        assert judgement.score == pytest.approx(127 / 64)
        region = judgement.regions[0]
        assert (region.x, region.y, region.w, region.h) == (side // 4,) * 4
        assert region.peak == judgement.score == judgement.anomaly_map.max()


def test_camera_formats_give_one_score(bundle_path):
    detector = Detector.load(bundle_path)
    colour = tiny.bad_picture()
    grey = colour[:, :, 0]
    alpha = np.dstack([colour, np.full((64, 64), 255, np.uint8)])
    pictures = [colour, grey, grey[:, :, None], alpha, grey.astype(np.uint16) * 257]
    pictures.append(np.repeat(colour, 2, axis=1)[:, ::2])
    assert {detector.judge(picture).score for picture in pictures} == {127 / 64}


LIT = {"brightness": (100, 150), "sharpness": (0, 1e9)}
"""Limits of a bundle without ``fitness``: all black is too dark, all white saturated."""

UNFIT = [(0, "too_dark", "anomaly"), (255, "saturated", "anomaly"), (128, "", "")]


@pytest.mark.parametrize(("grey", "reason", "unchecked"), UNFIT)
def test_the_score_of_an_unfit_picture_is_withdrawn(tmp_path, grey, reason, unchecked):
    detector = Detector.load(tiny.write_bundle(tmp_path / "lit.onnx", exposure=LIT))
    frame = np.full((64, 64, 3), grey, np.uint8)
    checked, plain = detector.judge(frame), detector.judge(frame, check_picture=False)
    assert (checked.reason.value, plain.reason.value) == (reason, unchecked)
    assert plain.score == detector.infer(frame[np.newaxis])[0][0]
    np.testing.assert_array_equal(checked.anomaly_map, plain.anomaly_map)
    np.testing.assert_array_equal(checked.judged, frame)
    if reason:
        assert (checked.verdict, checked.score, checked.regions) == (Verdict.FAULT, None, ())
        assert "good parts" in checked.detail
    else:
        assert (checked.verdict, checked.score) == (plain.verdict, plain.score)
    # A golden picture may be dark.
    assert detector.judge_input(frame).reason.value == unchecked


def test_an_unfit_picture_that_cannot_be_judged_either_stays_what_it_is(tmp_path):
    detector = Detector.load(tiny.write_bundle(tmp_path / "lit.onnx", exposure=LIT))
    dark = np.zeros((64, 64, 3), np.uint8)
    assert detector.judge(dark).reason is Reason.TOO_DARK
    dark[:8, :8] = tiny.MAGIC
    assert detector.judge(dark).reason is Reason.NOT_FINITE


def test_a_batch_checks_the_pictures_that_it_is_asked_to_check(tmp_path):
    detector = Detector.load(tiny.write_bundle(tmp_path / "lit.onnx", exposure=LIT))
    black = np.zeros((64, 64, 3), np.uint8)
    items = [BatchItem(detector, black), BatchItem(detector, black, check_picture=False)]
    found = Detector.judge_together([*items, BatchItem(detector, tiny.good_picture())])
    assert [judgement.reason.value for judgement in found] == ["too_dark", "anomaly", ""]
    assert [judgement.anomaly_map is not None for judgement in found] == [True] * 3


def test_score_on_the_limit_is_a_fail(bundle_path):
    picture = tiny.good_picture()
    picture[5, 5] = tiny.GREY + int(tiny.LIMIT_GREY_LEVELS)
    judgement = Detector.load(bundle_path).judge(picture)
    assert (judgement.verdict, judgement.score) == (Verdict.FAIL, 1.0)
    assert len(judgement.regions) == 1


def test_limit_factor_moves_the_limit(bundle_path):
    picture = tiny.good_picture()
    picture[5, 5] = tiny.GREY + 96
    detector = Detector.load(bundle_path)
    assert detector.judge(picture).score == 1.5
    tolerant = detector.adapted(limit_factor=2.0).judge(picture)
    assert (tolerant.verdict, tolerant.score, tolerant.regions) == (Verdict.PASS, 0.75, ())
    assert tolerant.limit_factor == 2.0
    assert Detector.load(bundle_path, limit_factor=0.5).judge(picture).score == 3.0


def test_station_region_replaces_the_bundles(bundle_path):
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[100:164, 200:264] = tiny.bad_picture()
    detector = Detector.load(bundle_path, region=Box(x=200, y=100, w=64, h=64))
    judgement = detector.judge(frame)
    region = judgement.regions[0]
    assert (region.x, region.y, region.w, region.h) == (216, 116, 16, 16)
    assert judgement.score == pytest.approx(127 / 64)


def test_region_of_another_shape_than_trained_is_refused(tmp_path):
    path = tiny.write_bundle(
        tmp_path / "wide.onnx", geometry={"height": 64, "width": 64, "aspect": 1.0}
    )
    with pytest.raises(BundleError, match=r"wide\.onnx: judged region is 200x100 px"):
        Detector.load(path, region=Box(x=0, y=0, w=200, h=100))
    assert Detector.load(path, region=Box(x=0, y=0, w=100, h=100)).geometry.region


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((64, 64, 2), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 3), np.uint8),
        np.zeros((64, 64, 3), object),
        np.zeros(64, np.uint8),
        np.uint8(7),
        np.array(7, np.uint8),
        None,
        [[0] * 64] * 64,
    ],
)
@pytest.mark.parametrize("region", [None, Box(x=0, y=0, w=64, h=64)])
def test_impossible_frame_is_a_fault(bundle_path, frame, region):
    judgement = Detector.load(bundle_path, region=region).judge(frame)
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULT, Reason.FRAME_SHAPE)
    assert judgement.score is None
    assert judgement.judged is None


def test_nan_is_a_fault_never_a_pass(bundle_path):
    judgement = Detector.load(bundle_path).judge(tiny.nan_picture())
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULT, Reason.NOT_FINITE)
    assert judgement.score is None
    assert judgement.anomaly_map is None


def test_nan_in_the_map_alone_is_a_fault(tmp_path):
    def forget_flag(graph: onnx.ModelProto) -> None:
        last = graph.graph.node[-1]
        last.CopyFrom(helper.make_node("Identity", ["clean_score"], ["score"]))

    detector = Detector.load(tiny.write_bundle(tmp_path / "map.onnx", forget_flag))
    assert detector.judge(tiny.good_picture()).verdict is Verdict.PASS
    judgement = detector.judge(tiny.nan_picture())
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULT, Reason.NOT_FINITE)


def test_score_that_is_not_the_maps_maximum_is_a_fault(tmp_path):
    def halve(graph: onnx.ModelProto) -> None:
        graph.graph.node[-1].CopyFrom(helper.make_node("Mul", ["clean_score", "half"], ["score"]))

    path = tiny.write_bundle(tmp_path / "half.onnx", halve)
    judgement = Detector.load(path, verify=False).judge(tiny.bad_picture())
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULT, Reason.INFERENCE_ERROR)
    assert "not its map's maximum" in judgement.detail


def test_inference_error_is_a_fault_and_heals(tmp_path):
    detector = Detector.load(tiny.write_bundle(tmp_path / "gather.onnx", tiny.fail_on_magic))
    judgement = detector.judge(tiny.nan_picture())
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULT, Reason.INFERENCE_ERROR)
    assert "out of" in judgement.detail
    assert detector.health() == judgement.detail
    assert detector.judge(tiny.good_picture()).verdict is Verdict.PASS
    assert detector.health() == ""


def test_wrong_batch_raises_fault(bundle_path):
    with pytest.raises(Fault):
        Detector.load(bundle_path).infer(np.zeros((1, 32, 32, 3), np.uint8))


def test_batch_scores_as_single_parts_do(bundle_path):
    detector = Detector.load(bundle_path)
    scores, maps = detector.infer(np.stack([tiny.good_picture(), tiny.bad_picture()]))
    assert scores.dtype == maps.dtype == np.float32
    assert maps.shape == (2, 64, 64)
    assert list(scores) == [detector.infer(p()[np.newaxis])[0][0] for p in tiny.PICTURES]


def test_golden_image_that_moved_is_refused(tmp_path):
    golden = tiny.manifest(tiny.model())["golden"]
    golden[1]["score"] += 0.01
    path = tiny.write_bundle(tmp_path / "moved.onnx", golden=golden)
    with pytest.raises(
        GoldenError,
        match=r"'bad' .golden image. scores 1\.984375 on CPUExecutionProvider, expected 1\.994375",
    ):
        Detector.load(path)
    Detector.load(path, verify=False)


def test_golden_image_that_gives_nan_is_refused(tmp_path):
    golden = tiny.manifest(tiny.model())["golden"]
    golden[0]["png"] = tiny.png(tiny.nan_picture())
    path = tiny.write_bundle(tmp_path / "nan.onnx", golden=golden)
    with pytest.raises(GoldenError, match=r"'good' .* scores nan"):
        Detector.load(path)


def test_graph_that_onnx_runtime_refuses_is_one_line(tmp_path):
    def unknown_operator(graph: onnx.ModelProto) -> None:
        graph.graph.node[3].op_type = "NoSuchOperator"

    path = tiny.write_bundle(tmp_path / "odd.onnx", unknown_operator)
    with pytest.raises(BundleError, match=r"odd\.onnx: ONNX Runtime \S+ refuses") as caught:
        Detector.load(path)
    assert "\n" not in str(caught.value)


def test_cuda_is_refused_where_there_is_none(bundle_path):
    if Detector.load(bundle_path).provider != "CPUExecutionProvider":
        pytest.skip("this machine has CUDA")
    for provider in ("cuda", "tensorrt"):
        with pytest.raises(ProviderError, match=f"provider: {provider}: .*\\[cuda\\]"):
            Detector.load(bundle_path, provider=provider)


def test_provider_and_identity_are_told(bundle_path):
    import hashlib

    detector = Detector.load(str(bundle_path), provider="cpu", threads=1)
    assert detector.provider == "CPUExecutionProvider"
    assert detector.sha256 == hashlib.sha256(bundle_path.read_bytes()).hexdigest()
    assert detector.manifest.name == "tiny"


def test_a_judgement_prints_short_and_its_verdict_plainly(bundle_path):
    judgement = Detector.load(bundle_path).judge(np.zeros((96, 128, 3), dtype=np.uint8))
    assert str(judgement.verdict) in {"PASS", "FAIL", "FAULT"}
    assert len(repr(judgement)) < 1000


LOAD = "import sys; from inspector import Detector; Detector.load(sys.argv[1], 'cpu', 1)"


@pytest.mark.long
def test_onnxruntime_tells_nobody_what_it_runs(tmp_path, bundle_path):
    """Its telemetry keeps an identity in HOME, and complains where it cannot."""
    (tmp_path / "home").mkdir()
    # ONNX Runtime itself is quiet in a continuous integration.
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    for home in (tmp_path / "home", Path("/proc/none")):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, bundle_path],
            env=kept | {"HOME": str(home), "PYTHONPATH": running.environment()["PYTHONPATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == ("", "")
    assert list((tmp_path / "home").rglob("*")) == []
