"""The station file as frozen models; a wrong one is refused before a camera opens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from platformdirs import user_state_path
from pydantic import (
    BaseModel,
    Field,
    field_validator,
    model_validator,
)

from inspector.config.addresses import COMMANDS, IMAGES, LOOPBACK, PORT, QUERIES, VERDICTS
from inspector.config.cameras import CameraBase, CameraConfig
from inspector.config.yaml_file import (
    METRICS_ADDRESS,
    NAME,
    SIZE,
    Z85_KEY,
    FrozenModel,
    Misplaced,
    Number,
    Whole,
    load_yaml,
)
from inspector.files import READ_TIMEOUT_S
from inspector.imaging.geometry import Box
from inspector.verdict import LIMIT_FACTOR_RANGE

_LONGEST_IPC = 107
"""Bytes of a socket's path on Linux (sun_path, unix(7))."""

SHA256 = r"[0-9a-f]{64}"
"""The name, but for its ending, of a bundle that was installed by command."""

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]


class CameraRecipe(FrozenModel):
    """What a recipe sets for one camera."""

    bundle: Path
    region: Box | None = None
    """Region to judge, in camera pixels; None: the bundle's own."""
    limit_factor: Number = Field(default=1.0, ge=LIMIT_FACTOR_RANGE[0], le=LIMIT_FACTOR_RANGE[1])
    """The operator's factor on the limit: above 1 is more tolerant, below 1 stricter."""
    pictures: Literal["all", "not_pass", "none"] = "all"
    """The parts whose heatmap and picture are published."""
    check_pictures: bool = True
    """A picture that is dark, saturated, blurred or frozen by the bundle's limits is a FAULT."""
    sizes: tuple[Annotated[str, Field(pattern=SIZE)], ...] = ()
    """Sizes that a picture may have, as WxH in camera pixels; (): that of the camera's first one.
    Folders of photos are bound by it only when it names any."""


class Sockets(FrozenModel):
    """Addresses at which the station publishes and listens; beyond loopback it takes keys."""

    verdicts: str = VERDICTS
    images: str = IMAGES
    commands: str = COMMANDS
    queries: str | None = None
    """None: there is no such socket. A file that names none of the others has it as well."""

    @model_validator(mode="before")
    @classmethod
    def _whole_default(cls, given: Any) -> Any:
        # Several stations on one machine have addresses of their own, which nobody can guess.
        return given if given != {} else {"queries": QUERIES}

    @field_validator("verdicts", "images", "commands", "queries")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if len(os.fsencode(value.removeprefix("ipc://"))) > _LONGEST_IPC:
            raise ValueError(f"is too long: the path after ipc:// may have {_LONGEST_IPC} bytes")
        if re.fullmatch(rf"{LOOPBACK}|tcp://(\*|[\w.-]+|\[[0-9a-fA-F:.]+\]):({PORT}|\*)", value):
            return value
        raise ValueError("must be an address such as tcp://127.0.0.1:5555, or ipc://PATH")

    @model_validator(mode="after")
    def _apart(self) -> Sockets:
        taken: dict[str, str] = {}
        # Addresses that the file names come last, so that the error names a key to change.
        for name in sorted(self.addresses, key=lambda name: name in self.model_fields_set):
            address = self.addresses[name]
            if address in taken and not address.endswith(":*"):
                raise Misplaced(
                    (name,),
                    f"is the address of {taken[address]} too; each needs one of its own",
                )
            taken[address] = name
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses, by their names."""
        queries = {} if self.queries is None else {"queries": self.queries}
        return {
            "verdicts": self.verdicts,
            "images": self.images,
            "commands": self.commands,
            **queries,
        }

    @property
    def beyond_loopback(self) -> list[str]:
        """Names of the sockets that other machines can reach."""
        return [name for name, at in self.addresses.items() if not re.fullmatch(LOOPBACK, at)]


Role = Literal["listen", "trigger", "operate", "engineer"]


class Peer(FrozenModel):
    """A program that may connect, and what it may do."""

    key: str = Field(pattern=Z85_KEY)
    """CURVE public key, Z85, as ``inspector keygen`` prints it."""
    roles: tuple[Role, ...] = Field(min_length=1)


class Security(FrozenModel):
    """Keys. Without them all sockets stay on loopback, where every program may do everything."""

    secret_key: Path | None = None
    """The station's CURVE secret key, made by ``inspector keygen``."""
    peers: dict[Annotated[str, Field(pattern=NAME)], Peer] = {}
    bundle_keys: tuple[Path, ...] = ()
    """Ed25519 public keys; if there are any, a bundle must be signed by one of them."""


