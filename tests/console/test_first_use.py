"""A station that has no model yet: every view of the page leads to Set up."""

from __future__ import annotations

import pytest

from inspector.client.commander import Commander
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for


@pytest.fixture
def line(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, rate_hz=8, loop=True, deadline_ms=20_000)
    sockets = {"queries": "tcp://127.0.0.1:*"}
    path = running.write_station(folder / "s.yaml", folder / "part.onnx", camera, sockets=sockets)
    with running.running(path, "--without-model") as daemon:
        daemon.wait_for_log(r"why=model")
        yield daemon


@pytest.fixture
def served(line, tmp_path):
    folder = tmp_path / "console"
    stations = {"line-1": serving.addresses(line)}
    with serving.serving(folder, stations, state=str(folder / "state")) as made:
        yield made


@pytest.mark.peers
def test_the_page_leads_from_no_model_to_the_first_verdict(line, served, chromium, tmp_path):
    with opened(chromium, f"{served.url}#/line-1/line") as page:
        page.locator("#health").get_by_text("no model yet").wait_for()
        page.get_by_text("The station has no model yet: no part is judged.").wait_for()
        # There is no error to reset, and nothing that was stopped.
        assert page.locator("[data-deed]:visible").count() == 0
        for view in ("Teach", "Limit", "Recipe"):
            page.get_by_role("link", name=view, exact=True).click()
            page.locator("#view .empty").get_by_role("link", name="Go to Set up").wait_for()
        page.get_by_role("link", name="Go to Set up").click()
        page.locator(".stage canvas[aria-label*='64']").wait_for()
        page.locator("[data-step=use]").click()
        page.get_by_text("There is no model of this camera yet").wait_for()
        assert not page.locator("#use").is_visible()
        page.locator("#to-train").click()
        page.get_by_text("Training needs 10").wait_for()
        page.locator("#to-photos").click()
        # A region is kept, though no photo was taken yet.
        page.locator("[data-step=region]").click()
        for name, value in zip("xywh", ("8", "4", "40", "32"), strict=True):
            page.locator(f"#region-{name}").fill(value)
            page.keyboard.press("Tab")
        kept = f"{served.url}api/stations/line-1/photos/1"
        wanted = {"x": 8, "y": 4, "w": 40, "h": 32}
        wait_for(lambda: served.client.get(kept).json().get("region") == wanted)
        page.reload()
        page.locator("#region-x").wait_for()
        wait_for(lambda: page.locator("#region-x").input_value() == "8")
        with Commander(line.commands) as desk:
            desk.install(tiny.write_bundle(tmp_path / "part.onnx"), "r", "top")
        page.locator("#health").get_by_text("judging").wait_for()
        page.get_by_role("link", name="Line", exact=True).click()
        page.locator(".pane[data-verdict]").wait_for()
