"""The commands of the bridge, as far as they need no PLC."""

from __future__ import annotations

import csv
import importlib.util
import io
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import running, tiny
from tests.paths import ROOT
from tests.stations import Recorded, accept_and_answer, free_ports, serving

EXAMPLE = ROOT / "config" / "bridge-modbus.yaml"


def write(path: Path, **changes: Any) -> Path:
    document: dict[str, Any] = {"bridge": "modbus", "cameras": ["top"]}
    path.write_text(yaml.safe_dump(document | changes), encoding="utf-8")
    return path


def test_the_map_is_that_of_the_file(tmp_path):
    path = write(tmp_path / "b.yaml", cameras=["top", "side"])
    code, out, err = running.inside("bridge", "modbus", path, "--map", "--csv")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {"block", "address", "name"} <= set(rows[0])
    (fires,) = [row for row in rows if (row["block"], row["name"]) == ("side", "TriggerSeq")]
    assert fires["address"] == "574" and fires["access"] == "write"
    code, out, _ = running.inside("bridge", "modbus", "--map")
    assert (
        code == 0
        and out
        == (ROOT / "docs/plc/register-map.md").read_text("utf-8").partition("### ")[1]
        + out.partition("### ")[2]
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cameras": []}, "cameras: is empty"),
        ({"cameras": ["top", "top"]}, "'top' stands twice"),
        ({"cameras": [f"c{n}" for n in range(17)]}, "at most 16"),
        ({"recipes": {0: "flange"}}, "recipes"),
        ({"recipes": {1: "flange", 2: "flange"}}, "'flange' stands twice"),
        ({"listen": "502"}, "must be HOST:PORT"),
        ({"listen": "a:99999"}, "must be HOST:PORT"),
        ({"writers": ["plc-1"]}, "IP address or network"),
        ({"writers": []}, "writers: is empty"),
        ({"heartbeat_s": 0}, "heartbeat_s"),
        ({"station": {"key": "a.secret"}}, "station.station_key: missing"),
        ({"station": {"commands": "127.0.0.1:5557"}}, "station.commands: must be tcp://HOST:PORT"),
        ({"word_order": "big"}, "word_order"),
        ({"bridge": "profinet"}, "bridge"),
        ({"camera": "top"}, "unknown key"),
    ],
)
def test_a_wrong_key_is_named_with_its_line(tmp_path, changes, said):
    path = write(tmp_path / "b.yaml", **changes)
    for command in (("bridge", "modbus", path), ("simulate-plc", "modbus", path)):
        code, out, err = running.inside(*command)
        assert (code, out) == (10, ""), command
        assert said in err and f"{path}:" in err and "Traceback" not in err
    code, out, _ = running.inside("check", path)
    assert code == 10 and out.startswith("problem  config") and said in out


def test_a_bridge_without_a_file_or_with_an_unknown_camera(tmp_path):
    assert running.inside("bridge", "modbus")[0] == 10
    code, _, err = running.inside("simulate-plc", "modbus", EXAMPLE, "--camera", "side")
    assert code == 10 and "there is no 'side'" in err
    code, _, err = running.inside("bridge", "modbus", tmp_path / "none.yaml")
    assert code == 10 and "inspector examples" in err


def test_keys_that_are_missing_are_one_line(tmp_path):
    keys = {"key": str(tmp_path / "no.secret"), "station_key": str(tmp_path / "no.public")}
    path = write(tmp_path / "b.yaml", station=keys)
    code, out, err = running.inside("bridge", "modbus", path)
    assert (code, out) == (17, "") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("fieldbus", "module", "keys"),
    [
        ("modbus", "pymodbus", {}),
        ("opcua", "asyncua", {}),
        ("mqtt", "aiomqtt", {"state": "state", "cameras": None}),
    ],
)
def test_without_its_package_a_bridge_says_how_to_get_it(
    monkeypatch, tmp_path, fieldbus, module, keys
):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == module else there(name, package),
    )
    document = {"bridge": fieldbus, "cameras": ["top"]} | keys
    path = tmp_path / "b.yaml"
    path.write_text(yaml.safe_dump({key: item for key, item in document.items() if item}))
    monkeypatch.chdir(ROOT)
    code, _, err = running.inside("bridge", fieldbus, path)
    assert code == 10 and f"run pip install --editable '.[{fieldbus}]'" in err


