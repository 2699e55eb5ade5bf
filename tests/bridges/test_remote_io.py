"""The bridge to remote I/O, with a real station and module: what each failure does to a coil."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from inspector.journal.reader import Reader
from inspector.wire.messages import VerdictMessage
from tests import running, tiny
from tests.bridges.remote import PULSE_S, WATCHDOG_S, RemoteLine, until
from tests.stations import free_ports


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def passed_on(line: RemoteLine) -> float:
    """A part comes, and its PASS goes on; when it came to the sensor (monotonic, s).

    On a busy machine a reading may take longer than the tolerance, so that a part is dropped.
    """
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline, line.said()
        before, edge_s = len(line.on_times()), line.io.pass_part()
        while time.monotonic() < edge_s + 0.8:
            if len(line.on_times()) > before:
                return edge_s
            time.sleep(0.001)


@pytest.mark.long
def test_a_line_whose_bridge_and_cable_die_between_on_and_off(tmp_path, bundle_path, stack):
    line = RemoteLine(tmp_path, stack)
    line.start_station(bundle_path)
    bridge = line.start_bridge()
    line.until_healthy()

    # All is well: the PASS comes after the delay, and the bridge ends it in its time.
    edge_s = passed_on(line)
    until(lambda: not line.module.coils[0], line.said, 2)
    on_s, for_s = line.on_times()[-1]
    assert 0.3 <= on_s - edge_s < 0.3 + 2 * 0.06 + 0.2
    assert 0.5 * PULSE_S < for_s <= PULSE_S + WATCHDOG_S / 3

    # The bridge is killed while the coil is on.
    passed_on(line)
    bridge.kill()
    bridge.wait()
    assert line.module.coils[0]
    until(lambda: not line.module.coils[0], "", 2)
    assert line.on_times()[-1][1] <= PULSE_S + WATCHDOG_S
    waves = line.waves()
    time.sleep(0.5)
    assert line.waves() == waves and not any(line.module.coils)

    # Another one goes on with new parts; nothing of before comes to the coil.
    count = len(line.on_times())
    bridge = line.start_bridge()
    line.until_healthy()
    assert len(line.on_times()) == count

    # The cable is cut while the coil is on: the watchdog ends it, and no part passes meanwhile.
    passed_on(line)
    line.cable.cut()
    assert line.module.coils[0]
    until(lambda: not line.module.coils[0], "", 2)
    assert line.on_times()[-1][1] <= PULSE_S + WATCHDOG_S
    count = len(line.on_times())
    line.io.pass_part()
    time.sleep(0.6)
    assert len(line.on_times()) == count
    line.cable.mend()
    line.until_healthy()
    assert len(line.on_times()) == count, "a part that came behind a cut cable never passes"

    # Only the answers are lost: the coil is turned off by the first request that follows.
    passed_on(line)
    line.cable.carries_answers = False
    until(lambda: not line.module.coils[0], "", 2)
    assert line.on_times()[-1][1] <= PULSE_S + WATCHDOG_S
    line.cable.mend()
    line.until_healthy()

    # The bridge stands still while the coil is on, and goes on much later.
    passed_on(line)
    bridge.send_signal(signal.SIGSTOP)
    try:
        until(lambda: not line.module.coils[0], "", 2)
        assert line.on_times()[-1][1] <= PULSE_S + WATCHDOG_S
    finally:
        bridge.send_signal(signal.SIGCONT)
    line.until_healthy()

    # It is stopped while the coil is on, and turns it off itself.
    passed_on(line)
    bridge.send_signal(signal.SIGTERM)
    assert bridge.wait(running.START_S) == 0, line.said()
    assert not any(line.module.coils)
    assert not re.search("Traceback|crash", line.said())


@pytest.mark.long
def test_bad_parts_a_stopped_belt_and_a_dead_station_get_no_pass(tmp_path, bundle_path, stack):
    line = RemoteLine(tmp_path, stack)
    station = line.start_station(bundle_path, tiny.good_picture(), tiny.bad_picture())
    line.start_bridge()
    line.until_healthy()
    ends = list(line.io.run(6, 0.5))
    given = [part.output.upper() for part in ends if part.output in {"pass", "fail"}]
    assert {"PASS", "FAIL"} <= set(given), (ends, line.said())

    # What was written stands beside the verdicts in the journal.
    def told() -> list[str]:
        with Reader(tmp_path / "journal") as reader:
            ((epoch, last),) = reader.epochs()
            rows = map(VerdictMessage.model_validate_json, reader.verdicts(epoch, 1, None, 100))
            verdicts = {row.seq: row.verdict.value for row in rows}
            done = reader.delivered(epoch, 1, last)
        return [verdicts[one.seq] for one in done if one.outcome == "acknowledged"]

    until(lambda: [one for one in told() if one != "FAULT"] == given, lambda: (told(), ends))

    # The belt stops with a good part on its way.
    line.io.pass_part()
    line.module.run_belt(False)
    time.sleep(0.5)
    line.module.run_belt(True)
    time.sleep(0.3)
    assert len(line.on_times()) == given.count("PASS") and "no pass" in line.said()

    # The station dies: healthy stands still, and a part is a FAULT.
    station.child.kill()
    station.child.wait()
    until(lambda: "station gone" in line.said(), line.said)
    time.sleep(0.1)
    waves, faults = line.waves(), len(line.on_times("fault"))
    line.io.pass_part()
    until(lambda: len(line.on_times("fault")) > faults, line.said)
    assert line.waves() == waves and len(line.on_times()) == given.count("PASS")


LIES: dict[str, Callable[[bytes], bytes]] = {
    "another transaction": lambda data: b"\xff\xff" + data[2:],
    "an exception": lambda data: data[:4] + b"\0\3" + data[6:7] + bytes([data[7] | 128, 4]),
    "half": lambda data: data[: len(data) // 2],
}


@pytest.mark.long
def test_illegal_answers_pass_nothing(tmp_path, stack, station_once):
    """While answers are wrong no part passes, and with right ones the line goes on."""
    line = RemoteLine(tmp_path, stack, station_once)
    line.start_bridge()
    line.until_healthy()
    for name, lie in LIES.items():
        gone, seen = line.said().count("module gone"), len(line.on_times())
        line.cable.altered = lie
        until(lambda gone=gone: line.said().count("module gone") > gone, name)
        line.io.pass_part()
        time.sleep(0.5)
        assert len(line.on_times()) == seen and not line.module.coils[0], name
        line.cable.altered = lambda data: data
        line.until_healthy()
    passed_on(line)
    assert not re.search("Traceback|crash", line.said())


@pytest.fixture(scope="module")
def station_once(tmp_path_factory) -> Iterator[str]:
    """The command socket of a station that several tests use."""
    folder = tmp_path_factory.mktemp("station")
    parts = running.write_parts(folder / "parts", tiny.good_picture())
    file = running.write_station(
        folder / "station.yaml",
        tiny.write_bundle(folder / "tiny.onnx"),
        running.folder_camera(parts, trigger="software", loop=True),
    )
    with running.running(file) as station:
        # Its camera's process belongs to no single test.
        station.wait_for_log(r"state=Ready")
        yield station.wait_for_log(r" commands address=(\S+)\n")[1]


@pytest.mark.long
def test_a_slow_module_passes_nothing(tmp_path, stack, station_once):
    """Answers come late, but they come: then nobody knows where a part is."""
    line = RemoteLine(tmp_path, stack, station_once)
    line.start_bridge()
    line.until_healthy()
    line.cable.delay_s = 0.045  # There and back this is more than the tolerance.
    time.sleep(0.5)
    seen, waves = len(line.on_times()), line.waves()
    line.io.pass_part()
    time.sleep(1.0)
    assert len(line.on_times()) == seen and line.waves() <= waves + 1
    line.write_file(connect=f"127.0.0.1:{line.cable.port}", timeout_ms=3000)
    code, out, _ = running.inside("check", line.file)
    assert code == 10 and re.search(r"tolerance_ms: \S+ takes \d+\.\d ms for one reading", out), out
    line.cable.delay_s = 0.0
    line.until_healthy()
    passed_on(line)


@pytest.mark.long
def test_a_module_without_its_watchdog_is_refused(tmp_path, stack, station_once):
    line = RemoteLine(tmp_path, stack, station_once)
    line.module.is_guarded = False
    code, out, _ = running.inside("check", line.file)
    assert code == 10 and "register 4096 is 0, not 3" in out and "ok       module" in out
    bridge = line.start_bridge()
    until(lambda: "could stay on" in line.said(), line.said)
    line.io.pass_part()
    time.sleep(0.5)
    assert not line.module.changes and bridge.poll() is None

    line.module.is_guarded = True
    line.until_healthy()
    code, out, _ = running.inside("check", line.file)
    assert code == 0 and "turns a PASS off by itself" in out, out

    # Somebody turns it off while the line runs.
    seen = line.said().count("could stay on")
    line.module.is_guarded = False
    until(lambda: line.said().count("could stay on") > seen, line.said)
    time.sleep(0.3)
    waves = line.waves()
    line.io.pass_part()
    time.sleep(0.5)
    assert line.waves() == waves and not any(line.module.coils)


def test_the_modules_own_pulse_ends_a_pass_without_the_bridge(tmp_path, stack, station_once):
    pulse = {"time_ms": 150, "registers": {16: 150}}
    options = {"watchdog": None, "module_pulse": pulse, "delay_ms": None}
    line = RemoteLine(tmp_path, stack, station_once, **options)
    bridge = line.start_bridge()
    line.until_healthy()
    passed_on(line)
    bridge.kill()
    bridge.wait()
    until(lambda: not line.module.coils[0], "", 2)
    assert line.on_times()[-1][1] <= 0.15 + 0.1


@pytest.mark.long
def test_the_simulated_module_is_a_process_of_its_own(tmp_path, stack, station_once):
    """The command, and a bridge that finds it: parts by the encoder, and a module that hangs."""
    line = RemoteLine(
        tmp_path,
        stack,
        station_once,
        connect=f"127.0.0.1:{free_ports(1)[0].rpartition(':')[2]}",
        belt_input=None,
        encoder_register=0,
        delay_ms=None,
        delay_pulses=300,
        tolerance_pulses=60,
    )
    command = [sys.executable, "-m", "inspector", "simulate-plc", "remote-io", str(line.file)]
    module = subprocess.Popen(
        [*command, "--parts", "5", "--every", "0.6"],
        stdout=subprocess.PIPE,
        text=True,
        env=running.environment(),
    )
    try:
        line.start_bridge()
        until(lambda: "module there" in line.said(), line.said)
        # It stands still for a while, as a module does whose processor hangs.
        time.sleep(0.8)
        module.send_signal(signal.SIGSTOP)
        until(lambda: "no answer in" in line.said(), line.said)
        module.send_signal(signal.SIGCONT)
        out, _ = module.communicate(timeout=60)
    finally:
        module.kill()
        module.wait()
    assert module.returncode == 0
    assert re.findall(r"^part-0000\d +pass .* passed on$", out, re.M), f"{out}{line.said()}"
    assert len(re.findall(r"^part-0000\d ", out, re.M)) == 5
    assert line.said().count("module there") >= 2, f"{out}{line.said()}"


def test_an_end_that_is_due_comes_before_every_other_request(tmp_path, stack, station_once):
    """A module takes its time, so that a pulse ends amid the requests of one poll."""
    line = RemoteLine(
        tmp_path,
        stack,
        station_once,
        belt_input=40,
        delay_ms=None,
        tolerance_ms=400,
        pulse_ms=100,
        poll_ms=5,
    )
    asked: list[float] = []
    get = line.module.get

    def slowly(code: int, address: int, count: int) -> list[int] | list[bool] | None:
        asked.append(time.monotonic())
        found = get(code, address, count)
        time.sleep(0.02)
        return found

    line.module.get = slowly
    line.start_bridge()
    line.module.run_belt(True)
    line.until_healthy()
    for number in range(1, 6):
        edge_s = line.io.come()
        until(lambda: len(line.on_times()) == number and not line.module.coils[0], line.said)  # noqa: B023
        line.io.go(edge_s)
        began_s, on_s = line.on_times()[-1]
        due_s = began_s + 0.1
        # Between the end's moment and its writing nothing was asked.
        assert not [at_s for at_s in asked if due_s + 0.005 < at_s < began_s + on_s - 0.001]
