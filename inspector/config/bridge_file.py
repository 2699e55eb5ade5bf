"""The file of a bridge to a PLC as frozen models (docs/plc/)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from inspector.config.addresses import COMMANDS, PEER, VERDICTS
from inspector.config.yaml_file import NAME, FrozenModel, Misplaced, Number, Whole, load_yaml

MOST_CAMERAS = 16

_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})")


PeerAddress = Annotated[str, Field(pattern=PEER)]
"""A station's socket, as whoever connects to it writes it."""


class StationAddress(FrozenModel):
    """Where the station is, and the keys to reach it."""

    commands: PeerAddress = COMMANDS
    key: Path | None = None
    """The bridge's own secret key, made by ``inspector keygen``; None: loopback without keys."""
    station_key: Path | None = None
    """The station's public key."""

    @model_validator(mode="after")
    def _both_or_none(self) -> StationAddress:
        if (self.key is None) != (self.station_key is None):
            name = "key" if self.key is None else "station_key"
            raise Misplaced((name,), "missing; a station with keys needs key and station_key")
        return self


class CountedStation(StationAddress):
    """Where the station is, and where it publishes."""

    verdicts: PeerAddress = VERDICTS
    """Used with ``hardware_trigger`` alone."""


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("must be an IP address or network, such as 10.0.3.0/24") from None
    return value


class RegisterBridge(FrozenModel):
    """What a bridge needs whose PLC speaks the handshake of registers, as server or as client."""

    bridge: Literal["modbus"]
    station: StationAddress = StationAddress()
    cameras: tuple[Annotated[str, Field(pattern=NAME)], ...] = Field(
        min_length=1, max_length=MOST_CAMERAS
    )
    """Names of the station's cameras, in the order of their blocks of registers."""
    recipes: dict[Annotated[int, Field(strict=True, ge=1, le=65_535)], str] = {}
    """The PLC's number of each recipe; 0 is none."""
    results: Literal["in_order", "latest"] = "in_order"
    """``latest``: the newest result replaces the one before, and none is acknowledged."""
    result_timeout_ms: Whole = Field(default=1000, ge=10, le=60_000)
    """After this a part without a verdict is a FAULT ``deadline_missed``."""
    heartbeat_s: Number = Field(default=1.0, ge=0.2, le=60)
    """Within this time the PLC sees that the station cannot judge."""
    plc_heartbeat_s: Number = Field(default=1.0, ge=0, le=60)
    """Longest time without a change of the PLC's Heartbeat; 0: the PLC is not supervised."""
    word_order: Literal["high_first", "low_first"] = "high_first"
    byte_order: Literal["high_first", "low_first"] = "high_first"
    text_order: Literal["high_first", "low_first"] = "high_first"

    @model_validator(mode="after")
    def _refuse_doubles(self) -> RegisterBridge:
        refuse_doubles({"cameras": self.cameras, "recipes": tuple(self.recipes.values())})
        return self


