"""Takes ``console-*.jpg``: every view of the operator's page, with a station on the simulator.

    python -m docs.console_pictures [FOLDER]

The pictures of `docs/console.md` and of the README. To be run again when a view looks otherwise. It
needs what `make test-peers` installs, and takes about two minutes.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests import running
from tests.console import serving

MOST_BYTES: Final = 200_000
SIZE: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 390, "height": 844}
PARTS: Final = 300
"""Parts that were judged before the pictures: enough for a curve and a histogram."""


def main(folder: Path, parts: int = PARTS, browser: Any = None) -> None:
    """Write the pictures into ``folder``, with a browser that is open already or one of its own."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        work = Path(name)
        with station(work, rate_hz=0) as daemon, served(work, daemon) as page:
            serving.wait_for(lambda: judged(page) >= parts, 60 + parts / 2)
        # Slowly now, so that what a picture shows belongs together.
        daemon = stack.enter_context(station(work, rate_hz=1))
        page = stack.enter_context(served(work, daemon, state=str(work / "state")))
        browser = browser or stack.enter_context(serving.browser())
        for language, suffix in (("en", ""), ("zh-CN", "-zh")):
            with serving.opened(browser, page.url, language=language, viewport=SIZE) as tab:
                for view, prepare in VIEWS.items():
                    go(tab, view)
                    prepare(tab)
                    save(tab, folder / f"console-{view}{suffix}.jpg")
        with serving.opened(browser, page.url, viewport=PHONE, device_scale_factor=1.5) as tab:
            go(tab, "line")
            line(tab)
            save(tab, folder / "console-phone.jpg")


@contextlib.contextmanager
def station(work: Path, rate_hz: float) -> Iterator[running.Running]:
    """A station that goes on with the journal of the one before; 0 Hz is as fast as it judges."""
    belt = {"name": "belt", "kind": "simulator", "rate_hz": rate_hz, "seed": 7, "defect_rate": 0.12}
    # A machine that is busy may judge slowly, which is not what the pictures are about.
    belt["deadline_ms"] = 30_000
    with running.running(serving.write_demo_station(work, cameras=[belt])) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ")
        yield daemon


def served(work: Path, daemon: running.Running, **keys: Any) -> Any:
    """The page of that station."""
    return serving.serving(work / "page", {"line-1": serving.addresses(daemon)}, **keys)


def judged(page: serving.Served) -> int:
    """The number of the last part."""
    entries = page.client.get("/api/stations/line-1/history", params={"limit": 1}).json()["entries"]
    return int(entries[0]["verdict"]["seq"]) if entries else 0


def go(tab: Any, view: str) -> None:
    """Open a view, and let it settle."""
    tab.evaluate("(view) => { location.hash = `#/line-1/${view}`; }", view)
    tab.locator(f"#view[data-view={view}] > *").first.wait_for()
    tab.wait_for_timeout(1500)


def line(tab: Any) -> None:
    """Until a part fails, and its picture is there."""
    bad = re.compile("FAIL|不良")
    tab.locator("#view .banner").filter(has_text=bad).first.wait_for(timeout=90_000)
    tab.wait_for_timeout(250)


def history(tab: Any) -> None:
    """Some parts are marked, and the clearest of the last rejects is looked at."""
    tab.evaluate(MARK)
    go(tab, "line")
    seen = tab.evaluate(CLEAREST)
    tab.evaluate("(seen) => { location.hash = `#/line-1/history?seen=${seen}`; }", seen)
    tab.locator("#view .detail .pane:not([hidden]) button.part:not([disabled])").wait_for()
    tab.locator("#view .row .thumb img").nth(8).wait_for()
    tab.wait_for_timeout(1000)


def limit(tab: Any) -> None:
    """A higher limit is tried, and the parts that it would let pass are shown."""
    tab.get_by_role("slider").press("PageUp")
    tab.locator("#show").click()
    tab.locator("#view .strip .part img").first.wait_for()
    tab.wait_for_timeout(1500)


def until(what: str) -> Callable[[Any], None]:
    """Shows itself, and this is there then."""

    def wait(tab: Any) -> None:
        tab.locator(what).first.wait_for(state="attached")
        tab.wait_for_timeout(1500)

    return wait


CLEAREST: Final = """async () => {
  const { get } = await import("/static/api.js");
  const found = await get("/api/stations/line-1/history", { verdicts: ["FAIL"], limit: 4 });
  const there = found.entries.filter((one) => one.has_picture).map((one) => one.verdict);
  there.sort((one, other) => other.score - one.score);
  return encodeURIComponent(`${there[0].epoch}/${there[0].seq}`);
}"""

MARK: Final = """async () => {
  const { get, post } = await import("/static/api.js");
  const found = await get("/api/stations/line-1/history", { verdicts: ["FAIL"], limit: 8 });
  for (const { verdict } of found.entries.slice(1, 5)) {
    const { epoch, seq } = verdict;
    const note = document.documentElement.lang === "zh-CN" ? "污渍可接受" : "a stain is allowed";
    const mark = { epoch, seq, label: "good", note };
    await post("/api/stations/line-1/deeds/mark", mark);
  }
}"""

VIEWS: Final[dict[str, Callable[[Any], None]]] = {
    "line": line,
    "history": history,
    "teach": until("#view .tile img"),
    "limit": limit,
    "setup": until("#view .bars .band"),
    "recipe": until("#view .recipes button"),
    "deeds": until("#view td"),
}


def save(tab: Any, path: Path) -> None:
    """Write what is seen, as good as ``MOST_BYTES`` allow."""
    for quality in range(88, 30, -8):
        data = tab.screenshot(type="jpeg", quality=quality)
        if len(data) <= MOST_BYTES:
            break
    path.write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
