"""A station whose every name and word is markup: the page shows it as text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.console import serving
from tests.console.hostile import saying
from tests.console.serving import opened

pytestmark = pytest.mark.peers

MARKUP = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def hostile() -> Iterator[dict[str, str]]:
    """A station whose every text is markup."""
    with saying(MARKUP, lambda _seq: MARKUP) as addresses:
        yield addresses


def test_what_a_station_says_is_never_markup(hostile, chromium, tmp_path):
    with (
        serving.serving(tmp_path, {"line-1": hostile}) as served,
        opened(chromium, f"{served.url}#/line-1/line") as page,
    ):
        page.locator(".part_id", has_text=MARKUP).wait_for()
        page.locator(".wrong button").click()
        # What the station says is a detail beside the page's own words.
        page.locator(".wrong details.original summary").first.click()
        page.locator(".wrong details.original bdi", has_text=MARKUP).first.wait_for()
        page.locator(".cameras b", has_text=MARKUP).wait_for()
        page.get_by_text(MARKUP).nth(4).wait_for(state="attached")
        for view in ("history", "teach", "setup", "line"):
            page.locator(f"nav a[data-view={view}]").click()
            page.locator(f"#view[data-view={view}] > *").first.wait_for()
            page.wait_for_timeout(500)
            assert page.locator("img[src=x]").count() == 0
            assert "owned" not in page.title()
        page.problems.clear()
