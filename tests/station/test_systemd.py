from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.station.systemd import Notifier


class Systemd:
    """The supervisor's end: a UNIX datagram socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(1.0)
        self.address = address

    def heard(self) -> str:
        return self.socket.recv(4096).decode()

    def all_heard(self) -> list[str]:
        said = []
        self.socket.setblocking(False)
        try:
            while True:
                said.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return said
        finally:
            self.socket.settimeout(1.0)

    def environment(self, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, **more}


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path = str(tmp_path / "notify")
    supervisor = Systemd(path if request.param == "path" else f"@inspector-test-{os.getpid()}")
    yield supervisor
    supervisor.socket.close()


class Clock:
    def __init__(self) -> None:
        self.ns = 7_000_000_000

    def __call__(self) -> int:
        return self.ns


def test_systemd_hears_each_step_of_a_stations_life(systemd):
    notifier = Notifier(systemd.environment(), Clock())
    notifier.ready("Ready, 2 cameras")
    assert systemd.heard() == "READY=1\nSTATUS=Ready, 2 cameras"
    notifier.reloading()
    assert systemd.heard() == "RELOADING=1\nMONOTONIC_USEC=7000000"
    notifier.ready()
    assert systemd.heard() == "READY=1"
    notifier.stopping("stopping")
    assert systemd.heard() == "STOPPING=1\nSTATUS=stopping"
    notifier.close()
    notifier.close()
    notifier.ready()
    assert systemd.all_heard() == []


def test_status_is_one_short_line_and_sent_when_it_changes(systemd):
    notifier = Notifier(systemd.environment())
    notifier.status("camera top lost:\nno frame\x00for 500 ms\nREADY=1")
    assert systemd.heard() == "STATUS=camera top lost: no frame for 500 ms READY=1"
    notifier.status("a")
    notifier.status("a")
    notifier.status("b" * 10_000)
    assert [len(text) for text in systemd.all_heard()] == [len("STATUS=a"), len("STATUS=") + 500]
    notifier.status(os.fsdecode(b"m\xff.png"))
    assert systemd.heard() == "STATUS=m .png"
    notifier.close()


def test_watchdog_is_pinged_three_times_a_timeout(systemd):
    clock = Clock()
    environment = systemd.environment(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
    notifier = Notifier(environment, clock)
    assert notifier.watchdog_s == 3.0
    for _ in range(300):
        notifier.ping()
        clock.ns += 10_000_000
    assert systemd.all_heard() == ["WATCHDOG=1"] * 3
    # Nothing comes on its own: a loop that hangs is silent.
    clock.ns += 60_000_000_000
    assert systemd.all_heard() == []
    notifier.close()


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_no_pings(systemd, watchdog):
    notifier = Notifier(systemd.environment(**watchdog))
    assert notifier.watchdog_s is None
    notifier.ping()
    assert systemd.all_heard() == []
    notifier.close()


def test_children_cannot_speak_for_the_station(systemd):
    environment = systemd.environment(WATCHDOG_USEC="1000000", WATCHDOG_PID="", HOME="/root")
    Notifier(environment).close()
    assert environment == {"HOME": "/root"}


def test_without_systemd_nothing_happens():
    notifier = Notifier({"WATCHDOG_USEC": "1000000"})
    assert notifier.watchdog_s is None
    notifier.ready("x")
    notifier.ping()
    notifier.close()


def test_address_that_is_no_unix_socket_is_logged(caplog):
    Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).close()
    assert "NOTIFY_SOCKET vsock:2:1234 is no UNIX socket" in caplog.text


def test_supervisor_that_has_gone_is_logged_once_and_stops_nothing(tmp_path, caplog):
    systemd = Systemd(str(tmp_path / "notify"))
    notifier = Notifier(systemd.environment(WATCHDOG_USEC="1000000"))
    notifier.ready()
    systemd.socket.close()
    for _ in range(5):
        notifier.ping()
        notifier.status("still here")
    assert caplog.text.count("systemd does not take it") == 1
    notifier.close()


def test_supervisor_that_does_not_read_never_holds_a_ping_up(tmp_path):
    systemd = Systemd(str(tmp_path / "notify"))
    clock = Clock()
    notifier = Notifier(systemd.environment(WATCHDOG_USEC="1000000"), clock)
    pings = 0
    while pings < 5000:
        clock.ns += 1_000_000_000
        notifier.ping()
        pings += 1
    taken = systemd.all_heard()
    assert 0 < len(taken) < pings
    # What was not taken is tried again at once, not a third of the timeout later.
    notifier.ping()
    assert systemd.heard() == "WATCHDOG=1"
    notifier.close()
    systemd.socket.close()
