"""``bridge``: let PLCs trigger parts and read verdicts, and publish verdicts to a broker."""

from __future__ import annotations

import argparse
import time
from importlib import util
from pathlib import Path
from typing import Final

from inspector import logs
from inspector.bridges.registers import as_csv, as_markdown
from inspector.client.keys import ClientKeys
from inspector.config.bridge_file import (
    OpcuaBridge,
    StationAddress,
    fieldbus_of,
    load_opcua_bridge,
)
from inspector.config.modbus_client import PolledBridge, RemoteIoBridge, load_modbus
from inspector.config.mqtt_bridge import load_mqtt_bridge
from inspector.errors import ConfigError
from inspector.version import install_command

_PACKAGES: Final = {
    "modbus": ("pymodbus",),
    "opcua": ("asyncua",),
    "mqtt": ("aiomqtt", "google.protobuf"),
}
"""What each bridge imports beyond what is always installed; its extra has its name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bridge``."""
    parser.add_argument(
        "fieldbus", choices=[*_PACKAGES, "auto"], help="auto: the one that the file names"
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.yaml")
    parser.add_argument(
        "--map", action="store_true", help="print Modbus' register map as tables, and end"
    )
    parser.add_argument("--csv", action="store_true", help="with --map: as CSV")


def run(options: argparse.Namespace) -> int:
    """Run a bridge until it is stopped, or print the register map; 0.

    Raises :class:`StartupError`.
    """
    fieldbus, path = options.fieldbus, options.file
    if fieldbus == "auto" and path is not None:
        # A fieldbus that there is not is refused like any other wrong value of a key.
        named = fieldbus_of(path)
        fieldbus = named if named in _PACKAGES else "modbus"
    if options.map or options.csv:
        if fieldbus != "modbus":
            raise ConfigError(f"bridge {fieldbus}: has no registers; leave --map and --csv out")
        print(_map(path, options.csv), end="")
    elif path is None:
        raise ConfigError("bridge: names no FILE.yaml; 'inspector examples DIR' writes one")
    else:
        {"modbus": _run_modbus, "opcua": _run_opcua, "mqtt": _run_mqtt}[fieldbus](path)
    return 0


def _map(path: Path | None, csv: bool) -> str:
    """The register map of a file's cameras, or of one. Raises :class:`ConfigError`."""
    cameras: tuple[str, ...] = ("top",)
    offset = None
    if path is not None:
        config = load_modbus(path)
        if isinstance(config, RemoteIoBridge):
            raise ConfigError(f"{path}: role: remote_io has coils alone; leave --map and --csv out")
        cameras = config.cameras
        offset = config.offset if isinstance(config, PolledBridge) else None
    return (as_csv if csv else as_markdown)(cameras, offset)


def _run_modbus(path: Path) -> None:
    config = load_modbus(path)
    keys = load_keys(config.station)
    require("bridge", "modbus")
    logs.to_stderr()
    if isinstance(config, RemoteIoBridge):
        from inspector.bridges import remote_io

        remote_io.run(config, keys)
    elif isinstance(config, PolledBridge):
        from inspector.bridges import polled_plc

        polled_plc.run(config, keys)
    else:
        from inspector.bridges import modbus

        modbus.run(config, keys)


def _run_opcua(path: Path) -> None:
    config = load_opcua_bridge(path)
    keys = load_keys(config.station)
    require("bridge", "opcua")
    from inspector.bridges import opcua

    passwords = load_passwords(config)
    logs.to_stderr()
    opcua.run(config, keys, passwords)


def _run_mqtt(path: Path) -> None:
    config = load_mqtt_bridge(path)
    keys = load_keys(config.station)
    require("bridge", "mqtt")
    from inspector.bridges import broker, mqtt, position

    access = broker.Access.load(config)
    since_us = time.time_ns() // 1000 if config.begin == "now" else 0
    state = position.PositionFile(config.state, since_us)
    logs.to_stderr()
    try:
        mqtt.run(config, access, keys, state)
    finally:
        state.close()


def load_passwords(config: OpcuaBridge) -> dict[str, tuple[str, frozenset[str]]]:
    """Password and roles of each user. Raises :class:`SecretError`."""
    from inspector.bridges.opcua_security import read_password

    return {
        name: (read_password(user.password_file), frozenset(user.roles))
        for name, user in config.users.items()
    }


def load_keys(station: StationAddress) -> ClientKeys | None:
    """The keys that the bridge's file names, None for none. Raises :class:`SecretError`."""
    if station.key is None or station.station_key is None:
        return None
    return ClientKeys.load(station.key, station.station_key)


def require(what: str, fieldbus: str) -> None:
    """Raise :class:`ConfigError` where a package is missing that this fieldbus' bridge needs."""
    for module in _PACKAGES[fieldbus]:
        top = module.partition(".")[0]
        if util.find_spec(top) is None or util.find_spec(module) is None:
            raise ConfigError(
                f"{what}: needs {module}, which is not installed; run {install_command(fieldbus)}"
            )
