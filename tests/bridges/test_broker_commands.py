"""Commands by way of another maker's broker: what is taken, what is refused, and in which words."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import running, tiny
from tests.bridges.brokers import TOPIC, Broker, Heard, bridge, config, need_broker, wait_for
from tests.stations import Station, free_ports

pytestmark = pytest.mark.peers


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with contextlib.closing(need_broker(tmp_path)) as made:
        yield made


def trigger(seq: int = 1, **changes: Any) -> dict[str, Any]:
    told = {"command": "trigger", "id": f"t{seq}", "camera": "top", "session": "s"}
    return told | {"trigger_seq": seq, "part_id": f"p{seq}"} | changes


def ask(broker: Broker, heard: Heard, told: dict[str, Any], *words: str) -> list[dict[str, Any]]:
    """All replies to a command; the last one ends it."""

    def ended() -> bool:
        found = replies(heard, told["id"])
        return bool(found) and found[-1]["kind"] not in {"accepted", "acquired"}

    broker.publish(f"{TOPIC}/command", json.dumps(told), *words)
    wait_for(ended)
    return replies(heard, told["id"])


def replies(heard: Heard, name: str) -> list[dict[str, Any]]:
    return [one for one in heard.documents("reply") if one["id"] == name]


@pytest.fixture
def line(tmp_path: Path, bundle_path: Path) -> Iterator[Station]:
    """A real station whose camera waits for triggers, and that has two recipes."""
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())
    verdicts, images, commands = free_ports(3)
    path = running.write_station(
        tmp_path / "station.yaml",
        bundle_path,
        running.folder_camera(parts, trigger="software", loop=True),
        sockets={"verdicts": verdicts, "images": images, "commands": commands},
        recipes={name: {"top": {"bundle": str(bundle_path)}} for name in ("r", "other")},
    )
    with running.running(path) as station:
        station.wait_for_log(r" commands address=(\S+)\n")
        station.wait_for_log(r"state=Ready")
        yield station


def test_parts_are_triggered_and_recipes_changed(tmp_path, broker, line):
    made = config(line, broker.address, tmp_path, commands={"trigger": True, "recipe": True})
    heard = broker.subscribe(tmp_path)
    with bridge(made):
        wait_for(lambda: heard.documents("status"))
        wait_for(lambda: heard.documents("status")[-1]["station"])
        first = ask(broker, heard, trigger(1))
        assert [one["kind"] for one in first] == ["accepted", "acquired", "verdict"]
        assert first[1]["grabbed_us"] == first[2]["verdict"]["grabbed_us"]
        verdict = first[2]["verdict"]
        assert (verdict["verdict"], verdict["part_id"], verdict["recipe"]) == ("PASS", "p1", "r")
        # Another part with the number of the first one is told nothing of it.
        (again,) = ask(broker, heard, trigger(1, id="t1b", part_id="p9"))[-1:]
        assert again["kind"] == "verdict" and again["verdict"]["reason"] == "trigger_conflict"

        (done,) = ask(broker, heard, {"command": "recipe", "id": "r1", "recipe": "other"})
        assert done["kind"] == "done"
        assert ask(broker, heard, trigger(2))[-1]["verdict"]["recipe"] == "other"
        (wrong,) = ask(broker, heard, {"command": "recipe", "id": "r2", "recipe": "none"})
        assert wrong["kind"] == "refused" and "none" in wrong["detail"]
        assert ask(broker, heard, trigger(3))[-1]["verdict"]["recipe"] == "other"
        (wrong,) = ask(broker, heard, trigger(4, camera="side"))
        assert wrong["kind"] == "refused" and "side" in wrong["detail"]
        wait_for(lambda: len(heard.seqs()) == 4)
    told = {one["part_id"]: one for one in heard.documents("verdict")}
    assert told["p1"] == verdict | {"record": told["p1"]["record"]}


def test_the_answer_goes_where_its_sender_asked(tmp_path, broker, line):
    made = config(line, broker.address, tmp_path, commands={"trigger": True})
    heard = broker.subscribe(tmp_path)
    elsewhere = broker.subscribe(tmp_path, topic="desk/#")
    sparkplug = broker.subscribe(tmp_path, topic="spBv1.0/#")
    with bridge(made):
        wait_for(lambda: heard.documents("status"))
        words = ("-D", "publish", "response-topic", "desk/7")
        words += ("-D", "publish", "correlation-data", "c-7")
        broker.publish(f"{TOPIC}/command", json.dumps(trigger(1)), *words)
        wait_for(lambda: len(elsewhere.messages()) == 3)
        for topic in (
            f"{TOPIC}/verdict",
            f"{TOPIC}/status",
            f"{TOPIC}/command",
            TOPIC,
            "spBv1.0/x",
        ):
            # By this way a sender could have the bridge say anything in the station's name.
            words = ("-D", "publish", "response-topic", topic)
            broker.publish(f"{TOPIC}/command", json.dumps(trigger(9, command="no")), *words)
        wait_for(lambda: len(heard.documents("reply")) == 5)
        wait_for(lambda: len(heard.seqs()) == 1)
        time.sleep(0.3)
        assert sparkplug.messages() == []
        assert len(heard.documents("reply")) == 5 and len(heard.documents("verdict")) == 1
    assert {topic for topic, _ in elsewhere.messages()} == {"desk/7"}
    kinds = [json.loads(body)["kind"] for _, body in elsewhere.messages()]
    assert kinds == ["accepted", "acquired", "verdict"]


MALFORMED = {
    "empty": b"",
    "no JSON": b"trigger",
    "not UTF-8": b'{"command": "trigger", "id": "\xff\xfe"}',
    "zeros": bytes(100),
    "null": b"null",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "deeper": b'{"a":' * 100_000,
    "huge": b'{"command": "trigger", "id": "' + b"x" * 900_000 + b'"}',
    "a huge number": b'{"command": "trigger", "trigger_seq": ' + b"9" * 100_000 + b"}",
    "NaN": b'{"command": "trigger", "trigger_seq": NaN}',
    "unknown field": json.dumps(trigger(1, colour="red")).encode(),
    "unknown command": b'{"command": "explode", "id": "t1"}',
    "lone surrogate": b'{"command": "trigger", "id": "\\ud800"}',
    "text for a number": json.dumps(trigger(1, trigger_seq="1")).encode(),
    "negative": json.dumps(trigger(-1)).encode(),
    "no camera": b'{"command": "trigger", "id": "x", "session": "s", "trigger_seq": 1}',
    "two": json.dumps(trigger(1)).encode() * 2,
}


def test_what_is_no_command_is_one_refusal_each(tmp_path, broker, caplog):
    caplog.set_level("INFO", "inspector")
    heard = broker.subscribe(tmp_path)
    asked: list[Any] = []
    with Station(tmp_path / "journal", on_request=asked.append) as station:
        made = config(station, broker.address, tmp_path, commands={"trigger": True})
        with bridge(made):
            wait_for(lambda: heard.documents("status"))
            for number, (name, payload) in enumerate(MALFORMED.items(), 1):
                (tmp_path / "payload").write_bytes(payload)
                broker.send_file(f"{TOPIC}/command", tmp_path / "payload")
                wait_for(lambda number=number: len(heard.documents("reply")) == number)
                told = heard.documents("reply")[-1]
                assert (told["kind"], told["code"]) == ("refused", "malformed"), name
                assert len(told["detail"]) < 500 and "\n" not in told["detail"], name
            # What is longer still the broker keeps away from the bridge.
            (tmp_path / "payload").write_bytes(b'{"command": "' + b"x" * 3_000_000)
            broker.send_file(f"{TOPIC}/command", tmp_path / "payload")
            for command in ("recipe", "status", "reload", "start", "stop", "reset"):
                more = {"recipe": "r"} if command == "recipe" else {}
                (told,) = ask(broker, heard, {"command": command, "id": command} | more)
                assert told["code"] == "forbidden"
            station.publish(2)
            wait_for(lambda: len(heard.seqs()) == 2)
    assert all(len(one.getMessage()) < 1000 for one in caplog.records)
    assert len(heard.documents("reply")) == len(MALFORMED) + 6
    assert "broker well" not in caplog.text and "crash" not in caplog.text
    assert not asked


def test_a_retained_trigger_is_not_a_new_one(tmp_path, broker, line):
    heard = broker.subscribe(tmp_path)
    broker.publish(f"{TOPIC}/command", json.dumps(trigger(1)), "-r")
    made = config(line, broker.address, tmp_path, commands={"trigger": True})
    with bridge(made):
        wait_for(lambda: heard.documents("reply"))
        assert heard.documents("reply")[0]["code"] == "expired"
        assert ask(broker, heard, trigger(2))[-1]["kind"] == "verdict"
    assert [one["part_id"] for one in heard.documents("verdict")] == ["p2"]


def test_a_flood_of_commands_holds_no_verdict_up(tmp_path, broker):
    heard = broker.subscribe(tmp_path)
    with Station(tmp_path / "journal") as station:
        made = config(station, broker.address, tmp_path, commands={"trigger": True})
        with bridge(made):
            wait_for(lambda: heard.documents("status"))
            # The station of this test answers no trigger.
            flood = tmp_path / "flood"
            flood.write_text("\n".join(json.dumps(trigger(n)) for n in range(1, 401)) + "\n")
            broker.send_lines(f"{TOPIC}/command", flood)
            station.wait()
            station.publish(30)
            wait_for(lambda: len(heard.seqs()) == 30)
            wait_for(lambda: any(one["code"] == "busy" for one in heard.documents("reply")))
            said = {one["code"] for one in heard.documents("reply")}
            assert said == {"busy"}


def test_a_command_that_waited_at_the_broker_triggers_no_part_that_is_gone(tmp_path, broker, line):
    heard = broker.subscribe(tmp_path)
    made = config(line, broker.address, tmp_path, commands={"trigger": True})
    with bridge(made):
        wait_for(lambda: heard.documents("status"))
    broker.publish(f"{TOPIC}/command", json.dumps(trigger(1)))
    with bridge(made):
        wait_for(lambda: len(heard.documents("status")) > 2)
        assert ask(broker, heard, trigger(2))[-1]["kind"] == "verdict"
    assert replies(heard, "t1") == []
    assert [one["part_id"] for one in heard.documents("verdict")] == ["p2"]
