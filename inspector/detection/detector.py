"""The detector: one bundle on one engine, a frame in and a judgement out.

The export proves with this class that the bundle scores as the trained model does, and the line
judges with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inspector.config.station_file import Provider
from inspector.detection import bundle as bundles
from inspector.detection import engines, fitness
from inspector.detection.bundle import Bundle
from inspector.detection.engines import Engine, InferenceBackend, tuned
from inspector.detection.manifest import Manifest
from inspector.errors import BundleError, Fault, GoldenError, StartupError
from inspector.files import read_within
from inspector.imaging.geometry import Box, Geometry
from inspector.logs import say
from inspector.verdict import FloatMap, Frame8, Judgement, Reason, Verdict, decide

_BF16_TOLERANCE: Final = 5e-2
"""How far a golden score may move in bf16; ``inspector tune`` has compared the verdicts there."""
_SCORE_SLACK: Final = 1e-3
"""Largest relative difference of ``score`` and its map's maximum that rounding (fp16) explains."""


class BatchItem(NamedTuple):
    """One frame of a batch, the detector that judges it, and whether its picture is checked."""

    detector: Detector
    frame: npt.NDArray[Any]
    check_picture: bool = True


class Detector:
    """A bundle, ready to judge; made by :meth:`load`, used by one thread at a time."""

    def __init__(
        self,
        bundle: Bundle,
        backend: InferenceBackend,
        region: Box | None = None,
        limit_factor: float = 1.0,
        engine: Engine = Engine(),  # noqa: B008
    ) -> None:
        _check_region(bundle, region)
        # The session has its own copy of the graph.
        self._bundle = dataclasses.replace(bundle, data=b"")
        self.manifest: Manifest = bundle.manifest
        self.sha256: str = bundle.sha256
        self.path: Path = bundle.path
        self.limit_factor = limit_factor
        geometry = bundle.manifest.geometry
        self.geometry: Geometry = (
            geometry.model_copy(update={"region": region, "frame": None}) if region else geometry
        )
        self.settings = engine
        """The provider, threads and precision that the engine was made with."""
        self._backend = backend

    @classmethod
    def load(
        cls,
        path: Path | str,
        provider: Provider = "auto",
        threads: int = 0,
        *,
        engine: Engine | None = None,
        region: Box | None = None,
        limit_factor: float = 1.0,
        verify: bool = True,
        keys: Sequence[Ed25519PublicKey] = (),
        read_file: Callable[[Path], bytes] = read_within,
    ) -> Detector:
        """Read and check a bundle, start its session, warm it, replay its golden images.

        ``threads`` 0 means all cores but one. With ``provider`` and ``threads`` as they are by
        default, the engine is the one that ``inspector tune`` found for the bundle on this machine,
        if it did. ``engine`` replaces both. ``region`` (camera pixels) replaces the bundle's;
        ``limit_factor`` multiplies the limit; ``verify=False`` skips the golden images. With
        ``keys``, one of them must have signed the bundle. ``read_file`` gives the bytes of a file,
        within a time, or raises OSError. Raises :class:`BundleError`, :class:`SignatureError`,
        :class:`GoldenError` or :class:`ProviderError`.
        """
        bundle = bundles.read(Path(path), keys, read_file)
        asked = engine or Engine(provider=provider, threads=threads)
        found = tuned.recall(bundle, read_file) if asked == Engine() else None
        if found is not None:
            try:
                return cls._load(bundle, found, region, limit_factor, verify)
            except StartupError as error:
                say("tune_ignored", logging.WARNING, bundle=bundle.path, detail=error)
        return cls._load(bundle, asked, region, limit_factor, verify)

    @classmethod
    def _load(
        cls, bundle: Bundle, engine: Engine, region: Box | None, limit_factor: float, verify: bool
    ) -> Detector:
        backend = engines.create(engine)
        with bundles.in_one_line():
            try:
                backend.load(bundle)
            except BundleError as error:
                raise BundleError(f"{bundle.path}: {error}") from None
            detector = cls(bundle, backend, region, limit_factor, engine)
            detector._warm_up(verify)
            return detector

    def adapted(self, region: Box | None = None, limit_factor: float = 1.0) -> Detector:
        """A detector on the same session, for another region (camera pixels) and limit factor.

        Raises :class:`BundleError` when the model was not trained for a region of that shape.
        """
        return Detector(self._bundle, self._backend, region, limit_factor, self.settings)

    def warm(self, batch: int) -> None:
        """Run every batch size up to ``batch``, so that none is slow at its first use on the line.

        Without it, OpenVINO compiles a program at the first inference of a batch size, and CUDA
        runs that size without a graph. Raises :class:`Fault`.
        """
        self._backend.warm(self.geometry.height, self.geometry.width, batch)

    @property
    def provider(self) -> str:
        """The execution provider in use, as its library names it."""
        return self._backend.provider

    def health(self) -> str:
        """Empty while the last inference succeeded, else its error in words."""
        return self._backend.health()

    def infer(self, batch: Frame8) -> tuple[FloatMap, FloatMap]:
        """The model's outputs for pictures at network size, in units of the calibrated limit.

        ``batch``: uint8 BGR ``[N, H, W, 3]``. Returns ``score`` float32 ``[N]`` and
        ``anomaly_map`` float32 ``[N, H, W]``. Raises :class:`Fault` (``inference_error``).
        """
        return self._backend.infer(batch)

    def judge(self, frame: npt.NDArray[Any], *, check_picture: bool = True) -> Judgement:
        """Judge one frame at camera size, as a station does.

        ``frame``: uint8 or uint16, grey ``[H, W]``, BGR ``[H, W, 3]`` or BGRA ``[H, W, 4]``.
        Whatever is wrong with the frame or the inference is a FAULT in the answer, never an error.
        So is a picture that is too dark, saturated or out of focus by the bundle's limits
        (:mod:`inspector.detection.fitness`); ``check_picture=False`` judges such a picture, too,
        as a recipe with ``check_pictures: false`` does. Only a station can tell that a camera
        froze.
        """
        picture = self._prepare(frame)
        if isinstance(picture, Judgement):
            return picture
        judgement = self._judge(picture, self.geometry, frame.shape)
        return self._fault_if_unfit(judgement, picture) if check_picture else judgement

    @property
    def engine(self) -> InferenceBackend:
        """The backend that runs the graph; detectors that share it can judge together."""
        return self._backend

    @staticmethod
    def judge_together(items: Sequence[BatchItem]) -> list[Judgement]:
        """Judge frames in one batch, each by its own detector; all share one ``engine``.

        The answers, in the order of ``items``, are those of ``judge``: what is wrong with one
        frame is no fault of the others, and when the batch fails the frames are judged one by one.
        """
        prepared = [item.detector._prepare(item.frame) for item in items]
        pictures = [one for one in prepared if not isinstance(one, Judgement)]
        outputs: Iterator[tuple[np.float32, FloatMap]] | None = None
        if len(pictures) > 1:
            with contextlib.suppress(Fault):
                scores, maps = items[0].detector.engine.infer(np.stack(pictures))
                if len(scores) == len(maps) == len(pictures):
                    outputs = zip(scores, maps, strict=True)
        judgements = []
        for (detector, frame, check_picture), picture in zip(items, prepared, strict=True):
            if isinstance(picture, Judgement):
                judgements.append(picture)
                continue
            if outputs is None:
                judgement = detector._judge(picture, detector.geometry, frame.shape)
            else:
                judgement = detector._conclude(
                    *next(outputs), picture, detector.geometry, frame.shape
                )
            if check_picture:
                judgement = detector._fault_if_unfit(judgement, picture)
            judgements.append(judgement)
        return judgements

    def judge_input(self, picture: Frame8) -> Judgement:
        """Judge a picture at network size (uint8 BGR ``[H, W, 3]``), such as a golden one.

        Neither region nor resize apply, regions are in the picture's own pixels, and the picture
        is not checked: a golden defect that is dark must be judged all the same.
        """
        height, width = picture.shape[:2]
        return self._judge(picture, Geometry(height=height, width=width), picture.shape)

    def _prepare(self, frame: npt.NDArray[Any]) -> Frame8 | Judgement:
        """The region of ``frame`` at network size, or a FAULT when there is none."""
        if not isinstance(frame, np.ndarray) or frame.ndim not in (2, 3):
            shape = getattr(frame, "shape", type(frame).__name__)
            return self._fault(Reason.FRAME_SHAPE, f"a frame of shape {shape} is not a picture")
        try:
            return self.geometry.apply(frame)
        except Fault as fault:
            return self._fault(Reason(fault.reason), str(fault))

    def _judge(self, judged: Frame8, geometry: Geometry, frame_shape: tuple[int, ...]) -> Judgement:
        """Infer one picture at network size, and decide."""
        try:
            scores, maps = self._backend.infer(judged[np.newaxis])
        except Fault as fault:
            return self._fault(Reason(fault.reason), str(fault), judged)
        return self._conclude(scores[0], maps[0], judged, geometry, frame_shape)

    def _conclude(
        self,
        raw_score: np.float32,
        raw_map: FloatMap,
        judged: Frame8,
        geometry: Geometry,
        frame_shape: tuple[int, ...],
    ) -> Judgement:
        """The judgement that the model's outputs for one picture lead to."""
        raw, anomaly_map = float(raw_score), raw_map
        if self.limit_factor != 1.0:
            anomaly_map = raw_map / np.float32(self.limit_factor)
        # Both are NaN if any value of the map is.
        score, lowest = float(anomaly_map.max()), float(anomaly_map.min())
        if not (math.isfinite(raw) and math.isfinite(score) and math.isfinite(lowest)):
            return self._fault(Reason.NOT_FINITE, "the model's output is not a number", judged)
        if abs(raw / self.limit_factor - score) > _SCORE_SLACK * max(1.0, abs(score)):
            detail = f"the model's score {raw:.6g} is not its map's maximum {raw_map.max():.6g}"
            return self._fault(Reason.INFERENCE_ERROR, detail, judged)
        verdict, reason = decide(score)
        if verdict is Verdict.FAULT:
            return self._fault(reason, f"a score of {score:.6g} is impossible", judged)
        return Judgement(
            verdict,
            score,
            reason,
            anomaly_map,
            geometry.regions(anomaly_map, frame_shape),
            judged,
            self.limit_factor,
        )

    def _fault_if_unfit(self, judgement: Judgement, picture: Frame8) -> Judgement:
        """``judgement``, or a FAULT when its ``picture`` cannot be judged: the score was a guess.

        The inference comes first, so that the part has a heatmap that people can look at, and a
        FAULT of the inference stays what it is.
        """
        if judgement.verdict is Verdict.FAULT:
            return judgement
        fault = fitness.check(picture, self.manifest.exposure)
        if fault is None:
            return judgement
        return judgement.as_fault(Reason(fault.reason), str(fault))

    def _fault(self, reason: Reason, detail: str, judged: Frame8 | None = None) -> Judgement:
        return Judgement(
            Verdict.FAULT,
            None,
            reason,
            judged=judged,
            limit_factor=self.limit_factor,
            detail=detail,
        )

    def _warm_up(self, verify: bool) -> None:
        height, width = self.geometry.height, self.geometry.width
        try:
            self._backend.warm(height, width)
            score, anomaly_map = self.infer(np.zeros((1, height, width, 3), dtype=np.uint8))
        except Fault as fault:
            raise BundleError(f"{self.path}: {fault}; export it again") from None
        if score.shape != (1,) or anomaly_map.shape != (1, height, width):
            raise BundleError(
                f"{self.path}: outputs have shapes {score.shape} and {anomaly_map.shape}, "
                f"expected (1,) and {(1, height, width)}; export it again"
            )
        if verify:
            self._replay_golden()

    def _replay_golden(self) -> None:
        tolerance = self.manifest.golden_tolerance
        if self.settings.precision == "bf16":
            tolerance = max(tolerance, _BF16_TOLERANCE)
        for golden in self.manifest.golden:
            try:
                found = float(self.infer(golden.image()[np.newaxis])[0][0])
            except Fault as fault:
                raise BundleError(f"{self.path}: {fault}; export it again") from None
            # The comparison is written so that a NaN fails it.
            if not abs(found - golden.score) <= tolerance:
                cure = "choose another provider"
                if self.settings.precision != "bf16":
                    how = "" if self.manifest.precision == "fp32" else " with --precision fp32"
                    cure += f", or export the model again on this machine{how}"
                raise GoldenError(
                    f"{self.path}: known photo '{golden.name}' (golden image) scores {found:.6f} "
                    f"on {self.provider}, expected {golden.score:.6f} within {tolerance:g}; {cure}"
                )


def _check_region(bundle: Bundle, region: Box | None) -> None:
    if region is None:
        return
    try:
        bundle.manifest.geometry.check_aspect(region.w, region.h)
    except Fault as fault:
        raise BundleError(
            f"{bundle.path}: {fault}; choose a region of that shape, or train for this one"
        ) from None
