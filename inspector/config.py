"""The station file: typed, frozen, refused with file, line and key before a camera opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from inspector.errors import ConfigError, Problems
from inspector.frame import Box
from inspector.verdict import LIMIT_FACTOR_RANGE

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Station, camera and recipe names: what fits a topic, a file name and a PLC's string."""

_DEEPEST: Final = 50
"""Levels of a YAML file."""

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class _CameraBase(_Frozen):
    name: str = Field(pattern=NAME)
    timeout_ms: int = Field(default=2000, ge=50, le=60_000)
    """Longest wait for a frame before the camera counts as lost."""
    deadline_ms: int = Field(default=1000, ge=5, le=60_000)
    """From grab to verdict; a part judged later is a FAULT."""


class OpenCvCamera(_CameraBase):
    """Device index, video file, RTSP/HTTP URL, or GStreamer pipeline."""

    kind: Literal["opencv"]
    source: int | str
    backend: Literal["any", "ffmpeg", "v4l2", "gstreamer"] = "any"
    width: int | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, gt=0)
    fps: float | None = Field(default=None, gt=0)


class FolderCamera(_CameraBase):
    """Replays the images under a folder, sorted by path, each once or for ever."""

    kind: Literal["folder"]
    path: Path
    rate_hz: float = Field(default=0.0, ge=0, le=10_000)
    """Parts per second; 0: as fast as they are judged."""
    loop: bool = False


class SimulatorCamera(_CameraBase):
    """A conveyor that draws parts, good and defective, the same for the same seed."""

    kind: Literal["simulator"]
    rate_hz: float = Field(default=2.0, ge=0, le=10_000)
    seed: int = Field(default=0, ge=0)
    defect_rate: float = Field(default=0.3, ge=0, le=1)
    parts: int | None = Field(default=None, gt=0)
    """Number of parts, then the belt is empty; None: for ever."""


CameraConfig = Annotated[OpenCvCamera | FolderCamera | SimulatorCamera, Field(discriminator="kind")]


class CameraRecipe(_Frozen):
    """What a changeover selects for one camera."""

    bundle: Path
    region: Box | None = None
    """Region to judge, in camera pixels; None: the bundle's own."""
    limit_factor: float = Field(default=1.0, ge=LIMIT_FACTOR_RANGE[0], le=LIMIT_FACTOR_RANGE[1])
    """Operator's sensitivity: above 1 is more tolerant, below 1 stricter."""
    pictures: Literal["all", "not_pass", "none"] = "all"
    """Whose heatmap and picture are published."""


class Sockets(_Frozen):
    """Where the station publishes; loopback until keys come with CURVE."""

    verdicts: str = "tcp://127.0.0.1:5555"
    images: str = "tcp://127.0.0.1:5556"

    @field_validator("verdicts", "images")
    @classmethod
    def _loopback(cls, value: str) -> str:
        if re.fullmatch(r"ipc://\S+|tcp://(127(\.\d{1,3}){3}|localhost|\[::1\]):(\d+|\*)", value):
            return value
        raise ValueError(
            "must be a loopback address such as tcp://127.0.0.1:5555, or ipc://PATH "
            "(sockets beyond loopback need keys, which this version does not have)"
        )

    @model_validator(mode="after")
    def _two(self) -> Sockets:
        if self.verdicts == self.images and not self.verdicts.endswith(":*"):
            raise ValueError("verdicts and images need an address each")
        return self


class Station(_Frozen):
    """One station: cameras, recipes, sockets."""

    station: str = Field(pattern=NAME)
    provider: Provider = "auto"
    threads: int = Field(default=0, ge=0, le=256)
    """Inference threads; 0: ONNX Runtime's choice."""
    queue_size: int = Field(default=8, ge=1, le=1000)
    """Frames that may wait for judgement, per camera; one more is a FAULT, never a silent drop."""
    sockets: Sockets = Sockets()
    cameras: tuple[CameraConfig, ...] = Field(min_length=1)
    recipes: dict[Annotated[str, Field(pattern=NAME)], dict[str, CameraRecipe]] = Field(
        min_length=1
    )
    recipe: str
    """The recipe in force at start."""

    @model_validator(mode="after")
    def _cross_check(self) -> Station:
        names = [camera.name for camera in self.cameras]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(
                f"two cameras are called {', '.join(sorted(twice))}; give each its own name"
            )
        if self.recipe not in self.recipes:
            raise ValueError(
                f"recipe '{self.recipe}' is not among the recipes {', '.join(sorted(self.recipes))}"
            )
        for recipe, per_camera in self.recipes.items():
            if set(per_camera) != set(names):
                raise ValueError(
                    f"recipe '{recipe}' is for cameras {', '.join(sorted(per_camera))}; "
                    f"the station has {', '.join(sorted(names))}"
                )
        return self

    def active(self, camera: str) -> CameraRecipe:
        """The part of the recipe in force that is for ``camera``."""
        return self.recipes[self.recipe][camera]


