"""What docs/plc/ takes from the code is as the code has it."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from inspector.bridges.codes import LAYOUT_VERSION
from inspector.bridges.machine_vision import METHODS
from inspector.bridges.registers import CAMERA, PLC, STATUS_BITS
from inspector.config.bridge_file import ModbusBridge, OpcuaBridge, load_bridge, load_opcua_bridge
from inspector.config.modbus_client import PolledBridge, RemoteIoBridge, load_modbus
from inspector.config.mqtt_bridge import MqttBridge, load_mqtt_bridge
from tests.paths import ROOT

FOLDER = ROOT / "docs" / "plc"


def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plc_draw", FOLDER / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up.
    import sys

    sys.modules["plc_draw"] = module
    try:
        spec.loader.exec_module(module)
        return module
    finally:
        del sys.modules["plc_draw"]


def test_register_map_tables_and_chart_are_current():
    assert draw().stale() == [], "run 'python docs/plc/draw.py draw'"


def test_the_chart_shows_two_parts_with_their_results():
    moments = draw().scenario().moments
    shown = [values["Verdict"] for _, values in moments]
    assert "PASS 1" in shown and "FAIL 2" in shown and shown[-1] == 0
    assert not moments[0][1]["Ready"] and moments[-1][1]["Ready"]


def test_links_lead_somewhere():
    for page in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_the_example_file_and_the_page_name_every_key():
    path = ROOT / "config" / "bridge-modbus.yaml"
    made = load_bridge(path)
    text, page = path.read_text(encoding="utf-8"), (FOLDER / "modbus.md").read_text("utf-8")
    for key in ModbusBridge.model_fields:
        assert re.search(rf"^#? ?{key}:", text, re.MULTILINE), key
        assert f"`{key}" in page, key
    for key, field in ModbusBridge.model_fields.items():
        if key not in {"cameras", "recipes", "station"} and not field.is_required():
            assert getattr(made, key) == field.default, f"{key}: the example has the default"


def test_the_opc_ua_example_and_its_page_name_every_key_and_method():
    path = ROOT / "config" / "bridge-opcua.yaml"
    made = load_opcua_bridge(path)
    text, page = path.read_text(encoding="utf-8"), (FOLDER / "opc-ua.md").read_text("utf-8")
    for key, field in OpcuaBridge.model_fields.items():
        assert re.search(rf"^(# )?{key}:", text, re.MULTILINE), key
        assert f"`{key}" in page, key
        if key not in {"cameras", "recipes", "station"} and not field.is_required():
            assert getattr(made, key) == field.default, f"{key}: the example has the default"
    for methods in METHODS.values():
        for method in methods:
            assert method.name in page, method.name


def test_the_remote_io_example_and_its_page_name_every_key():
    path = ROOT / "config" / "bridge-remote-io.yaml"
    made = load_modbus(path)
    assert isinstance(made, RemoteIoBridge)
    text, page = path.read_text(encoding="utf-8"), (FOLDER / "ejector.md").read_text("utf-8")
    chosen = {"belt_input", "fail_coil", "fault_coil", "healthy_coil", "delay_ms", "watchdog"}
    for key, field in RemoteIoBridge.model_fields.items():
        assert re.search(rf"^(# )?{key}:", text, re.MULTILINE), key
        assert f"`{key}" in page, key
        if key not in chosen | {"station"} and not field.is_required():
            assert getattr(made, key) == field.default, f"{key}: the example has the default"


def test_the_page_names_every_key_of_a_polled_plc(tmp_path):
    page = (FOLDER / "modbus.md").read_text("utf-8")
    for key in PolledBridge.model_fields:
        assert f"`{key}" in page, key
    (example,) = re.findall(r"```yaml\n(bridge: modbus\nrole: client\n.*?)```", page, re.DOTALL)
    path = tmp_path / "bridge.yaml"
    path.write_text(example, encoding="utf-8")
    assert isinstance(load_modbus(path), PolledBridge)


def test_the_mqtt_example_and_its_page_name_every_key():
    path = ROOT / "config" / "bridge-mqtt.yaml"
    made = load_mqtt_bridge(path)
    text, page = path.read_text(encoding="utf-8"), (FOLDER / "mqtt.md").read_text("utf-8")
    for key, field in MqttBridge.model_fields.items():
        assert re.search(rf"^(# )?{key}:", text, re.MULTILINE), key
        assert f"`{key}" in page or f", `{key}" in page, key
        if key != "station" and not field.is_required():
            assert getattr(made, key) == field.default, f"{key}: the example has the default"


def test_the_function_block_knows_the_registers_that_it_uses():
    text = (FOLDER / "function-block.st").read_text(encoding="utf-8")
    names = {field.name for field in (*CAMERA, *PLC)}
    used = set(re.findall(r"\b(?:In|Out)\.(\w+)", text))
    assert used and used <= names
    bits = {name: 1 << number for number, (name, _) in enumerate(STATUS_BITS)}
    assert f"16#{bits['Ready']:04X}" in text and f"16#{bits['ResultValid']:04X}" in text
    assert LAYOUT_VERSION == 1
