"""Whatever a bundle holds, it is loaded, or refused with one line and exit code 11 to 18."""

from __future__ import annotations

import base64
import copy
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inspector.config.station_file import load_station
from inspector.detection import bundle
from inspector.detection.detector import Detector
from inspector.errors import BundleError
from inspector.judging.judge import Judge
from tests import fuzzing, running, tiny

pytestmark = pytest.mark.timeout(0 if "INSPECTOR_FUZZ_S" in os.environ else 120)

MODEL = tiny.model()
MANIFEST = json.loads(json.dumps(tiny.manifest(MODEL)))
PATH = Path("part.onnx")


def sealed(model: onnx.ModelProto, manifest: str | bytes | None = None) -> bytes:
    """The file of a bundle; the manifest may be anything."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    body = made.SerializeToString()
    data = json.dumps(MANIFEST).encode() if manifest is None else manifest
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    # By hand, since protobuf refuses to write what is no UTF-8, and reads it all the same.
    inner = field(1, bundle.MANIFEST_KEY.encode()) + field(2, text)
    return bundle.seal(body + field(14, inner))


def field(number: int, data: bytes) -> bytes:
    """One field of a protocol buffer, of bytes."""
    size, head = len(data), bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes([*head, size]) + data


def one_file(data: bytes) -> Callable[[Path], bytes]:
    """A disk with the bundle and nothing beside it."""

    def read_file(path: Path) -> bytes:
        if path != PATH:
            raise FileNotFoundError(2, "no such file")
        return data

    return read_file


def loadable(data: bytes, judge: Callable[[Detector], Any] = lambda _: None) -> None:
    """The bundle can be loaded and used, or is refused as the product promises."""
    try:
        detector = Detector.load(PATH, "cpu", 1, read_file=one_file(data))
        judge(detector)
    except BundleError as error:
        assert str(error).startswith(f"{PATH}: ")
        assert "\n" not in str(error)
        assert len(str(error)) < 3000
        assert error.exit_code in (11, 12, 18)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Detector], Any]:
    """What a station makes of a detector before the first part, and of the first part."""
    folder = tmp_path_factory.mktemp("fuzz")
    parts = running.write_parts(folder / "parts", tiny.good_picture())
    made = tiny.write_bundle(folder / "tiny.onnx")
    station = load_station(
        running.write_station(folder / "s.yaml", made, running.folder_camera(parts))
    )

    def use(detector: Detector) -> None:
        one = Judge(station, station.cameras[0], detector)
        one.self_test(parts_wait=False)
        verdict = one.judge(tiny.bad_picture())
        one.drift.note(verdict.verdict, verdict.score)
        assert one.drift.detail() is not None

    return use


def test_any_bytes_behind_a_valid_seal():
    whole = sealed(MODEL)[: -bundle.SEAL_SIZE]
    fuzzing.fuzz(
        st.one_of(st.binary(max_size=300), fuzzing.mutated(whole)),
        lambda body: loadable(bundle.seal(body)),
    )


def test_any_value_of_the_manifest(judge):
    def check(changes: list[tuple[int, Any]]) -> None:
        document = copy.deepcopy(MANIFEST)
        for at, value in changes:
            spots = fuzzing.places(document)
            fuzzing.put(document, spots[at % len(spots)], value)
        loadable(sealed(MODEL, json.dumps(document, ensure_ascii=False)), judge)

    change = st.tuples(st.integers(0, 9999), fuzzing.ODD_VALUES)
    fuzzing.fuzz(st.lists(change, min_size=1, max_size=3), check)


def test_any_bytes_for_a_manifest():
    whole = json.dumps(MANIFEST).encode()
    fuzzing.fuzz(
        st.one_of(st.binary(max_size=100), fuzzing.mutated(whole)),
        lambda data: loadable(sealed(MODEL, data)),
    )


@pytest.mark.long
def test_any_bytes_for_a_golden_image():
    whole = base64.b64decode(MANIFEST["golden"][0]["png"])

    def check(data: bytes) -> None:
        document = copy.deepcopy(MANIFEST)
        document["golden"][0]["png"] = base64.b64encode(data).decode()
        loadable(sealed(MODEL, json.dumps(document)))

    fuzzing.fuzz(st.one_of(st.binary(max_size=100), fuzzing.mutated(whole)), check)


def edited(edit: Callable[[onnx.ModelProto], Any]) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    edit(model)
    return sealed(model)


def outside(model: onnx.ModelProto) -> None:
    bank = model.graph.initializer[0]
    bank.ClearField("raw_data")
    bank.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "16")):
        entry = bank.external_data.add()
        entry.key, entry.value = key, value


def outside_in_an_attribute(model: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.zeros(1, np.float32), "elsewhere")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    entry = value.external_data.add()
    entry.key, entry.value = "location", "/dev/zero"
    model.graph.node.append(helper.make_node("Constant", [], ["elsewhere"], value=value))


def string_output(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "number"
    model.graph.node.append(helper.make_node("Cast", ["number"], ["score"], to=TensorProto.STRING))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING


def undeclared_string_output(model: onnx.ModelProto) -> None:
    string_output(model)
    model.graph.output[0].ClearField("type")


def loop(model: onnx.ModelProto) -> None:
    """A loop that never ends, around the score."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["held"], ["held_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held_on", TensorProto.FLOAT, ["N"]),
        ],
    )
    model.graph.node[-1].output[0] = "once"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "true"))
    model.graph.node.append(helper.make_node("Loop", ["", "true", "once"], ["score"], body=body))


