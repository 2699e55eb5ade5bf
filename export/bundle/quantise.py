"""Backbone and φ in 8 bits: QDQ with uint8 activations and int8 weights, a scale for each channel.

ONNX Runtime and OpenVINO run this format on VNNI. It is not for GPUs: TensorRT takes no zero
points, and a GPU has fp16. The results φ(p), the measured distances and the map stay float32. The
limit is not set anew, so a bundle is proven as it is, or refused.
"""

from __future__ import annotations

import functools
import itertools
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from scipy.ndimage import uniform_filter

from export.bundle.graph_builder import IR_VERSION
from export.model.backbone import prefix
from inspector.detection.bundle import INPUT, OPSET
from inspector.verdict import Frame8

QUANTISED = ("Conv", "Clip", "Relu", "Add", "MaxPool")
DESCRIPTOR = ("Reshape", "Transpose", "MatMul")

NOISE = 0.01
"""Largest error of rounding, as a share of the averaged features' variance."""

FLOAT_SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Shares of the convolutions, from the input on, that stay float, tried in turn."""

CHECKED = 8
"""Pictures on which the error of rounding is measured."""


def quantise(graph: onnx.ModelProto, pictures: Sequence[Frame8]) -> onnx.ModelProto:
    """The graph with backbone and φ in 8 bits, ranges taken from ``pictures``.

    As many of the first layers stay float32 as are needed to keep the features. The first layers
    are the most sensitive to rounding, and in depthwise networks 8 bits do not speed them up.
    ``pictures`` are good parts at network size, uint8 BGR ``[H, W, 3]`` each.
    """
    nodes = _backbone_nodes(graph)
    projection = _projection(graph)
    # Each scale is a pass of its own through the network, from its own first layer on.
    passes = [
        [name for name in nodes if name.startswith(prefix(0.5)) is half] for half in (False, True)
    ]
    model = graph
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before = Path(folder) / "float.onnx"
        onnx.save(graph, before)
        exact = _features(graph, pictures[:CHECKED])
        for share in FLOAT_SHARES:
            kept = [*itertools.chain(*(_after(nodes, one, share) for one in passes)), *projection]
            after = Path(folder) / "int8.onnx"
            quantize_static(
                before,
                after,
                _RangePictures(pictures),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=kept,
                op_types_to_quantize=[*QUANTISED, *DESCRIPTOR],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                # VNNI multiplies signed weights by unsigned activations.
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
            )
            model = onnx.load(after)
            rounded = _features(model, pictures[:CHECKED])
            noise = [
                np.square(a - b).mean() / max(a.var(), 1e-12)
                for a, b in zip(exact, rounded, strict=True)
            ]
            if max(noise) <= NOISE:
                break
    onnx.checker.check_model(model, full_check=True)
    return model


def _after(nodes: Mapping[str, onnx.NodeProto], names: list[str], share: float) -> list[str]:
    """``names`` of one pass through the network, without those before this share of its layers."""
    convolutions = [name for name in names if nodes[name].op_type == "Conv"]
    if not convolutions:
        return []
    return names[names.index(convolutions[round(share * len(convolutions))]) :]


@functools.cache
def products_saturate() -> bool:
    """True where ONNX Runtime's 8-bit products saturate: on x86 processors without VNNI.

    Their instruction vpmaddubsw adds two neighbouring products in 16 bits. Products of large
    activations and large weights come out too small, and a proof may fail for that alone.
    """
    pixels = np.full((1, 64), 255, dtype=np.uint8)
    weights = np.full((64, 16), 127, dtype=np.int8)
    product = helper.make_graph(
        [helper.make_node("MatMulInteger", ["pixels", "weights"], ["sums"])],
        "probe",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, pixels.shape)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, (1, 16))],
        initializer=[numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(
        product, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = session.run(["sums"], {"pixels": pixels})[0]
    return not np.array_equal(sums, pixels.astype(np.int32) @ weights)


def _features(graph: onnx.ModelProto, pictures: Sequence[Frame8]) -> list[npt.NDArray[Any]]:
    """Averaged feature maps of the pictures, stacked, for each level."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    names = [node.input[0] for node in _flattened(graph)]
    del bare.graph.output[:]
    bare.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    session = InferenceSession(bare.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(names, {INPUT: picture[None]}) for picture in pictures]
    levels = [np.concatenate(level) for level in zip(*found, strict=True)]
    if any(name.endswith("/averaged") for name in names):
        return levels
    return [uniform_filter(level, (1, 1, 3, 3), mode="constant") for level in levels]


def _flattened(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The first node of φ at each level, by name; its input is the feature map."""
    nodes = (node for node in graph.graph.node if node.name.startswith("descriptor/"))
    # The quantiser sorts the nodes anew, and may change the order of the passes.
    return sorted(
        (node for node in nodes if node.name.endswith("/flat")), key=lambda node: node.name
    )


def _projection(graph: onnx.ModelProto) -> list[str]:
    """Names of φ's nodes whose features come straight from the backbone, without averages."""
    straight = (node for node in _flattened(graph) if not node.input[0].endswith("/averaged"))
    heads = [node.name.removesuffix("/flat") for node in straight]
    return [name for head in heads for name in (f"{head}/flat", f"{head}/patches", head)]


class _RangePictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pictures: Iterable[Frame8]) -> None:
        self._left = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None after the last."""
        picture = next(self._left, None)
        return None if picture is None else {INPUT: picture[None]}


def _backbone_nodes(graph: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Nodes before the feature maps that can be in 8 bits, by name, in the graph's order."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    found = set()
    left = [node.output[0] for node in _flattened(graph)]
    while left:
        for source in makers[left.pop()].input:
            node = makers.get(source)
            if node is not None and node.name not in found:
                found.add(node.name)
                left.append(source)
    # The results of averages need more than 8 bits.
    found = {name for name in found if not name.endswith("/averaged")}
    return {
        node.name: node
        for node in graph.graph.node
        if node.name in found and node.op_type in QUANTISED
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice that the quantiser logs."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
