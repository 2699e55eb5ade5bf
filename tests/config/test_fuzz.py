"""Whatever a station file holds, it is read, or refused in lines that name file and cure."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from benchmarks.faults import config
from inspector.config.station_file import Station, load_station
from inspector.errors import ConfigError, Problems
from tests import fuzzing
from tests.paths import ROOT

pytestmark = pytest.mark.timeout(0 if "INSPECTOR_FUZZ_S" in os.environ else 120)

EXAMPLES = [
    config.complete(yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8")))
    for name in ("station.yaml", "demo.yaml")
]
TEXTS = [yaml.safe_dump(one, sort_keys=False) for one in EXAMPLES]
ODD_TOKENS = [
    *("1" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 9000, "1:" * 4000 + "1"),
    *("1:" * 400 + "1.5", "1e999", ".inf", "0o8", "1_" * 3000, "2024-13-45", "24:61:61", "=", "<<"),
    *(
        '"\\0"',
        '"a\\0b"',
        '"\\uD800"',
        '"\\udcff"',
        '"ipc://\\0"',
        '"\\U00110000"',
        "'",
        '"',
        "!!x",
    ),
    *(
        "!!binary 8J",
        "!!timestamp x",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!int ''",
    ),
    *("&a [*a]", "*b", "<<: 1", "? [a]", "!!python/object:os.system x", "@", "`", "%YAML 9.9"),
    *("---", "...", "\t", "[", "{", "- - - -", "{a: {b: {c: [1, 2, {d: 3}]}}}", "|", ">", "#", "~"),
    *("!!float ''", "!!float 1:", "!!null x", "!!bool 2", "!!str 5", "! x", "!<tag> x", "\x85"),
]


def readable(path: Path) -> None:
    """``path`` is a station file, or refused as the product promises."""
    try:
        station = load_station(path)
    except Problems as several:
        errors = [str(one) for one in several.problems]
    except ConfigError as one:
        errors = [str(one)]
    else:
        usable(station)
        return
    for error in errors:
        assert re.fullmatch(rf"{re.escape(str(path))}(:\d+)?: [^\n]{{3,}}", error), error
        assert len(error) < 3000, error
        assert error.encode("utf-8"), error


def usable(station: Station) -> None:
    """Nothing in it that the operating system or another program would stumble over."""
    for value in walk(station.model_dump()):
        if isinstance(value, str | Path):
            assert b"\0" not in os.fsencode(str(value))
            str(value).encode("utf-8")
    for address in station.sockets.addresses.values():
        assert len(os.fsencode(address)) < 120
    assert station.active(station.cameras[0].name)


def walk(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for pair in value.items() for one in pair for found in walk(one)]
    if isinstance(value, list | tuple):
        return [found for one in value for found in walk(one)]
    return [value]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "station.yaml"


def test_any_bytes(path):
    def check(data: bytes) -> None:
        path.write_bytes(data)
        readable(path)

    whole = [text.encode() for text in TEXTS]
    fuzzing.fuzz(
        st.one_of(st.binary(max_size=200), *(fuzzing.mutated(one) for one in whole)), check
    )


@pytest.mark.long
def test_any_value(path):
    def check(drawn: tuple[int, list[tuple[int, Any]]]) -> None:
        which, changes = drawn
        document = copy.deepcopy(EXAMPLES[which])
        for at, value in changes:
            spots = fuzzing.places(document)
            fuzzing.put(document, spots[at % len(spots)], value)
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        readable(path)

    change = st.tuples(st.integers(0, 999), fuzzing.ODD_VALUES)
    fuzzing.fuzz(
        st.tuples(st.integers(0, len(EXAMPLES) - 1), st.lists(change, min_size=1, max_size=3)),
        check,
    )


def test_any_token(path):
    def check(drawn: tuple[int, list[tuple[int, str]]]) -> None:
        which, changes = drawn
        lines = TEXTS[which].splitlines()
        for at, token in changes:
            number = at % len(lines)
            head, colon, _ = lines[number].partition(":")
            lines[number] = f"{head}: {token}" if colon and at % 3 else f"{token}\n{lines[number]}"
        path.write_text("\n".join(lines), encoding="utf-8")
        readable(path)

    change = st.tuples(st.integers(0, 9999), st.sampled_from(ODD_TOKENS))
    fuzzing.fuzz(
        st.tuples(st.integers(0, len(TEXTS) - 1), st.lists(change, min_size=1, max_size=2)), check
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("queue_size: 8", f"queue_size: {'9' * 5000}", "queue_size"),
        ("queue_size: 8", f"queue_size: 0x{'f' * 5000}", "queue_size"),
        ("queue_size: 8", f"queue_size: {'1:' * 4000}1", "queue_size"),
        ("bundle: part.onnx", 'bundle: "part\\0.onnx"', "recipes.flange.top.bundle"),
        ("bundle: part.onnx", 'bundle: "part\\uD800.onnx"', "recipes.flange.top.bundle"),
        ("verdicts: tcp://127.0.0.1:5555", 'verdicts: "ipc://\\0"', "sockets.verdicts"),
        ("verdicts: tcp://127.0.0.1:5555", 'verdicts: "ipc://a\\0b"', "sockets.verdicts"),
        ("verdicts: tcp://127.0.0.1:5555", f"verdicts: ipc://{'p' * 200}", "sockets.verdicts"),
        ("source: 0", 'source: "a\\0b"', r"cameras\[0\].source"),
    ],
)
def test_what_stopped_an_earlier_reader_is_named_with_line_key_and_cure(path, old, new, key):
    text = (ROOT / "config" / "station.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    line = text[: text.index(old)].count("\n") + 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"station\.yaml:{line}: {key}: .{{10,}}") as caught:
        load_station(path)
    assert len(str(caught.value)) < 500
    readable(path)


def test_a_source_longer_than_a_file_name_is_no_error_of_the_reader(path):
    text = (ROOT / "config" / "station.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("source: 0", f"source: {'x' * 5000}.avi"), encoding="utf-8")
    readable(path)


def test_a_station_file_that_is_a_pipe_or_has_no_end_is_refused_at_once(path):
    os.mkfifo(path)
    for odd in (path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is no file"):
            load_station(odd)
    path.unlink()
    path.write_bytes(b"#" * 2**21)
    with pytest.raises(ConfigError, match="more than a megabyte"):
        load_station(path)
