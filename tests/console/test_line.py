"""The line view: the shift's counts, and in a real browser parts, rejects and what is wrong."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import re
import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspector.client import Commander
from inspector.console.texts import texts
from inspector.errors import CommandError
from inspector.verdict import Reason
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for

GOOD, BAD = "good", "bad"


class Belt:
    """A station that judges one part with each trigger, and may be started again at its place."""

    def __init__(self, folder: Path, *cameras: str, name: str = "line-1") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        bundle = tiny.write_bundle(folder / "tiny.onnx")
        parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
        self.path = running.write_station(
            folder / "station.yaml",
            bundle,
            *(
                running.folder_camera(
                    parts, camera, loop=True, trigger="software", deadline_ms=20_000
                )
                for camera in cameras or ("top",)
            ),
            station=name,
            sockets={"queries": "tcp://127.0.0.1:*"},
            recipes={
                "r": {
                    camera: {"bundle": str(bundle), "pictures": "all"}
                    for camera in cameras or ("top",)
                }
            },
        )
        self._numbers = itertools.count(1)
        self._open = contextlib.ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, also again: then where it was before."""
        self.daemon = self._open.enter_context(running.running(self.path))
        self.daemon.wait_for_log(r"state=Ready")
        self.addresses = serving.addresses(self.daemon)
        document = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        self.path.write_text(yaml.safe_dump(document | {"sockets": self.addresses}))
        self.desk = self._open.enter_context(Commander(self.daemon.commands))

    def kill(self) -> None:
        self.daemon.child.kill()
        self.daemon.child.wait()
        self._open.close()

    def close(self) -> None:
        self._open.close()

    def judge(self, part_id: str = "", camera: str = "top", **options: Any) -> Any:
        return self.desk.trigger(camera, next(self._numbers), part_id, **options)


