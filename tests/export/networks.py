"""Small random networks as ONNX files, and what they compute, written in PyTorch as float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

Edit = Callable[[onnx.ModelProto], None]
Sides = tuple[int | str, int | str]


@dataclass(frozen=True)
class Network:
    """A file, and its function in float64: normalised RGB ``[N, 3, H, W]`` → maps by name."""

    path: Path
    reference: Callable[[Tensor], dict[str, Tensor]]


def convolutional(
    path: Path,
    *,
    seed: int = 0,
    opset: int = 17,
    sides: Sides = ("h", "w"),
    batch: int | str = "n",
    edit: Edit = lambda model: None,
) -> Network:
    """``stride_8`` of 12 channels, ``stride_16`` of 20, and a classifier's ``logits``."""
    random = np.random.default_rng(seed)
    shapes = {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "w3": (20, 12, 3, 3), "head": (20, 5)}
    weights = {name: _drawn(random, shape) for name, shape in shapes.items()}
    halves = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["picture", "w1"], ["c1"], **halves),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], **halves),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], **halves),
        helper.make_node("Constant", [], ["most"], value_float=6.0),
        helper.make_node("Constant", [], ["least"], value=_tensor("", np.float32(0.0))),
        helper.make_node("Clip", ["c2", "least", "most"], ["stride_8"]),
        helper.make_node("Conv", ["stride_8", "w3"], ["stride_16"], **halves),
        helper.make_node("GlobalAveragePool", ["stride_16"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    outputs = {
        "logits": [batch, 5],
        "stride_16": [batch, 20, "h16", "w16"],
        "stride_8": [batch, 12, "h8", "w8"],
    }
    _write(path, nodes, weights, [batch, 3, *sides], outputs, opset, edit)

    def reference(x: Tensor) -> dict[str, Tensor]:
        one, two, three = (
            torch.from_numpy(weights[name]).to(x.dtype) for name in ("w1", "w2", "w3")
        )
        pooled = F.max_pool2d(F.conv2d(x, one, stride=2, padding=1).relu(), 3, 2, 1)
        eight = F.conv2d(pooled, two, stride=2, padding=1).clamp(0, 6)
        return {"stride_8": eight, "stride_16": F.conv2d(eight, three, stride=2, padding=1)}

    return Network(path, reference)


def transformer(
    path: Path, patch: int, *, seed: int = 0, edit: Edit = lambda model: None
) -> Network:
    """Patches of ``patch`` px, one layer of attention: ``stride_<patch>`` of 16 channels."""
    random = np.random.default_rng(seed)
    shapes = {"embed": (16, 3, patch, patch), "q": (16, 16), "k": (16, 16), "v": (16, 16)}
    weights: dict[str, Any] = {name: _drawn(random, shape) for name, shape in shapes.items()}
    gain = random.uniform(0.5, 1.5, 16).astype(np.float32)
    weights |= {"gain": gain, "tokens": np.array([0, 16, -1], dtype=np.int64)}
    weights |= {"first": np.array([0]), "start": np.array([0, 16])}
    name = f"stride_{patch}"
    nodes = [
        helper.make_node("Conv", ["x", "embed"], ["f"], strides=[patch, patch]),
        helper.make_node("Shape", ["f"], ["sides"]),
        # As an exporter writes it: the numbers of an axis are picked one by one, and joined.
        helper.make_node("Constant", [], ["second"], value_int=2),
        helper.make_node("Constant", [], ["third"], value=_tensor("", np.int64(3))),
        helper.make_node("Gather", ["sides", "second"], ["rows"]),
        helper.make_node("Gather", ["sides", "third"], ["across"]),
        helper.make_node("Unsqueeze", ["rows", "first"], ["rows1"]),
        helper.make_node("Unsqueeze", ["across", "first"], ["across1"]),
        helper.make_node("Concat", ["start", "rows1", "across1"], ["shape"], axis=0),
        helper.make_node("Reshape", ["f", "tokens"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["t"], perm=[0, 2, 1]),
        helper.make_node("LayerNormalization", ["t", "gain"], ["n"], epsilon=1e-6),
        *(helper.make_node("MatMul", ["n", one], [f"n{one}"]) for one in "qkv"),
        helper.make_node("Transpose", ["nk"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["nq", "turned"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "nv"], ["mixed"]),
        helper.make_node("Add", ["t", "mixed"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["back"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["back", "shape"], [name]),
    ]
    _write(path, nodes, weights, ["n", 3, "h", "w"], {name: ["n", 16, "a", "b"]}, 17, edit)

    def reference(x: Tensor) -> dict[str, Tensor]:
        held = {key: torch.from_numpy(value).to(x.dtype) for key, value in weights.items()}
        f = F.conv2d(x, held["embed"], stride=patch)
        t = f.flatten(2).transpose(1, 2)
        n = F.layer_norm(t, (16,), held["gain"], eps=1e-6)
        attention = ((n @ held["q"]) @ (n @ held["k"]).transpose(1, 2)).softmax(-1)
        t = t + attention @ (n @ held["v"])
        return {name: t.transpose(1, 2).reshape(f.shape)}

    return Network(path, reference)


def describe(**entries: str) -> Edit:
    """Give the file these metadata."""
    return lambda model: helper.set_model_props(model, entries)


def _drawn(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    spread = np.sqrt(2.0 / np.prod(shape[1:]))
    return random.normal(0.0, spread, shape).astype(np.float32)


def _tensor(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[int | str],
    outputs: dict[str, list[int | str]],
    opset: int,
    edit: Edit,
) -> None:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(nodes[0].input[0], TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in outputs.items()
        ],
        [_tensor(name, value) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    edit(model)
    path.write_bytes(model.SerializeToString())
