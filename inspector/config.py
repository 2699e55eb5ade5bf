"""The station file: typed, frozen, refused with file, line and key before a camera opens."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import yaml
from platformdirs import user_state_path
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from inspector.errors import ConfigError, Problems
from inspector.frame import Box
from inspector.verdict import LIMIT_FACTOR_RANGE

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Station, camera and recipe names: what fits a topic, a file name and a PLC's string."""

_DEEPEST: Final = 50
"""Levels of a YAML file."""

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


# Strict: Python takes true for 1, 'queue_size: yes' would be a queue of one.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]


class _Misplaced(ValueError):
    """A rule over several keys is broken; ``keys`` lead to the one to change, from the model on."""

    def __init__(self, keys: tuple[int | str, ...], message: str) -> None:
        super().__init__(message)
        self.keys = keys


class _CameraBase(_Frozen):
    name: str = Field(pattern=NAME)
    trigger: Literal["camera", "free", "software"] = "camera"
    """What makes a part: every frame of the camera; the newest frame whenever the judge is free;
    a ``trigger`` command."""
    timeout_ms: Whole = Field(default=2000, ge=50, le=60_000)
    """Longest wait for a frame before the camera counts as lost."""
    deadline_ms: Whole = Field(default=1000, ge=5, le=60_000)
    """From trigger (or grab, where there is none) to verdict; a part judged later is a FAULT."""
    latency_ms: Whole = Field(default=0, ge=0, le=5000)
    """Longest time from the start of an exposure to its frame: how old a frame may be."""


