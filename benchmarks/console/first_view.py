"""From the address typed to the first part on the screen."""

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


def measure(folder: Path, trials: int, tick: Tick) -> Sequence[Figure]:
    """``trials`` browsers that know nothing of the page open it."""
    taken = []
    with (
        stand.line(folder) as daemon,
        stand.page_of(folder, daemon) as served,
        serving.browser() as chromium,
    ):
        # The first page that a browser shows at all starts its processes.
        chromium.new_context().new_page().goto("about:blank")
        for number in range(trials):
            context = chromium.new_context(viewport={"width": 1024, "height": 600})
            page = context.new_page()
            begun_s = time.monotonic()
            page.goto(served.url, wait_until="commit")
            page.locator("body[data-shown]").wait_for(state="attached")
            taken.append(time.monotonic() - begun_s)
            context.close()
            tick(number + 1, trials)
    p50, most = quantile(taken, 0.5), max(taken)
    return [
        Figure("first view after start, p50", round(p50, 3), "s", "≤ 1", p50 <= 1),
        Figure("first view after start, longest", round(most, 3), "s"),
    ]


ROW: Final = Row("the page is there at once", 50, 10, measure)
