"""A station that starts, or is refused with what is wrong and an exit code."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pytest

from inspector.client.subscriber import Subscriber
from inspector.journal.schema import StopOrder
from inspector.journal.writer import Journal
from inspector.version import install_command
from inspector.wire.messages import StatusMessage, VerdictMessage
from inspector.wire.publisher import Publisher
from tests import running, tiny
from tests.paths import ROOT


def refused(station: Path, code: int, *words: str) -> list[str]:
    """``run`` and ``check`` end with ``code`` and lines, never a traceback."""
    for found, out, err in (running.inspector("run", station), running.inside("check", station)):
        assert found == code, out + err
        assert "Traceback" not in out + err
        for word in words:
            assert word in out + err
    return out.splitlines()


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


@pytest.mark.long
def test_camera_that_is_not_there(tmp_path, bundle_path):
    for camera in (
        running.folder_camera(tmp_path / "nowhere"),
        {"name": "top", "kind": "opencv", "source": 9},
        {"name": "top", "kind": "opencv", "source": str(tmp_path / "no.mp4")},
    ):
        refused(running.write_station(tmp_path / "s.yaml", bundle_path, camera), 14, "camera top: ")


@pytest.mark.long
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


@pytest.mark.long
def test_check_finds_a_bundle_for_another_picture(tmp_path, parts):
    wide = {"height": 64, "width": 64, "aspect": 2.0}
    bundle = tiny.write_bundle(tmp_path / "wide.onnx", geometry=wide)
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
    found, out, _ = running.inside("check", station)
    assert found == 11
    assert "next: " not in out
    assert "trained at 2.000; set 'region' in the recipe" in out
    heard = running.judge_all(station)
    assert [v.reason for v in heard.verdicts] == ["frame_shape"] * 2


def test_the_readmes_station_without_the_simulators_photos_names_init(
    tmp_path, bundle_path, monkeypatch
):
    """Somebody who took photos of good parts has no photos/test."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    config = tmp_path / "config"
    config.mkdir()
    shutil.copy(ROOT / "config" / "folder.yaml", config)
    shutil.copy(bundle_path, tmp_path / "part.onnx")
    cure = r"no such folder; .*inspector init station\.yaml --camera"
    for made in (None, "photos/test"):
        if made:
            (tmp_path / made).mkdir(parents=True)
            cure = r"holds no image .*inspector init station\.yaml --camera"
        code, out, _ = running.inside("check", config / "folder.yaml")
        assert code == 14
        assert re.search(cure, out), out


def test_moved_golden_image(tmp_path, parts):
    golden = tiny.manifest(tiny.model())["golden"]
    golden[0]["score"] = 0.5
    bundle = tiny.write_bundle(tmp_path / "moved.onnx", golden=golden)
    station = running.write_station(tmp_path / "s.yaml", bundle, running.folder_camera(parts))
    refused(station, 12, "known photo 'good' (golden image) scores 0.000000")


@pytest.mark.long
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_that_is_not_here(tmp_path, bundle_path, parts, provider, monkeypatch):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    camera = running.folder_camera(parts)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, provider=provider)
    refused(station, 13, f"provider: {provider}: ", install_command("cuda"))
    # What is advised depends on the folder that the program works in by now.
    monkeypatch.chdir(tmp_path)
    assert install_command("cuda") in running.inside("check", station)[1]


def test_wrong_station_file(station):
    text = station.read_text(encoding="utf-8")
    station.write_text(text.replace("threads: 1", "threads: one\nthreds: 2"), encoding="utf-8")
    lines = refused(station, 10, "threads: ", "threds: unknown key", "station.yaml:")
    assert len([line for line in lines if line.startswith("problem")]) == 2
    refused(station.with_name("none.yaml"), 10, "none.yaml: no such file")