class OpenCvCamera(_CameraBase):
    """Device index, video file, RTSP/HTTP URL, or GStreamer pipeline."""

    kind: Literal["opencv"]
    timeout_ms: Whole = Field(default=500, ge=50, le=60_000)
    latency_ms: Whole = Field(default=100, ge=0, le=5000)
    source: Whole | str
    backend: Literal["any", "ffmpeg", "v4l2", "gstreamer"] = "any"
    width: Whole | None = Field(default=None, gt=0, le=100_000)
    height: Whole | None = Field(default=None, gt=0, le=100_000)
    fps: Number | None = Field(default=None, gt=0, le=100_000)

    @field_validator("source")
    @classmethod
    def _names_one(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 0 <= value <= 999:
            raise ValueError("must be a device number from 0 on")
        if value == "":
            raise ValueError("must be a device number, a file, a URL or a pipeline")
        return value


class FolderCamera(_CameraBase):
    """Replays the images under a folder, sorted by path, each once or for ever."""

    kind: Literal["folder"]
    path: Path
    rate_hz: Number = Field(default=0.0, ge=0, le=10_000)
    """Parts per second; 0: as fast as they are judged."""
    loop: bool = False


class SimulatorCamera(_CameraBase):
    """A conveyor that draws parts, good and defective, the same for the same seed."""

    kind: Literal["simulator"]
    rate_hz: Number = Field(default=2.0, ge=0, le=10_000)
    seed: Whole = Field(default=0, ge=0)
    defect_rate: Number = Field(default=0.3, ge=0, le=1)
    parts: Whole | None = Field(default=None, gt=0)
    """Number of parts, then the belt is empty; None: for ever."""


class Frames(_Frozen):
    """Good frames; None: for ever."""

    do: Literal["frames"]
    count: Whole | None = Field(default=None, gt=0)


class Blemish(_Frozen):
    """Frames with something wrong in them."""

    do: Literal["stale", "tear", "black", "overexposed", "blurred", "frozen"]
    count: Whole = Field(default=1, gt=0)


class RefuseOpen(_Frozen):
    """Gone: refuses to open so many times, or (``seconds``) until so long after it was missed."""

    do: Literal["refuse_open"]
    times: Whole = Field(default=1, gt=0)
    seconds: Number | None = Field(default=None, gt=0, le=3600)


class Block(_Frozen):
    """Hangs in ``open`` or ``grab``, deaf to everything."""

    do: Literal["block", "block_open"]
    seconds: Number = Field(gt=0, le=3600)


class Resize(_Frozen):
    """From here on the pictures have this size."""

    do: Literal["resize"]
    width: Whole = Field(gt=0, le=20_000)
    height: Whole = Field(gt=0, le=20_000)


class Die(_Frozen):
    """Takes the process that it runs in down."""

    do: Literal["die"]
    how: Literal["exit", "segfault"] = "exit"


class Simply(_Frozen):
    """Is lost once; or hangs for ever and lets no other thread of its process run."""

    do: Literal["lose", "block_for_ever"]


FaultyStep = Annotated[
    Frames | Blemish | RefuseOpen | Block | Resize | Die | Simply, Field(discriminator="do")
]


class FaultyCamera(_CameraBase):
    """The simulator's conveyor, or photos, before a camera that fails by a script."""

    kind: Literal["faulty"]
    timeout_ms: Whole = Field(default=500, ge=50, le=60_000)
    steps: tuple[FaultyStep, ...] = Field(min_length=1, max_length=10_000)
    loop: bool = False
    path: Path | None = None
    """A folder of photos, shown in turn; None: the simulator's parts."""
    rate_hz: Number = Field(default=20.0, ge=0, le=10_000)
    seed: Whole = Field(default=0, ge=0)
    defect_rate: Number = Field(default=0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _has_an_effect(self) -> FaultyCamera:
        if all(step.do == "resize" for step in self.steps):
            raise _Misplaced(("steps",), "none of them gives a frame or fails; add {do: frames}")
        for number, step in enumerate(self.steps[:-1]):
            if isinstance(step, Frames) and step.count is None:
                raise _Misplaced(
                    ("steps", number), "frames without a count: what follows is never reached"
                )
        return self


CameraConfig = Annotated[
    OpenCvCamera | FolderCamera | SimulatorCamera | FaultyCamera, Field(discriminator="kind")
]


class CameraRecipe(_Frozen):
    """What a changeover selects for one camera."""

    bundle: Path
    region: Box | None = None
    """Region to judge, in camera pixels; None: the bundle's own."""
    limit_factor: Number = Field(default=1.0, ge=LIMIT_FACTOR_RANGE[0], le=LIMIT_FACTOR_RANGE[1])
    """Operator's sensitivity: above 1 is more tolerant, below 1 stricter."""
    pictures: Literal["all", "not_pass", "none"] = "all"
    """Whose heatmap and picture are published."""
    check_pictures: bool = True
    """Dark, saturated, blurred and frozen pictures are a FAULT, by the limits of the bundle."""


_PORT: Final = r"(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|\d{1,4})"
LOOPBACK: Final = rf"ipc://\S+|tcp://(127(\.\d{{1,3}}){{3}}|localhost|\[::1\]):({_PORT}|\*)"


_METRICS: Final = rf"^(127\.0\.0\.1|localhost):{_PORT}$"


class Sockets(_Frozen):
    """Where the station publishes and listens; beyond loopback only with keys."""

    verdicts: str = "tcp://127.0.0.1:5555"
    images: str = "tcp://127.0.0.1:5556"
    commands: str = "tcp://127.0.0.1:5557"

    @field_validator("verdicts", "images", "commands")
    @classmethod
    def _address(cls, value: str) -> str:
        if re.fullmatch(rf"{LOOPBACK}|tcp://(\*|[\w.-]+|\[[0-9a-fA-F:.]+\]):({_PORT}|\*)", value):
            return value
        raise ValueError("must be an address such as tcp://127.0.0.1:5555, or ipc://PATH")

    @model_validator(mode="after")
    def _apart(self) -> Sockets:
        taken: dict[str, str] = {}
        # Those that the file names come last: they are what can be changed.
        for name in sorted(self.addresses, key=lambda name: name in self.model_fields_set):
            address = self.addresses[name]
            if address in taken and not address.endswith(":*"):
                raise _Misplaced(
                    (name,),
                    f"is the address of {taken[address]} too; verdicts, images and commands need "
                    f"an address each",
                )
            taken[address] = name
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """By name."""
        return {"verdicts": self.verdicts, "images": self.images, "commands": self.commands}

    @property
    def beyond_loopback(self) -> list[str]:
        """Names of those that other machines can reach."""
        return [name for name, at in self.addresses.items() if not re.fullmatch(LOOPBACK, at)]


Role = Literal["listen", "trigger", "operate"]


_Z85_KEY: Final = r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$"


class Peer(_Frozen):
    """Who may connect, and what for."""

    key: str = Field(pattern=_Z85_KEY)
    """CURVE public key, Z85, as ``inspector keygen`` prints it."""
    roles: tuple[Role, ...] = Field(min_length=1)


class Security(_Frozen):
    """Keys. Without this section all sockets stay on loopback, and whoever connects may do all."""

    secret_key: Path | None = None
    """The station's CURVE secret key, made by ``inspector keygen``."""
    peers: dict[Annotated[str, Field(pattern=NAME)], Peer] = {}
    bundle_keys: tuple[Path, ...] = ()
    """Ed25519 public keys; where there are any, a bundle must be signed by one of them."""


class JournalSettings(_Frozen):
    """The record of every verdict, and the pictures kept beside it."""

    folder: Path | None = None
    """Default: ``$STATE_DIRECTORY`` under systemd, else the user's state folder, one a station."""
    verdict_days: Whole = Field(default=365, ge=1, le=36_500)
    pictures_mb: Whole = Field(default=2000, ge=0, le=10_000_000)
    """All pictures together; the oldest of passed parts go first. 0: none are kept."""
    pictures_days: Whole = Field(default=30, ge=1, le=36_500)
    pass_share: Number = Field(default=0.01, ge=0, le=1)
    """Share of passed parts whose picture is kept; of the others all are."""
    reserve_mb: Whole = Field(default=500, ge=1, le=1_000_000)
    """With less space left on the disk no picture is written; it is the journal's."""


class SelfTest(_Frozen):
    """A known defect sent through the station from time to time."""

    every_s: Number = Field(default=3600.0, ge=0, le=1_000_000)
    """0: never."""
    defect: Path | None = None
    """Photo of a defective part at camera size; default: the bundle's own golden defect."""


class Drift(_Frozen):
    """The watch over good parts' scores."""

    parts_between_false_alarms: Whole = Field(default=100_000, ge=0, le=1_000_000_000)
    """On average at least so many good parts lie between two false alarms; 0: no watch."""


class Station(_Frozen):
    """One station: cameras, recipes, sockets."""

    station: str = Field(pattern=NAME)
    provider: Provider = "auto"
    threads: Whole = Field(default=0, ge=0, le=256)
    """Inference threads; 0: all cores but one, with two cores both."""
    queue_size: Whole = Field(default=8, ge=1, le=1000)
    """Frames that may wait for judgement, per camera; one more is a FAULT, never a silent drop."""
    sockets: Sockets = Sockets()
    security: Security = Security()
    journal: JournalSettings = JournalSettings()
    self_test: SelfTest = SelfTest()
    drift: Drift = Drift()
    metrics: str | None = Field(default=None, pattern=_METRICS)
    """Address of the Prometheus metrics, such as 127.0.0.1:9464; loopback only."""
    cameras: tuple[CameraConfig, ...] = Field(min_length=1)
    recipes: dict[Annotated[str, Field(pattern=NAME)], dict[str, CameraRecipe]] = Field(
        min_length=1
    )
    recipe: str
    """The recipe in force at start."""

    @model_validator(mode="after")
    def _cross_check(self) -> Station:
        names = [camera.name for camera in self.cameras]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise _Misplaced(
                    ("cameras", number, "name"),
                    f"two cameras are called {name}; give each its own name",
                )
        if self.recipe not in self.recipes:
            raise _Misplaced(
                ("recipe",),
                f"'{self.recipe}' is not among the recipes {', '.join(sorted(self.recipes))}",
            )
        for recipe, per_camera in self.recipes.items():
            if set(per_camera) != set(names):
                # At a camera that the station has not, or where one is missing.
                unknown = next((name for name in per_camera if name not in names), None)
                raise _Misplaced(
                    ("recipes", recipe, *(() if unknown is None else (unknown,))),
                    f"this recipe is for cameras {', '.join(sorted(per_camera)) or 'none'}; the "
                    f"station has {', '.join(sorted(names))}",
                )
        if self.sockets.beyond_loopback and self.security.secret_key is None:
            raise _Misplaced(
                ("sockets", self.sockets.beyond_loopback[0]),
                "can be reached from other machines, which needs keys: run 'inspector keygen', "
                "then set security.secret_key and security.peers; or stay on 127.0.0.1",
            )
        return self

    @property
    def state_folder(self) -> Path:
        """Where journal and pictures are kept."""
        if self.journal.folder is not None:
            return self.journal.folder
        under_systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        if under_systemd:
            return Path(under_systemd)
        return user_state_path("line-inspector") / self.station

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
"""Pydantic's words where they would puzzle who has never seen Python."""

_PATTERNS: Final = {
    NAME: "must be letters, digits, '_', '.' or '-', at most 64",
    _METRICS: "must be an address of this machine's own, such as 127.0.0.1:9464",
    _Z85_KEY: "must be the 40 characters of a public key, as 'inspector keygen' prints them",
}


def in_words(detail: ErrorDetails) -> str:
    """One validation error in words, with the value found."""
    message = _WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    message = message.replace("Input should be", "must be")
    if detail["type"] == "string_pattern_mismatch":
        message = _PATTERNS.get(detail["ctx"]["pattern"], "must be as docs/station.md shows")
    if detail["type"] == "union_tag_invalid":
        context = detail["ctx"]
        return f"must be one of {context['expected_tags']} (found '{context['tag']}')"
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] in {"missing", "too_short"} or isinstance(cause, _Misplaced):
        return message
    if isinstance(detail["input"], dict | list):
        return message
    return f"{message} (found {detail['input']!r})"


def _describe(path: Path, root: Any, detail: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    keys = tuple(detail["loc"])
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        keys = (*keys, str(detail["ctx"]["discriminator"]).strip("'"))
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, _Misplaced):
        keys += cause.keys
    line, shown = _locate(root, keys)
    message = in_words(detail)
    if detail["type"] == "extra_forbidden":
        known = f"; known keys: {', '.join(model.model_fields)}" if model is not Station else ""
        message = f"unknown key{known or '; check its spelling against docs/station.md'}"
    return ConfigError(f"{path}:{line}: {shown or 'file'}: {message}")


_UNION_TAGS: Final = {
    *("opencv", "folder", "simulator", "faulty", "int", "str", "[key]"),
    *("frames", "stale", "tear", "black", "overexposed", "blurred", "frozen", "refuse_open"),
    *("block", "block_open", "resize", "die", "lose", "block_for_ever"),
}


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
                if key not in _UNION_TAGS:
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
