"""Assembles a bundle of graph, manifest and golden images, and writes it once parity is proven."""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import onnx

from export.bundle.graph import Precision, build_graph
from export.bundle.parity import prove
from export.bundle.reference_graph import build_reference
from export.data.dataset import Sample, open_test
from export.data.layouts import GOOD
from export.data.photos import load_sample
from export.model.network_file import NetworkFile
from export.training.run import Run
from export.training.scorer import Scorer
from inspector import __version__
from inspector.config.station_file import Provider
from inspector.detection.bundle import MANIFEST_KEY, seal
from inspector.detection.detector import Detector
from inspector.detection.engines.onnxruntime import missing
from inspector.detection.manifest import Cfa, Extension, Golden, Manifest, Normalisation
from inspector.errors import ConfigError, Fault, OutputError, ParityError, StartupError
from inspector.files import output_errors, write_whole
from inspector.imaging.geometry import Geometry
from inspector.imaging.images import encode_png
from inspector.verdict import Frame8

PrecisionChoice = Literal["auto", "fp32", "mixed", "fp16", "int8"]

RANGE_PARTS = 32
"""Number of good parts from which int8 takes the range of every tensor."""

GOLDEN_TOLERANCE = {"fp32": 5e-3, "mixed": 5e-3, "fp16": 5e-2, "int8": 5e-2}
"""Largest change of a golden score on another machine or provider, in units of the limit."""

_WORTH_IT: Final[dict[Precision, float]] = {"int8": 1.25, "mixed": 1.03}
"""Speed-up over fp32 that each must reach; int8 must reach more, because it is less exact."""
_ROUNDS: Final = 50
_GOOD_NAMES: Final = ("good, low", "good, middle", "good, high")
"""Of the golden pictures of good parts, in the order of their scores."""

_PRODUCTS: Final = {"MatMul", "Gemm", "Einsum", "Attention"}
"""What a transformer works by. With its few convolutions in 8 bits, it would be no faster."""


def check_output(output: Path) -> None:
    """Raise :class:`OutputError` when no bundle can be written to ``output``, before any work."""
    if output.is_dir():
        raise OutputError(
            f"{output}: is a folder; name the bundle's file with -o, such as {output / 'part.onnx'}"
        )
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder; make it, or choose another one")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output.parent}: cannot be written; choose another folder")


def export_bundle(
    run: Run,
    scorer: Scorer,
    output: Path,
    *,
    name: str,
    precision: PrecisionChoice,
    data: Path,
    on_image: Callable[[int, int], None],
    on_choice: Callable[[str], None] = lambda _: None,
    reference: bool = False,
) -> Manifest:
    """Write the bundle of a finished run to ``output`` after the proof of parity.

    ``precision`` auto takes int8 or mixed if this machine's CPU gains by it and the proof holds,
    else fp32; ``on_choice`` is called with the choice and its reasons. ``reference`` writes the
    graph of :mod:`~export.bundle.reference_graph`, always in fp32. Raises :class:`ParityError`
    (nothing is written), :class:`OutputError`, :class:`ConfigError` for a precision that the
    network cannot have, and :class:`RunError` when ``data`` does not hold the photos that the run
    was trained on.
    """
    check_output(output)
    good = run.photos(data)
    drafts = _Drafts(
        run,
        scorer,
        name,
        good,
        [Sample(path, GOOD, None) for path in good],
        open_test(data, run.facts().selection),
        on_image,
    )
    with output_errors(output):
        if reference:
            draft = drafts.prove(drafts.draft("fp32", build_reference(scorer)))
        elif precision == "auto":
            draft, why = drafts.choose()
            on_choice(why)
        else:
            draft = drafts.prove(drafts.draft(precision))
        write_whole(output, serialise(draft.graph, draft.manifest))
    Detector.load(output, provider="cpu")
    return draft.manifest


@dataclass(frozen=True)
class _Draft:
    """A bundle that is not written yet, and a detector that runs it."""

    graph: onnx.ModelProto
    manifest: Manifest
    detector: Detector


