"""One measurement for compare.py, by public doors only, so that older checkouts answer too."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

JUDGED = 120
TRIGGERED = 80
WARM_UP = 10
START_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.probe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("way", choices=("judge", "verdict"))
    parser.add_argument("bundle", type=Path)
    options = parser.parse_args()
    times = {"judge": judge, "verdict": verdict}[options.way](options.bundle)
    print(json.dumps({"median_ms": 1e3 * float(np.median(times))}))


def judge(bundle: Path) -> list[float]:
    """Seconds of each ``Detector.judge`` on a frame of noise."""
    from inspector import Detector

    detector = Detector.load(bundle, "cpu")
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    # Older detectors left the check of light and focus to the station.
    checks = "check_picture" in inspect.signature(detector.judge).parameters
    options = {"check_picture": False} if checks else {}
    return timed(lambda _: detector.judge(frame, **options), JUDGED)


def verdict(bundle: Path) -> list[float]:
    """Seconds from each trigger to its verdict, in another process than the station's."""
    from inspector.client import Commander

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        station = folder / "station.yaml"
        free = "tcp://127.0.0.1:*"
        document = {
            "station": "compare",
            "provider": "cpu",
            "sockets": {"verdicts": free, "images": free, "commands": free},
            "journal": {"folder": str(folder / "journal")},
            "self_test": {"every_s": 0},
            "cameras": [{"name": "belt", "kind": "simulator", "rate_hz": 0, "trigger": "software"}],
            "recipes": {"flange": {"belt": {"bundle": str(bundle)}}},
            "recipe": "flange",
        }
        # JSON is YAML.
        station.write_text(json.dumps(document), encoding="utf-8")
        log = folder / "log"
        module = "inspector" if importlib.util.find_spec("inspector.__main__") else "inspector.cli"
        command = [sys.executable, "-m", module, "run", str(station), "--stop-on-stdin-eof"]
        with (
            log.open("wb") as errors,
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors) as child,
        ):
            try:
                address = wait_for(log, r" commands address=(\S+)\n", child)
                wait_for(log, r"(state=Ready)", child)
                with Commander(address) as plc:
                    return timed(lambda number: plc.trigger("belt", number), TRIGGERED)
            finally:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)


def timed(work: Callable[[int], object], count: int) -> list[float]:
    times = []
    for number in range(1, WARM_UP + count + 1):
        begun = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - begun)
    return times[WARM_UP:]


def wait_for(log: Path, pattern: str, child: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        if found := re.search(pattern, text):
            return found[1]
        if child.poll() is not None:
            raise RuntimeError(text)
        time.sleep(0.02)
    raise RuntimeError(f"the station did not start: {log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
