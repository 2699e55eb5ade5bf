"""YAML files as frozen models; every wrong key is reported with its file, line and cure."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
import shlex
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

from inspector.config.addresses import PEER, PORT
from inspector.errors import ConfigError, Problems
from inspector.files import reason_of
from inspector.shown import masked, plain

_MOST_LETTERS: Final = 600
"""Of a text of the file that is shown."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Pattern of station, camera and recipe names, which fit a topic, a file name, a PLC's string."""

USER: Final = r"^[^\W_]([\w .@'-]{0,62}[\w.@'-])?$"
"""Pattern of a person's name: letters of any script, since it is shown and never a file's name."""

SIZE: Final = r"^[1-9][0-9]{0,5}x[1-9][0-9]{0,5}$"
"""Pattern of a picture's size, width before height, such as 1280x1024."""

_DEEPEST: Final = 50
"""Levels that a YAML file may be nested."""


class FrozenModel(BaseModel):
    """A part of a file: never changed once read, no key but those declared, no number but finite.

    Configuration files and the manifest of a bundle are made of these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


# These are strict because Python takes true for 1: 'queue_size: yes' would be a queue of one.
Whole = Annotated[int, Field(strict=True)]
"""Type of a whole number in a configuration file."""


def _scientific(value: Any) -> Any:
    """A text such as ``1e-4``, which YAML 1.1 takes for no number, as everybody means it."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_scientific), Field(strict=True)]
"""Type of any number there."""


class Misplaced(ValueError):
    """Keys contradict each other; ``keys`` is the path to the one to change, from the model on."""

    def __init__(self, keys: tuple[int | str, ...], message: str) -> None:
        super().__init__(message)
        self.keys = keys


METRICS_ADDRESS: Final = rf"^(127\.0\.0\.1|localhost):{PORT}$"
"""Pattern of the address of the Prometheus metrics."""

Z85_KEY: Final = r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$"
"""Pattern of a CURVE key in Z85."""


_MOST_BYTES: Final = 2**20
"""Of a YAML file; the longest of ours has some kilobytes."""
_MOST_DIGITS: Final = 40
"""Python takes minutes for a number of a million digits, and refuses to print one of 5,000."""
_TAG: Final = "tag:yaml.org,2002:"
_NUMBERS: Final = frozenset({f"{_TAG}int", f"{_TAG}float"})
_PLAIN_NUMBER: Final = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*)|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)
"""A number that everybody reads alike, unlike 010 (octal), 1:30 (base 60), 0x1F or 1_000."""
_COMMENT: Final = re.compile(r"[ \t]+#(?=\S|[^\n]*(?:@|\s!\s))")
"""Begin of a comment that may be the rest of a camera's source, as of a password with " #" in it.

A comment of a person has a space behind its "#", and no host or GStreamer element.
"""
_READ_AS: Final = {
    f"{_TAG}bool": "true or false",
    f"{_TAG}null": "nothing",
    f"{_TAG}int": "a number",
    f"{_TAG}float": "a number",
}
"""What YAML takes a word without quotes for, where it does not take it for text."""
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
"""NUL ends a path or an address for the system, and a lone surrogate cannot be written."""
_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with an error that names the line where PyYAML has only a traceback."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def fetch_more_tokens(self) -> Any:
        try:
            return super().fetch_more_tokens()
        except ValueError:
            # Such as an escape of a character that there is not, "\\U00110000".
            mark = self.get_mark()
            raise yaml.scanner.ScannerError(None, None, "no such character", mark) from None

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError, TypeError):
            # For example '2024-13-45' looks like a date, and '0x_' like a number.
            kind = node.tag.rpartition(":")[2]
            problem = f"{masked(str(node.value))[:40]!r} is not a valid {kind}; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


Model = TypeVar("Model", bound=BaseModel)


