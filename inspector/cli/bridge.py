"""``bridge``: let PLCs trigger parts and read verdicts."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspector import logs
from inspector.bridges.registers import as_csv, as_markdown
from inspector.client.keys import ClientKeys
from inspector.config.bridge_file import (
    ModbusBridge,
    OpcuaBridge,
    load_bridge,
    load_opcua_bridge,
)
from inspector.errors import ConfigError
from inspector.version import install_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bridge``."""
    parser.add_argument("fieldbus", choices=["modbus", "opcua"])
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.yaml")
    parser.add_argument(
        "--map", action="store_true", help="print the register map as tables, and end"
    )
    parser.add_argument("--csv", action="store_true", help="with --map: as CSV")


def run(options: argparse.Namespace) -> int:
    """Run a bridge until it is stopped, or print its register map; 0.

    Raises :class:`StartupError`.
    """
    if options.fieldbus == "opcua" and (options.map or options.csv):
        raise ConfigError("bridge: --map is Modbus', which has registers; leave it out")
    if options.map:
        cameras = ("top",) if options.file is None else load_bridge(options.file).cameras
        print(as_csv(cameras) if options.csv else as_markdown(cameras), end="")
        return 0
    if options.file is None:
        raise ConfigError("bridge: names no FILE.yaml; 'inspector examples DIR' writes one")
    if options.fieldbus == "opcua":
        _run_opcua(load_opcua_bridge(options.file))
        return 0
    config = load_bridge(options.file)
    keys = load_keys(config)
    require_pymodbus("bridge")
    from inspector.bridges import modbus

    logs.to_stderr()
    modbus.run(config, keys)
    return 0


def _run_opcua(config: OpcuaBridge) -> None:
    keys = load_keys(config)
    require_asyncua("bridge")
    from inspector.bridges import opcua

    passwords = load_passwords(config)
    logs.to_stderr()
    opcua.run(config, keys, passwords)


def load_passwords(config: OpcuaBridge) -> dict[str, tuple[str, frozenset[str]]]:
    """Password and roles of each user. Raises :class:`SecretError`."""
    from inspector.bridges.opcua_security import read_password

    return {
        name: (read_password(user.password_file), frozenset(user.roles))
        for name, user in config.users.items()
    }


def load_keys(config: ModbusBridge | OpcuaBridge) -> ClientKeys | None:
    """The keys that the bridge's file names, None for none. Raises :class:`SecretError`."""
    station = config.station
    if station.key is None or station.station_key is None:
        return None
    return ClientKeys.load(station.key, station.station_key)


def require_pymodbus(what: str) -> None:
    """Raise :class:`ConfigError` where pymodbus is not installed."""
    from importlib.util import find_spec

    if find_spec("pymodbus") is None:
        raise ConfigError(
            f"{what}: needs pymodbus, which is not installed; run {install_command('modbus')}"
        )


def require_asyncua(what: str) -> None:
    """Raise :class:`ConfigError` where asyncua is not installed."""
    from importlib.util import find_spec

    if find_spec("asyncua") is None:
        raise ConfigError(
            f"{what}: needs asyncua, which is not installed; run {install_command('opcua')}"
        )
