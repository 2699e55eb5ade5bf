"""``simulate-plc``: a PLC, or remote I/O, that works with a bridge, to try it without one."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from inspector.cli.arguments import count, patience, seconds
from inspector.cli.bridge import load_keys, require
from inspector.cli.output import STYLES, Screen
from inspector.cli.simulated_sorting import sort
from inspector.config.bridge_file import (
    ModbusBridge,
    OpcuaBridge,
    load_opcua_bridge,
)
from inspector.config.modbus_client import (
    ModbusRole,
    PolledBridge,
    RemoteIoBridge,
    load_modbus,
)
from inspector.errors import ConfigError
from inspector.interrupt import Interrupt
from inspector.shown import plain
from inspector.tables import numbers, show, table
from inspector.verdict import Verdict

if TYPE_CHECKING:
    from inspector.bridges.scan_cycle import ScanCycle, Seen
    from inspector.bridges.simulated_opcua_plc import Login
    from inspector.bridges.simulated_plc import SimulatedPlc

_VERDICTS = {1: Verdict.PASS, 2: Verdict.FAIL, 3: Verdict.FAULT}
_ROW = "{:<12} {:<9} {:>7} {:>9}  {:<8} {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``simulate-plc``."""
    parser.add_argument("fieldbus", choices=["modbus", "opcua", "remote-io"])
    parser.add_argument(
        "file", metavar="FILE.yaml", help="the bridge's file; opcua: or opc.tcp://HOST:PORT"
    )
    parser.add_argument("--camera", metavar="NAME", help="whose PLC it is [the first]")
    parser.add_argument("--parts", type=count, default=20, metavar="N", help="[%(default)s]")
    parser.add_argument(
        "--every",
        type=patience,
        default=0.5,
        metavar="SECONDS",
        help="between two parts, at least [%(default)g]",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=1.5,
        metavar="SECONDS",
        help="after this a part without a result is rejected [%(default)g]",
    )
    parser.add_argument(
        "--pki", type=Path, metavar="FOLDER", help="opcua: the PLC's own folder of certificates"
    )
    parser.add_argument("--user", metavar="NAME", help="opcua: who logs in")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="opcua: [that of the bridge's file]"
    )


def run(options: argparse.Namespace) -> int:
    """Send parts past a camera, and print how each ended; 0.

    Raises :class:`ConfigError`, :class:`SecretError`, :class:`WireError`, :class:`PortError`.
    """
    if options.fieldbus == "remote-io":
        _sort(options)
        return 0
    plc = _modbus_plc(options) if options.fieldbus == "modbus" else _opcua_plc(options)
    try:
        with Interrupt() as interrupt, Screen() as screen:
            parts = plc.run(options.parts, options.every, stop=lambda: interrupt.requested)
            seen = watch(parts, screen)
    finally:
        plc.close()
    report(plc, seen)
    return 0


def _modbus_plc(options: argparse.Namespace) -> ScanCycle:
    config = _modbus_file(options)
    if isinstance(config, RemoteIoBridge):
        raise _other_file(options, "remote-io")
    camera = _camera(options, config.cameras)
    if isinstance(config, ModbusBridge) and camera in config.hardware_trigger:
        return _counted(config, camera, options.timeout)
    return connect(config, camera, options.timeout)


def _counted(config: ModbusBridge, camera: str, timeout_s: float) -> SimulatedPlc:
    """A simulated PLC for a camera on a trigger line, whose edges the station's verdicts tell."""
    from inspector.bridges.registers import ByteOrders
    from inspector.bridges.simulated_plc import CountedPlc, FunctionBlock
    from inspector.client import Subscriber

    host, port = config.host_and_port
    orders = ByteOrders(config.word_order, config.byte_order, config.text_order)
    block = FunctionBlock(timeout_s=timeout_s, heartbeat_s=config.heartbeat_s, counted=True)
    eye = Subscriber(config.station.verdicts, keys=load_keys(config.station))
    at = config.cameras.index(camera)
    return CountedPlc(block, _reachable(host), port, at, orders, eye=eye, name=camera)


def _reachable(host: str) -> str:
    """A server that listens at every address is reached at this machine's own."""
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104


def _sort(options: argparse.Namespace) -> None:
    config = _modbus_file(options)
    if not isinstance(config, RemoteIoBridge):
        raise _other_file(options, "modbus")
    sort(config, options.parts, options.every)


def _modbus_file(options: argparse.Namespace) -> ModbusRole:
    config = load_modbus(Path(options.file))
    require("simulate-plc", "modbus")
    return config


def _other_file(options: argparse.Namespace, fieldbus: str) -> ConfigError:
    return ConfigError(f"{options.file}: is for 'inspector simulate-plc {fieldbus}'; run that")


