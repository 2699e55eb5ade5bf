"""The page needs nothing but its own server, and its policy forbids everything else."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from tests.console.serving import opened
from tests.console.sources import PAGE
from tests.console.test_texts import views

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


def test_no_source_of_the_page_names_another_place():
    named = re.compile(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"'`]*""", re.IGNORECASE)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    for path in PAGE.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert set(named.findall(text)) <= namespaces, path
            assert "@import" not in text and "@font-face" not in text, path


def test_no_module_makes_markup_from_text():
    ways = r"\.(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    for path in PAGE.rglob("*.js"):
        assert not re.search(ways, path.read_text(encoding="utf-8")), path


@pytest.mark.peers
def test_a_browser_asks_nobody_but_the_pages_server(served, chromium):
    asked: set[str] = set()
    with opened(chromium, "about:blank") as page:
        page.add_init_script(WATCH)
        page.on("request", lambda request: asked.add(request.url))
        page.on("websocket", lambda socket: asked.add(socket.url))
        answer = page.goto(served.url)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        for language in ("zh", "en"):
            page.locator("#view > *").first.wait_for()
            page.locator("#language").select_option(language)
            for view in views():
                page.locator(f"nav a[data-view={view}]").click()
                page.locator(f"#view[data-view={view}] > *").first.wait_for()
                page.wait_for_timeout(300)
        assert page.evaluate("window.violations") == []
        kept = page.evaluate("Object.keys(localStorage)")
        assert not [name for name in kept if "token" in name or "password" in name]
        workers = page.evaluate(
            "navigator.serviceWorker.getRegistrations().then((all) => all.length)"
        )
    ours = urlsplit(served.url)
    elsewhere = {
        url
        for url in asked
        if urlsplit(url).scheme not in {"blob", "data"}
        and (urlsplit(url).scheme, urlsplit(url).netloc) != (ours.scheme, ours.netloc)
    }
    assert elsewhere == set() and workers == 0
    assert any("/api/events" in url for url in asked)


@pytest.mark.peers
def test_the_policy_holds(served, chromium):
    """What the test above finds not to happen cannot happen."""
    with opened(chromium, served.url) as page:
        page.locator("#view > *").first.wait_for()
        page.evaluate(WATCH)
        page.evaluate("""async () => {
          const image = new Image();
          image.src = "http://127.0.0.2:9/x.png";
          document.body.append(image);
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          await fetch("http://127.0.0.2:9/").catch(() => {});
          await new Promise((go) => setTimeout(go, 300));
        }""")
        kinds = {one.split(":")[0] for one in page.evaluate("window.violations")}
        assert {"img-src", "script-src-elem", "connect-src"} <= kinds
        assert page.evaluate("window.ran") is None
        # The browser says each of them, which else fails a test.
        page.problems.clear()
