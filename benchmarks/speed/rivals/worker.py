"""One model in a process of its own: loads it, runs it when told, tells how long each run took.

Started by ``turns.py`` with a JSON object as its only argument; runs in whatever environment the
model needs, so it imports nothing of ours unless the model is ours. A line ``N`` on its input makes
it run once untimed and N times timed, answered with the times in ms.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]
"""Runs the model once and returns its map."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.rivals.worker", description=__doc__.splitlines()[0]
    )
    parser.add_argument("spec", type=json.loads, help="JSON; see turns.py")
    spec = parser.parse_args().spec
    # What libraries print must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run, note = KINDS[spec["kind"]](spec)
    for _ in range(spec["warm_up"]):
        output = run()
    _tell(answers, {"map": list(np.asarray(output).shape[-2:]), "note": note})
    for line in sys.stdin:
        run()
        times = []
        for _ in range(int(line)):
            begun = time.perf_counter()
            run()
            times.append((time.perf_counter() - begun) * 1e3)
        _tell(answers, times)
    return 0


def _tell(answers: Any, document: Any) -> None:
    answers.write(json.dumps(document) + "\n")
    answers.flush()


def _onnxruntime(spec: dict[str, Any]) -> tuple[Run, str]:
    """The bare model. ``spinning`` None: ONNX Runtime's default, as the rivals leave it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not spec["spinning"]:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(spec["model"], options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.load(spec["input"])}
    return lambda: _map(session.run(None, feed)), f"ONNX Runtime {ort.__version__}"


def _openvino(spec: dict[str, Any]) -> tuple[Run, str]:
    """The bare model with OpenVINO's own precision, or the one in ``precision``."""
    import openvino as ov

    config = {"PERFORMANCE_HINT": "LATENCY"}
    if spec["precision"]:
        config["INFERENCE_PRECISION_HINT"] = spec["precision"]
    compiled = ov.Core().compile_model(spec["model"], "CPU", config)
    request = compiled.create_infer_request()
    picture = np.load(spec["input"])

    def run() -> Any:
        found = request.infer({0: picture}, share_inputs=True, share_outputs=True)
        return _map(list(found.to_tuple()))

    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return run, f"OpenVINO {ov.__version__.split('-')[0]}, {used}"


def _anomavision(spec: dict[str, Any]) -> tuple[Run, str]:
    """anomavision's own backend and blur; with ``frame`` its preprocessing and verdict too."""
    import torch
    from anomavision.inference.model.wrapper import ModelWrapper
    from anomavision.utils import adaptive_gaussian_blur, create_image_transform
    from PIL import Image

    model = ModelWrapper(spec["model"], "cpu")
    if not spec["frame"]:
        batch = torch.from_numpy(np.load(spec["input"]))

        def judge() -> Any:
            _, maps = model.predict(batch)
            return adaptive_gaussian_blur(maps, kernel_size=33, sigma=4)

        return judge, "its ONNX Runtime backend, Gaussian blur"
    frame = np.asarray(Image.open(spec["frame"]).convert("RGB"))
    prepare = create_image_transform(resize=tuple(spec["size"]), crop_size=None)

    def judge_frame() -> Any:
        scores, maps = model.predict(prepare(Image.fromarray(frame))[None])
        blurred = adaptive_gaussian_blur(maps, kernel_size=33, sigma=4)
        # As its detect command does for PatchCore: the image's score decides, the map locates.
        low, high = blurred.min(axis=(1, 2), keepdims=True), blurred.max(axis=(1, 2), keepdims=True)
        mask = ((blurred - low) / (high - low + 1e-8) >= 0.6) & (np.asarray(scores) >= 1.0)
        return blurred * ~mask

    return judge_frame, "frame to blurred map and mask"


def _anomalib(spec: dict[str, Any]) -> tuple[Run, str]:
    """anomalib's OpenVINO inferencer on a frame brought to size by OpenCV: it takes that size."""
    import cv2
    from anomalib.deploy import OpenVINOInferencer

    # It keeps a cache in the working folder.
    os.chdir(Path(spec["model"]).parent)
    inferencer = OpenVINOInferencer(spec["model"], device="CPU")
    frame = cv2.cvtColor(cv2.imread(spec["frame"]), cv2.COLOR_BGR2RGB)
    height, width = spec["size"]

    def run() -> Any:
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        return inferencer.predict(small).anomaly_map

    return run, "frame to map, score and label"


def _load(spec: dict[str, Any]) -> Any:
    from inspector.detection.detector import Detector

    # Its weights are random, so is its score: a limit that nothing reaches, as on good parts.
    provider = spec.get("engine", "cpu")
    return Detector.load(spec["model"], provider=provider, verify=False, limit_factor=1e9)


def _engine(spec: dict[str, Any]) -> tuple[Run, str]:
    """The bare model on one of our engines."""
    detector, picture = _load(spec), np.load(spec["input"])
    return lambda: detector.infer(picture)[1], detector.provider


def _ours(spec: dict[str, Any]) -> tuple[Run, str]:
    """A frame to a judgement, as the daemon does it but for the check of the picture."""
    from inspector.imaging.images import read_image

    detector = _load(spec)
    frame = read_image(Path(spec["frame"]))

    def run() -> Any:
        # The rivals check no picture before they judge it.
        judgement = detector.judge(frame, check_picture=False)
        if judgement.anomaly_map is None:
            raise RuntimeError(judgement.detail)
        return judgement.anomaly_map

    return run, "frame to verdict and regions"


def _map(outputs: list[Any]) -> Any:
    """Of a model's outputs, the one with most numbers."""
    return max(outputs, key=lambda output: output.size)


KINDS = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "anomavision": _anomavision,
    "anomalib": _anomalib,
    "ours": _ours,
    "engine": _engine,
}


if __name__ == "__main__":
    sys.exit(main())
