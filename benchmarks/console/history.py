"""How soon the page finds a verdict among a million."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.console import stand
from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.journal.schema import Mark
from inspector.journal.writer import Journal
from inspector.wire.messages import VerdictMessage
from tests import stations

_BATCH: Final = 2000
_PARTS_HZ: Final = 2
_REPEAT: Final = 15
_REASONS: Final = ("too_dark", "camera_lost", "queue_full")


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """A journal of ``trials`` verdicts, and each filter of the history asked some times."""
    folder.mkdir(parents=True, exist_ok=True)
    first_us = time.time_ns() // 1000 - trials * 1_000_000 // _PARTS_HZ
    _record(folder / "journal", trials, first_us, tick)
    middle_us = first_us + trials // 2 * 1_000_000 // _PARTS_HZ
    asked: dict[str, dict[str, Any]] = {
        "the newest": {},
        "FAIL": {"verdicts": "FAIL"},
        "one reason": {"reason": "too_dark"},
        "one camera": {"camera": "side"},
        "a camera that is none": {"camera": "left"},
        "one part": {"part_id": f"p{trials // 3}"},
        "a part that is none": {"part_id": "nobody"},
        "an hour in the middle": {
            "since_us": middle_us,
            "until_us": middle_us + 3_600_000_000,
        },
        "scores of almost FAIL": {"score_from": 0.98, "score_to": 1.0},
        "marked": {"marked": True},
        "FAIL of one camera long ago": {
            "verdicts": "FAIL",
            "camera": "side",
            "until_us": first_us + 3_600_000_000,
        },
    }
    with stand.line(folder, triggered=True) as daemon, stand.page_of(folder, daemon) as served:
        where = "/api/stations/line-1/history"
        served.client.get(where)
        figures = []
        for name, filters in asked.items():
            taken, pages = [], 0
            for _ in range(_REPEAT):
                begun_s = time.monotonic()
                answer = served.client.get(where, params=filters).json()
                taken.append(1000 * (time.monotonic() - begun_s))
                pages = max(pages, answer["next_seq"] is not None and not answer["entries"])
            most = quantile(taken, 0.9)
            figures.append(
                Figure(f"{name}, p90", round(most, 1), "ms", "≤ 300", most <= 300 and not pages)
            )
    return figures


def _record(folder: Path, count: int, first_us: int, tick: Tick) -> None:
    chance, epoch = random.Random(5), str(uuid.uuid4())
    with contextlib.closing(Journal(folder)) as journal:
        journal.begin(epoch, first_us)
        for first in range(1, count + 1, _BATCH):
            batch = [
                _verdict(chance, epoch, seq, first_us + seq * 1_000_000 // _PARTS_HZ)
                for seq in range(first, min(first + _BATCH, count + 1))
            ]
            marks = (
                [Mark(epoch, first, "desk", "Li", "good", "", first_us)] if first % 7 == 0 else []
            )
            journal.commit((), batch, marks)
            tick(batch[-1].seq, count)


def _verdict(chance: random.Random, epoch: str, seq: int, judged_us: int) -> VerdictMessage:
    draw = chance.random()
    changes: dict[str, Any] = {"score": round(min(0.999, chance.gauss(0.6, 0.12)), 4)}
    if draw < 0.01:
        changes = {"verdict": "FAIL", "reason": "anomaly", "score": 1 + chance.random()}
    elif draw < 0.011:
        changes = {"verdict": "FAULT", "reason": chance.choice(_REASONS), "score": None}
    camera = "side" if chance.random() < 0.05 else "top"
    return stations.verdict(seq, epoch, camera=camera, judged_us=judged_us, **changes)


ROW: Final = Row("any of a million verdicts is found at once", 1_000_000, 100_000, measure)
