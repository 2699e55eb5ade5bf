"""A backbone as ONNX nodes: a traced network written anew, or the nodes of a file of one's own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import fx, nn

from export.bundle.graph_builder import Array, Graph, carry_nan, to_numpy
from export.model.backbone import Backbone, prefix
from export.model.network_file import NetworkFile, constants_of, nodes_of
from inspector.detection.bundle import INPUT


def add_backbone(graph: Graph, backbone: Backbone, width: int, *, folded: bool = True) -> list[str]:
    """Add the nodes from the uint8 BGR input to the float32 feature maps.

    Returns the names of the maps of ``backbone.levels``. ``width`` is that of the input in pixels.
    With ``folded`` scale and channel order are part of the first convolution's weights. The mean
    stays a node of its own: under zero padding it does not fold into a bias. The first convolution
    of a file is not looked for: scale and order are two nodes before it. The network is written
    once for each scale, and every pass of it reads the same initializers.
    """
    network = backbone.network
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtype))
    picture = graph.node("Cast", [INPUT], "input/float", to=kind)
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    if folded:
        # A whole row of means is subtracted: three numbers at a time take ten times as long.
        row = np.tile(255.0 * mean[:, ::-1].ravel(), (width, 1)).astype(graph.dtype)
        picture = graph.node("Sub", [picture, graph.constant("input.mean", row)], "input/centred")
    picture = graph.node("Transpose", [picture], "input/nchw", perm=[0, 3, 1, 2])
    levels = []
    for scale in backbone.scales:
        at = prefix(scale)
        shown = picture if scale == 1.0 else _halved(graph, picture, f"{at}input")
        if not folded:
            order = graph.constant("input.rgb", np.array([2, 1, 0], dtype=np.int64))
            shown = graph.node("Gather", [shown, order], f"{at}input/rgb", axis=1)
            for what, step, value in (
                ("Div", "scaled", np.array(255.0)),
                ("Sub", "centred", mean),
                ("Div", "standardised", std),
            ):
                constant = graph.constant(f"input.{step}", value.astype(graph.dtype))
                shown = graph.node(what, [shown, constant], f"{at}input/{step}")
        if isinstance(network, NetworkFile):
            if folded:
                shown = _as_rgb(graph, shown, std, f"{at}input")
            outputs = _graft(graph, network.model, shown, f"{at}network/")
        else:
            outputs = _Tracer(graph, network, shown, std if folded else None, at).run()
        for stride in backbone.strides:
            name = outputs[f"stride_{stride}"]
            if graph.dtype is np.float16:
                to = f"{at}stride_{stride}/float"
                name = graph.node("Cast", [name], to, to=TensorProto.FLOAT)
            levels.append(name)
    return levels


def _halved(graph: Graph, picture: str, name: str) -> str:
    """The mean of each 2x2 pixels of ``[N, 3, H, W]``."""
    return graph.node(
        "AveragePool", [picture], f"{name}/halved", kernel_shape=[2, 2], strides=[2, 2]
    )


def add_local_averages(
    graph: Graph, levels: list[str], backbone: Backbone, *, convolved: bool = False
) -> list[str]:
    """Add the mean over 3×3 of each feature map, with zeros around the map.

    With ``convolved`` it is a convolution, because OpenVINO loses the zero point of 8-bit values
    in an average pool.
    """
    around = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    averaged = []
    for level, of in zip(levels, backbone.levels, strict=True):
        at = f"{of.name}/averaged"
        if convolved:
            kernel = np.full((of.channels, 1, 3, 3), 1 / 9, dtype=np.float32)
            inputs = [level, graph.constant(f"stride_{of.stride}.average", kernel)]
            name = graph.node("Conv", inputs, at, group=of.channels, **around)
        else:
            name = graph.node("AveragePool", [level], at, count_include_pad=1, **around)
        averaged.append(name)
    return averaged


def _as_rgb(graph: Graph, picture: str, std: Array, name: str) -> str:
    """Centred BGR in 0..255, ``[N, 3, H, W]``, as RGB whose deviation is 1."""
    order = graph.constant("input.rgb", np.array([2, 1, 0], dtype=np.int64))
    picture = graph.node("Gather", [picture, order], f"{name}/rgb", axis=1)
    factor = graph.constant("input.factor", (1.0 / (255.0 * std)).astype(graph.dtype))
    return graph.node("Mul", [picture, factor], f"{name}/standardised")


def _graft(graph: Graph, model: onnx.ModelProto, picture: str, at: str) -> dict[str, str]:
    """Copy the nodes of ``model``; returns the names of its outputs.

    ``at`` stands before the names of this pass's nodes; constants are shared by all passes.
    """
    names = {"": ""}
    for name, constant in constants_of(model).items():
        names[name] = graph.tensor(f"network.{name}", constant)
    for value in model.graph.input:
        names.setdefault(value.name, picture)
    for node in nodes_of(model):
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        names |= {name: f"{at}{name}" for name in node.output if name}
        del copied.input[:], copied.output[:]
        copied.input.extend(names[name] for name in node.input)
        copied.output.extend(names[name] for name in node.output)
        copied.name, copied.domain = copied.output[0], ""
        graph.nodes.append(copied)
        if node.op_type == "MaxPool" and len(node.output) == 1:
            axes = list(range(1, 2 + len(_attribute(node, "kernel_shape"))))
            source, pooled = copied.input[0], copied.output[0]
            names[node.output[0]] = carry_nan(graph, source, pooled, f"{pooled}/or_nan", axes=axes)
    return {value.name: names[value.name] for value in model.graph.output}


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(helper.get_attribute_value(one) for one in node.attribute if one.name == name)


class _Tracer:
    """Walks the traced backbone and writes each operation as an ONNX node of the same name.

    ``at`` stands before the names of this pass's nodes; initializers are shared by all passes.
    """

    def __init__(
        self, graph: Graph, network: fx.GraphModule, picture: str, std: Array | None, at: str
    ) -> None:
        self.graph, self.network, self.picture, self.at = graph, network, picture, at
        self._unfolded_std = std

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
        weight = to_numpy(conv.weight)
        bias = to_numpy(conv.bias) if conv.bias is not None else np.zeros(conv.out_channels)
        if self._unfolded_std is not None:
            weight = (weight / (255.0 * self._unfolded_std))[:, ::-1]
            self._unfolded_std = None
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
            f"{self.at}{name}",
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            group=conv.groups,
            pads=[top + across, left + along, bottom + across, right + along],
        )

    def _module(self, name: str, module: nn.Module, source: str) -> str:
        graph = self.graph
        # An in-place activation has one name wherever it is used, but a node's name is unique.
        output = f"{self.at}{name}"
        if any(node.output[0] == output for node in graph.nodes):
            output = f"{source}/{name}"
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
        return carry_nan(self.graph, source, pooled, name, axes=[1, 2, 3])

    def _function(self, node: fx.Node, names: dict[fx.Node, str]) -> str:
        # Torchvision's, which drops nothing in a network that is not trained.
        if getattr(node.target, "__name__", "") == "stochastic_depth":
            return names[cast(fx.Node, node.args[0])]
        kind = {operator.add: "Add", operator.iadd: "Add", torch.add: "Add"}.get(
            cast(Callable[..., Any], node.target),
            "Mul" if node.target in {operator.mul, operator.imul, torch.mul} else "",
        )
        if not kind:
            raise NotImplementedError(f"no ONNX node for {node.target} ({node.name})")
        return self.graph.node(
            kind, [names[cast(fx.Node, arg)] for arg in node.args[:2]], f"{self.at}{node.name}"
        )


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
