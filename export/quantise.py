"""The backbone in 8 bits: QDQ with uint8 activations and int8 weights, a scale for each channel.

What ONNX Runtime runs on VNNI, and TensorRT on its integer units. The descriptor, the distances
that count and the map stay float32; the limit is not set again, so a bundle is proven or refused.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from inspector.bundle import INPUT
from inspector.verdict import Frame8

QUANTISED = ("Conv", "Clip", "Relu", "Add", "MaxPool")


def quantise_backbone(graph: onnx.ModelProto, pictures: Iterable[Frame8]) -> onnx.ModelProto:
    """The graph with its backbone in 8 bits, ranges taken from ``pictures``.

    ``pictures``: good parts at network size, uint8 BGR ``[H, W, 3]`` each.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)
        quantize_static(
            before,
            after,
            _Pictures(pictures),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=_backbone_nodes(graph),
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            # Signed weights with unsigned activations: the pair VNNI multiplies.
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(after)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pictures: Iterable[Frame8]) -> None:
        self._left = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None after the last."""
        picture = next(self._left, None)
        return None if picture is None else {INPUT: picture[None]}


def _backbone_nodes(graph: onnx.ModelProto) -> list[str]:
    """Nodes that the pooled feature maps are made of."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    left = [name for name in makers if name.startswith("stride_") and name.endswith("/pooled")]
    while left:
        for source in makers[left.pop()].input:
            node = makers.get(source)
            if node is not None and node.name not in found:
                found[node.name] = node
                left.append(source)
    return [name for name, node in found.items() if node.op_type in QUANTISED]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that the quantiser gives by logging."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
