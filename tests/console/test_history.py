"""The history: what there is of a part, the table, and the view in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.types import Message

from inspector.client import Commander
from inspector.console.access import RefusedError
from inspector.console.downloads import Download, Places
from inspector.errors import CommandError
from inspector.imaging.images import decode
from inspector.wire.messages import VerdictMessage
from inspector.wire.rows import COLUMNS
from tests import running
from tests.console import serving
from tests.console.serving import opened, wait_for
from tests.loops import in_a_loop

MARKUP = "<img src=x onerror=\"document.title='owned'\">"
FORMULA = '=HYPERLINK("http://x")'
PARTS = 60
PARTS_API = "/api/stations/line-1/parts"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    folder = tmp_path_factory.mktemp("line")
    with running.running(serving.write_triggered_station(folder)) as daemon:
        daemon.wait_for_log(r"state=Ready")
        yield daemon


@pytest.fixture(scope="module")
def judged(line: running.Running, served: serving.Served) -> list[VerdictMessage]:
    """The parts, the oldest first: good and bad ones in turn."""
    names = {1: MARKUP, 2: FORMULA, PARTS: MARKUP}
    with Commander(line.commands, timeout_s=30) as plc:
        found = [
            plc.trigger("top", number, names.get(number, f"S/N {number}"))
            for number in range(1, PARTS + 1)
        ]
    assert [one.verdict.value for one in found] == ["PASS", "FAIL"] * (PARTS // 2)
    # Pictures come after their verdicts.
    wait_for(lambda: b'"origin":"kept"' in of(served, found[-1], "about").content)
    return found


def of(served: serving.Served, verdict: VerdictMessage, content: str) -> Any:
    return served.client.get(f"{PARTS_API}/{verdict.epoch}/{verdict.seq}/{content}")


def history(served: serving.Served, **asked: Any) -> list[dict[str, Any]]:
    answer = served.client.get("/api/stations/line-1/history", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["entries"]


def test_each_content_of_a_part_is_what_it_says(served, judged):
    bad = judged[-1]
    for content, kind in (("picture", b"\xff\xd8"), ("large", b"\xff\xd8"), ("thumbnail", b"\xff")):
        assert of(served, bad, content).content.startswith(kind)
    assert decode(of(served, bad, "heatmap").content).max() >= 128
    told = json.loads(of(served, bad, "picture").headers["x-picture"])
    assert told["frame_area"] == {"x": 0, "y": 0, "w": 200, "h": 160}
    assert told["heatmap_area"] == {"x": 100, "y": 40, "w": 64, "h": 64}
    # The console was there when it was published.
    published = of(served, bad, "model")
    assert json.loads(published.headers["x-picture"])["frame_area"] == told["heatmap_area"]
    assert decode(published.content).shape[:2] == (64, 64)
    # Nobody asked for a picture.
    assert of(served, bad, "about").json()["frames"] == []
    full = of(served, bad, "full")
    assert full.headers["content-disposition"] == f'attachment; filename="part-{bad.seq}.png"'
    pixels = decode(full.content)
    assert pixels.shape[:2] == (160, 200) and np.unique(pixels[40:104, 100:164]).size > 0
    assert int(full.headers["content-length"]) == len(full.content)


def test_what_is_not_there_is_no_error(served, judged):
    nobody = judged[-1].model_copy(update={"seq": 999_999})
    for content in ("model", "map", "thumbnail", "picture", "large", "full", "heatmap", "about"):
        answer = of(served, nobody, content)
        assert (answer.status_code, answer.content) == (204, b""), content
        # Or a part whose picture is still to come would have none for a day.
        assert answer.headers["cache-control"] == "no-store"
    assert of(served, nobody, "secrets").status_code == 404
    assert of(served, nobody.model_copy(update={"seq": 2**60}), "picture").status_code == 404
    assert "immutable" in of(served, judged[-1], "picture").headers["cache-control"]


def test_the_table_has_what_the_filter_finds_and_no_formula(served, judged, line, tmp_path):
    answer = served.client.get("/api/stations/line-1/history.csv", params={"verdicts": "FAIL"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.content.startswith("\ufeff".encode())
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [row["seq"] for row in rows] == [
        str(one.seq) for one in judged[::-1] if one.seq % 2 == 0
    ]
    assert rows[-1]["part_id"] == f"'{FORMULA}"
    # Line by line what the command writes.
    out = tmp_path / "out.csv"
    journal = re.search(r" journal folder=(\S+)", line.log)[1]
    assert running.inside("export-verdicts", journal, "-o", out)[0] == 0
    with out.open(encoding="utf-8", newline="") as file:
        assert rows == [row for row in csv.DictReader(file) if row["verdict"] == "FAIL"][::-1]


def test_a_table_that_cannot_be_had_is_refused_before_it_begins(served, judged):
    where = "/api/stations/line-1/history.csv"
    for asked in ({"colour": "red"}, {"limit": "0"}, {"before_epoch": "x", "before_seq": 1}):
        answer = served.client.get(where, params=asked)
        assert answer.status_code in {400, 409}, answer.text
        assert "content-disposition" not in answer.headers


class Browser:
    """What a browser is sent, and when it goes away."""

    def __init__(self, goes_after: int = 10**9) -> None:
        self.got: list[Message] = []
        self._goes_after = goes_after
        self._gone = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.got.append(message)
        if len(self.got) >= self._goes_after:
            self._gone.set()
        await asyncio.sleep(0)

    async def receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}


def download(pieces: Any, browser: Browser, places: Places) -> None:
    async def send() -> None:
        with contextlib.ExitStack() as place:
            place.enter_context(places.one())
            with pytest.raises(RefusedError), places.one():
                pass
            made = Download(pieces, place.pop_all(), media_type="text/csv", headers={})
        await asyncio.wait_for(made({"type": "http"}, browser.receive, browser.send), 10)

    # Playwright has a loop in this thread, once another test has used it.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: in_a_loop(send())).result()
    with places.one():
        pass


def test_half_a_table_never_looks_like_a_whole_one():
    async def breaks():
        yield b"a"
        raise CommandError("no answer")

    async def ends():
        yield b"a"

    broken, whole = Browser(), Browser()
    download(breaks(), broken, Places(1))
    assert [one.get("more_body") for one in broken.got] == [None, True]
    download(ends(), whole, Places(1))
    assert whole.got[-1] == {"type": "http.response.body", "body": b""}


@pytest.mark.long
def test_nothing_is_fetched_for_a_browser_that_has_gone():
    fetched = 0

    async def endless():
        nonlocal fetched
        while True:
            fetched += 1
            yield b"a"

    download(endless(), Browser(goes_after=5), Places(1))
    assert fetched < 50


peers = pytest.mark.peers


def view(served: serving.Served, query: str = "") -> str:
    return f"{served.url}#/line-1/history{query}"


@peers
def test_all_pages_come_as_one_scrolls_and_names_are_no_markup(served, chromium, judged):
    with opened(chromium, view(served)) as page:
        page.locator(".row").first.wait_for()
        wait_for(
            lambda: (
                page.locator(".row").last.scroll_into_view_if_needed()
                or page.get_by_text("These are all.").count()
            )
        )
        assert page.locator(".row").count() == len(history(served))
        assert page.locator(".row .name").first.text_content() == MARKUP
        page.locator(".row").first.click()
        page.get_by_role("heading", name=MARKUP).wait_for()
        # A thumbnail is the only picture that a list may have.
        assert page.locator("img[src='x']").count() == 0
        assert "owned" not in page.title()


@peers
def test_a_filter_stands_in_the_address_and_a_link_opens_the_part(served, chromium, judged):
    with opened(chromium, view(served)) as page:
        page.get_by_label("Verdict", exact=True).select_option("FAIL")
        page.get_by_label("Part ID").fill("S/N 4")
        page.get_by_text("1 in all").wait_for()
        page.locator(".row").first.click()
        page.get_by_role("heading", name="S/N 4").wait_for()
        link = page.url
    assert "verdicts=FAIL" in link and "part=S%2FN+4" in link
    with opened(chromium, link) as page:
        page.get_by_role("heading", name="S/N 4").wait_for()
        assert page.get_by_label("Verdict", exact=True).input_value() == "FAIL"
        page.get_by_text("1 in all").wait_for()
        page.get_by_role("button", name="Clear", exact=True).click()
        page.locator(".row").nth(20).wait_for()
        assert "verdicts" not in page.url


@peers
def test_a_mark_is_seen_at_once_and_stands_in_the_journal(served, chromium, judged):
    bad = judged[5]
    link = view(served, f"?seen={bad.epoch}/{bad.seq}")
    note = "<b>a shadow</b>"
    with opened(chromium, link) as page:
        page.get_by_label("Note (may stay empty)").fill(note)
        page.get_by_role("button", name="This part was good").click()
        page.locator(".detail .note").wait_for(timeout=2000)
        assert page.locator(".detail .note").inner_text() == note
        page.get_by_text("false reject").first.wait_for()
        (entry,) = wait_for(lambda: history(served, marked=True))
    assert entry["verdict"]["seq"] == bad.seq
    assert (entry["marks"][0]["label"], entry["marks"][0]["note"]) == ("good", note)
    with opened(chromium, f"{served.url}#/line-1/deeds") as page:
        page.get_by_role("cell", name=note).wait_for()
        page.get_by_role("link", name=f"Part no. {bad.seq}").click()
        page.get_by_role("heading", name=bad.part_id).wait_for()


@peers
def test_keys_go_through_the_parts_and_two_stand_side_by_side(served, chromium, judged):
    with opened(chromium, view(served)) as page:
        page.locator(".row").first.click()
        page.keyboard.press("ArrowDown")
        page.get_by_role("heading", name=judged[-2].part_id).wait_for()
        page.keyboard.press("ArrowUp")
        page.get_by_role("heading", name=MARKUP).wait_for()
        assert page.get_by_role("button", name="Newer part").is_disabled()
        page.get_by_role("button", name="Compare").click()
        page.keyboard.press("ArrowDown")
        captions = page.locator("figcaption .name")
        wait_for(lambda: captions.all_inner_texts() == [MARKUP, judged[-2].part_id])
        page.keyboard.press("Escape")
        page.get_by_role("heading", name=judged[-2].part_id).wait_for()


@peers
def test_boxes_lie_where_the_defect_is(served, chromium, judged):
    bad = json.loads(judged[-1].model_dump_json(by_alias=True))
    found = """async ([verdict, options]) => {
        const { PartPicture } = await import("/static/picture.js");
        const picture = new PartPicture();
        const holder = document.createElement("div");
        holder.style.width = holder.style.height = "400px";
        holder.append(picture.node);
        document.body.append(holder);
        picture.opacity = 0;
        const shown = await picture.show("line-1", verdict, "", options);
        await new Promise((done) => setTimeout(done, 200));
        const { left, top } = holder.getBoundingClientRect();
        const frame = picture.node.querySelector("svg rect");
        const at = frame.getBoundingClientRect();
        const isSeen = getComputedStyle(frame).visibility === "visible";
        picture.boxes = false;
        const isGone = getComputedStyle(frame).visibility === "hidden";
        const [x0, y0, x1, y1] = [at.left - left, at.top - top, at.right - left, at.bottom - top];
        picture.close();
        holder.remove();
        return { shown: shown && isSeen && isGone, x0, y0, x1, y1 };
    }"""
    (region,) = bad["regions"]
    with opened(
        chromium, f"{served.url}#/line-1/deeds", viewport={"width": 1024, "height": 1000}
    ) as page:
        page.locator(".filters").wait_for()
        kept = page.evaluate(found, [bad, {"kept": True}])
        published = page.evaluate(found, [bad, {}])
    # The frame is 200 px wide and 160 high, and stands in the middle of 400 px.
    box = (region["x"] * 2, region["y"] * 2 + 40, region["w"] * 2, region["h"] * 2)
    assert_box(kept, *box)
    # Of what was published there is the judged region alone, 64 px wide and high.
    scale = 400 / 64
    box = ((region["x"] - 100) * scale, (region["y"] - 40) * scale)
    assert_box(published, *box, region["w"] * scale, region["h"] * scale)


def assert_box(found: dict[str, float], x: float, y: float, w: float, h: float) -> None:
    assert found["shown"] is True
    # A line is five pixels thick.
    got = [found[name] for name in ("x0", "y0", "x1", "y1")]
    assert got == pytest.approx([x, y, x + w, y + h], abs=3)


@peers
def test_a_station_that_does_not_answer_is_told_and_found_again(served, chromium, judged):
    with opened(chromium, f"{served.url}#/line-1/deeds") as page:
        page.locator(".filters").wait_for()
        place = {"next_epoch": judged[-1].epoch, "next_seq": 5}
        answers = [
            {"status": 200, "json": {"entries": [], **place}},
            {"status": 504, "json": {"code": "no_answer", "detail": "no answer in 10 s"}},
        ]
        page.route("**/history?*", lambda route: route.fulfill(**answers.pop(0)))
        page.get_by_role("link", name="History").click()
        # The first page is empty, and others follow; then the station does not answer.
        page.get_by_text("The station does not answer").wait_for()
        page.unroute("**/history?*")
        page.get_by_role("button", name="Try again").click()
        page.locator(".row").nth(3).wait_for()
        assert page.locator(".row .name").first.text_content() == judged[3].part_id
        assert all("504" in one for one in page.problems)
        page.problems.clear()