def _read_bytes(path: Path) -> bytes:
    # A pipe would be waited for without a limit, and a device may never end.
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no file; name the file itself")
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def load_yaml(
    path: Path,
    model: type[Model],
    *,
    numbered: frozenset[str] = frozenset(),
    read: Callable[[Path], bytes] = _read_bytes,
) -> Model:
    """Read ``path`` as YAML into ``model``; the keys of the mappings ``numbered`` are numbers.

    ``read`` gets the file's bytes, and may raise OSError.

    Raises :class:`ConfigError`, or :class:`Problems` with a :class:`ConfigError` for each wrong
    key if there are several.
    """
    text = _read(path, model, read)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_nodes(root, path, "", set(), set(), numbered=numbered)
        data = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        cure = "use spaces, not tabs" if "\\t" in str(error.problem) else "check colons and indents"
        raise ConfigError(f"{where}: not YAML: {_line(error.problem)}; {cure}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}:{line}: not YAML: it holds a character that no text may have "
            f"({_shown(chr(int(error.character)))}); take it out"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: expected keys and values, such as 'station: line-1'")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors()
        # A list whose only entry is wrong is also reported as too short; that is no problem.
        deeper = {
            detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))
        }
        told: dict[str, ConfigError] = {}
        for detail in details:
            if detail["type"] == "too_short" and detail["loc"] in deeper:
                continue
            where, problem = _describe(path, root, detail, model)
            # A value that may be of several types is refused by each; one line is enough.
            if where not in told or detail["type"] in _TEXTS:
                told[where] = problem
        problems = list(told.values())
    raise problems[0] if len(problems) == 1 else Problems(problems)


def _read(path: Path, model: type[BaseModel], read: Callable[[Path], bytes]) -> str:
    """The text of a file. Raises :class:`ConfigError`."""
    if path.suffix.lower() == ".onnx":
        raise ConfigError(f"{path}: a bundle, not a YAML file; name the file that is wanted here")
    try:
        data = read(path)
    except FileNotFoundError:
        raise ConfigError(f"{masked(str(path))}: no such file; {_begin(path, model)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {reason_of(error)}; correct its name, or give this user the "
            f"right to read it"
        ) from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path}: has more than a megabyte; name the right file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        # Editors on Windows write UTF-16, which has zeros too.
        if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ConfigError(
                f"{path}: no text, but a picture or another binary file; name the YAML file that "
                f"is wanted here"
            ) from None
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from None


def _line(text: object) -> str:
    """``text`` as one short line without secrets, whatever stands in the file it is from."""
    return plain(masked(str(text)), _MOST_LETTERS)


def _shown(value: object) -> str:
    """A value of the file in one short line, however deep, long or large it is."""
    return _REPR.repr(masked(value) if isinstance(value, str) else value)


_WORDS: Final = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "missing": "missing; add it",
    "too_short": "is empty; add at least one",
    "union_tag_not_found": "missing; add it",
    "string_type": "must be text",
    "dict_type": "must be keys and values",
    "model_type": "must be keys and values",
    "model_attributes_type": "must be keys and values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "path_type": "must be a path",
}
"""Our words for errors that pydantic describes in terms of Python."""

_TEXTS: Final = frozenset({"string_type", "path_type"})
"""Errors of a value that is not the text which it must be."""

_PATTERNS: Final = {
    NAME: "must be letters, digits, '_', '.' or '-', at most 64",
    PEER: "must be tcp://HOST:PORT or ipc://PATH, such as tcp://127.0.0.1:5555",
    USER: "must be letters, digits, spaces and . @ ' - _, at most 64, the first a letter or digit",
    METRICS_ADDRESS: "must be an address of this machine's own, such as 127.0.0.1:9464",
    SIZE: "must be a width and a height in pixels, such as 1280x1024",
    Z85_KEY: "must be the 40 characters of a public key, as 'inspector keygen' prints them",
}


def in_words(detail: ErrorDetails, page: str = "docs/station.md", written: str = "") -> str:
    """What is wrong, for somebody who never saw Python, with the value found in the file.

    ``page`` documents the file; ``written`` is the value as it stands there, if that is not how
    Python shows it.
    """
    message = _WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    message = " ".join(message.replace("Input should be", "must be").split())
    if detail["type"] == "string_pattern_mismatch":
        message = _PATTERNS.get(detail["ctx"]["pattern"], f"must be as {page} shows")
    if detail["type"] in {"too_long", "string_too_long"}:
        what = "entries" if detail["type"] == "too_long" else "letters"
        message = f"must have at most {detail['ctx']['max_length']} {what}"
    if detail["type"] == "union_tag_invalid":
        context = detail["ctx"]
        found = written or _shown(context["tag"])
        return f"must be one of {context['expected_tags']} (found {found})"
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] in {"missing", "too_short"} or isinstance(cause, Misplaced):
        return message
    if isinstance(detail["input"], dict | list):
        return message
    text = str(detail["input"])
    odd = re.match(r"[-+.]?\d", text) and not _PLAIN_NUMBER.fullmatch(text)
    if odd and detail["type"] in {"int_type", "float_type"}:
        # Such as 1e3, 0o17 and 09, which other programs read as numbers.
        message += " in decimal digits"
    return f"{message} (found {written or _shown(detail['input'])})"


