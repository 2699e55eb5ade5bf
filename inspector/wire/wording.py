"""What is wrong with a message, in the words of docs/wire.md, not of the library that reads it."""

from __future__ import annotations

import difflib
import re
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_MOST_LETTERS: Final = 80
"""Of a value that is shown."""
_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "is unknown here",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "is missing; it says what is asked for, such as 'status'",
}
"""For each type of pydantic's errors, ours; the braces are filled from its context."""
_WITHOUT_VALUE: Final = {"missing", "extra_forbidden", "union_tag_not_found", "json_invalid"}


def wrong_field(error: ValidationError, *, tagged: bool = False) -> tuple[str, str]:
    """The first wrong field of a message, "" where it is the whole, and what is wrong with it.

    ``tagged``: the message is one of a union whose tag stands before the field.
    """
    first = error.errors()[0]
    where = list(first["loc"])
    if first["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        where = [str(first["ctx"]["discriminator"]).strip("'")]
    elif tagged:
        where = where[1:]
    return ".".join(map(str, where)), _in_words(first)


def first_wrong(error: ValidationError, *, tagged: bool = False) -> str:
    """The first wrong field of a message, as the end of a sentence about it."""
    field, words = wrong_field(error, tagged=tagged)
    return f"whose field '{field}' {words}" if field else f"which {words}"


def _in_words(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "json_invalid":
        return f"is not JSON: {context.get('error', 'it cannot be read')}"
    if kind == "value_error":
        return f"is refused: {context['error']}"
    words = _WORDS.get(kind)
    if words is None:
        message = detail["msg"]
        return f"is wrong: {message[:1].lower()}{message[1:]}"
    words = words.format(**context)
    if kind in _WITHOUT_VALUE:
        return words
    value = context["tag"] if kind == "union_tag_invalid" else detail["input"]
    found = ascii(value)
    if len(found) > _MOST_LETTERS:
        found = f"{found[: _MOST_LETTERS - 3]}..."
    allowed = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected")))
    near = difflib.get_close_matches(value, allowed, 1) if isinstance(value, str) else []
    meant = f"; did you mean '{near[0]}'?" if near else ""
    return f"{words} (found {found}){meant}"
