"""Text as it may be shown: without passwords, and without characters that act on a terminal.

What a part, a file or a camera is called comes from outside. Whatever shows such text, on a
terminal, in a table, in the log or to a spreadsheet, takes it through a function of this module.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import unquote

_STARS: Final = "***"

_SCHEME: Final = re.compile(r"(?:^|[\s=\"'])[A-Za-z][\w+.-]*$")
_URL: Final = re.compile(r"\s*[A-Za-z][\w+.-]*:[/\\]")
_NAME: Final = re.compile(r"""([\w.%~+-]+)["'\]]*\s*[=:]\s*""")
_SECRET: Final = re.compile(r"pass|pwd|pw|token|secret|credential|auth|key\d*$", re.IGNORECASE)
_SEGMENT: Final = re.compile(r"(?<=/)([^/?&=\s]+)/")
_SECRET_SEGMENT: Final = re.compile(
    r"(?:.*[_.-])?(?:pass(?:word|wd|phrase)?|pwd|pw|token|secret|auth|(?:\w*?)key)", re.IGNORECASE
)
_WORD: Final = re.compile(
    r"""(?:"(?:\\.|[^"\\])*(?:"|\\?$)|'(?:\\.|[^'\\])*(?:'|\\?$)|\\.|\\$|[^\s"'\\])+""", re.DOTALL
)
"""A word of a GStreamer pipeline; quotes, also unclosed ones, hold spaces together."""

_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")
_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


def plain(text: str, most: int = 0) -> str:
    r"""``text`` in one line, every character that is not printable as an escape such as ``\x1b``.

    Of more than ``most`` letters the first are taken; 0: all are.

    So it can neither begin a line of its own nor move a cursor, turn the direction of writing, or
    carry bytes that are not UTF-8.
    """
    line = text
    if not text.isprintable():
        line = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode()
            for letter in text
        )
    return f"{line[: most - 3]}..." if 0 < most < len(line) else line


def findable(program: str) -> str:
    """A program of this environment as a shell finds it.

    That is its name, or its path where PATH does not lead to it, as in a checkout whose environment
    is not activated.
    """
    beside = Path(sys.executable).parent / program
    if shutil.which(program) or not os.access(beside, os.X_OK):
        return program
    with contextlib.suppress(ValueError):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)


def no_formula(text: str) -> str:
    """``text`` for a cell of a CSV file, with an apostrophe where a spreadsheet would compute it.

    A number stays as it is. ``with_formula`` gives ``text`` back.
    """
    bare = text.lstrip("'")
    return f"'{text}" if bare.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def with_formula(text: str) -> str:
    """What ``no_formula`` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text


def cell(text: str) -> str:
    """``text`` for a cell that people read: no formula, and plain but for its ends of lines."""
    return "\n".join(map(plain, no_formula(text).split("\n")))


def masked(source: str) -> str:
    """A camera's source as it may be shown: three stars for each secret in it.

    A secret is what stands between ``://`` and the last ``@``, and the value of every key that is
    called pass, pwd, pw, password, token, secret, key, auth or alike, in a URL's query or path or
    in a GStreamer pipeline. Where it is not clear how far a secret reaches, more is masked.
    """
    spans = sorted(_secrets(source))
    shown, end = "", 0
    for start, stop in spans:
        if start > end or not shown:
            shown += source[end:start] + _STARS
        end = max(end, stop)
    return shown + source[end:]


def _secrets(source: str) -> Iterator[tuple[int, int]]:
    """Where secrets begin and end; the spans may overlap."""
    at = source.rfind("@")
    if at >= 0 and (colon := source.find(":", 0, at)) >= 0:
        # A password may hold all of these letters, so only the first colon can end a scheme.
        has_scheme = source.startswith("://", colon) and _SCHEME.search(source[:colon])
        yield colon + 3 if has_scheme else 0, at
    is_url = _URL.match(source) is not None
    words = [(0, len(source))] if is_url else [word.span() for word in _WORD.finditer(source)]
    for found in _NAME.finditer(source):
        if not _SECRET.search(unquote(found[1])):
            continue
        start, stop = next((span for span in words if span[0] <= found.start() < span[1]), (0, 0))
        if is_url:
            stop = source.find("&", found.end())
        elif found.start() == start and (value := _WORD.match(source, found.end())):
            stop = value.end()
        elif source[stop - 1] in "\"'":
            stop -= 1
        yield found.end(), stop if stop >= found.end() else len(source)
    for start, stop in words:
        for found in _SEGMENT.finditer(source, start, stop):
            if _SECRET_SEGMENT.fullmatch(unquote(found[1])):
                yield found.end(), stop


class Parser(argparse.ArgumentParser):
    """A parser of ``words`` whose complaints show none of their secrets."""

    def __init__(self, *args: Any, words: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self._words = {*words, *(word.partition("=")[2] for word in words)} - {""}

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and the usage, and end with 2."""
        for word in sorted(self._words, key=len, reverse=True):
            message = message.replace(word, masked(word))
        super().error(plain(message))