class JournalSettings(FrozenModel):
    """The record of every verdict, and the pictures kept beside it."""

    folder: Path | None = None
    """Default: ``$STATE_DIRECTORY`` under systemd, else a folder in the user's state folder."""
    verdict_days: Whole = Field(default=365, ge=1, le=36_500)
    pictures_mb: Whole = Field(default=2000, ge=0, le=10_000_000)
    """Limit for all pictures together; the oldest of passed parts go first. 0: none are kept."""
    pictures_days: Whole = Field(default=30, ge=1, le=36_500)
    pass_share: Number = Field(default=0.01, ge=0, le=1)
    """Share of passed parts whose picture is kept; of other parts every one is."""
    reserve_mb: Whole = Field(default=500, ge=1, le=1_000_000)
    """With less space left on the disk no picture is written: the rest is for the journal."""


class SelfTest(FrozenModel):
    """A known defect sent through the station from time to time."""

    every_s: Number = Field(default=3600.0, ge=0, le=1_000_000)
    """0: never."""
    defect: Path | None = None
    """Photo of a defective part at camera size; default: the bundle's own golden defect."""


class Drift(FrozenModel):
    """The watch over the scores of good parts, which drift when the line changes."""

    parts_between_false_alarms: Whole = Field(default=100_000, ge=0, le=1_000_000_000)
    """Mean number of good parts between two false alarms, at least; 0: no watch."""


class Alarm(FrozenModel):
    """The watch over the shares of parts that FAIL and that FAULT, for each camera by itself."""

    fail_share: Number = Field(default=0.2, gt=0, lt=1)
    """Share of judged parts that may FAIL without an alarm."""
    fault_share: Number = Field(default=0.02, gt=0, lt=1)
    """Share of parts that may be a FAULT without an alarm."""
    parts_between_false_alarms: Whole = Field(default=100_000, ge=0, le=1_000_000_000)
    """Mean number of parts between two false alarms, at least; 0: no watch."""