def load_station(path: Path) -> Station:
    """Read a station file; its relative paths are relative to it.

    Raises :class:`ConfigError`, or :class:`Problems` with one :class:`ConfigError` a wrong key.
    """
    station = load_yaml(path, Station)
    return cast(Station, _resolve(station, path.resolve().parent))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; what it only stumbles over is an error with a line here."""

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
            # '2024-13-45' looks like a date, '0x_' like a number.
            kind = node.tag.rpartition(":")[2]
            problem = f"{str(node.value)[:40]!r} is not a valid {kind}; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


Model = TypeVar("Model", bound=BaseModel)


def load_yaml(path: Path, model: type[Model]) -> Model:
    """Read ``path`` as YAML into ``model``; every wrong key is reported with its line.

    Raises :class:`ConfigError` or :class:`Problems`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; start from one in config/") from None
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
        # A list whose only entry is wrong also counts as too short; that is no second problem.
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
    "string_pattern_mismatch": "must be letters, digits, '_', '.' or '-', at most 64",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "missing": "missing; add it",
}
"""Pydantic's words where they would puzzle who has never seen Python."""


def in_words(detail: ErrorDetails) -> str:
    """One validation error in words, with the value found."""
    message = _WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    message = message.replace("Input should be", "must be")
    if detail["type"] == "union_tag_invalid":
        context = detail["ctx"]
        return f"must be one of {context['expected_tags']} (found '{context['tag']}')"
    if detail["type"] == "missing" or isinstance(detail["input"], dict | list):
        return message
    return f"{message} (found {detail['input']!r})"


def _describe(path: Path, root: Any, detail: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    keys = tuple(detail["loc"])
    if detail["type"] == "union_tag_invalid":
        keys = (*keys, "kind")
    line, shown = _locate(root, keys)
    message = in_words(detail)
    if detail["type"] == "extra_forbidden":
        known = f"; known keys: {', '.join(model.model_fields)}" if model is not Station else ""
        message = f"unknown key{known or '; check its spelling against docs/station.md'}"
    return ConfigError(f"{path}:{line}: {shown or 'file'}: {message}")


def _locate(root: Any, keys: tuple[int | str, ...]) -> tuple[int, str]:
    """Line (from 1) and dotted name of the deepest part of ``keys`` that the file has."""
    node, line, shown = root, 1, ""
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                if key_node.value == str(key):
                    node, line = value_node, key_node.start_mark.line + 1
                    shown = f"{shown}.{key}".lstrip(".")
                    break
            else:
                # A union's tag ('simulator') stands in pydantic's path, not in the file.
                if key not in {"opencv", "folder", "simulator", "int", "str"}:
                    shown = f"{shown}.{key}".lstrip(".")
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line, shown = node.start_mark.line + 1, f"{shown}[{key}]"
    return line, shown


def _check_nodes(node: Any, path: Path, above: set[int], done: set[int]) -> None:
    """Refuse keys that stand twice or are no words, and what contains itself by an alias.

    ``above`` and ``done`` hold the ids of the nodes around this one and of those in order.
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
                raise ConfigError(f"{where}: {key_node.value}: key stands twice; keep one")
            seen.add(key_node.value)
    for child in node.value:
        _check_nodes(child[1] if isinstance(child, tuple) else child, path, above, done)
    above.remove(id(node))
    done.add(id(node))


def _resolve(value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return value if value.is_absolute() else base / value
    if isinstance(value, OpenCvCamera) and isinstance(value.source, str):
        # A video file beside the station file; URLs and pipelines name no such file.
        beside = base / value.source
        if "://" not in value.source and value.backend != "gstreamer" and beside.is_file():
            return value.model_copy(update={"source": str(beside)})
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={name: _resolve(getattr(value, name), base) for name in type(value).model_fields}
        )
    if isinstance(value, dict):
        return {key: _resolve(item, base) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_resolve(item, base) for item in value)
    return value
