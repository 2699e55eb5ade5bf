"""Every word of the page stands in one table, in every language, and none stands there in vain."""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from typing import Final, get_args

import pytest

from inspector.console.texts import LANGUAGES, texts
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import (
    DeedKind,
    MarkLabel,
    ObstacleKind,
    Outcome,
    RefusalCause,
    RefusalCode,
    State,
)
from tests.console.sources import HOLE, PAGE, modules, strings
from tests.paths import ROOT

TABLE: Final = PAGE / "texts.csv"
SORT: Final = (
    f"F={TABLE.relative_to(ROOT)}; (sed -n 1p $F; sed 1d $F | LC_ALL=C sort -u) > texts.new; "
    "mv texts.new $F"
)
KEY: Final = re.compile(r"[a-z][a-z_]*(\.\w+)+")
FILE: Final = re.compile(r"\.(js|css|csv|json|yaml|png|jpg|svg|html|onnx|log|zip|txt|md)$")


def views() -> list[str]:
    """The views of the menu, in its order."""
    found = re.search(r"const VIEWS = \[(.*?)\]", (PAGE / "main.js").read_text(), re.DOTALL)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def codes() -> set[str]:
    """Why the page's server refuses something, as its sources and those of the station say."""
    found = {*get_args(RefusalCode), "no_page", "no_answer", "other"}
    for path in (ROOT / "inspector" / "console").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'RefusedError\(\s*\d+,\s*"(\w+)"', source))
        found |= set(re.findall(r'_refused\(scope, \d+, "(\w+)"', source))
        found |= set(re.findall(r'"code": ?"(\w+)"', source))
    return found


WIRE: Final[dict[str, set[str]]] = {
    "state": set(get_args(State)),
    "verdict": {one.value for one in Verdict},
    "reason": {one.value for one in Reason if one.value},
    "deed": set(get_args(DeedKind)),
    "mark": set(get_args(MarkLabel)),
    "outcome": set(get_args(Outcome)),
    "cause": set(get_args(RefusalCause)),
    "obstacle": set(get_args(ObstacleKind)),
}
"""What stations say in identifiers, for which the page has words."""

VALUES: Final[dict[str, set[str]]] = {
    "error.{}": codes(),
    "reason.{}.do": WIRE["reason"],
    "{}.menu": {*views(), "stations"},
    **{f"{name}.{{}}": values for name, values in WIRE.items()},
}
"""What the holes of templates stand for; those of others, for words of the page and its server."""


@functools.cache
def rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def literals() -> dict[str, list[str]]:
    """The text literals of each module, without the names under which a browser keeps things."""
    kept = re.compile(r"localStorage\.\w+\([^,)]*")
    return {
        path.relative_to(PAGE).as_posix(): strings(kept.sub("(", path.read_text(encoding="utf-8")))
        for path in modules()
    }


@functools.cache
def templates() -> dict[str, str]:
    """The templates of keys, and a module that has each."""
    blocks = {row["key"].split(".")[0] for row in rows()} | {HOLE}
    return {
        one: name
        for name, found in literals().items()
        for one in found
        if re.fullmatch(r"[\w{}]+(\.[\w{}]+)+", one)
        and HOLE in one
        and one.split(".")[0] in blocks
        and not FILE.search(one)
        and one != f"{HOLE}.{HOLE}"
    }


def fitting(template: str) -> dict[str, str]:
    """What stands for the hole in each key of the table that fits a template with one hole."""
    pattern = re.compile(r"([\w.]+)".join(map(re.escape, template.split(HOLE))))
    found = {row["key"]: pattern.fullmatch(row["key"]) for row in rows()}
    return {key: match[1] for key, match in found.items() if match}


