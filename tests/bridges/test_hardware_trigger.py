"""A camera on a trigger line: the PLC counts the edges, the camera its pictures."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.bridges.codes import REASON_CODES, ErrorCode
from inspector.bridges.registers import ByteOrders
from inspector.bridges.simulated_plc import read_values
from inspector.client import Subscriber
from inspector.config.bridge_file import load_bridge
from inspector.errors import ConfigError, Problems
from inspector.wire.messages import CameraStatus, VerdictMessage
from tests.bridges.brokers import wait_for
from tests.bridges.lines import Line
from tests.bridges.serving import BLOCK, PLC, Wire, bridge, config
from tests.running import inside
from tests.stations import Station, verdict

_REASONS = {code: reason for reason, code in REASON_CODES.items()}
PASS, FAIL, FAULT = 1, 2, 3


class EdgePlc:
    """A PLC that counts the edges of its trigger line, and tells the part of each."""

    def __init__(self, wire: Wire, recipe: int = 0) -> None:
        self._wire = wire
        self.count = 0
        self.resets = 0
        self._taken = 0
        wire.write(PLC, *[0] * 75)
        wire.write(PLC, 7)
        wire.write(PLC + 2, recipe)
        assert self.read["SessionEcho"] == 7

    @property
    def read(self) -> dict[str, int | float]:
        return read_values(self._wire.read(BLOCK, 70), ByteOrders())

    def bit(self, number: int) -> bool:
        return bool(int(self.read["StatusWord"]) >> number & 1)

    @property
    def agrees(self) -> bool:
        return self.bit(9)

    def reset(self) -> bool:
        """Count anew, on an empty line; True when the bridge echoes it."""
        self.resets += 1
        self.count = 0
        self._wire.write(PLC + 74, 0)
        self._wire.write(PLC + 6, self.resets)
        return self.read["ResetCountEcho"] == self.resets

    def edge(self, part_id: str) -> None:
        """A part passes: its number and its name in one write."""
        self.count = self.count % 65_535 + 1
        letters = ByteOrders().letters(part_id)
        told = [len(part_id), 0, 0, *letters, *[0] * 32, self.count]
        self._wire.write(PLC + 7, *told)

    def take(self) -> tuple[int, int, int, str]:
        """Acknowledge the next result: TriggerSeq, PartCount, verdict, reason."""
        found = wait_for(self._shown, 5)
        self._taken = int(found["ResultSeq"])
        self._wire.write(PLC + 3, self._taken)
        return (
            int(found["ResultTriggerSeq"]),
            int(found["PartCount"]),
            int(found["Verdict"]),
            _REASONS.get(int(found["Reason"]), ""),
        )

    def _shown(self) -> dict[str, int | float] | None:
        read = self.read
        is_new = int(read["StatusWord"]) >> 3 & 1 and read["ResultSeq"] != self._taken
        return read if is_new else None


class Camera:
    """A station whose camera gives a picture for each edge; real sockets, real journal."""

    def __init__(self, folder: Path) -> None:
        self.station = Station(folder)
        self.frames = 0
        self._tell()

    def picture(self, outcome: str = "PASS", *, sent: bool = True, **changes: Any) -> None:
        self.frames += 1
        recorded = self.station.recorded
        told: dict[str, Any] = {"frame": self.frames, "part_id": "", "verdict": outcome}
        told["grabbed_us"] = time.time_ns() // 1000
        if outcome == "FAULT":
            told |= {"score": None, "reason": "not_ready"}
        (message,) = [verdict(recorded.last_seq + 1, recorded.epoch, **(told | changes))]
        recorded.commit([message])
        self._tell()
        if sent:
            self.station.publisher.send_verdict(message)

    def start_again(self) -> None:
        self.station.go_down()
        self.frames = 0
        self._tell()
        self.station.come_up()

    def _tell(self) -> None:
        told = CameraStatus(name="top", state="running", detail="", frames=self.frames)
        self.station.recorded.cameras = (told,)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Camera]:
    made = Camera(tmp_path / "journal")
    with made.station:
        yield made


@contextlib.contextmanager
def counting(camera: Camera, **changes: Any) -> Iterator[EdgePlc]:
    """A PLC that has counted nothing yet, and a bridge that sees the station."""
    station = camera.station
    addresses = {"commands": station.commands, "verdicts": station.verdicts}
    # Wide, so that a busy machine makes no difference; a test of the window has another one.
    changes = {"hardware_window_ms": 2000} | changes
    made = config(station=addresses, hardware_trigger=["top"], **changes)
    with bridge(made) as port, Wire(port) as wire:
        plc = EdgePlc(wire)
        station.wait()
        wait_for(lambda: plc.read["State"])
        # As a station does once a second.
        station.say_status()
        time.sleep(0.1)
        yield plc


def test_every_part_gets_its_own_verdict_whichever_is_counted_first(camera):
    camera.picture()
    with counting(camera) as plc:
        assert not plc.agrees and not plc.bit(0)
        assert plc.reset() and plc.agrees and plc.bit(0)
        for number, outcome in enumerate(("PASS", "FAIL", "FAULT", "PASS"), 1):
            if number % 2:
                plc.edge(f"part-{number}")
                camera.picture(outcome)
            else:
                camera.picture(outcome)
                time.sleep(0.02)
                plc.edge(f"part-{number}")
            code = {"PASS": PASS, "FAIL": FAIL, "FAULT": FAULT}[outcome]
            reason = "not_ready" if outcome == "FAULT" else ""
            assert plc.take() == (number, number, code, reason)
        assert plc.agrees


def doubled_edge(camera: Camera, plc: EdgePlc) -> None:
    """A contact bounces: the camera takes two pictures of one part."""
    plc.edge("a")
    camera.picture()
    camera.picture()


def lost_edge(_: Camera, plc: EdgePlc) -> None:
    """The camera misses an edge."""
    plc.edge("a")


def lost_edge_on_a_line_that_never_rests(camera: Camera, plc: EdgePlc) -> None:
    """The next picture comes before anybody could say that one is missing."""
    plc.edge("a")
    time.sleep(0.3)
    plc.edge("b")
    camera.picture()


def lost_picture(camera: Camera, plc: EdgePlc) -> None:
    """The camera takes a picture, and the station never gets to judge it."""
    plc.edge("a")
    camera.frames += 1
    plc.edge("b")
    camera.picture()


def skipped_count(camera: Camera, plc: EdgePlc) -> None:
    """The PLC missed a scan, and counts two parts at once."""
    plc.count += 1
    plc.edge("b")
    camera.picture()


def lost_camera(camera: Camera, plc: EdgePlc) -> None:
    plc.edge("a")
    lost = {"frame": None, "grabbed_us": None, "reason": "camera_lost"}
    camera.picture("FAULT", **lost)
    camera.frames -= 1


def restarted_station(camera: Camera, plc: EdgePlc) -> None:
    plc.edge("a")
    camera.start_again()


@pytest.mark.parametrize(
    "fault",
    [
        doubled_edge,
        lost_edge,
        lost_edge_on_a_line_that_never_rests,
        lost_picture,
        skipped_count,
        lost_camera,
        restarted_station,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_difference_lets_nothing_pass_until_the_line_was_emptied(camera, fault):
    is_about_time = fault is lost_edge_on_a_line_that_never_rests
    window_ms = 150 if is_about_time else 2000
    with counting(camera, result_timeout_ms=600, hardware_window_ms=window_ms) as plc:
        assert plc.reset()
        fault(camera, plc)
        wait_for(lambda: not plc.agrees, 5)
        wait_for(lambda: plc.read["State"])
        assert not plc.bit(0) and plc.read["ErrorCode"] == ErrorCode.COUNT_MISMATCH
        with contextlib.suppress(AssertionError):
            while plc.bit(3):
                # The part whose picture was there before the difference may still have its own.
                number, _, code, _ = plc.take()
                assert code == FAULT or (fault is doubled_edge and number == 1)
        for _ in range(3):
            plc.edge("x")
            camera.picture()
            assert plc.take()[2:] == (FAULT, "count_mismatch")
        # What was missed meanwhile comes from the journal, before the line goes on.
        camera.station.wait()
        camera.station.say_status()
        time.sleep(0.5)
        wait_for(plc.reset, 5)
        assert plc.agrees and plc.read["ErrorCode"] == 0
        plc.edge("y")
        camera.picture()
        assert plc.take() == (1, 1, PASS, "")


def test_a_reset_is_for_an_empty_line(camera):
    with counting(camera, result_timeout_ms=5000) as plc:
        assert plc.reset()
        plc.edge("a")
        assert not plc.reset()
        assert plc.read["ErrorCode"] == ErrorCode.RESET_NOT_EMPTY
        camera.picture()
        assert plc.take()[1:] == (1, PASS, "")
        # It counts as soon as the line is empty.
        wait_for(lambda: plc.read["ResetCountEcho"] == plc.resets, 5)


def test_a_picture_whose_verdict_came_from_the_journal_lets_nothing_pass(camera):
    with counting(camera) as plc:
        assert plc.reset()
        plc.edge("a")
        camera.picture(sent=False)
        camera.station.say_status()
        assert plc.take() == (1, 1, FAULT, "record_only")
        assert plc.agrees
        plc.edge("b")
        camera.picture()
        assert plc.take() == (2, 2, PASS, "")


def test_the_key_names_cameras_and_the_map_names_the_registers(tmp_path):
    path = tmp_path / "bridge.yaml"
    path.write_text("bridge: modbus\ncameras: [top]\nhardware_trigger: [side]\n")
    with pytest.raises((ConfigError, Problems), match="'side' is none of cameras"):
        load_bridge(path)
    path.write_text("bridge: modbus\ncameras: [top, side]\nhardware_trigger: [side]\n")
    assert load_bridge(path).hardware_trigger == ("side",)
    code, out, _ = inside("bridge", "modbus", path, "--map")
    assert code == 0
    for name in ("PartCount", "ResetCount", "ResetCountEcho", "CountAgrees"):
        assert f"| {name} |" in out


@pytest.fixture
def line(tmp_path: Path, bundle_path: Path) -> Iterator[Line]:
    """A real station whose camera runs by itself, good and bad parts in turn."""
    with contextlib.ExitStack() as stack:
        yield Line(tmp_path, bundle_path, stack, rate_hz=0.3, timeout_ms=10_000)


@pytest.mark.long
def test_a_real_station_a_real_bridge_and_a_camera_that_counts(line):
    station = line.start_station()
    station.wait_for_log(r"state=Ready")
    addresses = {"commands": line.relay.address, "verdicts": line.verdicts}
    line.start_bridge(
        hardware_trigger=["top"], station=addresses, plc_heartbeat_s=0, hardware_window_ms=1600
    )
    _, out, err = inside("check", line.bridge_file)
    assert "takes no triggers" not in out + err and "verdicts come from" in out, out + err
    # What the trigger line would tell: it learns of a picture as soon as that is judged.
    with Subscriber(line.verdicts) as eye, Wire(line.port) as wire:
        plc = EdgePlc(wire, recipe=1)
        wait_for(lambda: plc.read["ActiveRecipe"] == 1)
        wait_for(lambda: plc.read["State"])

        def next_edge() -> VerdictMessage:
            while not isinstance(item := eye.receive(5000), VerdictMessage):
                assert item is not None
            return item

        # Verdicts of before, which a subscriber hears first, tell of no part at the sensor.
        while next_edge().judged_us < time.time_ns() / 1000 - 200_000:
            pass
        time.sleep(0.1)
        assert plc.reset()
        for number in range(1, 5):
            picture = next_edge()
            plc.edge(f"part-{number}")
            # The folder shows a good part first, and a bad one after it.
            code = PASS if picture.frame % 2 else FAIL
            assert plc.take() == (number, number, code, "" if code == PASS else "anomaly")
        # The contact of the PLC's counter bounces. The part after it gets nobody's verdict.
        plc.edge("nobody")
        next_edge()
        plc.edge("part-9")
        for _ in range(2):
            assert plc.take()[2:] == (FAULT, "count_mismatch")


@pytest.mark.long
def test_check_tells_a_camera_on_a_line_from_one_that_waits_for_commands(line, tmp_path):
    path = tmp_path / "commanded"
    path.mkdir()
    with contextlib.ExitStack() as stack:
        commanded = Line(path, tmp_path / "tiny.onnx", stack)
        commanded.start_station().wait_for_log(r"state=Ready")
        addresses = {"commands": commanded.commands, "verdicts": line.verdicts}
        commanded.start_bridge(hardware_trigger=["top"], station=addresses)
        _, out, err = inside("check", commanded.bridge_file)
    assert "'top' waits for commands; leave 'trigger' out" in out + err
    assert "nothing came in 3 s; look at station.verdicts" in out + err


@pytest.mark.long
def test_a_simulated_plc_counts_the_edges_of_a_trigger_line(line):
    line.start_station().wait_for_log(r"state=Ready")
    addresses = {"commands": line.relay.address, "verdicts": line.verdicts}
    line.start_bridge(hardware_trigger=["top"], station=addresses, hardware_window_ms=1600)
    # The bridge counts from a status, which may be a second older than a picture.
    time.sleep(1.5)
    code, out, err = inside("simulate-plc", "modbus", line.bridge_file, "--parts", "4")
    assert code == 0, out + err
    assert sorted(re.findall(r"part-0000\d +(\S+)", out)) == ["FAIL", "FAIL", "PASS", "PASS"], out
