"""Failures that other inspection systems shipped, each injected into a real station.

8 and 9 are the training wing's (tests/export); 10 and 11 come with the PLC bridges.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest
import yaml
import zmq
from onnx import helper, numpy_helper

from inspector.cameras.isolated import ring
from inspector.client.commander import Commander
from inspector.client.subscriber import Subscriber
from inspector.detection.detector import Detector
from inspector.errors import CommandError
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import StatusMessage, VerdictMessage, decode
from tests import running, tiny, videos
from tests.cameras.isolated.test_process import mapped
from tests.station.test_recipes import station_file
from tests.station.test_triggers import SLOW_JUDGE, ready, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolated cameras are Linux's")

LOST = Reason.CAMERA_LOST.value
PATIENCE_S = 40.0


def faulty(path: Path, *steps: dict[str, Any], name: str = "top", **keys: Any) -> dict[str, Any]:
    """A camera that fails by a script; it shows the photos in ``path``."""
    common = {"kind": "faulty", "name": name, "path": str(path), "deadline_ms": 10_000}
    return {**common, "steps": list(steps), **keys}


def frames(count: int | None = None) -> dict[str, Any]:
    return {"do": "frames"} if count is None else {"do": "frames", "count": count}


@contextlib.contextmanager
def heard(daemon: running.Running, **options: Any) -> Iterator[Callable[..., list[Any]]]:
    """``collect(done)`` gives what is published until ``done`` of all that was heard so far."""
    with Subscriber(daemon.verdicts, **options) as subscriber:
        everything: list[Any] = []

        def collect(done: Callable[[list[Any]], object]) -> list[Any]:
            deadline = time.monotonic() + PATIENCE_S
            while not done(everything):
                assert time.monotonic() < deadline, f"{everything[-3:]} {daemon.log}"
                item = subscriber.receive(200)
                if item is not None:
                    everything.append(item)
            return everything

        yield collect


def verdicts(items: list[Any], camera: str = "") -> list[VerdictMessage]:
    return [v for v in items if isinstance(v, VerdictMessage) and camera in ("", v.camera)]


def healed(items: list[Any], camera: str = "", losses: int = 1) -> bool:
    """A part was judged after so many losses of the camera."""
    reasons = [v.reason for v in verdicts(items, camera)]
    return reasons.count(LOST) >= losses and reasons[-1] != LOST


def wrapped(station: Path, script: str) -> str:
    """A program for ``running``: the cameras of the station start by way of a shell script."""
    wrapper = station.with_name("python")
    # What reads the bundle is started by the same name, but not as a module.
    run = f'exec {sys.executable} "$@"'
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = -m ] || {run}\n{script}\n{run}\n')
    wrapper.chmod(0o755)
    return (
        "import sys\n"
        "from inspector.cli import main as cli\n"
        f"sys.executable = {str(wrapper)!r}\n"
        "sys.exit(cli.main(['run', sys.argv[1], '--wait-for-subscriber', '20']))\n"
    )


def test_01_camera_open_that_fails_lets_go_of_its_lock(tmp_path, bundle_path, parts):
    steps = frames(2), {"do": "lose"}, {"do": "refuse_open"}, frames()
    station = running.write_station(tmp_path / "s.yaml", bundle_path, faulty(parts, *steps))
    # As a driver does: one at a time, and a helper of its own that keeps the lock as well.
    lock, opened = tmp_path / "lock", tmp_path / "opened"
    script = f"exec 9>{lock}; flock -n 9 || exit 1; echo >>{opened}; sleep 1000 & :"
    with (
        running.running(station, program=wrapped(station, script)) as daemon,
        heard(daemon) as collect,
    ):
        found = collect(healed)
    assert [v.reason for v in verdicts(found)].count(LOST) == 1
    states = [(c.state, c.detail) for s in found if isinstance(s, StatusMessage) for c in s.cameras]
    assert any(state == "lost" and "refuses" in detail for state, detail in states)
    # At the start, after the loss, and after the open that failed.
    assert len(opened.read_text().splitlines()) == 3


class _GoesSilent(BaseHTTPRequestHandler):
    """A network camera that sends some pictures over each connection, and then nothing for ever."""

    def do_GET(self):
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in range(30):
                picture = tiny.good_picture()
                picture[:8, :8] = tiny.GREY + 16 * (number % 3)
                jpeg = encode_jpeg(picture)
                head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(0.03)
            self.server.over.wait()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def camera_that_goes_silent() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GoesSilent)
    server.over, server.connections = threading.Event(), 0
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.long
def test_02_read_that_hangs_after_a_reconnect_is_killed(tmp_path, bundle_path, parts):
    # One hangs with the interpreter's lock held, the other in a real network camera's socket.
    steps = frames(2), {"do": "lose"}, {"do": "block_for_ever"}, frames()
    with camera_that_goes_silent() as server:
        net = {
            "name": "net",
            "kind": "opencv",
            "source": f"http://127.0.0.1:{server.server_address[1]}/",
            "timeout_ms": 500,
            "deadline_ms": 10_000,
        }
        driver = faulty(parts, *steps, name="driver")
        station = running.write_station(tmp_path / "s.yaml", bundle_path, net, driver)
        with (
            running.running(station, "--wait-for-subscriber", "20") as daemon,
            heard(daemon) as collect,
        ):
            found = collect(lambda items: healed(items, "driver") and healed(items, "net", 2))
        assert server.connections >= 3
    assert [v.seq for v in verdicts(found)] == list(range(1, len(verdicts(found)) + 1))
    # Lost once, however often it hung before it was back.
    assert [v.reason for v in verdicts(found, "driver")].count(LOST) == 1
    assert {v.reason for v in verdicts(found)} <= {"", "anomaly", LOST}


def test_03_old_frame_is_never_the_next_part(tmp_path, bundle_path, parts):
    """The driver says that it has a new frame and hands over that of the part before."""
    steps = frames(1), {"do": "stale"}, frames(1), {"do": "stale"}, frames()
    station = running.write_station(tmp_path / "s.yaml", bundle_path, faulty(parts, *steps))
    with (
        running.running(station, "--wait-for-subscriber", "20") as daemon,
        heard(daemon) as collect,
    ):
        found = verdicts(collect(lambda items: healed(items, losses=2)))
    # Good, bad, good: the old picture of a good part would have passed the bad one.
    assert [(v.verdict.value, v.part_id) for v in found[:5]] == [
        ("PASS", "part-000000"),
        ("FAULT", ""),
        ("FAIL", "part-000001"),
        ("FAULT", ""),
        ("PASS", "part-000002"),
    ]
    assert all("not newer" in v.detail for v in found if v.reason == LOST)


COLD = """
import sys, time
from inspector.cli import main as cli
from inspector.detection.engines import onnxruntime as engine
class Cold(engine.ort.InferenceSession):
    cold = True
    def run(self, *arguments, **options):
        if self.cold:
            time.sleep(1.5)
            self.cold = False
        return super().run(*arguments, **options)
