"""A new model from the page: the file on its way, what is refused, and one step back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inspector.console import install
from inspector.console.access import Person, RefusedError
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for
from tests.loops import in_a_loop
from tests.station.test_install import LESSON, large

WHERE = "/api/stations/line-1/install"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    """A station on a simulated belt with a model that loads at once."""
    folder = tmp_path_factory.mktemp("line")
    bundle = tiny.write_bundle(folder / "own.onnx")
    recipes = {"flange": {"belt": {"bundle": str(bundle)}}}
    station = serving.write_demo_station(folder, recipes=recipes)
    with running.running(station) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ", 60)
        yield daemon


def model_of(served) -> tuple[str, bool]:
    """Version of the model that judges, and whether it was installed."""
    with served.client.stream("GET", "/api/events", timeout=20) as stream:
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: ") and kind == "status":
                (camera,) = json.loads(line[6:])["status"]["cameras"]
                return camera["model"]["version"], camera["installed"]
    raise AssertionError("no status")


def test_a_bundle_goes_by_in_pieces_and_judges(served, tmp_path):
    data = tiny.write_bundle(tmp_path / "new.onnx", version="77").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()

    def send(offset: int | str, piece: bytes, **changes: Any) -> httpx.Response:
        asked = {"sha256": sha256, "size": len(data), "offset": offset} | changes
        return served.client.post(f"{WHERE}/pieces", params=asked, content=piece)

    own, installed = model_of(served)
    assert not installed
    assert send(0, b"").json() == {"offset": 0}
    half = len(data) // 2
    there = 0
    while there < half:
        there = send(there, data[there : there + 7_000]).json()["offset"]
    # Whoever begins again hears where to go on.
    assert send(0, data[:1000]).json() == {"offset": there}
    told = {"recipe": "flange", "camera": "belt", "sha256": sha256}
    early = served.client.post(WHERE, json=told)
    assert (early.status_code, early.json()["code"]) == (409, "unknown")
    while there < len(data):
        there = send(there, data[there : there + 7_000]).json()["offset"]
    done = served.client.post(WHERE, json=told, timeout=60)
    assert done.status_code == 200, done.text
    assert done.json()["detail"].endswith(f"sha256 {sha256[:12]}")
    assert model_of(served) == ("77", True)
    found = served.client.post(f"{WHERE}/back", json=told | {"sha256": "0" * 64})
    assert (found.status_code, found.json()["code"]) == (409, "unknown")
    assert served.client.post(f"{WHERE}/back", json=told, timeout=60).status_code == 200
    assert model_of(served) == (own, False)
    for status, answer in (
        (413, send(0, bytes((1 << 20) + 1))),
        (400, send("first", b"x")),
        (409, send(0, b"x", sha256="../../etc/passwd")),
        (409, send(0, b"x", size=2**31)),
        (400, served.client.post(WHERE, json={"recipe": "flange", "camera": 7})),
        (404, served.client.post("/api/stations/none/install", json=told)),
    ):
        assert answer.status_code == status, answer.text
        assert "pydantic" not in answer.text


def test_it_takes_an_engineer():
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return JSONResponse({}, error.status)

    made = Starlette(routes=install.ROUTES, exception_handlers={RefusedError: refused})

    def app(who: Person | None):
        async def call(scope, receive, send):
            if scope["type"] == "http":
                scope.setdefault("state", {})["person"] = who
            await made(scope, receive, send)

        return call

    async def ask(who: Person | None) -> set[int]:
        transport = httpx.ASGITransport(app=app(who))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            paths = (WHERE, f"{WHERE}/pieces", f"{WHERE}/back")
            return {(await client.post(path, json={})).status_code for path in paths}

    assert in_a_loop(ask(None)) == {401}
    assert in_a_loop(ask(Person("v", "viewer"))) == {403}
    assert in_a_loop(ask(Person("o", "operator"))) == {403}


def panel(page: Any) -> Any:
    """The panel within the view of recipes."""
    page.get_by_role("link", name=re.compile("Recipe|配方")).click()
    found = page.locator("#install")
    found.locator(".now").wait_for()
    return found


def confirm(page: Any) -> str:
    """Say yes to what the page asks, and return the question."""
    dialog = page.locator("dialog[open]")
    question = str(dialog.inner_text())
    dialog.locator("#confirm").click()
    return question


@pytest.mark.peers
def test_an_engineer_installs_a_file_and_goes_back(served, chromium, tmp_path):
    lesson = LESSON | {"parts": 4}
    file = tiny.write_bundle(tmp_path / "taught.onnx", version="78", lineage=[lesson])
    own, _ = model_of(served)
    with opened(chromium, served.url) as page:
        found = panel(page)
        found.get_by_text("from the station's file").wait_for()
        assert found.locator("#install-start").is_disabled()
        assert found.locator("#install-back").is_disabled()
        found.locator("#install-file").set_input_files(file)
        found.get_by_role("button", name="Install").click()
        assert "by taught.onnx from its next part on?" in confirm(page)
        found.get_by_text("tiny 78").wait_for()
        done = "Camera belt: the next part is judged by the new model."
        page.locator("#said .done", has_text=done).wait_for()
        assert model_of(served) == ("78", True)
        found.get_by_role("button", name="Back to the model before").click()
        confirm(page)
        found.get_by_text("from the station's file").wait_for()
        page.locator("#said .done", has_text="by the model before").wait_for()
        assert model_of(served) == (own, False)
        # The log names models, and tells a lesson from any other model.
        page.get_by_role("link", name="Log").click()
        rows = page.locator("#view tbody tr")
        rows.filter(has_text="Model of before again").first.wait_for()
        told = rows.filter(has_text="Model installed, taught 4 good parts").first
        assert told.locator(".change").inner_text() == f"tiny {own} → tiny 78"
        panel(page)
        # A photo is refused in words, and what judges stays.
        (tmp_path / "photo.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        found.locator("#install-file").set_input_files(tmp_path / "photo.onnx")
        found.get_by_role("button", name="Install").click()
        confirm(page)
        page.locator("#said .problem", has_text="not a bundle").wait_for()
        assert model_of(served) == (own, False)
        page.problems[:] = [one for one in page.problems if "409" not in one]


@pytest.mark.peers
def test_a_server_that_is_gone_for_a_moment_is_waited_for(served, chromium, tmp_path):
    file = large(tmp_path / "taught.onnx", 2, version="79")
    own, _ = model_of(served)
    with opened(chromium, served.url) as page:
        found = panel(page)
        lost: list[str] = []

        def lose(route: Any) -> None:
            if len(lost) < 3 and "offset=0" not in route.request.url:
                lost.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        page.route("**/install/pieces**", lose)
        found.locator("#install-file").set_input_files(file)
        found.get_by_role("button", name="Install").click()
        confirm(page)
        found.get_by_text("Trying again").wait_for()
        found.get_by_text("tiny 79").wait_for()
        assert len(lost) == 3
        found.get_by_role("button", name="Back to the model before").click()
        confirm(page)
        wait_for(lambda: model_of(served) == (own, False))
        # A view that is left takes its panel along.
        page.locator("#said .done", has_text="by the model before").wait_for()
        page.get_by_role("link", name="Line").click()
        page.locator("#install").wait_for(state="detached")
        page.problems[:] = [one for one in page.problems if "Failed to load" not in one]


@pytest.mark.peers
@pytest.mark.parametrize(
    "size", [(1024, 600), (390, 844), (1920, 1080)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_the_panel_fits_each_screen_in_both_languages(served, chromium, tmp_path, size):
    file = tiny.write_bundle(tmp_path / "a-model-with-a-rather-long-name.onnx", version="80")
    for language in ("en", "zh-CN"):
        viewport = {"width": size[0], "height": size[1]}
        with opened(chromium, served.url, language=language, viewport=viewport) as page:
            found = panel(page)
            found.locator("#install-file").set_input_files(file)
            found.locator(".now", has_text="tiny 1").wait_for()
            for what in (page.locator("#view"), found):
                assert what.evaluate("(one) => one.scrollWidth <= one.clientWidth")
            # By a finger and by the keyboard alone.
            assert (found.locator(".file").bounding_box() or {})["height"] >= 44
            assert found.get_by_label(re.compile("Choose a file|选择文件")).count() == 1
            for button in found.locator("button").all():
                if button.is_visible():
                    assert (button.bounding_box() or {})["height"] >= 44
            words = found.inner_text()
            assert "install." not in words
