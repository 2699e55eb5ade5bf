"""The files of Modbus bridges that are the client: of a PLC, or of remote I/O (docs/plc/)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from inspector.config.bridge_file import (
    ModbusBridge,
    RegisterBridge,
    StationAddress,
    host_and_port,
    load_bridge,
)
from inspector.config.yaml_file import NAME, FrozenModel, Misplaced, Number, Whole, load_yaml

_POLLS: Final = 3
"""Requests that must fit into the time of an output watchdog, or it would act at every delay."""

Address = Annotated[int, Field(strict=True, ge=0, le=65_535)]
"""Number of a register, input or coil, as it stands in the request: from 0."""


class ModbusDevice(FrozenModel):
    """How a Modbus server is reached whose client the bridge is."""

    connect: str
    """HOST:PORT of the PLC or of the remote I/O; 502 is the standard's port."""
    unit: Whole = Field(default=1, ge=0, le=255)
    """Unit number that stands in each request."""
    poll_ms: Whole = Field(default=5, ge=1, le=1000)
    """From one question to the next."""
    timeout_ms: Whole = Field(default=200, ge=10, le=10_000)
    """So long one answer is waited for; then the connection is made anew."""

    @field_validator("connect")
    @classmethod
    def _address(cls, value: str) -> str:
        return host_and_port(value, 502)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """What ``connect`` says, apart."""
        host, _, port = self.connect.rpartition(":")
        return host.strip("[]"), int(port)


class PolledBridge(RegisterBridge, ModbusDevice):
    """The handshake of registers with a PLC that is the server."""

    documented_in: ClassVar[str] = "docs/plc/modbus.md"
    start_from: ClassVar[str] = ModbusBridge.start_from

    role: Literal["client"]
    offset: Whole = Field(default=0, ge=-200, le=60_000)
    """Added to every address of the register map: -200 puts the first camera's block at 0."""


class Guard(FrozenModel):
    """What the module itself does against an output that stays on, and how that is told."""

    time_ms: Whole = Field(ge=10, le=60_000)
    """So long at most an output stays on without the bridge."""
    registers: dict[Address, Annotated[int, Field(strict=True, ge=0, le=65_535)]] = Field(
        min_length=1
    )
    """Registers of the module, and what stands there while the guard is on."""
    table: Literal["holding", "input"] = "holding"
    """``holding`` is function code 3, ``input`` is function code 4."""


