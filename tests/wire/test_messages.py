from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from typing import Any, get_args

import numpy as np
import pytest
import zmq
from pydantic import ValidationError

from inspector.client.subscriber import Subscriber
from inspector.errors import PortError, WireError
from inspector.verdict import Reason
from inspector.wire import messages as wire
from inspector.wire import schemas as schemas_module
from inspector.wire.messages import HeatmapMessage, StatusMessage, VerdictMessage
from inspector.wire.publisher import Publisher
from inspector.wire.queries import AnswerMessage
from tests import running, tiny
from tests.messages import heatmap, status, subscribed, verdict
from tests.paths import ROOT
from tests.stations import accept_and_answer, serving

DOCS = ROOT / "docs"
PAGE = (DOCS / "wire.md").read_text(encoding="utf-8")
TRIGGER = r"```python\n(import json, sys, time, uuid, zmq\n\naddress, camera.*?)```"
REFILL = r"```python\n(import json, sys, time, uuid, zmq\n\naddress, epoch.*?)```"


def violations(schema: dict[str, Any], value: Any, root: dict[str, Any], where: str) -> list[str]:
    """What JSON Schema says against ``value``; knows the words our schemas use, and no others."""
    schema = dict(schema)
    # What is not among the properties is reported below, wherever the schema allows it.
    for note in (
        *("$schema", "$defs", "title", "description", "default"),
        *("discriminator", "additionalProperties"),
    ):
        schema.pop(note, None)
    if "$ref" in schema:
        name = schema.pop("$ref").removeprefix("#/$defs/")
        return violations(root["$defs"][name], value, root, where)
    if one_of := schema.pop("oneOf", None) or schema.pop("anyOf", None):
        tried = [violations(one, value, root, where) for one in one_of]
        return [] if [] in tried else tried[0]
    wrong = []
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": (int, float),
        "null": type(None),
    }
    kind = schema.pop("type", None)
    if kind and (
        not isinstance(value, types[kind]) or isinstance(value, bool) != (kind == "boolean")
    ):
        return [f"{where}: {value!r} is no {kind}"]
    if "const" in schema and value != schema.pop("const"):
        wrong.append(f"{where}: {value!r}")
    if "enum" in schema and value not in schema.pop("enum"):
        wrong.append(f"{where}: {value!r}")
    if "minimum" in schema and value < schema.pop("minimum"):
        wrong.append(f"{where}: {value} is too small")
    if "exclusiveMaximum" in schema and value >= schema.pop("exclusiveMaximum"):
        wrong.append(f"{where}: {value} is too large")
    if "maxLength" in schema and len(value) > schema.pop("maxLength"):
        wrong.append(f"{where}: {value!r} is too long")
    if "minLength" in schema and len(value) < schema.pop("minLength"):
        wrong.append(f"{where}: {value!r} is too short")
    if "pattern" in schema and not re.search(schema.pop("pattern"), value):
        wrong.append(f"{where}: {value!r} does not match")
    properties = schema.pop("properties", {})
    wrong += [f"{where}.{key} is missing" for key in schema.pop("required", []) if key not in value]
    for key, entry in value.items() if isinstance(value, dict) else ():
        if key in properties:
            wrong += violations(properties[key], entry, root, f"{where}.{key}")
        else:
            wrong.append(f"{where}.{key} is not in the schema")
    if "maximum" in schema and value > schema.pop("maximum"):
        wrong.append(f"{where}: {value} is too large")
    if "maxItems" in schema and len(value) > schema.pop("maxItems"):
        wrong.append(f"{where} is too long")
    if "items" in schema:
        entries = schema.pop("items")
        for entry in value:
            wrong += violations(entries, entry, root, f"{where}[]")
    assert schema == {}, f"the test does not know {schema}"
    return wrong


def check_json(kind: str, body: bytes | str) -> dict[str, Any]:
    """Parse strictly and hold against the schema that is in the documentation."""
    schemas = json.loads((DOCS / "wire.schema.json").read_text(encoding="utf-8"))
    message = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} in {body!r}"))
    assert violations(schemas[kind], message, schemas[kind], kind) == []
    return message


def test_documented_schema_is_the_one_in_force():
    # Versions of Pydantic write the same number as 0 or as 0.0.
    documented = json.loads((DOCS / "wire.schema.json").read_text(encoding="utf-8"))
    assert documented == json.loads(schemas_module.dump_schemas())


def test_schema_check_finds_what_is_wrong():
    good = json.loads(wire.encode(verdict()))
    schema = schemas_module.json_schemas()["verdict"]
    assert violations(schema, good, schema, "") == []
    for key, value in (("seq", 0), ("verdict", "OK"), ("score", "1"), ("judged_us", 2**53)):
        assert violations(schema, good | {key: value}, schema, "") != []
    del good["epoch"]
    assert violations(schema, good, schema, "") != []