@pytest.fixture(scope="module")
def belt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Belt]:
    made = Belt(tmp_path_factory.mktemp("belt"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shown(belt: Belt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Served]:
    with serving.serving(tmp_path_factory.mktemp("page"), {"line-1": belt.addresses}) as made:
        yield made


def snapshot(served: serving.Served) -> dict[str, Any]:
    with served.client.stream("GET", "/api/events", timeout=20) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                (found,) = json.loads(line[6:])
                return found
    raise AssertionError("no snapshot")


def counts(served: serving.Served) -> list[Any]:
    shift = snapshot(served)["shift"]
    if not shift or not shift["complete"]:
        return []
    return [shift["passed"], shift["failed"], shift["faults"]]


@pytest.mark.long
def test_the_shift_is_counted_once_over_restarts_of_the_page(tmp_path):
    belt = Belt(tmp_path / "station")
    with contextlib.closing(belt):
        # Good and bad parts take turns.
        first = [belt.judge() for _ in range(5)]
        belt.judge(purpose="study")
        belt.judge(purpose="challenge")
        with serving.serving(tmp_path / "one", {"a": belt.addresses}) as served:
            wait_for(lambda: counts(served) == [3, 2, 0])
            for _ in range(3):
                belt.judge()
            wait_for(lambda: counts(served) == [4, 4, 0])
            told = snapshot(served)
            assert told["shift"]["yield"] == 0.5
            assert told["shift"]["per_minute"] == 8
            assert told["shift"]["typical_ms"] > 0
        belt.judge()  # nobody looks
        with serving.serving(tmp_path / "two", {"a": belt.addresses}) as served:
            wait_for(lambda: counts(served) == [5, 4, 0])
            told = wait_for(lambda: (found := snapshot(served))["rejects"] and found)
        # What was rejected before is shown with its picture, which the station kept.
        assert [one["seq"] for one in told["rejects"]] == [2, 4, 6, 8, 10]
        assert told["pictures"][f"{first[1].epoch}/2"] == {"kept": True, "area": None}


def test_a_part_that_was_published_comes_in_one_answer(belt, shown):
    wait_for(lambda: snapshot(shown)["alive"])
    verdict = reject(belt, "S/N 1")
    where = f"/api/stations/line-1/published/{verdict.epoch}"

    def published():
        answer = shown.client.get(f"{where}/{verdict.seq}")
        return answer.status_code == 200 and answer.content

    body = wait_for(published)
    begin = 4 + int.from_bytes(body[:4], "big")
    head = json.loads(body[4:begin])
    assert head["area"] == {"x": 0.0, "y": 0.0, "w": tiny.SIDE, "h": tiny.SIDE}
    assert body[begin:].startswith(b"\xff\xd8")
    assert body[begin + head["jpeg"] :].startswith(b"\x89PNG")
    assert shown.client.get(f"{where}/{verdict.seq + 1000}").status_code == 204


def test_every_reason_and_everything_wrong_has_words_and_a_cure():
    page = Path(str(files("inspector.console") / "page"))
    wrong = re.findall(r'add\("\w+", "(\w+)"', (page / "wrong.js").read_text(encoding="utf-8"))
    assert len(wrong) > 10
    told = [f"reason.{reason.value}" for reason in Reason if reason.value]
    told += [f"wrong.{key}" for key in (*wrong, "page")]
    for language, found in texts().items():
        missing = [key for one in told for key in (one, f"{one}.do") if not found.get(key)]
        assert missing == [], language


def reject(belt: Belt, part_id: str) -> Any:
    """Judge parts until one is bad."""
    while (found := belt.judge(part_id)).verdict != "FAIL":
        pass
    return found


@pytest.mark.peers
def test_a_part_appears_with_its_picture_its_reason_and_the_cure(belt, shown, chromium):
    with opened(chromium, shown.url) as page:
        page.locator(".cameras li.running").wait_for()
        found = reject(belt, "<b>S/N</b> 7")
        page.locator(f'body[data-shown="{found.epoch}/{found.seq}"]').wait_for()
        pane = page.locator(".pane")
        assert pane.locator(".banner").inner_text() == "FAIL"
        assert pane.locator(".part_id").inner_text().startswith("<b>S/N</b> 7")
        assert "does not look like the good ones" in pane.locator(".reason").inner_text()
        assert pane.locator(".cure").inner_text()
        assert pane.locator("svg rect:not(.edge)").count() == len(found.regions) > 0
        assert reds(page) > 0
        # A number that was used before is no part.
        fault = belt.desk.trigger("top", 1, "twice")
        assert fault.reason == "trigger_conflict"
        page.get_by_text("The trigger's number was used before.").first.wait_for()
        assert "PLC" in pane.locator(".cure").inner_text()
        assert pane.get_attribute("data-verdict") == "FAULT"
        page.get_by_text("No picture of this part").wait_for()


def reds(page: Any) -> int:
    """Pixels of the heatmap that are seen."""
    return int(
        page.evaluate(
            """() => {
              const { width, height } = document.querySelectorAll(".pane canvas")[1];
              const drawn = document.querySelectorAll(".pane canvas")[1].getContext("2d");
              const { data } = drawn.getImageData(0, 0, width, height);
              return data.filter((value, at) => at % 4 === 3 && value > 0).length;
            }"""
        )
    )


@pytest.mark.peers
def test_the_film_strip_can_be_frozen_and_shows_an_earlier_part(belt, shown, chromium):
    with opened(chromium, shown.url) as page:
        page.locator(".cameras li.running").wait_for()
        first = reject(belt, "first")
        frames = page.locator(".strip li button")
        page.get_by_role("button", name="first").first.wait_for()
        before = frames.count()
        page.get_by_role("button", name="Freeze").click()
        reject(belt, "second")
        page.get_by_role("button", name="Live (+").wait_for()
        page.locator(".part_id", has_text="second").wait_for()
        assert frames.count() == before
        assert page.get_by_role("button", name="second").count() == 0
        page.get_by_role("button", name="first").first.click()
        page.locator(f'body[data-shown="{first.epoch}/{first.seq}"]').wait_for()
        reject(belt, "third")
        assert page.locator(".part_id").inner_text().startswith("first")
        assert page.get_by_text("Earlier part of").is_visible()
        page.locator(".pane").get_by_role("button", name="Live").click()
        page.locator(".part_id", has_text="third").wait_for()
        page.get_by_role("button", name="third").wait_for()
        page.get_by_role("button", name="first").first.click()
        page.get_by_role("button", name="Look closer or mark it").click()
        page.wait_for_url(f"**/line-1/history?*seen={first.epoch}%2F{first.seq}*")


@pytest.mark.peers
def test_an_operator_stops_and_starts_the_line(belt, shown, chromium):
    with opened(chromium, shown.url, language="zh-CN") as page:
        page.get_by_role("button", name="停止检测").click()
        page.get_by_role("button", name="取消").click()
        assert belt.judge().verdict in {"PASS", "FAIL"}
        page.get_by_role("button", name="停止检测").click()
        page.locator("#confirm").click()
        page.get_by_text("工位被人为停止").wait_for()
        with pytest.raises(CommandError, match="stopped"):
            belt.judge()
        page.get_by_role("button", name="详情").click()
        page.get_by_text("停止时间：").wait_for()
        page.get_by_role("button", name="开始检测").click()
        page.locator("#confirm").click()
        page.get_by_role("button", name="停止检测").wait_for()
        page.locator(".wrong").wait_for(state="hidden")
        assert belt.judge().verdict in {"PASS", "FAIL"}
        page.locator(".banner", has_text="品").or_(
            page.locator(".banner", has_text="不良")
        ).wait_for()


def without_cut_connections(page: Any) -> None:
    """A browser complains of each connection that is cut."""
    page.problems[:] = [one for one in page.problems if "net::ERR_" not in one]


@pytest.mark.peers
def test_the_page_heals_by_itself(tmp_path, chromium):
    belt = Belt(tmp_path / "station")
    with contextlib.closing(belt), contextlib.ExitStack() as later:
        with serving.serving(tmp_path / "page", {"line-1": belt.addresses}) as served:
            url = served.url
            page = later.enter_context(opened(chromium, url))
            page.locator(".cameras li.running").wait_for()
            belt.kill()
            page.get_by_text("The station does not answer").wait_for()
            belt.start()
            page.locator(".cameras li.running").wait_for()
            page.locator(".wrong").wait_for(state="hidden")
            found = reject(belt, "after the station")
            page.locator(f'body[data-shown="{found.epoch}/{found.seq}"]').wait_for()
            page.evaluate("window.notReloaded = true")
        page.get_by_text("This page has lost its server").wait_for()
        reject(belt, "while the page was gone")
        listen = url.removeprefix("http://").rstrip("/")
        addresses = {"line-1": belt.addresses}
        with serving.serving(tmp_path / "page", addresses, listen=listen):
            page.locator(".wrong").wait_for(state="hidden")
            page.get_by_role("button", name="while the page was gone").wait_for()
            found = reject(belt, "after the page")
            page.locator(f'body[data-shown="{found.epoch}/{found.seq}"]').wait_for()
            assert page.evaluate("window.notReloaded")
            without_cut_connections(page)
            later.close()


@pytest.mark.peers
def test_a_verdict_and_its_picture_are_drawn_together(belt, shown, chromium):
    count = 20
    with opened(chromium, shown.url) as page:
        page.locator(".cameras li.running").wait_for()
        page.evaluate(
            """() => {
              window.together = new Set();
              new MutationObserver(() => {
                const { told, shown } = document.body.dataset;
                if (told === window.told) return;
                window.told = told;
                if (told === shown) window.together.add(told);
              }).observe(document.body, { attributes: true });
            }"""
        )
        for _ in range(count):
            belt.judge()
            page.wait_for_timeout(200)
        # Where the machine is busy, a picture may come too late for its verdict.
        assert page.evaluate("window.together.size") >= count / 4


@pytest.mark.peers
def test_a_picture_that_comes_late_takes_no_newer_ones_place(belt, shown, chromium):
    held: dict[str, list[Any]] = collections.defaultdict(list)
    with opened(chromium, shown.url) as page:
        page.locator(".cameras li.running").wait_for()
        page.route(
            "**/published/*/*",
            lambda route: held[route.request.url.rpartition("/")[2]].append(route),
        )

        def judge_and_hold(part_id: str) -> Any:
            verdict = belt.judge(part_id)
            wait_for(lambda: page.wait_for_timeout(50) or held.get(str(verdict.seq)))
            return verdict

        def let_go(verdict: Any) -> None:
            for route in held[str(verdict.seq)]:
                route.continue_()

        first, second = judge_and_hold("first"), judge_and_hold("second")
        # The verdict does not wait for its picture for ever.
        page.locator(".part_id", has_text="second").wait_for()
        let_go(second)
        newer = f"body[data-shown='{second.epoch}/{second.seq}']"
        page.locator(newer).wait_for(state="attached")
        let_go(first)
        page.wait_for_timeout(500)
        assert page.locator(newer).count() == 1
        assert page.get_attribute("body", "data-told") == f"{second.epoch}/{second.seq}"
        assert first.seq < second.seq
        assert page.locator(".caption").inner_text() == ""


@pytest.mark.peers
def test_two_stations_and_two_cameras(belt, tmp_path, chromium):
    other = Belt(tmp_path / "other", "left", "right", name="line-2")
    stations = {"line-1": belt.addresses, "line-2": other.addresses}
    with (
        contextlib.closing(other),
        serving.serving(tmp_path / "page", stations) as served,
        opened(chromium, served.url) as page,
    ):
        page.locator(".cameras li.running").wait_for()
        belt.judge("of the first")
        page.locator(".part_id", has_text="of the first").wait_for()
        page.get_by_label("Station").select_option("line-2")
        page.locator(".cameras li.running").nth(1).wait_for()
        for camera in ("left", "right"):
            other.judge(f"{camera} part", camera)
            pane = page.locator(f'.pane[aria-label="{camera}"]')
            pane.locator(".part_id", has_text=f"{camera} part").wait_for()
        assert page.locator(".pane").count() == 2
        page.get_by_label("Which camera").select_option("right")
        assert page.locator(".pane").count() == 1
        assert page.locator(".part_id").inner_text().startswith("right part")
        # A station that stops is told to whoever looks at another one.
        page.get_by_label("Station").select_option("line-1")
        page.locator(".part_id", has_text="of the first").wait_for()
        assert page.locator("#others button").count() == 0
        other.desk.stop(by="Ana")
        page.get_by_role("button", name="line-2: The station has been stopped by somebody").click()
        page.get_by_role("button", name="Start judging").wait_for()
        assert page.get_by_label("Station").input_value() == "line-2"
        assert page.locator("#others button").count() == 0


@pytest.mark.peers
def test_all_stations_stand_beside_each_other(tmp_path, chromium):
    one = Belt(tmp_path / "one")
    other = Belt(tmp_path / "other", name="line-2")
    stations = {"line-1": one.addresses, "line-2": other.addresses}
    with (
        contextlib.closing(one),
        contextlib.closing(other),
        serving.serving(tmp_path / "page", stations) as served,
        opened(chromium, f"{served.url}#/line-1/stations") as page,
    ):
        page.locator(".tiles li").nth(1).wait_for()
        assert page.title() == "All stations – Line Inspector"
        first, second = (page.locator(".tiles li", has_text=name) for name in stations)
        one.judge("a good one")
        one.judge("a bad one")
        other.judge("elsewhere")
        first.locator(".which", has_text="a bad one").wait_for()
        assert first.locator(".banner").inner_text() == "FAIL"
        assert first.get_attribute("data-verdict") == "FAIL"
        second.locator(".which", has_text="elsewhere").wait_for()
        assert second.locator(".banner").inner_text() == "PASS"
        first.locator(".figures", has_text="Bad: 1, not judged: 0").wait_for()
        first.locator("canvas").first.wait_for()
        # What stands beside a verdict is never the picture of another part.
        page.route("**/published/*/*", lambda route: route.abort())
        page.route("**/parts/**", lambda route: route.abort())
        one.judge("without a picture")
        first.locator(".which", has_text="without a picture").wait_for()
        assert first.locator("canvas").first.is_hidden()
        page.unroute_all()
        # A slow network's picture comes after the verdict, and is asked for once.
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        page.route("**/published/*/*", hold)
        one.judge("with a late picture")
        first.locator(".which", has_text="with a late picture").wait_for()
        page.wait_for_timeout(2500)
        assert first.locator("canvas").first.is_hidden()
        assert len(held) == 1
        held[0].continue_()
        first.locator("canvas").first.wait_for()
        page.unroute_all()
        page.problems.clear()
        # What a station judged before it was stopped does not look like a verdict of now.
        other.desk.stop(by="Ana")
        second.locator(".banner", has_text="Judges nothing").wait_for()
        assert second.get_attribute("data-verdict") == ""
        second.locator(".wrong", has_text="has been stopped by somebody").wait_for()
        other.kill()
        second.locator(".wrong", has_text="does not answer").wait_for(timeout=20_000)
        second.locator(".figures", has_text="Parts a minute: –").wait_for()
        one.judge("as a trial", purpose="study")
        first.locator(".which", has_text="trial").wait_for()
        # What is lost is the page, and of the stations nothing is known.
        served.child.send_signal(signal.SIGSTOP)
        first.locator(".banner", has_text="no connection").wait_for(timeout=30_000)
        served.child.send_signal(signal.SIGCONT)
        first.locator(".banner", has_text="PASS").wait_for(timeout=30_000)
        page.problems.clear()
        first.locator("a").click()
        page.locator("#view[data-view=line] .part_id", has_text="as a trial").wait_for()
        page.get_by_role("link", name="All stations").click()
        second.locator(".wrong", has_text="does not answer").wait_for()


@pytest.mark.peers
def test_one_station_has_no_view_of_all(belt, tmp_path, chromium):
    with (
        serving.serving(tmp_path / "page", {"line-1": belt.addresses}) as served,
        opened(chromium, f"{served.url}#/line-1/stations") as page,
    ):
        page.locator("#view[data-view=line]").wait_for()
        assert page.locator("nav a[data-view=stations]").count() == 0