engine.ort.InferenceSession = Cold
sys.exit(cli.main(["run", sys.argv[1]]))
"""


@pytest.mark.long
def test_04_ready_means_warm(tmp_path, bundle_path):
    """The first inference of a session takes 1.5 s, a part may take 1."""
    station = write(tmp_path, bundle_path)
    document = yaml.safe_load(station.read_text())
    document["cameras"][0]["deadline_ms"] = 1000
    other = tiny.write_bundle(tmp_path / "other.onnx", name="other")
    document["recipes"]["next"] = {"top": {"bundle": str(other)}}
    station.write_text(yaml.safe_dump(document))
    with running.running(station, program=COLD) as daemon:
        assert "state=Ready" not in daemon.log
        with ready(daemon) as plc:
            assert plc.trigger("top", 1).verdict is Verdict.PASS
            # The recipe after a changeover is warm as well when it takes over.
            plc.recipe("next")
            first = plc.trigger("top", 2)
            assert (first.verdict, first.model.name) == (Verdict.FAIL, "other")


def test_05_half_written_bundle_is_refused_and_the_old_one_goes_on(tmp_path, bundle_path):
    other = tiny.write_bundle(tmp_path / "other.onnx", name="other")
    station = write(tmp_path, bundle_path)
    document = yaml.safe_load(station.read_text())
    document["recipes"]["next"] = {"top": {"bundle": str(other)}}
    station.write_text(yaml.safe_dump(document))
    with running.running(station) as daemon, ready(daemon) as plc:
        before = plc.trigger("top", 1)
        whole = other.read_bytes()
        other.write_bytes(whole[:-100])
        with pytest.raises(CommandError, match="not a complete bundle"):
            plc.recipe("next")
        still = plc.trigger("top", 2)
        assert (still.recipe, still.model) == ("r", before.model)
        other.write_bytes(whole)
        plc.recipe("next")
        after = plc.trigger("top", 3)
        assert (after.recipe, after.model.name) == ("next", "other")
        with pytest.raises(CommandError, match="no recipe"):
            plc.recipe("nonsense")


DRIVER_SEEMS_FINE = """
import sys
from inspector.cli import main as cli
from inspector.detection.engines import onnxruntime as engine
engine.missing = lambda kind: ""
sys.exit(cli.main(["run", sys.argv[1]]))
"""

CUDA_GOES = """
import sys
from pathlib import Path
from inspector.cli import main as cli
from inspector.detection.engines import onnxruntime as engine
class Losing(engine.ort.InferenceSession):
    def run(self, *arguments, **options):
        if Path(sys.argv[1]).with_name("gone").exists():
            raise RuntimeError("CUDA failure 999: unknown error")
        return super().run(*arguments, **options)
