"""The station file: typed, frozen, refused with file, line and key before a camera opens."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from platformdirs import user_state_path
from pydantic import (
    BaseModel,
    Field,
    field_validator,
    model_validator,
)

from inspector.config.addresses import COMMANDS, IMAGES, LOOPBACK, PORT, VERDICTS
from inspector.config.cameras import CameraBase, CameraConfig
from inspector.config.yaml_file import (
    METRICS_ADDRESS,
    NAME,
    Z85_KEY,
    Frozen,
    Misplaced,
    Number,
    Whole,
    load_yaml,
)
from inspector.imaging.geometry import Box
from inspector.verdict import LIMIT_FACTOR_RANGE

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]


class CameraRecipe(Frozen):
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


class Sockets(Frozen):
    """Where the station publishes and listens; beyond loopback only with keys."""

    verdicts: str = VERDICTS
    images: str = IMAGES
    commands: str = COMMANDS

    @field_validator("verdicts", "images", "commands")
    @classmethod
    def _address(cls, value: str) -> str:
        if re.fullmatch(rf"{LOOPBACK}|tcp://(\*|[\w.-]+|\[[0-9a-fA-F:.]+\]):({PORT}|\*)", value):
            return value
        raise ValueError("must be an address such as tcp://127.0.0.1:5555, or ipc://PATH")

    @model_validator(mode="after")
    def _apart(self) -> Sockets:
        taken: dict[str, str] = {}
        # Those that the file names come last: they are what can be changed.
        for name in sorted(self.addresses, key=lambda name: name in self.model_fields_set):
            address = self.addresses[name]
            if address in taken and not address.endswith(":*"):
                raise Misplaced(
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


class Peer(Frozen):
    """Who may connect, and what for."""

    key: str = Field(pattern=Z85_KEY)
    """CURVE public key, Z85, as ``inspector keygen`` prints it."""
    roles: tuple[Role, ...] = Field(min_length=1)


class Security(Frozen):
    """Keys. Without this section all sockets stay on loopback, and whoever connects may do all."""

    secret_key: Path | None = None
    """The station's CURVE secret key, made by ``inspector keygen``."""
    peers: dict[Annotated[str, Field(pattern=NAME)], Peer] = {}
    bundle_keys: tuple[Path, ...] = ()
    """Ed25519 public keys; where there are any, a bundle must be signed by one of them."""


class JournalSettings(Frozen):
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


class SelfTest(Frozen):
    """A known defect sent through the station from time to time."""

    every_s: Number = Field(default=3600.0, ge=0, le=1_000_000)
    """0: never."""
    defect: Path | None = None
    """Photo of a defective part at camera size; default: the bundle's own golden defect."""


class Drift(Frozen):
    """The watch over good parts' scores."""

    parts_between_false_alarms: Whole = Field(default=100_000, ge=0, le=1_000_000_000)
    """On average at least so many good parts lie between two false alarms; 0: no watch."""


class Station(Frozen):
    """One station: cameras, recipes, sockets."""

    documented_in: ClassVar[str] = "docs/station.md"

    station: str = Field(pattern=NAME)
    provider: Provider = "auto"
    threads: Whole = Field(default=0, ge=0, le=256)
    """Inference threads; 0: all cores but one, with two cores both."""
    queue_size: Whole = Field(default=8, ge=1, le=1000)
    """Frames that may wait for judgement, per camera; one more is a FAULT, never a silent drop."""
    batching: Literal["never", "auto"] = "never"
    """``auto``: parts of cameras that share a bundle are judged in batches where these are measured
    to be quicker; a start and a changeover then take some seconds more."""
    sockets: Sockets = Sockets()
    security: Security = Security()
    journal: JournalSettings = JournalSettings()
    self_test: SelfTest = SelfTest()
    drift: Drift = Drift()
    metrics: str | None = Field(default=None, pattern=METRICS_ADDRESS)
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
                # At a camera that the station has not, or where one is missing.
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


def _resolve(value: Any, base: Path) -> Any:
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
