from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import psutil
import pytest
import yaml

from inspector.client import Subscriber
from inspector.frame import encode_jpeg
from inspector.wire import Publisher, StatusMessage, VerdictMessage
from tests import running, tiny


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path, parts: Path) -> Path:
    return running.write_station(
        tmp_path / "station.yaml", bundle_path, running.folder_camera(parts)
    )


def refused(station: Path, code: int, *words: str) -> list[str]:
    """``run`` and ``check`` end with ``code`` and lines, never a traceback."""
    for found, out, err in running.at_once(("run", station), ("check", station)):
        assert found == code, out + err
        assert "Traceback" not in out + err
        for word in words:
            assert word in out + err
    return out.splitlines()


def test_nan_is_a_fault_never_a_pass(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "nan", tiny.nan_picture(), tiny.good_picture())
    heard = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle_path, running.folder_camera(parts))
    )
    assert [(v.verdict.value, v.reason, v.score) for v in heard.verdicts] == [
        ("FAULT", "not_finite", None),
        ("PASS", "", 0.0),
    ]
    assert [heatmap.message.seq for heatmap in heard.heatmaps] == [2]


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
    # Four fit at least: one with the judge, three in the queue.
    assert reasons[:4] == [""] * 4
    assert {v.verdict.value for v in heard.verdicts if v.reason} == {"FAULT"}


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
    camera = running.folder_camera(parts, rate_hz=60, loop=True, deadline_ms=60_000)
    station = running.write_station(tmp_path / "s.yaml", bundle, camera, queue_size=1000)
    verdicts, stopped_us = [], 0
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        with daemon.subscriber() as subscriber:
            for item in running.items(subscriber):
                if isinstance(item, StatusMessage):
                    last = item
                if isinstance(item, VerdictMessage):
                    verdicts.append(item)
                    if len(verdicts) == 10:
                        stopped_us = time.time_ns() // 1000
                        daemon.child.send_signal(signal.SIGTERM)
        assert daemon.child.wait(10) == 0, daemon.log
    assert [v.part_id for v in verdicts] == [f"{n % 50:03}.png" for n in range(len(verdicts))]
    assert {v.reason for v in verdicts} == {""}
    # Many waited when the signal came, up to the newest: all of them are here.
    assert len([v for v in verdicts[10:] if v.grabbed_us < stopped_us]) >= 3
    assert stopped_us - 300_000 < verdicts[-1].grabbed_us < stopped_us + 300_000
    assert (last.state, last.last_seq) == ("Halted", len(verdicts))


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
    command = [sys.executable, "-m", "inspector.cli", "run", station, "--stop-on-stdin-eof"]
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


class Stream(BaseHTTPRequestHandler):
    """A network camera: motion JPEG over HTTP."""

    def do_GET(self):
        self.server.unplugged.wait(self.server.answers_after_s)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()
        number = 0
        while not self.server.unplugged.wait(0.04):
            number += 1
            picture = tiny.good_picture()
            picture[0, 0] = number % 4 + tiny.GREY
            jpeg = encode_jpeg(picture)
            head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return

    def log_message(self, *_):
        pass


class Plug:
    """Plugs the network camera in and out."""

    def __init__(self, port: int = 0, answers_after_s: float = 0.0) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Stream)
        self.server.unplugged = threading.Event()
        self.server.answers_after_s = answers_after_s
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def pull(self) -> None:
        self.server.unplugged.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def until(subscriber, wanted) -> Iterator[VerdictMessage]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        item = subscriber.receive(200)
        if isinstance(item, VerdictMessage):
            yield item
        if item is not None and wanted(item):
            return
    raise AssertionError("it did not come")