MARKS = {"command": "command", "kind": "reply", "state": "status", "width": "heatmap"}
QUERIES = ("history", "picture", "preview", "deeds", "judging", "counts")


def examples() -> list[tuple[str, str]]:
    """(kind, message) as the page shows them."""
    found = []
    for text in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL):
        fields = json.loads(text)
        kind = next((kind for mark, kind in MARKS.items() if mark in fields), "verdict")
        if kind == "command" and fields["command"] in QUERIES:
            kind = "query"
        elif "entries" in fields:
            kind = "answer"
        found.append((kind, text))
    return found


def test_examples_of_the_page_are_messages_and_there_is_one_of_each():
    shown = set()
    for kind, text in examples():
        fields = check_json(kind, text)
        shown.add((kind, fields.get("command") or fields.get("kind") or ""))
    replies = get_args(wire.ReplyMessage.model_fields["kind"].annotation)
    commands = schemas_module.json_schemas()["command"]["discriminator"]["mapping"]
    answers = get_args(AnswerMessage.model_fields["kind"].annotation)
    wanted = {("reply", kind) for kind in replies} | {("command", name) for name in commands}
    wanted |= {("answer", kind) for kind in answers} | {("query", name) for name in QUERIES}
    queries = schemas_module.json_schemas()["query"]["discriminator"]["mapping"]
    assert set(queries) == set(QUERIES)
    assert shown == wanted | {("verdict", ""), ("heatmap", ""), ("status", "")}


def test_examples_have_every_field_as_the_station_sends_them():
    models = {
        "verdict": VerdictMessage,
        "heatmap": HeatmapMessage,
        "status": StatusMessage,
        "reply": wire.ReplyMessage,
        "answer": AnswerMessage,
    }
    given: dict[str, set[str]] = {}
    for kind, text in examples():
        if kind in {"command", "query"}:
            fields = json.loads(text)
            given.setdefault(fields["command"], set()).update(fields)
        else:
            assert wire.encode(models[kind].model_validate_json(text)).decode() == text
    schemas = schemas_module.json_schemas()
    asked = [*schemas["command"]["$defs"].values(), *schemas["query"]["$defs"].values()]
    for name, found in given.items():
        (schema,) = (
            one
            for one in asked
            if one.get("properties", {}).get("command", {}).get("const") == name
        )
        assert set(schema["properties"]) - {"schema"} <= found, name
    assert any("schema" in found for found in given.values())


def test_page_names_every_field_reason_and_state():
    names = {reason.value for reason in Reason} | set(wire.State.__args__)
    names |= set(get_args(wire.RefusalCode)) | set(
        get_args(wire.ReplyMessage.model_fields["kind"].annotation)
    )
    for schema in schemas_module.json_schemas().values():
        names |= set(schema.get("properties", {}))
        for inner in schema.get("$defs", {}).values():
            names |= set(inner.get("properties", {}))
    assert {name for name in names if name and f"`{name}`" not in PAGE} == set()


