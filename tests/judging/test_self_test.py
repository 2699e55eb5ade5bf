"""A golden defect must be caught: what is sent, when, and what counts as a miss."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inspector.config.station_file import SelfTest
from inspector.detection.detector import Detector
from inspector.detection.manifest import Manifest
from inspector.errors import ConfigError
from inspector.judging.self_test import Defect, Schedule, choose
from inspector.verdict import Judgement, Reason, Verdict
from tests import tiny

DEFAULTS = SelfTest()


@pytest.fixture
def detector(bundle_path: Path) -> Detector:
    return Detector.load(bundle_path, "cpu", 1)


class Time:
    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns

    def passes(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


def chosen(settings: SelfTest, manifest: Manifest, factor: float = 1.0) -> Defect:
    defect = choose(settings, manifest, factor)
    assert defect is not None
    return defect


def test_the_golden_defect_is_caught(detector: Detector) -> None:
    defect = chosen(DEFAULTS, detector.manifest)
    judgement = defect.send(detector)
    assert judgement.verdict is Verdict.FAIL
    assert defect.name == "bad"
    assert defect.missed(judgement) == ""


def test_the_operators_factor_is_in_force(bundle_path: Path) -> None:
    tolerant = Detector.load(bundle_path, "cpu", 1, limit_factor=1.5)
    defect = chosen(DEFAULTS, tolerant.manifest, 1.5)
    judgement = defect.send(tolerant)
    assert judgement.score == pytest.approx(127 / 64 / 1.5)
    assert defect.missed(judgement) == ""


def test_where_no_golden_defect_must_fail_there_is_none(detector: Detector) -> None:
    assert choose(DEFAULTS, detector.manifest, 2.0) is None
    good_only = detector.manifest.model_copy(update={"golden": detector.manifest.golden[:1]})
    assert choose(DEFAULTS, good_only, 1.0) is None
    assert choose(SelfTest(every_s=0), detector.manifest, 1.0) is None


def test_a_model_that_no_longer_sees_the_defect_is_a_miss(
    tmp_path: Path, detector: Detector
) -> None:
    """The same manifest over a graph whose limit was moved, as if the bank had been exchanged."""

    def blind(graph: onnx.ModelProto) -> None:
        for tensor in graph.graph.initializer:
            if tensor.name == "threshold":
                tensor.CopyFrom(numpy_helper.from_array(np.float32(1e4), "threshold"))

    path = tiny.write_bundle(tmp_path / "blind.onnx", edit=blind)
    blinded = Detector.load(path, "cpu", 1, verify=False)
    defect = chosen(DEFAULTS, detector.manifest)
    assert "is a PASS (score 0.0" in defect.missed(defect.send(blinded))


def test_a_score_that_moved_is_a_miss_though_it_fails(detector: Detector) -> None:
    defect = chosen(DEFAULTS, detector.manifest)
    moved = Judgement(Verdict.FAIL, 1.5, Reason.ANOMALY)
    assert "scores 1.5000, expected 1.98" in defect.missed(moved)
    assert defect.missed(Judgement(Verdict.FAIL, float("nan"), Reason.ANOMALY))


def test_a_fault_is_a_miss(detector: Detector) -> None:
    defect = chosen(DEFAULTS, detector.manifest)
    fault = Judgement(Verdict.FAULT, None, Reason.INFERENCE_ERROR, detail="out of memory")
    assert defect.missed(fault) == "defect 'bad' is a FAULT (out of memory)"


def test_a_dark_defect_is_judged_not_a_fault_of_the_light(tmp_path: Path) -> None:
    black = np.zeros((tiny.SIDE, tiny.SIDE, 3), np.uint8)
    golden = [{"name": "burnt", "png": tiny.png(black), "score": tiny.GREY / 64}]
    lit = {"brightness": (100, 150), "sharpness": (0, 1e9)}
    bundle = tiny.write_bundle(tmp_path / "lit.onnx", golden=golden, exposure=lit)
    detector = Detector.load(bundle, "cpu", 1)
    assert detector.judge(black).reason is Reason.TOO_DARK
    photo = tmp_path / "burnt.png"
    cv2.imwrite(str(photo), black)
    for settings in (DEFAULTS, SelfTest(defect=photo)):
        defect = chosen(settings, detector.manifest)
        judgement = defect.send(detector)
        assert (judgement.verdict, judgement.score) == (Verdict.FAIL, 2.0)
        assert defect.missed(judgement) == ""


def test_a_photo_goes_the_way_of_a_frame(tmp_path: Path, detector: Detector) -> None:
    photo = tmp_path / "scratch.png"
    cv2.imwrite(str(photo), tiny.bad_picture(200))
    defect = chosen(SelfTest(defect=photo), detector.manifest)
    assert defect.image.shape == (200, 200, 3)
    assert defect.missed(defect.send(detector)) == ""
    cv2.imwrite(str(photo), tiny.good_picture(200))
    harmless = chosen(SelfTest(defect=photo), detector.manifest)
    assert "'scratch.png' is a PASS" in harmless.missed(harmless.send(detector))


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_photo_that_cannot_be_read_is_refused_with_the_key(
    tmp_path: Path, detector: Detector, content: bytes | None
) -> None:
    photo = tmp_path / "defect.png"
    if content is not None:
        photo.write_bytes(content)
    with pytest.raises(ConfigError, match=r"self_test\.defect: .*defect\.png"):
        choose(SelfTest(defect=photo), detector.manifest, 1.0)


def test_judging_a_golden_picture_gives_its_recorded_score(detector: Detector) -> None:
    for golden in detector.manifest.golden:
        judgement = detector.judge_input(golden.image())
        assert judgement.score == pytest.approx(golden.score, abs=1e-5)
    (region,) = detector.judge_input(tiny.bad_picture()).regions
    assert (region.x, region.y, region.w, region.h) == (16, 16, 16, 16)


def test_due_at_the_start_and_then_every_so_often() -> None:
    time = Time()
    schedule = Schedule(60.0, time)
    assert schedule.due(parts_wait=True)
    schedule.record("")
    assert not schedule.due(parts_wait=False)
    time.passes(59.9)
    assert not schedule.due(parts_wait=False)
    time.passes(0.2)
    assert schedule.due(parts_wait=False)


def test_a_busy_line_puts_it_off_but_not_for_ever() -> None:
    time = Time()
    schedule = Schedule(60.0, time)
    schedule.record("")
    time.passes(100)
    assert not schedule.due(parts_wait=True)
    time.passes(20)
    assert schedule.due(parts_wait=True)


def test_a_miss_stands() -> None:
    """An operator's reload makes new judges, whose self-tests are due at once."""
    time = Time()
    schedule = Schedule(60.0, time)
    schedule.record("")
    schedule.record("defect 'bad' is a PASS")
    assert schedule.missed == "defect 'bad' is a PASS"
    time.passes(1000)
    assert not schedule.due(parts_wait=False)


def test_zero_seconds_is_never() -> None:
    schedule = Schedule(0.0, Time())
    assert not schedule.due(parts_wait=False)
