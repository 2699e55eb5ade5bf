"""What a page asks a real station for: verdicts of the past, pictures of parts, live pictures."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inspector.client.commander import Commander
from inspector.client.viewer import Viewer
from inspector.errors import CommandError
from inspector.imaging.images import decode
from inspector.journal.pictures import pictures
from inspector.station import pictures as pictures_module
from inspector.station.pictures import SeenPart, SeenParts
from inspector.verdict import Verdict
from inspector.wire.messages import AreaField, VerdictMessage
from tests import running, tiny
from tests.records import verdict


class Line:
    """A station with a query socket, and the parts that it has judged."""

    def __init__(self, folder: Path, daemon: running.Running) -> None:
        self.folder = folder
        self.daemon = daemon
        self.judged: list[VerdictMessage] = []

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Viewer]:
        with Viewer(self.daemon.queries, timeout_s=5.0) as viewer:
            yield viewer


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    plug = running.Plug()
    on_trigger = {"trigger": "software", "deadline_ms": 5000}
    live = {"kind": "opencv", "source": f"http://127.0.0.1:{plug.port}/", **on_trigger}
    station = running.write_station(
        folder / "station.yaml",
        tiny.write_bundle(folder / "tiny.onnx"),
        running.folder_camera(parts, loop=True, **on_trigger),
        {"name": "live", **live},
        sockets={"queries": "tcp://127.0.0.1:*"},
    )
    try:
        with running.running(station) as daemon:
            daemon.wait_for_log(r"state=Ready")
            made = Line(folder, daemon)
            with Commander(daemon.commands) as plc:
                for number in range(1, 7):
                    made.judged.append(plc.trigger("top", number, f"S/N {number}"))
                made.judged.append(plc.trigger("live", 1, "S/N 3"))
            yield made
    finally:
        plug.pull()


def numbers(line: Line, **asked: object) -> list[int]:
    with line.viewer() as viewer:
        return [entry.verdict.seq for entry in viewer.history(**asked)]


def test_history_has_what_was_judged_the_newest_first(line):
    with line.viewer() as viewer:
        entries = list(viewer.history())
    assert [entry.verdict for entry in entries] == line.judged[::-1]
    assert all(entry.marks == entry.delivered == () for entry in entries)
    # The rejects are kept, a moment after their verdicts; of the passed parts the judged region is
    # still in memory.
    with line.viewer() as viewer:
        deadline = time.monotonic() + 20
        while not all(entry.has_picture for entry in viewer.history()):
            assert time.monotonic() < deadline, "a part has no picture"
            time.sleep(0.05)
    assert numbers(line, camera="live") == [7]
    assert numbers(line, verdicts=[Verdict.FAIL]) == [6, 4, 2]
    assert numbers(line, part_id="S/N 3") == [7, 3]
    assert numbers(line, part_id="S/N 3", camera="top", score_to=0.5) == [3]
    assert numbers(line, since_us=line.judged[4].judged_us) == [7, 6, 5]
    assert numbers(line, reason="anomaly", before=(line.judged[0].epoch, 6)) == [4, 2]
    with pytest.raises(CommandError, match="not in the journal") as refused:
        numbers(line, before=("unknown", 6))
    assert refused.value.code == "unknown"
    with pytest.raises(CommandError, match="must be a finite number") as refused:
        numbers(line, score_to=float("nan"))
    assert refused.value.code == "malformed"


def test_a_reject_is_shown_as_the_camera_gave_it(line):
    bad = line.judged[1]
    with line.viewer() as viewer:
        # The verdict is out before its picture is written.
        deadline = time.monotonic() + 5
        while viewer.picture(bad.epoch, bad.seq).about.origin != "kept":
            assert time.monotonic() < deadline
        full = viewer.picture(bad.epoch, bad.seq, full=True)
        small = viewer.picture(bad.epoch, bad.seq, longest_px=64)
    side = tiny.bad_picture().shape[0]
    assert full.about.verdict == small.about.verdict == bad
    assert (full.about.camera, full.about.at_us) == ("top", bad.judged_us)
    assert (full.about.width, full.about.height) == (side, side)
    assert np.array_equal(full.pixels, tiny.bad_picture())
    assert [one.format for one in full.about.frames] == ["png", "png"]
    assert [one.format for one in small.about.frames] == ["jpeg", "png"]
    assert small.pixels.shape[:2] == (64, 64) == (small.about.frames[0].height, 64)
    heat = decode(full.heatmap)
    assert heat.max() >= 128
    area = full.about.heatmap_area
    assert (area.x, area.y, area.w, area.h) == (0, 0, side, side)
    assert full.about.frame_area == area == small.about.frame_area


def test_a_passed_part_is_shown_from_memory(line):
    good = line.judged[0]
    with line.viewer() as viewer:
        view = viewer.picture(good.epoch, good.seq, full=True)
        assert (view.about.origin, view.about.verdict) == ("memory", good)
        side = tiny.good_picture().shape[0]
        assert view.about.frame_area == AreaField(x=0, y=0, w=side, h=side)
        assert np.array_equal(view.pixels, tiny.good_picture())
        assert decode(view.heatmap).max() < 128
        with pytest.raises(CommandError) as refused:
            viewer.picture(good.epoch, 999)
        assert refused.value.code == "unknown"
        with pytest.raises(CommandError) as refused:
            viewer.picture("../../etc", 1)
        assert refused.value.code == "unknown"


def test_a_picture_that_was_deleted_is_told(line):
    gone = line.judged[5]
    with line.viewer() as viewer:
        deadline = time.monotonic() + 5
        while viewer.picture(gone.epoch, gone.seq).about.origin != "kept":
            assert time.monotonic() < deadline
        (kept,) = (
            one.path
            for one in pictures(line.folder / "journal")
            if one.path.name.endswith(f"{gone.seq:09d}.png")
        )
        kept.write_bytes(kept.read_bytes()[:100])
        with pytest.raises(CommandError, match="not a picture") as refused:
            viewer.picture(gone.epoch, gone.seq)
        assert refused.value.code == "failed"
        kept.unlink()
        assert viewer.picture(gone.epoch, gone.seq).about.origin == "memory"


def test_a_camera_that_runs_is_seen_live(line):
    with line.viewer() as viewer:
        before_us = time.time_ns() // 1000
        small = viewer.preview("live", longest_px=64)
        full = viewer.preview("live", full=True)
    for view in (small, full):
        assert (view.about.origin, view.about.camera, view.about.verdict) == (
            "camera",
            "live",
            None,
        )
        assert before_us <= view.about.at_us <= time.time_ns() // 1000
        assert view.heatmap is None
    side = tiny.good_picture().shape[0]
    assert (small.about.width, small.about.height) == (side, side)
    assert [one.format for one in (*small.about.frames, *full.about.frames)] == ["jpeg", "png"]
    assert small.pixels.shape == (64, 64, 3)
    assert full.pixels.shape == (side, side, 3)
    with line.viewer() as viewer, pytest.raises(CommandError, match="no such camera") as refused:
        viewer.preview("left")
    assert refused.value.code == "unknown"


def test_waiting_for_a_camera_holds_up_nobody(line):
    told: list[str] = []

    def look() -> None:
        with line.viewer() as viewer:
            try:
                viewer.preview("top")
            except CommandError as error:
                told.append(error.code)

    waiting = threading.Thread(target=look)
    waiting.start()
    with line.viewer() as viewer:
        begun = time.monotonic()
        while not told:
            asked = time.monotonic()
            assert next(viewer.history()).verdict == line.judged[-1]
            assert viewer.preview("live").picture
            assert time.monotonic() - asked < 1.0
    waiting.join()
    assert told == ["not_ready"]
    assert time.monotonic() - begun > 1.0


def test_triggers_are_judged_while_pictures_are_asked_for(line):
    stop = threading.Event()
    seen: list[int] = []

    def look() -> None:
        with line.viewer() as viewer:
            while not stop.is_set():
                viewer.preview("live", full=True)
                viewer.picture(line.judged[1].epoch, line.judged[1].seq, full=True)
                seen.append(len(list(viewer.history(camera="no"))))

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for one in lookers:
        one.start()
    try:
        with Commander(line.daemon.commands) as plc:
            found = [plc.trigger("top", number, "x") for number in range(1, 31)]
            line.judged += found
    finally:
        stop.set()
        for one in lookers:
            one.join()
    assert {one.verdict for one in found} == {Verdict.PASS, Verdict.FAIL}
    assert seen


def test_by_what_it_judges_is_told(line):
    with line.viewer() as viewer:
        told = viewer.judging()
    top, live = told.cameras
    assert (top.camera, live.camera) == ("top", "live")
    assert top.recipe == "r"
    assert top.model == line.judged[0].model
    assert (top.limit_factor, top.of_file, top.golden, top.training_parts) == (1.0, 1.0, 2, 10)
    assert top.calibration.good_parts == 10 == len(top.calibration.scores)
    assert set(top.calibration.scores) == {0.5}
    assert (top.calibration.interval_low, top.calibration.interval_high) == (0.0, 0.3)
    assert (top.exposure.brightness_low, top.exposure.brightness_high) == (0.0, 255.0)
    # The worst golden picture goes through the station at its start.
    assert top.self_test.defect == "bad" and top.self_test.missed == ""
    assert top.self_test.score == pytest.approx(top.self_test.expected, abs=1e-3)
    assert line.judged[0].judged_us - top.self_test.at_us in range(60_000_000)
    passed = [one for one in line.judged if one.camera == "top" and one.verdict is Verdict.PASS]
    assert (top.drift.parts, top.drift.alarm) == (len(passed), False)
    assert (top.drift.recent, top.drift.calibrated) == (passed[0].score, 0.5)
    (recipe,) = told.recipes
    assert [(one.camera, one.bundle, one.limit_factor) for one in recipe.cameras] == [
        ("top", "tiny.onnx", 1.0),
        ("live", "tiny.onnx", 1.0),
    ]
    # Without keys whoever triggers may operate, too.
    assert told.controllers == ("",)


def test_at_a_terminal_it_is_told_as_well(line, tmp_path):
    at = ("--queries", line.daemon.queries)
    code, said, wrong = running.inside("history", "--verdict", "FAIL", "--show", "2", *at)
    assert (code, wrong) == (0, "")
    head, *rows = said.splitlines()
    columns = ["judged", "camera", "part", "verdict", "score", "reason", "marks", "EPOCH/SEQ"]
    assert head.split() == columns
    failed = [one for one in line.judged if one.verdict is Verdict.FAIL][::-1]
    assert [row.split()[-1] for row in rows] == [f"{one.epoch}/{one.seq}" for one in failed[:2]]
    assert running.inside("history", "--part", "none", *at)[:2] == (0, "no such verdict\n")
    place = f"{line.judged[1].epoch}/{line.judged[1].seq}"
    out, heat = tmp_path / "out.png", tmp_path / "heat.png"
    code, said, _ = running.inside("picture", place, "-o", out, "--heatmap", heat, *at)
    assert (code, said) == (0, f"{out}: top FAIL, the whole picture\n")
    assert np.array_equal(decode(out.read_bytes()), tiny.bad_picture())
    assert decode(heat.read_bytes()).max() >= 128
    out = tmp_path / "out.jpg"
    code, said, _ = running.inside("preview", "live", "-o", out, *at)
    assert (code, out.read_bytes()[:2]) == (0, b"\xff\xd8")
    assert "live gives " in said
    code, _, wrong = running.inside("preview", "live", "-o", tmp_path / "out.gif", *at)
    assert (code, "must end in .png or .jpg" in wrong) == (26, True)


def test_memory_of_parts_is_bounded(monkeypatch):
    monkeypatch.setattr(pictures_module, "_MOST_REMEMBERED", 3)
    parts = SeenParts()
    side = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32)
    for seq in range(1, 6):
        parts.add(SeenPart(verdict(seq), *side))
    epoch = verdict(1).epoch
    assert [seq for seq in range(1, 6) if parts.find(epoch, seq)] == [3, 4, 5]
    monkeypatch.setattr(pictures_module, "_MOST_REMEMBERED_BYTES", 8 * 8 * 7)
    parts.add(SeenPart(verdict(6), *side))
    assert [seq for seq in range(1, 7) if parts.find(epoch, seq)] == [6]
