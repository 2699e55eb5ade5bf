"""From a folder of photos to verdicts on the wire, with the commands a user types.

    python -m benchmarks.accuracy.photos_to_verdicts DATA [--name NAME] [TRAIN OPTIONS ...]

Trains, evaluates and exports; runs the daemon on all test photos with a subscriber in a process of
its own (pyzmq and json, nothing of ours); compares every verdict received with the evaluation's.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.checkout import environment
from benchmarks.figures import Figure, publish
from export.cli.main import main as inspector_model
from export.training.run import Run
from inspector.detection.bundle import read

SUBSCRIBER = """
import json, sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1])
socket.subscribe(b"")
socket.rcvtimeo = 120_000
verdicts = []
while True:
    topic, body = socket.recv_multipart()[:2]
    message = json.loads(body)
    if topic.startswith(b"verdict/"):
        verdicts.append(message)
    elif message["state"] == "Halted":
        break
json.dump({"verdicts": verdicts, "last_seq": message["last_seq"]}, open(sys.argv[2], "w"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.photos_to_verdicts", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--name", help="name in the results; default: the data folder's")
    parser.add_argument("--keep", type=Path, help="folder for run, bundle and report")
    options, train_options = parser.parse_known_args()
    name = options.name or options.data.name
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        figures = measure(options.data.resolve(), folder.resolve(), train_options)
    command_line = " ".join(
        ["python -m benchmarks.accuracy.photos_to_verdicts", name, *train_options]
    )
    publish(f"photos_to_verdicts-{name}", command_line, figures)


def measure(data: Path, folder: Path, train_options: list[str]) -> list[Figure]:
    folder.mkdir(parents=True, exist_ok=True)
    run, bundle = folder / "run", folder / "part.onnx"
    command("train", str(data), "-o", str(run), *train_options)
    command("evaluate", str(run))
    command("export", str(run), "-o", str(bundle), "--precision", "fp32")
    manifest = read(bundle).manifest
    parity, calibration, evaluation = manifest.parity, manifest.calibration, manifest.evaluation
    assert parity is not None
    verdicts, last_seq = judge_folder(data / "test", bundle, folder)
    with (run / "scores.csv").open() as file:
        expected = {row["path"].removeprefix("test/"): row for row in csv.DictReader(file)}
    received = {verdict["part_id"]: verdict for verdict in verdicts}
    equal = sum(
        part in received and received[part]["verdict"] == row["verdict"]
        for part, row in expected.items()
    )
    score_gap = max(
        abs(received[part]["score"] - float(row["score"]))
        for part, row in expected.items()
        if part in received and row["score"] and received[part]["score"] is not None
    )
    gap_free = [verdict["seq"] for verdict in verdicts] == list(range(1, last_seq + 1))
    span_s = (verdicts[-1]["judged_us"] - verdicts[0]["judged_us"]) / 1e6
    low, high = calibration.interval
    optional = [
        Figure(label, evaluation[key], "")
        for label, key in (
            ("image AUROC", "image_auroc"),
            ("pixel AUROC", "pixel_auroc"),
            ("AUPRO (30 % FPR)", "aupro"),
            ("F1 at the limit", "f1"),
        )
        if key in evaluation
    ]
    return [
        *optional,
        Figure("good test parts", evaluation["good_parts"], "parts"),
        Figure("false rejects at the limit", evaluation["false_rejects"], "parts"),
        Figure("defective test parts", evaluation["defective_parts"], "parts"),
        Figure("escapes at the limit", evaluation["escapes"], "parts"),
        Figure("false-reject target", calibration.target_false_reject, ""),
        Figure("true false-reject rate, 95 % from", low, ""),
        Figure("true false-reject rate, 95 % to", high, ""),
        Figure("good parts trained on", manifest.training_parts, "parts"),
        Figure("training, reading photos left out", Run(run).outcome().train_seconds, "s"),
        Figure("bundle", bundle.stat().st_size / 1e6, "MB"),
        Figure("parity: photos", parity.images, "photos"),
        Figure("parity: verdict flips", parity.verdict_flips, "", "0", parity.verdict_flips == 0),
        *(
            Figure(
                f"parity: largest {what} difference", gap, "of the limit", "<= 1e-3", gap <= 1e-3
            )
            for what, gap in (
                ("score", parity.largest_score_difference),
                ("map", parity.largest_map_difference),
            )
        ),
        Figure(
            "verdicts received",
            len(received),
            "",
            str(len(expected)),
            len(received) == len(expected),
        ),
        Figure(
            "verdicts equal to the evaluation's",
            equal,
            "",
            str(len(expected)),
            equal == len(expected),
        ),
        Figure(
            "largest score difference, received and evaluated",
            score_gap,
            "of the limit",
            "<= 1e-3",
            score_gap <= 1e-3,
        ),
        Figure("sequence gap-free", float(gap_free), "", "1", gap_free),
        Figure("parts per second, folder camera", (len(verdicts) - 1) / span_s, "1/s"),
        Figure("judgement, median", statistics.median(v["judge_ms"] for v in verdicts), "ms"),
    ]


def command(*arguments: str) -> None:
    code = inspector_model(list(arguments))
    if code:
        sys.exit(code)


def judge_folder(photos: Path, bundle: Path, folder: Path) -> tuple[list[dict], int]:
    """Run the daemon over ``photos``: verdicts as a subscriber received them, and the last seq."""
    station = folder / "station.yaml"
    received = folder / "received.json"
    verdicts, images = (f"ipc://{folder}/{kind}" for kind in ("verdicts", "images"))
    station.write_text(
        yaml.safe_dump(
            {
                "station": "bench",
                "sockets": {"verdicts": verdicts, "images": images},
                "cameras": [{"name": "photos", "kind": "folder", "path": str(photos)}],
                "recipes": {"part": {"photos": {"bundle": str(bundle)}}},
                "recipe": "part",
            }
        )
    )
    subscriber = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, verdicts, str(received)])
    try:
        subprocess.run(
            [
                *(sys.executable, "-m", "inspector", "run", str(station)),
                *("--wait-for-subscriber", "30"),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        subscriber.wait(timeout=60)
    finally:
        subscriber.kill()
        subscriber.wait()
    answer = json.loads(received.read_text())
    return answer["verdicts"], answer["last_seq"]


if __name__ == "__main__":
    main()
