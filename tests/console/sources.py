"""The page's JavaScript as its tests read it: which texts it uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

PAGE = ROOT / "inspector" / "console" / "page"

HOLE = "{}"
"""Stands in a template for an expression."""


def modules() -> list[Path]:
    """Every module of the page."""
    return sorted(PAGE.rglob("*.js"))


def strings(code: str) -> list[str]:
    """Every text literal of some JavaScript; of a template its text, with holes."""
    return list(_Scanner(code).strings(until=""))


class _Scanner:
    """Reads comments, regular expressions and nested templates for what they are."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._at = 0
        self._last = ""
        """The last character that was neither space nor comment."""

    def strings(self, until: str) -> Iterator[str]:
        """Those up to the closing bracket ``until``, or to the end."""
        depth = 0
        while self._at < len(self._code):
            here, two = self._code[self._at], self._code[self._at : self._at + 2]
            if two == "//":
                self._skip_past("\n")
                continue
            if two == "/*":
                self._skip_past("*/")
                continue
            if here in "\"'":
                yield self._quoted(here)
            elif here == "`":
                yield from self._template()
            elif here == "/" and self._last in set("(,=:[!&|?{};\n") | {""}:
                self._expression()
            else:
                if here == until and depth == 0:
                    return
                depth += (here == "{") - (here == "}")
                self._at += 1
            if not here.isspace():
                self._last = here

    def _skip_past(self, end: str) -> None:
        found = self._code.find(end, self._at)
        self._at = len(self._code) if found < 0 else found + len(end)

    def _quoted(self, quote: str) -> str:
        found = ""
        self._at += 1
        while (here := self._code[self._at]) != quote:
            if here == "\\":
                self._at += 1
                here = self._code[self._at]
            found += here
            self._at += 1
        self._at += 1
        return found

    def _template(self) -> Iterator[str]:
        found, self._at = "", self._at + 1
        while (here := self._code[self._at]) != "`":
            if self._code.startswith("${", self._at):
                self._at, self._last = self._at + 2, "{"
                yield from self.strings(until="}")
                found += HOLE
            elif here == "\\":
                self._at += 1
                found += self._code[self._at]
            else:
                found += here
            self._at += 1
        self._at += 1
        yield found

    def _expression(self) -> None:
        in_set = False
        self._at += 1
        while (here := self._code[self._at]) != "/" or in_set:
            in_set = here == "[" or (in_set and here != "]")
            self._at += 2 if here == "\\" else 1
        self._at += 1
