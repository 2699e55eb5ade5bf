"""Logging in, in a real browser, at a page with a certificate and users."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.console.certificate import make_certificate
from inspector.console.users import add_user, remove_user
from tests import running
from tests.console.serving import Served, addresses, opened, serving, wait_for

pytestmark = pytest.mark.peers

WORD = "correct horse"
REFUSALS = ("401", "403", "429")
"""Chromium's console names each answer of these kinds, which is what these tests are about."""


@pytest.fixture(scope="module")
def line(tiny_line: running.Running) -> running.Running:
    return tiny_line


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.yaml"
    for name, role in (("wall", "viewer"), ("anna", "operator"), ("王伟", "engineer")):
        add_user(path, name, role, WORD)
    return path


@pytest.fixture(scope="module")
def safe(line, users: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("safe")
    certificate, key = make_certificate(folder, "console", ["localhost", "127.0.0.1"])
    tls = {"certificate": str(certificate), "key": str(key)}
    with serving(folder, {"line-1": addresses(line)}, tls=tls, users=str(users)) as made:
        yield made


@contextlib.contextmanager
def page_of(chromium: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page; what Chromium says of refused requests is no problem here."""
    with opened(chromium, url, **options) as page:
        yield page
        page.problems[:] = [
            one for one in page.problems if not any(code in one for code in REFUSALS)
        ]


def fill(page: Any, name: str, password: str, *, labels: tuple[str, ...]) -> None:
    page.get_by_label(labels[0], exact=True).fill(name)
    page.get_by_label(labels[1], exact=True).fill(password)
    page.get_by_role("button", name=labels[2], exact=True).click()


ENGLISH = ("Name", "Password", "Log in")
CHINESE = ("用户名", "密码", "登录")


def test_somebody_logs_in_and_out(safe, chromium):
    assert safe.url.startswith("https://")
    with page_of(chromium, safe.url + "#/line-1/history") as page:
        fill(page, "anna", "not the password", labels=ENGLISH)
        page.get_by_role("alert").filter(has_text="Wrong name or password").wait_for()
        assert page.get_by_label("Password", exact=True).input_value() == ""
        # Who typed it wrong types on.
        page.keyboard.type(WORD)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="History").wait_for()
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        assert cookie["name"].startswith("__Host-")
        assert page.evaluate("document.cookie") == ""
        assert WORD not in page.url
        page.reload()
        page.get_by_role("button", name="anna").click()
        page.get_by_role("button", name="Log in").wait_for()
        assert page.context.cookies() == []
        page.reload()
        page.get_by_role("button", name="Log in").wait_for()
    assert WORD not in safe.log and "not the password" not in safe.log


def test_the_form_speaks_chinese_and_may_be_switched(safe, chromium):
    with page_of(chromium, safe.url, language="zh-CN") as page:
        fill(page, "王伟", "不是密码不是密码", labels=CHINESE)
        page.get_by_role("alert").filter(has_text="用户名或密码错误").wait_for()
        page.get_by_role("combobox").select_option("en")
        page.get_by_role("button", name="Log in").wait_for()
        fill(page, "王伟", WORD, labels=ENGLISH)
        page.get_by_role("button", name="王伟").wait_for()


def test_who_tries_too_often_is_told_how_long_to_wait(safe, chromium):
    with page_of(chromium, safe.url) as page:
        for _ in range(6):
            fill(page, "nobody", "not the password", labels=ENGLISH)
            page.get_by_role("alert").filter(has_text="o").wait_for()
            if "Too many tries" in page.get_by_role("alert").inner_text():
                break
        assert " s)" in page.get_by_role("alert").inner_text()


def test_a_removed_user_is_back_at_the_form_by_themselves(safe, users, chromium):
    add_user(users, "bo", "operator", WORD)
    wait_for(lambda: "users known=4" in safe.log)
    with page_of(chromium, safe.url) as page:
        fill(page, "bo", WORD, labels=ENGLISH)
        page.get_by_role("button", name="bo").wait_for()
        remove_user(users, "bo")
        page.get_by_role("button", name="Log in").wait_for(timeout=30_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(1500)
        assert len(asked) < 5, "it asks again and again"


def test_a_deed_of_an_open_page_is_done_after_the_server_was_started_anew(line, chromium, tmp_path):
    """Its token is another one then; nobody has to load the page again for that."""
    with serving(tmp_path, {"line-1": addresses(line)}) as first:
        port = int(first.url.rsplit(":", 1)[1].strip("/"))
    listen = f"127.0.0.1:{port}"
    with contextlib.ExitStack() as leave:
        with serving(tmp_path, {"line-1": addresses(line)}, listen=listen) as first:
            page = leave.enter_context(opened(chromium, first.url))
            page.get_by_role("link", name="History").wait_for()
        with serving(tmp_path, {"line-1": addresses(line)}, listen=listen):
            told = page.evaluate(
                """async () => {
                  const { get, post } = await import("/static/api.js");
                  const { verdict } = (await get("/api/stations/line-1/history", { limit: 1 }))
                    .entries[0];
                  const told = { epoch: verdict.epoch, seq: verdict.seq, label: "good" };
                  return post("/api/stations/line-1/deeds/mark", told);
                }"""
            )
            assert told == {"detail": ""}
            page.problems.clear()


@pytest.mark.parametrize("size", [(1024, 600), (390, 844), (1920, 1080)])
def test_the_form_fits_the_screen(safe, chromium, size):
    viewport = {"width": size[0], "height": size[1]}
    with page_of(chromium, safe.url, viewport=viewport) as page:
        page.get_by_role("button", name="Log in").wait_for()
        for control in ("input", "button", "select"):
            for found in page.locator(control).all():
                box = found.bounding_box()
                assert box["height"] >= 44 and box["x"] >= 0
                assert box["x"] + box["width"] <= size[0] and box["y"] + box["height"] <= size[1]
