"""``bridge``: let PLCs trigger parts and read verdicts."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspector import logs
from inspector.bridges.registers import as_csv, as_markdown
from inspector.client.keys import ClientKeys
from inspector.config.bridge_file import ModbusBridge, load_bridge
from inspector.errors import ConfigError
from inspector.version import install_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bridge``."""
    parser.add_argument("fieldbus", choices=["modbus"])
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.yaml")
    parser.add_argument(
        "--map", action="store_true", help="print the register map as tables, and end"
    )
    parser.add_argument("--csv", action="store_true", help="with --map: as CSV")


def run(options: argparse.Namespace) -> int:
    """Run a bridge until it is stopped, or print its register map; 0.

    Raises :class:`StartupError`.
    """
    if options.map:
        cameras = ("top",) if options.file is None else load_bridge(options.file).cameras
        print(as_csv(cameras) if options.csv else as_markdown(cameras), end="")
        return 0
    if options.file is None:
        raise ConfigError("bridge: names no FILE.yaml; 'inspector examples DIR' writes one")
    config = load_bridge(options.file)
    keys = load_keys(config)
    require_pymodbus("bridge")
    from inspector.bridges import modbus

    logs.to_stderr()
    modbus.run(config, keys)
    return 0


def load_keys(config: ModbusBridge) -> ClientKeys | None:
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
