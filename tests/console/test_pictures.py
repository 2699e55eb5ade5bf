"""The pictures of the documentation can be taken again at any time."""

from __future__ import annotations

import pytest

from docs import console_pictures
from tests.console.test_texts import views

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


def test_every_view_has_a_picture(tmp_path, chromium):
    assert list(console_pictures.VIEWS) == views()
    console_pictures.main(tmp_path, parts=40, browser=chromium)
    pictures = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    names = {f"console-{view}{language}.jpg" for view in views() for language in ("", "-zh")}
    assert set(pictures) == names | {"console-phone.jpg"}
    for name, data in pictures.items():
        assert data.startswith(b"\xff\xd8") and len(data) <= console_pictures.MOST_BYTES, name
