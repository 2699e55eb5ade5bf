"""docs/bundle.md: who reads only that page judges as the station does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from inspector.detection.detector import Detector
from inspector.detection.manifest import Manifest
from inspector.imaging.geometry import Geometry
from inspector.imaging.images import encode_png
from tests import tiny
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("made", "region", "factor"),
    [
        (tiny.good_picture, None, 1),
        (tiny.bad_picture, None, 1),
        (tiny.bad_picture, {"x": 2, "y": 1, "w": 60, "h": 60}, 1),
        (tiny.bad_picture, None, 3),
    ],
)
def test_a_program_written_from_the_page_alone_scores_as_the_station(
    tmp_path: Path, made, region, factor: int
) -> None:
    program = re.search(r"```python\n(import json, sys, cv2.*?)```", PAGE, re.DOTALL)
    assert program is not None
    script = tmp_path / "stranger.py"
    script.write_text(program[1], encoding="utf-8")
    geometry = Geometry(height=64, width=64, region=region)
    path = tiny.write_bundle(tmp_path / "part.onnx", geometry=geometry.model_dump())
    frame = cv2.resize(made(), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode_png(frame))
    # -I: neither this folder nor PYTHONPATH can lend it anything of ours.
    done = subprocess.run(
        [sys.executable, "-I", script, path, photo],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    verdict, score = done.stdout.split()
    found = Detector.load(path, verify=False).judge(frame)
    assert found.score is not None
    assert (verdict, float(score)) == (found.verdict.value, pytest.approx(found.score, abs=1e-6))


def test_the_table_names_what_the_file_has(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(
        tiny.write_bundle(tmp_path / "part.onnx"), providers=["CPUExecutionProvider"]
    )
    for put in (*session.get_inputs(), *session.get_outputs()):
        kind = put.type.removeprefix("tensor(").rstrip(")").replace("float", "float32")
        assert re.search(rf"\| `{put.name}` \| {kind} ", PAGE), put.name
    geometry = Manifest.model_validate_json(
        session.get_modelmeta().custom_metadata_map["inspector_manifest"]
    ).geometry
    for name in type(geometry).model_fields.keys() - {"colour"}:
        assert f"`{name}`" in PAGE or f'"{name}"' in PAGE, name


def test_the_letterbox_in_words_is_the_letterbox_in_code() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((90, 61), (61, 90), (300, 211), (33, 64)):
        frame = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        scale = min(64 / width, 64 / height)
        w, h = round(width * scale), round(height * scale)
        way = cv2.INTER_AREA if w <= width and h <= height else cv2.INTER_LINEAR
        small = cv2.resize(frame, (w, h), interpolation=way)
        left, above = (64 - w) // 2, (64 - h) // 2
        for border, how in (("mirror", cv2.BORDER_REFLECT_101), ("repeat", cv2.BORDER_REPLICATE)):
            told = cv2.copyMakeBorder(small, above, 64 - h - above, left, 64 - w - left, how)
            geometry = Geometry(height=64, width=64, fit="letterbox", border=border)
            assert (geometry.apply(frame) == told).all()