def test_lost_camera_is_one_fault_and_heals(tmp_path, bundle_path):
    plug = Plug()
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
            before = list(until(subscriber, lambda i: getattr(i, "seq", 0) == 5))
            plug.pull()
            lost = list(until(subscriber, lambda i: getattr(i, "reason", "") == "camera_lost"))
            state = list(until(subscriber, lambda i: _camera_state(i) == "lost"))
            plug = Plug(plug.port)
            healed = list(until(subscriber, lambda i: _camera_state(i) == "running"))
            after = list(until(subscriber, lambda i: getattr(i, "verdict", "") == "PASS"))
            daemon.child.terminate()
            rest = [i for i in running.items(subscriber) if isinstance(i, VerdictMessage)]
            assert daemon.child.wait(10) == 0, daemon.log
    finally:
        plug.pull()
    every = before + lost + state + healed + after + rest
    assert [v.seq for v in every] == list(range(1, len(every) + 1))
    faults = [v for v in every if v.verdict.value == "FAULT"]
    assert [(v.reason, v.grabbed_us, v.model) for v in faults] == [("camera_lost", None, None)]
    assert {v.verdict.value for v in before + after} == {"PASS"}


def _camera_state(item: object) -> str:
    cameras = getattr(item, "cameras", ())
    return cameras[0].state if cameras else ""


def test_port_in_use(station, tmp_path, bundle_path, parts):
    taken = Publisher(running.FREE["verdicts"], running.FREE["images"])
    try:
        station = running.write_station(
            tmp_path / "s.yaml",
            bundle_path,
            running.folder_camera(parts),
            sockets={"verdicts": taken.addresses[0], "images": "tcp://127.0.0.1:*"},
        )
        refused(station, 15, f"{taken.addresses[0]}: in use")
    finally:
        taken.close()


def test_running_ipc_station_keeps_its_subscribers(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, rate_hz=10, loop=True)
    sockets = {name: f"ipc://{tmp_path}/{name}" for name in ("verdicts", "images")}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, sockets=sockets)
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        with daemon.subscriber() as subscriber:
            list(until(subscriber, lambda i: getattr(i, "seq", 0) == 3))
            refused(station, 15, f"ipc://{tmp_path}/verdicts: in use")
            with Subscriber(**sockets) as newcomer:
                list(until(newcomer, lambda i: isinstance(i, VerdictMessage)))
            daemon.child.terminate()
            rest = [i for i in running.items(subscriber) if isinstance(i, VerdictMessage)]
        assert daemon.child.wait(10) == 0, daemon.log
    assert [v.seq for v in rest] == list(range(4, len(rest) + 4))
    with running.running(station) as killed:
        killed.wait_for_log("state=running")
        killed.child.kill()
    found, out, _ = running.inspector("check", station)
    assert (found, "are free" in out) == (0, True)


def test_status_shows_a_station_that_is_still_loading(tmp_path, bundle_path):
    plug = Plug(answers_after_s=1.0)
    source = f"http://127.0.0.1:{plug.port}/"
    cameras = [{"name": name, "kind": "opencv", "source": source} for name in ("a", "b")]
    sockets = {name: f"ipc://{tmp_path}/{name}" for name in ("verdicts", "images")}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, *cameras, sockets=sockets)
    states = []
    try:
        with Subscriber(sockets["verdicts"]) as subscriber, running.running(station) as daemon:
            while "ContinuousExecution" not in states:
                item = subscriber.receive(5000)
                assert item is not None
                states += [item.state] if isinstance(item, StatusMessage) else []
            daemon.child.terminate()
            assert daemon.child.wait(10) == 0, daemon.log
    finally:
        plug.pull()
    assert list(dict.fromkeys(states)) == [
        "Preoperational",
        "Initialized",
        "Ready",
        "ContinuousExecution",
    ]


CRASHES = {
    "grab-top": "inspector.cameras.folder.read_image",
    "pictures": "inspector.workers.encode_png",
}


