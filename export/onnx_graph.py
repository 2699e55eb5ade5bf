"""The export graph: uint8 frame in, score and map in units of the limit out.

The same function as :class:`export.train.Scorer`, written node by node so that names are readable:
scale and channel order are folded into the first convolution, batch norms into theirs, each level's
descriptor slice is applied before up-sampling, the K nearest items are found by ‖c‖² − 2φ·c and
their distances then measured exactly, smoothing and up-sampling are two matrix products.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn
from torchvision.ops import stochastic_depth

from export import cfa
from export.train import Scorer
from inspector.bundle import BANK, INPUT, OUTPUTS

OPSET = 17
IR_VERSION = 8

Array = npt.NDArray[Any]


def build(scorer: Scorer, *, precision: str) -> onnx.ModelProto:
    """The bundle's graph, without metadata, checked by ``onnx.checker``.

    ``precision`` fp16 halves the backbone only: distances, softmin and map stay float32.
    """
    graph = _Graph(np.float16 if precision == "fp16" else np.float32)
    levels = _backbone(graph, scorer)
    patch_scores = _patch_scores(graph, scorer.model, levels, scorer)
    _map_and_score(graph, scorer, patch_scores)
    height, width = scorer.settings.input
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "cfa",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", height, width, 3])],
            [
                helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, ["N"]),
                helper.make_tensor_value_info(OUTPUTS[1], TensorProto.FLOAT, ["N", height, width]),
            ],
            initializer=graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="line-inspector",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and initializers under construction; ``dtype`` is the backbone's."""

    def __init__(self, dtype: type[np.floating[Any]]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names: set[str] = set()

    def constant(self, name: str, value: Array) -> str:
        if name not in self._names:
            self._names.add(name)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def zero(self, like: str) -> str:
        """A scalar 0 of the type that ``like`` has: the backbone's, or float32 after it."""
        dtype = np.float32 if like == OUTPUTS[1] else self.dtype
        return self.constant(f"zero.{np.dtype(dtype).name}", np.array(0, dtype=dtype))

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output


def _backbone(graph: _Graph, scorer: Scorer) -> list[str]:
    """Pooled float32 feature maps, a name each."""
    backbone = scorer.backbone
    picture = graph.node(
        "Cast", [INPUT], "input/float", to=helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtype))
    )
    picture = graph.node("Transpose", [picture], "input/nchw", perm=[0, 3, 1, 2])
    # The mean stays a node of its own: under zero padding it does not fold into a bias.
    mean_bgr = 255.0 * np.array(backbone.mean[::-1]).reshape(1, 3, 1, 1)
    picture = graph.node(
        "Sub",
        [picture, graph.constant("input.mean", mean_bgr.astype(graph.dtype))],
        "input/centred",
    )
    outputs = _Tracer(graph, backbone.network, picture, np.array(backbone.std)).run()
    levels = []
    for stride in backbone.strides:
        name = outputs[f"stride_{stride}"]
        if graph.dtype is np.float16:
            name = graph.node("Cast", [name], f"stride_{stride}/float", to=TensorProto.FLOAT)
        levels.append(
            graph.node(
                "AveragePool",
                [name],
                f"stride_{stride}/pooled",
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                count_include_pad=1,
            )
        )
    return levels


