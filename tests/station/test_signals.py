"""What comes from outside: SIGHUP, a closed terminal, a killed child, a deleted lock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from inspector.client.commander import Commander
from inspector.client.subscriber import Subscriber
from inspector.errors import CommandError
from inspector.journal.writer import Journal
from inspector.wire.messages import VerdictMessage
from tests import running, tiny
from tests.stations import free_ports


def fixed() -> dict[str, str]:
    return dict(zip(("verdicts", "images", "commands"), free_ports(3), strict=True))


@contextlib.contextmanager
def without_terminal(station: Path) -> Iterator[running.Running]:
    """``inspector run`` in a session of its own, as a supervisor starts it."""
    log = station.with_suffix(".log")
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "inspector", "run", station],
            stderr=errors,
            env=running.environment(),
            start_new_session=True,
        ) as child,
    ):
        try:
            yield running.Running(child, log)
        finally:
            child.kill()


@pytest.mark.long
def test_hang_up_without_a_terminal_reads_the_bundles_again(tmp_path, bundle_path, parts):
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with without_terminal(station) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log("state=Ready")
        assert plc.trigger("top", 1).model.version == "1"
        tiny.write_bundle(bundle_path, version="2")
        daemon.child.send_signal(signal.SIGHUP)
        number, deadline = 1, time.monotonic() + 10.0
        while plc.trigger("top", number := number + 1).model.version != "2":
            assert time.monotonic() < deadline, daemon.log
            time.sleep(0.1)
        # A bundle that is refused changes nothing, and ends nothing.
        bundle_path.write_bytes(b"no bundle")
        daemon.child.send_signal(signal.SIGHUP)
        daemon.wait_for_log("changeover refused")
        assert plc.trigger("top", number + 1).model.version == "2"
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log


ON_TERMINAL = """
import os, sys
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(terminal, fd)
os.execv(sys.executable, [sys.executable, "-m", "inspector", "run", sys.argv[2], *sys.argv[3:]])
"""


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--stop-on-stdin-eof",)])
def test_a_closed_terminal_stops_the_station_in_order(tmp_path, bundle_path, parts, options):
    sockets = fixed()
    camera = running.folder_camera(parts, rate_hz=20, loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, sockets=sockets)
    terminal, theirs = os.openpty()
    command = [sys.executable, "-c", ON_TERMINAL, os.ttyname(theirs), str(station), *options]
    with (
        Subscriber(sockets["verdicts"], sockets["images"]) as subscriber,
        subprocess.Popen(command, env=running.environment()) as child,
    ):
        try:
            os.close(theirs)
            list(running.until(subscriber, lambda item: isinstance(item, VerdictMessage)))
            os.close(terminal)
            heard = running.Heard(subscriber)
            assert child.wait(running.START_S) == 0
        finally:
            child.kill()
    assert heard.statuses[-1].state == "Halted"
    assert heard.statuses[-1].last_seq == max(one.seq for one in heard.verdicts)


@pytest.mark.parametrize("kind", [pytest.param("simulator", marks=pytest.mark.long), "folder"])
def test_a_killed_simulator_goes_on_where_it_was(tmp_path, bundle_path, kind):
    parts = running.write_parts(tmp_path / "many", *[tiny.good_picture()] * 40)
    camera = {"name": "top", "kind": "simulator", "rate_hz": 20, "parts": 40}
    if kind == "folder":
        camera = running.folder_camera(parts, rate_hz=20)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera)
    with (
        running.running(station, "--wait-for-subscriber", "10") as daemon,
        daemon.subscriber() as subscriber,
    ):
        begun = list(running.until(subscriber, lambda item: getattr(item, "seq", 0) == 5))
        (child,) = [
            one
            for one in psutil.Process(daemon.child.pid).children()
            if "inspector.cameras.isolated.child" in one.cmdline()
        ]
        child.kill()
        verdicts = begun + running.Heard(subscriber).verdicts
        assert daemon.child.wait(running.START_S) == 0, daemon.log
        assert "state=lost" in daemon.log
    lost = [one for one in verdicts if one.reason == "camera_lost"]
    seen = [one.part_id for one in verdicts if one.reason != "camera_lost"]
    assert len(lost) == 1
    assert seen == sorted(set(seen))
    assert len(seen) >= 39
    assert (seen[0], seen[-1]) == (
        ("part-000000", "part-000039") if kind == "simulator" else ("000.png", "039.png")
    )


@pytest.mark.long
def test_a_deleted_lock_lets_no_second_station_in(tmp_path, bundle_path, parts):
    folder = tmp_path / "journal"
    sockets = {name: f"ipc://{tmp_path}/{name}" for name in ("verdicts", "images", "commands")}
    camera = running.folder_camera(parts, trigger="software", loop=True)
    station = running.write_station(tmp_path / "s.yaml", bundle_path, camera, sockets=sockets)
    other = running.write_station(tmp_path / "other.yaml", bundle_path, camera)
    with running.running(station) as daemon:
        daemon.wait_for_log("state=Ready")
        (folder / "lock").unlink()
        code, _, err = running.inspector("run", other)
        assert (code, "another inspector keeps its journal there" in err) == (19, True), err
        for path in tmp_path.glob("*.lock"):
            path.unlink()
        code, _, err = running.inspector("run", station)
        assert (code, err.count("in use; is another inspector running?")) == (15, 2), err
        with Commander(sockets["commands"]) as plc:
            assert plc.trigger("top", 1).seq == 1
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    Journal(folder).close()
    with Commander(sockets["commands"], timeout_s=0.2) as plc, pytest.raises(CommandError):
        plc.status()
