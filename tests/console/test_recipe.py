"""The view of the recipe: changing it, who has the control, alarms, and how its models do."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from inspector.client import Commander, Viewer
from inspector.config.console_file import ShownStation
from inspector.console import deeds
from inspector.console.access import Person
from inspector.console.app import Page
from inspector.console.hub import Hub
from inspector.console.line import Line
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for
from tests.loops import in_a_loop


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    """A station whose first camera sees bad parts all the time; the second one needs triggers."""
    folder = tmp_path_factory.mktemp("line")
    bundle = str(tiny.write_bundle(folder / "tiny.onnx"))
    other = str(tiny.write_bundle(folder / "disc-2.onnx", version="2"))
    parts = running.write_parts(folder / "parts", tiny.bad_picture())
    station = running.write_station(
        folder / "station.yaml",
        folder / "tiny.onnx",
        running.folder_camera(parts, loop=True, rate_hz=4, deadline_ms=20_000),
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=20_000)
        | {"name": "side"},
        recipes={
            "flange": {"top": {"bundle": bundle}, "side": {"bundle": bundle}},
            "disc": {"top": {"bundle": other}, "side": {"bundle": bundle}},
        },
        recipe="flange",
        sockets={"queries": "tcp://127.0.0.1:*"},
        alarm={"fail_share": 0.01},
    )
    with running.running(station) as daemon:
        daemon.wait_for_log(r" state=(ContinuousExecution|Ready) ")
        yield daemon


def judging(served):
    return served.client.get("/api/stations/line-1/judging", timeout=30).json()


def order(served, deed, **told):
    return served.client.post(f"/api/stations/line-1/deeds/{deed}", json=told, timeout=60)


def status(line):
    with Commander(line.commands, timeout_s=30) as desk:
        return desk.status()


def last_deed(line):
    with Viewer(line.queries) as viewer:
        return next(viewer.deeds())


def test_the_recipe_is_changed_and_written_down(served, line):
    told = judging(served)
    assert told["control"] is None
    assert [one["recipe"] for one in told["recipes"]] == ["disc", "flange"]
    assert told["recipes"][0]["cameras"][0]["bundle"] == "disc-2.onnx"
    assert order(served, "recipe", recipe="disc").status_code == 200
    assert status(line).recipe == "disc"
    assert judging(served)["cameras"][0]["model"]["version"] == "2"
    deed = last_deed(line)
    assert (deed.kind, deed.before, deed.after) == ("recipe", "flange", "disc")
    refused = order(served, "recipe", recipe="bolt")
    assert (refused.status_code, refused.json()["code"]) == (409, "unknown")
    # In the station's words, without the address at which the page asked it.
    assert refused.json()["cause"] == "recipe"
    assert refused.json()["detail"].startswith("no recipe 'bolt'")
    assert order(served, "reload").status_code == 200
    assert last_deed(line).kind == "reload"
    order(served, "recipe", recipe="flange")


def test_an_alarm_is_acknowledged_from_the_page(served, line):
    alarm = wait_for(lambda: status(line).alarms, 60)[0]
    assert (alarm.kind, alarm.where) == ("fail", "top")
    assert alarm.bad == alarm.parts and f"{alarm.bad} of {alarm.parts}" in alarm.detail
    assert (alarm.usual, alarm.passed, alarm.reason) == (0.01, False, "")
    assert order(served, "acknowledge", kind="fail", where="side").status_code == 409
    assert order(served, "acknowledge", kind="noise", where="top").status_code in {400, 409}
    assert order(served, "acknowledge", kind="fail", where="top").status_code == 200
    assert status(line).alarms[0].acknowledged_us
    assert (last_deed(line).kind, last_deed(line).subject) == ("acknowledge", "fail/top")


def test_while_a_plc_triggers_the_recipe_takes_an_engineer_who_knows(served, line):
    now = status(line).recipe
    with Commander(line.commands, timeout_s=30) as plc:
        plc.trigger("side", 1)
    assert wait_for(lambda: judging(served)["control"])["client"] == ""
    refused = order(served, "recipe", recipe="disc")
    assert (refused.status_code, refused.json()["code"]) == (409, "plc_control")
    assert status(line).recipe == now
    assert in_a_loop(as_operator(line, {"recipe": "disc", "take_over": True})) == (403, "role")
    assert status(line).recipe == now
    assert order(served, "recipe", recipe="disc", take_over=True).status_code == 200
    assert status(line).recipe == "disc"
    order(served, "recipe", recipe="flange", take_over=True)


async def as_operator(line, told):
    """(status, code) that an operator's order of a recipe gets."""

    class Operator:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            scope.setdefault("state", {})["person"] = Person("Li Wei", "operator")
            await self.app(scope, receive, send)

    station = Line("line-1", ShownStation(**serving.addresses(line)), None, lambda *_: None)
    page = Page([station], Hub(), deeds.ROUTES)
    transport = httpx.ASGITransport(app=Operator(page.app))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            answer = await client.post("/api/stations/line-1/deeds/recipe", json=told)
        return answer.status_code, answer.json()["code"]
    finally:
        station.close()


