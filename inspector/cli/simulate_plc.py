"""``simulate-plc``: a PLC, or remote I/O, that works with a bridge, to try it without one."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from inspector.cli.arguments import count, patience, seconds
from inspector.cli.bridge import require
from inspector.cli.output import STYLES, Screen
from inspector.cli.simulated_sorting import sort
from inspector.config.bridge_file import ModbusBridge
from inspector.config.modbus_client import PolledBridge, RemoteIoBridge, load_modbus
from inspector.errors import ConfigError
from inspector.interrupt import Interrupt
from inspector.tables import numbers, show, table
from inspector.verdict import Verdict

if TYPE_CHECKING:
    from inspector.bridges.simulated_plc import Seen, SimulatedPlc

_VERDICTS = {1: Verdict.PASS, 2: Verdict.FAIL, 3: Verdict.FAULT}
_ROW = "{:<12} {:<9} {:>7} {:>9}  {:<8} {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``simulate-plc``."""
    parser.add_argument("fieldbus", choices=["modbus", "remote-io"])
    parser.add_argument("file", type=Path, metavar="FILE.yaml", help="the bridge's file")
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


def run(options: argparse.Namespace) -> int:
    """Send parts past a camera, and print how each ended; 0.

    Raises :class:`ConfigError`, :class:`PortError`.
    """
    config = load_modbus(options.file)
    require("simulate-plc", "modbus")
    if isinstance(config, RemoteIoBridge) != (options.fieldbus == "remote-io"):
        other = "modbus" if options.fieldbus == "remote-io" else "remote-io"
        raise ConfigError(f"{options.file}: is for 'inspector simulate-plc {other}'; run that")
    if isinstance(config, RemoteIoBridge):
        sort(config, options.parts, options.every)
        return 0
    camera = config.cameras[0] if options.camera is None else options.camera
    if camera not in config.cameras:
        raise ConfigError(
            f"{options.file}: cameras: there is no '{camera}', as --camera asks; choose one of "
            f"{', '.join(config.cameras)}"
        )
    plc = connect(config, camera, options.timeout)
    try:
        with Interrupt() as interrupt, Screen() as screen:
            parts = plc.run(options.parts, options.every, stop=lambda: interrupt.requested)
            seen = watch(parts, screen)
    finally:
        plc.close()
    report(plc, seen)
    return 0


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
    # A server that listens at every address is reached at this machine's own.
    host = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    return SimulatedPlc(block, host, port or listens, config.cameras.index(camera), orders)


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
            _ROW.format(
                part.part_id,
                "none" if verdict is None else verdict.value,
                score,
                f"{part.took_ms:.0f} ms",
                "pass" if part.passes else "reject",
                part.reason or ("" if verdict else "no result in the PLC's own time"),
            )
        )
        if verdict is not None:
            line.highlight_words([f" {verdict.value} "], STYLES[verdict])
        screen.print(line)
    return seen


def report(plc: SimulatedPlc, seen: list[Seen]) -> None:
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
    print(f"results of parts that were given up by then: {plc.block.discarded}")