@pytest.mark.parametrize("thread", CRASHES)
def test_thread_that_dies_ends_the_station_with_an_error(station, thread):
    """A bug in any thread must end the process: a station that is silent looks like a calm one."""
    text = station.read_text(encoding="utf-8")
    station.write_text(text.replace("kind: folder", "kind: folder\n  loop: true"), encoding="utf-8")
    program = (
        "import sys, unittest.mock, inspector.cli, inspector.daemon\n"
        f"unittest.mock.patch({CRASHES[thread]!r}, side_effect=KeyError('a bug')).start()\n"
        "sys.exit(inspector.cli.main(['run', sys.argv[1], '--wait-for-subscriber', '10']))\n"
    )
    with running.running(station, program=program) as daemon:
        with daemon.subscriber() as subscriber:
            list(until(subscriber, lambda i: getattr(i, "state", "") == "Error"))
        assert daemon.child.wait(10) == 1, daemon.log
    assert f"thread {thread} crashed" in daemon.log
    assert "Halted" not in daemon.log


def test_camera_that_is_not_there(tmp_path, bundle_path):
    for camera in (
        running.folder_camera(tmp_path / "nowhere"),
        {"name": "top", "kind": "opencv", "source": 9},
        {"name": "top", "kind": "opencv", "source": str(tmp_path / "no.mp4")},
    ):
        refused(running.write_station(tmp_path / "s.yaml", bundle_path, camera), 14, "camera top: ")


def test_truncated_or_altered_bundle(station, bundle_path):
    whole = bundle_path.read_bytes()
    bundle_path.write_bytes(whole[: len(whole) // 2])
    refused(station, 11, "tiny.onnx: not a complete bundle")
    bundle_path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 4]) + whole[1001:])
    refused(station, 11, "tiny.onnx: checksum mismatch")
    bundle_path.unlink()
    refused(station, 11, "tiny.onnx: no such bundle")


def test_bundle_for_another_input_size(tmp_path, parts):
    bundle = tiny.write_bundle(tmp_path / "odd.onnx", geometry={"height": 96, "width": 64})
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
    refused(station, 11, "odd.onnx: graph input has shape (64, 64, 3)")


def test_check_finds_a_bundle_for_another_picture(tmp_path, parts):
    wide = {"height": 64, "width": 64, "aspect": 2.0}
    bundle = tiny.write_bundle(tmp_path / "wide.onnx", geometry=wide)
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
    found, out, _ = running.inspector("check", station)
    assert found == 11
    assert "trained at 2.000; set 'region' in the recipe" in out
    heard = running.judge_all(station)
    assert [v.reason for v in heard.verdicts] == ["frame_shape"] * 2


def test_moved_golden_image(tmp_path, parts):
    golden = tiny.manifest(tiny.model())["golden"]
    golden[0]["score"] = 0.5
    bundle = tiny.write_bundle(tmp_path / "moved.onnx", golden=golden)
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
    refused(station, 12, "golden image 'good' scores 0.000000")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_that_is_not_here(tmp_path, bundle_path, parts, provider):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    camera = running.folder_camera(parts)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, provider=provider)
    refused(station, 13, f"provider: {provider}: ", "pip install 'line-inspector[cuda]'")


def test_wrong_station_file(station):
    text = station.read_text(encoding="utf-8")
    station.write_text(text.replace("threads: 1", "threads: one\nthreds: 2"), encoding="utf-8")
    lines = refused(station, 10, "threads: ", "threds: unknown key", "station.yaml:")
    assert len([line for line in lines if line.startswith("problem")]) == 2
    refused(station.with_name("none.yaml"), 10, "none.yaml: no such file")


def test_every_problem_is_reported_together(tmp_path, bundle_path):
    bundle_path.write_bytes(b"")
    camera = running.folder_camera(tmp_path / "nowhere")
    addresses = {"verdicts": "ipc:///nowhere/at/all", "images": "tcp://127.0.0.1:*"}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, sockets=addresses)
    lines = refused(station, 11)
    subjects = [line.split()[1] for line in lines if line.startswith("problem")]
    assert subjects == ["bundle", "camera", "ports"]
    found, _, err = running.inspector("run", station)
    assert found == 11
    assert [line.startswith("inspector: error: ") for line in err.splitlines()][-3:] == [True] * 3