engine.ort.InferenceSession = Losing
sys.exit(cli.main(["run", sys.argv[1]]))
"""


@pytest.mark.long
def test_06_cuda_that_is_gone_is_no_start_and_no_green_status(
    tmp_path, bundle_path, parts, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    camera = running.folder_camera(parts, rate_hz=10, loop=True, deadline_ms=10_000)
    asked = running.write_station(tmp_path / "cuda.yaml", bundle_path, camera, provider="cuda")
    command = [sys.executable, "-c", DRIVER_SEEMS_FINE, str(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "provider: cuda: " in done.stderr) == (13, True), done.stderr
    assert "state=Ready" not in done.stderr

    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, provider="auto")
    with running.running(station, program=CUDA_GOES) as daemon, heard(daemon) as collect:
        collect(lambda items: len(verdicts(items)) > 2)
        fine = running.inside("status", daemon.commands)
        other = running.inside("status", daemon.commands, "--provider", "CUDAExecutionProvider")
        assert fine[0] == 0, fine
        assert (other[0], "runs on CPUExecutionProvider" in other[1]) == (2, True)
        station.with_name("gone").touch()
        lost = "inference_error"
        before = len(verdicts(collect(lambda items: verdicts(items)[-1].reason == lost))) - 1
        found = verdicts(collect(lambda items: len(verdicts(items)) > before + 10))
        code, out, _ = running.inside("status", daemon.commands)
    assert {(v.verdict.value, v.reason) for v in found[before:]} == {("FAULT", lost)}
    assert (code, "CUDA failure 999" in out) == (2, True)


def judge_blue(graph: onnx.ModelProto) -> None:
    """Make the model look at the first of the three channels alone."""
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.int64), "first"))
    place = next(i for i, node in enumerate(graph.graph.node) if node.op_type == "ReduceMean")
    gather = helper.make_node("Gather", ["colour", "first"], ["grey"], axis=3)
    graph.graph.node[place].CopyFrom(gather)


def coloured(*bgr: int) -> np.ndarray:
    """Rows of 67 pixels: padded in memory by most that cut or decode pictures."""
    return np.full((53, 67, len(bgr)), bgr, dtype=np.uint8)


def test_07_pixels_are_those_of_the_camera_or_a_fault(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "blue.onnx", judge_blue)
    right, swapped = coloured(tiny.GREY, 60, 250), coloured(250, 60, tiny.GREY)
    strided = np.zeros((60, 128, 3), np.uint8)
    strided[3:56, 20:87] = right
    pictures = {
        "8 bit": right,
        "16 bit": right.astype(np.uint16) * 257,
        "with alpha": np.dstack([right, np.full((53, 67), 9, np.uint8)]),
        "grey": np.full((53, 67), tiny.GREY, np.uint8),
    }
    folder = tmp_path / "parts"
    running.write_parts(folder, swapped)
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(encode_png(picture))
    video = str(tmp_path / "line.avi")
    writer = cv2.VideoWriter(video, cv2.VideoWriter_fourcc(*"MJPG"), 25, (66, 54))
    for _ in range(3):
        writer.write(cv2.resize(right, (66, 54)))
    writer.release()
    station = running.write_station(
        tmp_path / "s.yaml",
        bundle,
        running.folder_camera(folder),
        {"name": "video", "kind": "opencv", "source": video},
    )
    heard = running.judge_all(station)
    found = {v.part_id: (v.verdict.value, v.score) for v in verdicts(heard.verdicts, "top")}
    assert found.pop("000.png")[0] == "FAIL"
    assert found == {f"{name}.png": ("PASS", 0.0) for name in pictures}
    # JPEG changes colours by some levels of 64.
    assert [v.score < 0.2 for v in verdicts(heard.verdicts, "video")] == [True] * 3
    for heatmap in heard.heatmaps:
        if heatmap.message.part_id not in ("000.png", "grey.png"):
            shown = heatmap.picture.mean(axis=(0, 1))
            assert np.abs(shown - (tiny.GREY, 60, 250)).max() < 8, heatmap.message

    judge = Detector.load(bundle, "cpu", 1).judge
    assert judge(strided[3:56, 20:87]).score == 0.0
    assert judge(right[:, :, ::-1]).verdict is Verdict.FAIL
    # YUYV as it comes from the sensor, floats, planes in the order of PyTorch.
    unknown = (right[:, :, :2], right.astype(np.float32), right.transpose(2, 0, 1))
    assert [judge(frame).reason for frame in unknown] == [Reason.FRAME_SHAPE] * 3
    # A raw Bayer picture is a grey one by its shape.
    geometry = {"height": tiny.SIDE, "width": tiny.SIDE, "colour": True}
    of_colour = tiny.write_bundle(tmp_path / "colour.onnx", judge_blue, geometry=geometry)
    bayer = Detector.load(of_colour, "cpu", 1).judge(pictures["grey"])
    assert (bayer.reason, "Bayer" in bayer.detail) == (Reason.FRAME_SHAPE, True)


def test_12_trigger_during_busy_gets_its_verdict(tmp_path, bundle_path):
    station = write(tmp_path, bundle_path)
    with running.running(station, program=SLOW_JUDGE) as daemon, ready(daemon) as plc:
        found: dict[int, VerdictMessage] = {}

        def trigger(number: int) -> None:
            with type(plc)(daemon.commands) as client:
                found[number] = client.trigger("top", number, f"p{number}")

        threads = [threading.Thread(target=trigger, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 6
    assert sorted(v.seq for v in found.values()) == [1, 2, 3, 4, 5, 6]
    assert {v.part_id for v in found.values()} == {f"p{n}" for n in range(6)}
    assert all(
        v.reason in {"", "anomaly", "over_trigger", "deadline_missed"} for v in found.values()
    )


STUCK = """
import sys, time
from pathlib import Path
from inspector.cli import main as cli
from inspector.detection import detector
judge = detector.Detector.judge
def stuck(self, frame, **options):
    while Path(sys.argv[1]).with_name("stuck").exists():
        time.sleep(0.1)
    return judge(self, frame, **options)
