"""Several browsers at once, and a network that is cut without a word."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from inspector.client import Commander, Viewer
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for
from tests.station.test_bridge_commands import HELD

pytestmark = pytest.mark.peers


class Cable:
    """Between browsers and the page; while it is cut, nothing passes, and nobody hangs up."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._ends: dict[socket.socket, socket.socket] = {}
        self._dead: set[socket.socket] = set()
        self._cut, self._over = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        """What comes from now on passes; what was open stays dead."""
        self._cut.clear()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for one in (*self._ends, self._listener):
            one.close()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._cut.is_set():
                self._dead |= set(self._ends)
            there = [one for one in self._ends if one not in self._dead]
            for one in select.select([self._listener, *there], [], [], 0.05)[0]:
                if one is self._listener:
                    near, far = one.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                    self._ends |= {near: far, far: near}
                elif one in self._ends:
                    self._pass_on(one)

    def _pass_on(self, one: socket.socket) -> None:
        other = self._ends[one]
        with contextlib.suppress(OSError):
            if data := one.recv(1 << 16):
                other.sendall(data)
                return
        for end in (one, other):
            del self._ends[end]
            end.close()


@pytest.fixture(scope="module")
def line(tiny_line: running.Running) -> running.Running:
    return tiny_line


@pytest.fixture
def cable(served: serving.Served) -> Iterator[Cable]:
    made = Cable(int(served.url.rstrip("/").rsplit(":", 1)[1]))
    with contextlib.closing(made):
        yield made


def test_a_network_that_is_cut_is_told_and_heals_without_a_reload(cable, chromium, line):
    with opened(chromium, f"http://127.0.0.1:{cable.port}/#/line-1/line") as page:
        page.locator("body[data-shown]").wait_for()
        page.evaluate("window.notReloaded = true")
        cable.cut()
        page.get_by_text("This page has lost its server").wait_for(timeout=30_000)
        assert page.locator(".line.stale").count() == 1
        cable.mend()
        page.locator(".wrong.stop").wait_for(state="hidden", timeout=30_000)
        shown = page.locator("body").get_attribute("data-shown")
        wait_for(lambda: page.locator("body").get_attribute("data-shown") != shown)
        assert page.evaluate("window.notReloaded")
        page.problems[:] = [one for one in page.problems if "net::ERR_" not in one]


def test_two_browsers_see_what_either_does(served, chromium, line):
    place = f"{served.url}#/line-1/"
    with (
        opened(chromium, f"{place}line") as first,
        opened(chromium, f"{place}line", language="zh-CN") as second,
    ):
        for page in (first, second):
            page.locator("body[data-shown]").wait_for()
        first.get_by_role("button", name="Stop judging").click()
        first.locator("#confirm").click()
        second.get_by_text("工位被人为停止").wait_for()
        second.get_by_role("button", name="开始检测").click()
        second.locator("#confirm").click()
        first.get_by_role("button", name="Stop judging").wait_for()
        shown = [page.locator("body").get_attribute("data-shown") for page in (first, second)]
        for page, before in zip((first, second), shown, strict=True):
            wait_for(lambda p=page, b=before: p.locator("body").get_attribute("data-shown") != b)


def test_each_order_of_the_page_is_done_and_stands_in_the_journal(served, chromium, line):
    """Marks, limits, recipes, alarms and models have tests of their own."""
    with Viewer(line.queries) as viewer, opened(chromium, f"{served.url}#/line-1/line") as page:
        page.locator("body[data-shown]").wait_for()

        def order(name: str) -> None:
            page.get_by_role("button", name=name).click()
            page.locator("#confirm").click()

        def deeds(count: int) -> list[str]:
            return [deed.kind for _, deed in zip(range(count), viewer.deeds(), strict=False)]

        order("Stop judging")
        page.get_by_role("button", name="Start judging").wait_for()
        assert deeds(1) == ["stop"]
        order("Start judging")
        page.get_by_role("button", name="Stop judging").wait_for()
        assert deeds(2) == ["start", "stop"]
        page.get_by_role("link", name="Recipe").click()
        order("Load the models again")
        page.get_by_text("The models were loaded and tested").wait_for()
        wait_for(lambda: deeds(1) == ["reload"])
        with Commander(line.commands) as desk:
            assert desk.status().state == "ContinuousExecution"


def test_an_error_is_reset_from_the_page(chromium, tmp_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    bad = running.write_parts(tmp_path / "bad", tiny.bad_picture()) / "000.png"
    station = running.write_station(
        tmp_path / "station.yaml",
        tiny.write_bundle(tmp_path / "tiny.onnx"),
        running.folder_camera(parts, trigger="software", loop=True),
        sockets={"queries": "tcp://127.0.0.1:*"},
        self_test={"defect": str(bad)},
    )
    tmp_path.joinpath("miss").touch()
    with (
        running.running(station, program=HELD) as daemon,
        serving.serving(tmp_path / "page", {"line-1": serving.addresses(daemon)}) as served,
        opened(chromium, f"{served.url}#/line-1/line") as page,
    ):
        daemon.wait_for_log(r"state=Error")

        def reset() -> None:
            page.get_by_role("button", name="Reset the error").click()
            page.locator("#confirm").click()

        reset()
        # It is refused, and said in words; a browser logs the refusal, too.
        page.locator("#said .problem").wait_for()
        assert all("409" in one for one in page.problems)
        page.problems.clear()
        tmp_path.joinpath("miss").unlink()
        reset()
        page.get_by_role("button", name="Stop judging").wait_for()
        with Viewer(daemon.queries) as viewer, Commander(daemon.commands) as desk:
            assert next(viewer.deeds()).kind == "reset"
            assert desk.trigger("top", 1).verdict == "PASS"
