"""The file of a bridge to an MQTT broker as frozen models (docs/plc/mqtt.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from inspector.config.addresses import IMAGES, PORT, VERDICTS
from inspector.config.bridge_file import PeerAddress, StationAddress
from inspector.config.yaml_file import NAME, FrozenModel, Misplaced, Number, Whole, load_yaml

SPARKPLUG = "spBv1.0"
"""What every topic of Sparkplug B begins with."""

_BROKER = re.compile(rf"(\[[0-9a-fA-F:.]+\]|[\w.-]+):({PORT})")
_TOPIC = r"^[^#+/$\s\x00-\x1f\x7f](?:[^#+\x00-\x1f\x7f]*[^#+/\x00-\x1f\x7f])?$"


class PublishingStation(StationAddress):
    """Where the station is, and where it publishes."""

    verdicts: PeerAddress = VERDICTS
    images: PeerAddress = IMAGES
    """Used with ``heatmaps`` alone."""


class Tls(FrozenModel):
    """By what the broker is known, and what it knows the bridge by."""

    ca: Path | None = None
    """PEM file of the authority that signed the broker's certificate; None: the system's."""
    certificate: Path | None = None
    """The bridge's own certificate (PEM), for a broker that asks for one."""
    key: Path | None = None
    """The secret key of ``certificate`` (PEM), which nobody else may read."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            name = "key" if self.key is None else "certificate"
            raise Misplaced((name,), "missing; a client certificate needs certificate and key")
        return self


class Commands(FrozenModel):
    """Which commands are taken from the broker."""

    trigger: bool = False
    recipe: bool = False

    @property
    def any(self) -> bool:
        """True when one of them is."""
        return self.trigger or self.recipe


class SparkplugNames(FrozenModel):
    """What the bridge is called in Sparkplug's topics."""

    group: Annotated[str, Field(pattern=NAME)]
    node: Annotated[str, Field(pattern=NAME)]


class MqttBridge(FrozenModel):
    """A bridge that publishes one station's verdicts to a broker."""

    documented_in: ClassVar[str] = "docs/plc/mqtt.md"
    start_from: ClassVar[str] = (
        "write the examples with 'inspector examples DIR' and copy bridge-mqtt.yaml"
    )

    bridge: Literal["mqtt"]
    station: PublishingStation = PublishingStation()
    broker: str = "127.0.0.1:1883"
    """HOST:PORT; 8883 is usual with ``tls``."""
    tls: Tls | None = None
    """None: not encrypted."""
    user: str | None = Field(default=None, min_length=1, max_length=256)
    password_file: Path | None = None
    """File that holds the password alone, and that nobody else may read."""
    client_id: Annotated[str, Field(pattern=NAME)] = "line-inspector"
    """The bridge's name at the broker, which no other client may have."""
    topic: str = Field(default="inspector/line-1", pattern=_TOPIC, max_length=200)
    """What every topic begins with."""
    state: Path
    """The bridge's own file: the last verdict that the broker acknowledged."""
    begin: Literal["now", "journal"] = "now"
    """Where the first start begins: with new verdicts, or with all that the journal has."""
    heatmaps: bool = False
    in_flight: Whole = Field(default=10, ge=1, le=1000)
    """Messages under way without an acknowledgement."""
    timeout_s: Number = Field(default=10, ge=1, le=300)
    """So long one acknowledgement is waited for; then the connection is made anew."""
    keepalive_s: Whole = Field(default=10, ge=5, le=3600)
    """After one and a half times this the broker takes a silent bridge for gone."""
    commands: Commands = Commands()
    sparkplug: SparkplugNames | None = None

    @field_validator("broker")
    @classmethod
    def _address(cls, value: str) -> str:
        if _BROKER.fullmatch(value) is None:
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:1883")
        return value

    @model_validator(mode="after")
    def _cross_check(self) -> MqttBridge:
        if self.password_file is not None and self.user is None:
            raise Misplaced(("user",), "missing; a password needs the name of its user")
        return self

    @property
    def host_and_port(self) -> tuple[str, int]:
        """What ``broker`` says, apart."""
        host, _, port = self.broker.rpartition(":")
        return host.strip("[]"), int(port)


def load_mqtt_bridge(path: Path) -> MqttBridge:
    """Read the file of an MQTT bridge. Raises :class:`ConfigError` or :class:`Problems`."""
    return load_yaml(path, MqttBridge)
