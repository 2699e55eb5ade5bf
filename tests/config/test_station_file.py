from __future__ import annotations

import time
from pathlib import Path

import pytest

from inspector.config.cameras.folder import FolderCamera
from inspector.config.station_file import load_station
from inspector.errors import ConfigError, Problems
from tests.paths import ROOT

GOOD = """\
station: line-1
queue_size: 4
cameras:
  - name: top
    kind: folder
    path: parts
recipes:
  flange:
    top:
      bundle: flange.onnx
recipe: flange
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "station.yaml"
    path.write_text(text, encoding="utf-8")
    return load_station(path)


def test_a_video_beside_the_station_file_is_found_and_other_sources_are_left_alone(tmp_path):
    (tmp_path / "line.avi").write_bytes(b"video")
    for source, expected in [
        ("line.avi", str(tmp_path / "line.avi")),
        ("elsewhere.avi", "elsewhere.avi"),
        ("rtsp://camera/line.avi", "rtsp://camera/line.avi"),
        ("0", 0),
    ]:
        text = GOOD.replace("kind: folder", "kind: opencv").replace(
            "path: parts", f"source: {source}"
        )
        assert load(tmp_path, text).cameras[0].source == expected


def test_paths_are_relative_to_the_file(tmp_path):
    station = load(tmp_path, GOOD)
    assert isinstance(station.cameras[0], FolderCamera)
    assert station.cameras[0].path == tmp_path / "parts"
    assert station.active("top").bundle == tmp_path / "flange.onnx"
    assert station.active("top").limit_factor == 1.0
    absolute = load(tmp_path, GOOD.replace("path: parts", "path: /var/parts"))
    assert absolute.cameras[0].path == Path("/var/parts")


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("queue_size: 4", "quue_size: 4", 2, "quue_size", "unknown key"),
        ("queue_size: 4", "que_size: 4", 2, "que_size", "did you mean 'queue_size'?"),
        ("    path: parts", "    dedline_ms: 9", 6, "cameras[0].dedline_ms", "mean 'deadline_ms'?"),
        (
            "      bundle: flange.onnx",
            "      bundel: x",
            10,
            "recipes.flange.top.bundel",
            "'bundle'?",
        ),
        (
            "queue_size: 4",
            f"security:\n  peers:\n    plc: {{key: '{'k' * 40}', role: [listen]}}",
            4,
            "security.peers.plc.role",
            "did you mean 'roles'?",
        ),
        *(
            ("queue_size: 4", f"queue_size: {value}", 2, "queue_size", words)
            for value, words in (
                ("1:30", "YAML reads 1:30 as the number 90"),
                ("010", "YAML reads 010 as the number 8"),
                ("0x1F", "YAML reads 0x1F as the number 31"),
                ("0b11", "YAML reads 0b11 as the number 3"),
                ("1_000", "such as 1000, or put it in quotes if it is text: '1_000'"),
                (".inf", "no finite number"),
                ("2026-11-29", "as a date; put it in quotes if it is a name: '2026-11-29'"),
                ("1e3", "must be a whole number in decimal digits (found '1e3')"),
                ("0o17", "must be a whole number in decimal digits (found '0o17')"),
            )
        ),
        ("name: top", "name: no", 4, "cameras[0].name", "YAML reads no as true or false"),
        ("name: top", "name: ~", 4, "cameras[0].name", "put it in quotes: '~'"),
        *(
            (old, new, line, key, "is empty; give a value, or leave the key out")
            for old, new, line, key in (
                ("name: top", "name:", 4, "cameras[0].name"),
                # These have a default, which nobody means who left the value for later.
                ("queue_size: 4", "metrics:", 2, "metrics"),
                ("queue_size: 4", "metrics: # later", 2, "metrics"),
                ("queue_size: 4", "security:", 2, "security"),
                ("queue_size: 4", "security: {secret_key:}", 2, "security.secret_key"),
                ("queue_size: 4", "sockets: {queries: }", 2, "sockets.queries"),
                ("path: parts", "path: parts\n    rate_hz:", 7, "cameras[0].rate_hz"),
                ("cameras:\n", "cameras:\n  -\n", 4, "cameras[0]"),
            )
        ),
        ("  flange:\n", "  on:\n", 8, "on", "as true or false, not as a name; put it in quotes"),
        ("  flange:\n", "  12:\n", 8, "12", "as a number, not as a name; put it in quotes: '12'"),
        ("queue_size: 4", "queue_size: many", 2, "queue_size", "'many'"),
        (
            "    path: parts",
            "    path: parts\n    trigger: software\n    latency_ms: 900\n    deadline_ms: 900",
            8,
            "cameras[0].latency_ms",
            "900 is no less than deadline_ms 900: no trigger could have its verdict in time",
        ),
        ("queue_size: 4", "queue_size: 0", 2, "queue_size", "greater than or equal to 1"),
        ("    path: parts", "    pth: parts", 6, "cameras[0].pth", "unknown key"),
        ("kind: folder", "kind: pigeon", 5, "cameras[0].kind", "'opencv', 'folder', 'simulator'"),
        ("name: top", "name: top/left", 4, "cameras[0].name", "top/left"),
        ("station: line-1\n", "", 1, "station", "missing"),
        ("recipe: flange\n", "recipe: disc\n", 11, "recipe", "'disc' is not among the recipes"),
        (
            "      bundle: flange.onnx",
            "      bundle: flange.onnx\n      limit_factor: 3",
            11,
            "recipes.flange.top.limit_factor",
            "less than or equal to 2",
        ),
        *(
            (
                "      bundle: flange.onnx",
                f"      bundle: flange.onnx\n      sizes: [1280x1024, {size}]",
                11,
                "recipes.flange.top.sizes[1]",
                words,
            )
            for size, words in (
                ("1024", "YAML reads 1024 as a number, but this must be text"),
                *((size, "such as 1280x1024") for size in ("640 x 480", "0640x480", "'640×480'")),
            )
        ),
        (
            "    top:\n",
            "    side:\n",
            9,
            "recipes.flange.side",
            "is for cameras side; the station has top",
        ),
        (
            "    top:\n      bundle: flange.onnx\n",
            "    {}\n",
            8,
            "recipes.flange",
            "is for cameras none; the station has top",
        ),
        (
            "queue_size: 4",
            "sockets: {verdicts: 'tcp://0.0.0.0'}",
            2,
            "sockets.verdicts",
            "must be an address such as tcp://127.0.0.1:5555",
        ),
        (
            "queue_size: 4",
            "sockets: {commands: 'tcp://0.0.0.0:5557'}",
            2,
            "sockets.commands",
            "can be reached from other machines, which needs keys",
        ),
        (
            "queue_size: 4",
            "queue_size: yes",
            2,
            "queue_size",
            "whole number (found yes, which YAML reads as true or false)",
        ),
        ("queue_size: 4", "queue_size: '4'", 2, "queue_size", "must be a whole number (found '4')"),
        ("queue_size: 4", "queue_size: 1.5", 2, "queue_size", "must be a whole number (found 1.5)"),
        ("queue_size: 4", "self_test: {every_s: .nan}", 2, "self_test.every_s", "finite number"),
        (
            "queue_size: 4",
            "sockets: {images: 'tcp://127.0.0.1:65536'}",
            2,
            "sockets.images",
            "must be an address",
        ),
        ("queue_size: 4", "metrics: 127.0.0.1:70000", 2, "metrics", "such as 127.0.0.1:9464"),
        ("queue_size: 4", "metrics: '*:9464'", 2, "metrics", "this machine's own, such as"),
        (
            "queue_size: 4",
            "security:\n  peers:\n    plc: {key: short, roles: [listen]}",
            4,
            "security.peers.plc.key",
            "40 characters of a public key, as 'inspector keygen' prints",
        ),
        (
            "queue_size: 4",
            f"security:\n  peers:\n    plc: {{key: '{'k' * 40}', roles: []}}",
            4,
            "security.peers.plc.roles",
            "is empty; add at least one",
        ),
        (
            "queue_size: 4",
            f"security:\n  peers:\n    a/b: {{key: '{'k' * 40}', roles: [listen]}}",
            4,
            "security.peers.a/b",
            "must be letters, digits",
        ),
        (
            "cameras:\n  - name: top\n    kind: folder\n    path: parts\n",
            "cameras: []\n",
            3,
            "cameras",
            "is empty; add at least one",
        ),
        (
            "recipes:\n  flange:\n    top:\n      bundle: flange.onnx\n",
            "recipes: {}\n",
            7,
            "recipes",
            "is empty; add at least one",
        ),
        (
            "cameras:\n  - name: top\n",
            "cameras:\n  - name: 7\n",
            4,
            "cameras[0].name",
            "put it in quotes: '7'",
        ),
        ("    kind: folder\n", "", 4, "cameras[0].kind", "missing; add it"),
        ("queue_size: 4", "sockets: many", 2, "sockets", "must be keys and values (found 'many')"),
        (
            "    kind: folder\n    path: parts\n",
            "    kind: faulty\n    steps:\n      - {do: frames}\n      - {do: lose}\n",
            7,
            "cameras[0].steps[0]",
            "what follows is never reached",
        ),
        (
            "kind: folder\n    path: parts",
            "kind: opencv\n    source: -1",
            6,
            "cameras[0].source",
            "must be a device number, 0 to 999 (found -1)",
        ),
        (
            "queue_size: 4",
            "sockets: {images: 'tcp://127.0.0.1:5555'}",
            2,
            "sockets.images",
            "is the address of verdicts too; each needs one of its own",
        ),
    ],
)
def test_wrong_key_is_named_with_file_and_line(tmp_path, old, new, line, key, words):
    assert old in GOOD
    with pytest.raises((ConfigError, Problems)) as caught:
        load(tmp_path, GOOD.replace(old, new))
    first = str(caught.value).splitlines()
    assert caught.value.exit_code == 10
    wanted = [text for text in first if f"station.yaml:{line}: {key}: " in text and words in text]
    assert wanted, first


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5557", "tcp://*:5557", "tcp://eth0:5557"])
def test_sockets_beyond_loopback_need_a_secret_key(tmp_path, address):
    sockets = f"sockets: {{commands: '{address}'}}"
    with pytest.raises(ConfigError, match="run 'inspector keygen'"):
        load(tmp_path, GOOD.replace("queue_size: 4", sockets))
    secured = f"{sockets}\nsecurity: {{secret_key: keys/station.secret}}"
    station = load(tmp_path, GOOD.replace("queue_size: 4", secured))
    assert station.sockets.beyond_loopback == ["commands"]
    assert station.security.secret_key == tmp_path / "keys" / "station.secret"


@pytest.mark.parametrize(
    ("keys", "where", "words"),
    [
        ("source: on", "6: cameras[0].source", "YAML reads on as true or false, but this must be"),
        ("source: 1.5", "6: cameras[0].source", "put it in quotes: '1.5'"),
        ("source: [0]", "6: cameras[0].source", "must be text"),
        (
            "source: 0\n    trigger: off",
            "7: cameras[0].trigger",
            "'free' or 'software' (found off, which YAML reads as true or false)",
        ),
        ("source: 0\n    trigger: true", "7: cameras[0].trigger", "(found true)"),
    ],
)
def test_a_word_of_yaml_is_told_in_one_line_as_it_was_written(tmp_path, keys, where, words):
    text = GOOD.replace("kind: folder", "kind: opencv").replace("path: parts", keys)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert not isinstance(caught.value, Problems)
    assert f"station.yaml:{where}: " in str(caught.value)
    assert words in str(caught.value)
    kind = GOOD.replace("kind: folder", "kind: no")
    with pytest.raises(ConfigError, match=r"kind: must be one of .*\(found no, which YAML reads"):
        load(tmp_path, kind)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("rtsp://a:p #x@h/", "put the value in quotes"),
        # Here YAML leaves what may be a host and its port.
        ("rtsp://a:1234 # x@h/", "put the value in quotes"),
        ("rtsp://a:p@x #y@h/ # the top one", "put the value in quotes"),
        ("rtspsrc location=rtsp://h user-pw=a # b ! appsink", "put the value in quotes"),
        ("http://h/?password=a #b", "put the value in quotes"),
        *(
            (url, "names no host; a URL is rtsp://USER:PASSWORD@HOST/PATH, in quotes")
            for url in (
                "rtsp://a:p",
                "rtsp://",
                "rtsp://a:p@/live",
                "'http://:80/'",
                "RTSPS://a:p@",
            )
        ),
    ],
)
def test_a_url_that_yaml_cut_off_is_refused(tmp_path, source, words):
    text = GOOD.replace("kind: folder", "kind: opencv")
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, text.replace("path: parts", f"source: {source}"))
    assert "station.yaml:6: cameras[0].source: " in str(caught.value)
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("rtsp://h/live # the top camera", "rtsp://h/live"),
        ("'rtsp://a:p #x@h/'", "rtsp://a:p #x@h/"),
        ("rtsp://a:p#x@10.0.0.5:554/live?a=b", "rtsp://a:p#x@10.0.0.5:554/live?a=b"),
        ("rtsp://a:p/w@h:554/live", "rtsp://a:p/w@h:554/live"),
        ("http://[::1]:80/?user=a@b.c", "http://[::1]:80/?user=a@b.c"),
        ("udp://@:5000", "udp://@:5000"),
        ("rtspsrc location=rtsp://h ! appsink", "rtspsrc location=rtsp://h ! appsink"),
    ],
)
def test_a_whole_url_is_taken_as_it_is(tmp_path, written, source):
    text = GOOD.replace("kind: folder", "kind: opencv").replace("path: parts", f"source: {written}")
    assert load(tmp_path, text).cameras[0].source == source


def test_every_wrong_key_is_reported_together(tmp_path):
    text = GOOD.replace("queue_size: 4", "queue_size: x").replace(
        "kind: folder", "kind: folder\n    lop: 1"
    )
    with pytest.raises(Problems) as caught:
        load(tmp_path, text)
    assert [str(p).split(": ")[1] for p in caught.value.problems] == [
        "queue_size",
        "cameras[0].lop",
    ]


def test_duplicate_key_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"station\.yaml:3: queue_size: key stands twice"):
        load(tmp_path, GOOD.replace("queue_size: 4", "queue_size: 4\nqueue_size: 5"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1\n", "not YAML"),
        (b"", "expected keys and values"),
        (b"- 1\n", "expected keys and values"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: \x07\n", "not YAML"),
    ],
)
def test_file_that_is_no_yaml_mapping_is_one_line(tmp_path, content, words):
    path = tmp_path / "station.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_station(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nstation: 2024-13-45\n", 2, "'2024-13-45' is not a valid timestamp"),
        ("a: 0x_\n", 1, "'0x_' is not a valid int"),
        ("a: !!bool maybe\n", 1, "'maybe' is not a valid bool"),
        ("a: !!timestamp soon\n", 1, "'soon' is not a valid timestamp"),
        ("!!int : x\n", 1, "'' is not a valid int"),
        ("a: 1\n? [a, b]\n: c\n", 2, "a key must be a word"),
        ("b:\n  - ? {a: b}\n    : c\n", 2, "a key must be a word"),
        ("b: 1\na: &a [*a]\n", 2, "contains itself"),
        ("a: &x {<<: *x}\n", 1, "contains itself"),
        ("[" * 3000, 1, "nested too deeply"),
        ("a:\n" + "- " * 3000, 2, "nested too deeply"),
    ],
)
def test_yaml_that_its_reader_stumbles_over_is_one_line(tmp_path, text, line, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, text)
    assert f"station.yaml:{line}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_of_aliases_take_no_time(tmp_path):
    lists = ["a0: &a0 [x, x]"]
    lists += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    begun = time.monotonic()
    with pytest.raises(Problems, match="a11: unknown key"):
        load(tmp_path, "\n".join(lists))
    assert time.monotonic() - begun < 2.0


def test_alias_of_what_stands_elsewhere_is_welcome(tmp_path):
    text = GOOD.replace("    top:\n", "    top: &top\n") + "  \n"
    text = text.replace("recipe: flange", "  disc: {top: *top}\nrecipe: disc")
    assert load(tmp_path, text).active("top").bundle == tmp_path / "flange.onnx"


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_station(tmp_path / "none.yaml")


def test_two_cameras_of_one_name_are_refused(tmp_path):
    camera = "  - name: top\n    kind: folder\n    path: parts\n"
    with pytest.raises(ConfigError, match=r":7: cameras\[1\]\.name: two cameras are called top"):
        load(tmp_path, GOOD.replace(camera, camera * 2))


@pytest.mark.parametrize("name", ["demo.yaml", "station.yaml"])
def test_the_files_we_ship_load(name):
    assert load_station(ROOT / "config" / name).cameras


def test_a_picture_in_the_place_of_a_file_of_text_is_called_so(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(ConfigError, match=r"s\.yaml: no text, but a picture"):
        load_station(path)


@pytest.mark.parametrize(
    ("sockets", "queries"),
    [
        ("", "tcp://127.0.0.1:5558"),
        ("sockets: {}", "tcp://127.0.0.1:5558"),
        # A second station on the machine has addresses of its own, and may not take the first's.
        ("sockets: {commands: 'tcp://127.0.0.1:6557'}", None),
        ("sockets: {queries: null}", None),
        ("sockets: {queries: 'tcp://127.0.0.1:6558'}", "tcp://127.0.0.1:6558"),
    ],
)
def test_a_file_that_names_no_socket_has_all_of_them(tmp_path, sockets, queries):
    found = load(tmp_path, GOOD.replace("queue_size: 4", sockets)).sockets
    assert found.queries == queries
    assert found.addresses.get("queries") == queries
    assert len(found.addresses) == (3 if queries is None else 4)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5558", "tcp://*:5558"])
def test_queries_beyond_loopback_need_a_secret_key_too(tmp_path, address):
    sockets = f"sockets: {{queries: '{address}'}}"
    with pytest.raises(ConfigError, match=r"sockets\.queries: can be reached from other machines"):
        load(tmp_path, GOOD.replace("queue_size: 4", sockets))
