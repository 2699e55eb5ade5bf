"""Engines and precisions on a GPU, against the CPU in float32, in one interleaved run.

    python -m benchmarks.speed.gpu BUNDLE.onnx [--engines cuda,cuda-graph,tensorrt] [--rounds 200]
    python -m benchmarks.speed.gpu BUNDLE.onnx --write wrn.onnx      # for end_to_end

Beside the bundle it measures networks with random weights, as fp32 and fp16, and their backbones
alone, where torch and torchvision are installed. For each: time, the largest difference of the map
from float32 on the CPU in units of the limit, and whether a NaN in the memory bank reaches the
score. ``--write`` makes a bundle of WRN50-2 at 224 in fp16 that a station runs.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.progress import track

from benchmarks.figures import Figure, publish
from inspector.detection import bundle as bundles
from inspector.detection import engines, fitness
from inspector.detection.bundle import BANK, OUTPUTS, Bundle
from inspector.detection.engines import Engine, InferenceBackend
from inspector.errors import Fault, InspectorError
from inspector.files import write_whole
from inspector.imaging.images import encode_png

ENGINES = {
    "cpu": Engine(provider="cpu"),
    "openvino": Engine(provider="openvino"),
    "cuda": Engine(provider="cuda", graph=False),
    "cuda-graph": Engine(provider="cuda"),
    "tensorrt": Engine(provider="tensorrt"),
}
GOAL_MS = {("wide_resnet50_2 224, fp16", "cuda-graph"): 1.0}
BATCH = 4
"""The largest that is tried: what cameras share."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engines", default="cuda,cuda-graph,tensorrt")
    parser.add_argument("--backbones", default="wide_resnet50_2,resnet18,efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--name", default="gpu-engines")
    parser.add_argument("--write", type=Path, metavar="FILE", help="make a station's bundle, only")
    options = parser.parse_args()
    names = options.engines.split(",")
    given = bundles.read(options.bundle)
    if options.write:
        write_bundle(given, options.write)
        return
    subjects = [Subject(given.manifest.name, given, given)]
    subjects += networks(given, [name for name in options.backbones.split(",") if name])
    figures: list[Figure] = []
    try:
        for subject in track(subjects, "models", console=Console(stderr=True)):
            figures += measure(subject, names, options.rounds)
    finally:
        # Out of time, too: what there is.
        publish(
            options.name,
            f"python -m benchmarks.speed.gpu {options.bundle.name} --engines {options.engines}",
            figures,
        )


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: a model, its float32 twin, and its backbone alone."""

    name: str
    model: Bundle
    reference: Bundle
    alone: Bundle | None = None

    def engines(self, names: list[str]) -> list[str]:
        """TensorRT takes minutes to plan float32, which is nobody's choice there."""
        return [name for name in names if name != "tensorrt" or ", fp32" not in self.name]


def networks(given: Bundle, backbones: list[str]) -> list[Subject]:
    """Untrained networks at 224; none without torch."""
    try:
        from benchmarks.graphs import random_scorer, trunk
        from export.bundle.graph import build_graph
        from export.settings import TrainSettings
    except ImportError as error:
        print(f"gpu: {error}: no networks but the bundle's are measured")
        return []
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for backbone in backbones:
            settings = TrainSettings(backbone=backbone, size=(224, 224))
            scorer, _ = random_scorer(settings, Path(scratch))
            full, half = (
                _as_bundle(given, build_graph(scorer, precision=precision), precision)
                for precision in ("fp32", "fp16")
            )
            alone = _with_outputs(trunk(onnx.load_from_string(half.data)), settings.input)
            bare = _as_bundle(given, alone, "fp16")
            made.append(Subject(f"{backbone} 224, fp16", half, full, bare))
            made.append(Subject(f"{backbone} 224, fp32", full, full))
    return made


