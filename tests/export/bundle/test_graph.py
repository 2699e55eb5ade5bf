"""The exported graph is the trained function, for every backbone, and never hides a NaN."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from export.bundle import quantise, search_nodes
from export.bundle.graph import Precision, build_graph
from export.bundle.reference_graph import build_reference
from export.model import cfa
from export.model.backbone import SPECS, Backbone
from export.model.normalise import Normaliser, Statistics
from export.settings import TrainSettings
from export.training.scorer import Scorer
from inspector.detection.bundle import BANK
from tests.export.conftest import random_weights
from tests.export.networks import convolutional

ort.set_default_logger_severity(4)


def random_scorer(
    name: str | Path, options: TrainSettings, seed: int = 0, *, disturbed: bool = True
) -> Scorer:
    published = name == "efficientnet_lite0" or isinstance(name, Path)
    weights = None if published else random_weights(name)
    torch.manual_seed(seed)
    backbone = Backbone(name, options.strides, options.scales, weights)
    device = torch.device("cpu")
    pooled = cfa.pool(backbone.maps(pictures(4, options.size, seed), device))
    channels = backbone.channels
    scale = cfa.measure_scale(options, channels, lambda: iter([pooled]), device)
    model = cfa.build(
        options, channels, lambda: iter([pooled]), scale=scale, seed=seed, device=device
    )
    if disturbed:
        with torch.no_grad():
            spread = 0.05 * model.descriptor.weight.abs().max()
            model.descriptor.weight.add_(spread * torch.randn(model.descriptor.weight.shape))
            model.descriptor.bias.add_(torch.randn(model.descriptor.bias.shape))
    scorer = Scorer(backbone, model, options, device)
    if options.normalise != "none":
        usual = float(model.patch_scores(pooled).median())
        random = np.random.default_rng(seed)
        spread = random.uniform(0.0, 0.4, options.grid) ** 2
        drawn = random.normal(1.0 + spread, spread, (200, *options.grid)) * usual
        scorer.normaliser = Statistics(drawn.astype(np.float32)).normaliser()
    scorer.threshold = float(np.median(scorer(pictures(4, options.size, seed))[0]))
    return scorer


def pictures(n: int, size: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *size, 3), dtype=np.uint8)


def run(model: onnx.ModelProto, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    score, anomaly_map = session.run(["score", "anomaly_map"], {"image": images})
    return score, anomaly_map


def in_float64(
    scorer: Scorer,
    images: np.ndarray,
    network: Callable[[torch.Tensor], dict[str, torch.Tensor]] | None = None,
) -> np.ndarray:
    """Maps float64 ``[N, H, W]``: the definition, every product and difference in full digits.

    ``network`` is that of a file, in float64.
    """
    backbone, settings_ = scorer.backbone, scorer.settings
    network = network or copy.deepcopy(backbone.network).double()
    descriptor = copy.deepcopy(scorer.model.descriptor).double()
    bank = scorer.model.bank.double()
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in (backbone.mean, backbone.std)
    )
    picture = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).double() / 255.0
    corners = [picture[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    shown = {1.0: picture, 0.5: sum(corners) / 4}
    with torch.no_grad():
        passes = {scale: network((shown[scale] - mean) / std) for scale in backbone.scales}
        maps = [passes[one.scale][f"stride_{one.stride}"] for one in backbone.levels]
        pooled = cfa.pool(maps)
        finest = [
            torch.nn.functional.interpolate(level, descriptor.grid, mode="bilinear")
            for level in pooled
        ]
        features = (torch.cat(finest, dim=1) - descriptor.mean.view(1, -1, 1, 1)) / (
            descriptor.divisor.view(1, -1, 1, 1)
        )
        places = descriptor.coords.expand(len(images), -1, -1, -1)
        features = torch.cat([features, places], dim=1)
        phi = torch.einsum("dc,nchw->nhwd", descriptor.weight, features) + descriptor.bias
        distances = torch.cdist(
            phi.reshape(-1, phi.shape[-1]), bank, compute_mode="donot_use_mm_for_euclid_dist"
        )
        nearest = distances.sort(dim=1).values[:, : scorer.model.neighbours]
        score = torch.softmax(-nearest, dim=1)[:, 0] * nearest[:, 0]
    patch_scores = score.view(len(images), *descriptor.grid).numpy()
    if scorer.normaliser is not None:
        patch_scores = scorer.normaliser.gain * patch_scores + scorer.normaliser.offset
        patch_scores = np.maximum(patch_scores, 0.0)
    (grid_h, grid_w), (height, width) = settings_.grid, settings_.input
    rows = cfa.smoothing(grid_h, height, settings_.sigma_px)
    columns = cfa.smoothing(grid_w, width, settings_.sigma_px)
    return rows @ patch_scores @ columns.T / scorer.threshold


QUICK_NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18")

GRAPHS = {
    "fast": lambda scorer: build_graph(scorer, precision="fp32"),
    "reference": build_reference,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK_NETWORKS else [pytest.mark.long])
        for name in SPECS
    ],
)
def test_every_backbone_scores_as_in_float64(name: str) -> None:
    options = TrainSettings(backbone=name, size=(96, 64), strides=(4, 8, 16), bank_items=50)  # type: ignore[arg-type]
    scorer = random_scorer(name, options)
    images = pictures(1, options.size, 77)
    expected = in_float64(scorer, images)
    for build in GRAPHS.values():
        score, anomaly_map = run(build(scorer), images)
        np.testing.assert_allclose(anomaly_map, expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(score, expected.max(axis=(1, 2)), rtol=0, atol=1e-3)
        np.testing.assert_array_equal(score, anomaly_map.max(axis=(1, 2)))


@pytest.mark.long
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.sampled_from([64, 96]), st.sampled_from([64, 96, 128])),
    strides=st.sampled_from([(4, 8, 16), (8, 16), (16,), (4,), (4, 16)]),
    scales=st.sampled_from([(1.0, 0.5), (0.5,), (1.0,)]),
    items=st.one_of(st.integers(6, 120), st.sampled_from([128, 144, 256])),
    width=st.one_of(st.none(), st.integers(4, 60)),
    neighbours=st.integers(1, 6),
    standardise=st.booleans(),
    sigma=st.one_of(st.none(), st.floats(0, 30)),
    normalise=st.sampled_from(["position", "none"]),
    batch=st.integers(1, 3),
    chunks=st.sampled_from([1, 4]),
)
@settings(max_examples=12)
def test_any_model_scores_as_in_float64(
    seed: int,
    size: tuple[int, int],
    strides: tuple[int, ...],
    scales: tuple[float, ...],
    items: int,
    width: int | None,
    neighbours: int,
    standardise: bool,
    sigma: float | None,
    normalise: Literal["position", "none"],
    batch: int,
    chunks: int,
) -> None:
    options = TrainSettings(
        size=size,
        strides=strides,
        scales=scales,
        bank_items=items,
        descriptor_width=width,
        neighbours=neighbours,
        hard_negatives=0,
        standardise=standardise,
        sigma=sigma,
        normalise=normalise,
    )
    scorer = random_scorer("efficientnet_lite0", options, seed)
    images = pictures(batch, size, seed + 1)
    expected = in_float64(scorer, images)
    # Hundreds of them would keep ONNX Runtime busy for seconds.
    least = math.prod(options.grid) * options.items // chunks
    with mock.patch.object(search_nodes, "CHUNK_DISTANCES", least):
        graphs = [build(scorer) for build in GRAPHS.values()]
    for graph in graphs:
        score, anomaly_map = run(graph, images)
        np.testing.assert_allclose(anomaly_map, expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(score, expected.max(axis=(1, 2)), rtol=0, atol=1e-3)
    ours = scorer(images)
    np.testing.assert_allclose(ours[1], expected, rtol=0, atol=1e-3)


QUICK = TrainSettings(size=(64, 64), strides=(8, 16), bank_items=30, neighbours=3)


PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "mixed", "fp16", "int8")


@pytest.fixture(scope="module")
def graphs() -> dict[str, onnx.ModelProto]:
    scorer = random_scorer("efficientnet_lite0", QUICK)
    return {one: in_precision(scorer, one) for one in PRECISIONS}


@pytest.fixture(scope="module")
def small_graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The same head behind a network that is quickly compiled; one of a file has no fp16."""
    network = convolutional(tmp_path_factory.mktemp("networks") / "small.onnx").path
    small, published = random_scorer(network, QUICK), random_scorer("resnet18", QUICK)
    return {one: in_precision(published if one == "fp16" else small, one) for one in PRECISIONS}


