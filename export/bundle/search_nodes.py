"""The search for the nearest items of the memory bank, as ONNX nodes.

The items are found by ‖c‖² − 2φ·c, which has the order of the distances. The distances are then
measured by the difference, because near an item the expansion has no digits left.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from export.bundle.graph_builder import Graph
from inspector.detection.bundle import BANK, OUTPUTS

CHUNK_DISTANCES = 2**20
"""Distances computed at a time: 4 MB stay in the caches until the smallest are found."""

MOST_CHUNKS_ON_CUDA = 32
"""With more chunks Split and Concat copy from host memory, which no CUDA graph may do."""

SPARE = 3
"""Items that an 8-bit search finds beyond the K nearest, in a graph that is float otherwise."""

PHI_LEVELS = 127
"""Steps from 0 to the largest value of φ, in 8 bits."""

BANK_LEVELS = 127
"""Steps from 0 to an item's largest value, in 8 bits."""

SATURATING_BANK_LEVELS = 64
"""The same where products saturate: x86 processors without VNNI add two neighbouring products in
16 bits, and 2 · 255 · 64 still fits."""


def nearest_squared(
    graph: Graph,
    phi: str,
    bank: npt.NDArray[np.float64],
    k: int,
    patches: int,
    *,
    spare: int | None = None,
    bank_levels: int = BANK_LEVELS,
) -> str:
    """The ``k`` smallest ‖φ − c‖² of each patch, float32 ``[T, k]``, the smallest first.

    With ``spare`` the items are found in 8 bits, and ``spare`` further ones are measured, because
    rounding swaps items that are almost equally near; ``bank_levels`` is how finely the bank is
    rounded. With None they are found in float32.
    ``phi`` names float32 ``[T, D']``, with a further column of ones for float32; ``bank`` is
    ``[M, D']``; both are centred. ``patches`` divides T. A NaN or an infinity in φ or the bank
    reaches every distance of its patch.
    """
    int8 = spare is not None
    stored = bank.astype(np.float32)
    squares = np.square(stored.astype(np.float64)).sum(axis=1)
    memory = graph.constant(BANK, stored)
    norms = graph.constant("memory_bank.squared_norms", squares.astype(np.float32))
    wanted = min(k + (spare or 0), len(bank))
    rough = _rounded(graph, phi, bank, bank_levels) if int8 else phi
    items, search = (memory, "") if int8 else _with_columns(graph, memory, norms)
    found = []
    for part, at in _chunks(graph, rough, patches, len(bank), cpu=int8):
        if int8:
            partial = graph.node(
                "MatMulIntegerToFloat",
                [
                    part,
                    "memory_bank.int8",
                    "patches.scale",
                    "memory_bank.int8_scale",
                    "patches.zero",
                    "memory_bank.int8_zero",
                    norms,
                ],
                f"distances/partial{at}",
                domain="com.microsoft",
            )
        else:
            partial = graph.node("Gemm", [part, search], f"distances/partial{at}", transB=1)
        found.append(_nearest(graph, partial, at, items=len(bank), k=wanted, cpu=int8))
    index = found[0]
    if len(found) > 1:
        index = graph.node("Concat", found, "distances/nearest", axis=0)
    squared = _measure(graph, phi, items, index)
    if wanted > 1 and int8:
        # The measured distances may be in another order than the rough ones.
        count = graph.constant("neighbours.measured", np.array([k], dtype=np.int64))
        outputs = ["neighbours/squared", "neighbours/index"]
        graph.nodes.append(
            helper.make_node("TopK", [squared, count], outputs, "neighbours", axis=1, largest=0)
        )
        squared = outputs[0]
    return _with_flags(graph, squared, memory, norms)


def _with_columns(graph: Graph, memory: str, norms: str) -> tuple[str, str]:
    """The bank as (c, 1) and as (−2c, ‖c‖²), to match φ with its column of ones.

    The ones cancel in a difference, and a product with the second gives ‖c‖² − 2φ·c; a bias would
    be one more pass over all distances. The runtime computes both when it loads.
    """
    one = graph.constant("memory_bank.axis", np.array([1], dtype=np.int64))
    column = graph.node("Unsqueeze", [norms, one], "memory_bank/norm_column")
    twice = graph.constant("memory_bank.factor", np.array(-2.0, dtype=np.float32))
    turned = graph.node("Mul", [memory, twice], "memory_bank/turned")
    search = graph.node("Concat", [turned, column], "memory_bank/search", axis=1)
    shape = graph.node("Shape", [column], "memory_bank/column")
    ones = graph.node(
        "ConstantOfShape",
        [shape],
        "memory_bank/ones",
        value=helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    )
    return graph.node("Concat", [memory, ones], "memory_bank/items", axis=1), search