detector.Detector.judge = stuck
sys.exit(cli.main(["run", sys.argv[1]]))
"""


@pytest.mark.long
def test_13_stuck_judge_is_seen_by_watchdog_and_status(tmp_path, bundle_path, parts, monkeypatch):
    camera = running.folder_camera(parts, rate_hz=20, loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        with running.running(station, program=STUCK) as daemon:
            supervisor.settimeout(PATIENCE_S)
            while b"WATCHDOG=1" not in supervisor.recv(4096):
                pass
            daemon.wait_for_log("camera=top state=running")
            station.with_name("stuck").touch()
            # All its other threads live and work.
            supervisor.settimeout(2.0)
            with pytest.raises(TimeoutError):
                while True:
                    supervisor.recv(4096)
            deadline = time.monotonic() + PATIENCE_S
            code = 0
            while code == 0 and time.monotonic() < deadline:
                code, out, _ = running.inside("status", daemon.commands)
    assert (code, "has not changed" in out) == (2, True), out


def test_13_camera_that_crashes_at_every_start_is_never_called_fine(tmp_path, bundle_path, parts):
    crashes = [{"do": "die", "how": how} for how in ("exit", "segfault")] * 20
    camera = faulty(parts, frames(1), *crashes, frames())
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with (
        running.running(station, "--wait-for-subscriber", "20") as daemon,
        heard(daemon) as collect,
    ):
        collect(lambda items: [v.reason for v in verdicts(items)] == ["", LOST])
        begun = time.monotonic()
        code, out, _ = running.inside("status", daemon.commands)
        assert (code, "camera top lost" in out) == (2, True), out
        found = collect(
            lambda items: time.monotonic() > begun + 2.0 and len(states_since_lost(items)) >= 2
        )
    assert [v.reason for v in verdicts(found)] == ["", LOST]
    assert set(states_since_lost(found)) == {"lost"}


def states_since_lost(items):
    since = items[items.index(verdicts(items)[-1]) :]
    return [item.cameras[0].state for item in since if isinstance(item, StatusMessage)]


@pytest.mark.long
def test_14_full_shared_memory_is_a_fault_and_heals(tmp_path, bundle_path, parts):
    big = {"do": "resize", "width": 1600, "height": 1200}
    steps = frames(2), big, frames(3), {"do": "resize", "width": 64, "height": 64}, frames()
    camera = faulty(parts, *steps)
    recipe = {"top": {"bundle": str(bundle_path), "sizes": ["64x64", "1600x1200"]}}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, recipes={"r": recipe})
    # Memory is a file to the kernel: the first process may have 2 MB of it, as if it were full.
    once = tmp_path / "once"
    script = f"if [ ! -e {once} ]; then touch {once}; ulimit -f 4096; fi"
    with (
        running.running(station, program=wrapped(station, script)) as daemon,
        heard(daemon) as collect,
    ):
        found = verdicts(collect(lambda items: len(verdicts(items)) >= 8))
    assert [v.reason == LOST for v in found[:8]] == [False] * 2 + [True] + [False] * 5
    assert "no shared memory for its pictures (23 MB)" in found[2].detail
    assert {v.verdict.value for v in found if v.reason != LOST} == {"PASS", "FAIL"}


@pytest.mark.long
def test_14_changes_of_size_leave_no_segment_and_no_memory_behind(tmp_path, bundle_path, parts):
    steps: list[dict[str, Any]] = []
    for width, height in ((320, 240), (640, 480)):
        steps += [{"do": "resize", "width": width, "height": height}, frames(1)]
    camera = faulty(parts, *steps, loop=True, rate_hz=0)
    recipe = {"top": {"bundle": str(bundle_path), "sizes": ["320x240", "640x480"]}}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, recipes={"r": recipe})
    with running.running(station, "--wait-for-subscriber", "20") as daemon:
        process = psutil.Process(daemon.child.pid)
        with heard(daemon) as collect:
            collect(lambda items: len(verdicts(items)) >= 150)
            child = process.children()[0]
            before = process.memory_info().rss + child.memory_info().rss
            collect(lambda items: len(verdicts(items)) >= 500)
            after = process.memory_info().rss + child.memory_info().rss
            segments = [len(set(mapped(pid))) for pid in (process.pid, child.pid)]
            handles = process.num_fds()
            found = verdicts(collect(lambda items: len(verdicts(items)) >= 600))
            assert process.num_fds() <= handles + 5
    # The child has two while one takes the place of the other, the reader one a picture lent too.
    assert segments[0] <= ring.SLOTS + 1
    assert segments[1] <= 2
    # 350 changes of size, of 2 MB of segments on the average.
    assert after - before < 50 * 2**20
    assert {v.reason for v in found} == {"", "anomaly"}


SMALL_BUFFERS = """
import sys
import zmq
from inspector.cli import main as cli
bind = zmq.Socket.bind
def narrow(self, address):
    if self.type == zmq.XPUB:
        self.sndhwm, self.sndbuf = 200, 32768
    return bind(self, address)