@pytest.mark.long
def test_check_tries_port_and_station(tmp_path):
    (address,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path = write(tmp_path / "b.yaml", listen=listen, station={"commands": address})
        code, out, _ = running.inside("check", path)
    assert code == 15 and "cannot be bound" in out and "no answer to status" in out


def test_check_of_a_camera_that_the_station_has_not(tmp_path):
    recorded = Recorded(tmp_path / "journal")
    try:
        with serving(recorded, accept_and_answer) as commands:
            station = {"commands": commands.address}
            path = write(tmp_path / "b.yaml", listen="127.0.0.1:0", station=station)
            code, out, _ = running.inside("check", path)
    finally:
        recorded.close()
    assert code == 10 and "the station has no 'top'" in out


def remote(**changes: Any) -> dict[str, Any]:
    """A remote I/O bridge's file; a key with the value None is left out."""
    made: dict[str, Any] = {
        "role": "remote_io",
        "connect": "127.0.0.1:1502",
        "camera": "top",
        "cameras": None,
        "trigger_input": 0,
        "pass_coil": 0,
        "watchdog": {"time_ms": 500, "registers": {4096: 5}},
    }
    return made | changes


def write_role(path: Path, **changes: Any) -> Path:
    made: dict[str, Any] = {"bridge": "modbus"} | changes
    kept = {key: value for key, value in made.items() if value is not None}
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"watchdog": None}, "watchdog: missing; a PASS coil would stay on"),
        ({"watchdog": {"time_ms": 14, "registers": {0: 1}}}, "watchdog.time_ms: must be at least"),
        ({"watchdog": {"time_ms": 500, "registers": {}}}, "watchdog.registers"),
        ({"watchdog": {"time_ms": 500, "registers": {70000: 1}}}, "watchdog.registers"),
        ({"fail_coil": 0}, "coil 0 is named twice"),
        ({"belt_input": 0}, "belt_input: is the input of the trigger"),
        ({"delay_ms": 400}, "belt_input: missing; a delay by time"),
        ({"delay_pulses": 400}, "encoder_register: missing"),
        ({"delay_ms": 4, "delay_pulses": 4, "encoder_register": 1}, "delay_pulses: stands beside"),
        ({"connect": "module"}, "must be HOST:PORT"),
        ({"connect": None}, "connect: missing"),
        ({"pass_coil": -1}, "pass_coil"),
        ({"pass_coils": 1}, "unknown key; did you mean 'pass_coil'"),
        ({"role": "remote"}, "role: must be 'server', 'client' or 'remote_io'"),
    ],
)
def test_a_wrong_key_of_remote_io_is_named_with_its_line(tmp_path, changes, said):
    path = write_role(tmp_path / "b.yaml", **remote(**changes))
    for command in (("bridge", "modbus", path), ("simulate-plc", "remote-io", path)):
        code, out, err = running.inside(*command)
        assert (code, out) == (10, ""), command
        assert said in err and f"{path}:" in err and "Traceback" not in err
    code, out, _ = running.inside("check", path)
    assert code == 10 and out.startswith("problem  config") and said in out


def test_each_role_has_its_own_commands(tmp_path):
    path = write_role(tmp_path / "b.yaml", **remote())
    code, _, err = running.inside("bridge", "modbus", path, "--map")
    assert code == 10 and "coils alone" in err
    code, _, err = running.inside("simulate-plc", "modbus", path)
    assert code == 10 and "simulate-plc remote-io" in err
    code, _, err = running.inside("simulate-plc", "remote-io", EXAMPLE)
    assert code == 10 and "simulate-plc modbus" in err

    polled = {"role": "client", "connect": "10.0.0.7:502", "cameras": ["top"], "offset": -200}
    path = write_role(tmp_path / "c.yaml", **polled)
    code, out, _ = running.inside("bridge", "modbus", path, "--map", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and {row["block"] for row in rows} == {"top"}
    (fires,) = [row for row in rows if row["name"] == "TriggerSeq"]
    assert (rows[0]["address"], fires["address"]) == ("0", "174")


@pytest.mark.long
def test_a_module_that_is_away_or_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = write_role(tmp_path / "b.yaml", **remote(connect=f"127.0.0.1:{port}"))
        code, out, err = running.inspector("simulate-plc", "remote-io", path)
    assert code == 15 and "cannot be bound" in err and "Traceback" not in err
    station = {"commands": free_ports(1)[0]}
    path = write_role(tmp_path / "b.yaml", **remote(connect=f"127.0.0.1:{port}", station=station))
    code, out, _ = running.inside("check", path)
    assert code == 1 and "cannot be reached" in out and "a bridge waits for it, too" in out


@pytest.mark.long
def test_check_names_the_key_that_the_station_cannot_keep(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    top = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=1500)
    side = running.folder_camera(parts, "side", trigger="free", loop=True, rate_hz=5)
    file = running.write_station(tmp_path / "s.yaml", bundle_path, top, side)

    def said(fieldbus: str, **changes: Any) -> str:
        document = {"bridge": fieldbus, "station": {"commands": daemon.commands}, **changes}
        if fieldbus != "mqtt":
            document = {"cameras": ["top"], "listen": "127.0.0.1:0"} | document
        path = tmp_path / "b.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        _, out, _ = running.inside("check", path)
        return next(line for line in out.splitlines() if " station " in line).strip()

    with running.running(file) as daemon:
        # The side camera runs free, so that the station is never just Ready.
        daemon.wait_for_log("state=ContinuousExecution")
        slower = {"result_timeout_ms": 2000}
        recipes = {"modbus": lambda name: {1: name}, "opcua": lambda name: [name]}
        for fieldbus, named in recipes.items():
            assert said(fieldbus, **slower, recipes=named("r")).startswith("ok")
            assert "cameras: 'side' takes no triggers; set 'trigger: software'" in said(
                fieldbus, **slower, cameras=["side"]
            )
            assert "recipes: the station has no 'gadget'; it has r" in said(
                fieldbus, **slower, recipes=named("gadget")
            )
            assert "result_timeout_ms: 1000 is less than deadline_ms 1500 of the station's" in said(
                fieldbus
            )
        mqtt = {"broker": "127.0.0.1:9", "state": str(tmp_path / "state")}
        assert said("mqtt", **mqtt, commands={"trigger": True}).startswith("ok")
    top["trigger"] = "free"
    with running.running(running.write_station(file, bundle_path, top, side)) as daemon:
        daemon.wait_for_log("state=ContinuousExecution")
        assert said("mqtt", **mqtt).startswith("ok")
        assert "commands.trigger: no camera of 'line-1' takes triggers" in said(
            "mqtt", **mqtt, commands={"trigger": True}
        )
        code, _, err = running.inside("trigger", "top", "--address", daemon.commands)
        assert code and "unknown" in err