def _measure(graph: Graph, phi: str, memory: str, index: str) -> str:
    """‖φ − c‖² of the items found, measured by the differences."""
    items = graph.node("Gather", [memory, index], "distances/items", axis=0)
    axis = graph.constant("patches.axis", np.array([1], dtype=np.int64))
    alone = graph.node("Unsqueeze", [phi, axis], "patches/alone")
    gap = graph.node("Sub", [alone, items], "distances/gap")
    return graph.node("ReduceSumSquare", [gap], "distances/squared_raw", axes=[2], keepdims=0)


def _with_flags(graph: Graph, squared: str, memory: str, norms: str) -> str:
    """Add a NaN in the bank to every distance, since TopK drops items whose distance is NaN.

    A NaN in φ needs no flag: it is in every difference of its patch.
    """
    item_sum = graph.node("ReduceSum", [memory], "memory_bank/item_sum", keepdims=0)
    norm_sum = graph.node("ReduceSum", [norms], "memory_bank/norm_sum", keepdims=0)
    bank_sum = graph.node("Add", [item_sum, norm_sum], "memory_bank/sum")
    flag = graph.node("Mul", [bank_sum, graph.zero(OUTPUTS[1])], "memory_bank/nan_flag")
    return graph.node("Add", [squared, flag], "distances/squared")


def _rounded(graph: Graph, phi: str, bank: npt.NDArray[np.float64], bank_levels: int) -> str:
    """φ in 8 bits; stores the bank's −2·c in ``bank_levels`` steps with a scale for each item.

    Values of φ beyond the bank's range are clipped. This rarely changes which items are nearest,
    and their distances are then measured exactly.
    """
    turned = -2.0 * bank.T
    scale = np.maximum(np.abs(turned).max(axis=0), 1e-12) / bank_levels
    graph.constant("memory_bank.int8", np.round(turned / scale).astype(np.int8))
    graph.constant("memory_bank.int8_scale", scale.astype(np.float32))
    graph.constant("memory_bank.int8_zero", np.zeros(len(bank), dtype=np.int8))
    reach = graph.constant(
        "patches.scale", np.array(np.abs(bank).max() / PHI_LEVELS, dtype=np.float32)
    )
    middle = graph.constant("patches.zero", np.array(PHI_LEVELS + 1, dtype=np.uint8))
    return graph.node("QuantizeLinear", [phi, reach, middle], "patches/uint8")


def _chunks(
    graph: Graph, phi: str, patches: int, items: int, *, cpu: bool
) -> list[tuple[str, str]]:
    """The rows of φ in equal parts: each part's name, and the suffix of its nodes' names."""
    counts = [
        n for n in range(1, patches + 1) if patches % n == 0 and (cpu or n <= MOST_CHUNKS_ON_CUDA)
    ]
    enough = (n for n in counts if patches // n * items <= CHUNK_DISTANCES)
    count = next(enough, counts[-1])
    if count == 1:
        return [(phi, "")]
    names = [f"patches/{i}" for i in range(count)]
    graph.nodes.append(helper.make_node("Split", [phi], names, "patches/split", axis=0))
    return [(name, f"_{i}") for i, name in enumerate(names)]


def _nearest(graph: Graph, partial: str, at: str, *, items: int, k: int, cpu: bool) -> str:
    """Indices int64 ``[T, k]`` of the ``k`` smallest of each row, the smallest first.

    The k smallest lie in the k groups with the smallest minima, so one pass over all values and a
    search in k groups of about √M are enough. ``cpu``: the graph never runs on a GPU.
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
    if cpu:
        members = graph.node("GatherND", [grouped, pairs], f"groups/members{at}", batch_dims=1)
    else:
        # This has a third of GatherND's speed, but no CUDA graph may hold GatherND: ONNX Runtime
        # copies its offsets from a vector on the stack, which is gone when the graph is replayed.
        every = graph.constant("groups.every", np.array([1, 1, size], dtype=np.int64))
        each = graph.node("Expand", [pairs, every], f"groups/each{at}")
        members = graph.node("GatherElements", [grouped, each], f"groups/members{at}", axis=1)
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
