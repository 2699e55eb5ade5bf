"""The guard before an application, in this process, with a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.config.console_file import ConsoleFile
from inspector.console import guard as guarding
from inspector.console.access import allowed, person, take_up_to
from inspector.console.app import Page, body
from inspector.console.door import Door
from inspector.console.guard import Guard
from inspector.console.hub import Hub
from inspector.console.server import Console
from inspector.console.sessions import Sessions, Store, Tokens
from inspector.console.users import Users, add_user
from inspector.logs import Refusals
from tests.loops import in_a_loop


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


async def see(request: Request) -> Response:
    return JSONResponse({"name": person(request).name})


async def do(request: Request) -> Response:
    return JSONResponse({"name": allowed(request, "operator").name, **await body(request)})


async def upload(request: Request) -> Response:
    allowed(request, "engineer")
    take_up_to(request, 5_000_000)
    return JSONResponse({"bytes": len(await request.body())})


async def fail(_: Request) -> Response:
    raise RuntimeError("with a secret in it")


ROUTES = (
    Route("/api/see", see),
    Route("/api/do", do, methods=["POST"]),
    Route("/api/upload", upload, methods=["POST"]),
    Route("/api/fail", fail),
)


class Guarded:
    def __init__(self, folder: Path) -> None:
        path = folder / "users.yaml"
        for name, role in (("wall", "viewer"), ("anna", "operator"), ("eve", "engineer")):
            add_user(path, name, role, "correct horse")
        self.clock = Clock()
        self.users = Users(path)
        store = Store(None)
        self.sessions = Sessions(self.users, store, hours=12, idle_minutes=60, clock=self.clock)
        self.tokens = Tokens(store.secret)
        config = ConsoleFile(stations={"line-1": {}})
        page = Page([], Hub(), ROUTES)
        self.app = Guard(page.app, config, self.sessions, self.tokens, Refusals("page"))

    def client(self, name: str = "") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
        user = self.users.find(name)
        if user is not None:
            session = self.sessions.begin(name, user)
            client.cookies.set("inspector-8080", self.sessions.cookie(session), "127.0.0.1")
            client.headers["X-CSRF-Token"] = self.tokens.of(session.id)
        return client


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory):
    made = Guarded(tmp_path_factory.mktemp("users"))
    yield made
    made.users.close()


def run(work: Callable[[], Any]) -> None:
    in_a_loop(work())


@pytest.mark.parametrize(("touched", "after"), [(True, 200), (False, 401)])
def test_only_somebody_who_is_there_keeps_a_session_alive(page, touched, after):
    here = {"X-Somebody-Here": "1"} if touched else {}

    async def whole() -> None:
        async with page.client("anna") as client:
            for _ in range(7):
                page.clock.now_s += 600
                last = await client.get("/api/see", headers=here)
                assert last.status_code in {200, after}
            assert last.status_code == after
            if touched:
                page.clock.now_s += 3000
                assert (await client.post("/api/do", json={})).status_code == 200
                page.clock.now_s += 3000
                assert (await client.get("/api/see")).status_code == 200

    run(whole)


def test_a_wall_screen_goes_on_showing(page):
    async def whole() -> None:
        async with page.client("wall") as client:
            page.clock.now_s += 11 * 3600
            assert (await client.get("/api/see")).status_code == 200

    run(whole)


def test_only_a_route_that_takes_more_gets_more_and_of_nobody_else(page):
    async def whole() -> None:
        big = b"x" * 3_000_000
        async with page.client("eve") as client:
            assert (await client.post("/api/upload", content=big)).json() == {"bytes": len(big)}
            answer = await client.post("/api/upload", content=big * 2)
            assert (answer.status_code, answer.headers["connection"]) == (413, "close")
            assert (await client.post("/api/do", content=big)).status_code == 413
        async with page.client("anna") as client:
            assert (await client.post("/api/upload", content=big)).status_code == 403

    run(whole)


def test_a_body_that_comes_too_slowly_is_refused(page, monkeypatch):
    monkeypatch.setattr(guarding, "_BODY_S", 0.3)
    monkeypatch.setattr(guarding, "_LINGER_S", 0.1)

    async def pieces():
        for _ in range(50):
            yield b" "
            await asyncio.sleep(0.05)

    async def whole() -> None:
        async with page.client("anna") as client:
            answer = await client.post("/api/do", content=pieces())
            assert (answer.status_code, answer.json()["code"]) == (408, "too_slow")

    run(whole)


def test_a_body_may_take_as_long_as_its_length_needs(page, monkeypatch):
    monkeypatch.setattr(guarding, "_BODY_S", 0.3)
    monkeypatch.setattr(guarding, "_BYTES_A_SECOND", 10_000)

    async def pieces():
        for _ in range(10):
            yield b"x" * 5_000
            await asyncio.sleep(0.1)

    async def whole() -> None:
        async with page.client("eve") as client:
            answer = await client.post("/api/upload", content=pieces())
            assert answer.json() == {"bytes": 50_000}

    run(whole)


def test_a_mistake_of_the_page_shows_no_words_of_its_own(page):
    async def whole() -> None:
        async with page.client("anna") as client:
            answer = await client.get("/api/fail")
            told = answer.json()
            assert (answer.status_code, told["code"]) == (500, "crash")
            assert "secret" not in answer.text
            assert answer.headers["x-content-type-options"] == "nosniff"

    run(whole)


def test_what_is_no_request_of_http_is_left_alone(page):
    async def whole() -> None:
        async def never(*_: Any) -> Any:
            raise AssertionError("it was answered")

        await page.app({"type": "websocket", "path": "/api/see"}, never, never)

    run(whole)


def test_a_page_whose_door_breaks_ends_and_is_started_anew(monkeypatch):
    async def broken(*_: Any) -> None:
        raise RuntimeError("the door is broken")

    monkeypatch.setattr(Door, "serve", broken)
    config = ConsoleFile(stations={"line-1": {}}, listen="127.0.0.1:0")

    async def whole() -> None:
        console = Console(config, {"line-1": None})
        with pytest.raises(RuntimeError, match="the door is broken"):
            await asyncio.wait_for(console.run(asyncio.Event()), 10)

    run(whole)


@pytest.mark.parametrize("path", ["/api/see", "/"])
def test_a_question_bears_no_body_and_no_endless_head(page, path):
    """Nothing would read it; where the answer is a stream, it would break that."""

    async def whole() -> None:
        async with page.client("wall") as client:
            answer = await client.request("GET", path, content=b"{}")
            assert (answer.status_code, answer.headers["connection"]) == (400, "close")
            answer = await client.get(path, headers={"X-Long": "x" * 17_000})
            assert answer.status_code == 431
            assert (await client.get(path, headers={"X-Long": "x" * 15_000})).status_code == 200

    run(whole)
