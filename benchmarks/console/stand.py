"""A line of the tiny bundle, the page before it, and a browser: what the rows measure with."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from inspector.client import Commander, Subscriber
from inspector.verdict import Verdict
from inspector.wire.messages import VerdictMessage
from tests import running, tiny
from tests.console import serving

BLOCK: Final = 100
"""Parts of a block; blocks with and without what is measured take turns."""
_PAUSE_S: Final = 0.05
"""Between two parts: twenty a second."""

QUERIES: Final = {"sockets": {**running.FREE, "queries": "tcp://127.0.0.1:*"}}

SHOWN: Final = """
window.shown = {};
new MutationObserver(() => {
  const name = document.body.dataset.shown;
  // What is drawn within a frame is on the screen when that frame has ended.
  requestAnimationFrame(() => setTimeout(() => { window.shown[name] ??= Date.now(); }));
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-shown"] });
"""
"""Has the browser note when each part's pixels were on the screen, in ms since the Unix epoch."""


@contextlib.contextmanager
def line(folder: Path, *, triggered: bool = False, **keys: Any) -> Iterator[running.Running]:
    """A station whose parts are grey squares, some defective; 20 a second, or as triggered."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = (*range(0, 32, 2), *range(80, 84))
    pictures = [np.full((64, 64, 3), tiny.GREY + step, np.uint8) for step in steps]
    parts = running.write_parts(folder / "parts", *pictures)
    timing = {} if triggered else {"rate_hz": 20}
    camera = running.folder_camera(parts, loop=True, **timing)
    if triggered:
        camera["trigger"] = "software"
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    made = running.write_station(
        folder / "station.yaml",
        bundle,
        camera,
        recipes={"r": {"top": {"bundle": str(bundle), "pictures": "all"}}},
        alarm={"fail_share": 0.9},
        **QUERIES,
        **keys,
    )
    with running.running(made) as daemon:
        daemon.wait_for_log(r" state=(ContinuousExecution|Ready|SingleExecution) ")
        yield daemon


@contextlib.contextmanager
def page_of(folder: Path, daemon: running.Running) -> Iterator[serving.Served]:
    """The page of one line."""
    with serving.serving(folder / "console", {"line-1": serving.addresses(daemon)}) as served:
        yield served


def block(commander: Commander, first: int) -> tuple[list[float], int]:
    """Trigger parts ``first`` + 1 on; ms from each trigger to its verdict, and how many FAULTs."""
    taken, faults = [], 0
    for number in range(first + 1, first + BLOCK + 1):
        begun_s = time.monotonic()
        verdict = commander.trigger("top", number)
        taken.append(1000 * (time.monotonic() - begun_s))
        faults += verdict.verdict == Verdict.FAULT
        time.sleep(_PAUSE_S)
    return taken, faults


class Published:
    """When each verdict of a line came over the wire, in ms since the Unix epoch."""

    def __init__(self, daemon: running.Running) -> None:
        self.at_ms: dict[str, float] = {}
        self._subscriber = Subscriber(daemon.verdicts)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Published:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _listen(self) -> None:
        with self._subscriber:
            while not self._ending.is_set():
                item = self._subscriber.receive(100)
                if isinstance(item, VerdictMessage):
                    self.at_ms[f"{item.epoch}/{item.seq}"] = time.time_ns() / 1e6
