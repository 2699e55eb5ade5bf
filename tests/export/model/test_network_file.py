"""A network of one's own: its maps are those of the file, and what cannot serve is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.model.backbone import Backbone
from inspector.errors import WeightsError
from tests.export.networks import Network, convolutional, describe, transformer

CPU = torch.device("cpu")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def in_float64(
    network: Network, images: np.ndarray, scales: tuple[float, ...], mean: Any, std: Any
) -> list[torch.Tensor]:
    """Every map by the definition: RGB in 0..1, normalised, at full and at half resolution."""
    rgb = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (mean, std))
    found = []
    for scale in scales:
        shown = rgb if scale == 1.0 else torch.nn.functional.avg_pool2d(rgb, 2)
        found += network.reference((shown - mean) / std).values()
    return found


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("props", "mean", "std"),
    [
        ({}, *IMAGENET),
        ({"mean": "0.5, 0.4,0.3", "std": "0.2,0.3,0.4"}, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        ({"std": "1,1,1", "author": "us"}, IMAGENET[0], (1, 1, 1)),
    ],
)
def test_maps_are_those_of_the_file(
    props: dict[str, str], mean: Any, std: Any, tmp_path: Path
) -> None:
    network = convolutional(tmp_path / "mine.onnx", edit=describe(**props))
    backbone = Backbone(network.path, (8, 16), (1.0, 0.5), None)
    images = noise(3, 64, 96)
    backbone.check_size((64, 96))
    found = backbone.maps(images, CPU)
    expected = in_float64(network, images, (1.0, 0.5), mean, std)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4)
    assert backbone.channels == (12, 20, 12, 20)
    assert backbone.weights_sha256 == hashlib.sha256(network.path.read_bytes()).hexdigest()
    assert backbone.name == "mine.onnx"


@pytest.mark.parametrize(
    ("patch", "size", "near"), [(16, (96, 64), "512x512"), (14, (224, 448), "448x448")]
)
def test_a_transformer_has_its_patches_grid(
    patch: int, size: tuple[int, int], near: str, tmp_path: Path
) -> None:
    network = transformer(tmp_path / "vit.onnx", patch)
    backbone = Backbone(network.path, (patch,), (1.0, 0.5), None)
    images = noise(2, *size)
    backbone.check_size(size)
    found = backbone.maps(images, CPU)
    assert [tuple(one.shape[2:]) for one in found] == [
        (size[0] // patch // by, size[1] // patch // by) for by in (1, 2)
    ]
    assert [level.patch_px for level in backbone.levels] == [patch, 2 * patch]
    for ours, theirs in zip(found, in_float64(network, images, (1.0, 0.5), *IMAGENET), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4)
    if patch == 14:
        with pytest.raises(WeightsError, match=f"multiples of 224: give --size {near}"):
            backbone.check_size((512, 512))


@pytest.mark.parametrize("opset", [13, 16])
def test_an_older_file_is_brought_to_our_opset(opset: int, tmp_path: Path) -> None:
    maps = []
    for version in (opset, 17):
        path = convolutional(tmp_path / f"{version}.onnx", opset=version).path
        backbone = Backbone(path, (8, 16), (1.0,), None)
        maps.append(backbone.maps(noise(1, 64, 64), CPU))
        assert backbone.network.model.opset_import[0].version == 17
    for one, other in zip(*maps, strict=True):
        assert torch.equal(one, other)


def test_a_file_for_one_size_takes_that_size_at_one_scale(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "fixed.onnx", sides=(64, 96)).path
    backbone = Backbone(path, (8, 16), (1.0,), None)
    assert backbone.sides == (64, 96)
    backbone.check_size((64, 96))
    with pytest.raises(WeightsError, match="64x96 px, not 96x64; give --size 64x96"):
        backbone.check_size((96, 64))


def test_the_classifiers_head_is_left_out(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "mine.onnx").path
    backbone = Backbone(path, (8,), (1.0,), None)
    kept = backbone.network.model.graph
    assert [value.name for value in kept.output] == ["stride_8"]
    assert {tensor.name for tensor in kept.initializer} == {"w1", "w2"}
    assert "w3" not in {name for node in kept.node for name in node.input}


def renamed(old: str, new: str) -> Any:
    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        for value in model.graph.output:
            value.name = new if value.name == old else value.name

    return edit


def set_output(name: str, kind: int, shape: list[Any]) -> Any:
    def edit(model: onnx.ModelProto) -> None:
        value = next(one for one in model.graph.output if one.name == name)
        value.CopyFrom(helper.make_tensor_value_info(name, kind, shape))

    return edit


def append(kind: str, output: str, inputs: tuple[str, ...] = ("stride_8",), **given: Any) -> Any:
    """Put an operator between the map of stride 8 and its output."""

    def edit(model: onnx.ModelProto) -> None:
        renamed("stride_8", "inner")(model)
        next(one for one in model.graph.output if one.name == "inner").name = "stride_8"
        names = ["inner" if name == "stride_8" else name for name in inputs]
        model.graph.node.append(helper.make_node(kind, names, [output], **given))

    return edit


def add_constant(name: str, value: Any) -> Any:
    return lambda model: model.graph.initializer.append(
        numpy_helper.from_array(np.asarray(value), name)
    )


def both(*edits: Any) -> Any:
    return lambda model: [edit(model) for edit in edits]


def branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["chosen"])],
        "one",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
    )
    add_constant("yes", True)(model)
    append("If", "stride_8", ("yes",), then_branch=inner, else_branch=inner)(model)


def move_out(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    tensor.ClearField("raw_data")


def spoil(model: onnx.ModelProto) -> None:
    values = numpy_helper.to_array(model.graph.initializer[1]).copy()
    values.flat[7] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "w2"))


def use_opset(version: int) -> Any:
    return lambda model: setattr(model.opset_import[0], "version", version)


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"]))


def own_domain(model: onnx.ModelProto) -> None:
    append("Fast", "stride_8", domain="com.mine")(model)
    model.opset_import.append(helper.make_opsetid("com.mine", 1))


def own_function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function(
            "mine", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], model.opset_import
        )
    )


def byte_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def one_size_inside(model: onnx.ModelProto) -> None:
    """Claims to take any size, as a trace may, and reshapes to one."""
    add_constant("tokens", np.array([-1, 12 * 7 * 9], dtype=np.int64))(model)
    append("Reshape", "stride_8", ("stride_8", "tokens"))(model)


def mix_batch(model: onnx.ModelProto) -> None:
    append("ReduceMean", "mixed", axes=[0])(model)
    model.graph.node.append(helper.make_node("Add", ["inner", "mixed"], ["stride_8"]))


def last_axes_turned(model: onnx.ModelProto) -> None:
    append("Transpose", "stride_8", perm=[0, 1, 3, 2])(model)


REFUSED = {
    "loop or branch": (branch, "a loop or a branch (If)"),
    "external data": (move_out, "lies in another file, and a bundle is one file; export it with"),
    "functions": (own_function, "functions of its own"),
    "foreign operator": (own_domain, "operator Fast is of com.mine"),
    "shape by picture": (append("NonZero", "stride_8"), "whose shape depends on the picture"),
    "chance": (append("RandomNormalLike", "stride_8"), "draws random numbers"),
    "NaN": (spoil, "constant 'w2' is damaged"),
    "old opset": (use_opset(11), "opset 11, and a bundle takes 13 to 17; export it with opset 17"),
    "new opset": (use_opset(18), "opset 18, and a bundle takes 13 to 17"),
    "invalid graph": (append("Relu", "stride_8", ("nowhere",)), "not a valid ONNX graph"),
    "two inputs": (second_input, "has inputs picture, mask; one input is expected"),
    "bytes": (byte_input, "input picture is not float32 [N, 3, H, W]"),
    "no maps": (
        both(renamed("stride_8", "a"), renamed("stride_16", "stride_x")),
        "no output is a feature map; it has logits, stride_x, a; name its maps",
    ),
    "no such map": (
        renamed("stride_8", "stride_32"),
        "no output stride_8; it has stride_16, stride_32; give --strides 16,32",
    ),
    "rank": (set_output("stride_8", TensorProto.FLOAT, ["n", 12, "t"]), "stride_8 has 3 axes"),
    "kind": (
        set_output("stride_16", TensorProto.FLOAT16, ["n", 20, "h", "w"]),
        "output stride_16 is not float32",
    ),
    "another stride": (
        append("AveragePool", "stride_8", kernel_shape=[2, 2], strides=[2, 2]),
        "output stride_8 has shape [1, 12, 4, 8] for pictures of 64x128 px; expected [N, C, 8, 16]",
    ),
    "turned": (last_axes_turned, "has shape [1, 12, 16, 8]"),
    "one size inside": (one_size_inside, "does not run on 1 pictures of 64x128 px"),
    "batch": (mix_batch, "output stride_8 of a picture depends on the others in its batch"),
    "words for a mean": (describe(mean="imagenet"), "its metadata say mean = 'imagenet'"),
    "two means": (describe(mean="0.5,0.5"), "expected three numbers"),
    "no spread": (describe(std="1,0,1"), "its metadata say std = '1,0,1'"),
    "infinite mean": (describe(mean="1,inf,1"), "its metadata say mean"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_serve_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    edit, words = REFUSED[name]
    path = convolutional(tmp_path / "mine.onnx", edit=edit).path
    with pytest.raises(WeightsError) as caught:
        Backbone(path, (8, 16), (1.0, 0.5), None)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message, message
    assert "\n" not in message and "; " in message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch": 1}, "takes 1 picture at a time only"),
        ({"batch": 4}, "takes 4 pictures at a time only"),
        ({"sides": (64, 96)}, "takes pictures of 64x96 px only, so it sees no half picture"),
        ({"sides": (60, 96)}, "takes pictures of 60x96 px; sides must be multiples of 32"),
        ({"sides": (64, "w")}, "one side of its pictures is fixed and one is free"),
    ],
)
def test_a_file_for_other_pictures_is_refused(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = convolutional(tmp_path / "mine.onnx", **given).path
    with pytest.raises(WeightsError) as caught:
        Backbone(path, (8, 16), (1.0, 0.5), None)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x08", b"PK\x03\x04"])
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not an ONNX file"):
        Backbone(path, (16,), (1.0,), None)
    with pytest.raises(WeightsError, match="no such network file; give its place"):
        Backbone(tmp_path / "absent.onnx", (16,), (1.0,), None)
    with pytest.raises(WeightsError, match="cannot read the network file"):
        Backbone(tmp_path, (16,), (1.0,), None)


def test_a_trace_that_keeps_sizes_inside_is_found_before_training(tmp_path: Path) -> None:
    """It takes the first size that is tried, and fails on that of the photos."""

    def edit(model: onnx.ModelProto) -> None:
        add_constant("fixed", np.zeros((1, 12, 8, 16), dtype=np.float32))(model)
        append("Add", "stride_8", ("stride_8", "fixed"))(model)

    backbone = Backbone(convolutional(tmp_path / "mine.onnx", edit=edit).path, (8,), (1.0,), None)
    with pytest.raises(WeightsError, match="does not run on 1 pictures of 96x160 px"):
        backbone.check_size((96, 160))
