"""A running station: every part is counted, every fault told, and it ends when it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request

import cv2
import pytest

from inspector.wire.messages import StatusMessage, VerdictMessage
from tests import running, tiny, videos
from tests.stations import free_ports


@pytest.mark.long
def test_unreadable_picture_is_a_fault_of_that_part(tmp_path, bundle_path, parts):
    (parts / "000a.png").write_bytes((parts / "000.png").read_bytes()[:60])
    heard = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle_path, running.folder_camera(parts))
    )
    assert [(v.part_id, v.verdict.value, v.reason) for v in heard.verdicts] == [
        ("000.png", "PASS", ""),
        ("000a.png", "FAULT", "frame_unreadable"),
        ("001.png", "FAIL", "anomaly"),
    ]


@pytest.mark.long
def test_file_name_that_is_not_utf8_is_one_part_like_any(tmp_path, bundle_path, parts):
    (parts / "000.png").rename(parts / os.fsdecode(b"m\xff.png"))
    (parts / os.fsdecode(b"n\xfe.png")).write_bytes(b"no picture")
    heard = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle_path, running.folder_camera(parts))
    )
    assert [(v.part_id, v.verdict.value) for v in heard.verdicts] == [
        ("001.png", "FAIL"),
        (r"m\udcff.png", "PASS"),
        (r"n\udcfe.png", "FAULT"),
    ]
    assert r"n\udcfe.png: " in heard.verdicts[2].detail
    assert [heatmap.message.part_id for heatmap in heard.heatmaps] == ["001.png", r"m\udcff.png"]


@pytest.mark.long
def test_video_that_breaks_off_is_one_fault_and_the_end(tmp_path, bundle_path):
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for _ in range(40):
        writer.write(tiny.good_picture())
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    camera = {"name": "top", "kind": "opencv", "source": str(path)}
    heard = running.judge_all(running.write_station(tmp_path / "s.yaml", bundle_path, camera))
    *judged, last = heard.verdicts
    assert [v.part_id for v in judged] == [f"frame-{n:06}" for n in range(len(judged))]
    assert 3 < len(judged) < 36
    assert (last.verdict.value, last.reason, last.part_id) == ("FAULT", "camera_lost", "")
    ended = heard.statuses[-1].cameras[0]
    assert (ended.state, "breaks off" in ended.detail) == ("ended", True)


@pytest.mark.long
def test_inference_trouble_has_a_field_of_its_own(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "gather.onnx", tiny.fail_on_magic)
    for pictures, trouble in (
        ((tiny.good_picture(), tiny.nan_picture()), True),
        ((tiny.nan_picture(), tiny.good_picture()), False),
    ):
        parts = running.write_parts(tmp_path / str(trouble), *pictures)
        heard = running.judge_all(
            running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
        )
        assert sorted(v.reason for v in heard.verdicts) == ["", "inference_error"]
        last = heard.statuses[-1]
        assert last.inference.startswith("top: ") == trouble
        assert bool(last.inference) == trouble
        assert (last.cameras[0].state, last.cameras[0].detail) == ("ended", "")


def test_picture_smaller_than_the_region_is_a_fault(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "p", tiny.good_picture(), tiny.good_picture(128))
    box = {"x": 32, "y": 32, "w": 64, "h": 64}
    recipe = {"r": {"top": {"bundle": str(bundle_path), "region": box}}}
    heard = running.judge_all(
        running.write_station(
            tmp_path / "s.yaml", bundle_path, running.folder_camera(parts), recipes=recipe
        )
    )
    assert [(v.verdict.value, v.reason) for v in heard.verdicts] == [
        ("FAULT", "frame_shape"),
        ("PASS", ""),
    ]


@pytest.mark.long
def test_two_cameras_share_one_station(tmp_path, bundle_path):
    good = running.write_parts(tmp_path / "good", *[tiny.good_picture()] * 3)
    bad = running.write_parts(tmp_path / "bad", *[tiny.bad_picture()] * 2)
    station = running.write_station(
        tmp_path / "s.yaml",
        bundle_path,
        running.folder_camera(good, "top"),
        running.folder_camera(bad, "side"),
        recipes={
            "r": {
                "top": {"bundle": str(bundle_path)},
                "side": {"bundle": str(bundle_path), "limit_factor": 2.0, "pictures": "none"},
            }
        },
    )
    heard = running.judge_all(station)
    by_camera = {
        name: [(v.part_id, v.score) for v in heard.verdicts if v.camera == name]
        for name in ("top", "side")
    }
    assert by_camera == {
        "top": [("000.png", 0.0), ("001.png", 0.0), ("002.png", 0.0)],
        "side": [("000.png", 127 / 128), ("001.png", 127 / 128)],
    }
    assert {heatmap.message.camera for heatmap in heard.heatmaps} == {"top"}
    last = heard.statuses[-1]
    assert (last.passed, last.last_seq) == (5, 5)
    assert {camera.name: camera.frames for camera in last.cameras} == {"top": 3, "side": 2}


def test_pictures_come_after_their_verdict(station):
    heard = running.judge_all(station)
    places = {
        (type(item).__name__, getattr(item, "seq", None) or item.message.seq): place
        for place, item in enumerate(heard.order)
        if item in heard.verdicts or item in heard.heatmaps
    }
    assert len(heard.heatmaps) == len(heard.verdicts) == 2
    for seq in (1, 2):
        assert places["VerdictMessage", seq] < places["Heatmap", seq]


def test_full_queue_is_a_fault_in_its_turn_never_a_silent_drop(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "slow.onnx", tiny.slow)
    parts = running.write_parts(tmp_path / "parts", *[tiny.good_picture()] * 40)
    camera = running.folder_camera(parts, rate_hz=400, deadline_ms=60_000)
    heard = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle, camera, queue_size=3)
    )
    assert [v.part_id for v in heard.verdicts] == [f"{n:03}.png" for n in range(40)]
    reasons = [v.reason for v in heard.verdicts]
    assert set(reasons) == {"", "queue_full"}
    # Three fit at least, however late the judge comes for the first.
    assert reasons[:3] == [""] * 3
    assert {v.verdict.value for v in heard.verdicts if v.reason} == {"FAULT"}


@pytest.mark.long
def test_source_that_can_wait_never_overflows(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "slow.onnx", tiny.slow)
    parts = running.write_parts(tmp_path / "parts", *[tiny.good_picture()] * 20)
    camera = running.folder_camera(parts, rate_hz=0)
    heard = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle, camera, queue_size=1)
    )
    assert [v.verdict.value for v in heard.verdicts] == ["PASS"] * 20
    assert len(heard.heatmaps) == 20


def test_late_verdict_is_a_fault(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "slow.onnx", tiny.slow)
    parts = running.write_parts(tmp_path / "parts", *[tiny.bad_picture()] * 2)
    camera = running.folder_camera(parts, rate_hz=20, deadline_ms=5)
    heard = running.judge_all(running.write_station(tmp_path / "s.yaml", bundle, camera))
    assert [(v.reason, v.score) for v in heard.verdicts] == [("deadline_missed", None)] * 2


def test_sigterm_judges_what_was_grabbed(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "slow.onnx", tiny.slow)
    parts = running.write_parts(tmp_path / "parts", *[tiny.good_picture()] * 50)
    camera = running.folder_camera(parts, rate_hz=30, loop=True, deadline_ms=60_000)
    station = running.write_station(tmp_path / "s.yaml", bundle, camera, queue_size=1000)
    verdicts, stopped_us = [], 0
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        with daemon.subscriber() as subscriber:
            for item in running.items(subscriber):
                if isinstance(item, StatusMessage):
                    last = item
                if isinstance(item, VerdictMessage):
                    verdicts.append(item)
                    if len(verdicts) == 4:
                        stopped_us = time.time_ns() // 1000
                        daemon.child.send_signal(signal.SIGTERM)
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    assert [v.part_id for v in verdicts] == [f"{n % 50:03}.png" for n in range(len(verdicts))]
    assert {v.reason for v in verdicts} == {""}
    # Many waited when the signal came, up to the newest: all of them are here.
    assert len([v for v in verdicts[4:] if v.grabbed_us < stopped_us]) >= 3
    assert stopped_us - 300_000 < verdicts[-1].grabbed_us < stopped_us + 300_000
    assert (last.state, last.last_seq) == ("Halted", len(verdicts))


@pytest.mark.long
def test_second_signal_leaves_at_once(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "slow.onnx", tiny.slow)
    parts = running.write_parts(tmp_path / "parts", *[tiny.good_picture()] * 200)
    camera = running.folder_camera(parts, rate_hz=1000, loop=True, deadline_ms=60_000)
    station = running.write_station(tmp_path / "s.yaml", bundle, camera, queue_size=1000)
    with running.running(station) as daemon:
        daemon.wait_for_log("camera=top state=running")
        time.sleep(0.5)
        daemon.child.send_signal(signal.SIGTERM)
        daemon.wait_for_log("stopping")
        daemon.child.send_signal(signal.SIGTERM)
        assert daemon.child.wait(2) == 128 + signal.SIGTERM
        assert "Halted" not in daemon.log


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_it_waits_for_a_subscriber_stops_it(station, number):
    with running.running(station, "--wait-for-subscriber", "60") as daemon:
        daemon.wait_for_log("state=Ready")
        daemon.child.send_signal(number)
        assert daemon.child.wait(5) == 0
        assert "state=Halted" in daemon.log


def test_end_of_standard_input_stops_it(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, rate_hz=10, loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    command = [sys.executable, "-m", "inspector", "run", station, "--stop-on-stdin-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        for line in child.stderr:
            if b"state=running" in line:
                child.stdin.close()
                break
        rest = child.stderr.read()
        assert child.wait(5) == 0
    assert b"state=Halted" in rest


def test_verdicts_are_missed_but_counted_without_subscriber(station):
    found, _, err = running.inspector("run", station)
    assert (found, "last_seq=2" in err) == (0, True)


def test_lost_camera_is_one_fault_and_heals(tmp_path, bundle_path):
    plug = running.Plug()
    camera = {
        "name": "net",
        "kind": "opencv",
        "source": f"http://127.0.0.1:{plug.port}/",
        "timeout_ms": 500,
        "deadline_ms": 10_000,
    }
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    try:
        with (
            running.running(station, "--wait-for-subscriber", "10") as daemon,
            daemon.subscriber() as subscriber,
        ):
            before = list(running.until(subscriber, lambda i: getattr(i, "seq", 0) == 5))
            plug.pull()
            lost = list(
                running.until(subscriber, lambda i: getattr(i, "reason", "") == "camera_lost")
            )
            state = list(running.until(subscriber, lambda i: _camera_state(i) == "lost"))
            plug = running.Plug(plug.port)
            healed = list(running.until(subscriber, lambda i: _camera_state(i) == "running"))
            after = list(running.until(subscriber, lambda i: getattr(i, "verdict", "") == "PASS"))
            daemon.child.terminate()
            rest = [i for i in running.items(subscriber) if isinstance(i, VerdictMessage)]
            assert daemon.child.wait(running.START_S) == 0, daemon.log
    finally:
        plug.pull()
    every = before + lost + state + healed + after + rest
    assert [v.seq for v in every] == list(range(1, len(every) + 1))
    faults = [v for v in every if v.verdict.value == "FAULT"]
    assert [(v.reason, v.grabbed_us, v.model) for v in faults] == [("camera_lost", None, None)]
    assert {v.verdict.value for v in before + after} == {"PASS"}


@pytest.mark.long
def test_a_lost_camera_shows_its_password_nowhere(tmp_path, bundle_path):
    """In log, status, ``check`` and metrics of a station that runs, while its cameras are lost."""
    secret, plug = "s3cr3t", running.Plug()
    net = f"http://admin:{secret}@127.0.0.1:{plug.port}/tokens/{secret}?password[0]={secret}"
    film = videos.write_avi(tmp_path / "film.avi", [tiny.good_picture()] * 40)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    film = film.rename(tmp_path / f"film.avi?password={secret}.avi")
    cameras = [
        {"name": name, "kind": "opencv", "source": source, "timeout_ms": 500}
        for name, source in (("net", net), ("film", str(film)))
    ]
    address = free_ports(1)[0].removeprefix("tcp://")
    station = running.write_station(tmp_path / "s.yaml", bundle_path, *cameras, metrics=address)
    try:
        with running.running(station) as daemon:
            daemon.wait_for_log(r" camera=film state=ended detail=.*breaks off")
            plug.pull()
            daemon.wait_for_log(r" camera=net state=lost detail=.*cannot be opened")
            film.unlink()
            status = running.inside("status", daemon.commands)[1]
            check = "".join(running.inside("check", station)[1:])
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
                metrics = answer.read().decode()
            daemon.child.terminate()
            daemon.child.wait(running.START_S)
            log = daemon.log
    finally:
        plug.pull()
    assert "net" in status and "inspector_" in metrics
    for said in (status, check, log):
        assert "http://***@127.0.0.1" in said or "***" in said, said
    for said in (status, check, metrics, log):
        assert secret not in said


def _camera_state(item: object) -> str:
    cameras = getattr(item, "cameras", ())
    return cameras[0].state if cameras else ""


CRASHES = {
    "grab-top": "inspector.station.grabber.Grabber._hand_over",
    "recorder": "inspector.journal.writer.Journal.commit",
    "commands": "inspector.wire.command_server.Commands._serve_replay",
    "pictures": "inspector.station.pictures.encode_png",
}


@pytest.mark.long
@pytest.mark.parametrize("thread", CRASHES)
def test_thread_that_dies_ends_the_station_with_an_error(station, thread):
    """A bug in any thread must end the process: a station that is silent looks like a calm one."""
    text = station.read_text(encoding="utf-8")
    station.write_text(text.replace("kind: folder", "kind: folder\n  loop: true"), encoding="utf-8")
    program = (
        "import sys, unittest.mock, inspector.cli.main, inspector.station.process\n"
        f"unittest.mock.patch({CRASHES[thread]!r}, side_effect=KeyError('a bug')).start()\n"
        "sys.exit(inspector.cli.main.main(['run', sys.argv[1], '--wait-for-subscriber', '10']))\n"
    )
    with running.running(station, program=program) as daemon:
        with daemon.subscriber() as subscriber:
            list(running.until(subscriber, lambda i: getattr(i, "state", "") == "Error"))
        assert daemon.child.wait(running.START_S) == 1, daemon.log
    assert f"thread {thread} crashed" in daemon.log
    assert "Halted" not in daemon.log