class ModbusBridge(RegisterBridge):
    """A Modbus TCP server for PLCs, in front of one station."""

    documented_in: ClassVar[str] = "docs/plc/modbus.md"
    start_from: ClassVar[str] = (
        "write the examples with 'inspector examples DIR' and copy bridge-modbus.yaml"
    )

    station: CountedStation = CountedStation()
    role: Literal["server"] = "server"
    """``server``; files of the other roles have other keys (inspector/config/modbus_client.py)."""
    listen: str = "127.0.0.1:1502"
    """HOST:PORT; port 502 is that of the standard, and needs the right to bind it."""
    readers: tuple[str, ...] = ("127.0.0.1",)
    """IP addresses and networks that may read."""
    writers: tuple[str, ...] = ("127.0.0.1",)
    """IP addresses and networks that may read and write."""
    connections: Whole = Field(default=32, ge=1, le=1000)
    """How many may be open at once; one more is closed."""
    hardware_trigger: tuple[str, ...] = ()
    """Those of ``cameras`` that a line triggers: the PLC counts its edges, and tells each part."""
    hardware_window_ms: Whole = Field(default=100, ge=1, le=10_000)
    """Longest time between the PLC's word of an edge and its picture: below half between parts."""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        return host_and_port(value, 1502)

    @field_validator("readers", "writers")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_network(one) for one in value)

    @model_validator(mode="after")
    def _cross_check(self) -> ModbusBridge:
        unknown = [one for one in self.hardware_trigger if one not in self.cameras]
        if unknown:
            known = ", ".join(self.cameras)
            why = f"'{unknown[0]}' is none of cameras; name one of {known}"
            raise Misplaced(("hardware_trigger",), why)
        if not self.writers:
            raise Misplaced(("writers",), "is empty; name the address of the PLC")
        return self

    @property
    def host_and_port(self) -> tuple[str, int]:
        """What ``listen`` says, apart."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class OpcuaUser(FrozenModel):
    """Somebody who may log in to an OPC UA bridge."""

    password_file: Path
    """A file that nobody else can read, made by ``inspector keygen --opcua --user NAME``."""
    roles: frozenset[Literal["read", "trigger", "operate"]] = Field(min_length=1)


class OpcuaBridge(FrozenModel):
    """An OPC UA server for PLCs, in front of one station."""

    documented_in: ClassVar[str] = "docs/plc/opc-ua.md"
    start_from: ClassVar[str] = (
        "write the examples with 'inspector examples DIR' and copy bridge-opcua.yaml"
    )

    bridge: Literal["opcua"]
    station: StationAddress = StationAddress()
    listen: str = "127.0.0.1:4840"
    pki: Path | None = None
    """Folder of certificates, made by ``inspector keygen --opcua``; None: loopback, no security."""
    users: dict[Annotated[str, Field(pattern=NAME)], OpcuaUser] = {}
    connections: Whole = Field(default=32, ge=1, le=1000)
    """How many may be open at once; one more is closed."""
    cameras: tuple[Annotated[str, Field(pattern=NAME)], ...] = Field(
        min_length=1, max_length=MOST_CAMERAS
    )
    """Names of the station's cameras; each is a VisionSystem."""
    recipes: tuple[str, ...] = ()
    """Names of the station's recipes that clients may prepare."""
    result_timeout_ms: Whole = Field(default=1000, ge=10, le=60_000)
    """After this a part without a verdict is a FAULT ``deadline_missed``."""
    heartbeat_s: Number = Field(default=1.0, ge=0.2, le=60)
    """Within this time a client sees that the station cannot judge."""
    nodeset: Path | None = None
    """The OPC Foundation's own file of the Machine Vision specification, in place of our subset."""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        return host_and_port(value, 4840)

    @model_validator(mode="after")
    def _cross_check(self) -> OpcuaBridge:
        refuse_doubles({"cameras": self.cameras, "recipes": self.recipes})
        host = self.host_and_port[0]
        if self.pki is None and not _is_loopback(host):
            raise Misplaced(("pki",), "missing; without certificates 'listen' must be loopback")
        if self.pki is None and self.users:
            raise Misplaced(("pki",), "missing; passwords need it, since it encrypts them")
        if self.pki is not None and not self.users:
            raise Misplaced(("users",), "missing; with 'pki' nobody may come in without a name")
        return self

    @property
    def host_and_port(self) -> tuple[str, int]:
        """What ``listen`` says, apart."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def host_and_port(value: str, example: int) -> str:
    """``value`` if it is HOST:PORT. Raises ValueError, which names ``example`` as a port."""
    found = _LISTEN.fullmatch(value)
    if found is None or int(found[2]) > 65_535:
        raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:{example}")
    return value


def refuse_doubles(lists: dict[str, tuple[str, ...]]) -> None:
    """Raise :class:`Misplaced` where one of these keys names something twice."""
    for name, named in lists.items():
        double = next((one for one in named if named.count(one) > 1), None)
        if double is not None:
            raise Misplaced((name,), f"'{double}' stands twice; keep one")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_bridge(path: Path) -> ModbusBridge:
    """Read the file of a Modbus bridge. Raises :class:`ConfigError` or :class:`Problems`."""
    return load_yaml(path, ModbusBridge, numbered=frozenset({"recipes"}))


def load_opcua_bridge(path: Path) -> OpcuaBridge:
    """Read the file of an OPC UA bridge. Raises :class:`ConfigError` or :class:`Problems`."""
    return load_yaml(path, OpcuaBridge)


def fieldbus_of(path: Path) -> str | None:
    """What the key ``bridge`` of a bridge's file says; None for other and unreadable files."""
    try:
        if not path.is_file():
            return None
        text = path.read_text(encoding="utf-8", errors="replace")[:65_536]
    except OSError:
        return None
    found = re.search(r"^bridge\s*:\s*([^\s#]*)", text, re.MULTILINE)
    return None if found is None else found[1].strip("'\"")