class RemoteIoBridge(ModbusDevice):
    """A camera triggered by an input of remote I/O, and an ejector at its outputs."""

    documented_in: ClassVar[str] = "docs/plc/ejector.md"
    start_from: ClassVar[str] = (
        "write the examples with 'inspector examples DIR' and copy bridge-remote-io.yaml"
    )

    bridge: Literal["modbus"]
    role: Literal["remote_io"]
    station: StationAddress = StationAddress()
    camera: Annotated[str, Field(pattern=NAME)]
    trigger_input: Address
    """Discrete input of the sensor before the camera; its rising edge triggers."""
    belt_input: Address | None = None
    """Discrete input that is on while the belt runs."""
    encoder_register: Address | None = None
    """Register that counts the belt's way; of 32 bits the higher half stands first."""
    encoder_bits: Literal[16, 32] = 16
    encoder_table: Literal["holding", "input"] = "input"
    pass_coil: Address
    fail_coil: Address | None = None
    fault_coil: Address | None = None
    healthy_coil: Address | None = None
    """A square wave while parts can pass; a level that stands still means that they cannot."""
    pulse_ms: Whole = Field(default=100, ge=10, le=10_000)
    """So long at most a coil is on for one part."""
    delay_ms: Whole | None = Field(default=None, ge=1, le=600_000)
    """From the sensor to the ejector by time; None: the output comes with the verdict."""
    delay_pulses: Whole | None = Field(default=None, ge=1, le=1_000_000)
    """From the sensor to the ejector by the encoder."""
    tolerance_ms: Whole = Field(default=25, ge=1, le=5000)
    """An output later than this is not given, and inputs unseen for longer count for nothing."""
    tolerance_pulses: Whole = Field(default=10, ge=0, le=100_000)
    """The same by the encoder, which may also shake back by so much."""
    standstill_ms: Whole = Field(default=500, ge=10, le=60_000)
    """An encoder that counts nothing for this time stands still."""
    result_timeout_ms: Whole = Field(default=1000, ge=10, le=60_000)
    """Without a delay: a part whose verdict takes longer is no PASS."""
    heartbeat_s: Number = Field(default=1.0, ge=0.2, le=60)
    """Within this time the healthy coil stands still when the station cannot judge."""
    watchdog: Guard | None = None
    """The module's output watchdog: without requests it turns its outputs off."""
    module_pulse: Guard | None = None
    """The module's own pulse output: it turns the coil off by itself, whatever happens."""

    @model_validator(mode="after")
    def _cross_check(self) -> RemoteIoBridge:
        coils = {
            name: str(getattr(self, name))
            for name in ("pass_coil", "fail_coil", "fault_coil", "healthy_coil")
            if getattr(self, name) is not None
        }
        for name, value in coils.items():
            if list(coils.values()).count(value) > 1:
                raise Misplaced((name,), f"coil {value} is named twice; give each its own")
        if self.belt_input is not None and self.belt_input == self.trigger_input:
            raise Misplaced(("belt_input",), "is the input of the trigger; give it its own")
        self._check_delay()
        self._check_guards()
        return self

    def _check_delay(self) -> None:
        if self.delay_ms is not None and self.delay_pulses is not None:
            raise Misplaced(("delay_pulses",), "stands beside delay_ms; keep one")
        if self.delay_pulses is not None and self.encoder_register is None:
            raise Misplaced(("encoder_register",), "missing; delay_pulses counts by it")
        if self.delay_ms is not None and self.belt_input is None and self.encoder_register is None:
            raise Misplaced(
                ("belt_input",),
                "missing; a delay by time is right only while the belt runs, so name belt_input or "
                "encoder_register",
            )

    def _check_guards(self) -> None:
        if self.watchdog is None and self.module_pulse is None:
            raise Misplaced(
                ("watchdog",),
                "missing; a PASS coil would stay on when this bridge dies: name the module's "
                "output watchdog or its own pulse output (docs/plc/ejector.md)",
            )
        if self.watchdog is not None:
            least_ms = _POLLS * self.poll_ms
            if self.watchdog.time_ms < least_ms:
                raise Misplaced(
                    ("watchdog", "time_ms"),
                    f"must be at least {least_ms}, three times poll_ms, or the watchdog acts while "
                    f"all is well",
                )

    @property
    def cameras(self) -> tuple[str, ...]:
        """The one camera, as other bridges have a list of them."""
        return (self.camera,)


class _AnyRole(FrozenModel, extra="ignore"):
    """The key that says which of the models a file is."""

    start_from: ClassVar[str] = ModbusBridge.start_from

    role: Literal["server", "client", "remote_io"] = "server"


_NUMBERED: Final = frozenset({"recipes", "watchdog.registers", "module_pulse.registers"})
"""Mappings whose keys are numbers."""

ModbusRole = ModbusBridge | PolledBridge | RemoteIoBridge
"""The file of a Modbus bridge in any of its roles."""


def load_modbus(path: Path) -> ModbusRole:
    """Read the file of a Modbus bridge, whose key ``role`` says which keys it has.

    Raises :class:`ConfigError` or :class:`Problems`.
    """
    role = load_yaml(path, _AnyRole, numbered=_NUMBERED).role
    if role == "client":
        return load_yaml(path, PolledBridge, numbered=_NUMBERED)
    if role == "remote_io":
        return load_yaml(path, RemoteIoBridge, numbered=_NUMBERED)
    return load_bridge(path)
