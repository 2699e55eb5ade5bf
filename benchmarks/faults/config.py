"""Every key of a station file misspelt, of another type, and out of range: refused, no camera."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.checkout import ROOT
from benchmarks.faults.lab import Found, Tick
from inspector.config.station_file import Station
from tests import running, tiny

EXAMPLE: Final = ROOT / "config" / "station.yaml"

MORE: Final[dict[str, Any]] = {
    "sockets": {"commands": "tcp://127.0.0.1:5557"},
    "security": {
        "peers": {"mes": {"key": "^F%wqy[-evc:>Xp610E/[3-$YezK[^>ju73kcXSa", "roles": ["listen"]}},
        "secret_key": "keys/station.secret",
        "bundle_keys": ["keys/bundle.public"],
    },
    "journal": {
        "folder": "journal",
        "verdict_days": 365,
        "pictures_mb": 2000,
        "pictures_days": 30,
        "pass_share": 0.01,
        "reserve_mb": 500,
    },
    "batching": "auto",
    "self_test": {"every_s": 3600.0, "defect": "defect.png"},
    "drift": {"parts_between_false_alarms": 100_000},
    "alarm": {"fail_share": 0.2, "fault_share": 0.02, "parts_between_false_alarms": 100_000},
    "metrics": "127.0.0.1:9464",
}
MORE_OF_A_CAMERA: Final = {"trigger": "camera", "latency_ms": 100}
MORE_OF_A_RECIPE: Final = {
    "region": {"x": 320, "y": 40, "w": 640, "h": 640},
    "check_pictures": True,
    "sizes": ["1280x1024"],
}

STARTER: Final = """
import io, json, sys, contextlib
from inspector.cameras import opencv
from inspector.cameras.isolated import process
from inspector.cli import main as cli
opened = 0
def counting(cls):
    whole = cls.open
    def count(self):
        global opened
        opened += 1
        whole(self)
    cls.open = count
counting(process.CameraProcess)
counting(opencv.OpenCv)
for path in sys.stdin:
    opened, said = 0, io.StringIO()
    with contextlib.redirect_stderr(said):
        code = cli.main(["run", path.strip()])
    print(json.dumps([code, opened, said.getvalue()]), flush=True)
