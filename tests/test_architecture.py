"""What the architecture and the decisions name is there."""

from __future__ import annotations

import re

import pytest

from tests.paths import ROOT

PAGES = [ROOT / "docs" / "architecture.md", *sorted(ROOT.glob("docs/decisions/*.md"))]
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(inspector|export|tests|docs|config)/[\w./-]*")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    named = {span for span in SPAN.findall(page.read_text()) if PATH.fullmatch(span)}
    missing = sorted(path for path in named if not (ROOT / path).exists())
    assert not missing


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_the_walks_name_functions_that_exist():
    text = PAGES[0].read_text()
    walks = text[text.index("## The walk of a frame") : text.index("## The bundle")]
    code = "\n".join(
        path.read_text()
        for wing in ("inspector", "export")
        for path in ROOT.glob(f"{wing}/**/*.py")
    )
    spans = {span for span in SPAN.findall(walks) if re.fullmatch(r"\w+(\.\w+)*", span)}
    names = {name for span in spans if not span.endswith(".py") for name in span.split(".")}
    assert len(names) > 40
    for name in sorted(names):
        assert re.search(rf'(def|class) {name}\b|"{name}"', code), name


def test_every_decision_has_its_form_and_stands_in_the_index():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    decisions = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text()
        title = re.match(r"# (\d+)\. (.+)\n\nStatus: (accepted|superseded by \[\d{4}\])", text)
        assert title is not None and int(title[1]) == int(path.name[:4]), path.name
        assert re.findall(r"^## (.+)$", text, re.M) == [
            "Decision",
            "Why",
            "What would change our mind",
        ], path.name
        assert f"| [{title[2]}]({path.name}) |" in index
