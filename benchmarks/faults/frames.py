"""Pictures that are not what the camera saw: cut, of another size, or one of several in a file.

A station judges a video, a stream and a folder at once. Each wrong picture shows a defective part
in such a way that what is missing or changed would make it pass.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.faults.lab import Found, Journal, Tick
from tests import running, tiny, videos

SIDE: Final = 256
STREAMED: Final = 20
"""Frames that the stream sends in each of its two resolutions, at least."""
_PATIENCE_S: Final = 600.0

Picture = npt.NDArray[np.uint8]


def wrong_pictures(folder: Path, trials: int, tick: Tick) -> Found:
    """``trials`` frames of a video that lost their tails, a tenth as many photos of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(7)
    video = _video(folder / "line.avi", trials, chance)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(max(2, trials // 10)):
        for name, content in _photos(chance):
            (photos / f"{number:04}-{name}").write_bytes(content)
    large, small = (videos.encode(_part(True)[:side, :side]) for side in (SIDE, SIDE // 2))
    with videos.StreamServer(lambda _: large) as server:
        _judge(folder, video, photos, server, small)
    verdicts = Journal(folder / "journal").verdicts
    tick(trials, trials)
    counts = count(verdicts)
    lacking = 2 * trials - counts["frames"] + (counts["changed"] < STREAMED // 2)
    wrong = sum(counts[kind] for kind in ("cut", "resized", "partial", "several", "untold"))
    return Found(
        fault="frames of a video and photos cut at random places with the end marker put back, "
        "photos of several pages or frames, a stream that changes its resolution",
        trials=trials,
        figure=f"judged although wrong: cut frames {counts['cut']} of {trials}, frames of another "
        f"size {counts['resized']} of {counts['changed']}, cut photos {counts['partial']}, photos "
        f"of several pages {counts['several']}; whole pictures refused {counts['refused']}",
        holds=wrong == 0 and counts["refused"] == 0 and lacking == 0,
        figures={**counts, "lacking": lacking},
    )


def _part(good: bool) -> Picture:
    """A speckled part; its defect, if it has one, reaches to the lower edge."""
    picture = tiny.good_picture(SIDE)
    if not good:
        picture[SIDE // 2 :, SIDE // 4 : 3 * SIDE // 4] = 255
    return videos.speckled(picture)


def _video(path: Path, trials: int, chance: random.Random) -> Path:
    """Good parts, and between them bad ones that lost more than the upper edge of the defect."""
    videos.write_avi(path, [_part(good) for _ in range(trials) for good in (True, False)])
    cuts = {2 * number + 1: chance.uniform(0.1, 0.5) for number in range(trials)}
    videos.cut_frames(path, cuts)
    return path


def _photos(chance: random.Random) -> Iterator[tuple[str, bytes]]:
    good, bad = _part(True), _part(False)
    yield "whole.jpg", videos.encode(good)
    yield "partial.jpg", videos.cut(videos.encode(bad), chance.uniform(0.1, 0.99))
    progressive = videos.encode(bad, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    yield "partial-progressive.jpg", videos.cut(progressive, chance.uniform(0.1, 0.99))
    scan = progressive.rindex(b"\xff\xda")
    yield "partial-scans.jpg", progressive[:scan] + videos.END
    for suffix in ("png", "bmp", "tiff"):
        whole = bytes(cv2.imencode(f".{suffix}", bad)[1])
        yield f"partial.{suffix}", whole[: int(chance.uniform(0.1, 0.99) * len(whole))]
    yield "several.tiff", bytes(cv2.imencodemulti(".tiff", [good, bad])[1])


def _judge(
    folder: Path, video: Path, photos: Path, server: videos.StreamServer, small: bytes
) -> None:
    """Run the station until the files are judged and the stream has shown ``small`` frames."""
    model = tiny.write_bundle(folder / "tiny.onnx")
    opencv: dict[str, Any] = {"kind": "opencv", "deadline_ms": 10_000}
    cameras = (
        {"name": "video", "source": str(video), **opencv},
        {"name": "stream", "source": server.url, "timeout_ms": 5000, **opencv},
        running.folder_camera(photos, "photos", deadline_ms=10_000),
    )
    # The stream sends the same bytes again and again, which says nothing against them here.
    recipe = {camera["name"]: {"bundle": str(model), "check_pictures": False} for camera in cameras}
    station = running.write_station(
        folder / "station.yaml", model, *cameras, recipes={"r": recipe}, queue_size=100
    )
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=ContinuousExecution")
        _wait(server, STREAMED)
        server.jpeg = lambda _: small
        _wait(server, STREAMED)
        for name in ("video", "photos"):
            daemon.wait_for_log(rf" camera camera={name} state=ended", _PATIENCE_S)
        daemon.child.terminate()
        daemon.child.wait(30)
        assert daemon.child.returncode == 0, daemon.log


def _wait(server: videos.StreamServer, frames: int) -> None:
    """Until the stream has sent ``frames`` more."""
    enough, deadline_s = server.sent + frames, time.monotonic() + _PATIENCE_S
    while server.sent < enough:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def count(verdicts: list[dict[str, Any]]) -> dict[str, int]:
    """Wrong pictures that were judged, by kind, and whole ones that were not."""
    counts = dict.fromkeys(
        ("frames", "changed", "cut", "resized", "partial", "several", "refused", "untold"), 0
    )
    changed = False
    for one in verdicts:
        camera, part, reason = one["camera"], one["part_id"], one["reason"]
        if camera == "video":
            counts["frames"] += 1
            kind = "cut" if int(part.rpartition("-")[2]) % 2 else ""
            expected = "frame_unreadable"
        elif camera == "photos":
            kind = next((kind for kind in ("partial", "several") if kind in part), "")
            expected = "frame_unreadable"
        else:
            changed = changed or reason != ""
            counts["changed"] += changed
            kind, expected = "resized" if changed else "", "frame_shape"
        if not kind:
            counts["refused"] += one["verdict"] == "FAULT"
        elif one["verdict"] != "FAULT":
            counts[kind] += 1
        elif reason != expected:
            counts["untold"] += 1
    return counts