"""
"""``inspector run`` again and again, counting the cameras that it tries to open."""

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Wrong:
    """A station file with one mistake."""

    how: str
    place: Place
    document: dict[str, Any]

    @property
    def shown(self) -> str:
        return f"{self.how} {'.'.join(map(str, self.place))}"


def config(folder: Path, trials: int, tick: Tick) -> Found:
    """At most ``trials`` mistakes, spread evenly, in the example and in a file with every key."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_bundle(folder / "part.onnx")
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    every = [*mistakes(example), *mistakes(complete(example))]
    unique = {json.dumps(one.document, default=str): one for one in every}
    chosen = list(unique.values())[:: max(1, len(unique) // trials)]
    path = folder / "station.yaml"
    command = [sys.executable, "-c", STARTER]
    accepted: list[str] = []
    opened_by: list[str] = []
    unclear: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=running.environment(),
    ) as child:

        def start(document: dict[str, Any]) -> tuple[int, int, str]:
            assert child.stdin is not None
            assert child.stdout is not None
            path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
            code, opened, said = json.loads(child.stdout.readline())
            return code, opened, said

        # The file without a mistake: it is refused for the camera, which is not there.
        sound = copy.deepcopy(example)
        sound["cameras"][0]["source"] = 9
        sound["sockets"] = dict.fromkeys(("verdicts", "images", "commands"), "tcp://127.0.0.1:*")
        sound["journal"] = {"folder": "control"}
        code, control, said = start(sound)
        assert (code, control) == (14, 1), said
        for number, one in enumerate(chosen):
            code, opened, said = start(one.document)
            if code != 10:
                accepted.append(one.shown)
            elif not names(one, said, path):
                unclear.append(one.shown)
            if opened:
                opened_by.append(one.shown)
            tick(number + 1, len(chosen))
        assert child.stdin is not None
        child.stdin.close()
    kinds = Counter(one.how for one in chosen)
    share = 1 - len(accepted) / len(chosen)
    return Found(
        fault=", ".join(f"{how} ({count})" for how, count in kinds.items())
        + f": every key of config/station.yaml and {len(keys(complete(example)))} keys in all",
        trials=len(chosen),
        figure=f"refused {share:.2%}, camera opens {len(opened_by)} (without a mistake {control})"
        + (f"; accepted: {', '.join(accepted)}" if accepted else "")
        + (f"; line or key not named: {', '.join(unclear)}" if unclear else ""),
        holds=not accepted and not opened_by and not unclear,
        figures={
            "accepted": len(accepted),
            "camera_opens": len(opened_by),
            "line_or_key_not_named": len(unclear),
            "camera_opens_without_a_mistake": control,
        },
    )


def complete(example: dict[str, Any]) -> dict[str, Any]:
    """The example with the keys that it leaves out."""
    document = copy.deepcopy(example)
    for key, value in copy.deepcopy(MORE).items():
        document[key] = document.get(key, {}) | value if isinstance(value, dict) else value
    document["cameras"][0] |= MORE_OF_A_CAMERA
    for recipe in document["recipes"].values():
        for camera in recipe.values():
            camera.update(MORE_OF_A_RECIPE)
    return document


def keys(node: Any, place: Place = ()) -> list[Place]:
    """The place of every key in a document."""
    if isinstance(node, dict):
        inner = [found for key, value in node.items() for found in keys(value, (*place, key))]
        return [*((*place, key) for key in node), *inner]
    if isinstance(node, list):
        return [found for at, value in enumerate(node) for found in keys(value, (*place, at))]
    return []


def mistakes(document: dict[str, Any]) -> Iterator[Wrong]:
    """One mistake at a time, at every key."""
    schema = Station.model_json_schema()
    for place in keys(document):
        holder, key = _at(document, place[:-1]), place[-1]
        value = holder[key]
        said = list(_schemas(schema, schema, document, place))
        renamed = {(_misspell(str(k)) if k == key else k): v for k, v in holder.items()}
        # What a peer is called is the reader's own choice.
        if place[-2:-1] != ("peers",):
            yield Wrong("misspelt", place, _with(document, place[:-1], renamed))
        allowed = {node.get("type") for node in said}
        for other in _other_types(value):
            if _json_type(other) not in allowed:
                yield Wrong("mistyped", place, _with(document, place, other))
        for node in said:
            for other in _outside(node, value):
                yield Wrong("out of range", place, _with(document, place, other))
        for other in _SPECIAL.get(str(key), ()):
            if other in _BEYOND and "security" in document:
                continue
            yield Wrong("out of range", place, _with(document, place, other))


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def _misspell(key: str) -> str:
    return key[:-1] if len(key) > 2 and key[-1] != key[-2] else f"{key}{key[-1]}x"


def _other_types(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield from ("perhaps", 7, [value])
    elif isinstance(value, int | float):
        yield from ("many", [value], {"value": value}, True)
    elif isinstance(value, str):
        yield from ([value], {"value": value}, 2.5, None)
    elif isinstance(value, list):
        yield from ("many", 7)
    else:
        yield from ("many", [value], 7)


def _at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


def _with(document: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(document)
    if not place:
        return dict(value)
    _at(made, place[:-1])[place[-1]] = value
    return made


def _schemas(node: Any, root: Any, value: Any, place: Place) -> Iterator[dict[str, Any]]:
    """What the schema says of ``place``, in each branch that fits ``value``."""
    if "$ref" in node:
        yield from _schemas(root["$defs"][node["$ref"].rpartition("/")[2]], root, value, place)
        return
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _schemas(branch, root, value, place)
    if not place:
        if "anyOf" not in node and "oneOf" not in node:
            yield node
        return
    key, inner = place[0], None
    tag = node.get("properties", {}).get("kind", {}).get("const")
    if tag is not None and value.get("kind") != tag:
        return
    if isinstance(key, int):
        inner = node.get("items") or (node.get("prefixItems") or [None])[0]
    else:
        inner = node.get("properties", {}).get(key) or node.get("additionalProperties")
        inner = inner or next(iter(node.get("patternProperties", {}).values()), None)
    if isinstance(inner, dict):
        yield from _schemas(inner, root, value[key], place[1:])


_BEYOND: Final = ("tcp://0.0.0.0:5556", "tcp://*:5557")
"""Needs keys, and is no mistake where there are some."""
_SPECIAL: Final = {
    "source": (-1, ""),
    "verdicts": ("tcp://127.0.0.1:70000", "tcp://127.0.0.1", "udp://127.0.0.1:5555"),
    "images": ("tcp://127.0.0.1:70000", _BEYOND[0]),
    "commands": ("tcp://127.0.0.1:70000", _BEYOND[1]),
    "metrics": ("127.0.0.1:70000", "0.0.0.0:9464"),
    "recipe": ("another",),
    "key": ("short",),
}
"""What a validator refuses, of which a schema knows nothing; by the last key."""


def _outside(node: dict[str, Any], value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        return
    if isinstance(value, int | float) and node.get("type") in {"integer", "number"}:
        step = 1 if node.get("type") == "integer" else 1e-3
        for name, sign in (("minimum", -1), ("maximum", 1)):
            if name in node:
                yield node[name] + sign * step
        for name in ("exclusiveMinimum", "exclusiveMaximum"):
            if name in node:
                yield node[name]
        yield from (float("nan"), float("inf"), -(10**12), 10**12)
    if isinstance(value, str):
        if "enum" in node or "const" in node:
            yield "pigeon"
        if "pattern" in node:
            yield from ("top/left", "")
    if isinstance(value, list) and node.get("minItems"):
        yield []


def names(wrong: Wrong, said: str, path: Path) -> bool:
    """No traceback, and a line with the file, a line's number and the key that is wrong.

    Of a misspelt one either spelling: that which is unknown, or that which is missing.
    """
    key = str(wrong.place[-1])
    spellings = [key, _misspell(key)] if wrong.how == "misspelt" else [key]
    word = f"({'|'.join(map(re.escape, spellings))})"
    start = rf"inspector: error: {re.escape(str(path))}:\d+: "
    return "Traceback" not in said and any(
        re.match(rf"{start}.*(?<![\w-]){word}(?![\w-])", line) for line in said.splitlines()
    )
