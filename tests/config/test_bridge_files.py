"""What is wrong in a bridge's file is said in plain words, with the page that explains the key."""

from __future__ import annotations

import pytest

from inspector.config.bridge_file import load_bridge, load_opcua_bridge
from inspector.config.console_file import load_console
from inspector.config.modbus_client import load_modbus
from inspector.config.mqtt_bridge import load_mqtt_bridge
from inspector.errors import ConfigError, Problems


def test_a_topic_of_one_letter_is_one_and_what_is_none_names_its_page(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text("bridge: mqtt\nbroker: 127.0.0.1:1883\nstate: s\ntopic: a\n")
    assert load_mqtt_bridge(path).topic == "a"
    for topic in ("a/", "/a", "a/#", "+", "$SYS"):
        path.write_text(f"bridge: mqtt\nbroker: 127.0.0.1:1883\nstate: s\ntopic: '{topic}'\n")
        with pytest.raises((ConfigError, Problems), match=r"docs/plc/mqtt\.md"):
            load_mqtt_bridge(path)


def test_a_key_without_a_value_is_refused_in_every_kind_of_file(tmp_path):
    path = tmp_path / "b.yaml"
    for load, text in (
        (load_mqtt_bridge, "bridge: mqtt\nstate: s\nuser:\n"),
        (load_bridge, "bridge: modbus\ncameras: [top]\nrecipes:\n"),
        (load_modbus, "bridge: modbus\nrole:\ncameras: [top]\n"),
        (load_opcua_bridge, "bridge: opcua\ncameras: [top]\npki: # later\n"),
        (load_console, "stations: {line-1: {}}\nstate:\n"),
        (load_console, "stations:\n  line-1:\n"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"b\.yaml:\d: [\w.-]+: is empty; give a value"):
            load(path)


def test_too_many_entries_or_letters_are_told_without_words_of_python(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text(f"bridge: modbus\ncameras: [{', '.join('abcdefghijklmnopq')}]\n")
    with pytest.raises((ConfigError, Problems), match="cameras: must have at most 16 entries"):
        load_bridge(path)
    path.write_text(f"bridge: mqtt\nbroker: h:1\nstate: s\ntopic: {'a' * 201}\n")
    with pytest.raises((ConfigError, Problems), match="topic: must have at most 200 letters"):
        load_mqtt_bridge(path)
