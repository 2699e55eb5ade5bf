"""YAML files as frozen models; every wrong key is reported with its file, line and cure."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

from inspector.config.addresses import PORT
from inspector.errors import ConfigError, Problems
from inspector.shown import masked

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Pattern of station, camera and recipe names, which fit a topic, a file name, a PLC's string."""

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
Number = Annotated[float, Field(strict=True)]
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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError):
            # For example '2024-13-45' looks like a date, and '0x_' like a number.
            kind = node.tag.rpartition(":")[2]
            problem = f"{masked(str(node.value))[:40]!r} is not a valid {kind}; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


Model = TypeVar("Model", bound=BaseModel)


def load_yaml(path: Path, model: type[Model]) -> Model:
    """Read ``path`` as YAML into ``model``.

    Raises :class:`ConfigError`, or :class:`Problems` with a :class:`ConfigError` for each wrong
    key if there are several.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {_begin(path, model)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_nodes(root, path, set(), set())
        data = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        cure = "use spaces, not tabs" if "\\t" in str(error.problem) else "check colons and indents"
        raise ConfigError(f"{where}: not YAML: {error.problem}; {cure}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
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
        problems = [
            _describe(path, root, detail, model)
            for detail in details
            if detail["type"] != "too_short" or detail["loc"] not in deeper
        ]
    raise problems[0] if len(problems) == 1 else Problems(problems)


_WORDS: Final = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "missing": "missing; add it",
    "too_short": "is empty; add at least one",
    "union_tag_not_found": "missing; add it",
    "dict_type": "must be keys and values",
    "model_type": "must be keys and values",
    "model_attributes_type": "must be keys and values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "path_type": "must be a path",
}
"""Our words for errors that pydantic describes in terms of Python."""

_PATTERNS: Final = {
    NAME: "must be letters, digits, '_', '.' or '-', at most 64",
    METRICS_ADDRESS: "must be an address of this machine's own, such as 127.0.0.1:9464",
    SIZE: "must be a width and a height in pixels, such as 1280x1024",
    Z85_KEY: "must be the 40 characters of a public key, as 'inspector keygen' prints them",
}


def in_words(detail: ErrorDetails) -> str:
    """What is wrong, for somebody who never saw Python, with the value found in the file."""
    message = _WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    message = message.replace("Input should be", "must be")
    if detail["type"] == "string_pattern_mismatch":
        message = _PATTERNS.get(detail["ctx"]["pattern"], "must be as docs/station.md shows")
    if detail["type"] == "union_tag_invalid":
        context = detail["ctx"]
        return f"must be one of {context['expected_tags']} (found '{masked(context['tag'])}')"
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] in {"missing", "too_short"} or isinstance(cause, Misplaced):
        return message
    if isinstance(detail["input"], dict | list):
        return message
    found = detail["input"]
    return f"{message} (found {masked(found) if isinstance(found, str) else found!r})"


def _describe(path: Path, root: Any, detail: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    found, missing = tuple(detail["loc"]), tuple[int | str, ...]()
    if detail["type"] == "missing":
        found, missing = found[:-1], found[-1:]
    elif detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        missing = (str(detail["ctx"]["discriminator"]).strip("'"),)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Misplaced):
        missing = cause.keys
    line, shown = _locate(root, found, missing)
    message = in_words(detail)
    if detail["type"] == "extra_forbidden":
        message = f"unknown key; {_known(model)}"
    return ConfigError(f"{path}:{line}: {masked(shown) or 'file'}: {message}")


def _begin(path: Path, model: type[BaseModel]) -> str:
    """How somebody who has no such file gets one to start from."""
    cure = getattr(model, "start_from", "correct its name")
    return str(cure).format(file=shlex.quote(str(path)))


def _known(model: type[BaseModel]) -> str:
    """The known keys of the file, or the page of the documentation that lists them."""
    page = getattr(model, "documented_in", "")
    if page:
        return f"check its spelling against {page}"
    return f"known keys: {', '.join(model.model_fields)}"


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


def _check_nodes(node: Any, path: Path, above: set[int], done: set[int]) -> None:
    """Refuse keys that stand twice or are no words, and nodes that contain themselves by an alias.

    ``above`` holds the ids of the nodes around this one, ``done`` those of the nodes already
    checked. Raises :class:`ConfigError`.
    """
    if not isinstance(node, yaml.CollectionNode) or id(node) in done:
        return
    if id(node) in above:
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: contains itself; write it out")
    above.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, _ in node.value:
            where = f"{path}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{where}: a key must be a word, not a list or a mapping")
            if key_node.value in seen:
                shown = masked(str(key_node.value))
                raise ConfigError(f"{where}: {shown}: key stands twice; keep one")
            seen.add(key_node.value)
    for child in node.value:
        _check_nodes(child[1] if isinstance(child, tuple) else child, path, above, done)
    above.remove(id(node))
    done.add(id(node))