def loop_in_a_function(model: onnx.ModelProto) -> None:
    holder = onnx.ModelProto()
    holder.CopyFrom(MODEL)
    loop(holder)
    node = holder.graph.node[-1]
    made = helper.make_function(
        "own",
        "Forever",
        ["true", "once"],
        ["score"],
        [node],
        [helper.make_opsetid("", 17)],
    )
    model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "true"))
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(helper.make_node("Forever", ["true", "once"], ["score"], domain="own"))


def branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["once"], ["kept"])],
        "inner",
        [],
        [helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["N"])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "true"))
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(
        helper.make_node("If", ["true"], ["score"], then_branch=inner, else_branch=inner)
    )


def sparse_bank(model: onnx.ModelProto) -> None:
    one = model.graph.sparse_initializer.add()
    one.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "values"))
    one.values.data_location = TensorProto.EXTERNAL


def huge_bank(model: onnx.ModelProto) -> None:
    extra = model.graph.initializer.add()
    extra.name, extra.data_type = "extra", TensorProto.FLOAT
    extra.dims.extend([2**40, 2**20])


def unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def no_output_shape(model: onnx.ModelProto) -> None:
    model.graph.output[1].type.tensor_type.shape.dim.add().dim_value = 7


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (outside, "lies in another file"),
        (outside_in_an_attribute, "lies in another file"),
        (sparse_bank, "lies in another file"),
        (string_output, "'score' is not float32"),
        (undeclared_string_output, "'score' is not float32"),
        (loop, "might never end"),
        (branch, "might never end"),
        (loop_in_a_function, "functions of its own"),
        (huge_bank, "'extra' is damaged"),
        (no_output_shape, "'anomaly_map' is not float32 with 3 axes"),
    ],
)
def test_what_no_bundle_may_hold_is_refused_before_it_is_run(edit, words):
    with pytest.raises(BundleError, match=words) as caught:
        bundle.read(PATH, read_file=lambda _: edited(edit))
    assert caught.value.exit_code == 11


def bomb() -> bytes:
    """A PNG of some bytes that says it has 60,000 rows and columns."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("png", "words"),
    [
        ("", "cannot be read"),
        ("not base64 é", "cannot be read"),
        (base64.b64encode(b"no picture").decode(), "cannot be read"),
        (base64.b64encode(base64.b64decode(MANIFEST["golden"][0]["png"])[:60]).decode(), ""),
        (base64.b64encode(bomb()).decode(), "is not 64x64 px"),
    ],
)
def test_a_golden_image_that_is_no_picture_is_refused(png, words):
    document = copy.deepcopy(MANIFEST)
    document["golden"][0]["png"] = png
    with pytest.raises(BundleError, match=f"golden image 'good' .*{words}") as caught:
        bundle.read(PATH, read_file=lambda _: sealed(MODEL, json.dumps(document)))
    assert caught.value.exit_code == 11


@pytest.mark.parametrize(
    "changes",
    [
        {"golden_tolerance": 1e9},
        {"calibration": MANIFEST["calibration"] | {"scores": [-1e300, 0.5]}},
        {"calibration": MANIFEST["calibration"] | {"good_parts": 10**12}},
        {"calibration": MANIFEST["calibration"] | {"good_parts": -5}},
    ],
)
def test_a_number_beyond_its_bounds_is_refused(changes):
    document = copy.deepcopy(MANIFEST) | changes
    with pytest.raises(BundleError, match="manifest key"):
        bundle.read(PATH, read_file=lambda _: sealed(MODEL, json.dumps(document)))


def test_a_constant_of_an_unknown_type_is_refused():
    with pytest.raises(BundleError, match="refuses the model") as caught:
        Detector.load(PATH, "cpu", 1, read_file=one_file(edited(unknown_type)))
    assert caught.value.exit_code == 11


def test_what_a_bundle_holds_is_told_in_one_line_of_a_bearable_length():
    document = copy.deepcopy(MANIFEST)
    for name in ("a\nb", "x" * 5000):
        document["evaluation"] = {name: None}
        with pytest.raises(BundleError, match="evaluation") as caught:
            bundle.read(PATH, read_file=one_file(sealed(MODEL, json.dumps(document))))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) <= 1000


def test_the_bundle_that_all_of_these_are_made_of_is_sound(judge):
    found: list[Detector] = []
    loadable(sealed(MODEL), lambda detector: found.append(detector) or judge(detector))
    assert len(found) == 1
