"""The graph as the paper writes it, step by step, to check and time the fast graph against.

Every level is brought to the finest grid before φ, the coordinates are channels, all T·M distances
are computed and their roots sorted, and the map is up-sampled and blurred by one dense kernel.
:mod:`export.bundle.graph` computes the same function with a fraction of the work.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from scipy.ndimage import gaussian_filter1d

from export.bundle.backbone_nodes import add_backbone, add_local_averages
from export.bundle.graph_builder import Graph, carry_nan, to_numpy
from export.model.cfa import CFA
from export.model.normalise import Normaliser
from export.training.scorer import Scorer
from inspector.detection.bundle import BANK, OUTPUTS


def build_reference(scorer: Scorer) -> onnx.ModelProto:
    """The literal graph in float32, without metadata, checked by ``onnx.checker``."""
    graph = Graph(np.float32)
    levels = add_backbone(graph, scorer.backbone, scorer.settings.input[1], folded=False)
    levels = add_local_averages(graph, levels, scorer.backbone)
    phi = _descriptor(graph, scorer, levels)
    patch_scores = _patch_scores(graph, scorer.model, phi)
    if scorer.normaliser is not None:
        patch_scores = _normalise(graph, scorer.normaliser, patch_scores)
    _map_and_score(graph, scorer, patch_scores)
    return graph.finish("cfa_reference", *scorer.settings.input)


def _descriptor(graph: Graph, scorer: Scorer, levels: list[str]) -> str:
    """φ of every patch, ``[N·H'·W', D']`` (section III-B)."""
    descriptor = scorer.model.descriptor
    finest: list[str] = []
    for name, level in zip(levels, scorer.backbone.levels, strict=True):
        factor = level.patch_px // scorer.settings.patch_px
        scales = graph.constant(
            f"features.by_{factor}.scales", np.array([1, 1, factor, factor], dtype=np.float32)
        )
        finest.append(
            graph.node(
                "Resize",
                [name, "", scales],
                f"features/{level.name}",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        )
    features = graph.node("Concat", finest, "features/p", axis=1)
    mean = to_numpy(descriptor.mean).reshape(1, -1, 1, 1)
    divisor = to_numpy(descriptor.divisor).reshape(1, -1, 1, 1)
    features = graph.node("Sub", [features, _float(graph, "features.mean", mean)], "features/mean")
    features = graph.node(
        "Div", [features, _float(graph, "features.divisor", divisor)], "features/standardised"
    )
    # Each picture of the batch gets a copy of the coordinates.
    shape = graph.node("Shape", [features], "coordinates/batch", end=1)
    plane = graph.constant("coordinates.plane", np.array([2, *descriptor.grid], dtype=np.int64))
    shape = graph.node("Concat", [shape, plane], "coordinates/shape", axis=0)
    coordinates = _float(graph, "coordinates", to_numpy(descriptor.coords)[None])
    coordinates = graph.node("Expand", [coordinates, shape], "coordinates/expanded")
    features = graph.node("Concat", [features, coordinates], "features/coord", axis=1)
    weight = _float(graph, "descriptor.weight", to_numpy(descriptor.weight)[:, :, None, None])
    bias = _float(graph, "descriptor.bias", to_numpy(descriptor.bias))
    phi = graph.node("Conv", [features, weight, bias], "descriptor/phi", kernel_shape=[1, 1])
    phi = graph.node("Transpose", [phi], "patches/nhwc", perm=[0, 2, 3, 1])
    rows = graph.constant("patches.shape", np.array([-1, descriptor.width], dtype=np.int64))
    return graph.node("Reshape", [phi, rows], "patches")


def _patch_scores(graph: Graph, model: CFA, phi: str) -> str:
    """w_1 · d_1 of every patch, ``[N, H', W']`` (section III-D)."""
    bank = to_numpy(model.bank)
    # float32 loses the digits of distances among vectors that all lie far from the origin.
    centre = bank.mean(axis=0, keepdims=True)
    memory = _float(graph, BANK, bank - centre)
    phi = graph.node("Sub", [phi, _float(graph, "patches.centre", centre)], "patches/centred")
    turned = graph.node("Transpose", [memory], "memory_bank/transposed", perm=[1, 0])
    product = graph.node("MatMul", [phi, turned], "distances/product")
    two = _float(graph, "distances.two", np.array(2.0))
    product = graph.node("Mul", [product, two], "distances/twice")
    own = graph.node("ReduceSumSquare", [phi], "distances/phi", axes=[1], keepdims=1)
    items = graph.node("ReduceSumSquare", [turned], "distances/items", axes=[0], keepdims=1)
    both = graph.node("Add", [own, items], "distances/norms")
    squared = graph.node("Sub", [both, product], "distances/raw")
    squared = graph.node("Max", [squared, graph.zero(OUTPUTS[1])], "distances/squared_max")
    squared = carry_nan(graph, both, squared, "distances/squared", axes=[1])
    distance = graph.node("Sqrt", [squared], "distances/d")
    k = graph.constant("neighbours.k", np.array([model.neighbours], dtype=np.int64))
    graph.nodes.append(
        helper.make_node(
            "TopK",
            [distance, k],
            ["distances/nearest", "distances/nearest_index"],
            "distances/nearest",
            axis=1,
            largest=0,
            sorted=1,
        )
    )
    negative = graph.node("Neg", ["distances/nearest"], "softmin/negative")
    soft = graph.node("Softmax", [negative], "softmin/w", axis=1)
    weighted = graph.node("Mul", [soft, "distances/nearest"], "softmin/w_d")
    first = graph.constant("softmin.first", np.array(0, dtype=np.int64))
    best = graph.node("Gather", [weighted, first], "softmin/w1_d1", axis=1)
    grid = graph.constant("map.grid", np.array([-1, 1, *model.descriptor.grid], dtype=np.int64))
    return graph.node("Reshape", [best, grid], "map/patch_scores")


def _normalise(graph: Graph, normaliser: Normaliser, patch_scores: str) -> str:
    """max(0, gain · d + offset), with a flag for the NaN that the maximum drops."""
    gain = _float(graph, "normalise.gain", normaliser.gain[None, None])
    offset = _float(graph, "normalise.offset", normaliser.offset[None, None])
    scaled = graph.node("Mul", [patch_scores, gain], "normalise/scaled")
    moved = graph.node("Add", [scaled, offset], "normalise/moved")
    kept = graph.node("Max", [moved, graph.zero(OUTPUTS[1])], "normalise/max")
    return carry_nan(graph, moved, kept, "normalise/patch_scores", axes=[1])


def _map_and_score(graph: Graph, scorer: Scorer, patch_scores: str) -> None:
    """Bilinear up-sampling to the input size, Gaussian σ, and the map's maximum (section III-D)."""
    settings = scorer.settings
    factor = settings.patch_px
    scales = graph.constant("map.scales", np.array([1, 1, factor, factor], dtype=np.float32))
    anomaly_map = graph.node(
        "Resize",
        [patch_scores, "", scales],
        "map/upsampled",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    kernel = _gaussian(settings.sigma_px)
    reach = len(kernel) // 2
    for axis, side in zip((2, 3), settings.input, strict=True):
        index = graph.constant(f"map.mirror_{axis}", _mirror(side, reach))
        anomaly_map = graph.node("Gather", [anomaly_map, index], f"map/mirror_{axis}", axis=axis)
    weight = _float(graph, "map.gaussian", np.outer(kernel, kernel)[None, None])
    anomaly_map = graph.node(
        "Conv", [anomaly_map, weight], "map/smoothed", kernel_shape=[len(kernel)] * 2
    )
    limit = _float(graph, "map.limit", np.array(scorer.threshold))
    anomaly_map = graph.node("Div", [anomaly_map, limit], "map/in_limits")
    shape = graph.constant("map.shape", np.array([-1, *settings.input], dtype=np.int64))
    anomaly_map = graph.node("Reshape", [anomaly_map, shape], OUTPUTS[1])
    peak = graph.node("ReduceMax", [anomaly_map], "score/max", axes=[1, 2], keepdims=0)
    carry_nan(graph, anomaly_map, peak, OUTPUTS[0], axes=[1, 2], keepdims=0)


def _gaussian(sigma: float) -> npt.NDArray[np.float64]:
    """SciPy's kernel, cut off at 4 σ."""
    reach = int(4.0 * sigma + 0.5)
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1.0
    out = gaussian_filter1d(impulse, sigma, mode="constant") if sigma > 0.1 else impulse
    return np.asarray(out, dtype=np.float64)


def _mirror(side: int, reach: int) -> npt.NDArray[np.int64]:
    """Indices of pixels -reach … side + reach, mirrored at the border (SciPy's ``reflect``)."""
    at = np.arange(-reach, side + reach) % (2 * side)
    return np.minimum(at, 2 * side - 1 - at).astype(np.int64)


def _float(graph: Graph, name: str, value: npt.NDArray[np.float64]) -> str:
    return graph.constant(name, value.astype(np.float32))
