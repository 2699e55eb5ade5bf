"""The page in a real browser."""

from __future__ import annotations

import pytest

from tests.console.serving import opened

pytestmark = pytest.mark.peers


def test_the_page_opens_in_the_browsers_language(served, chromium):
    with opened(chromium, served.url) as page:
        page.get_by_role("link", name="History").click()
        page.get_by_role("heading", name="History").wait_for()
    with opened(chromium, served.url, language="zh-CN") as page:
        page.get_by_role("link", name="历史").wait_for()
