from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from inspector.config.station_file import CameraRecipe
from inspector.imaging.geometry import Box, Geometry
from inspector.station.inbox import Inbox
from inspector.station.pictures import PartPictures, Pictures, heatmap_header
from inspector.verdict import Judgement, Reason, Verdict
from inspector.wire.messages import AreaField, encode
from inspector.wire.publisher import Publisher
from tests.records import verdict

IMAGE = np.zeros((2, 2), np.uint8)


class Shelf:
    """Keeps nothing, and remembers how urgent the thread was that asked it to."""

    def __init__(self) -> None:
        self.nice: list[int] = []

    def wants(self, _: object) -> bool:
        return True

    def keep(self, *_: object, **__: object) -> bool:
        self.nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return True


def test_pictures_are_encoded_only_where_no_part_wants_the_core():
    shelf, dropped = Shelf(), []
    publisher = Publisher("tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    pictures = Pictures(publisher, shelf, Inbox(1), dropped.append)
    try:
        pictures.start()
        pictures.show(PartPictures(verdict(1), None, None, IMAGE))
    finally:
        pictures.finish()
        publisher.close()
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert shelf.nice == [min(19, mine + 10)]
    assert not dropped


HEAT = np.zeros((64, 48), np.float32)
SEEN = np.zeros((64, 48, 3), np.uint8)
REGION = Geometry(height=64, width=64, region=Box(x=10, y=20, w=30, h=40))


@pytest.mark.parametrize(
    ("policy", "shown"),
    [("all", ["PASS", "FAIL"]), ("not_pass", ["FAIL"]), ("none", [])],
)
def test_picture_policy(policy, shown):
    recipe = CameraRecipe(bundle=Path("tiny.onnx"), pictures=policy)
    found = []
    for seq, judgement in enumerate(
        (
            Judgement(Verdict.PASS, 0.5, Reason.NONE, HEAT, judged=SEEN),
            Judgement(Verdict.FAIL, 1.5, Reason.ANOMALY, HEAT, judged=SEEN),
            Judgement(Verdict.FAULT, None, Reason.FRAME_SHAPE),
        ),
        1,
    ):
        part = r"m\udcff.png"
        message = verdict(seq, verdict=judgement.verdict, score=judgement.score, part_id=part)
        pictures = PartPictures(message, recipe, judgement, IMAGE, REGION)
        header = heatmap_header(pictures)
        if header:
            assert header.heatmap_area == AreaField(x=10, y=20, w=30, h=40)
            found.append(header.verdict.value)
            assert (header.seq, header.width, header.height) == (seq, 48, 64)
            assert rb"m\\udcff.png" in encode(header)
    assert found == shown