zmq.Socket.bind = narrow
sys.exit(cli.main(["run", sys.argv[1], "--wait-for-subscriber", "20"]))
"""


@contextlib.contextmanager
def stalled_subscriber(address: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as stalled:
        stalled.setsockopt(zmq.RCVHWM, 1)
        stalled.setsockopt(zmq.RCVBUF, 32768)
        stalled.setsockopt(zmq.LINGER, 0)
        stalled.subscribe(b"verdict/")
        stalled.connect(address)
        yield stalled


@pytest.mark.long
def test_15_slow_subscriber_hurts_nobody_and_a_late_one_is_complete(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    camera = running.folder_camera(parts, rate_hz=200, loop=True, deadline_ms=20_000)
    recipes = {"r": {"top": {"bundle": str(bundle_path), "pictures": "none"}}}
    keys = {"recipes": recipes, "queue_size": 1000}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, **keys)
    with (
        running.running(station, program=SMALL_BUFFERS) as daemon,
        stalled_subscriber(daemon.verdicts) as stalled,
        heard(daemon, commands=daemon.commands) as collect,
    ):
        for count in range(100, 1100, 100):
            found = verdicts(collect(lambda items, n=count: len(verdicts(items)) >= n))
            with Subscriber(daemon.verdicts) as passing:
                passing.receive(20)
        # What it missed shows that it was slower than all there is to hold it.
        seen: list[int] = []
        while not seen or seen[-1] - seen[0] < len(seen):
            assert stalled.poll(10_000) and len(seen) < len(found), "it missed nothing"
            message = decode(stalled.recv_multipart())
            assert isinstance(message, VerdictMessage)
            seen.append(message.seq)
        start, count = (found[0].epoch, 0), len(found)
        with heard(daemon, commands=daemon.commands, after=start) as again:
            late = verdicts(again(lambda items: len(verdicts(items)) >= count))
        found = verdicts(collect(lambda items: verdicts(items)[-1].seq >= late[-1].seq))
    first = found[0].seq
    assert [v.seq for v in found] == list(range(first, first + len(found)))
    assert [v.seq for v in late] == list(range(1, len(late) + 1))
    assert {v.reason for v in found} == {""}


@pytest.mark.long
def test_16_black_frame_is_scaled_as_a_bright_one(tmp_path):
    """Never to the frame's own range: that makes noise of black, and grey of white."""
    bundle = tiny.write_bundle(
        tmp_path / "lit.onnx", exposure={"brightness": (100, 150), "sharpness": (0, 1e9)}
    )
    levels = (0, 20, 90, 128, 200, 249)
    folder = tmp_path / "parts"
    folder.mkdir()
    for level in levels:
        eight = np.full((64, 64), level, np.uint8)
        # Some light in a corner, so that the black one has a range to be stretched over.
        eight[:6, :6] = level + 5
        for name, picture in (("8", eight), ("16", eight.astype(np.uint16) * 257 + 100)):
            (folder / f"{level:03}-{name}.png").write_bytes(encode_png(picture))
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(folder))
    found = {
        v.part_id.removesuffix(".png"): (v.verdict.value, v.score, v.reason)
        for v in running.judge_all(station).verdicts
    }
    for level in levels:
        assert found[f"{level:03}-8"] == found[f"{level:03}-16"], level
    assert found["000-16"] == ("FAULT", None, "too_dark")
    assert found["128-16"] == ("PASS", pytest.approx(5 / 64), "")
    assert found["020-16"] == ("FAIL", pytest.approx(108 / 64), "anomaly")
    assert found["200-16"] == ("FAIL", pytest.approx(77 / 64), "anomaly")