@dataclass(frozen=True)
class _Drafts:
    """Makes and proves drafts of one run: its model, its photos and the data set's test photos."""

    run: Run
    scorer: Scorer
    name: str
    good: tuple[Path, ...]
    validation: Sequence[Sample]
    test: Sequence[Sample]
    on_image: Callable[[int, int], None]

    def draft(self, precision: Precision, graph: onnx.ModelProto | None = None) -> _Draft:
        geometry = self.run.facts().geometry
        graph = graph or _graph(self.scorer, precision, self.good, geometry)
        manifest = _manifest(self.run, self.scorer, self.good, name=self.name, precision=precision)
        with tempfile.TemporaryDirectory() as scratch:
            candidate = Path(scratch) / "candidate.onnx"
            candidate.write_bytes(serialise(graph, manifest))
            # Half precision is meant for CUDA, and is proven there if the machine has one.
            provider: Provider = "auto" if precision == "fp16" else "cpu"
            return _Draft(graph, manifest, Detector.load(candidate, provider, verify=False))

    def prove(self, draft: _Draft) -> _Draft:
        """``draft`` with its proof in the manifest. Raises :class:`ParityError`."""
        precision, count = draft.manifest.precision, len(self.validation) + len(self.test)
        parity = prove(
            draft.detector,
            self.scorer,
            self.validation,
            self.test,
            self.run.facts().geometry,
            precision=precision,
            on_image=lambda done: self.on_image(done, count),
        )
        changes: dict[str, object] = {"parity": parity}
        if precision in {"fp16", "int8"}:
            changes["golden"] = _rescored(draft.manifest, draft.detector)
        return replace(draft, manifest=draft.manifest.model_copy(update=changes))

    def choose(self) -> tuple[_Draft, str]:
        """The first precision that is fast enough and proven, and why. Raises ParityError."""
        plain = self.draft("fp32")
        if not missing("cuda"):
            return self.prove(plain), "fp32, for this machine's GPU"
        why_not = []
        for precision, worth in _WORTH_IT.items():
            try:
                draft = self.draft(precision)
                speed = times_as_fast(draft.detector, plain.detector)
            except (StartupError, Fault) as error:
                why_not.append(f"{precision} does not run here: {error}")
                continue
            gain = f"{speed:.2f} times as fast as fp32 on this machine"
            if speed < worth:
                why_not.append(f"{precision} is {gain}, which is not worth it")
                continue
            try:
                proven = self.prove(draft)
            except ParityError as error:
                refusal = str(error).partition("; no file")[0]
                why_not.append(f"{precision} was tried and is refused: {refusal}")
                continue
            others = "a GPU, or a processor without VNNI," if precision == "int8" else "a GPU"
            why = f"{precision}, {gain}; for {others} export with --precision fp32"
            return proven, "; ".join([why, *why_not])
        return self.prove(plain), "; ".join(["fp32", *why_not])


def times_as_fast(one: Detector, other: Detector) -> float:
    """Time of ``other`` divided by that of ``one``, as a median over pairs of inferences."""
    picture = one.manifest.golden[0].image()[None]
    ratios = []
    for number in range(_ROUNDS):
        taken = {}
        # The second of a pair finds other data in the caches than the first, so they take turns.
        for detector in (one, other) if number % 2 else (other, one):
            began = time.perf_counter()
            detector.infer(picture)
            taken[detector] = time.perf_counter() - began
        ratios.append(taken[other] / taken[one])
    return float(np.median(ratios))


def _graph(
    scorer: Scorer, precision: Precision, good: tuple[Path, ...], geometry: Geometry
) -> onnx.ModelProto:
    network = scorer.backbone.network
    if isinstance(network, NetworkFile):
        _check_precision(network, scorer.backbone.name, precision)
    graph = build_graph(scorer, precision=precision)
    if precision != "int8":
        return graph
    from export.bundle.quantise import quantise

    chosen = sorted({round(i) for i in np.linspace(0, len(good) - 1, RANGE_PARTS)})
    return quantise(
        graph, [load_sample(Sample(good[i], GOOD, None), geometry).image for i in chosen]
    )


def _check_precision(network: NetworkFile, name: str, precision: Precision) -> None:
    """Raise :class:`ConfigError` for a number format that a network from a file cannot have."""
    if precision == "fp16":
        raise ConfigError(
            f"--precision fp16: the network from the file {name} keeps its own number format; use "
            f"--precision fp32"
        )
    products = {node.op_type for node in network.model.graph.node} & _PRODUCTS
    if precision == "int8" and products:
        raise ConfigError(
            f"--precision int8: the network {name} works by {', '.join(sorted(products))}, and "
            f"only convolutions are brought to 8 bits; use --precision mixed"
        )


