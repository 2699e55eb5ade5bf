"""An ONNX graph under construction, and helpers that all parts of our graphs use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from inspector.detection.bundle import INPUT, OPSET, OUTPUTS

IR_VERSION = 8

Array = npt.NDArray[Any]


class Graph:
    """Nodes and initializers of a graph; ``dtype`` is that of the backbone."""

    def __init__(self, dtype: type[np.floating[Any]]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names: set[str] = set()

    def constant(self, name: str, value: Array) -> str:
        """Add the initializer unless there is one of this name; returns the name."""
        if name not in self._names:
            self._names.add(name)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def tensor(self, name: str, value: onnx.TensorProto) -> str:
        """Add ``value`` under this name, its type and shape as they are; returns the name."""
        if name not in self._names:
            self._names.add(name)
            renamed = onnx.TensorProto()
            renamed.CopyFrom(value)
            renamed.name = name
            self.initializers.append(renamed)
        return name

    def zero(self, like: str) -> str:
        """A scalar 0 of the type of ``like``: the backbone's, or float32 after the backbone."""
        dtype = np.float32 if like == OUTPUTS[1] else self.dtype
        return self.constant(f"zero.{np.dtype(dtype).name}", np.array(0, dtype=dtype))

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; both have the name ``output``, which is returned."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def finish(self, name: str, height: int, width: int) -> onnx.ModelProto:
        """The bundle's graph, without metadata, checked by ``onnx.checker``."""
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                name,
                [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", height, width, 3])],
                [
                    helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, ["N"]),
                    helper.make_tensor_value_info(
                        OUTPUTS[1], TensorProto.FLOAT, ["N", height, width]
                    ),
                ],
                initializer=self.initializers,
            ),
            opset_imports=[
                helper.make_opsetid(domain, {"": OPSET}.get(domain, 1))
                for domain in sorted({"", *(node.domain for node in self.nodes)})
            ],
            ir_version=IR_VERSION,
            producer_name="line-inspector",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def carry_nan(
    graph: Graph, source: str, reduced: str, output: str, *, axes: list[int], keepdims: int = 1
) -> str:
    """``reduced``, but NaN where ``source`` has one: ONNX Runtime's maxima drop NaN silently."""
    axes_name = graph.constant(f"{output}.axes", np.array(axes, dtype=np.int64))
    zero, flags = graph.zero(source), source
    if zero.endswith("float16"):
        # Halves are multiplied by zero before the sum, which could overflow and set the flag.
        flags = graph.node("Mul", [source, zero], f"{output}/nan_flags")
    flag = graph.node("ReduceSum", [flags, axes_name], f"{output}/sum", keepdims=keepdims)
    flag = graph.node("Mul", [flag, zero], f"{output}/nan_flag")
    return graph.node("Add", [reduced, flag], output)


def to_numpy(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    """The values of any tensor as float64 on the CPU."""
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)
