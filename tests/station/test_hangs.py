"""A log that nobody reads, a screen that is stopped, a share that hangs: nothing waits for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from inspector.client.commander import Commander
from inspector.detection import bundle
from inspector.errors import BundleError, CommandError
from inspector.files import read_within
from inspector.journal.reader import Reader
from inspector.wire.messages import VerdictMessage, decode_verdict
from tests import hanging, running, tiny
from tests.parties import wait_until
from tests.stations import free_ports


def recorded(folder: Path) -> list[VerdictMessage]:
    with Reader(folder) as reader:
        return [decode_verdict(body) for body in reader.walk()]


def fixed() -> dict[str, str]:
    return dict(zip(("verdicts", "images", "commands"), free_ports(3), strict=True))


def answering(commands: str) -> Commander:
    """A commander of a station whose log nobody reads, once it is ready."""
    deadline = time.monotonic() + running.START_S
    while True:
        commander = Commander(commands, timeout_s=1.0)
        commander.__enter__()
        try:
            if commander.status().state == "Ready":
                return commander
        except CommandError:
            pass
        commander.close()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
def test_a_station_whose_log_nobody_reads_judges_on_and_obeys_sigterm(tmp_path, bundle_path, parts):
    sockets = fixed()
    metrics = free_ports(1)[0].removeprefix("tcp://")
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(
        tmp_path / "s.yaml", bundle_path, camera, sockets=sockets, metrics=metrics
    )
    with (
        hanging.unread_pipe() as (_, write_fd),
        subprocess.Popen(
            [sys.executable, "-m", "inspector", "run", station],
            stderr=write_fd,
            env=running.environment(),
        ) as child,
    ):
        try:
            with answering(sockets["commands"]) as plc:
                heard = [plc.trigger("top", number, f"p{number}") for number in range(1, 11)]
                with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as reply:
                    assert b"inspector_log_lines_dropped_total 0.0" in reply.read()
            child.terminate()
            assert child.wait(10) == 0
        finally:
            child.kill()
    assert [one.part_id for one in recorded(tmp_path / "journal")] == [one.part_id for one in heard]
    assert len(heard) == 10


@pytest.mark.long
def test_a_watch_whose_screen_is_stopped_counts_on_and_can_be_ended(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, rate_hz=50, loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with running.running(station) as daemon, hanging.unread_pipe() as (_, write_fd):
        command = [sys.executable, "-m", "inspector", "watch", daemon.verdicts]
        with (
            subprocess.Popen([*command, "--count", "20"], stdout=write_fd) as counting,
            subprocess.Popen(command, stdout=write_fd) as watching,
        ):
            try:
                assert counting.wait(20) == 0
                # ZeroMQ's threads tell that it listens: on a busy machine it may still be loading.
                assert wait_until(lambda: psutil.Process(watching.pid).num_threads() > 2, 20)
                watching.send_signal(signal.SIGINT)
                assert watching.wait(20) == 130
            finally:
                counting.kill()
                watching.kill()
        daemon.child.terminate()
        assert daemon.child.wait(10) == 0, daemon.log


@pytest.mark.long
def test_a_demo_whose_screen_is_stopped_obeys_sigterm(tmp_path, bundle_path):
    camera = {"name": "belt", "kind": "simulator", "rate_hz": 20}
    station = running.write_station(tmp_path / "demo.yaml", bundle_path, camera)
    command = [sys.executable, "-m", "inspector", "demo", station, "--no-console"]
    command += ["--save", tmp_path / "out"]
    environment = running.environment() | {"TMPDIR": str(tmp_path)}
    with (
        hanging.unread_pipe() as (_, write_fd),
        subprocess.Popen(command, stdout=write_fd, env=environment) as demo,
    ):
        try:
            deadline = time.monotonic() + running.START_S
            while not list((tmp_path / "out").glob("*.jpg")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            demo.terminate()
            assert demo.wait(15) == 0
        finally:
            demo.kill()


def blocked_station(folder: Path, other: Path, **keys: Any) -> tuple[Path, dict[str, str]]:
    """Two cameras that take a picture a minute after it was wanted, and two recipes."""
    parts = running.write_parts(folder / "parts", tiny.good_picture())
    steps = [{"do": "frames", "count": 1}, {"do": "block", "seconds": 60}]
    cameras = [
        {"name": name, "kind": "faulty", "path": str(parts), "steps": steps}
        | {"trigger": "software", "timeout_ms": 60_000, "deadline_ms": 60_000}
        for name in ("a", "b")
    ]
    sockets = fixed()
    mine = {camera["name"]: {"bundle": str(folder / "tiny.onnx")} for camera in cameras}
    theirs = {camera["name"]: {"bundle": str(other)} for camera in cameras}
    recipes = {"r": mine, "other": theirs}
    return (
        running.write_station(
            folder / "s.yaml",
            folder / "tiny.onnx",
            *cameras,
            sockets=sockets,
            recipes=recipes,
            **keys,
        ),
        sockets,
    )


class Asking(threading.Thread):
    """Asks a station something, and keeps the answer or the refusal."""

    def __init__(self, commands: str, name: str, *words: Any) -> None:
        super().__init__()
        self.answer: Any = None
        self._ask = commands, name, words
        self.start()

    def run(self) -> None:
        commands, name, words = self._ask
        with Commander(commands, timeout_s=30.0) as commander:
            try:
                self.answer = getattr(commander, name)(*words)
            except CommandError as error:
                self.answer = error


@pytest.mark.long
def test_a_share_that_hangs_in_a_changeover_delays_neither_verdict_nor_stop(tmp_path, bundle_path):
    other = tiny.write_bundle(tmp_path / "other.onnx", version="2")
    station, sockets = blocked_station(tmp_path, other)
    with hanging.hanging_file(other), running.running(station) as daemon:
        daemon.wait_for_log("state=Ready")
        changeover = Asking(sockets["commands"], "recipe", "other")
        daemon.wait_for_log("changeover recipe=other")
        triggers = [Asking(sockets["commands"], "trigger", name, 1, "p") for name in ("a", "b")]
        with Commander(sockets["commands"]) as desk:
            while desk.status().state != "SingleExecution":
                time.sleep(0.05)
            time.sleep(0.5)
        begun = time.monotonic()
        daemon.child.terminate()
        assert daemon.child.wait(8) == 0, daemon.log
        assert time.monotonic() - begun < 6.0
        for thread in (changeover, *triggers):
            thread.join()
    assert isinstance(changeover.answer, CommandError)
    assert changeover.answer.code == "stopping"
    assert [one.answer.verdict for one in triggers] == ["FAULT", "FAULT"]
    assert len(recorded(tmp_path / "journal")) == 2


def test_a_share_that_hangs_is_given_up_after_the_load_timeout(tmp_path, bundle_path, parts):
    other = tiny.write_bundle(tmp_path / "other.onnx", version="2")
    camera = running.folder_camera(parts, trigger="software", loop=True)
    recipes = {name: {"top": {"bundle": str(tmp_path / file)}} for name, file in NAMES}
    station = running.write_station(
        tmp_path / "s.yaml", bundle_path, camera, recipes=recipes, load_timeout_s=1
    )
    with running.running(station) as daemon, Commander(daemon.commands) as desk:
        daemon.wait_for_log("state=Ready")
        with hanging.hanging_file(other):
            begun = time.monotonic()
            with pytest.raises(CommandError, match=r"other\.onnx: .* no answer within 1 s"):
                desk.recipe("other")
            assert 0.9 < time.monotonic() - begun < 4.0
            assert desk.trigger("top", 1).model.version == "1"
        assert "other" in desk.recipe("other")
        assert desk.trigger("top", 2).model.version == "2"
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(other)
        with pytest.raises(CommandError, match=r"other\.onnx: .*is no file"):
            desk.reload()
        assert desk.trigger("top", 3).model.version == "2"
        daemon.child.terminate()
        assert daemon.child.wait(10) == 0, daemon.log


NAMES = (("r", "tiny.onnx"), ("other", "other.onnx"))


SLOW_SESSION = """
import sys, time
from inspector.cli import main as cli
from inspector.detection.engines import onnxruntime
load, calls = onnxruntime.OnnxRuntimeBackend.load, []
def slow(self, bundle):
    calls.append(bundle)
    if len(calls) == 2:
        print("builds a session", file=sys.stderr, flush=True)
        time.sleep(60)
    load(self, bundle)