def _rescored(manifest: Manifest, detector: Detector) -> tuple[Golden, ...]:
    """Golden pictures with the file's own scores, which its rounding moves alike everywhere."""
    return _named(
        golden.model_copy(update={"score": float(detector.infer(golden.image()[None])[0][0])})
        for golden in manifest.golden
    )


def _named(pictures: Iterable[Golden]) -> tuple[Golden, ...]:
    """Golden pictures, the good ones named in the order of their scores; the defect comes last."""
    *good, defect = pictures
    good.sort(key=lambda golden: golden.score)
    return (
        *(
            golden.model_copy(update={"name": name})
            for name, golden in zip(_GOOD_NAMES, good, strict=True)
        ),
        defect,
    )


def serialise(graph: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The contents of a bundle's file: graph, manifest (in its metadata) and seal."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = MANIFEST_KEY, manifest.model_dump_json()
    return seal(model.SerializeToString(deterministic=True))


def _manifest(
    run: Run, scorer: Scorer, good: tuple[Path, ...], *, name: str, precision: Precision
) -> Manifest:
    facts, outcome = run.facts(), run.outcome()
    settings, model, normaliser = facts.settings, scorer.model, scorer.normaliser
    evaluation = run.folder / "evaluation.json"
    return Manifest(
        name=name,
        version=run.version(),
        created=outcome.created,
        product_version=__version__,
        geometry=facts.geometry,
        precision=precision,
        cfa=Cfa(
            backbone=scorer.backbone.name,
            strides=settings.strides,
            scales=settings.scales,
            weights_sha256=facts.weights_sha256,
            gamma_c=settings.grid[0] * settings.grid[1] / len(model.bank),
            gamma_d=sum(scorer.backbone.channels) / model.descriptor.width,
            neighbours=settings.neighbours,
            hard_negatives=settings.hard_negatives,
            alpha=model.alpha,
            nu=settings.nu,
            radius=model.radius.item(),
            bank_init=settings.bank_init,
            standardise=settings.standardise,
            bank_items=len(model.bank),
            descriptor_width=model.descriptor.width,
            grid=settings.grid,
            sigma=settings.sigma_px,
            epochs=settings.epochs,
            seed=settings.seed,
        ),
        normalisation=normaliser
        and Normalisation(good_parts=normaliser.parts, weight=normaliser.weight),
        calibration=outcome.calibration,
        exposure=outcome.exposure,
        evaluation=json.loads(evaluation.read_text()) if evaluation.exists() else {},
        training_fingerprint=facts.fingerprint,
        training_parts=facts.parts,
        lineage=tuple(
            Extension(**lesson.model_dump(include=set(Extension.model_fields)))
            for lesson in facts.lineage
        ),
        golden=_golden(scorer, [good[i] for i in outcome.golden], run),
        golden_tolerance=GOLDEN_TOLERANCE[precision],
    )


def _golden(scorer: Scorer, paths: list[Path], run: Run) -> tuple[Golden, ...]:
    """Three held-out good parts, and one with a defect drawn on it, with PyTorch's scores.

    The three parts had the lowest, middle and highest held-out score. A model that has seen a part
    may rank it differently from the model it was held out from, so names follow this one's scores.
    """
    geometry = run.facts().geometry
    images = [load_sample(Sample(path, GOOD, None), geometry)[0] for path in paths]
    images.append(_draw_defect(images[1]))
    scores, _ = scorer(np.stack(images))
    return _named(
        Golden(
            name="drawn defect",
            png=base64.b64encode(encode_png(image)).decode(),
            score=float(score),
        )
        for image, score in zip(images, scores, strict=True)
    )


def _draw_defect(image: Frame8) -> Frame8:
    height, width = image.shape[:2]
    marked = image.copy()
    colour = tuple(int(255 - v) for v in image[height // 2, width // 2])
    ends = (width * 2 // 5, height * 2 // 5), (width * 3 // 5, height * 3 // 5)
    cv2.line(marked, *ends, colour, max(2, height // 40), cv2.LINE_AA)
    return marked
