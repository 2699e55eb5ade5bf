"""Every route of the page: who may use it, and what comes of addresses and bodies made up."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor
from starlette.routing import Mount, Route

from inspector.config.console_file import ConsoleFile, TrainingTools
from inspector.config.console_users import ROLES
from inspector.console import deeds
from inspector.console.guard import Guard
from inspector.console.server import Console
from inspector.console.training import Training
from inspector.console.users import add_user
from tests import running
from tests.loops import in_a_loop

ANYBODY, VIEWER, OPERATOR, ENGINEER = "", *ROLES

STATION = "/api/stations/{station}"
WHO: dict[tuple[str, str], str] = {
    ("GET", "/"): ANYBODY,
    ("GET", "/static"): ANYBODY,
    ("GET", "/api/texts/{language}"): ANYBODY,
    ("POST", "/api/log-in"): ANYBODY,
    ("POST", "/api/log-out"): VIEWER,
    ("GET", "/api/session"): VIEWER,
    ("GET", "/api/events"): VIEWER,
    ("GET", f"{STATION}/history"): VIEWER,
    ("GET", f"{STATION}/history.csv"): VIEWER,
    ("GET", f"{STATION}/deeds"): VIEWER,
    ("GET", f"{STATION}/judging"): VIEWER,
    ("GET", f"{STATION}/scores/{{camera}}"): VIEWER,
    ("GET", f"{STATION}/thumbnails/{{epoch}}/{{seq}}"): VIEWER,
    ("GET", f"{STATION}/parts/{{epoch}}/{{seq}}/{{content}}"): VIEWER,
    ("GET", f"{STATION}/published/{{epoch}}/{{seq}}"): VIEWER,
    ("GET", f"{STATION}/preview/{{camera}}"): VIEWER,
    ("POST", f"{STATION}/deeds/mark"): OPERATOR,
    ("POST", f"{STATION}/deeds/acknowledge"): OPERATOR,
    ("POST", f"{STATION}/deeds/recipe"): OPERATOR,
    ("POST", f"{STATION}/deeds/start"): OPERATOR,
    ("POST", f"{STATION}/deeds/stop"): OPERATOR,
    ("POST", f"{STATION}/deeds/reset"): OPERATOR,
    ("POST", f"{STATION}/deeds/reload"): ENGINEER,
    ("POST", f"{STATION}/deeds/limit"): ENGINEER,
    ("POST", f"{STATION}/install"): ENGINEER,
    ("POST", f"{STATION}/install/pieces"): ENGINEER,
    ("POST", f"{STATION}/install/back"): ENGINEER,
    ("GET", f"{STATION}/jobs/{{kind}}"): VIEWER,
    ("POST", f"{STATION}/jobs/{{kind}}/cancel"): ENGINEER,
    ("GET", f"{STATION}/basket"): VIEWER,
    ("GET", f"{STATION}/basket/{{part}}/picture"): VIEWER,
    ("POST", f"{STATION}/basket/add"): OPERATOR,
    ("POST", f"{STATION}/basket/remove"): OPERATOR,
    ("GET", f"{STATION}/teach"): VIEWER,
    ("GET", f"{STATION}/teach/bundle"): ENGINEER,
    ("POST", f"{STATION}/teach/folder"): OPERATOR,
    ("POST", f"{STATION}/teach/start"): ENGINEER,
    ("POST", f"{STATION}/teach/use"): ENGINEER,
    ("POST", f"{STATION}/teach/back"): ENGINEER,
    ("GET", f"{STATION}/photos"): VIEWER,
    ("POST", f"{STATION}/photos"): ENGINEER,
    ("GET", f"{STATION}/photos/{{set}}"): VIEWER,
    ("GET", f"{STATION}/photos/{{set}}/picture/{{photo}}"): VIEWER,
    ("POST", f"{STATION}/photos/{{set}}/region"): ENGINEER,
    ("POST", f"{STATION}/photos/{{set}}/take"): ENGINEER,
    ("POST", f"{STATION}/photos/{{set}}/add"): ENGINEER,
    ("POST", f"{STATION}/photos/{{set}}/each"): ENGINEER,
    ("POST", f"{STATION}/photos/{{set}}/remove"): ENGINEER,
    ("POST", f"{STATION}/photos/{{set}}/train"): ENGINEER,
    ("GET", f"{STATION}/models"): VIEWER,
    ("GET", f"{STATION}/models/{{model}}/report"): VIEWER,
    ("GET", f"{STATION}/models/{{model}}/bundle"): ENGINEER,
    ("POST", f"{STATION}/models/{{model}}/use"): ENGINEER,
}
"""The least role that each takes. Whoever adds a route decides here whose it is."""

MANY = {"deeds/{deed}", "teach/{deed}"}
"""Routes that are several, by the word at the end."""


class Page:
    """The page as a whole in this process, with a user of each role and a station elsewhere."""

    def __init__(self, folder: Path) -> None:
        for role in ROLES:
            add_user(folder / "users.yaml", role, role, "correct horse")
        config = ConsoleFile(
            stations={"line-1": {}}, users=folder / "users.yaml", state=folder / "state"
        )
        self.console = Console(config, {"line-1": None})
        self.guard: Guard = self.console._guarded()

    @property
    def app(self) -> Starlette:
        app = self.guard._app
        assert isinstance(app, Starlette)
        return app

    def client(self, role: str = "") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.guard, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
        if role:
            sessions, user = self.guard._sessions, self.console._users.find(role)
            session = sessions.begin(role, user)
            client.cookies.set("inspector-8080", sessions.cookie(session), "127.0.0.1")
            client.headers["X-CSRF-Token"] = self.guard._tokens.of(session.id)
        return client


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    made = Page(tmp_path_factory.mktemp("page"))

    async def begin() -> None:
        # The thread of the photos is begun by the first question, and ends with the page.
        async with made.client("viewer") as client:
            assert (await client.get("/api/stations/line-1/photos")).status_code == 200

    in_a_loop(begin())
    yield made
    made.console._close()


def routes(app: Starlette) -> Iterator[tuple[str, str, Any]]:
    """Method, path without the kinds of its parameters, and the route itself."""
    for route in app.routes:
        assert isinstance(route, Route | Mount), route
        methods = route.methods if isinstance(route, Route) else {"GET"}
        for method in methods - {"HEAD"}:
            yield method, re.sub(r":\w+\}", "}", route.path), route


def test_every_route_is_somebodys(page):
    found = {(method, path) for method, path, _ in routes(page.app)}
    whole = {one for one in found if one[1].removeprefix(f"{STATION}/") not in MANY}
    for method, path in found - whole:
        head = path.partition("{deed}")[0]
        assert any(one[0] == method and one[1].startswith(head) for one in WHO)
    assert whole <= WHO.keys(), f"say in WHO whose these are: {whole - WHO.keys()}"
    told = {one[1].rsplit("/", 1)[1]: least for one, least in WHO.items() if "/deeds/" in one[1]}
    assert told == deeds._ROLES
    many = tuple(f"{STATION}/{one.partition('{')[0]}" for one in MANY)
    gone = {one for one in WHO.keys() - whole if not one[1].startswith(many)}
    assert not gone, f"there are no such routes: {gone}"


@pytest.mark.parametrize("role", [ANYBODY, *ROLES])
def test_who_may_use_a_route_and_who_not(page, role):
    """The station that they name is none, so that whoever may go on gets no farther."""
    values = {"station": "none", "language": "xx", "seq": "1", "set": "1", "model": "1"}

    async def ask(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
        address = re.sub(r"\{(\w+)\}", lambda one: values.get(one[1], "x"), path)
        query = {"size": 1, "offset": 0, "sha256": "0" * 64} if "pieces" in path else {}
        return await client.request(
            method, address, params=query, **({} if method == "GET" else {"content": b"{}"})
        )

    async def whole() -> None:
        async with page.client(role) as client:
            for (method, path), least in WHO.items():
                if (method, path) == ("GET", "/api/events") and role:
                    continue  # Its answer does not end.
                answer = await ask(client, method, path)
                found = answer.status_code
                told = f"{role or 'a stranger'}: {method} {path}: {found} {answer.text[:80]}"
                if least == ANYBODY:
                    assert found in {200, 307, 400, 404, 429}, told
                elif role == ANYBODY:
                    assert (found, answer.json()["code"]) == (401, "who"), told
                elif ROLES.index(role) < ROLES.index(least):
                    assert (found, answer.json()["code"]) == (403, "role"), told
                    assert answer.json()["detail"] == least
                elif path == "/api/log-out":
                    assert found == 200
                    break  # It is the last thing that this session does, and stands for all below.
                else:
                    assert found not in {401, 403, 405, 500}, told

    order = sorted(WHO, key=lambda one: one[1] == "/api/log-out")
    assert order[-1][1] == "/api/log-out"
    for key in order:
        WHO[key] = WHO.pop(key)
    in_a_loop(whole())


def test_a_number_in_an_address_has_no_thousand_digits(page):
    for _, path, route in routes(page.app):
        if isinstance(route, Route):
            kinds = route.param_convertors.values()
            assert not any(isinstance(one, IntegerConvertor) for one in kinds), path

    async def whole() -> None:
        ones = "1" * 5000
        async with page.client() as stranger, page.client("engineer") as client:
            for named in ("parts/e/{}/about", "photos/{}", "models/{}/report", "thumbnails/e/{}"):
                path = f"/api/stations/line-1/{named.format(ones)}"
                for one in (stranger, client):
                    assert (await one.get(path)).status_code == 404
            for path in (f"models?set={ones}", f"thumbnails/e/1?px={ones}", "models?set=-1"):
                answer = await client.get(f"/api/stations/line-1/{path}")
                assert (answer.status_code, answer.json()["code"]) == (400, "malformed")

    in_a_loop(whole())


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", "teach?recipe=r&camera=" + "c" * 65, None),
        ("POST", "teach/start", {"recipe": "r", "camera": "c" * 65}),
        ("GET", "thumbnails/e/1?px=0010000000", None),
        ("GET", "parts/" + "e" * 65 + "/1/about", None),
        ("POST", "basket/add", {"epoch": 1, "seq": 1}),
        ("POST", "basket/add", {"epoch": "\ud800", "seq": 1}),
        ("POST", "basket/remove", {"ids": ["1"] * 5000}),
        ("POST", "photos/1/train", {"pace": []}),
        ("POST", "photos/1/train", {"pace": {}}),
        ("POST", "install/pieces?size=1_0&offset=0&sha256=" + "0" * 64, {}),
        ("POST", "install/pieces?size=1&offset=0", {}),
    ],
)
def test_what_nobody_means_is_refused_before_a_station_is_asked(page, method, path, told):
    async def whole() -> None:
        async with page.client("engineer") as client:
            body = {} if told is None else {"content": json.dumps(told)}
            answer = await client.request(method, f"/api/stations/line-1/{path}", **body)
            assert (answer.status_code, answer.json()["code"]) == (400, "malformed")

    in_a_loop(whole())


@pytest.fixture(scope="module")
def line(tiny_line: running.Running) -> running.Running:
    return tiny_line


HOSTILE = (
    *("../../etc/passwd", "x" * 300, "\x00", "\x1b[2J\r\n", "\ud800"),
    *(None, True, -1, 10**40, float("nan"), [], {}),
)
FIELDS = {
    "deeds/mark": ("epoch", "seq", "label", "note"),
    "deeds/acknowledge": ("kind", "where"),
    "deeds/recipe": ("recipe", "take_over"),
    "deeds/limit": ("recipe", "camera", "limit_factor"),
    "install": ("recipe", "camera", "sha256"),
    "install/back": ("recipe", "camera", "sha256"),
    "basket/add": ("epoch", "seq"),
    "basket/remove": ("ids",),
    "teach/folder": ("recipe", "camera"),
    "teach/start": ("recipe", "camera"),
    "teach/use": ("job",),
    "teach/back": ("job",),
    "photos": ("camera",),
    "photos/1/region": ("region",),
    "photos/1/take": ("keep_all",),
    "photos/1/each": ("on", "goal"),
    "photos/1/remove": ("photo",),
    "photos/1/train": ("pace",),
    "models/1/use": ("recipe", "camera"),
}
"""What each deed is told."""


@pytest.mark.long
def test_no_address_and_no_body_breaks_the_page(page, served):
    """Every route, each of its parameters and fields with everything that it should not have."""
    with contextlib.ExitStack() as leave:
        client = leave.enter_context(httpx.Client(base_url=served.url, timeout=30))
        client.headers.update(served.client.headers)
        for method, path, _ in routes(page.app):
            if path in {"/api/events", "/static"} or "log-" in path:
                continue
            several = re.findall(r"\{deed\}", path) and [
                one[1].rsplit("/", 1)[1] for one in WHO if one[1].startswith(path[:-6])
            ]
            for deed in several or [""]:
                address = path.replace("{deed}", deed).replace("{station}", "line-1")
                for sent in addresses(address):
                    check(client.request(method, sent, content=b"{}" if method == "POST" else None))
        for path, fields in FIELDS.items():
            for field, value in itertools.product(fields, HOSTILE):
                told = {"recipe": "r", "camera": "top", "epoch": "e", "seq": 1, "label": "good"}
                body = json.dumps(told | {field: value}).encode("ascii")
                check(client.post(f"/api/stations/line-1/{path}", content=body))
        # It goes on as if nothing had been.
        assert client.get("/api/session").status_code == 200
    assert "Traceback" not in served.log, served.log


def addresses(path: str) -> Iterator[str]:
    names = re.findall(r"\{(\w+)\}", path)
    yield re.sub(r"\{\w+\}", "1", path)
    for name in names:
        for value in ("%00", "..%2f..", "x" * 300, "1" * 5000, "%ff", "%0d%0a", "%F0%9F%98%80"):
            one = path.replace(f"{{{name}}}", value)
            yield re.sub(r"\{\w+\}", "1", one)


def check(answer: httpx.Response) -> None:
    asked = answer.request
    assert answer.status_code != 500, (asked.method, asked.url, asked.content[:200], answer.text)


@pytest.mark.parametrize("told", ["[" * 100_000, '{"run": 5}', "[]", "\x00", '{"run": "/none"}'])
def test_a_damaged_note_of_a_model_is_as_none(tmp_path, told):
    sha256 = "0" * 64
    training = Training(TrainingTools(), tmp_path)
    training.remember(sha256, tmp_path)
    assert training.run_of("line-1", "r", "top", sha256) == tmp_path
    (tmp_path / "models" / f"{sha256}.json").write_text(told)
    assert training.run_of("line-1", "r", "top", sha256) is None
