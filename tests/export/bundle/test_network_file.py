"""A bundle with a network of one's own scores as the definition says, in every number format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.bundle.graph import build_graph
from export.bundle.quantise import quantise
from export.settings import TrainSettings
from export.training.scorer import Scorer
from tests.export.bundle.test_graph import (
    GRAPHS,
    in_float64,
    pictures,
    random_scorer,
    run,
    run_openvino,
)
from tests.export.networks import Network, convolutional, describe, transformer


def scorer_of(network: Network, **options: object) -> Scorer:
    settings = TrainSettings.model_validate({"backbone": network.path, "bank_items": 40, **options})
    return random_scorer(network.path, settings)


@pytest.mark.parametrize("scales", [(1.0, 0.5), (1.0,), (0.5,)])
@pytest.mark.parametrize("props", [{}, {"mean": "0.5,0.4,0.3", "std": "0.2,0.3,0.4"}])
def test_a_convolutional_file_scores_as_in_float64(
    scales: tuple[float, ...], props: dict[str, str], tmp_path: Path
) -> None:
    network = convolutional(tmp_path / "mine.onnx", edit=describe(**props))
    scorer = scorer_of(network, size=(96, 64), strides=(8, 16), scales=scales)
    images = pictures(3, (96, 64), 7)
    expected = in_float64(scorer, images, network.reference)
    for build in GRAPHS.values():
        score, anomaly_map = run(build(scorer), images)
        np.testing.assert_allclose(anomaly_map, expected, rtol=0, atol=1e-3)
        np.testing.assert_array_equal(score, anomaly_map.max(axis=(1, 2)))
    np.testing.assert_allclose(scorer(images)[1], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("patch", "size"), [(16, (64, 96)), (14, (224, 224))])
def test_a_transformer_scores_as_in_float64(
    patch: int, size: tuple[int, int], tmp_path: Path
) -> None:
    network = transformer(tmp_path / "vit.onnx", patch)
    scorer = scorer_of(network, size=size, strides=(patch,))
    images = pictures(2, size, 7)
    expected = in_float64(scorer, images, network.reference)
    for build in GRAPHS.values():
        _, anomaly_map = run(build(scorer), images)
        np.testing.assert_allclose(anomaly_map, expected, rtol=0, atol=1e-3)
    _, anomaly_map = run_openvino(build_graph(scorer, precision="fp32"), images)
    np.testing.assert_allclose(anomaly_map, expected, rtol=0, atol=1e-3)


@pytest.fixture
def small(tmp_path: Path) -> Scorer:
    network = convolutional(tmp_path / "mine.onnx")
    return scorer_of(network, size=(64, 64), strides=(8, 16), neighbours=3)


def test_both_scales_share_one_copy_of_the_weights(small: Scorer) -> None:
    graph = build_graph(small, precision="fp32").graph
    held = [tensor.name for tensor in graph.initializer]
    assert len(held) == len(set(held))
    assert {name for name in held if name.startswith("network.")} == {
        "network.w1",
        "network.w2",
        "network.w3",
        "network.least",
        "network.most",
    }
    readers = dict.fromkeys(held, 0)
    for node in graph.node:
        for name in node.input:
            if name in readers:
                readers[name] += 1
    assert readers["network.w1"] == readers["network.w3"] == 2
    assert not [node.name for node in graph.node if "logits" in node.name]


@pytest.mark.parametrize("initializer", ["network.w1", "network.w3"])
def test_a_nan_in_the_file_reaches_the_outputs(small: Scorer, initializer: str) -> None:
    model = build_graph(small, precision="fp32")
    (tensor,) = (one for one in model.graph.initializer if one.name == initializer)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, initializer))
    for answer in run(model, pictures(1, (64, 64), 5)):
        assert np.isnan(answer).any()


def nan_for_black(model: onnx.ModelProto) -> None:
    """Divide the first convolution by itself: 0 / 0 where all that it sees is black."""
    helper.set_model_props(model, {"mean": "0,0,0", "std": "1,1,1"})
    nodes = model.graph.node
    place = next(i for i, node in enumerate(nodes) if node.op_type == "MaxPool")
    nodes[place].input[0] = "poisoned"
    nodes.insert(place, helper.make_node("Mul", ["r1", "one_or_nan"], ["poisoned"]))
    nodes.insert(place, helper.make_node("Div", ["c1", "c1"], ["one_or_nan"]))


def test_a_nan_among_numbers_is_not_dropped_by_a_maximum(tmp_path: Path) -> None:
    network = convolutional(tmp_path / "mine.onnx", edit=nan_for_black)
    scorer = scorer_of(network, size=(64, 64), strides=(8,), scales=(1.0,))
    images = np.maximum(pictures(2, (64, 64), 5), 1)
    images[1, 31:34, 31:34] = 0
    for build in GRAPHS.values():
        score, anomaly_map = run(build(scorer), images)
        assert list(np.isnan(score)) == [False, True]
        assert not np.isnan(anomaly_map[0]).any()


def test_8_bits_and_mixed_are_near_the_float_file(tmp_path: Path) -> None:
    network = convolutional(tmp_path / "mine.onnx")
    scorer = scorer_of(network, size=(64, 96), strides=(16,))
    images = pictures(4, (64, 96), 9)
    exact = scorer(images)[1]
    mixed = build_graph(scorer, precision="mixed")
    # On noise the nearest items are so alike that the search may take another one.
    np.testing.assert_allclose(run(mixed, images)[1], exact, rtol=0, atol=0.02)
    eight = quantise(build_graph(scorer, precision="int8"), list(images))
    found = run(eight, images)[1]
    assert 0 < np.abs(found - exact).max() < 0.1
    quantised = [node for node in eight.graph.node if node.op_type == "QuantizeLinear"]
    assert quantised
    onnx.checker.check_model(eight, full_check=True)