@pytest.mark.peers
def test_recipes_alarms_and_control_on_the_page(served, line, chromium):
    with Commander(line.commands, timeout_s=30) as plc:
        plc.recipe("flange")
        plc.reload()
        plc.trigger("side", 1)
    wait_for(lambda: judging(served)["control"])
    with opened(chromium, f"{served.url}#/line-1/recipe") as page:
        page.get_by_text("The PLC has control").wait_for()
        assert page.locator("[data-recipe=disc]").is_disabled()
        page.locator("#take-over").click()
        page.locator("#confirm").click()
        page.locator("[data-recipe=disc]").click()
        dialog = page.get_by_role("dialog")
        assert "top: tiny 1" in dialog.inner_text() and "top: disc-2.onnx" in dialog.inner_text()
        dialog.get_by_role("button", name="Cancel").click()
        assert status(line).recipe == "flange"
        page.locator("[data-recipe=disc]").click()
        page.get_by_role("button", name="Change to disc").click()
        wait_for(lambda: status(line).recipe == "disc", 60)
        page.locator("[data-recipe=disc][aria-pressed=true]").wait_for()
        page.get_by_text("tiny 2").wait_for()
        assert (last_deed(line).kind, last_deed(line).after) == ("recipe", "disc")
        # What another one changes is shown without a reload.
        with Commander(line.commands, timeout_s=60) as plc:
            plc.recipe("flange")
        page.locator("[data-recipe=flange][aria-pressed=true]").wait_for()
        page.get_by_text("Too many parts are rejected (top)").first.wait_for(timeout=60_000)
        page.get_by_role("button", name="I have seen it").first.click()
        page.get_by_text("Seen by somebody without a name").first.wait_for()
        assert any(one.acknowledged_us for one in status(line).alarms)
        page.get_by_text("'bad' was found").first.wait_for()
        assert page.locator("svg.series polyline.curve").count() == 2
        assert page.locator("svg.spark").count() == 2
        assert page.locator("#install").count() == 1


@pytest.mark.peers
def test_what_the_station_says_is_put_in_the_words_of_the_page(served, line, chromium):
    """On the Chinese page its own English stands nowhere but where somebody opens it."""
    with Commander(line.commands, timeout_s=30) as desk:
        desk.recipe("flange")
        desk.reload()
    alarm = wait_for(lambda: status(line).alarms, 60)[0]
    with opened(chromium, f"{served.url}#/line-1/recipe", language="zh-CN") as page:
        section = page.locator(".alarms")
        section.get_by_text(f"{alarm.parts} 件中有 {alarm.bad} 件不良").wait_for(timeout=60_000)
        assert "usual are at most" not in section.inner_text()
        section.get_by_text("原文").first.click()
        assert alarm.detail in section.inner_text()
        asked = "**/deeds/reload"
        refused = {"code": "failed", "cause": "self_test", "detail": "defect 'bad' is a PASS"}
        page.route(asked, lambda route: route.fulfill(status=409, json=refused))
        page.locator("#reload").click()
        page.locator("#confirm").click()
        said = page.locator("#said .problem")
        said.wait_for()
        assert "自检的已知缺陷将无法检出" in said.inner_text()
        assert "defect 'bad'" not in said.inner_text()
        said.get_by_text("原文").click()
        assert "defect 'bad' is a PASS" in said.inner_text()
        page.unroute(asked)
        page.locator("nav a[data-view=line]").click()
        page.get_by_role("button", name="详情").click()
        page.locator(".wrong").get_by_text(f"{alarm.parts} 件中有 {alarm.bad} 件不良").wait_for()
        assert "usual are at most" not in page.locator(".wrong").inner_text()
        page.problems.clear()  # the browser's own word about the refused request


@pytest.mark.peers
@pytest.mark.parametrize("size", [(1024, 600), (390, 844), (1920, 1080)])
def test_the_recipe_fits_each_screen(served, chromium, size):
    viewport = {"width": size[0], "height": size[1]}
    with opened(chromium, f"{served.url}#/line-1/recipe", viewport=viewport) as page:
        page.locator("[data-recipe=disc]").wait_for()
        width = page.evaluate("[document.querySelector('main').scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        for button in page.get_by_role("button").all():
            if button.is_visible():
                assert button.bounding_box()["height"] >= 44
