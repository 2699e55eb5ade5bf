"""The export graph: uint8 frame in, score and map in units of the limit out.

The same function as :class:`export.train.Scorer`, written node by node so that names are readable:
scale and channel order are folded into the first convolution, batch norms into theirs, each level's
descriptor slice is applied before up-sampling, the K nearest items are found by ‖c‖² − 2φ·c and
their distances then measured exactly, smoothing and up-sampling are two matrix products.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper

from export import cfa
from export.onnx_backbone import Graph, add_backbone, carry_nan, to_numpy
from export.train import Scorer
from inspector.bundle import BANK, OUTPUTS


def build(scorer: Scorer, *, precision: str) -> onnx.ModelProto:
    """The bundle's graph, without metadata, checked by ``onnx.checker``.

    ``precision`` fp16 halves the backbone only: distances, softmin and map stay float32.
    """
    graph = Graph(np.float16 if precision == "fp16" else np.float32)
    levels = add_backbone(graph, scorer.backbone)
    patch_scores = _patch_scores(graph, scorer.model, levels, scorer)
    _map_and_score(graph, scorer, patch_scores)
    return graph.finish("cfa", *scorer.settings.input)


def _patch_scores(graph: Graph, model: cfa.CFA, levels: list[str], scorer: Scorer) -> str:
    """w_1 · d_1 of every patch, ``[N, H', W']``."""
    descriptor = model.descriptor
    (grid_h, grid_w), strides = descriptor.grid, scorer.backbone.strides
    with torch.no_grad():
        weights, constant = descriptor.folded()
    bank = to_numpy(model.bank)
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
                    to_numpy(weight)[:, :, None, None].astype(np.float32),
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
    fixed = (to_numpy(constant) - centre.reshape(-1, 1, 1)).astype(np.float32)[None]
    phi = graph.node("Add", [phi, graph.constant("descriptor.constant", fixed)], "descriptor/phi")
    phi = graph.node("Transpose", [phi], "patches/nhwc", perm=[0, 2, 3, 1])
    shape = graph.constant("patches.shape", np.array([-1, descriptor.width], dtype=np.int64))
    phi = graph.node("Reshape", [phi, shape], "patches")

    memory = graph.constant(BANK, bank.astype(np.float32))
    squares = np.square(bank.astype(np.float32).astype(np.float64)).sum(axis=1)
    norms = graph.constant("memory_bank.squared_norms", squares.astype(np.float32))
    parts = _chunks(graph, phi, grid_h * grid_w, len(bank))
    found = [
        _nearest(
            graph,
            graph.node(
                "Gemm", [part, memory, norms], f"distances/partial{at}", alpha=-2.0, transB=1
            ),
            at,
            items=len(bank),
            k=model.neighbours,
        )
        for part, at in parts
    ]
    index = (
        found[0] if len(found) == 1 else graph.node("Concat", found, "distances/nearest", axis=0)
    )
    # Found by the expansion, measured by the difference: near an item the expansion has no digits.
    items = graph.node("Gather", [memory, index], "distances/items", axis=0)
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


CHUNK_DISTANCES = 2**19
"""Distances taken at a time: 2 MB, which stay in a core's cache until the smallest are found."""


def _chunks(graph: Graph, phi: str, patches: int, items: int) -> list[tuple[str, str]]:
    """The rows of φ in equal parts, and what tells the names of a part's nodes apart."""
    count = next(
        n for n in range(1, patches + 1)
        if patches % n == 0 and (patches // n * items <= CHUNK_DISTANCES or n == patches)
    )  # fmt: skip
    if count == 1:
        return [(phi, "")]
    names = [f"patches/{i}" for i in range(count)]
    graph.nodes.append(helper.make_node("Split", [phi], names, "patches/split", axis=0))
    return [(name, f"_{i}") for i, name in enumerate(names)]


def _nearest(graph: Graph, partial: str, at: str, *, items: int, k: int) -> str:
    """Indices int64 ``[T, k]`` of the ``k`` smallest of each row, the smallest first.

    The k smallest lie in the k groups with the smallest minima: one pass over all, and a search in
    k groups of about √M.
    """
    size = min((n for n in range(1, items + 1) if items % n == 0), key=lambda n: abs(n * n - items))
    groups = items // size
    if size < 8 or groups < 2 * k:
        return _top(graph, partial, "distances/nearest", at, k)
    shape = graph.constant("groups.shape", np.array([-1, groups, size], dtype=np.int64))
    grouped = graph.node("Reshape", [partial, shape], f"groups/partial{at}")
    least = graph.node("ReduceMin", [grouped], f"groups/least{at}", axes=[2], keepdims=0)
    group = _top(graph, least, "groups/nearest", at, k)
    pairs = graph.constant("groups.pairs", np.array([-1, k, 1], dtype=np.int64))
    pairs = graph.node("Reshape", [group, pairs], f"groups/pairs{at}")
    members = graph.node("GatherND", [grouped, pairs], f"groups/members{at}", batch_dims=1)
    flat = graph.constant("groups.flat", np.array([-1, k * size], dtype=np.int64))
    members = graph.node("Reshape", [members, flat], f"groups/candidates{at}")
    place = _top(graph, members, "groups/place", at, k)
    width = graph.constant("groups.size", np.array(size, dtype=np.int64))
    if k > 1:
        rank = graph.node("Div", [place, width], f"groups/rank{at}")
        group = graph.node("GatherElements", [group, rank], f"groups/of_place{at}", axis=1)
        place = graph.node("Mod", [place, width], f"groups/member{at}")
    first = graph.node("Mul", [group, width], f"groups/first{at}")
    return graph.node("Add", [first, place], f"distances/nearest{at}")


def _top(graph: Graph, values: str, name: str, at: str, k: int) -> str:
    """Column indices of the k smallest of each row."""
    count = graph.constant("neighbours.k", np.array([k], dtype=np.int64))
    outputs = [f"{name}_value{at}", f"{name}_index{at}"]
    graph.nodes.append(
        helper.make_node(
            "TopK", [values, count], outputs, f"{name}_top{at}", axis=1, largest=0, sorted=1
        )
    )
    return outputs[1]


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
