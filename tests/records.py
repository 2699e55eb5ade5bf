"""Verdicts and triggers for tests of what records them."""

from __future__ import annotations

from typing import Any

from inspector.station.triggers import Trigger
from inspector.wire.messages import VerdictMessage

EPOCH = "5b0c3a52-8f5e-4bb8-9a55-0d1f7c0f6c1e"
NOW_US = 1_714_557_600_000_000


def verdict(seq: int, **changes: Any) -> VerdictMessage:
    """A PASS, judged ``seq`` seconds after ``NOW_US``."""
    fields: dict[str, Any] = {
        "station": "line-1",
        "camera": "top",
        "epoch": EPOCH,
        "seq": seq,
        "part_id": f"part-{seq}",
        "trigger_seq": None,
        "verdict": "PASS",
        "score": 0.25,
        "reason": "",
        "detail": "",
        "limit_factor": 1.0,
        "regions": (),
        "model": {"name": "tiny", "version": "1", "sha256": "0" * 64},
        "recipe": "r",
        "triggered_us": None,
        "grabbed_us": NOW_US + seq * 1_000_000,
        "judged_us": NOW_US + seq * 1_000_000,
        "queue_ms": 0.5,
        "judge_ms": 2.5,
    }
    return VerdictMessage.model_validate(fields | changes)


def trigger(number: int, **changes: Any) -> Trigger:
    fields: dict[str, Any] = {
        "camera": "top",
        "client": "plc",
        "session": "s1",
        "number": number,
        "part_id": f"part-{number}",
        "triggered_us": NOW_US,
        "triggered_ns": 0,
    }
    return Trigger(**fields | changes)


def answer(seq: int, asked: Trigger, **changes: Any) -> VerdictMessage:
    """The verdict ``seq`` on a trigger."""
    return verdict(
        seq,
        camera=asked.camera,
        client=asked.client,
        session=asked.session,
        trigger_seq=asked.number,
        part_id=asked.part_id,
        triggered_us=asked.triggered_us,
        **changes,
    )
