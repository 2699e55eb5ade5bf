"""The log of deeds in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from inspector.client import Commander, Viewer
from inspector.wire.messages import VerdictMessage
from tests import running
from tests.console import serving
from tests.console.serving import opened

pytestmark = pytest.mark.peers

MARKUP = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    folder = tmp_path_factory.mktemp("line")
    with running.running(serving.write_triggered_station(folder)) as daemon:
        daemon.wait_for_log(r"state=Ready")
        yield daemon


@pytest.fixture(scope="module")
def part(line: running.Running) -> VerdictMessage:
    """A part; meanwhile people did things to the station."""
    with Commander(line.commands, timeout_s=30) as order:
        part = order.trigger("top", 1, "S/N 1")
        order.mark(part.epoch, part.seq, "bad", MARKUP, by="<b>Li Wei</b>")
        order.limit("r", "top", 1.1, by="Li Wei")
        order.stop()
        order.start(by="Ana")
    return part


def cells(page: Any, name: str) -> list[str]:
    return [" ".join(one.split()) for one in page.locator(f"td.{name}").all_inner_texts()]


def test_deeds_say_who_what_from_and_to(served, chromium, part):
    with opened(chromium, f"{served.url}#/line-1/deeds") as page:
        page.locator("td").first.wait_for()
        assert cells(page, "what") == [
            "Judging started",
            "Judging stopped",
            "Limit changed",
            "Part marked",
        ]
        assert cells(page, "who") == ["Ana", "no name given", "Li Wei", "<b>Li Wei</b>"]
        assert cells(page, "change")[2:] == ["1 → 1.1", "was bad"]
        assert cells(page, "note")[-1] == MARKUP
        assert "owned" not in page.title()
        page.get_by_role("link", name="Part no. 1").click()
        page.get_by_role("heading", name="S/N 1").wait_for()


def test_deeds_of_one_kind_and_in_chinese(served, chromium, part):
    with opened(chromium, f"{served.url}#/line-1/deeds?kind=limit", language="zh-CN") as page:
        page.locator("td").first.wait_for()
        assert cells(page, "what") == ["调整界限"]
        page.get_by_label("操作类型").select_option("install")
        page.get_by_text("没有此类操作。").wait_for()
        assert "kind=install" in page.url


def test_deeds_are_found_by_who_and_when(served, chromium, part):
    asked: list[str] = []
    with opened(chromium, f"{served.url}#/line-1/deeds?who=li%20w&kind=limit") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.locator("td").first.wait_for()
        assert cells(page, "what") == ["Limit changed"]
        page.get_by_label("What was done").select_option("")
        page.locator("tbody tr").nth(1).wait_for()
        assert cells(page, "who") == ["Li Wei", "<b>Li Wei</b>"]
        page.get_by_label("Who", exact=True).fill("ana")
        page.locator("td.what", has_text="Judging started").wait_for()
        assert cells(page, "what") == ["Judging started"] and "who=ana" in page.url
        page.get_by_label("From", exact=True).fill("2100-01-01T00:00")
        page.get_by_text("Nothing of this kind was done.").wait_for()
    # The station looks for them: the page never fetches what it does not show.
    asked = [one for one in asked if "/deeds" in one and "/api/" in one]
    assert all("who=" in one or "kinds=" in one for one in asked) and asked


def test_all_pages_of_deeds_come_as_one_scrolls(served, chromium, part):
    answers = [
        {"deeds": deeds(range(40, 20, -1)), "next_deed": 21},
        {"deeds": [], "next_deed": 20},
        {"deeds": deeds(range(20, 0, -1)), "next_deed": None},
    ]
    with opened(chromium, f"{served.url}#/line-1/history") as page:
        page.locator(".row").first.wait_for()
        asked: list[str] = []

        def fulfil(route: Any) -> None:
            asked.append(route.request.url.partition("?")[2])
            route.fulfill(json=answers[len(asked) - 1])

        page.route("**/api/stations/line-1/deeds*", fulfil)
        page.get_by_role("link", name="Log").click()
        page.locator("tbody tr").nth(39).wait_for()
        assert page.locator("tbody tr").count() == 40
    assert asked == ["", "before=21", "before=20"]


def deeds(numbers: range) -> list[dict[str, Any]]:
    return [
        {
            "number": number,
            "at_us": 1714557650000000 + number,
            "kind": "recipe",
            "client": "",
            "by": "",
            "subject": "line-1",
            "before": "a",
            "after": "b",
            "note": "",
        }
        for number in numbers
    ]


def test_the_log_is_what_the_station_says(served, line, part):
    with Viewer(line.queries, timeout_s=30) as viewer:
        told = [json.loads(one.model_dump_json()) for one in viewer.deeds()]
    assert served.client.get("/api/stations/line-1/deeds").json()["deeds"] == told
