"""``bridge``: let PLCs trigger parts and read verdicts, and publish verdicts to a broker."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from inspector import logs
from inspector.bridges.registers import as_csv, as_markdown
from inspector.client.keys import ClientKeys
from inspector.config.bridge_file import StationAddress, load_bridge
from inspector.config.mqtt_bridge import MqttBridge
from inspector.config.yaml_file import load_yaml
from inspector.errors import ConfigError
from inspector.version import install_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bridge``."""
    parser.add_argument("fieldbus", choices=["modbus", "mqtt"])
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.yaml")
    parser.add_argument(
        "--map", action="store_true", help="print the register map as tables, and end"
    )
    parser.add_argument("--csv", action="store_true", help="with --map: as CSV")


def run(options: argparse.Namespace) -> int:
    """Run a bridge until it is stopped, or print its register map; 0.

    Raises :class:`StartupError`.
    """
    if options.fieldbus == "mqtt":
        return _run_mqtt(options)
    if options.map:
        cameras = ("top",) if options.file is None else load_bridge(options.file).cameras
        print(as_csv(cameras) if options.csv else as_markdown(cameras), end="")
        return 0
    config = load_bridge(_file(options))
    keys = load_keys(config.station)
    require_pymodbus("bridge")
    from inspector.bridges import modbus

    logs.to_stderr()
    modbus.run(config, keys)
    return 0


def _run_mqtt(options: argparse.Namespace) -> int:
    if options.map or options.csv:
        raise ConfigError("bridge mqtt: has no register map; docs/plc/mqtt.md has its topics")
    config = load_yaml(_file(options), MqttBridge)
    keys = load_keys(config.station)
    require_mqtt("bridge")
    from inspector.bridges import broker, mqtt, position

    access = broker.Access.load(config)
    since_us = time.time_ns() // 1000 if config.begin == "now" else 0
    state = position.PositionFile(config.state, since_us)
    logs.to_stderr()
    try:
        mqtt.run(config, access, keys, state)
    finally:
        state.close()
    return 0


def _file(options: argparse.Namespace) -> Path:
    if options.file is None:
        raise ConfigError("bridge: names no FILE.yaml; 'inspector examples DIR' writes one")
    found: Path = options.file
    return found


def load_keys(station: StationAddress) -> ClientKeys | None:
    """The keys that the bridge's file names, None for none. Raises :class:`SecretError`."""
    if station.key is None or station.station_key is None:
        return None
    return ClientKeys.load(station.key, station.station_key)


def require_pymodbus(what: str) -> None:
    """Raise :class:`ConfigError` where pymodbus is not installed."""
    _require(what, "modbus", "pymodbus")


def require_mqtt(what: str) -> None:
    """Raise :class:`ConfigError` where aiomqtt or protobuf is not installed."""
    _require(what, "mqtt", "aiomqtt", "google.protobuf")


def _require(what: str, extra: str, *modules: str) -> None:
    from importlib.util import find_spec

    for module in modules:
        top = module.partition(".")[0]
        if find_spec(top) is None or find_spec(module) is None:
            raise ConfigError(
                f"{what}: needs {module}, which is not installed; run {install_command(extra)}"
            )
