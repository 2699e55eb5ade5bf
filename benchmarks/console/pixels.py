"""From a verdict on the wire to its part on the screen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.console import stand
from benchmarks.faults.lab import quantile
from benchmarks.figures import Figure
from benchmarks.rows import Row, Tick
from tests.console import serving

_WARM_S: Final = 5.0


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` parts at 20 a second; the delay of those that were shown, and their share."""
    with (
        stand.line(folder) as daemon,
        stand.page_of(folder, daemon) as served,
        serving.browser() as chromium,
        stand.Published(daemon) as published,
    ):
        page = chromium.new_page(viewport={"width": 1024, "height": 600})
        page.add_init_script(stand.SHOWN)
        page.goto(served.url)
        page.locator("body[data-shown]").wait_for(state="attached")
        page.wait_for_timeout(1000 * _WARM_S)
        page.evaluate("window.shown = {}")
        begun_ms = time.time_ns() / 1e6
        count = 0
        while count < trials:
            page.wait_for_timeout(1000)
            count = sum(at > begun_ms for at in list(published.at_ms.values()))
            tick(min(count, trials), trials)
        page.wait_for_timeout(2000)
        shown: dict[str, float] = page.evaluate("window.shown")
    due = [name for name, at in published.at_ms.items() if at > begun_ms][:trials]
    delays = [shown[name] - published.at_ms[name] for name in due if name in shown]
    p50, p99 = quantile(delays, 0.5), quantile(delays, 0.99)
    share = len(delays) / len(due)
    return [
        Figure("verdict published to pixels, p50", round(p50, 1), "ms", "≤ 100", p50 <= 100),
        Figure("verdict published to pixels, p99", round(p99, 1), "ms", "≤ 300", p99 <= 300),
        # A part that the next one overtakes is skipped, which would make the delay look short.
        Figure("parts that were shown", round(share, 4), "share", "≥ 0.99", share >= 0.99),
    ]


ROW: Final = Row("a part is seen at once", 6000, 600, measure)
