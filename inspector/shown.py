"""Text as it may be shown: without passwords, and without characters that act on a terminal.

What a part, a file or a camera is called comes from outside. Whatever shows such text, on a
terminal, in a table, in the log or to a spreadsheet, takes it through a function of this module.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import unquote

_STARS: Final = "***"

_SCHEME: Final = re.compile(r"(?:^|[\s=\"'])[A-Za-z][\w+.-]*$")
_URL: Final = re.compile(r"""\s*[^\s=!("']*[/\\.:?]""")
"""What begins an address or a path, which may hold spaces; a pipeline begins with a bare name."""
_NO_PORT: Final = re.compile(r"://([^/@\s\[:]*:(?!\d*(?:[/?#\s\"']|$)).*)")
"""A user and a password whose host was cut off, as YAML does it at " #"."""
_NAME: Final = re.compile(r"""([^ \t\r\n\f\v=:/?&;,#"'@]+)["']*\s*([=:])\s*""")
"""A key before its value, with the brackets of a list or of a table."""
_USER: Final = re.compile(
    r"(?:.*\W)?(?:admin\w*|root|user\w*|operator|viewer|service|guest)", re.IGNORECASE
)
"""Names behind which a colon and a password stand."""
_PORT: Final = re.compile(r"\d+(?=[/?#\s\"']|$)")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LETTERS: Final = re.compile(r"[^\W_]+")
_SECRET: Final = re.compile(
    r"""(?:
    .*(?:
      pass(?!ed|ing|ive|age|enger|thr)|(?<!u)p[as]*w(?:or)?d|token|secret|cred
      |auth(?!or(?!i[sz]))|signature|cookie|session|bearer|private|hmac|wsse|basic|licen[cs]e
      |kennwort|contrase|clave|senha|parola|haslo|heslo|wachtwoord|losenord|lösenord|adgangskode
      |salasana|jelsz|sifre|şifre|parool|пароль|密码|密碼|口令|パスワード|暗証|암호|비밀번호
    ).*
    |pw(?!m\d*$).*
    |.*(?:pw|pasw?|psk|sess(?:ion)?id|(?<!mon|don|tur|hoc|joc|his)key)
    |(?:user|access|admin|device|camera|login|pin|verif\w*|security)(?:code|pin|hash|sign|sig)
    |sess|psw|pin|t?otp|jwt|sid|sig|sign|sas|sk|mdp|code|hash|digest|nonce|ticket|login|wpa|md5|sha
    )(?:e?s)?\d*""",
    re.IGNORECASE | re.VERBOSE,
)
"""A word that makes a key's value a secret."""
_NO_SECRET: Final = frozenset(
    ("key", word) for word in ("int", "interval", "frame", "frames", "board", "color", "colour")
)
"""A word that tells of no secret with the word after it."""
_SEGMENT: Final = re.compile(r"(?<=/)(?<!:/)(?<!://)([^/?&=\s]+)/")
_REMOTE: Final = re.compile(
    r"""[A-Za-z][\w+.-]+:[/\\]
    |(?<![^\s="'])(?:[^\s/@]*@)?(?:[\w-]+(?:\.[\w-]+)+|[\w.-]+(?=:)|\[[\da-fA-F:.]+\])(?::\d+)?/""",
    re.VERBOSE,
)
"""What tells an address from a path of this machine, whose folders are no keys."""
_TYPE: Final = re.compile(r"\(\s*\w[\w:\s]*\)\s*")
"""The type that a GStreamer pipeline may give before a value."""
_WORD: Final = re.compile(
    r"""(?:"(?:\\.|[^"\\])*(?:"|\\?$)|'(?:\\.|[^'\\])*(?:'|\\?$)|\\.|\\$|[^\s"'\\])+""", re.DOTALL
)
"""A word of a GStreamer pipeline; quotes, also unclosed ones, hold spaces together."""

_ASCII_CODE: Final = re.compile(r"%([0-7][0-9A-Fa-f])")

_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")
_CELL: Final = re.compile(r"""(;["' \u00a0\u3000]*)(?=[=+@＝＋－＠-])""")
"""Where a spreadsheet whose list separator is the semicolon would begin a cell with a formula."""
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


def printable(name: str) -> str:
    """``name`` for a file of ours: ``_`` in the place of each character that is not printable."""
    return "".join(letter if letter.isprintable() else "_" for letter in name)


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


def cell(text: str) -> str:
    """``text`` for a cell of a CSV file that people read: plain, so that it begins no line.

    An apostrophe stands where a spreadsheet would compute it; a number stays as it is.
    """
    # Some spreadsheets leave out spaces before they look at a cell.
    begin = text.lstrip("'").lstrip(" \u00a0\u3000")
    if begin.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    # Opened by a double click, a spreadsheet of many countries divides lines at semicolons.
    return plain(_CELL.sub(r"\1'", text))


def masked(source: str) -> str:
    """A camera's source as it may be shown: three stars for each secret in it.

    A secret is what stands between ``://`` and the last ``@``, and the value of every key one of
    whose words is pass, pwd, pw, password, token, secret, key, auth, session or alike, in a URL's
    query or path or in a GStreamer pipeline, percent-encoded or not. Where it is not clear how far
    a secret reaches, more is masked. A folder of this machine is no key.
    """
    spans = sorted(_secrets(source))
    text, places = source, list(range(len(source) + 1))
    while (decoded := _decoded(text, places))[0] != text:
        text, places = decoded
        spans += [(places[start], places[stop]) for start, stop in _secrets(text)]
    spans.sort()
    shown, end = "", 0
    for start, stop in spans:
        if start > end or not shown:
            shown += source[end:start] + _STARS
        end = max(end, stop)
    return shown + source[end:]


def _decoded(text: str, places: list[int]) -> tuple[str, list[int]]:
    """``text`` with ASCII letters for their percent codes, and where each letter stood."""
    found, at, kept = "", 0, []
    while at < len(text):
        code = _ASCII_CODE.match(text, at)
        found += text[at] if code is None else chr(int(code[1], 16))
        kept.append(places[at])
        at += 1 if code is None else 3
    return found, [*kept, places[-1]]


def _is_secret(name: str, sign: str) -> bool:
    """True when a key of this name has a secret value, however its letters are disguised.

    A name is taken word for word: ``userAuthTokens[0]`` is "user", "auth", "tokens" and "0". Its
    value is secret if one of its words is, as it stands or with its humps. ``sign`` stands between
    the name and the value.
    """
    letters = unicodedata.normalize("NFKC", unquote(name))
    letters = "".join(one for one in letters if one.isprintable())
    parts = [one for one in _LETTERS.findall(letters) if not one.isdecimal()]
    words = [word.lower() for part in parts for word in _HUMP.split(part)]
    if sign == "=" and words and re.fullmatch(r"p\d*", words[-1]):
        return True
    told = [word for at, word in enumerate(words) if tuple(words[at : at + 2]) not in _NO_SECRET]
    # Humps may also stand where no word ends.
    return any(map(_SECRET.fullmatch, [*told, *(part for part in parts if _HUMP.search(part))]))


def _secrets(source: str) -> Iterator[tuple[int, int]]:
    """Where secrets begin and end; the spans may overlap."""
    at = source.rfind("@")
    if at >= 0 and (colon := source.find(":", 0, at)) >= 0:
        # A password may hold all of these letters, so only the first colon can end a scheme.
        has_scheme = source.startswith("://", colon) and _SCHEME.search(source[:colon])
        yield colon + 3 if has_scheme else 0, at
    elif found := _NO_PORT.search(source):
        yield found.span(1)
    is_url = _URL.match(source) is not None
    words = [(0, len(source))] if is_url else [word.span() for word in _WORD.finditer(source)]
    for found in _NAME.finditer(source):
        if not _has_secret_value(found):
            continue
        start, stop = next((span for span in words if span[0] <= found.start() < span[1]), (0, 0))
        if is_url:
            stop = source.find("&", found.end())
        else:
            kind = _TYPE.match(source, found.end())
            at = kind.end() if kind else found.end()
            is_whole = found.start() == start or at > stop
            if is_whole and (value := _WORD.match(source, at)):
                stop = value.end()
            elif source[stop - 1] in "\"'":
                stop -= 1
        yield found.end(), stop if stop >= found.end() else len(source)
    for start, stop in words:
        for found in _SEGMENT.finditer(source, start, stop):
            is_remote = _REMOTE.search(source, start, found.start())
            if is_remote and _is_secret(found[1], "/"):
                yield found.end(), stop


def _has_secret_value(found: re.Match[str]) -> bool:
    """True when the key ``found`` in a source has a secret value."""
    name, sign, source = found[1], found[2], found.string
    before, behind = source[: found.start()], source[found.end() :]
    if sign == ":" and before.endswith("://") and _PORT.match(behind):
        return False
    # What stands before an address, and ends with "@", is no such pair.
    is_inside = before.endswith("/") and not before.endswith((":/", "://"))
    if sign == ":" and _USER.fullmatch(name) and (is_inside or "@" not in behind):
        return True
    # The id of an SRT stream names user, session and key, in one of several syntaxes.
    is_srt = re.search(r"(?i)stream_?id$", name) and re.search(r"(?i)\bsrt", source)
    return is_srt is not None or _is_secret(name, sign)


def complaint(message: str, words: Iterable[str]) -> str:
    """``message`` in one line, as it may be shown, without the secrets in typed ``words``.

    A camera's source that was typed where a path belongs comes back in a complaint as that path.
    """
    given = [(word, word.partition("=")[2], word[2:] * word.startswith("-")) for word in words]
    said: dict[str, str] = {}
    hidden: list[str] = []
    for word in {*itertools.chain(*given)} - {""}:
        said |= {form: masked(form) for form in (word, str(Path(word)))}
        name = Path(word).name
        if masked(name) in said[word]:
            said.setdefault(name, masked(name))
        else:
            # What stood behind a key does not look like a secret without it.
            hidden.append(rf"(?<!\w){re.escape(name)}(?!\w)")
    for form in sorted(filter(None, said), key=len, reverse=True):
        message = message.replace(form, said[form])
    for pattern in hidden:
        message = re.sub(pattern, _STARS, message)
    return plain(message)


class Parser(argparse.ArgumentParser):
    """A parser of ``words`` whose complaints show none of their secrets."""

    def __init__(self, *args: Any, words: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self._words = words

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and the usage, and end with 2."""
        super().error(complaint(message, self._words))
