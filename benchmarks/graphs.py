"""Graphs to be timed: models of any shape with random weights, and all of a run in turns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from export.model import cfa
from export.model.backbone import SPECS, Backbone
from export.settings import TrainSettings
from export.training.scorer import Scorer
from inspector.detection.bundle import INPUT
from inspector.errors import WeightsError

ort.set_default_logger_severity(4)

WARM_UP: Final = 5


def random_scorer(settings: TrainSettings, scratch: Path) -> tuple[Scorer, str]:
    """A model of that shape, and whose weights its backbone has."""
    torch.manual_seed(0)
    weights = "published"
    try:
        backbone = Backbone(settings.backbone, settings.strides, settings.scales, None)
    except WeightsError:
        weights = "random"
        path = scratch / f"{settings.backbone}.pth"
        if not path.exists():
            torch.save(SPECS[settings.backbone].build().state_dict(), path)
        backbone = Backbone(settings.backbone, settings.strides, settings.scales, path)
    device = torch.device("cpu")
    levels = cfa.pool(backbone.maps(np.stack(random_pictures(settings.input, 4)), device))
    scale = cfa.FeatureScale.measure(iter([levels]), backbone.channels)
    width = settings.width(sum(backbone.channels))
    descriptor = cfa.PatchDescriptor(
        backbone.channels,
        width,
        settings.grid,
        scale,
        init=settings.descriptor_init,
        generator=torch.Generator().manual_seed(0),
    )
    model = cfa.CFA(descriptor, settings.items, settings)
    with torch.no_grad():
        model.bank.copy_(torch.randn(settings.items, width))
    return Scorer(backbone, model, settings, device, threshold=3.0), weights


def trunk(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph cut off at the feature maps, before they are averaged or projected."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    averages = [node for node in bare.graph.node if node.name.endswith("/averaged")]
    heads = [node for node in bare.graph.node if node.name.endswith("/flat")]
    names = [node.input[0] for node in averages or heads]
    needed, left = set(), list(names)
    makers = {output: node for node in bare.graph.node for output in node.output}
    while left:
        node = makers.get(left.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            left.extend(node.input)
    nodes = [node for node in bare.graph.node if node.name in needed]
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in bare.graph.initializer if tensor.name in used]
    del bare.graph.node[:], bare.graph.initializer[:], bare.graph.output[:]
    bare.graph.node.extend(nodes)
    bare.graph.initializer.extend(constants)
    bare.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    return bare


def session(model: onnx.ModelProto, threads: int, **entries: str) -> ort.InferenceSession:
    """Threads sleep, as a station's do, but none is bound; ``entries`` of its configuration differ.

    All models of a run have the same: what binding gives is in ``speed/sparse.py``.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    for key, value in ({"allow_spinning": "0"} | entries).items():
        options.add_session_config_entry(f"session.intra_op.{key}", value)
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def rounds(sessions: dict[str, Any], picture: Any, count: int) -> dict[str, list[float]]:
    """Milliseconds of each session, all of them once a round, each time in another order."""
    batch = {INPUT: picture[None]}
    for one in sessions.values():
        for _ in range(WARM_UP):
            one.run(None, batch)
    found: dict[str, list[float]] = {name: [] for name in sessions}
    chance = np.random.default_rng(0)
    for _ in range(count):
        for name in chance.permutation(list(sessions)):
            begun = time.perf_counter()
            sessions[name].run(None, batch)
            found[name].append((time.perf_counter() - begun) * 1e3)
    return found


def random_pictures(size: tuple[int, int], count: int) -> list[Any]:
    """So many of noise, uint8 BGR ``[H, W, 3]``, the same at every call."""
    chance = np.random.default_rng(1)
    return [chance.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]
