"""The graph of a bundle: it takes a uint8 frame and gives score and map in units of the limit.

It computes the function of :class:`export.training.train.Scorer` and is written node by node, so
that names are readable. Scale and channel order are folded into the first convolution, each batch
norm into the convolution before it. Each level's slice of the descriptor is applied before
up-sampling. Up-sampling and smoothing of the map are two matrix products.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch

from export.bundle.backbone_nodes import add_backbone, add_local_averages
from export.bundle.graph_builder import Graph, carry_nan, to_numpy
from export.bundle.quantise import products_saturate
from export.bundle.search_nodes import (
    BANK_LEVELS,
    SATURATING_BANK_LEVELS,
    SPARE,
    nearest_squared,
)
from export.model import cfa
from export.model.normalise import Normaliser
from export.training.scorer import Scorer
from inspector.detection.bundle import OUTPUTS

Precision = Literal["fp32", "mixed", "fp16", "int8"]

WIDE = 512
"""From this D' on φ itself is worth computing in 8 bits. It is then applied before the local
average, whose results need more than 8 bits."""


def build_graph(scorer: Scorer, *, precision: Precision) -> onnx.ModelProto:
    """The bundle's graph, without metadata, checked by ``onnx.checker``.

    With ``precision`` fp16 the backbone alone is in half precision: distances, softmin and map stay
    float32. Mixed and int8 find the nearest items in 8 bits and measure them in float32; for int8
    :mod:`export.bundle.quantise` then brings backbone and φ to 8 bits.
    """
    graph = Graph(np.float16 if precision == "fp16" else np.float32)
    levels = add_backbone(graph, scorer.backbone, scorer.settings.input[1])
    # Rounding in the backbone moves distances by far more than a swapped neighbour does.
    spare = {"mixed": SPARE, "int8": 0}.get(precision)
    patch_scores = _patch_scores(graph, scorer, levels, spare, int8=precision == "int8")
    if scorer.normaliser is not None:
        patch_scores = _normalise(graph, scorer.normaliser, patch_scores)
    _map_and_score(graph, scorer, patch_scores)
    return graph.finish("cfa", *scorer.settings.input)


def _patch_scores(
    graph: Graph, scorer: Scorer, levels: list[str], spare: int | None, *, int8: bool
) -> str:
    """w_1 · d_1 of every patch, ``[N, H', W']``."""
    model = scorer.model
    descriptor = model.descriptor
    grid_h, grid_w = descriptor.grid
    with torch.no_grad():
        weights, constant = descriptor.folded()
    bank = to_numpy(model.bank)
    # Both are centred on the bank's mean, because expanded distances lose digits as it grows.
    centre = bank.mean(axis=0)
    bank = bank - centre
    fixed = to_numpy(constant).reshape(descriptor.width, -1).T - centre
    slices = [to_numpy(weight).T for weight in weights]
    if spare is None:
        # The search multiplies a further column of ones by the items' norms.
        fixed = np.pad(fixed, ((0, 0), (0, 1)), constant_values=1.0)
        slices = [np.pad(weight, ((0, 0), (0, 1))) for weight in slices]
    width = fixed.shape[1]
    phi = graph.constant("descriptor.constant", fixed.astype(np.float32)[None])
    ahead = int8 and descriptor.width >= WIDE
    if not ahead:
        levels = add_local_averages(graph, levels, scorer.backbone, convolved=int8)
    for name, weight, level in zip(levels, slices, scorer.backbone.levels, strict=True):
        at = f"descriptor/{level.name}"
        part = _project(graph, name, weight, at)
        factor = level.patch_px // scorer.settings.patch_px
        if ahead or factor > 1:
            part = _spread(graph, part, at, (grid_h, grid_w, width), factor, averaged=ahead)
        phi = graph.node("Add", [part, phi], f"{at}/sum")
    shape = graph.constant("patches.shape", np.array([-1, width], dtype=np.int64))
    phi = graph.node("Reshape", [phi, shape], "patches")

    coarse = spare is not None and products_saturate()
    squared = nearest_squared(
        graph,
        phi,
        bank,
        model.neighbours,
        grid_h * grid_w,
        spare=spare,
        bank_levels=SATURATING_BANK_LEVELS if coarse else BANK_LEVELS,
    )
    distance = graph.node("Sqrt", [squared], "distances/d")
    best = distance
    if model.neighbours > 1:
        negative = graph.node("Neg", [distance], "softmin/negative")
        soft = graph.node("Softmax", [negative], "softmin/w", axis=1)
        weighted = graph.node("Mul", [soft, distance], "softmin/w_d")
        first = graph.constant("softmin.first", np.array(0, dtype=np.int64))
        best = graph.node("Gather", [weighted, first], "softmin/w1_d1", axis=1)
    grid = graph.constant("map.grid", np.array([-1, grid_h, grid_w], dtype=np.int64))
    return graph.node("Reshape", [best, grid], "map/patch_scores")


def _project(graph: Graph, level: str, weight: npt.NDArray[np.float64], name: str) -> str:
    """``[N, C, h, w]`` times its slice ``[C, D']`` of φ; a row for each patch, ``[N, h·w, D']``."""
    shape = graph.constant("descriptor.flat", np.array([0, 0, -1], dtype=np.int64))
    flat = graph.node("Reshape", [level, shape], f"{name}/flat")
    flat = graph.node("Transpose", [flat], f"{name}/patches", perm=[0, 2, 1])
    stored = graph.constant(f"{name.replace('/', '.')}.weight", weight.astype(np.float32))
    return graph.node("MatMul", [flat, stored], name)


def _spread(
    graph: Graph,
    part: str,
    name: str,
    grid: tuple[int, int, int],
    factor: int,
    *,
    averaged: bool,
) -> str:
    """``[N, h·w, D']`` up-sampled to ``grid`` = (H', W', D') by a matrix product for each axis.

    With ``averaged`` the local average is taken too: it is one more factor of each matrix.
    """
    rows, columns, width = grid
    for axis, side, row in (("columns", columns, width), ("rows", rows, columns * width)):
        at = f"{name}/{axis}"
        apart = np.array([-1, side // factor, row], dtype=np.int64)
        into = graph.constant(f"{at}.shape".replace("/", "."), apart)
        part = graph.node("Reshape", [part, into], f"{at}_apart")
        matrix = cfa.smoothing(side // factor, side, 0.0)
        if averaged:
            near = [np.eye(side // factor, k=k) for k in (-1, 0, 1)]
            matrix = matrix @ (sum(near) / 3)
        stored = graph.constant(at.replace("/", "."), matrix.astype(np.float32))
        part = graph.node("MatMul", [stored, part], at)
    shape = np.array([-1, rows * columns, width], dtype=np.int64)
    into = graph.constant("descriptor.grid", shape)
    return graph.node("Reshape", [part, into], f"{name}/on_grid")


def _normalise(graph: Graph, normaliser: Normaliser, patch_scores: str) -> str:
    """max(0, gain · d + offset) as x + |x|, which is exact with halved constants and keeps NaN."""
    half = {"gain": normaliser.gain / 2, "offset": normaliser.offset / 2}
    gain, offset = (
        graph.constant(f"normalise.half_{name}", value.astype(np.float32)[None])
        for name, value in half.items()
    )
    scaled = graph.node("Mul", [patch_scores, gain], "normalise/scaled")
    moved = graph.node("Add", [scaled, offset], "normalise/moved")
    size = graph.node("Abs", [moved], "normalise/size")
    return graph.node("Add", [moved, size], "normalise/patch_scores")


def _map_and_score(graph: Graph, scorer: Scorer, patch_scores: str) -> None:
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
    carry_nan(graph, anomaly_map, peak, OUTPUTS[0], axes=[1, 2], keepdims=0)