class Station(FrozenModel):
    """A station file: cameras, recipes, sockets, and everything else (docs/station.md)."""

    documented_in: ClassVar[str] = "docs/station.md"
    start_from: ClassVar[str] = "write one with 'inspector init {file}'"

    station: str = Field(pattern=NAME)
    provider: Provider = "auto"
    threads: Whole = Field(default=0, ge=0, le=256)
    """Inference threads; 0: all cores but one, or both of two."""
    queue_size: Whole = Field(default=8, ge=1, le=1000)
    """Frames of each camera that may wait to be judged; one more is a FAULT, never dropped."""
    repeat_window_s: Number = Field(default=60.0, ge=0, le=86_400)
    """So long after its verdict a trigger that is repeated gets the verdict again."""
    stale_trigger_ms: Whole = Field(default=500, ge=1, le=3_600_000)
    """A trigger that says when it was sent, and is older than this on arrival, gets no picture."""
    batching: Literal["never", "auto"] = "never"
    """``auto``: parts of cameras that share a bundle are judged in batches where these are measured
    to be quicker; a start and a changeover then take some seconds more."""
    load_timeout_s: Number = Field(default=READ_TIMEOUT_S, ge=1, le=600)
    """Longest time that a bundle's file may take to be read, at a start and at a changeover."""
    sockets: Sockets = Sockets(queries=QUERIES)
    security: Security = Security()
    journal: JournalSettings = JournalSettings()
    self_test: SelfTest = SelfTest()
    drift: Drift = Drift()
    alarm: Alarm = Alarm()
    metrics: str | None = Field(default=None, pattern=METRICS_ADDRESS)
    """Address of the Prometheus metrics, such as 127.0.0.1:9464; loopback only."""
    cameras: tuple[CameraConfig, ...] = Field(min_length=1)
    recipes: dict[Annotated[str, Field(pattern=NAME)], dict[str, CameraRecipe]] = Field(
        min_length=1
    )
    recipe: str
    """The recipe that a new journal begins with; later starts go on with the one in force."""

    @model_validator(mode="after")
    def _cross_check(self) -> Station:
        names = [camera.name for camera in self.cameras]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise Misplaced(
                    ("cameras", number, "name"),
                    f"two cameras are called {name}; give each its own name",
                )
        if self.recipe not in self.recipes:
            raise Misplaced(
                ("recipe",),
                f"'{self.recipe}' is not among the recipes {', '.join(sorted(self.recipes))}",
            )
        for recipe, per_camera in self.recipes.items():
            if set(per_camera) != set(names):
                # The error points at an unknown camera, or at the recipe if one is missing.
                unknown = next((name for name in per_camera if name not in names), None)
                raise Misplaced(
                    ("recipes", recipe, *(() if unknown is None else (unknown,))),
                    f"this recipe is for cameras {', '.join(sorted(per_camera)) or 'none'}; the "
                    f"station has {', '.join(sorted(names))}",
                )
        if self.sockets.beyond_loopback and self.security.secret_key is None:
            raise Misplaced(
                ("sockets", self.sockets.beyond_loopback[0]),
                "can be reached from other machines, which needs keys: run 'inspector keygen', "
                "then set security.secret_key and security.peers; or stay on 127.0.0.1",
            )
        return self

    @property
    def state_folder(self) -> Path:
        """The folder of journal and pictures."""
        return self.journal.folder or state_folder(self.station)

    @property
    def bundles_folder(self) -> Path:
        """The folder of the bundles that were installed by command, each named by its SHA-256."""
        return self.state_folder / "installed"

    def installed(self, sha256: str) -> Path:
        """Where the bundle of this SHA-256 (hex) lies, if it was sent."""
        return self.bundles_folder / f"{sha256}.onnx"

    def is_installed(self, recipe: str, camera: str) -> bool:
        """True where a bundle that was installed by command judges ``camera`` under ``recipe``."""
        bundle = self.recipes[recipe][camera].bundle
        return bundle == self.installed(bundle.stem) and bool(re.fullmatch(SHA256, bundle.stem))

    def with_bundle(self, recipe: str, camera: str, bundle: Path) -> Station:
        """The same station, with another ``bundle`` of ``camera`` under ``recipe``.

        Raises KeyError for a recipe or camera that it does not have.
        """
        return self._with(recipe, camera, {"bundle": bundle})

    def with_limit(self, recipe: str, camera: str, limit_factor: float) -> Station:
        """The same station, with another ``limit_factor`` of ``camera`` under ``recipe``.

        Raises KeyError for a recipe or camera that it does not have.
        """
        return self._with(recipe, camera, {"limit_factor": limit_factor})

    def _with(self, recipe: str, camera: str, changes: dict[str, Any]) -> Station:
        per_camera = self.recipes[recipe]
        changed = per_camera[camera].model_copy(update=changes)
        recipes = self.recipes | {recipe: per_camera | {camera: changed}}
        return self.model_copy(update={"recipes": recipes})

    def active(self, camera: str) -> CameraRecipe:
        """What ``recipe`` sets for ``camera``."""
        return self.recipes[self.recipe][camera]


def state_folder(station: str) -> Path:
    """Folder of journal and pictures of the station called so, unless its file names another."""
    under_systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if under_systemd:
        return Path(under_systemd)
    return user_state_path("line-inspector") / station


def load_station(path: Path, read: Callable[[Path], bytes] | None = None) -> Station:
    """Read a station file; its relative paths are relative to its folder.

    ``read`` gets the file's bytes, for a caller that does not wait for a disk that hangs. Raises
    :class:`ConfigError`, or :class:`Problems` with a :class:`ConfigError` for each wrong key if
    there are several.
    """
    station = load_yaml(path, Station) if read is None else load_yaml(path, Station, read=read)
    return cast(Station, _resolve(station, path.resolve().parent))


def _resolve(value: Any, base: Path) -> Any:
    """``value`` with ``base`` before each relative path in it, at any depth."""
    if isinstance(value, Path):
        return value if value.is_absolute() else base / value
    if isinstance(value, CameraBase):
        value = value.beside(base)
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={name: _resolve(getattr(value, name), base) for name in type(value).model_fields}
        )
    if isinstance(value, dict):
        return {key: _resolve(item, base) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_resolve(item, base) for item in value)
    return value
