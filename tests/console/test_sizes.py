"""Every view on a touch panel, a phone and a wall screen, in every language, for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests import running
from tests.console import serving
from tests.console.serving import opened
from tests.console.test_texts import views
from tests.stations import free_ports

pytestmark = pytest.mark.peers

SIZES: Final = {"panel": (1024, 600), "phone": (390, 844), "wall": (1920, 1080)}
LANGUAGES: Final = {"en": "en", "zh": "zh-CN"}
TARGET_PX: Final = 44

MAIN: Final = {
    "line": "main .banner",
    "history": "main .parts",
    "teach": "main .teach-basket",
    "limit": "main #apply",
    "setup": "main .steps",
    "recipe": "main .recipes",
    "deeds": "main .found",
}
"""What of each view is seen without scrolling on a touch panel and a wall screen."""

VISIBLE: Final = "{ visibilityProperty: true, opacityProperty: true }"

OUTSIDE: Final = """() => {
  const wide = document.documentElement.clientWidth;
  const scrolls = (node) => {
    for (let one = node.parentElement; one && one !== document.body; one = one.parentElement) {
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(one).overflowX)) {
        if (one.id !== "view") return true;
      }
    }
    return false;
  };
  const view = document.querySelector("#view");
  const found = [];
  if (document.documentElement.scrollWidth > wide) found.push("the page scrolls sideways");
  if (view.scrollWidth > view.clientWidth) found.push("the view scrolls sideways");
  for (const node of document.body.querySelectorAll("*")) {
    const box = node.getBoundingClientRect();
    if (box.width <= 1 || box.height <= 1 || !node.checkVisibility(VISIBLE)) continue;
    if ( node.matches(".skip, .skip *") || scrolls(node)) continue;
    if (box.right > wide + 1 || box.left < -1) {
      found.push(`${node.outerHTML.slice(0, 100)}: ${box.left} to ${box.right}`);
    }
  }
  return found;
}""".replace("VISIBLE", VISIBLE)
"""What one must scroll sideways to see; what scrolls within itself is left out."""

SMALL: Final = """(least) => {
  const wanted = "a[href], button, input, select, textarea, summary, " +
    "[role=button], [role=slider], [role=checkbox], [role=tab], [role=option]";
  const found = [];
  for (const node of document.querySelectorAll(wanted)) {
    const isSmall = node.matches("[type=checkbox], [type=radio], [type=range]");
    const target = (isSmall && node.closest("label")) || node;
    const box = target.getBoundingClientRect();
    const seen = box.width > 1 && box.height > 1 && target.checkVisibility(VISIBLE);
    // A link within a sentence is as high as its line, everywhere.
    const inline = node.tagName === "A" && node.closest("p, li, td, dd");
    if (!seen || inline || node.matches(".skip, [type=hidden], [type=file]")) continue;
    if (box.width < least - 0.5 || box.height < least - 0.5) {
      found.push(`${target.outerHTML.slice(0, 120)}: ${box.width} by ${box.height}`);
    }
  }
  return found;
}""".replace("VISIBLE", VISIBLE)
"""Controls that a finger misses."""


BARE: Final = """() => {
  const found = [];
  const look = (text) => {
    const bare = text.trim();
    if (/^[a-z_]+(\\.[a-z_]+)+$/i.test(bare) || /\\{\\w+\\}/.test(bare)) found.push(bare);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) look(walker.currentNode.data);
  for (const name of ["aria-label", "title", "placeholder", "alt"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) look(node.getAttribute(name));
  }
  return found;
}"""
"""Keys of texts that are missing, and places of values that were not given."""


STYLED: Final = """() => [...document.styleSheets]
  .filter((sheet) => sheet.media.length === 0 || matchMedia(sheet.media.mediaText).matches)
  .map((sheet) => /views\\/(\\w+)\\.css/.exec(sheet.href)?.[1])
  .filter((view) => view)"""
"""The views whose styles are in force."""


@pytest.fixture(scope="module")
def axe() -> Any:
    """Finds what keeps people from using a page; skips without the package."""
    return pytest.importorskip("axe_playwright_python.sync_playwright").Axe()


@pytest.fixture(scope="module")
def served(
    line: running.Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.Served]:
    """The page with a folder of its own, so that every view has all of its controls."""
    folder = tmp_path_factory.mktemp("console")
    stations = {"line-1": serving.addresses(line)}
    with serving.serving(folder, stations, state=str(folder / "state")) as made:
        yield made


def shown(page: Any, view: str) -> None:
    """Go to a view as the menu does, and wait until it is there and has settled."""
    page.evaluate("(view) => { location.hash = `#/line-1/${view}`; }", view)
    page.locator(f"#view[data-view={view}]").wait_for()
    page.locator(MAIN[view]).first.wait_for(timeout=15_000)
    page.wait_for_timeout(500)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits(served, chromium, size, language):
    width, height = SIZES[size]
    options = {"viewport": {"width": width, "height": height}, "has_touch": size != "wall"}
    problems = {}
    with opened(chromium, served.url, language=LANGUAGES[language], **options) as page:
        page.locator("#view > *").first.wait_for()
        for view in views():
            shown(page, view)
            if outside := page.evaluate(OUTSIDE):
                problems[view, "outside"] = outside
            if small := page.evaluate(SMALL, TARGET_PX):
                problems[view, "small"] = small
            assert page.evaluate(STYLED) == [view]
            if bare := page.evaluate(BARE):
                problems[view, "bare"] = bare
            # A view that is drawn anew at this moment has none for an instant.
            box = serving.wait_for(page.locator(MAIN[view]).first.bounding_box, 5)
            if size != "phone" and box["y"] + min(box["height"], TARGET_PX) > height:
                problems[view, "main"] = [str(box)]
            assert page.locator("nav a[aria-current=page]").get_attribute("data-view") == view
    assert problems == {}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", ["panel", "phone"])
def test_axe_finds_nothing(served, chromium, axe, size, language):
    width, height = SIZES[size]
    options = {"viewport": {"width": width, "height": height}}
    problems = {}
    with opened(chromium, served.url, language=LANGUAGES[language], **options) as page:
        page.locator("#view > *").first.wait_for()
        for view in views():
            shown(page, view)
            for found in axe.run(page).response["violations"]:
                problems[view, found["id"]] = [node["html"][:160] for node in found["nodes"]][:4]
    assert problems == {}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_the_view_of_all_stations_fits(line, tmp_path, chromium, axe, size, language):
    width, height = SIZES[size]
    sockets = ("verdicts", "images", "commands", "queries")
    away = dict(zip(sockets, free_ports(4), strict=True))
    named = {"line-1": serving.addresses(line), "x" * 48: away}
    with (
        serving.serving(tmp_path, named) as made,
        opened(
            chromium,
            f"{made.url}#/line-1/stations",
            language=LANGUAGES[language],
            viewport={"width": width, "height": height},
        ) as page,
    ):
        page.locator("[data-verdict]:not([data-verdict='']) canvas").first.wait_for()
        page.locator("[data-state=stop] .wrong:not([hidden])").wait_for()
        assert page.evaluate(STYLED) == ["stations"]
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(SMALL, TARGET_PX) == []
        assert page.evaluate(BARE) == []
        assert [one["id"] for one in axe.run(page).response["violations"]] == []


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_in_what_opens(served, chromium, axe, size):
    """Parts, questions, warnings and steps that stand there only once somebody asked for them."""
    width, height = SIZES[size]
    options = {"viewport": {"width": width, "height": height}}
    problems = {}
    with opened(chromium, served.url, language=LANGUAGES["en"], **options) as page:
        page.locator("#view > *").first.wait_for()

        def look(name: str) -> None:
            page.wait_for_timeout(300)
            for found in axe.run(page).response["violations"]:
                problems[name, found["id"]] = [node["html"][:160] for node in found["nodes"]][:4]

        def close() -> None:
            page.keyboard.press("Escape")
            page.locator("dialog[open]").wait_for(state="detached")

        shown(page, "line")
        page.locator(".strip li button").first.click()
        page.get_by_text("Earlier part of").wait_for()
        look("an earlier part")
        page.get_by_role("button", name="Stop judging").click()
        look("a question")
        close()
        shown(page, "history")
        page.get_by_role("button", name="More", exact=True).click()
        page.locator(".row").first.click()
        look("a part")
        page.get_by_role("button", name="Compare").click()
        page.locator(".row").nth(1).click()
        page.locator(".pane figcaption").nth(1).wait_for()
        look("two parts")
        shown(page, "teach")
        page.get_by_role("button", name="Last rejects").click()
        page.locator(".tile .look").first.click()
        look("a part to teach")
        close()
        shown(page, "limit")
        page.locator("#view .limit:not([hidden]) svg.histogram .before").wait_for()
        page.get_by_role("slider", name="Limit").press("Home")
        page.get_by_role("button", name="Show them").click()
        page.locator(".strip .part").first.wait_for()
        look("another limit")
        page.locator(".strip .part").first.click()
        look("a part at the limit")
        close()
        shown(page, "setup")
        for step in ("region", "photos", "train", "use"):
            page.locator(f".steps [data-step={step}]").click()
            look(step)
    assert problems == {}


def test_the_language_is_switched_at_any_time(served, chromium):
    with opened(chromium, served.url) as page:
        page.get_by_role("link", name="History").click()
        page.locator("#view[data-view=history]").wait_for()
        page.locator("#language").select_option("zh")
        page.get_by_role("link", name="历史").wait_for()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        assert page.locator("#view").get_attribute("data-view") == "history"
        assert page.evaluate("document.activeElement.id") == "language"
        page.reload()
        page.get_by_role("link", name="历史").wait_for()
        page.locator("#language").select_option("en")
        page.get_by_role("link", name="History").wait_for()
        assert page.evaluate("document.documentElement.lang") == "en-GB"
        assert page.title() == "History – line-1"


@pytest.mark.parametrize("size", ["panel", "phone"])
def test_the_language_is_switched_before_the_log_in(served, chromium, axe, size):
    width, height = SIZES[size]
    with opened(chromium, served.url, viewport={"width": width, "height": height}) as page:
        page.locator("#view > *").first.wait_for()
        # The session ends at once, as after a restart of the page's server.
        told = {"status": 401, "json": {"code": "who", "detail": ""}}
        page.route("**/api/session", lambda route: route.fulfill(**told))
        page.evaluate('document.dispatchEvent(new Event("logged-out"))')
        page.get_by_role("button", name="Log in").wait_for()
        page.locator("#language").select_option("zh")
        page.get_by_role("button", name="登录").wait_for()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        assert page.title().startswith("登录")
        assert page.evaluate(SMALL, TARGET_PX) == []
        assert [one["id"] for one in axe.run(page).response["violations"]] == []
        page.get_by_label("用户名").fill("li")
        page.unroute("**/api/session")
        # The browser says of each refusal that it was one.
        assert all("401" in problem for problem in page.problems)
        page.problems.clear()


def test_times_and_numbers_are_the_readers(served, chromium):
    written = """async () => {
      const { moment, number } = await import("/static/words.js");
      return [moment(1714521600000000), number(12345.678, 1), number(null)];
    }"""
    for language, expected in (
        ("en", ["01/05/2024, 00:00:00", "12,345.7", "–"]),
        ("zh-CN", ["2024/05/01 00:00:00", "12,345.7", "–"]),
    ):
        with opened(chromium, served.url, language=language, timezone_id="UTC") as page:
            page.locator("#view > *").first.wait_for()
            assert page.evaluate(written) == expected


def test_the_keyboard_reaches_the_content(served, chromium):
    with opened(chromium, f"{served.url}#/line-1/history") as page:
        page.locator("#view[data-view=history] > *").first.wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "view"
        assert page.url.endswith("#/line-1/history")