class _Tracer:
    """Walks the traced backbone and writes each operation as an ONNX node of the same name."""

    def __init__(self, graph: _Graph, network: fx.GraphModule, picture: str, std: Array) -> None:
        self.graph, self.network, self.picture, self.std = graph, network, picture, std
        self._stem_done = False

    def run(self) -> dict[str, str]:
        names: dict[fx.Node, str] = {}
        padding: dict[fx.Node, tuple[int, int, int, int]] = {}
        modules = dict(self.network.named_modules())
        for node in self.network.graph.nodes:
            module = modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(module, nn.ZeroPad2d):
                padding[node] = cast("tuple[int, int, int, int]", tuple(module.padding))
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                names[node] = self.picture
            elif node.op == "output":
                return {key: names[value] for key, value in node.args[0].items()}
            elif node.op == "call_module":
                source = node.args[0]
                module = modules[str(node.target)]
                if isinstance(module, nn.ZeroPad2d | nn.Identity):
                    names[node] = names[source]
                elif isinstance(module, nn.Conv2d):
                    names[node] = self._convolution(
                        str(node.target),
                        module,
                        names[source],
                        padding.get(source),
                    )
                else:
                    names[node] = self._module(str(node.target), module, names[source])
            else:
                names[node] = self._function(node, names)
        raise AssertionError("a traced network has an output")

    def _convolution(
        self,
        name: str,
        conv: nn.Conv2d,
        source: str,
        pad: tuple[int, int, int, int] | None,
    ) -> str:
        weight = _numpy(conv.weight)
        bias = _numpy(conv.bias) if conv.bias is not None else np.zeros(conv.out_channels)
        if not self._stem_done:
            self._stem_done = True
            weight = (weight / (255.0 * self.std.reshape(1, 3, 1, 1)))[:, ::-1]
        left, right, top, bottom = pad or (0, 0, 0, 0)
        across, along = cast("tuple[int, int]", conv.padding)
        dtype = self.graph.dtype
        return self.graph.node(
            "Conv",
            [
                source,
                self.graph.constant(f"{name}.weight", weight.astype(dtype)),
                self.graph.constant(f"{name}.bias", bias.astype(dtype)),
            ],
            name,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            group=conv.groups,
            pads=[top + across, left + along, bottom + across, right + along],
        )

    def _module(self, name: str, module: nn.Module, source: str) -> str:
        graph = self.graph
        # An in-place activation is traced under one name each time it is used: keep names unique.
        output = name if all(node.output[0] != name for node in graph.nodes) else f"{source}/{name}"
        if isinstance(module, nn.ReLU6):
            low = graph.constant("relu6.low", np.array(0, dtype=graph.dtype))
            high = graph.constant("relu6.high", np.array(6, dtype=graph.dtype))
            return graph.node("Clip", [source, low, high], output)
        if isinstance(module, nn.ReLU):
            return graph.node("Relu", [source], output)
        if isinstance(module, nn.Sigmoid):
            return graph.node("Sigmoid", [source], output)
        if isinstance(module, nn.SiLU):
            gate = graph.node("Sigmoid", [source], f"{output}/gate")
            return graph.node("Mul", [source, gate], output)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return graph.node("GlobalAveragePool", [source], output)
        if isinstance(module, nn.MaxPool2d):
            return self._max_pool(output, module, source)
        raise NotImplementedError(f"no ONNX node for {type(module).__name__} ({name})")

    def _max_pool(self, name: str, module: nn.MaxPool2d, source: str) -> str:
        kernel, stride, pad = (
            _pair(v) for v in (module.kernel_size, module.stride, module.padding)
        )
        pooled = self.graph.node(
            "MaxPool", [source], f"{name}/max", kernel_shape=kernel, strides=stride, pads=pad * 2
        )
        return _carry_nan(self.graph, source, pooled, name, axes=[1, 2, 3])

    def _function(self, node: fx.Node, names: dict[fx.Node, str]) -> str:
        if node.target is stochastic_depth:
            return names[cast(fx.Node, node.args[0])]
        kind = {operator.add: "Add", operator.iadd: "Add", torch.add: "Add"}.get(
            cast(Callable[..., Any], node.target),
            "Mul" if node.target in {operator.mul, operator.imul, torch.mul} else "",
        )
        if not kind:
            raise NotImplementedError(f"no ONNX node for {node.target} ({node.name})")
        return self.graph.node(
            kind, [names[cast(fx.Node, arg)] for arg in node.args[:2]], node.name
        )