def _describe(
    path: Path, root: Any, detail: ErrorDetails, model: type[BaseModel]
) -> tuple[str, ConfigError]:
    """The dotted name of the wrong key, and what is wrong with it."""
    found, missing = tuple(detail["loc"]), tuple[int | str, ...]()
    if detail["type"] == "missing":
        found, missing = found[:-1], found[-1:]
    elif detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        missing = (str(detail["ctx"]["discriminator"]).strip("'"),)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Misplaced):
        missing = cause.keys
    line, shown = _locate(root, found, missing)
    page = getattr(model, "documented_in", "docs/station.md")
    message = in_words(detail, page, _as_written(_node_at(root, (*found, *missing))))
    if detail["type"] == "extra_forbidden":
        message = f"unknown key; {_known(model, found)}"
    elif detail["type"] in _TEXTS and (written := _written(root, found)) is not None:
        message = written
    where = f"{path}:{line}: {_line(shown) or 'file'}"
    return shown, ConfigError(f"{where}: {plain(message, _MOST_LETTERS)}")


def _begin(path: Path, model: type[BaseModel]) -> str:
    """How somebody who has no such file gets one to start from."""
    cure = getattr(model, "start_from", "correct its name")
    return str(cure).format(file=shlex.quote(masked(str(path))))


def _known(model: type[BaseModel], found: tuple[int | str, ...]) -> str:
    """The key that is probably meant, and the known keys of the file or the page that lists them.

    ``found`` is pydantic's path to the unknown key.
    """
    *above, key = found
    names = [name for part in _models_at(model, above) for name in part.model_fields]
    near = difflib.get_close_matches(str(key).lower().replace("-", "_"), names, 1, 0.7)
    meant = f"did you mean '{near[0]}'? " if near else ""
    page = getattr(model, "documented_in", "")
    if page:
        return f"{meant}check its spelling against {page}"
    return f"{meant}known keys: {', '.join(model.model_fields)}"


def _models_at(annotation: Any, keys: list[int | str]) -> Iterator[type[BaseModel]]:
    """The models that may stand at ``keys``, pydantic's path from ``annotation`` on.

    The tag of a union stands in the path like a key.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _models_at(inner[0], keys)
    elif origin in (Union, types.UnionType):
        tagged = [one for one in inner if keys and keys[0] in _tags(one)]
        for one in tagged or inner:
            yield from _models_at(one, keys[1:] if tagged else keys)
    elif origin is dict and keys:
        yield from _models_at(inner[1], keys[1:])
    elif origin in (tuple, list) and keys:
        yield from _models_at(inner[0], keys[1:])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not keys:
            yield annotation
        elif (field := annotation.model_fields.get(str(keys[0]))) is not None:
            yield from _models_at(field.annotation, keys[1:])


def _tags(member: Any) -> tuple[Any, ...]:
    """The values by which a member of a union is told from the others."""
    fields = getattr(member, "model_fields", {})
    kind = fields.get("kind")
    return get_args(kind.annotation) if kind and get_origin(kind.annotation) is Literal else ()


def _written(root: Any, found: tuple[int | str, ...]) -> str | None:
    """What is wrong with a value without quotes where text is meant; None for any other."""
    node = _node_at(root, found)
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _READ_AS:
        return None
    shown = _line(node.value)
    return (
        f"YAML reads {shown} as {_READ_AS[node.tag]}, but this must be text; put it in quotes: "
        f"'{shown}'"
    )


def _as_written(node: Any) -> str:
    """A word that YAML takes for no text, such as off, as the file has it; "" for other values."""
    if not isinstance(node, yaml.ScalarNode) or node.tag in _NUMBERS or node.tag not in _READ_AS:
        return ""
    if node.value.lower() in {"true", "false", "null"}:
        return _line(node.value)
    return f"{_line(node.value)}, which YAML reads as {_READ_AS[node.tag]}"


def _node_at(root: Any, found: tuple[int | str, ...]) -> Any:
    """The node at pydantic's path ``found``; tags of unions in it are no keys of the file."""
    node = root
    for key in found:
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == str(key)), node)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
    return node


def _locate(
    root: Any, found: tuple[int | str, ...], missing: tuple[int | str, ...]
) -> tuple[int, str]:
    """The line, from 1, of the deepest of these keys that the file has, and their dotted name.

    ``found`` is pydantic's path, in which the tag of a union ('simulator', 'int') stands like a
    key; keys in it that the file does not have are left out. ``missing`` are the keys that follow;
    they are named whether the file has them or not.
    """
    node, line, shown = root, 1, ""
    for number, key in enumerate((*found, *missing)):
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                if key_node.value == str(key):
                    node, line = value_node, key_node.start_mark.line + 1
                    shown = f"{shown}.{key}".lstrip(".")
                    break
            else:
                if number >= len(found):
                    shown = f"{shown}.{key}".lstrip(".")
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line, shown = node.start_mark.line + 1, f"{shown}[{key}]"
    return line, shown