@pytest.mark.long
def test_trigger_written_from_the_page_alone_gets_its_verdict(tmp_path, bundle_path):
    program = re.search(TRIGGER, PAGE, re.DOTALL)
    script = tmp_path / "stranger.py"
    script.write_text(program[1], encoding="utf-8")
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=2000)
    station = running.write_station(tmp_path / "station.yaml", bundle_path, camera)

    def trigger(address, camera, part):
        # -I: neither this folder nor PYTHONPATH can lend it anything of ours.
        done = subprocess.run(
            [sys.executable, "-I", script, address, camera, part],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.returncode, done.stdout.split(), done.stderr.strip()

    with running.running(station) as daemon:
        daemon.wait_for_log("state=Ready")
        address = daemon.commands
        assert trigger(address, "top", "S/N-1") == (0, ["S/N-1", "PASS", "0.0"], "")
        code, printed, errors = trigger(address, "top", "S/N-2")
        assert (code, printed[:2], printed[3], errors) == (1, ["S/N-2", "FAIL"], "anomaly", "")
        code, printed, errors = trigger(address, "tip", "S/N-3")
        assert (code, printed) == (1, [])
        assert errors.startswith("refused: unknown")
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log


@pytest.mark.long
def test_subscriber_written_from_the_page_alone_gets_every_verdict(tmp_path, bundle_path):
    program = re.search(r"```python\n(import json, sys, zmq.*?)```", PAGE, re.DOTALL)
    script = tmp_path / "stranger.py"
    script.write_text(program[1], encoding="utf-8")
    parts = running.write_parts(
        tmp_path / "parts", tiny.good_picture(), tiny.bad_picture(), tiny.nan_picture()
    )
    station = running.write_station(
        tmp_path / "station.yaml", bundle_path, running.folder_camera(parts)
    )
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        # -I: neither this folder nor PYTHONPATH can lend it anything of ours.
        done = subprocess.run(
            [sys.executable, "-I", script, daemon.verdicts, "line-1"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert daemon.child.wait(running.START_S) == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "1 000.png PASS 0.0",
        "2 001.png FAIL 1.984375",
        "3 002.png FAULT None",
    ]


@pytest.mark.long
def test_refill_written_from_the_page_alone_brings_what_is_missing(tmp_path, recorded):
    program = re.search(REFILL, PAGE, re.DOTALL)
    script = tmp_path / "stranger.py"
    script.write_text(program[1], encoding="utf-8")

    def refill(*arguments, meanwhile=lambda: None):
        # -I: neither this folder nor PYTHONPATH can lend it anything of ours.
        command = [sys.executable, "-I", script, commands.address, *map(str, arguments)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            meanwhile()
            out, _ = child.communicate(timeout=20)
        return child.returncode, out.splitlines()

    def told(epoch, *seqs):
        return [f"{epoch} {seq} p{seq} PASS 0.5" for seq in seqs]

    recorded.record(130)
    recorded.start()
    recorded.start()
    recorded.record(3)
    recorded.damage(120, "not a verdict")
    away = recorded.folder.with_name("away")
    with serving(recorded, accept_and_answer) as commands:
        recorded.folder.rename(away)

        def back():
            time.sleep(1)
            away.rename(recorded.folder)

        # The journal cannot be read for a second: the question is asked again.
        assert refill("epoch-1", 5, "epoch-3", 2, meanwhile=back) == (
            0,
            [
                *told("epoch-1", *range(6, 120)),
                "lost 120 to 120 of epoch-1",
                *told("epoch-1", *range(121, 131)),
                *told("epoch-3", 1, 2),
            ],
        )
        assert refill("epoch-3", 1, "epoch-3", 3) == (0, told("epoch-3", 2, 3))
        # Of an epoch that the journal no longer has: all that it has came later.
        code, said = refill("epoch-0", 7, "epoch-1", 2)
        assert (code, said) == (
            0,
            ["lost whatever followed 7 of epoch-0", *told("epoch-1", 1, 2)],
        )
        assert refill("epoch-1", 0, "epoch-1", 0) == (0, [])
        # Published, and recorded a moment later.
        code, said = refill(
            "epoch-3", 3, "epoch-3", 4, meanwhile=lambda: (time.sleep(1), recorded.record(1))
        )
        assert (code, said) == (0, told("epoch-3", 4))


def test_what_a_station_sends_is_what_the_page_says(tmp_path, bundle_path):
    parts = running.write_parts(
        tmp_path / "parts", tiny.good_picture(), tiny.bad_picture(), tiny.nan_picture()
    )
    (parts / "003.png").write_bytes(b"no picture")
    station = running.write_station(
        tmp_path / "station.yaml", bundle_path, running.folder_camera(parts)
    )
    seen: dict[str, list[dict[str, Any]]] = {"verdict": [], "heatmap": [], "status": []}
    with running.running(station, "--wait-for-subscriber", "10") as daemon:
        context = zmq.Context()
        sockets = [context.socket(zmq.SUB) for _ in range(2)]
        try:
            sockets[0].connect(daemon.verdicts)
            sockets[0].subscribe(b"")
            sockets[1].connect(daemon.images)
            sockets[1].subscribe(b"")
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                for socket in sockets:
                    if not socket.poll(100):
                        continue
                    frames = socket.recv_multipart()
                    kind = frames[0].decode().split("/")[0]
                    assert frames[0] == f"{kind}/line-1/".encode()
                    seen[kind].append(check_json(kind, frames[1]))
                    if kind == "heatmap":
                        assert frames[2].startswith(b"\x89PNG")
                        assert frames[3].startswith(b"\xff\xd8")
                    else:
                        assert len(frames) == 2
                ended = seen["status"] and seen["status"][-1]["state"] == "Halted"
                if ended and len(seen["heatmap"]) == 2:
                    break
        finally:
            for socket in sockets:
                socket.close(linger=0)
            context.term()
    assert [(v["seq"], v["verdict"], v["score"] is None) for v in seen["verdict"]] == [
        (1, "PASS", False),
        (2, "FAIL", False),
        (3, "FAULT", True),
        (4, "FAULT", True),
    ]
    assert [v["reason"] for v in seen["verdict"]] == [
        "",
        "anomaly",
        "not_finite",
        "frame_unreadable",
    ]
    assert [h["seq"] for h in seen["heatmap"]] == [1, 2]
    last = seen["status"][-1]
    assert (last["last_seq"], last["passed"], last["failed"], last["faults"]) == (4, 1, 1, 2)
    states = [status["state"] for status in seen["status"]]
    assert states.index("ContinuousExecution") < states.index("Halted")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_cannot_be_put_into_a_message(value):
    with pytest.raises(ValidationError):
        verdict(score=value)
    with pytest.raises(ValidationError):
        verdict(judge_ms=value)


def test_integers_stay_below_2_to_the_53():
    assert verdict(judged_us=2**53 - 1).judged_us == 2**53 - 1
    with pytest.raises(ValidationError):
        verdict(judged_us=2**53)


def test_heatmaps_are_wanted_while_somebody_subscribes_to_them(publisher):
    def becomes(wanted: bool) -> bool:
        deadline = time.monotonic() + 5
        while publisher.wants_heatmaps("1") is not wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        return publisher.wants_heatmaps("1") is wanted

    assert not publisher.wants_heatmaps("1")
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        for prefix in (b"", b"heatmap/", b"heatmap/1/"):
            with context.socket(zmq.SUB) as socket, context.socket(zmq.SUB) as other:
                for one in (socket, other):
                    one.connect(publisher.addresses[1])
                other.subscribe(b"heatmap/10/")
                socket.subscribe(prefix)
                assert becomes(True)
                # Gone without a word, as a client that crashes.
                socket.close(linger=0)
                assert becomes(False)
                # Of another station, or longer than any topic.
                other.subscribe(b"heatmap/1/x")
                assert not publisher.wants_heatmaps("1")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"gossip/1/", b"{}"], "topic"),
        ([b"verdict/1/", b"{}"], "field 'station'"),
        ([b"verdict/1/", b"not json"], "is not JSON"),
        ([b"verdict/1/", b"\xff\xfe"], "is not JSON"),
        ([b"verdict/1/"], "of 1 frames"),
        ([b"verdict/1/", wire.encode(verdict()), b""], "of 3 frames"),
        ([b"verdict/2/", wire.encode(verdict())], "under another topic"),
        ([b"verdict/1/", wire.encode(verdict()).replace(b"PASS", b"GOOD")], "field 'verdict'"),
        ([b"verdict/1/", wire.encode(verdict()).replace(b'"schema":2', b'"schema":3')], "'schema'"),
        ([b"status/1/", wire.encode(verdict())], "field 'state'"),
        ([b"heatmap/1/", wire.encode(heatmap(1)), b"", b""], ""),
    ],
)
def test_message_that_the_page_does_not_allow_is_refused(frames, words):
    if words:
        with pytest.raises(WireError, match=words) as caught:
            wire.decode(frames)
        assert "\n" not in str(caught.value)
    else:
        assert wire.decode(frames) == heatmap(1)