def _patch_scores(graph: _Graph, model: cfa.CFA, levels: list[str], scorer: Scorer) -> str:
    """w_1 · d_1 of every patch, ``[N, H', W']``."""
    descriptor = model.descriptor
    (grid_h, grid_w), strides = descriptor.grid, scorer.backbone.strides
    with torch.no_grad():
        weights, constant = descriptor.folded()
    bank = _numpy(model.bank)
    # Centred on the bank's mean: expanded distances lose digits as the mean grows.
    centre = bank.mean(axis=0)
    bank = bank - centre
    phi = ""
    for name, weight, stride in zip(levels, weights, strides, strict=True):
        part = graph.node(
            "Conv",
            [
                name,
                graph.constant(
                    f"descriptor.stride_{stride}.weight",
                    _numpy(weight)[:, :, None, None].astype(np.float32),
                ),
            ],
            f"descriptor/stride_{stride}",
            kernel_shape=[1, 1],
        )
        if stride != strides[0]:
            factor = stride // strides[0]
            scales = np.array([1, 1, factor, factor], dtype=np.float32)
            part = graph.node(
                "Resize",
                [part, "", graph.constant(f"descriptor.stride_{stride}.scales", scales)],
                f"descriptor/stride_{stride}/upsampled",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        phi = part if not phi else graph.node("Add", [phi, part], f"descriptor/sum_{stride}")
    fixed = (_numpy(constant) - centre.reshape(-1, 1, 1)).astype(np.float32)[None]
    phi = graph.node("Add", [phi, graph.constant("descriptor.constant", fixed)], "descriptor/phi")
    phi = graph.node("Transpose", [phi], "patches/nhwc", perm=[0, 2, 3, 1])
    shape = graph.constant("patches.shape", np.array([-1, descriptor.width], dtype=np.int64))
    phi = graph.node("Reshape", [phi, shape], "patches")

    memory = graph.constant(BANK, bank.astype(np.float32))
    squares = np.square(bank.astype(np.float32).astype(np.float64)).sum(axis=1)
    norms = graph.constant("memory_bank.squared_norms", squares.astype(np.float32))
    partial = graph.node("Gemm", [phi, memory, norms], "distances/partial", alpha=-2.0, transB=1)
    k = graph.constant("neighbours.k", np.array([model.neighbours], dtype=np.int64))
    graph.nodes.append(
        helper.make_node(
            "TopK",
            [partial, k],
            ["distances/nearest_partial", "distances/nearest_index"],
            "distances/nearest",
            axis=1,
            largest=0,
            sorted=1,
        )
    )
    # Found by the expansion, measured by the difference: near an item the expansion has no digits.
    items = graph.node("Gather", [memory, "distances/nearest_index"], "distances/items", axis=0)
    axis = graph.constant("patches.axis", np.array([1], dtype=np.int64))
    alone = graph.node("Unsqueeze", [phi, axis], "patches/alone")
    gap = graph.node("Sub", [alone, items], "distances/gap")
    squared = graph.node("ReduceSumSquare", [gap], "distances/squared_raw", axes=[2], keepdims=0)
    own = graph.node("ReduceSumSquare", [phi], "patches/squared_norm", axes=[1], keepdims=1)
    # TopK drops NaN: one in φ comes back with ‖φ‖², one in the bank through these sums.
    item_sum = graph.node("ReduceSum", [memory], "memory_bank/item_sum", keepdims=0)
    norm_sum = graph.node("ReduceSum", [norms], "memory_bank/norm_sum", keepdims=0)
    bank_sum = graph.node("Add", [item_sum, norm_sum], "memory_bank/sum")
    zero = graph.zero(OUTPUTS[1])
    flag = graph.node("Mul", [bank_sum, zero], "memory_bank/nan_flag")
    clipped = graph.node("Max", [squared, zero], "distances/squared_clipped")
    own_flag = graph.node("Mul", [own, zero], "patches/nan_flag")
    squared = graph.node("Add", [clipped, own_flag], "distances/squared_own_flag")
    squared = graph.node("Add", [squared, flag], "distances/squared")
    distance = graph.node("Sqrt", [squared], "distances/d")
    negative = graph.node("Neg", [distance], "softmin/negative")
    soft = graph.node("Softmax", [negative], "softmin/w", axis=1)
    weighted = graph.node("Mul", [soft, distance], "softmin/w_d")
    first = graph.constant("softmin.first", np.array(0, dtype=np.int64))
    best = graph.node("Gather", [weighted, first], "softmin/w1_d1", axis=1)
    grid = graph.constant("map.grid", np.array([-1, grid_h, grid_w], dtype=np.int64))
    return graph.node("Reshape", [best, grid], "map/patch_scores")


def _map_and_score(graph: _Graph, scorer: Scorer, patch_scores: str) -> None:
    settings = scorer.settings
    (grid_h, grid_w), (height, width) = settings.grid, settings.input
    rows = cfa.smoothing(grid_h, height, settings.sigma_px) / scorer.threshold
    columns = cfa.smoothing(grid_w, width, settings.sigma_px).T
    tall = graph.node(
        "MatMul",
        [graph.constant("map.rows", rows.astype(np.float32)), patch_scores],
        "map/rows_smoothed",
    )
    anomaly_map = graph.node(
        "MatMul",
        [tall, graph.constant("map.columns", columns.astype(np.float32))],
        OUTPUTS[1],
    )
    peak = graph.node("ReduceMax", [anomaly_map], "score/max", axes=[1, 2], keepdims=0)
    _carry_nan(graph, anomaly_map, peak, OUTPUTS[0], axes=[1, 2], keepdims=0)


def _carry_nan(
    graph: _Graph, source: str, reduced: str, output: str, *, axes: list[int], keepdims: int = 1
) -> str:
    """``reduced``, or NaN where ``source`` has one: ONNX Runtime's maxima drop it silently."""
    # Times zero before the sum: a sum of halves could overflow and raise the flag by itself.
    flags = graph.node("Mul", [source, graph.zero(source)], f"{output}/nan_flags")
    flag = graph.node(
        "ReduceSum",
        [flags, graph.constant(f"{output}.axes", np.array(axes, dtype=np.int64))],
        f"{output}/nan_flag",
        keepdims=keepdims,
    )
    return graph.node("Add", [reduced, flag], output)


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
