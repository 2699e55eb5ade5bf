"""What is wrong in a bridge's file is said in plain words, with the page that explains the key."""

from __future__ import annotations

import pytest

from inspector.config.bridge_file import load_bridge
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


def test_too_many_entries_or_letters_are_told_without_words_of_python(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text(f"bridge: modbus\ncameras: [{', '.join('abcdefghijklmnopq')}]\n")
    with pytest.raises((ConfigError, Problems), match="cameras: must have at most 16 entries"):
        load_bridge(path)
    path.write_text(f"bridge: mqtt\nbroker: h:1\nstate: s\ntopic: {'a' * 201}\n")
    with pytest.raises((ConfigError, Problems), match="topic: must have at most 200 letters"):
        load_mqtt_bridge(path)
