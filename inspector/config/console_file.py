"""The file of the operator's page as frozen models (docs/console.md)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from inspector.config.addresses import IMAGES, QUERIES, VERDICTS
from inspector.config.bridge_file import PeerAddress, StationAddress, host_and_port
from inspector.config.yaml_file import NAME, FrozenModel, Misplaced, Whole, load_yaml

MOST_STATIONS = 32

HOST: Final = r"^[A-Za-z0-9.-]{1,253}$|^\[?[0-9a-fA-F:.]{2,45}\]?$"
"""Pattern of a name or an address by which browsers reach the page, without a port."""


class ShownStation(StationAddress):
    """A station that the page shows: where it publishes, hears commands and answers queries."""

    verdicts: PeerAddress = VERDICTS
    images: PeerAddress = IMAGES
    queries: PeerAddress = QUERIES


class ServerTls(FrozenModel):
    """By what a browser knows the page."""

    certificate: Path
    """PEM file, with the whole chain."""
    key: Path
    """The secret key of ``certificate`` (PEM), which nobody else may read."""


class TrainingTools(FrozenModel):
    """By what the page trains and teaches."""

    program: Path | None = None
    """``inspector-model``; None: the one beside this program, or on the PATH."""
    precision: Literal["auto", "fp32", "mixed", "fp16", "int8"] = "fp32"
    """Of the bundles that are written; ``auto`` takes times, which say little beside a line."""
    runs: dict[Annotated[str, Field(pattern=NAME)], dict[str, dict[str, Path]]] = {}
    """Folders of the training runs of the bundles in use, by station, recipe and camera."""


class ConsoleFile(FrozenModel):
    """What ``inspector console`` needs."""

    documented_in: ClassVar[str] = "docs/console.md"
    start_from: ClassVar[str] = (
        "write the examples with 'inspector examples DIR' and copy console.yaml"
    )

    stations: dict[Annotated[str, Field(pattern=NAME)], ShownStation] = Field(
        min_length=1, max_length=MOST_STATIONS
    )
    """By the name that the page shows."""
    listen: str = "127.0.0.1:8080"
    """HOST:PORT; port 0: a free one. Beyond loopback ``tls`` and ``users`` are needed."""
    hosts: tuple[Annotated[str, Field(pattern=HOST)], ...] = ()
    """Names and addresses by which browsers reach the page, beside that of ``listen``."""
    tls: ServerTls | None = None
    """None: not encrypted."""
    users: Path | None = None
    """File of users, written by ``inspector console --add-user``; None: anybody is an engineer."""
    session_hours: Whole = Field(default=12, ge=1, le=720)
    """After this somebody who logged in must do so again."""
    idle_minutes: Whole = Field(default=60, ge=1, le=1440)
    """As long may an operator or engineer leave the page alone; a viewer as long as they like."""
    connections: Whole = Field(default=200, ge=4, le=10_000)
    """How many may be open at once; one more is refused."""
    state: Path | None = None
    """Folder for baskets, collected photos and training runs; None: those views only look."""
    training: TrainingTools = TrainingTools()

    shifts: tuple[Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")], ...] = Field(
        default=("00:00",), min_length=1, max_length=12
    )
    """When shifts begin, HH:MM by the local time of this machine, rising."""

    @field_validator("shifts")
    @classmethod
    def _rising(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("must rise, each time once, such as ['06:00', '14:00', '22:00']")
        return value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        return host_and_port(value, 8080)

    @model_validator(mode="after")
    def _cross_check(self) -> ConsoleFile:
        if not self.is_loopback:
            for name in ("tls", "users"):
                if getattr(self, name) is None:
                    why = "missing; beyond loopback the page needs tls and users"
                    raise Misplaced((name,), f"{why}, or listen: 127.0.0.1:8080")
        if self.stands_for_all and not self.hosts:
            why = f"missing; 'listen' is {self.listen}, which is no address that a browser names"
            raise Misplaced(("hosts",), f"{why}; add this machine's, such as [10.0.3.7]")
        if unknown := self.training.runs.keys() - self.stations.keys():
            raise Misplaced(
                ("training", "runs", min(unknown)),
                f"no such station; there are {', '.join(self.stations)}",
            )
        return self

    @property
    def host_and_port(self) -> tuple[str, int]:
        """What ``listen`` says, apart."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_loopback(self) -> bool:
        """True when no other machine reaches the page."""
        host = self.host_and_port[0]
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def stands_for_all(self) -> bool:
        """True when ``listen`` means every address of this machine."""
        try:
            return ipaddress.ip_address(self.host_and_port[0]).is_unspecified
        except ValueError:
            return False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name and address by which browsers may reach the page, in small letters."""
        found = [one.strip("[]") for one in self.hosts]
        if not self.stands_for_all:
            found.append(self.host_and_port[0])
        if self.is_loopback or self.stands_for_all:
            found += ["localhost", "127.0.0.1", "::1"]
        return tuple(dict.fromkeys(one.lower() for one in found))


def load_console(path: Path) -> ConsoleFile:
    """Read the file of the page. Raises :class:`ConfigError` or :class:`Problems`.

    ``state`` is absolute, as seen from where this process is: its jobs run in other folders.
    """
    config = load_yaml(path, ConsoleFile)
    if config.state is None:
        return config
    return config.model_copy(update={"state": config.state.absolute()})


def is_console(path: Path) -> bool:
    """True for the file of a page, by its key ``stations``; False for what cannot be read."""
    try:
        if not path.is_file():
            return False
        text = path.read_text(encoding="utf-8", errors="replace")[:65_536]
    except OSError:
        return False
    return re.search(r"^stations\s*:", text, re.MULTILINE) is not None
