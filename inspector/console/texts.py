"""All words of the page: ``page/texts.csv``, a line a text, a column a language."""

from __future__ import annotations

import csv
import functools
from importlib.resources import files
from typing import Final

LANGUAGES: Final = ("en", "zh")


@functools.cache
def texts() -> dict[str, dict[str, str]]:
    """The texts of each language by their keys."""
    found: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    source = files("inspector.console") / "page" / "texts.csv"
    for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines()):
        for language in LANGUAGES:
            found[language][row["key"]] = row[language]
    return found
