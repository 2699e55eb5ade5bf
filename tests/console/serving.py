"""The page at work for tests: a real station, the page's process, and a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from tests import running, tiny
from tests.commands import Started, start
from tests.paths import ROOT

START_S = 30.0


def write_demo_station(folder: Path, **keys: Any) -> Path:
    """A station on a simulated belt with the demo's bundle, on free ports."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "station": "line-1",
        "provider": "cpu",
        "threads": 1,
        "sockets": dict.fromkeys(
            ("verdicts", "images", "commands", "queries"), "tcp://127.0.0.1:*"
        ),
        "journal": {"folder": str(folder / "journal"), "reserve_mb": 1},
        "cameras": [
            {"name": "belt", "kind": "simulator", "rate_hz": 4, "seed": 7, "defect_rate": 0.4}
        ],
        "alarm": {"fail_share": 0.9},
        "recipes": {"flange": {"belt": {"bundle": str(ROOT / "config" / "demo.onnx")}}},
        "recipe": "flange",
    }
    path = folder / "station.yaml"
    path.write_text(yaml.safe_dump(document | keys), encoding="utf-8")
    return path


def write_triggered_station(folder: Path, **keys: Any) -> Path:
    """A station that judges a good and a bad part in turn, each when it is triggered.

    Its recipe looks at a region of the picture only, so that map and picture are not the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for inner in (tiny.good_picture(), tiny.bad_picture()):
        whole = np.full((160, 200, 3), tiny.GREY, np.uint8)
        whole[40:104, 100:164] = inner
        pictures.append(whole)
    parts = running.write_parts(folder / "parts", *pictures)
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    region = {"x": 100, "y": 40, "w": 64, "h": 64}
    return running.write_station(
        folder / "station.yaml",
        bundle,
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=20_000),
        sockets={"queries": "tcp://127.0.0.1:*"},
        recipes={"r": {"top": {"bundle": str(bundle), "region": region, "check_pictures": False}}},
        **keys,
    )


def write_tiny_station(folder: Path) -> Path:
    """As the demo's, but ready at once: a tiny bundle, twenty parts a second, good and bad."""
    bundle = tiny.write_bundle(folder / "part.onnx")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, rate_hz=20, loop=True, deadline_ms=60_000)
    sockets = {"queries": "tcp://127.0.0.1:*"}
    return running.write_station(folder / "station.yaml", bundle, camera, sockets=sockets)


def addresses(daemon: running.Running) -> dict[str, str]:
    """Where a running station is, as the page's file names it."""
    return {
        "verdicts": daemon.verdicts,
        "images": daemon.images,
        "commands": daemon.commands,
        "queries": daemon.queries,
    }


class Served:
    """The page's process; ``client`` asks it without a browser."""

    def __init__(self, child: Started | subprocess.Popen[bytes], log: Path) -> None:
        self.child = child
        self._log = log
        self.url = self.wait_for_log(r" page=(\S+)")[1]
        # Its own certificates are signed by nobody.
        self.client = httpx.Client(base_url=self.url, verify=False)

    def take_token(self) -> None:
        """Have the client bear the token of deeds, as the page does."""
        told = self.client.get("/api/session").json()
        self.client.headers["X-CSRF-Token"] = told.get("csrf", "")

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.log):
                return found
            assert self.child.poll() is None, f"the page ended: {self.log}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in the log: {self.log}")


@contextlib.contextmanager
def serving(folder: Path, stations: dict[str, dict[str, str]], **keys: Any) -> Iterator[Served]:
    """``inspector console`` for these stations, on a free port; must end in order."""
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "console.yaml", folder / "console.log"
    document = {"stations": stations, "listen": "127.0.0.1:0"} | keys
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with log.open("wb") as errors, start(["console", path], stderr=errors) as child:
        try:
            served = Served(child, log)
            with served.client:
                served.take_token()
                yield served
            child.send_signal(signal.SIGTERM)
            assert child.wait(running.START_S) == 0, served.log
        finally:
            child.kill()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; skips, or fails with REQUIRE_PEERS=1, without it."""
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("chromium or playwright is not installed")
        pytest.skip("chromium or playwright is not installed")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def opened(chromium: Any, url: str, *, language: str = "en", **options: Any) -> Iterator[Any]:
    """A page that is open; what its console complained of, or threw, fails the test at the end."""
    options.setdefault("viewport", {"width": 1024, "height": 600})
    context = chromium.new_context(locale=language, ignore_https_errors=True, **options)
    try:
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        page.problems = problems
        page.goto(url)
        yield page
        assert problems == [], problems
    finally:
        context.close()


def wait_for(holds: Callable[[], Any], within_s: float = 20.0) -> Any:
    """What ``holds`` returns as soon as it is true."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)
    return found
