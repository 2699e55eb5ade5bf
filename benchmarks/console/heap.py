"""What a page needs of memory and of its only thread after a month of verdicts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.wire.messages import HeatmapMessage, VerdictMessage
from inspector.wire.publisher import Publisher
from tests import stations
from tests.console import serving

_RATE_HZ: Final = 1500
_PICTURES_HZ: Final = 20
_BATCH_S: Final = 0.02
_TASKS: Final = """
window.longest = 0; window.tasks = 0;
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    window.tasks += 1;
    window.longest = Math.max(window.longest, one.duration);
  }
}).observe({ type: "longtask" });
"""
"""A browser tells of tasks over 50 ms, and of no others."""


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` verdicts at 1,500 a second, twenty a second of them with pictures."""
    verdicts, images, commands, queries = stations.free_ports(4)
    where = {"verdicts": verdicts, "images": images, "commands": commands, "queries": queries}
    with contextlib.ExitStack() as stack:
        publisher = Publisher(verdicts, images)
        stack.callback(publisher.close, linger_ms=0)
        served = stack.enter_context(serving.serving(folder, {"line-1": where}))
        chromium = stack.enter_context(serving.browser())
        page = chromium.new_page(viewport={"width": 1024, "height": 600})
        page.goto(served.url)
        # A page that is being loaded has tasks of its own.
        page.wait_for_timeout(3000)
        page.evaluate(_TASKS)
        assert publisher.wait_for_subscriber(10)
        _publish(publisher, trials, tick)
        page.wait_for_timeout(2000)
        tools = page.context.new_cdp_session(page)
        tools.send("HeapProfiler.collectGarbage")
        tools.send("Performance.enable")
        metrics = {
            one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]
        }
        heap_mb = metrics["JSHeapUsedSize"] / 1e6
        nodes = int(metrics["Nodes"])
        longest, tasks = page.evaluate("[window.longest, window.tasks]")
    return [
        Figure("heap of the page", round(heap_mb, 1), "MB", "≤ 150", heap_mb <= 150),
        Figure("longest task above 50 ms", round(longest, 1), "ms", "none", longest == 0),
        Figure("tasks above 50 ms", tasks, "", "none", tasks == 0),
        Figure("nodes of the document", nodes, ""),
    ]


def _publish(publisher: Publisher, count: int, tick: Tick) -> None:
    """Publish verdicts at a steady rate; the browser runs beside."""
    of = first = stations.verdict(1)
    picture = np.full((224, 224, 3), 90, np.uint8)
    files = encode_png(picture[..., 0]), encode_jpeg(picture)
    begun_s, sent, pictures, told_s = time.monotonic(), 0, 0, 0.0
    while sent < count:
        now_s = time.monotonic() - begun_s
        for seq in range(sent + 1, min(count, int(now_s * _RATE_HZ)) + 1):
            of = _verdict(first, seq)
            publisher.send_verdict(of)
            sent = seq
        if pictures < now_s * _PICTURES_HZ:
            pictures += 1
            told = of.model_dump(include=set(HeatmapMessage.model_fields))
            about = HeatmapMessage.model_validate(told | {"width": 224, "height": 224})
            publisher.send_heatmap(about, *files)
        if now_s > told_s + 1:
            told_s = now_s
            tick(sent, count)
        time.sleep(_BATCH_S)


def _verdict(first: VerdictMessage, seq: int) -> VerdictMessage:
    is_bad = seq % 50 == 0
    changes = {"verdict": "FAIL", "score": 1.3, "reason": "anomaly"} if is_bad else {}
    return stations.verdict(seq, first.epoch, **changes)


ROW: Final = Row("a page may stay open for a month", 500_000, 20_000, measure)
