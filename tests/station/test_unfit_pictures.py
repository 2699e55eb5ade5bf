"""``Detector.judge`` says of every picture what a station says of it, the reason included."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.cameras.simulated.conveyor import GOOD, Domain, draw_kind
from inspector.detection.detector import Detector
from inspector.verdict import Judgement, Verdict
from inspector.wire.messages import VerdictMessage
from tests import running
from tests.paths import ROOT

DEMO = ROOT / "config" / "demo.onnx"


def noisy(picture: np.ndarray) -> np.ndarray:
    """As a sensor gives it: a lens out of focus does not blur the sensor's noise."""
    noise = np.random.default_rng(0).normal(0, 1.5, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def pictures() -> dict[str, np.ndarray]:
    """What a camera shows, by file name, in the order in which a folder is read."""
    good = draw_kind(5, 0, GOOD, Domain.TEST_GOOD).image
    return {
        "black.png": np.zeros_like(good),
        "blurred.png": noisy(cv2.GaussianBlur(good, (0, 0), 6)),
        "good.png": good,
        "scratched.png": draw_kind(5, 0, "scratch", Domain.TEST_DEFECTIVE).image,
        "small.png": good[:100, :100],
        "white.png": np.full_like(good, 255),
    }


def told(verdict: VerdictMessage, with_heatmap: bool) -> tuple[object, ...]:
    regions = tuple((each.x, each.y, each.w, each.h, each.peak) for each in verdict.regions)
    return (
        verdict.verdict,
        verdict.score,
        verdict.reason,
        verdict.detail,
        regions,
        with_heatmap,
    )


def said(judgement: Judgement) -> tuple[object, ...]:
    regions = tuple((each.x, each.y, each.w, each.h, each.peak) for each in judgement.regions)
    return (
        judgement.verdict,
        judgement.score,
        judgement.reason.value,
        judgement.detail,
        regions,
        judgement.anomaly_map is not None,
    )


@pytest.mark.parametrize("check_picture", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_detector_says_what_the_station_says(tmp_path: Path, check_picture: bool) -> None:
    frames = pictures()
    parts = running.write_parts(tmp_path / "parts", *frames.values())
    for number, name in enumerate(frames):
        (parts / f"{number:03}.png").rename(parts / name)
    recipe = {"top": {"bundle": str(DEMO), "check_pictures": check_picture}}
    station = running.write_station(
        tmp_path / "s.yaml",
        DEMO,
        running.folder_camera(parts, deadline_ms=10_000),
        recipes={"r": recipe},
    )
    # The heatmaps of the demo take a busy machine a while to encode.
    heard = running.judge_all(station, quiet_ms=3000)
    shown = {heatmap.message.part_id for heatmap in heard.heatmaps}
    detector = Detector.load(DEMO, "cpu", 1)
    assert [verdict.part_id for verdict in heard.verdicts] == list(frames)
    for verdict, frame in zip(heard.verdicts, frames.values(), strict=True):
        judgement = detector.judge(frame, check_picture=check_picture)
        assert told(verdict, verdict.part_id in shown) == said(judgement), verdict.part_id
    reasons = {verdict.part_id: verdict.reason for verdict in heard.verdicts}
    checked = {"black.png": "too_dark", "blurred.png": "out_of_focus", "white.png": "saturated"}
    for name, reason in checked.items():
        assert reasons[name] == (reason if check_picture else "anomaly")
    assert reasons["good.png"] == ""
    assert reasons["scratched.png"] == "anomaly"
    assert reasons["small.png"] == "frame_shape"
    faults = [verdict for verdict in heard.verdicts if verdict.verdict is Verdict.FAULT]
    assert [verdict.score for verdict in faults] == [None] * len(faults)
