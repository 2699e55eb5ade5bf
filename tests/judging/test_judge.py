"""What a station adds to its detector: a live camera that sends a frame again is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.config.station_file import Station, load_station
from inspector.judging.judge import Judge, RepeatCheck, SizeCheck, judge_together
from inspector.judging.judges import Changeover, Judges, load
from inspector.verdict import Judgement, Reason, Verdict
from tests import running, tiny

LIT = {"brightness": (100, 150), "sharpness": (0, 1e9)}
"""Limits under which an all-black picture is too dark and an all-white one saturated."""

BLACK = np.zeros((64, 64, 3), np.uint8)


def live_camera(name: str = "top") -> dict[str, Any]:
    """A camera whose sensor has noise; loading its judge does not open it."""
    return {"name": name, "kind": "opencv", "source": 0}


def load_judges(
    folder: Path, *cameras: dict[str, Any], unchecked: str = "", sizes: Sequence[str] = ()
) -> dict[str, Judge]:
    """The judges of a station; the camera named ``unchecked`` has check_pictures: false."""
    bundle = tiny.write_bundle(folder / "lit.onnx", exposure=LIT)
    recipe = {
        camera["name"]: {
            "bundle": str(bundle),
            "check_pictures": camera["name"] != unchecked,
            "sizes": list(sizes),
        }
        for camera in cameras
    }
    path = running.write_station(folder / "s.yaml", bundle, *cameras, recipes={"r": recipe})
    return dict(load(load_station(path)))


@pytest.fixture
def frames() -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    return [chance.integers(100, 150, (480, 640, 3), np.uint8) for _ in range(2)]


def test_a_live_camera_that_repeats_itself_is_frozen(frames):
    check = RepeatCheck(live=True).check
    assert check(frames[0]) is None
    assert check(frames[0].copy()).reason == "frozen"
    assert "3 times" in str(check(frames[0].copy()))
    assert check(frames[1]) is None
    assert check(frames[0]) is None


def test_one_grey_level_of_one_pixel_is_another_frame(frames):
    check = RepeatCheck(live=True).check
    check(frames[0])
    other = frames[0].copy()
    other[-1, -1, 2] ^= 1
    assert check(other) is None
    assert check(other[:, :-1]) is None
    assert check(other[:, :-1].astype(np.uint16)) is None


def test_a_file_may_repeat_and_a_reopened_camera_may_too(frames):
    files = RepeatCheck(live=False)
    assert [files.check(frames[0].copy()) for _ in range(3)] == [None] * 3
    live = RepeatCheck(live=True)
    live.check(frames[0])
    live.forget()
    assert live.check(frames[0].copy()) is None


def test_a_frame_that_is_judged_again_is_no_repetition(frames):
    check = RepeatCheck(live=True).check
    assert [check(frames[0]), check(frames[0])] == [None, None]
    assert check(frames[0].copy()).reason == "frozen"


def summary(judgement: Judgement) -> tuple[Any, ...]:
    """All of a judgement that a station tells of a part; its pictures by whether there are any."""
    pictures = (judgement.anomaly_map is not None, judgement.judged is not None)
    return (
        judgement.verdict,
        judgement.score,
        judgement.reason,
        judgement.detail,
        judgement.regions,
        *pictures,
    )


def test_a_repeated_frame_is_frozen_whatever_its_light(tmp_path):
    judge = load_judges(tmp_path, live_camera())["top"]
    first, again = judge.judge(BLACK), judge.judge(BLACK.copy())
    assert (first.verdict, first.reason) == (Verdict.FAULT, Reason.TOO_DARK)
    assert (again.verdict, again.reason) == (Verdict.FAULT, Reason.FROZEN)
    assert "byte for byte" in again.detail
    for judgement in (first, again):
        assert (judgement.score, judgement.regions) == (None, ())
        assert judgement.anomaly_map is not None
    assert judge.judge(tiny.good_picture()).verdict is Verdict.PASS
    judge.judge(tiny.nan_picture())
    # What the model could not judge stays the FAULT that it is.
    assert judge.judge(tiny.nan_picture()).reason is Reason.NOT_FINITE


def test_a_reopened_camera_may_send_its_last_frame(tmp_path):
    judge = load_judges(tmp_path, live_camera())["top"]
    judge.judge(tiny.good_picture())
    judge.reopened()
    assert judge.judge(tiny.good_picture()).verdict is Verdict.PASS
    assert judge.judge(tiny.good_picture()).reason is Reason.FROZEN


def test_a_camera_that_is_not_checked_may_repeat_and_be_dark(tmp_path):
    judge = load_judges(tmp_path, live_camera(), unchecked="top")["top"]
    for _ in range(2):
        judgement = judge.judge(BLACK.copy())
        assert (judgement.verdict, judgement.score) == (Verdict.FAIL, 2.0)


def test_a_batch_of_cameras_with_other_settings_is_judged_as_each_alone(tmp_path):
    cameras = (live_camera("checked"), live_camera("unchecked"))
    pictures = [BLACK, tiny.good_picture(), tiny.good_picture(), tiny.nan_picture(), BLACK]
    line = [(name, picture) for picture in pictures for name in ("checked", "unchecked")]
    alone, together = (load_judges(tmp_path, *cameras, unchecked="unchecked") for _ in range(2))
    expected = [summary(alone[name].judge(picture.copy())) for name, picture in line]
    found = judge_together([(together[name], picture.copy()) for name, picture in line])
    assert list(map(summary, found)) == expected
    reasons = [judgement.reason.value for judgement in found]
    assert reasons[::2] == ["too_dark", "", "frozen", "not_finite", "too_dark"]
    assert reasons[1::2] == ["anomaly", "", "", "not_finite", "anomaly"]


def test_the_part_that_a_roll_back_judges_again_is_not_frozen(tmp_path):
    """The part is judged by the new bundle, then, from the same frame, by the one before it."""
    bundle = tiny.write_bundle(tmp_path / "lit.onnx", exposure=LIT)
    path = running.write_station(tmp_path / "s.yaml", bundle, live_camera())
    judges = Judges(load_station(path))
    assert [problem for _, problem in judges.load()] == [None]
    changeover = Changeover(judges.station, lambda _: None, forget=False)
    changeover.work()
    judges.switch(changeover)
    frame = tiny.good_picture()
    judges["top"].judge(frame)
    judges.roll_back()
    assert judges["top"].judge(frame).verdict is Verdict.PASS
    assert judges["top"].judge(frame.copy()).reason is Reason.FROZEN


def test_a_frozen_frame_stays_frozen_when_it_is_judged_again():
    """A changeover that is rolled back judges its part again: the answer may not change."""
    check = RepeatCheck(live=True)
    first = np.zeros((4, 4), np.uint8)
    repeated = first.copy()
    assert check.check(first) is None
    assert check.check(first) is None
    for _ in range(3):
        assert "2 times" in str(check.check(repeated))
    assert "3 times" in str(check.check(repeated.copy()))
    assert check.check(np.ones((4, 4), np.uint8)) is None


# Sizes

SMALL, LARGE = np.zeros((48, 64, 3), np.uint8), np.zeros((96, 128, 3), np.uint8)


def test_a_camera_keeps_the_size_of_its_first_picture():
    check = SizeCheck(first_counts=True).check
    assert [check(SMALL), check(SMALL)] == [None, None]
    fault = check(LARGE)
    assert fault is not None
    assert fault.reason == "frame_shape"
    assert str(fault).startswith("the picture is 128x96 px, but the first one was 64x48")
    assert check(SMALL.transpose(1, 0, 2)) is not None
    assert check(SMALL[..., 0]) is None


def test_photos_in_a_folder_may_vary_unless_sizes_are_named():
    assert [SizeCheck(first_counts=False).check(one) for one in (SMALL, LARGE)] == [None, None]
    named = SizeCheck(first_counts=False, allowed=("128x96",))
    assert [named.check(one) is None for one in (SMALL, LARGE)] == [False, True]


def test_a_recipe_names_the_sizes_that_pictures_may_have():
    check = SizeCheck(first_counts=True, allowed=("64x48", "128x96")).check
    assert [check(one) for one in (SMALL, LARGE, SMALL)] == [None] * 3
    fault = check(SMALL[:40])
    assert fault is not None
    assert "64x40 px, but the recipe's 'sizes' are 128x96, 64x48" in str(fault)


def test_a_camera_that_comes_back_with_another_resolution_is_a_fault(tmp_path):
    judge = load_judges(tmp_path, live_camera())["top"]
    assert judge.judge(tiny.good_picture()).verdict is Verdict.PASS
    judge.reopened()
    larger = judge.judge(tiny.good_picture(128))
    assert (larger.verdict, larger.reason) == (Verdict.FAULT, Reason.FRAME_SHAPE)
    assert (larger.score, larger.regions) == (None, ())
    assert judge.judge(tiny.good_picture()).verdict is Verdict.PASS


def test_a_batch_has_no_part_of_another_size(tmp_path):
    judge = load_judges(tmp_path, live_camera())["top"]
    pictures = [tiny.good_picture(), tiny.good_picture(128), tiny.bad_picture(), tiny.bad_picture()]
    for number, picture in enumerate(pictures):
        picture[0, 0] -= number
    found = judge_together([(judge, picture) for picture in pictures])
    assert [one.reason.value for one in found] == ["", "frame_shape", "anomaly", "anomaly"]


def test_sizes_of_a_recipe_reach_the_judge(tmp_path):
    judge = load_judges(tmp_path, live_camera(), sizes=["128x128"])["top"]
    assert judge.judge(tiny.good_picture(128)).verdict is Verdict.PASS
    assert judge.judge(tiny.good_picture()).reason is Reason.FRAME_SHAPE


def test_a_changeover_and_its_roll_back_keep_the_first_size(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "lit.onnx", exposure=LIT)
    both = live_camera(), live_camera("side")
    path = running.write_station(tmp_path / "s.yaml", bundle, *both, batching="auto")
    judges = Judges(load_station(path))
    # What is measured for batches is no picture of the camera.
    assert [problem for _, problem in judges.load()] == [None, None]
    assert judges["top"].judge(tiny.good_picture(128)).verdict is Verdict.PASS
    changeover = Changeover(judges.station, lambda _: None, forget=False)
    changeover.work()
    judges.switch(changeover)
    assert judges["top"].judge(tiny.good_picture()).reason is Reason.FRAME_SHAPE
    judges.roll_back()
    assert judges["top"].judge(tiny.good_picture()).reason is Reason.FRAME_SHAPE
    assert judges["top"].judge(tiny.good_picture(128)).verdict is Verdict.PASS


def two_recipes(folder: Path, **keys: Any) -> Station:
    bundle = tiny.write_bundle(folder / "lit.onnx")
    recipe = {"top": {"bundle": str(bundle)}}
    path = running.write_station(
        folder / "s.yaml", bundle, live_camera(), recipes={"r": recipe, "other": recipe}, **keys
    )
    return load_station(path)


def test_a_limit_is_kept_over_changeovers_and_when_one_is_rolled_back(tmp_path):
    station = two_recipes(tmp_path)
    judges = Judges(station)
    assert [problem for _, problem in judges.load()] == [None]
    before = judges["top"]
    watch = before.drift
    assert judges.set_limit("r", "top", 2.0) == ""
    # The same judge goes on, with the frames that it has seen.
    assert judges["top"] is before
    assert judges["top"].drift is not watch
    bad = tiny.bad_picture()
    assert judges["top"].judge(bad).limit_factor == 2.0
    changeover = Changeover(
        judges.station.model_copy(update={"recipe": "other"}), lambda done: None, forget=False
    )
    changeover.run()
    assert changeover.problems == []
    judges.switch(changeover)
    assert judges["top"].detector.limit_factor == 1.0
    # Both recipes' limits are set while it is not sure yet which of them stays.
    assert judges.set_limit("r", "top", 1.5) == judges.set_limit("other", "top", 0.5) == ""
    assert judges["top"].detector.limit_factor == 0.5
    rolled_back = judges.roll_back()
    assert judges["top"].detector.limit_factor == 1.5
    limits = {name: one["top"].limit_factor for name, one in rolled_back.recipes.items()}
    assert limits == {"r": 1.5, "other": 0.5}
    with pytest.raises(KeyError):
        judges.set_limit("r", "left", 1.0)


def test_the_known_defect_is_tested_where_it_must_fail_at_the_new_limit(tmp_path):
    station = two_recipes(tmp_path)
    judges = Judges(station)
    list(judges.load())
    judge = judges["top"]
    assert judge.defect is not None
    # At this limit no golden picture fails, so that there is nothing to test with.
    assert judges.set_limit("r", "top", 2.0) == ""
    assert judge.defect is None
    assert list(judges.self_test_all()) == []
    assert judges.set_limit("r", "top", 1.0) == ""
    assert judge.defect is not None
    assert list(judges.self_test_all()) == [("top", "")]