def test_17_nan_is_never_a_pass(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "nan", tiny.nan_picture(), tiny.good_picture())
    heard = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle_path, running.folder_camera(parts))
    )
    assert [(v.verdict.value, v.reason, v.score) for v in heard.verdicts] == [
        ("FAULT", "not_finite", None),
        ("PASS", "", 0.0),
    ]
    assert [heatmap.message.seq for heatmap in heard.heatmaps] == [2]


def on_white(good: bool) -> np.ndarray:
    """A part of 256 px, with its defect, if any, in the lower half; speckled as by a sensor."""
    picture = tiny.good_picture(256)
    if not good:
        picture[160:230, 60:200] = 255
    return videos.speckled(picture)


def has_reason(items: list[Any], reason: str) -> bool:
    return reason in {verdict.reason for verdict in verdicts(items)}


def write_streaming(folder: Path, bundle: Path, server: videos.StreamServer) -> Path:
    camera = {
        "kind": "opencv",
        "name": "top",
        "source": server.url,
        "timeout_ms": 2000,
        "deadline_ms": 10_000,
    }
    recipes = {"r": {"top": {"bundle": str(bundle), "check_pictures": False}}}
    return running.write_station(folder / "s.yaml", bundle, camera, recipes=recipes)


def test_18_a_frame_that_lost_its_tail_is_a_fault(tmp_path, bundle_path):
    """The part before would show in the lower half, where this one has its defect."""
    good, bad = (videos.encode(on_white(whole)) for whole in (True, False))
    with videos.StreamServer(lambda _: good) as server:
        station = write_streaming(tmp_path, bundle_path, server)
        with running.running(station) as daemon, heard(daemon) as collect:
            for jpeg, reason in ((good, ""), (videos.cut(bad), "frame_unreadable")):
                server.jpeg = lambda _, jpeg=jpeg: jpeg
                collect(lambda items, reason=reason: has_reason(items, reason))
            server.jpeg = lambda _: bad
            found = verdicts(collect(lambda items: has_reason(items, "anomaly")))
    said = [reason for reason, _ in itertools.groupby(v.reason for v in found)]
    assert said == ["", "frame_unreadable", "anomaly"]