def _with_outputs(trunk: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """A backbone that a station's engine runs: the largest feature, as score and all over a map."""
    graph = trunk.graph
    names = [value.name for value in graph.output]
    del graph.output[:]
    for number, name in enumerate(names):
        graph.node.append(
            helper.make_node("Cast", [name], [f"float{number}"], to=TensorProto.FLOAT)
        )
        graph.node.append(
            helper.make_node("ReduceMax", [f"float{number}"], [f"max{number}"], axes=[1, 2, 3])
        )
    graph.node.append(helper.make_node("Max", [f"max{i}" for i in range(len(names))], ["max"]))
    for name, shape in (("flat", [-1]), ("apart", [-1, 1, 1]), ("size", [1, *size])):
        graph.initializer.append(numpy_helper.from_array(np.array(shape), name))
    graph.node.append(helper.make_node("Reshape", ["max", "flat"], [OUTPUTS[0]]))
    graph.node.append(helper.make_node("Reshape", ["max", "apart"], ["place"]))
    graph.node.append(helper.make_node("Expand", ["place", "size"], [OUTPUTS[1]]))
    shapes = (["N"], ["N", *size])
    for name, shape in zip(OUTPUTS, shapes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(trunk)
    return trunk


def write_bundle(given: Bundle, path: Path) -> None:
    """WRN50-2 with random weights, for the parts of ``given``; its limit lies above the good ones.

    Only its times mean something: nothing is proven of it, and no part reaches its limit.
    """
    from benchmarks.graphs import random_scorer
    from export.bundle.assemble import serialise
    from export.bundle.graph import build_graph
    from export.settings import TrainSettings

    pictures = [cv2.resize(golden.image(), (224, 224)) for golden in given.manifest.golden]
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainSettings(backbone="wide_resnet50_2", size=(224, 224))
        scorer, _ = random_scorer(settings, Path(scratch))
        scorer.threshold *= 2 * float(scorer(np.stack(pictures))[0].max())
        model = _as_bundle(given, build_graph(scorer, precision="fp16"), "fp16")
    backend = start(model, ENGINES["cpu"], 224, 224, 1)
    manifest = model.manifest.model_copy(
        update={
            "name": "wide_resnet50_2",
            "geometry": given.manifest.geometry.model_copy(update={"height": 224, "width": 224}),
            "exposure": fitness.learn(pictures),
            "parity": None,
            "cfa": given.manifest.cfa.model_copy(
                update={
                    "backbone": settings.backbone,
                    "strides": settings.strides,
                    "scales": settings.scales,
                    "bank_items": settings.items,
                    "descriptor_width": scorer.model.descriptor.width,
                    "grid": settings.grid,
                }
            ),
            "golden_tolerance": 5e-2,
            "golden": tuple(
                golden.model_copy(
                    update={
                        "png": base64.b64encode(encode_png(picture)).decode(),
                        "score": float(backend.infer(picture[None])[0][0]),
                    }
                )
                for golden, picture in zip(given.manifest.golden, pictures, strict=True)
            ),
        }
    )
    write_whole(path, serialise(onnx.load_from_string(model.data), manifest))


def _as_bundle(given: Bundle, graph: onnx.ModelProto, precision: str) -> Bundle:
    geometry = given.manifest.geometry.model_copy(
        update={"height": 224, "width": 224, "region": None, "frame": None}
    )
    manifest = given.manifest.model_copy(update={"geometry": geometry, "precision": precision})
    return dataclasses.replace(given, data=graph.SerializeToString(), manifest=manifest)


def measure(subject: Subject, names: list[str], rounds: int) -> list[Figure]:
    """Every engine that starts, and the backbone alone on it, in turns."""
    name, geometry = subject.name, subject.model.manifest.geometry
    chance = np.random.default_rng(0)
    shape = (BATCH, geometry.height, geometry.width, 3)
    pictures = chance.integers(0, 256, shape, dtype=np.uint8)
    started: dict[str, InferenceBackend] = {}
    alone: dict[str, InferenceBackend] = {}
    for each in subject.engines(names):
        try:
            started[each] = start(subject.model, ENGINES[each], *shape[1:3], BATCH)
            if subject.alone is not None:
                alone[each] = start(subject.alone, ENGINES[each], *shape[1:3], 1)
        except (InspectorError, Fault) as error:
            print(f"gpu: {name}, {each}: {error}")
    calls = [(backend, size) for backend in started.values() for size in (1, BATCH)]
    calls += [(backend, 1) for backend in alone.values()]
    times: dict[tuple[InferenceBackend, int], list[float]] = {call: [] for call in calls}
    for _ in range(rounds):
        for number in chance.permutation(len(calls)):
            backend, size = calls[number]
            begun = time.perf_counter()
            backend.infer(pictures[:size])
            times[backend, size].append((time.perf_counter() - begun) * 1e3)
    true = start(subject.reference, ENGINES["cpu"], *shape[1:3], 1)
    expected = np.concatenate([true.infer(picture[None])[1] for picture in pictures])
    figures = []
    for each, backend in started.items():
        what = f"{name}, {each}"
        median = float(np.median(times[backend, 1]))
        goal = GOAL_MS.get((name, each))
        words = "" if goal is None else f"≤ {goal:g}"
        holds = None if goal is None else median <= goal
        figures.append(Figure(f"{what}: one picture, p50", median, "ms", words, holds))
        slow = float(np.quantile(times[backend, 1], 0.99))
        figures.append(Figure(f"{what}: one picture, p99", slow, "ms"))
        if each in alone:
            bare = float(np.median(times[alone[each], 1]))
            figures.append(Figure(f"{what}: backbone alone, p50", bare, "ms"))
            figures.append(Figure(f"{what}: model / its backbone alone", median / bare, ""))
        several = float(np.median(times[backend, BATCH])) / BATCH
        figures.append(Figure(f"{what}: {BATCH} at once, each", several, "ms"))
        # One by one as well: each batch size has a graph of its own, and was replayed by now.
        maps = [np.concatenate([backend.infer(picture[None])[1] for picture in pictures])]
        maps.append(backend.infer(pictures)[1])
        gap = max(float(np.abs(found - expected).max()) for found in maps)
        figures.append(Figure(f"{what}: largest map difference", gap, "limits"))
        score = start(_spoilt(subject.model), ENGINES[each], *shape[1:3], 1).infer(pictures[:1])[0]
        lost = float(np.isfinite(score).all())
        figures.append(Figure(f"{what}: NaN in the bank lost", lost, "", "0", lost == 0))
    return figures


def start(model: Bundle, engine: Engine, height: int, width: int, batch: int) -> InferenceBackend:
    backend = engines.create(engine)
    backend.load(model)
    backend.warm(height, width, batch)
    return backend


def _spoilt(model: Bundle) -> Bundle:
    graph = onnx.load_from_string(model.data)
    for tensor in graph.graph.initializer:
        if tensor.name == BANK:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[values.size // 2] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, BANK))
    return dataclasses.replace(model, data=graph.SerializeToString())


if __name__ == "__main__":
    main()