def test_unknown_fields_are_ignored():
    body = wire.encode(verdict()).replace(b'"seq":1', b'"seq":1,"news":[1]')
    assert wire.decode([b"verdict/1/", body]) == verdict()


def test_subscriber_that_does_not_read_does_not_hold_up_the_line(publisher):
    picture = np.random.default_rng(0).bytes(200_000)
    with subscribed(publisher), Subscriber(publisher.addresses[0]) as reader:
        while reader.receive(20) is None:
            publisher.send_status(status(0))
        begun = time.monotonic()
        for seq in range(1, 301):
            publisher.send_verdict(verdict(seq))
            publisher.send_heatmap(heatmap(seq), picture, picture)
        assert time.monotonic() - begun < 5.0
        received = iter(reader)
        verdicts = (item for item in received if isinstance(item, VerdictMessage))
        assert [next(verdicts).seq for _ in range(300)] == list(range(1, 301))


def test_port_in_use_is_one_line(publisher):
    taken = publisher.addresses[0]
    with pytest.raises(PortError, match=f"sockets: {taken}: in use"):
        Publisher(taken, running.FREE["images"])


def test_second_station_cannot_take_an_ipc_path(tmp_path):
    path, other = f"ipc://{tmp_path}/v", f"ipc://{tmp_path}/i"
    first = Publisher(path, other)
    try:
        for taken in (path, f"ipc://{tmp_path}/./v"):
            with pytest.raises(PortError, match=f"sockets: {re.escape(taken)}: in use"):
                Publisher(taken, running.FREE["images"])
        with subscribed(first) as subscriber:
            first.send_verdict(verdict(1))
            assert subscriber.receive(2000) == verdict(1)
    finally:
        first.close(linger_ms=0)
    Publisher(path, other).close(linger_ms=0)


def test_file_at_an_ipc_path_is_left_alone(tmp_path):
    (tmp_path / "part.onnx").write_bytes(b"a model")
    with pytest.raises(PortError, match="cannot be bound"):
        Publisher(f"ipc://{tmp_path}/part.onnx", running.FREE["images"])
    assert (tmp_path / "part.onnx").read_bytes() == b"a model"