def test_18_a_damaged_frame_of_a_video_costs_its_own_part_only(tmp_path, bundle_path):
    pictures = [on_white(good) for good in (True, False, True, False, True)]
    path = videos.write_avi(tmp_path / "line.avi", pictures)
    videos.cut_frames(path, {1: 0.4, 4: 0.9})
    camera = {"kind": "opencv", "name": "top", "source": str(path), "deadline_ms": 10_000}
    found = running.judge_all(
        running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    ).verdicts
    assert [(v.part_id, v.reason) for v in found] == [
        ("frame-000000", ""),
        ("frame-000001", "frame_unreadable"),
        ("frame-000002", ""),
        ("frame-000003", "anomaly"),
        ("frame-000004", "frame_unreadable"),
    ]


@pytest.mark.long
def test_19_a_stream_that_changes_its_resolution_is_a_fault(tmp_path, bundle_path):
    large, small = (videos.encode(on_white(True)[:side, :side]) for side in (256, 128))
    with videos.StreamServer(lambda _: large) as server:
        station = write_streaming(tmp_path, bundle_path, server)
        with running.running(station) as daemon, heard(daemon) as collect:
            collect(lambda items: has_reason(items, ""))
            server.jpeg = lambda _: small
            collect(lambda items: has_reason(items, "frame_shape"))
            # Nor is the new size right because the connection is new.
            server.hang_up()
            so_far = len(verdicts(collect(lambda items: has_reason(items, LOST))))
            found = verdicts(collect(lambda items: len(verdicts(items)) >= so_far + 5))
    said = [reason for reason, _ in itertools.groupby(v.reason for v in found)]
    assert said == ["", "frame_shape", LOST, "frame_shape"]
    assert "128x128 px, but the first one was 256x256" in found[-1].detail


def test_24_plc_that_counts_from_1_again_gets_no_old_pass(tmp_path, bundle_path):
    """Neither at once nor after a restart of the station, whether or not it changed its session."""
    station = write(tmp_path, bundle_path)
    with running.running(station) as daemon, ready(daemon):
        with Commander(daemon.commands, session="plc") as plc:
            before = plc.trigger("top", 1)
        with Commander(daemon.commands, session="plc") as plc:
            at_once = plc.trigger("top", 1)
        daemon.child.kill()
    with running.running(station) as daemon, ready(daemon):
        with Commander(daemon.commands, session="plc") as plc:
            after = plc.trigger("top", 1)
        with Commander(daemon.commands, session="plc, second run") as plc:
            fresh = plc.trigger("top", 1)
            again = plc.trigger("top", 1, repeat=True)
    assert before.verdict is Verdict.PASS
    conflict = Verdict.FAULT, "trigger_conflict"
    assert (at_once.verdict, at_once.reason) == (after.verdict, after.reason) == conflict
    assert (fresh.verdict, fresh.reason, fresh.repeated) == (Verdict.PASS, "", False)
    assert fresh.epoch != before.epoch
    assert again == fresh.told_again()
    assert len({(v.epoch, v.seq) for v in (before, at_once, after, fresh)}) == 4


def test_25_changeover_is_not_forgotten_at_a_crash(tmp_path, bundle_path):
    path = station_file(tmp_path, bundle_path)
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        status = plc.status()
        assert (status.recipe, status.recipe_from) == ("a", "file")
        plc.recipe("b")
        assert plc.status().recipe_from == "command"
        # Answered, so it is on the disk, although no part was judged.
        daemon.child.send_signal(signal.SIGKILL)
        daemon.child.wait(running.START_S)
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"WARNING recipe name=b source=journal file=a ")
        daemon.wait_for_log(r"state=Ready")
        found = plc.trigger("top", 1)
        assert (found.recipe, found.limit_factor, found.verdict) == ("b", 2.0, Verdict.PASS)
        status = plc.status()
        assert (status.recipe, status.recipe_from, status.trouble) == ("b", "journal", "")
        code, out, _ = running.inside("status", daemon.commands)
        assert code == 0
        assert "b (in force since before this start)" in out
        daemon.child.send_signal(signal.SIGKILL)
        daemon.child.wait(running.START_S)
