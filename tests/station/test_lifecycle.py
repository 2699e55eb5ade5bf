"""A real station under a supervisor: what systemd, Prometheus and monitoring see of its life."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspector.client import Commander
from inspector.wire.messages import StatusMessage
from tests import running, tiny

WATCHDOG_S = 1.2


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The supervisor's end of sd_notify(3)."""
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    supervisor.bind(str(tmp_path / "notify"))
    supervisor.settimeout(running.START_S)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    yield supervisor
    supervisor.close()


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path) -> Path:
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, rate_hz=20, loop=True)
    return running.write_station(
        tmp_path / "station.yaml", bundle_path, camera, metrics="127.0.0.1:0"
    )


def hear(systemd: socket.socket, wanted: str) -> list[str]:
    """What is said until a line ``wanted``, that one included."""
    heard: list[str] = []
    while wanted not in heard:
        heard += systemd.recv(4096).decode().splitlines()
    return heard


def test_a_station_from_ready_to_stopping(systemd, station):
    with running.running(station) as daemon:
        before = hear(systemd, "READY=1")
        assert "WATCHDOG=1" not in before[:-1]
        commands = daemon.wait_for_log(r" commands address=(\S+)\n")[1]
        metrics = daemon.wait_for_log(r" metrics address=(\S+)\n")[1]
        hear(systemd, "WATCHDOG=1")
        daemon.wait_for_log(r"state=(ContinuousExecution|Ready)")
        deadline = time.monotonic() + 10.0
        code, out, err = running.inside("status", commands)
        while "0 verdicts" in out and time.monotonic() < deadline:
            code, out, err = running.inside("status", commands)
        assert (code, err) == (0, ""), out
        assert out.startswith("OK line-1 ContinuousExecution, ")
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as reply:
            text = reply.read().decode()
        for line in text.splitlines():
            if line.startswith('inspector_verdicts_total{camera="top",reason="anomaly"'):
                assert float(line.split()[-1]) > 0
                break
        else:
            raise AssertionError(text)
        daemon.child.send_signal(signal.SIGTERM)
        hear(systemd, "STOPPING=1")
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    code, out, _ = running.inside("status", commands, "--timeout", "0.3")
    assert (code, out.split()[0]) == (2, "CRITICAL")


@pytest.mark.long
def test_a_station_that_is_stopped_in_its_tracks_no_longer_pings(systemd, station):
    with running.running(station) as daemon:
        hear(systemd, "READY=1")
        hear(systemd, "WATCHDOG=1")
        os.kill(daemon.child.pid, signal.SIGSTOP)
        systemd.settimeout(0.05)
        with pytest.raises(TimeoutError):
            while True:
                systemd.recv(4096)
        systemd.settimeout(WATCHDOG_S)
        with pytest.raises(TimeoutError):
            hear(systemd, "WATCHDOG=1")


def test_a_station_that_cannot_start_is_never_ready(systemd, station, bundle_path):
    bundle_path.write_bytes(bundle_path.read_bytes()[:-100])
    code, _, err = running.inspector("run", station)
    assert code == 11, err
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            assert "READY=1" not in systemd.recv(4096).decode()


NEARLY_FULL = """
import shutil, sys
from pathlib import Path
from inspector.cli.main import main
usage = shutil.disk_usage
def nearly_full(path):
    free = 20 * 2**20 if Path(sys.argv[1]).with_name("full").exists() else usage(path).free
    return usage(path)._replace(free=free)
shutil.disk_usage = nearly_full
sys.exit(main(["run", sys.argv[1]]))
"""


@pytest.mark.long
def test_a_disk_that_is_nearly_full_is_in_the_status_while_the_station_judges(station):
    """Neither the journal's reserve nor a picture fits; every verdict still does."""
    text = station.read_text(encoding="utf-8")
    station.write_text(text.replace("reserve_mb: 1", "reserve_mb: 30"), encoding="utf-8")
    full = station.with_name("full")
    full.touch()
    with running.running(station, program=NEARLY_FULL) as daemon, Commander(daemon.commands) as ask:
        status = _status_when(ask, lambda status: "picture" in status.storage)
        assert "the disk is nearly full" in status.storage
        assert status.state == "ContinuousExecution"
        assert status.trouble == ""
        code, out, _ = running.inside("status", daemon.commands)
        assert (code, out[:8]) == (1, "WARNING ")
        assert "the disk is nearly full" in out
        full.unlink()
        status = _status_when(ask, lambda status: not status.storage)
        assert status.passed + status.failed + status.faults == status.last_seq > 0


def _status_when(ask: Commander, holds: Callable[[StatusMessage], bool]) -> StatusMessage:
    deadline = time.monotonic() + 20.0
    while not holds(status := ask.status()):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return status
