from __future__ import annotations

import numpy as np
import pytest

from inspector.cli.output import Lines, Screen, save_heatmap
from inspector.client.subscriber import Heatmap
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.verdict import Verdict
from inspector.wire.messages import CameraStatus, HeatmapMessage
from tests import tiny
from tests.messages import status


def heatmap(part_id: str, camera: str = "top") -> Heatmap:
    heat, picture = np.zeros((64, 64), np.uint8), tiny.good_picture()
    message = HeatmapMessage(
        station="1",
        camera=camera,
        epoch="e",
        seq=7,
        part_id=part_id,
        verdict=Verdict.PASS,
        score=0.5,
        width=64,
        height=64,
    )
    return Heatmap(message, heat, picture, encode_png(heat), encode_jpeg(picture))


@pytest.mark.parametrize(
    ("part_id", "name"),
    [
        ("", "part"),
        ("000.png", "000"),
        ("a/b.png", "a_b"),
        (".", "part"),
        ("..", "."),
        ("/", "_"),
        ("a/", "a_"),
        ("../../x.png", ".._.._x"),
        ("/etc/passwd", "_etc_passwd"),
        ("..\\x", "."),
        ("a\0b", "a_b"),
        ("é" * 300, "_"),
        ("x" * 300, "x" * 80),
    ],
)
def test_pictures_stay_in_their_folder_whatever_the_part_is_called(tmp_path, part_id, name):
    folder = tmp_path / "a" / "b"
    save_heatmap(folder, heatmap(part_id))
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
        f"top_000007_{name}_PASS{rest}" for rest in (".jpg", "_map.png", "_overlay.jpg")
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_pictures_stay_in_their_folder_whatever_the_camera_is_called(tmp_path):
    save_heatmap(tmp_path / "a", heatmap("p", "../../x"))
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize(
    ("limit_factor", "words"),
    [
        (1.2, "top running, limit_factor 1.2 (more tolerant than the bundle)"),
        (0.8, "top running, limit_factor 0.8 (less tolerant than the bundle)"),
        (1.0, "top running\n"),
        (None, "top running\n"),
    ],
)
def test_a_state_shows_a_limit_that_is_not_the_bundles_own(capsys, limit_factor, words):
    camera = CameraStatus(
        name="top", state="running", detail="", frames=1, limit_factor=limit_factor
    )
    with Screen() as screen:
        Lines(screen).status(status(1, cameras=(camera,)))
    assert words in capsys.readouterr().out