def _opcua_plc(options: argparse.Namespace) -> ScanCycle:
    """A PLC that is connected to an OPC UA server, which need not be this machine's."""
    require("simulate-plc", "opcua")
    from inspector.bridges.simulated_opcua_plc import OpcuaPlc

    heartbeat_s = 1.0
    if "://" in options.file:
        url, camera = options.file, options.camera or ""
        login = _login(options, None)
    else:
        config = load_opcua_bridge(Path(options.file))
        host, port = config.host_and_port
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        url = f"opc.tcp://{f'[{host}]' if ':' in host else host}:{port}"
        camera, heartbeat_s = _camera(options, config.cameras), config.heartbeat_s
        login = _login(options, config)
    plc = OpcuaPlc(url, camera, login=login, timeout_s=options.timeout, heartbeat_s=heartbeat_s)
    try:
        plc.connect()
    except BaseException:
        plc.close()
        raise
    return plc


def _login(options: argparse.Namespace, config: OpcuaBridge | None) -> Login | None:
    """Who the PLC is; None: a bridge without certificates lets everybody in."""
    from inspector.bridges.opcua_security import read_password
    from inspector.bridges.simulated_opcua_plc import Login

    server = None if config is None or config.pki is None else config.pki / "own.der"
    if options.pki is None and options.user is None and server is None:
        return None
    if options.pki is None:
        raise ConfigError(
            "simulate-plc: --pki: missing; make a folder with 'inspector keygen FOLDER --opcua', "
            "and copy its own.der to trusted/ of the bridge's"
        )
    users = {} if config is None else config.users
    user = options.user or next((one for one in users if "trigger" in users[one].roles), None)
    if user is None:
        raise ConfigError("simulate-plc: --user: missing; name one that has the role trigger")
    path = options.password_file
    if path is None and user in users:
        path = users[user].password_file
    if path is None:
        raise ConfigError(f"simulate-plc: --password-file: missing; '{user}' needs a password")
    return Login(options.pki, user, read_password(path), server)


def _camera(options: argparse.Namespace, cameras: Sequence[str]) -> str:
    camera = cameras[0] if options.camera is None else str(options.camera)
    if camera not in cameras:
        raise ConfigError(
            f"{options.file}: cameras: there is no '{camera}', as --camera asks; choose one of "
            f"{', '.join(cameras)}"
        )
    return camera


def connect(
    config: ModbusBridge | PolledBridge, camera: str, timeout_s: float, port: int | None = None
) -> SimulatedPlc:
    """A simulated PLC for a camera of a bridge. Raises :class:`PortError`."""
    from inspector.bridges.registers import ByteOrders, camera_base
    from inspector.bridges.served_plc import ServedPlc
    from inspector.bridges.simulated_plc import FunctionBlock, SimulatedPlc

    host, listens = config.host_and_port
    orders = ByteOrders(config.word_order, config.byte_order, config.text_order)
    block = FunctionBlock(timeout_s=timeout_s, heartbeat_s=config.heartbeat_s)
    if isinstance(config, PolledBridge):
        base = camera_base(config.cameras.index(camera)) + config.offset
        return ServedPlc(block, config.host_and_port, base, orders)
    at = config.cameras.index(camera)
    return SimulatedPlc(block, _reachable(host), port or listens, at, orders)


def watch(parts: Iterable[Seen], screen: Screen) -> list[Seen]:
    """Print a line for each part as it ends; all of them."""
    seen: list[Seen] = []
    for part in parts:
        if not seen:
            head = _ROW.format("part", "verdict", "score", "time", "output", "reason")
            screen.print(Text(head, "bold"))
        seen.append(part)
        verdict = _VERDICTS.get(part.verdict)
        score = "-" if part.score < 0 else f"{part.score:.3f}"
        line = Text(
            plain(
                _ROW.format(
                    part.part_id,
                    "none" if verdict is None else verdict.value,
                    score,
                    f"{part.took_ms:.0f} ms",
                    "pass" if part.passes else "reject",
                    part.reason or ("" if verdict else "no result in the PLC's own time"),
                )
            )
        )
        if verdict is not None:
            line.highlight_words([f" {verdict.value} "], STYLES[verdict])
        screen.print(line)
    return seen


def report(plc: ScanCycle, seen: list[Seen]) -> None:
    """Print what the PLC counted."""
    ends = collections.Counter(part.verdict for part in seen)
    rejects = sum(not part.passes for part in seen)
    filled = table(*map(numbers, ("parts", "pass", "fail", "fault", "no result", "rejected")))
    filled.add_row(*map(str, (len(seen), ends[1], ends[2], ends[3], ends[0], rejects)))
    show(filled, "what the PLC counted")
    times = sorted(part.took_ms for part in seen if part.verdict)
    if times:
        print(
            f"from trigger to result as the PLC sees it: {times[len(times) // 2]:.0f} ms as a rule "
            f"(median), {times[-1]:.0f} ms at most"
        )
    print(f"results of parts that were given up by then: {plc.discarded}")
