"""What stands in two languages says the same in both: headings, links, commands, tables."""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from inspector.console.texts import texts
from tests.console.test_texts import views
from tests.paths import ROOT

TWINS: Final = {"README.md": "README.zh-CN.md", "docs/operator.md": "docs/zh/operator.md"}
"""English pages, and the Chinese ones."""


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@dataclass
class Page:
    """What must be equal in both languages."""

    path: str
    headings: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    prose: str = ""
    shape: list[str] = field(default_factory=list)
    """Of each line how it begins, and how many cells it has; joined lines count once."""

    @classmethod
    def read(cls, path: str) -> Page:
        page, block, before = cls(path), None, ""
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                page.shape.append(line)
                if block is not None:
                    page.blocks.append(block)
                block = "" if block is None else None
                before = line
                continue
            if block is not None:
                # What follows the command is for people.
                block += re.sub(r"\s+# .*", "", line).rstrip() + "\n"
                continue
            if found := re.match(r"#+ ", line):
                page.headings.append(line[found.end() :])
                page.shape.append(found[0])
            elif line.startswith("|"):
                page.shape.append("|" * line.count("|"))
            elif found := re.match(r"\s*(\*|-|\d+\.) |<!--.*", line):
                page.shape.append(found[0])
            elif line and (not before or before.startswith("```")):
                page.shape.append("text")
            page.prose += line + "\n"
            before = line
        return page

    def links(self) -> list[str]:
        """Where its links lead, in a form that is equal in both languages."""
        return [self._where(link) for link in re.findall(r"\]\(([^)\s]+)\)", self.prose)]

    def _where(self, link: str) -> str:
        if link.startswith("https:"):
            return link
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), path))
        if not path:
            target = self.path
            anchor = str([slug(one) for one in self.headings].index(anchor))
        assert (ROOT / target).exists(), f"{self.path}: {link}"
        english = {chinese: name for name, chinese in TWINS.items()}
        # A picture of the page shows the page in the reader's language.
        target = target.replace("-zh.jpg", ".jpg")
        return f"{english.get(target, target)}#{anchor}"

    def spans(self) -> list[str]:
        """Commands, names of files and keys within the text."""
        return re.findall(r"`([^`\n]+)`", self.prose)


@pytest.mark.parametrize("english", TWINS)
def test_both_languages_say_the_same(english):
    first, second = Page.read(english), Page.read(TWINS[english])
    assert [len(one.headings) for one in (first, second)] > [0, 0]
    assert second.shape == first.shape
    assert second.links() == first.links()
    assert second.blocks == first.blocks
    assert sorted(second.spans()) == sorted(first.spans())
    bold = [len(re.findall(r"\*\*[^*]+\*\*", one.prose)) for one in (first, second)]
    assert bold[0] == bold[1]
    numbers = [sorted(re.findall(r"\d[\d.,]*\d|\d", one.prose)) for one in (first, second)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("english", TWINS)
def test_each_leads_to_the_other(english):
    for path in (english, TWINS[english]):
        assert f"{english}#" in Page.read(path).links()[:1]


@pytest.mark.parametrize("chinese", TWINS.values())
def test_chinese_paragraphs_are_one_line(chinese):
    """A line's end would be shown as a space, which Chinese does not have."""
    lines = (ROOT / chinese).read_text(encoding="utf-8").splitlines()
    own = re.compile(r"\s*$|#|\||```|<!--|\s*[*-] |\d+\. ")
    in_block = False
    for before, line in itertools.pairwise(lines):
        in_block ^= before.startswith("```")
        goes_on = before.strip() and not re.match(r"#|\||```|<!--", before)
        assert in_block or not (goes_on and not own.match(line)), line


@pytest.mark.parametrize(
    ("language", "path"), [("en", "docs/operator.md"), ("zh", "docs/zh/operator.md")]
)
def test_the_operators_page_uses_the_words_of_the_screen(language, path):
    text, words = Path(ROOT / path).read_text(encoding="utf-8"), texts()[language]
    for view in views():
        assert f"**{words[f'{view}.menu']}**" in text, view
    for verdict in ("PASS", "FAIL", "FAULT"):
        assert f"| {words[f'verdict.{verdict}']} |" in text


def test_what_differs_is_found(tmp_path, monkeypatch):
    """The comparison above can fail."""
    block = "```bash\nmake x  # now\n```\n\n"
    base = "# A\n\nRun `make x`, [see](#b-c).\n\n" + block + "## B, c\n\n* one **1**\n"
    same = "# 甲\n\n运行 `make x`，[见](#乙)。\n\n" + block + "## 乙\n\n* **1** 件\n"
    monkeypatch.setattr("tests.test_translations.ROOT", tmp_path)
    (tmp_path / "README.md").write_text(base, encoding="utf-8")

    def compare(text: str) -> None:
        (tmp_path / "README.zh-CN.md").write_text(text, encoding="utf-8")
        test_both_languages_say_the_same("README.md")

    compare(same)
    for old, new in (
        ("## 乙\n", "### 乙\n"),
        ("make x  #", "make y  #"),
        ("`make x`", "make x"),
        ("* **1**", "**1**"),
        ("(#乙)", "(#甲)"),
        ("**1**", "**2**"),
        ("```bash", "```"),
    ):
        with pytest.raises(AssertionError):
            compare(same.replace(old, new, 1))