def test_check_of_a_sound_station_is_all_ok(station):
    found, out, err = running.inspector("check", station)
    assert (found, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == {"ok"}


def test_watch_shows_and_saves(tmp_path, station):
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        found, out, err = running.inspector(
            *("watch", daemon.verdicts, "--images", daemon.images),
            *("--count", "2", "--save", tmp_path / "seen"),
        )
        assert (found, err) == (0, "")
        assert daemon.child.wait(10) == 0
    assert [line.split()[3:5] for line in out.splitlines() if ".png" in line] == [
        ["PASS", "0.000"],
        ["FAIL", "1.984"],
    ]
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == [
        "top_000001_000_PASS.jpg",
        "top_000001_000_PASS_map.png",
        "top_000001_000_PASS_overlay.jpg",
        "top_000002_001_FAIL.jpg",
        "top_000002_001_FAIL_map.png",
        "top_000002_001_FAIL_overlay.jpg",
    ]


def test_watch_saves_parts_without_an_id(tmp_path, bundle_path):
    plug = Plug()
    camera = {"name": "net", "kind": "opencv", "source": f"http://127.0.0.1:{plug.port}/"}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    try:
        with running.running(station, "--wait-for-subscriber", "10") as daemon:
            found, _, err = running.inspector(
                *("watch", daemon.verdicts, "--images", daemon.images),
                *("--count", "1", "--save", tmp_path / "seen"),
            )
            daemon.child.terminate()
            assert daemon.child.wait(10) == 0, daemon.log
    finally:
        plug.pull()
    assert (found, err) == (0, "")
    assert list((tmp_path / "seen").glob("net_*_part_PASS_overlay.jpg"))


def demo_station(tmp_path: Path, bundle_path: Path) -> Path:
    camera = {"name": "belt", "kind": "simulator", "rate_hz": 20, "defect_rate": 0.5}
    return running.write_station(tmp_path / "demo.yaml", bundle_path, camera)


def test_demo_counts_every_part(tmp_path, bundle_path):
    save = tmp_path / "out"
    found, out, err = running.inspector(
        "demo", demo_station(tmp_path, bundle_path), "--parts", "12", "--save", save
    )
    assert (found, err) == (0, "")
    assert "12 parts, 0 verdicts lost" in " ".join(out.split())
    assert out.count(" part-0000") == 12
    assert (save / "heatmaps.png").stat().st_size > 1000
    assert list(save.glob("*_overlay.jpg"))


def test_demo_without_a_bundle_says_so(tmp_path):
    found, _, err = running.inspector("demo", demo_station(tmp_path, tmp_path / "none.onnx"))
    assert found == 11
    assert "none.onnx: no such bundle" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_demo_leaves_no_station_behind(tmp_path, bundle_path, number):
    station = demo_station(tmp_path, bundle_path)
    command = [sys.executable, "-u", "-m", "inspector.cli", "demo", station]
    command += ["--save", tmp_path / "out"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as demo:
        for line in demo.stdout:
            if b"part-000003" in line:
                break
        daemon = psutil.Process(demo.pid).children()[0]
        demo.send_signal(number)
        out = demo.stdout.read().decode()
        assert demo.wait(10) == (0 if number == signal.SIGINT else -signal.SIGKILL)
    psutil.wait_procs([daemon], timeout=10)
    assert not daemon.is_running()
    if number == signal.SIGINT:
        assert "truth against verdict" in out
        assert " 0 verdicts lost" in " ".join(out.split())


def test_station_file_of_the_demo_round_trips(tmp_path, bundle_path):
    from inspector.config import load_station

    path = demo_station(tmp_path, bundle_path)
    station = load_station(path)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(station.model_dump(mode="json")), encoding="utf-8")
    assert load_station(again) == station