@functools.cache
def words() -> set[str]:
    """What a template's hole may stand for: what the code of page, stations and training says."""
    found = {one for texts_of in literals().values() for one in texts_of}
    for path in modules():
        found |= set(re.findall(r"(\w+)\s*:", path.read_text(encoding="utf-8")))
    for folder in ("inspector", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            said = re.findall(r'"([^"\n]+)"', path.read_text(encoding="utf-8"))
            # A sentence becomes a key with low lines for its spaces.
            found |= set(said) | {re.sub(r"\W+", "_", one.lower()) for one in said}
    return found


@functools.cache
def used() -> dict[str, set[str]]:
    """The keys that the page uses, and where."""
    blocks = {row["key"].split(".")[0] for row in rows()}
    found: dict[str, set[str]] = {}
    for name, texts_of in literals().items():
        for one in texts_of:
            if one in VALUES:
                keys = {one.replace(HOLE, value) for value in VALUES[one]}
            elif one in templates():
                keys = {key for key, value in fitting(one).items() if value in words()}
            else:
                is_key = KEY.fullmatch(one) and one.split(".")[0] in blocks
                keys = {one} if is_key and not FILE.search(one) else set()
            for key in keys:
                found.setdefault(key, set()).add(name)
    return found


def test_every_text_that_the_page_uses_is_there():
    there = {row["key"] for row in rows()}
    assert {key: where for key, where in used().items() if key not in there} == {}


def test_no_text_is_there_in_vain():
    assert {row["key"] for row in rows()} - used().keys() == set()


def test_what_stations_say_has_words_wherever_it_is_told():
    for template, name in templates().items():
        assert template.count(HOLE) == 1, (name, template, "two holes: nobody can look it up")
        found = set(fitting(template).values())
        assert found, (name, template, "no text fits")
        if template not in VALUES:
            for values in WIRE.values():
                is_most = found < values and len(found) > len(values) / 2
                assert not is_most, (name, template, values - found)


def test_every_key_of_a_call_is_a_text():
    """A misspelt block is no block, so that only the call shows that a key was meant."""
    there = {row["key"] for row in rows()}
    missing = {
        (path.name, key)
        for path in modules()
        for key in re.findall(r"""\b(?:text|has)\(\s*["']([^"']*)["']""", path.read_text())
        if key not in there
    }
    assert missing == set()


def test_texts_with_values_are_given_them():
    """A text without its values would show {count}."""
    named = {row["key"] for row in rows() if re.search(r"\{\w+\}", row["en"])}
    for path in modules():
        source = path.read_text(encoding="utf-8")
        for key, end in re.findall(r"""\btext\(\s*["']([^"']*)["']\s*([,)])""", source):
            assert (key in named) == (end == ","), (path.name, key)


def test_the_table_is_in_order():
    """A sorted table has one place for each text, so that branches merge."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(("key", *LANGUAGES))
    again = [key for key, count in Counter(row["key"] for row in rows()).items() if count > 1]
    assert again == []
    assert lines[1:] == sorted(lines[1:]), f"sort it: {SORT}"
    assert all(KEY.fullmatch(row["key"]) for row in rows())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_in_every_language(language):
    for row in rows():
        assert None not in row and None not in row.values(), f"{row['key']}: a comma needs quotes"
        text = row[language]
        assert text and text == text.strip() and "  " not in text, row
        assert texts()[language][row["key"]] == text
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for row in rows():
        if language == "zh" and re.search(r"[a-z]{3}", re.sub(r"\{\w+\}", "", row["en"])):
            assert chinese.search(row["zh"]), row


def test_values_stand_in_every_language():
    for row in rows():
        first, *others = (Counter(re.findall(r"\{\w+\}", row[one])) for one in LANGUAGES)
        assert all(set(first) == set(other) for other in others), row


JARGON: Final = {
    "en": r"""
    AUROC quantiles? percentiles? outliers? thresholds? anomal\w+ epochs? inference tensors?
    embeddings? backbones? coresets? (?<!\.)ONNX bundles? manifests? JSON null NaN regex parse\w*
    boolean integers? parameters? sockets? wire subscribers? payloads? timestamps? queue\w* threads?
    daemon CSRF cookies? HTTP exceptions? tracebacks? sha-?256 hash metrics?
    (true|false)-?(posi|nega)tives?
    """,
    "zh": """
    分位数 异常图 异常检测 阈值 推理 张量 骨干网络 清单文件 套接字 订阅 线程 进程 守护
    缓冲 假阳性 真阳性 哈希
    """,
}
"""Words of those who build such programs, which a technician need not know."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_needs_the_words_of_programmers(language):
    words = "|".join(JARGON[language].split())
    pattern = rf"\b(?:{words})\b" if language == "en" else f"(?:{words})"
    found = {
        row["key"]: match[0]
        for row in rows()
        if (match := re.search(pattern, re.sub(r"\{\w+\}", "", row[language]), re.IGNORECASE))
    }
    assert found == {}


def test_chinese_texts_have_chinese_punctuation():
    wrong = re.compile(r"[\u4e00-\u9fff][,;:!?]|[,;:!?][\u4e00-\u9fff]|\.\.\.|[\u4e00-\u9fff]\.$")
    assert {row["key"]: row["zh"] for row in rows() if wrong.search(row["zh"])} == {}


def test_the_sources_are_read_as_a_browser_reads_them():
    code = r"""
    // text("a.comment")
    /* `a.${comment}` */ import { x } from "./x.js";
    const a = s.replace(/["'`\/]/g, "b.text"), c = d / e / f;
    const t = `${text(`${view}.menu`)} – ${go({ k: "c.text" })}.d`;
    """
    assert strings(code) == ["./x.js", "b.text", "{}.menu", "c.text", "{} – {}.d"]