@pytest.mark.long
def test_every_problem_is_reported_together(tmp_path, bundle_path):
    bundle_path.write_bytes(b"")
    camera = running.folder_camera(tmp_path / "nowhere")
    addresses = {"verdicts": "ipc:///nowhere/at/all", "images": "tcp://127.0.0.1:*"}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, sockets=addresses)
    lines = refused(station, 11)
    problems = [line.split()[1] for line in lines if line.startswith("problem")]
    assert problems == ["bundle", "camera", "ports"]
    found, _, err = running.inspector("run", station)
    assert found == 11
    assert [line.startswith("inspector: error: ") for line in err.splitlines()][-3:] == [True] * 3


def test_check_of_a_sound_station_is_all_ok(station):
    found, out, err = running.inside("check", station)
    assert (found, err) == (0, "")
    *tried, following = out.splitlines()
    assert {line.split()[0] for line in tried} == {"ok"}
    assert following == f"next: inspector run {station}"


def test_check_leaves_no_journal_and_says_what_was_probably_not_meant(tmp_path, bundle_path, parts):
    video = {"name": "net", "kind": "opencv", "source": "http://127.0.0.1:9/", "latency_ms": 1000}
    trigger = running.folder_camera(parts) | {"trigger": "software", "deadline_ms": 300}
    replay = {"name": "again", "kind": "simulator", "latency_ms": 1000}
    station = running.write_station(
        tmp_path / "s.yaml",
        bundle_path,
        trigger,
        video,
        replay,
        journal={
            "folder": str(tmp_path / "state" / "journal"),
            "verdict_days": 7,
            "reserve_mb": 1_000_000_000 // 1000,
        },
    )
    (parts / "IMG.heic").write_bytes(b"from a phone")
    before = sorted(tmp_path.rglob("*"))
    found, out, _ = running.inside("check", station)
    assert found == 14
    assert sorted(tmp_path.rglob("*")) == before
    notes = [line for line in out.splitlines() if line.startswith("note")]
    for words in (
        "net: latency_ms 1000 is no less than deadline_ms 1000: a picture may be older",
        "again: latency_ms 1000 is no less than deadline_ms 1000: it counts for nothing here",
        "stale_trigger_ms 500 is no less than deadline_ms 300",
        "journal.pictures_days 30 is more than journal.verdict_days 7",
        "since they are no photos: 1 .heic",
        "are less than journal.reserve_mb 1000000: no picture is kept",
    ):
        assert sum(words in line for line in notes) == 1, out
    assert f"{tmp_path}/state/journal: no journal yet, the station makes it; " in out


def test_check_tells_of_a_station_that_was_stopped(station):
    folder = station.parent / "journal"
    with contextlib.closing(Journal(folder)) as journal:
        journal.keep(StopOrder("line-1", 1, "desk"))
    found, out, _ = running.inside("check", station)
    assert found == 0
    (line,) = [line for line in out.splitlines() if "journal" in line.split()[:2]]
    assert "stopped by command" in line
    assert "'inspector start'" in line


@pytest.mark.long
def test_running_ipc_station_keeps_its_subscribers(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, rate_hz=10, loop=True)
    sockets = {name: f"ipc://{tmp_path}/{name}" for name in ("verdicts", "images")}
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, sockets=sockets)
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        with daemon.subscriber() as subscriber:
            list(running.until(subscriber, lambda i: getattr(i, "seq", 0) == 3))
            refused(station, 15, f"ipc://{tmp_path}/verdicts: in use")
            with Subscriber(**sockets) as newcomer:
                list(running.until(newcomer, lambda i: isinstance(i, VerdictMessage)))
            daemon.child.terminate()
            rest = [i for i in running.items(subscriber) if isinstance(i, VerdictMessage)]
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    assert [v.seq for v in rest] == list(range(4, len(rest) + 4))
    with running.running(station) as killed:
        killed.wait_for_log("state=running")
        killed.child.kill()
    found, out, _ = running.inside("check", station)
    assert (found, "are free" in out) == (0, True)


def test_status_shows_a_station_that_is_still_loading(tmp_path, bundle_path):
    plug = running.Plug(answers_after_s=1.0)
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
            assert daemon.child.wait(running.START_S) == 0, daemon.log
    finally:
        plug.pull()
    assert list(dict.fromkeys(states)) == [
        "Preoperational",
        "Initialized",
        "Ready",
        "ContinuousExecution",
    ]
