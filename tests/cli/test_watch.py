"""``inspector watch`` and ``demo``: what a person sees of a running station."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
import zmq

from inspector.cli import demo_page
from inspector.errors import ConfigError
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.wire import messages as wire
from inspector.wire.publisher import Publisher
from tests import running, tiny
from tests.messages import heatmap, status, verdict


def test_watch_shows_and_saves(tmp_path, station):
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        found, out, err = running.inside(
            *("watch", daemon.verdicts, "--images", daemon.images),
            *("--count", "2", "--save", tmp_path / "seen"),
        )
        assert (found, err) == (0, "")
        assert daemon.child.wait(running.START_S) == 0
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


@pytest.mark.long
def test_watch_waits_for_pictures_that_come_late_and_says_which_never_come(tmp_path):
    """A station encodes pictures when it has time, and leaves some out when it has none."""
    grey = np.zeros((64, 64), np.uint8)
    picture = encode_jpeg(np.zeros((64, 64, 3), np.uint8))
    with contextlib.closing(Publisher("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")) as publisher:
        verdicts, images = publisher.addresses

        def publish() -> None:
            assert publisher.wait_for_subscriber(10)
            for seq in (1, 2, 3):
                publisher.send_verdict(verdict(seq))
            for seq in (1, 3):
                time.sleep(1.6)
                publisher.send_heatmap(heatmap(seq), encode_png(grey), picture)

        sender = threading.Thread(target=publish)
        sender.start()
        found, out, err = running.inside(
            *("watch", verdicts, "--images", images, "--count", "3", "--save", tmp_path / "seen")
        )
        sender.join()
    assert found == 0
    assert len([line for line in out.splitlines() if " PASS " in line]) == 3
    kept = sorted({path.name.split("_")[1] for path in (tmp_path / "seen").iterdir()})
    assert kept == ["000001", "000003"]
    assert "1 pictures did not come within 5 s" in err


@pytest.mark.long
def test_watch_saves_parts_without_an_id(tmp_path, bundle_path):
    plug = running.Plug()
    camera = {"name": "net", "kind": "opencv", "source": f"http://127.0.0.1:{plug.port}/"}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    try:
        with running.running(station, "--wait-for-subscriber", "10") as daemon:
            found, _, err = running.inside(
                *("watch", daemon.verdicts, "--images", daemon.images),
                *("--count", "1", "--save", tmp_path / "seen"),
            )
            daemon.child.terminate()
            assert daemon.child.wait(running.START_S) == 0, daemon.log
    finally:
        plug.pull()
    assert (found, err) == (0, "")
    assert list((tmp_path / "seen").glob("net_*_part_PASS_overlay.jpg"))


def demo_station(tmp_path: Path, bundle_path: Path) -> Path:
    camera = {"name": "belt", "kind": "simulator", "rate_hz": 20, "defect_rate": 0.5}
    return running.write_station(tmp_path / "demo.yaml", bundle_path, camera)


@pytest.mark.long
def test_demo_counts_every_part(tmp_path, bundle_path):
    save = tmp_path / "out"
    found, out, err = running.inside(
        "demo", demo_station(tmp_path, bundle_path), "--parts", "12", "--save", save
    )
    assert (found, err) == (0, "")
    assert "12 parts, 0 verdicts lost" in " ".join(out.split())
    assert out.count(" part-0000") == 12
    pages = re.findall(r"^the page (?:for a browser:|was at) (http://127.0.0.1:\d+/)", out, re.M)
    assert len(pages) == 2 and len(set(pages)) == 1, out
    assert out.startswith("the page for a browser: ")
    assert out.endswith("next: inspector collect 0 -o photos --pick\n")
    assert (save / "heatmaps.png").stat().st_size > 1000
    assert list(save.glob("*_overlay.jpg"))


@pytest.mark.long
def test_demo_goes_on_without_a_page(tmp_path, bundle_path, monkeypatch):
    def missing():
        raise ConfigError("console: needs starlette, which is not installed")

    monkeypatch.setattr("inspector.cli.console.require", missing)
    found, out, err = running.inside(
        "demo", demo_station(tmp_path, bundle_path), "--parts", "3", "--save", tmp_path / "out"
    )
    assert (found, err) == (0, "")
    assert out.startswith("no page: console: needs starlette")
    assert "3 parts, 0 verdicts lost" in " ".join(out.split())


def test_a_page_that_does_not_start_is_told(tmp_path):
    log, told = tmp_path / "log", []
    names = ("commands", "queries")
    sockets = "".join(f" {name} address=tcp://127.0.0.1:1\n" for name in names)
    log.write_text(f" listening verdicts=tcp://127.0.0.1:1 images=tcp://127.0.0.1:1\n{sockets}")
    with demo_page.page("no name at all", log, tmp_path, told.append) as address:
        assert address == ""
    assert len(told) == 1 and told[0].startswith("no page: "), told
    assert "stations" in told[0]


@pytest.mark.long
def test_demo_without_a_bundle_says_so(tmp_path):
    station = demo_station(tmp_path, tmp_path / "none.onnx")
    found, out, err = running.inside("demo", station, "--no-console")
    assert found == 11
    assert "page" not in out
    assert "none.onnx: no such bundle" in err
    assert "Traceback" not in err


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_demo_leaves_no_station_behind(tmp_path, bundle_path, number):
    station = demo_station(tmp_path, bundle_path)
    command = [sys.executable, "-u", "-m", "inspector", "demo", station]
    command += ["--save", tmp_path / "out"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as demo:
        for line in demo.stdout:
            if b"part-000003" in line:
                break
        children = psutil.Process(demo.pid).children()
        assert len(children) == 2, "a station and its page"
        demo.send_signal(number)
        out = demo.stdout.read().decode()
        assert demo.wait(running.START_S) == (0 if number == signal.SIGINT else -signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    if number == signal.SIGINT:
        assert "truth against verdict" in out
        assert " 0 verdicts lost" in " ".join(out.split())


def test_station_file_of_the_demo_round_trips(tmp_path, bundle_path):
    from inspector.config.station_file import load_station

    path = demo_station(tmp_path, bundle_path)
    station = load_station(path)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(station.model_dump(mode="json")), encoding="utf-8")
    assert load_station(again) == station


@pytest.mark.long
def test_watch_wonders_at_silence_but_not_after_a_station_that_has_ended():
    with contextlib.closing(Publisher("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")) as publisher:
        verdicts, _ = publisher.addresses

        def publish() -> None:
            assert publisher.wait_for_subscriber(10)
            publisher.send_status(status(0))
            time.sleep(4.0)
            publisher.send_status(status(0, "Halted"))
            time.sleep(4.0)
            publisher.send_verdict(verdict(1))

        sender = threading.Thread(target=publish)
        sender.start()
        code, out, err = running.inside("watch", "--address", verdicts, "--count", "1")
        sender.join()
    assert (code, "1: Halted; " in out) == (0, True)
    assert err.splitlines() == [
        f"inspector: nothing from {verdicts} for 3 s; is the station running?"
    ]


def test_watch_goes_on_after_a_message_that_is_none():
    body = wire.encode(verdict(2))
    strange = [
        [b"verdict/1/", b"{}"],
        [b"verdict/1/", body.replace(b'"schema":2', b'"schema":3')],
        [b"status/1/"],
    ]
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    try:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        command = [sys.executable, "-m", "inspector", "watch", f"tcp://127.0.0.1:{port}"]
        with subprocess.Popen(
            [*command, "--count", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watch:
            for _ in range(2):
                assert socket.poll(10_000)
                socket.recv()
            good = [[b"verdict/1/", wire.encode(verdict(seq))] for seq in (1, 3)]
            for frames in (good[0], *strange, good[1]):
                socket.send_multipart(frames)
            try:
                out, err = watch.communicate(timeout=20)
            finally:
                watch.kill()
    finally:
        socket.close(linger=0)
        context.term()
    assert watch.returncode == 0
    assert [word for line in out.splitlines() for word in line.split() if word in {"p1", "p3"}] == [
        "p1",
        "p3",
    ]
    # What it could not read is counted as lost, not forgotten.
    assert "LOST 1 verdicts, 2 to 2" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["inspector"] * 3
    assert "'schema'" in err.splitlines()[1]


INTERRUPTED = """
import os, signal, sys
from inspector.cli import main as cli, output
verdict = output.Lines.verdict
class Dropping:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
def interrupted(self, message, truth=""):
    verdict(self, message, truth)
    Dropping()
output.Lines.verdict = interrupted
sys.exit(cli.main(["watch", sys.argv[1]]))
"""


@pytest.mark.long
def test_ctrl_c_within_a_destructor_ends_watch(tmp_path, bundle_path):
    """Python drops a KeyboardInterrupt there, and watch would go on."""
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    camera = running.folder_camera(parts, rate_hz=2, loop=True)
    with running.running(running.write_station(tmp_path / "s.yaml", bundle_path, camera)) as daemon:
        command = [sys.executable, "-c", INTERRUPTED, daemon.verdicts]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 130, done.stderr
    assert done.stdout.count("PASS") == 1
