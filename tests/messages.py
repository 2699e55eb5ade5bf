"""Messages of a station called 1, and a subscriber to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from inspector.client.subscriber import Subscriber
from inspector.verdict import Verdict
from inspector.wire.messages import HeatmapMessage, StatusMessage, VerdictMessage
from inspector.wire.publisher import Publisher
from tests import stations

EPOCH = "5b0c3a52-8f5e-4bb8-9a55-0d1f7c0f6c1e"


def verdict(seq: int = 1, **changes: Any) -> VerdictMessage:
    return stations.verdict(seq, **{"station": "1", "epoch": EPOCH, "judged_us": 2} | changes)


def status(last_seq: int, state: str = "ContinuousExecution", **changes: Any) -> StatusMessage:
    fields: dict[str, Any] = {
        "station": "1",
        "epoch": EPOCH,
        "state": state,
        "last_seq": last_seq,
        "passed": last_seq,
        "failed": 0,
        "faults": 0,
        "recipe": "r",
        "provider": "CPUExecutionProvider",
        "inference": "",
        "cameras": (),
        "sent_us": 3,
    }
    return StatusMessage.model_validate(fields | changes)


def heatmap(seq: int, side: int = 64) -> HeatmapMessage:
    return HeatmapMessage(
        station="1",
        camera="top",
        epoch=EPOCH,
        seq=seq,
        part_id="p",
        verdict=Verdict.PASS,
        score=0.5,
        width=side,
        height=side,
    )


@contextlib.contextmanager
def subscribed(publisher: Publisher, **options: Any) -> Iterator[Subscriber]:
    with Subscriber(*publisher.addresses, **options) as subscriber:
        assert publisher.wait_for_subscriber(5.0)
        yield subscriber
