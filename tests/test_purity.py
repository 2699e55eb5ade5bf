"""What is pure loads no socket, no engine and, where it needs no picture, no OpenCV."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from tests.paths import ROOT

HEAVY = {"zmq", "onnxruntime", "openvino", "torch", "cv2"}
# The station file and a bundle's manifest check regions by imaging.geometry, which is built on
# OpenCV; batches are judged by detectors, which scale pictures.
NEEDS_CV2 = {
    "inspector.config.station_file",
    "inspector.judging.batches",
    "inspector.judging.drift",
    "inspector.station.ledger",
}


def heavy_of(module: str) -> set[str]:
    """What of ``HEAVY`` a fresh interpreter has loaded once it has imported ``module``."""
    script = f"import sys, {module}; print(*({HEAVY} & sys.modules.keys()))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "inspector.wire.messages",
        "inspector.client.refill",
        "inspector.journal",
        "inspector.journal.reader",
        "inspector.journal.schema",
        "inspector.journal.writer",
        "inspector.station.ledger",
        "inspector.station.triggers",
        "inspector.judging.batches",
        "inspector.judging.drift",
        "inspector.config.station_file",
    ],
)
def test_pure_module_loads_nothing_heavy(module: str) -> None:
    assert heavy_of(module) <= ({"cv2"} if module in NEEDS_CV2 else set())


def test_modules_with_sockets_and_engines_are_told_apart() -> None:
    assert "zmq" in heavy_of("inspector.wire.gate")
    assert "onnxruntime" in heavy_of("inspector.detection.engines.onnxruntime")


@pytest.mark.parametrize("room", ["client", "detection", "journal", "wire"])
def test_every_name_that_a_room_offers_is_there(room: str) -> None:
    module = importlib.import_module(f"inspector.{room}")
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing
