"""``check`` of a bridge's file: keys, ports, certificates, the broker, the station behind it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from inspector.cli.bridge import load_keys, load_passwords, require
from inspector.cli.check_result import CheckResult, try_port, wrong, wrong_file
from inspector.client import ClientKeys, Commander, Subscriber
from inspector.config.bridge_file import ModbusBridge, OpcuaBridge, load_opcua_bridge
from inspector.config.modbus_client import PolledBridge, RemoteIoBridge, load_modbus
from inspector.config.mqtt_bridge import MqttBridge, load_mqtt_bridge
from inspector.errors import (
    CommandError,
    ConfigError,
    PortError,
    Problems,
    SecretError,
    StartupError,
    WireError,
)
from inspector.files import reason_of
from inspector.logs import Refusals
from inspector.wire.messages import StatusMessage

_ANSWER_S: Final = 3.0
_READINGS: Final = 21
"""Readings of remote I/O of which the median is told."""

PlcBridge = ModbusBridge | OpcuaBridge
ClientBridge = PolledBridge | RemoteIoBridge


def check_bridge(path: Path, fieldbus: str) -> Iterator[CheckResult]:
    """Try what a bridge's file names; ``fieldbus`` is what its key ``bridge`` says."""
    config: PlcBridge | ClientBridge | MqttBridge
    try:
        if fieldbus == "mqtt":
            config = load_mqtt_bridge(path)
        elif fieldbus == "opcua":
            config = load_opcua_bridge(path)
        else:
            # A fieldbus that there is not is refused like any other wrong value of a key.
            config = load_modbus(path)
    except (ConfigError, Problems) as refusal:
        yield from wrong_file(refusal)
        return
    if isinstance(config, MqttBridge):
        yield from _check_mqtt(config, path)
    elif isinstance(config, PolledBridge | RemoteIoBridge):
        yield from _check_client(config, path)
    else:
        yield from _check_plc(config, path, fieldbus)


def _check_plc(config: PlcBridge, path: Path, fieldbus: str) -> Iterator[CheckResult]:
    kind = "OPC UA" if isinstance(config, OpcuaBridge) else "Modbus TCP"
    yield CheckResult(
        "config",
        f"{path}: {kind} bridge at {config.listen}, {len(config.cameras)} camera(s), "
        f"{len(config.recipes)} recipe(s)",
    )
    try:
        require(str(path), fieldbus)
        if isinstance(config, OpcuaBridge):
            _try_certificates(config)
        keys = load_keys(config.station)
    except (ConfigError, SecretError) as problem:
        yield wrong("keys" if isinstance(problem, SecretError) else "packages", problem)
        return
    if isinstance(config, OpcuaBridge) and config.nodeset is not None:
        yield _check_nodeset(config.nodeset)
    try:
        try_port(*config.host_and_port)
        yield CheckResult("port", f"{config.listen} is free")
    except OSError as error:
        why = f"cannot be bound: {reason_of(error)} ({config.documented_in})"
        yield wrong("port", PortError(f"{config.listen}: {why}"))
    yield _check_station(config, keys, path)
    if isinstance(config, ModbusBridge) and config.hardware_trigger:
        yield _check_verdicts(config, keys)


def _check_verdicts(config: ModbusBridge, keys: ClientKeys | None) -> CheckResult:
    """Whether the station's publications arrive; it publishes its status once a second."""
    address = config.station.verdicts
    try:
        with Subscriber(address, keys=keys) as subscriber:
            if subscriber.receive(round(1000 * _ANSWER_S)) is not None:
                return CheckResult("verdicts", f"verdicts come from {address}")
        why = f"nothing came in {_ANSWER_S:g} s; look at station.verdicts, and at the role listen"
    except WireError as error:
        why = str(error)
    return wrong("verdicts", StartupError(f"{address}: {why}; a bridge waits for it, too"))


def _check_client(config: ClientBridge, path: Path) -> Iterator[CheckResult]:
    """Try a bridge that is the client of a PLC or of remote I/O."""
    what = "remote I/O" if isinstance(config, RemoteIoBridge) else "a PLC that is the server"
    yield CheckResult("config", f"{path}: Modbus TCP bridge to {what} at {config.connect}")
    try:
        require(str(path), "modbus")
        keys = load_keys(config.station)
    except (ConfigError, SecretError) as problem:
        yield wrong("keys" if isinstance(problem, SecretError) else "packages", problem)
        return
    yield from _check_device(config, path)
    yield _check_station(config, keys, path)


def _check_device(config: ClientBridge, path: Path) -> Iterator[CheckResult]:
    """Read what the bridge will read; of remote I/O, what turns a PASS off without the bridge."""
    from inspector.bridges.modbus_client import Device, DeviceError
    from inspector.bridges.registers import PLC, PLC_OFFSET, camera_base
    from inspector.bridges.remote_io import find_unguarded, read_inputs

    device = Device(config)
    try:
        device.connect()
        if isinstance(config, PolledBridge):
            for index in range(len(config.cameras)):
                at = camera_base(index) + PLC_OFFSET + config.offset
                device.read_registers(at, PLC[-1].at + 1)
            yield CheckResult("plc", f"{config.connect} answers, and has every block to read")
            return
        took_ms = sorted(_time_ms(lambda: read_inputs(device, config)) for _ in range(_READINGS))
        usual_ms = took_ms[_READINGS // 2]
        if usual_ms > config.tolerance_ms:
            yield wrong(
                "module",
                ConfigError(
                    f"{path}: tolerance_ms: {config.connect} takes {usual_ms:.1f} ms for one "
                    f"reading, so that no part would pass; set it higher, or use a faster module"
                ),
            )
        else:
            yield CheckResult(
                "module",
                f"{config.connect} answers, and has the inputs; one reading takes "
                f"{usual_ms:.1f} ms",
            )
        wrong_guard = find_unguarded(device, config)
    except DeviceError as error:
        yield wrong("device", StartupError(f"{path}: {error}; a bridge waits for it, too"))
        return
    finally:
        device.close()
    if wrong_guard:
        yield wrong("watchdog", ConfigError(wrong_guard))
    else:
        yield CheckResult("watchdog", f"{config.connect} turns a PASS off by itself")


def _time_ms(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return 1000 * (time.monotonic() - begun)


def _try_certificates(config: OpcuaBridge) -> None:
    """Read what an OPC UA bridge shows to clients. Raises :class:`SecretError`."""
    from inspector.bridges.opcua_security import Pki

    load_passwords(config)
    if config.pki is not None:
        Pki(config.pki, Refusals("opcua")).own(config.host_and_port[0])


def _check_nodeset(path: Path) -> CheckResult:
    """Whether an OPC UA bridge can take its types from the file."""
    from inspector.bridges.machine_vision_nodes import prove

    try:
        asyncio.run(prove(path))
    except ConfigError as problem:
        return wrong("nodeset", problem)
    return CheckResult("nodeset", f"{path}: has the types of OPC 40100-1")


def _check_mqtt(config: MqttBridge, path: Path) -> Iterator[CheckResult]:
    yield CheckResult("config", f"{path}: MQTT bridge to {config.broker}, topic '{config.topic}'")
    try:
        require(str(path), "mqtt")
        keys = load_keys(config.station)
        from inspector.bridges import broker
        from inspector.bridges.position import PositionFile

    except (ConfigError, SecretError) as problem:
        yield wrong("keys" if isinstance(problem, SecretError) else "packages", problem)
        return
    try:
        access = broker.Access.load(config)
    except (ConfigError, SecretError) as problem:
        yield wrong("access", problem)
        return
    try:
        # What the file says of a beginning is for the bridge to write, at its first start.
        if config.state.exists():
            PositionFile(config.state, 0).close()
        elif not os.access(config.state.parent, os.W_OK):
            raise ConfigError(f"{config.state.parent}: state: is no folder to write to; make it")
        yield CheckResult("state", f"{config.state} can be used")
    except ConfigError as problem:
        yield wrong("state", problem)
    try:
        broker.try_connection(config, access)
        yield CheckResult("broker", f"{config.broker} takes the connection")
    except broker.BrokerError as error:
        yield wrong("broker", StartupError(f"{config.broker}: {error}; a bridge waits for it, too"))
    try:
        with Commander(config.station.commands, keys=keys, timeout_s=_ANSWER_S) as commander:
            status = commander.status()
    except (CommandError, WireError) as error:
        yield wrong("station", StartupError(f"{error}; a bridge waits for it, too"))
        return
    if config.commands.trigger and all(one.takes_triggers is False for one in status.cameras):
        yield wrong(
            "station",
            ConfigError(
                f"{path}: commands.trigger: no camera of '{status.station}' takes triggers; set "
                f"'trigger: software' in the station file, or leave this key out"
            ),
        )
        return
    yield CheckResult("station", f"{config.station.commands}: '{status.station}' is {status.state}")


def _check_station(
    config: PlcBridge | ClientBridge, keys: ClientKeys | None, path: Path
) -> CheckResult:
    address = config.station.commands
    try:
        with Commander(address, keys=keys, timeout_s=_ANSWER_S) as commander:
            status = commander.status()
    except (CommandError, WireError) as error:
        return wrong("station", StartupError(f"{error}; a bridge waits for it, too"))
    known = [camera.name for camera in status.cameras]
    missing = [camera for camera in config.cameras if camera not in known]
    if missing:
        return wrong(
            "station",
            ConfigError(
                f"{path}: cameras: the station has no '{missing[0]}'; it has {', '.join(known)}"
            ),
        )
    named = [camera for camera in status.cameras if camera.name in config.cameras]
    by_line = config.hardware_trigger if isinstance(config, ModbusBridge) else ()
    commanded = [one.name for one in named if one.name in by_line and one.takes_triggers]
    if commanded:
        return wrong(
            "station",
            ConfigError(
                f"{path}: hardware_trigger: '{commanded[0]}' waits for commands; leave 'trigger' "
                f"out for it in the station file"
            ),
        )
    idle = [one.name for one in named if one.takes_triggers is False and one.name not in by_line]
    if idle:
        return wrong(
            "station",
            ConfigError(
                f"{path}: cameras: '{idle[0]}' takes no triggers; set 'trigger: software' for it "
                f"in the station file, and start the station anew"
            ),
        )
    if misfit := _misfit(config, status):
        return wrong("station", ConfigError(f"{path}: {misfit}"))
    return CheckResult("station", f"{address}: '{status.station}' is {status.state}")


def _misfit(config: PlcBridge | ClientBridge, status: StatusMessage) -> str:
    """What a bridge's file says that its station cannot keep, key first; "" for nothing."""
    recipes = () if isinstance(config, RemoteIoBridge) else config.recipes
    names = recipes.values() if isinstance(recipes, dict) else recipes
    unknown = [name for name in names if status.recipes and name not in status.recipes]
    if unknown:
        there = ", ".join(status.recipes)
        return f"recipes: the station has no '{unknown[0]}'; it has {there}"
    for camera in status.cameras:
        slowest_ms = camera.deadline_ms or 0
        if camera.name in config.cameras and slowest_ms > config.result_timeout_ms:
            return (
                f"result_timeout_ms: {config.result_timeout_ms} is less than deadline_ms "
                f"{slowest_ms} of the station's camera '{camera.name}': a verdict in time would "
                f"come too late here; raise it, or lower deadline_ms in the station file"
            )
    return ""