def in_precision(scorer: Scorer, precision: Precision) -> onnx.ModelProto:
    built = build_graph(scorer, precision=precision)
    if precision != "int8":
        return built
    return quantise.quantise(built, list(pictures(4, QUICK.size, 8)))


@pytest.fixture
def graph(graphs: dict[str, onnx.ModelProto]) -> onnx.ModelProto:
    return graphs["fp32"]


def run_openvino(model: onnx.ModelProto, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    core = openvino.Core()
    program = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = program({"image": images})
    return np.array(found["score"]), np.array(found["anomaly_map"])


def spoil(model: onnx.ModelProto, initializer: str, value: float) -> onnx.ModelProto:
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(model)
    for tensor in spoilt.graph.initializer:
        if tensor.name == initializer:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[values.size // 2] = value
            tensor.CopyFrom(numpy_helper.from_array(values, initializer))
            return spoilt
    raise AssertionError(f"no initializer {initializer}")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "initializer",
    [
        BANK,
        "memory_bank.squared_norms",
        "descriptor.stride_8.weight",
        "descriptor.half.stride_16.weight",
        "descriptor.constant",
        "normalise.half_gain",
        "normalise.half_offset",
        "map.rows",
        "map.columns",
    ],
)
@pytest.mark.parametrize(
    "precision",
    ["fp32", "int8", *(pytest.param(one, marks=pytest.mark.long) for one in ("mixed", "fp16"))],
)
@pytest.mark.parametrize("engine", [run, run_openvino])
def test_nan_anywhere_in_the_head_reaches_the_score(
    small_graphs: dict[str, onnx.ModelProto],
    initializer: str,
    value: float,
    precision: str,
    engine: Callable[[onnx.ModelProto, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    spoilt = spoil(small_graphs[precision], initializer, value)
    score, anomaly_map = engine(spoilt, pictures(2, QUICK.size, 5))
    assert not np.isfinite(score).any()
    assert not np.isfinite(anomaly_map.max(axis=(1, 2))).any()


@pytest.mark.long
def test_openvino_scores_a_backbone_in_8_bits_alike(graphs: dict[str, onnx.ModelProto]) -> None:
    images = pictures(4, QUICK.size, 8)
    exact, found = run(graphs["int8"], images)[1], run_openvino(graphs["int8"], images)[1]
    assert np.sqrt(np.square(exact - found).mean()) <= 0.02 * exact.mean()


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "mixed", "fp16", "int8"])
def test_both_scales_read_one_set_of_weights(
    graphs: dict[str, onnx.ModelProto], precision: str
) -> None:
    nodes, tensors = graphs[precision].graph.node, graphs[precision].graph.initializer
    read: dict[bool, list[str]] = {False: [], True: []}
    makers = {output: node for node in nodes for output in node.output}
    for node in nodes:
        if node.op_type == "Conv" and "average" not in node.input[1]:
            maker = makers.get(node.input[1])
            read[node.name.startswith("half/")].append(maker.input[0] if maker else node.input[1])
    assert len(read[True]) > 30
    assert read[True] == read[False]
    # No matrix is stored twice, under whichever name. Biases in 8 bits belong to one pass each.
    large = [tensor.raw_data for tensor in tensors if len(tensor.raw_data) > 4096]
    assert len(large) == len(set(large)) > 15


@pytest.mark.long
def test_int8_leaves_the_same_layers_float_in_both_passes() -> None:
    scorer = random_scorer("efficientnet_lite0", QUICK)
    graph = build_graph(scorer, precision="int8")
    with mock.patch.object(quantise, "FLOAT_SHARES", (0.3,)):
        made = quantise.quantise(graph, list(pictures(4, QUICK.size, 8)))
    makers = {output: node.op_type for node in made.graph.node for output in node.output}
    rounded: dict[bool, list[bool]] = {False: [], True: []}
    for node in made.graph.node:
        if node.op_type == "Conv" and not node.name.endswith("/averaged"):
            of_half = node.name.startswith("half/")
            rounded[of_half].append(makers.get(node.input[1]) == "DequantizeLinear")
    assert rounded[True] == rounded[False]
    assert 0.6 < np.mean(rounded[True]) < 0.8


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nan_before_a_max_pool_reaches_the_score(precision: str) -> None:
    options = QUICK.model_copy(update={"backbone": "resnet18"})
    model = build_graph(random_scorer("resnet18", options), precision=precision)
    score, _ = run(spoil(model, "conv1.bias", np.nan), pictures(1, QUICK.size, 5))
    assert np.isnan(score).all()


@pytest.mark.long
def test_graph_is_readable_and_keeps_the_fixed_names(graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    names = [node.name for node in graph.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert [value.name for value in graph.graph.input] == ["image"]
    assert [value.name for value in graph.graph.output] == ["score", "anomaly_map"]
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["N", 64, 64, 3]
    bank = next(t for t in graph.graph.initializer if t.name == BANK)
    assert list(bank.dims) == [30, 2 * 152]
    assert not any(node.op_type == "BatchNormalization" for node in graph.graph.node)


def test_fp16_halves_the_backbone_and_stays_near() -> None:
    scorer = random_scorer("efficientnet_lite0", QUICK)
    full = build_graph(scorer, precision="fp32")
    half = build_graph(scorer, precision="fp16")
    assert half.ByteSize() < 0.6 * full.ByteSize()
    images = pictures(2, QUICK.size, 8)
    np.testing.assert_allclose(run(half, images)[1], run(full, images)[1], atol=2e-2)


def test_a_graph_for_gpus_has_no_node_that_copies_from_the_host() -> None:
    """As ONNX Runtime's source has it: GatherND, and Split and Concat of more than 32."""
    options = QUICK.model_copy(update={"bank_items": 256})
    scorer = random_scorer("efficientnet_lite0", options)
    for precision, cpu in (("fp32", False), ("fp16", False), ("mixed", True), ("int8", True)):
        with mock.patch.object(search_nodes, "CHUNK_DISTANCES", 256):
            nodes = build_graph(scorer, precision=precision).graph.node
        assert any(node.op_type == "GatherND" for node in nodes) is cpu
        most = max(len(node.output) for node in nodes if node.op_type == "Split")
        assert (most > 32) is cpu
        assert most > 1


def test_search_in_8_bits_finds_distances_as_small() -> None:
    options = QUICK.model_copy(update={"bank_items": 256, "size": (128, 128), "neighbours": 1})
    scorer = random_scorer("efficientnet_lite0", options, disturbed=False)
    images = pictures(2, options.size, 8)
    exact = run(build_graph(scorer, precision="fp32"), images)[1]
    for precision, most in (("int8", 2e-2), ("mixed", 1e-4)):
        with mock.patch.object(search_nodes, "CHUNK_DISTANCES", 20_000):
            found = run(build_graph(scorer, precision=precision), images)[1]
        # Another item than the nearest is farther, never nearer, and hardly.
        assert (found >= exact - 1e-4).all()
        np.testing.assert_allclose(found, exact, atol=most)


def test_no_product_of_the_search_is_cut_off_on_any_processor(
    graphs: dict[str, onnx.ModelProto],
) -> None:
    """Without VNNI, x86 processors add two neighbouring products in 16 bits."""
    for precision in ("mixed", "int8"):
        tensors = {tensor.name: tensor for tensor in graphs[precision].graph.initializer}
        bank = numpy_helper.to_array(tensors["memory_bank.int8"]).astype(int)
        pairs = np.abs(255 * bank).reshape(-1, 2, bank.shape[1]).sum(axis=1)
        assert 2**14 < pairs.max() < 2**15


def test_products_saturate_where_the_processor_has_no_vnni() -> None:
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        pytest.skip("no /proc/cpuinfo here to compare with")
    x86 = "sse2" in words
    assert quantise.products_saturate() is (x86 and not {"avx_vnni", "avx512_vnni"} & set(words))


@pytest.mark.long
def test_a_wide_descriptor_in_8_bits_comes_before_the_average() -> None:
    scorer = random_scorer("efficientnet_lite0", QUICK, disturbed=False)
    images = pictures(4, QUICK.size, 8)
    exact = run(build_graph(scorer, precision="fp32"), images)[1]
    with mock.patch("export.bundle.graph.WIDE", 1):
        turned = build_graph(scorer, precision="int8")
    # Nothing but the search is in 8 bits yet.
    np.testing.assert_allclose(run(turned, images)[1], exact, atol=2e-2)
    rounded = quantise.quantise(turned, list(images))
    kinds = {tensor.name: tensor.data_type for tensor in rounded.graph.initializer}
    for level in scorer.backbone.levels:
        at = level.name.replace("/", ".")
        assert kinds[f"descriptor.{at}.weight_quantized"] == onnx.TensorProto.INT8
    for engine in (run, run_openvino):
        gap = engine(rounded, images)[1] - exact
        assert 0 < np.sqrt(np.square(gap).mean()) <= 0.03 * exact.mean()
    spoilt = spoil(rounded, "descriptor.stride_8.weight_scale", np.nan)
    assert np.isnan(run(spoilt, images)[0]).all()


@pytest.mark.long
def test_backbone_in_8_bits_keeps_the_features() -> None:
    scorer = random_scorer("resnet18", QUICK.model_copy(update={"backbone": "resnet18"}))
    images = pictures(6, QUICK.size, 8)
    full = build_graph(scorer, precision="fp32")
    rounded = quantise.quantise(full, list(images))
    assert rounded.ByteSize() < 0.5 * full.ByteSize()
    levels = zip(*(quantise._features(model, images) for model in (full, rounded)), strict=True)
    for exact, found in levels:
        assert 0 < np.square(exact - found).mean() <= quantise.NOISE * exact.var()


@pytest.mark.parametrize("engine", [run, run_openvino])
@pytest.mark.parametrize("build", GRAPHS.values(), ids=list(GRAPHS))
def test_normalised_distances_are_never_negative_and_keep_nan(
    build: Callable[[Scorer], onnx.ModelProto],
    engine: Callable[[onnx.ModelProto, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    scorer = random_scorer("efficientnet_lite0", QUICK)
    assert scorer.normaliser is not None
    # Far below zero at every position but one, which is NaN.
    offset = np.full(QUICK.grid, -1e6)
    scorer.normaliser = Normaliser(np.ones(QUICK.grid), offset, 10)
    images = pictures(2, QUICK.size, 5)
    score, anomaly_map = engine(build(scorer), images)
    assert (score == 0).all()
    assert (anomaly_map == 0).all()
    offset[3, 4] = np.nan
    assert np.isnan(engine(build(scorer), images)[0]).all()


def test_normalisation_costs_four_small_nodes() -> None:
    scorer = random_scorer("efficientnet_lite0", QUICK)
    with_it = build_graph(scorer, precision="fp32")
    scorer.normaliser = None
    without = build_graph(scorer, precision="fp32")
    assert len(with_it.graph.node) == len(without.graph.node) + 4
    assert with_it.ByteSize() - without.ByteSize() < 8 * math.prod(QUICK.grid) + 1000
