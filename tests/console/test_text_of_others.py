"""Text of others acts on nothing around it: every view shows it by way of one function."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import pytest

from inspector.shown import plain
from tests.console import serving
from tests.console.hostile import saying
from tests.console.serving import opened
from tests.console.sources import PAGE, modules

AROUND: Final = re.compile(
    r"""\.(?:textContent|innerText|innerHTML|outerHTML|alt|title|ariaLabel)\s*\+?=(?!=)(?!\s*plain\()
    |createTextNode|insertAdjacent|fillText|\bnew\ (?:Option|Text)\b
    |setAttribute\("(?:aria-label|alt|title)\"""",
    re.VERBOSE,
)
"""Ways to show a text that do not go through dom.js."""

FORGED: Final = "p1\u202eSSAP\u2066\x1b[2J\nx\u200b"
SHOWN: Final = r"p1\u202eSSAP\u2066\x1b[2J\nx\u200b"
HEBREW: Final = "\u05d0\u05d1\u05d2 12"


def test_no_view_shows_a_text_past_the_one_function():
    for path in modules():
        if path.name not in ("dom.js", "shown.js"):
            found = AROUND.search(path.read_text(encoding="utf-8"))
            assert found is None, (path.name, found)
    shown = (PAGE / "dom.js").read_text(encoding="utf-8")
    assert len(re.findall(r"\bplain\b|\bpieces\b", shown)) >= 5
    assert "unicode-bidi: isolate" in (PAGE / "style.css").read_text(encoding="utf-8")


@pytest.fixture
def hostile() -> Iterator[dict[str, str]]:
    """A station whose parts, camera and words turn and hide what stands around them."""
    with saying(FORGED, lambda seq: FORGED if seq % 20 < 10 else HEBREW) as addresses:
        yield addresses


ACTING: Final = r"/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u"
LEFT_OVER: Final = f"""() => {{
  const seen = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {{
    if (walker.currentNode.parentElement.localName !== "pre") seen.push(walker.currentNode.data);
  }}
  for (const node of document.querySelectorAll("*")) {{
    for (const name of ["aria-label", "title", "alt", "placeholder"]) {{
      seen.push(node.getAttribute(name) ?? "");
    }}
  }}
  return seen.filter((one) => {ACTING}.test(one) || one.includes("\\ufdd0"));
}}"""


@pytest.mark.peers
def test_text_of_others_acts_on_nothing_in_any_view(hostile, chromium, tmp_path):
    with (
        serving.serving(tmp_path, {"line-1": hostile}) as served,
        opened(chromium, f"{served.url}#/line-1/line") as page,
    ):
        page.locator(".part_id bdi", has_text=SHOWN).wait_for()
        how = "getComputedStyle(document.querySelector('.part_id bdi')).unicodeBidi"
        assert page.evaluate(how) == "isolate"
        page.locator(".cameras b", has_text=SHOWN).wait_for()
        for view in ("history", "teach", "limit", "setup", "recipe", "deeds", "line"):
            page.locator(f"nav a[data-view={view}]").click()
            page.locator(f"#view[data-view={view}] > *").first.wait_for()
            page.wait_for_timeout(300)
            assert page.evaluate(LEFT_OVER) == []
        # What is written from right to left leaves the words behind it in their place.
        page.locator(".part_id bdi", has_text=HEBREW).wait_for()
        sentence = """async () => {
          const { el } = await import("/static/dom.js");
          const { text } = await import("/static/words.js");
          const made = el("p", {}, text("line.picture", { part: "\\u05d0\\u05d1 12" }));
          return [made.textContent, made.querySelector("bdi")?.textContent];
        }"""
        assert page.evaluate(sentence) == ["Picture of \u05d0\u05d1 12", "\u05d0\u05d1 12"]
        page.problems.clear()


@pytest.mark.peers
def test_the_page_escapes_what_a_terminal_escapes(served, chromium):
    """But not the wider spaces, which Chinese texts hold, nor what only one of both knows yet."""
    letters = [
        chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) not in ("Zs", "Cn")
    ]
    letters += ["\ufeff", "\ue000", "\ufdd0", "\U000e0001", "\u4e2d", "\U0001f600"]
    with opened(chromium, served.url) as page:
        shown = page.evaluate(
            """async (letters) => {
              const { plain } = await import("/static/shown.js");
              return letters.map(plain);
            }""",
            letters,
        )
    assert shown == [plain(letter) for letter in letters]