onnxruntime.OnnxRuntimeBackend.load = slow
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""A library that takes a minute to build the session of a changeover, and cannot be interrupted."""


@pytest.mark.long
def test_a_session_that_is_still_built_does_not_hold_up_a_stop(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with running.running(station, program=SLOW_SESSION) as daemon:
        daemon.wait_for_log("state=Ready")
        reload = Asking(daemon.commands, "reload")
        daemon.wait_for_log("builds a session")
        daemon.child.terminate()
        assert daemon.child.wait(10) == 0, daemon.log
        assert "changeover left recipe=r" in daemon.log
        reload.join()
    assert reload.answer.code == "stopping"


def test_a_stop_while_a_share_hangs_at_the_start_is_a_stop_in_order(tmp_path, bundle_path, parts):
    station = running.write_station(tmp_path / "s.yaml", bundle_path, running.folder_camera(parts))
    with hanging.hanging_file(bundle_path), running.running(station) as daemon:
        daemon.wait_for_log(" journal ")
        time.sleep(0.3)
        daemon.child.terminate()
        assert daemon.child.wait(4) == 0, daemon.log
        assert "state=Halted" in daemon.log


@pytest.mark.parametrize("command", ["check", "judge", "run"])
def test_a_pipe_where_the_bundle_should_be_is_refused_at_once(station, bundle_path, parts, command):
    bundle_path.unlink()
    os.mkfifo(bundle_path)
    words = ["judge", bundle_path, parts] if command == "judge" else [command, station]
    begun = time.monotonic()
    ask = running.inspector if command == "run" else running.inside
    code, out, err = ask(*words)
    assert time.monotonic() - begun < 10.0
    assert code == 11, out + err
    assert "tiny.onnx: cannot be read: it is no file" in out + err


def test_a_file_that_hangs_is_given_up_and_its_reader_ended(bundle_path):
    with hanging.hanging_file(bundle_path):
        begun = time.monotonic()
        with pytest.raises(BundleError, match=r"tiny\.onnx: cannot be read: no answer within 0\.3"):
            bundle.read(bundle_path, read_file=lambda path: read_within(path, 0.3))
        with pytest.raises(InterruptedError):
            read_within(bundle_path, 30.0, lambda: time.monotonic() > begun + 0.6)
        assert time.monotonic() - begun < 3.0
    assert read_within(bundle_path) == bundle_path.read_bytes()


def test_read_within_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_within(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_within(tmp_path)
    with pytest.raises(OSError, match="no file"):
        read_within(Path("/dev/zero"))
    with pytest.raises(OSError, match="null"):
        read_within(Path("a\0b"))
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(OSError, match="large"):
        read_within(big)


def test_a_station_that_starts_says_so_and_other_commands_wait(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=5000)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with hanging.hanging_file(bundle_path), running.running(station) as daemon:
        code, out, _ = running.inside("status", daemon.commands)
        assert (code, "line-1 Preoperational, state Preoperational; it starts" in out) == (1, True)
        reload = Asking(daemon.commands, "reload")
        trigger = Asking(daemon.commands, "trigger", "top", 1)
        time.sleep(1.0)
        assert running.inside("status", daemon.commands)[0] == 1
        daemon.child.terminate()
        reload.join()
        trigger.join()
        assert daemon.child.wait(5) == 0, daemon.log
    assert (reload.answer.code, trigger.answer.code) == ("stopping", "stopping")
    with contextlib.ExitStack() as leave:
        with hanging.hanging_file(bundle_path):
            daemon = leave.enter_context(running.running(station))
            trigger = Asking(daemon.commands, "trigger", "top", 2)
            time.sleep(0.5)
        trigger.join()
    assert trigger.answer.trigger_seq == 2
