"""A real bundle small enough to build in a test: |mean of BGR - memory_bank| / 64, 64x64 px."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from inspector.detection import bundle
from inspector.detection.manifest import Manifest
from inspector.files import write_whole
from inspector.imaging.images import encode_png

SIDE = 64
GREY = 128
LIMIT_GREY_LEVELS = 64.0
MAGIC = (1, 2, 3)
"""A picture with a pixel of this colour in its first corner makes the model answer NaN."""


def write_bundle(
    path: Path,
    edit: Callable[[onnx.ModelProto], None] = lambda model: None,
    **changes: Any,
) -> Path:
    """Write a sealed bundle; ``edit`` alters the graph, ``changes`` the manifest."""
    graph = model()
    document = manifest(graph) | changes
    edit(graph)
    entry = graph.metadata_props.add()
    entry.key = bundle.MANIFEST_KEY
    entry.value = Manifest.model_validate(document).model_dump_json()
    write_whole(path, bundle.seal(graph.SerializeToString()))
    return path


def slow(graph: onnx.ModelProto) -> None:
    """Make the model take tens of ms, its answers unchanged."""
    # Averages: values that shrink become denormal, which some processors take 30 times as long for.
    weights = np.full((64, 64, 3, 3), 1 / (64 * 9), dtype=np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(weights, "slow_weights"))
    graph.graph.initializer.append(
        numpy_helper.from_array(np.asarray([1, 64, 1, 1], dtype=np.int64), "slow_repeats")
    )
    graph.graph.initializer.append(
        numpy_helper.from_array(np.asarray([1], dtype=np.int64), "slow_axis")
    )
    nodes = [
        helper.make_node("Unsqueeze", ["grey", "slow_axis"], ["slow_in"]),
        helper.make_node("Tile", ["slow_in", "slow_repeats"], ["slow_0"]),
    ]
    for step in range(20):
        nodes.append(
            helper.make_node(
                "Conv", [f"slow_{step}", "slow_weights"], [f"slow_{step + 1}"], pads=[1, 1, 1, 1]
            )
        )
    nodes += [
        helper.make_node("ReduceMax", ["slow_20"], ["slow_max"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["slow_max", "zero"], ["slow_zero"]),
        helper.make_node("Add", ["distance", "slow_zero"], ["slow_distance"]),
    ]
    place = next(i for i, node in enumerate(graph.graph.node) if node.op_type == "Div")
    graph.graph.node[place].input[0] = "slow_distance"
    for node in reversed(nodes):
        graph.graph.node.insert(place, node)


def fail_on_magic(graph: onnx.ModelProto) -> None:
    """Make the model fail on the picture that else gives NaN."""
    # Index 0 for ordinary pictures, far out of bounds for the magic one.
    nodes = [
        helper.make_node("Cast", ["is_magic"], ["flag"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["flag"], ["flag1"], keepdims=0),
        helper.make_node("Mul", ["flag1", "huge"], ["index"]),
        helper.make_node("Gather", ["zero2", "index"], ["picked"]),
        helper.make_node("Cast", ["picked"], ["picked_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["clean_score", "picked_float"], ["score"]),
    ]
    graph.graph.initializer.append(
        numpy_helper.from_array(np.asarray(10**6, dtype=np.int64), "huge")
    )
    del graph.graph.node[-1]
    graph.graph.node.extend(nodes)


def good_picture(side: int = SIDE) -> np.ndarray:
    return np.full((side, side, 3), GREY, dtype=np.uint8)


def bad_picture(side: int = SIDE) -> np.ndarray:
    picture = good_picture(side)
    picture[side // 4 : side // 2, side // 4 : side // 2] = 255
    return picture


def nan_picture(side: int = SIDE) -> np.ndarray:
    picture = good_picture(side)
    picture[: side // 8, : side // 8] = MAGIC
    return picture


PICTURES = (good_picture, bad_picture)


def png(picture: np.ndarray) -> str:
    return base64.b64encode(encode_png(picture)).decode()


def model(side: int = SIDE) -> onnx.ModelProto:
    def constant(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)

    nodes = [
        helper.make_node("Cast", ["image"], ["colour"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["colour"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Sub", ["grey", bundle.BANK], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Div", ["distance", "threshold"], ["clean_map"]),
        helper.make_node("Slice", ["colour", "zero2", "one2", "axes12"], ["corner"]),
        helper.make_node("Sub", ["corner", "magic"], ["corner_off"]),
        helper.make_node("Abs", ["corner_off"], ["corner_abs"]),
        helper.make_node("ReduceMax", ["corner_abs"], ["far"], axes=[3], keepdims=0),
        helper.make_node("Less", ["far", "half"], ["is_magic"]),
        # A bundle's constants are finite.
        helper.make_node("Div", ["zero", "zero"], ["nan"]),
        helper.make_node("Where", ["is_magic", "nan", "zero"], ["poison"]),
        helper.make_node("Add", ["clean_map", "poison"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["clean_map"], ["clean_score"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMax", ["poison"], ["poison_score"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["clean_score", "poison_score"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", side, side]),
        ],
        [
            constant(bundle.BANK, np.full((side, side), GREY)),
            constant("threshold", LIMIT_GREY_LEVELS),
            constant("zero2", [0, 0], np.int64),
            constant("one2", [1, 1], np.int64),
            constant("axes12", [1, 2], np.int64),
            constant("magic", MAGIC),
            constant("half", 0.5),
            constant("zero", 0.0),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made


def manifest(graph: onnx.ModelProto, side: int = SIDE) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    golden = []
    for name, picture in (("good", good_picture(side)), ("bad", bad_picture(side))):
        score = float(session.run(["score"], {"image": picture[np.newaxis]})[0][0])
        golden.append(
            {
                "name": name,
                "png": png(picture),
                "score": score,
            }
        )
    return {
        "name": "tiny",
        "version": "1",
        "created": "2024-01-01T00:00:00Z",
        "product_version": "0.1.0",
        "geometry": {"height": side, "width": side},
        "precision": "fp32",
        "cfa": {
            "backbone": "none",
            "strides": (1,),
            "weights_sha256": "0" * 64,
            "gamma_c": 1.0,
            "gamma_d": 1.0,
            "neighbours": 1,
            "hard_negatives": 1,
            "alpha": 0.1,
            "nu": 0.001,
            "radius": 1e-5,
            "bank_init": "mean",
            "standardise": False,
            "bank_items": side,
            "descriptor_width": 1,
            "grid": (side, side),
            "sigma": 4.0,
            "epochs": 1,
            "seed": 0,
        },
        "calibration": {
            "method": "fixed",
            "pooling": "none",
            "target_false_reject": 0.005,
            "good_parts": 10,
            "good_rejected": 0,
            "threshold": LIMIT_GREY_LEVELS,
            "interval": (0.0, 0.3),
            "predicted_next": 100,
            "predicted_rejects": (0, 10),
            "extrapolated": True,
            "quantiles": dict.fromkeys(("q05", "q25", "q50", "q75", "q95", "q99", "maximum"), 0.5),
        },
        "exposure": {"brightness": (0.0, 255.0), "sharpness": (0.0, 1e9)},
        "evaluation": {},
        "training_fingerprint": "0" * 64,
        "training_parts": 10,
        "golden": golden,
        "golden_tolerance": 1e-3,
    }