def _check_nodes(
    node: Any,
    path: Path,
    place: str,
    above: set[int],
    done: set[int],
    *,
    numbered: frozenset[str],
) -> None:
    """Refuse what no file should hold, wherever it stands.

    That is keys that stand twice, are no words or have no value, nodes that contain themselves by
    an alias, text that no path or address can have or that a comment cuts off, and numbers of many
    digits. ``place`` is the dotted name of
    the node; ``above`` holds the ids of the nodes around it, ``done`` those of the nodes already
    checked; mappings in the places ``numbered`` may have plain whole numbers as keys. Raises
    :class:`ConfigError`.
    """
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, path, place)
        return
    if not isinstance(node, yaml.CollectionNode) or id(node) in done:
        return
    if id(node) in above:
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: contains itself; write it out")
    above.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, _ in node.value:
            where = f"{path}:{key_node.start_mark.line + 1}"
            _check_nodes(key_node, path, "key", above, done, numbered=numbered)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{where}: a key must be a word, not a list or a mapping")
            is_number = place in numbered and _PLAIN_NUMBER.fullmatch(key_node.value)
            if key_node.value and key_node.tag in _READ_AS and not is_number:
                raise ConfigError(
                    f"{where}: {_line(key_node.value)}: YAML reads this key as "
                    f"{_READ_AS[key_node.tag]}, not as a name; put it in quotes: "
                    f"'{_line(key_node.value)}'"
                )
            if key_node.value in seen:
                raise ConfigError(f"{where}: {_line(key_node.value)}: key stands twice; keep one")
            seen.add(key_node.value)
        for key_node, child in node.value:
            where = f"{place}.{key_node.value}".lstrip(".")
            _check_nodes(child, path, where, above, done, numbered=numbered)
    else:
        for number, child in enumerate(node.value):
            _check_nodes(child, path, f"{place}[{number}]", above, done, numbered=numbered)
    above.remove(id(node))
    done.add(id(node))


def _check_scalar(node: yaml.ScalarNode, path: Path, place: str) -> None:
    where = f"{path}:{node.start_mark.line + 1}: {_line(place) or 'file'}"
    found = _NO_TEXT.search(node.value)
    if found is not None:
        raise ConfigError(
            f"{where}: holds the character {found[0]!r}, which no name, path or address can have; "
            f"take it out"
        )
    if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
        raise ConfigError(
            f"{where}: a number of {len(node.value)} digits; give one of at most {_MOST_DIGITS}"
        )
    # A key that was written and left empty is an unfinished edit; "null" and "~" say nothing is
    # meant.
    if place and not node.value and node.tag == f"{_TAG}null":
        raise ConfigError(f"{where}: is empty; give a value, or leave the key out")
    if not node.style and "://" in node.value and _COMMENT.match(*_behind(node)):
        raise ConfigError(
            f"{where}: ends at ' #', where YAML begins a comment; put the value in quotes if what "
            f"follows belongs to it, else the comment in a line of its own"
        )
    if trap := _trap(node):
        raise ConfigError(f"{where}: {trap}")


def _behind(node: yaml.ScalarNode) -> tuple[str, int]:
    """The text of the file, and where in it that follows what stands behind ``node``."""
    return node.end_mark.buffer or "", node.end_mark.pointer


def _trap(node: yaml.ScalarNode) -> str:
    """What is wrong with a value that YAML 1.1 reads otherwise than people do; "" for others."""
    is_number = node.tag in _NUMBERS
    if not is_number and node.tag != f"{_TAG}timestamp":
        return ""
    if is_number and _PLAIN_NUMBER.fullmatch(node.value):
        return ""
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (ValueError, LookupError, AttributeError, OverflowError, TypeError):
        # Such values are refused when the document is constructed.
        return ""
    shown = _line(node.value)
    if not is_number:
        return f"YAML reads {shown} as a date; put it in quotes if it is a name: '{shown}'"
    if not math.isfinite(value):
        return f"{shown} is no finite number; give one, or put it in quotes if it is text"
    return (
        f"YAML reads {shown} as the number {value:.15g}; write a number in decimal digits alone, "
        f"such as {value:.15g}, or put it in quotes if it is text: '{shown}'"
    )
