"""By what each camera is judged now, and how that does, for whoever looks at the station."""

from __future__ import annotations

import time

from inspector.config.station_file import Security, Station
from inspector.detection.manifest import Calibration, Exposure
from inspector.judging import drift
from inspector.judging.judge import Judge
from inspector.judging.judges import Judges
from inspector.wire.judging import (
    MOST_SCORES,
    CalibrationField,
    DriftField,
    ExposureField,
    JudgedField,
    JudgingField,
    RecipeCameraField,
    RecipeField,
    SelfTestField,
)


def judging(judges: Judges, station: Station) -> JudgingField:
    """By what the station judges; any thread may ask.

    ``station`` is as its file has it. What is read of ``judges`` is replaced, never changed, when
    the station judges by something else; each camera's part of the answer is of one judge. A camera
    that has no model yet is left out.
    """
    now = judges.station
    return JudgingField(
        at_us=time.time_ns() // 1000,
        cameras=tuple(
            _judged(judges[one.name], station) for one in station.cameras if one.name in judges
        ),
        recipes=tuple(
            RecipeField(
                recipe=name,
                cameras=tuple(
                    RecipeCameraField(
                        camera=one.name,
                        bundle=per_camera[one.name].bundle.name,
                        limit_factor=per_camera[one.name].limit_factor,
                    )
                    for one in station.cameras
                ),
            )
            for name, per_camera in now.recipes.items()
        ),
        controllers=_controllers(station.security),
    )


def _judged(judge: Judge, station: Station) -> JudgedField:
    manifest = judge.detector.manifest
    return JudgedField(
        camera=judge.name,
        recipe=judge.recipe,
        model=judge.model,
        created=manifest.created,
        training_parts=manifest.training_parts,
        limit_factor=judge.detector.limit_factor,
        of_file=station.recipes[judge.recipe][judge.name].limit_factor,
        golden=len(manifest.golden),
        calibration=_calibration(manifest.calibration),
        exposure=_exposure(manifest.exposure),
        self_test=_self_test(judge),
        drift=_drift(judge.drift),
    )


def _calibration(found: Calibration) -> CalibrationField:
    return CalibrationField(
        method=found.method,
        good_parts=found.good_parts,
        good_rejected=found.good_rejected,
        asked=found.asked,
        interval_low=found.interval[0],
        interval_high=found.interval[1],
        extrapolated=found.extrapolated,
        scores=_selected(drift.reference(found)),
        remarks=found.remarks,
    )


def _selected(scores: tuple[float, ...]) -> tuple[float, ...]:
    """An even selection of ``scores``, which are ascending; the lowest and highest are in it."""
    if len(scores) <= MOST_SCORES:
        return scores
    step = (len(scores) - 1) / (MOST_SCORES - 1)
    return tuple(scores[round(i * step)] for i in range(MOST_SCORES))


def _exposure(found: Exposure) -> ExposureField:
    fitness = found.fitness
    return ExposureField(
        brightness_low=found.brightness[0],
        brightness_high=found.brightness[1],
        sharpness_low=found.sharpness[0],
        sharpness_high=found.sharpness[1],
        saturated=None if fitness is None else fitness.saturated,
        contrast=None if fitness is None else fitness.contrast,
        detail=None if fitness is None else fitness.detail,
    )


def _self_test(judge: Judge) -> SelfTestField | None:
    defect, tested = judge.defect, judge.tested
    if defect is None:
        return None
    return SelfTestField(
        defect=defect.name,
        expected=defect.score,
        at_us=None if tested is None else tested.at_us,
        score=None if tested is None else tested.score,
        missed="" if tested is None else tested.missed,
    )


def _drift(watch: drift.Watch) -> DriftField:
    recent, calibrated = watch.medians
    return DriftField(
        parts=watch.parts,
        recent=recent,
        calibrated=calibrated,
        evidence=watch.statistic,
        alarm=watch.alarm,
    )


def _controllers(security: Security) -> tuple[str, ...]:
    if security.secret_key is None:
        return ("",)
    both = {"trigger", "operate"}
    return tuple(name for name, peer in security.peers.items() if both <= set(peer.roles))
