"""Tabs of one browser share one stream of events, and none starves the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import running
from tests.console.serving import wait_for

pytestmark = pytest.mark.peers

TABS = 8


@pytest.fixture(scope="module")
def line(tiny_line: running.Running) -> running.Running:
    return tiny_line


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    made = chromium.new_context(locale="en", viewport={"width": 1024, "height": 600})
    yield made
    made.close()


def streams(context: Any) -> list[Any]:
    """The streams that are open: requests of /api/events that have not ended."""
    found: list[Any] = []

    def begin(request: Any) -> None:
        if request.url.endswith("/api/events"):
            found.append(request)

    def end(request: Any) -> None:
        if request in found:
            found.remove(request)

    context.on("request", begin)
    context.on("requestfinished", end)
    context.on("requestfailed", end)
    return found


def wait_for_streams(page: Any, holds: Callable[[], bool]) -> None:
    """Playwright tells of requests only while a page is asked for something."""
    wait_for(lambda: page.evaluate("1") and holds())


def part(page: Any) -> str:
    return str(page.locator(".part_id").inner_text())


def assert_goes_on(pages: list[Any]) -> None:
    before = [part(page) for page in pages]
    for page, last in zip(pages, before, strict=True):
        wait_for(lambda page=page, last=last: part(page) != last, 10)


def test_eight_tabs_share_one_stream(served, context):
    open_now = streams(context)
    pages = []
    for _ in range(TABS):
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.goto(f"{served.url}#/line-1/line")
        page.locator(".part_id").wait_for()
        pages.append(page)
    wait_for_streams(pages[0], lambda: len(open_now) == 1)
    assert_goes_on(pages)
    # Each still gets answers of its own.
    pages[-1].locator("nav a[data-view=history]").click()
    pages[-1].locator("button.row").first.wait_for()
    pages[-1].go_back()
    # The one that has the stream closes: another takes over at once.
    last = pages.pop()
    open_now[:] = [one for one in open_now if one.frame != last.main_frame]
    last.close()
    wait_for_streams(pages[0], lambda: len(open_now) == 1)
    assert_goes_on(pages)
    # One that comes into view takes the stream.
    taken = open_now[0]
    page = next(one for one in pages if one.main_frame != taken.frame)
    page.evaluate(
        "Object.defineProperty(document, 'visibilityState', {get: () => 'visible'});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    wait_for_streams(page, lambda: [one.frame for one in open_now] == [page.main_frame])
    assert_goes_on(pages)


def test_a_hidden_tab_hears_what_there_is_from_the_one_that_leads(served, context):
    open_now = streams(context)
    first = context.new_page()
    first.goto(f"{served.url}#/line-1/line")
    first.locator(".part_id").wait_for()
    hidden = context.new_page()
    hidden.add_init_script(
        "Object.defineProperty(Document.prototype, 'visibilityState', {get: () => 'hidden'})"
    )
    hidden.goto(f"{served.url}#/line-1/line")
    health = hidden.locator("#health")
    wait_for(lambda: health.inner_text() == "judging")
    wait_for_streams(first, lambda: [one.frame for one in open_now] == [first.main_frame])


def test_without_locks_each_tab_has_a_stream(served, context):
    open_now = streams(context)
    context.add_init_script("delete Navigator.prototype.locks")
    pages = [context.new_page() for _ in range(2)]
    for page in pages:
        page.goto(f"{served.url}#/line-1/line")
        page.locator(".part_id").wait_for()
    assert len(open_now) == 2
    assert_goes_on(pages)
