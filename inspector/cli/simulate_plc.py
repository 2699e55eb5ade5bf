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
from inspector.config.bridge_file import ModbusBridge
from inspector.config.modbus_client import PolledBridge, RemoteIoBridge, load_modbus
from inspector.errors import ConfigError
from inspector.interrupt import Interrupt
from inspector.tables import numbers, show, table
from inspector.verdict import Verdict

if TYPE_CHECKING:
    from inspector.bridges.simulated_io import Sorted
    from inspector.bridges.simulated_plc import PlcProgram, Seen

_VERDICTS = {1: Verdict.PASS, 2: Verdict.FAIL, 3: Verdict.FAULT}
_ROW = "{:<12} {:<9} {:>7} {:>9}  {:<8} {}"
_SORTED_ROW = "{:<12} {:<8} {:>9} {:>9}  {}"


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
        _sort(config, options)
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
) -> PlcProgram:
    """A simulated PLC for a camera of a bridge. Raises :class:`PortError`."""
    from inspector.bridges.registers import ByteOrders, camera_base
    from inspector.bridges.simulated_plc import FunctionBlock, ServedPlc, SimulatedPlc

    host, number = config.host_and_port
    orders = ByteOrders(config.word_order, config.byte_order, config.text_order)
    block = FunctionBlock(timeout_s=timeout_s, heartbeat_s=config.heartbeat_s)
    index = config.cameras.index(camera)
    if isinstance(config, PolledBridge):
        base = camera_base(index) + config.offset
        return ServedPlc(block, (host, port or number), base, orders)
    # A server that listens at every address is reached at this machine's own.
    host = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    return SimulatedPlc(block, host, port or number, index, orders)


def _sort(config: RemoteIoBridge, options: argparse.Namespace) -> None:
    """Serve as remote I/O, and print which output each part got. Raises :class:`PortError`."""
    from inspector.bridges.simulated_io import SimulatedIo

    module = SimulatedIo(config)
    try:
        with Interrupt() as interrupt, Screen() as screen:
            screen.print(Text(f"remote I/O at {config.connect}, waiting for a bridge"))
            module.wait(stop=lambda: interrupt.requested)
            screen.print(Text(_SORTED_ROW.format("part", "output", "after", "on for", ""), "bold"))
            ends: list[Sorted] = []
            for part in module.run(options.parts, options.every, stop=lambda: interrupt.requested):
                ends.append(part)
                screen.print(Text(_sorted_line(part)))
        longest = max((on_s for _, on_s in module.module.on_times(config.pass_coil)), default=0.0)
    finally:
        module.close()
    found = collections.Counter(part.output for part in ends)
    rejects = len(ends) - found["pass"]
    filled = table(*map(numbers, ("parts", "pass", "fail", "fault", "no output", "rejected")))
    counted = (found["pass"], found["fail"], found["fault"], found[""], rejects)
    filled.add_row(str(len(ends)), *map(str, counted))
    show(filled, "what came to the ejector")
    print(f"the longest pulse of the pass coil: {1000 * longest:.0f} ms")


def _sorted_line(part: Sorted) -> str:
    if not part.output:
        return _SORTED_ROW.format(part.part_id, "none", "-", "-", "rejected")
    after, on = f"{part.after_ms:.0f} ms", f"{part.on_ms:.0f} ms"
    how = "passed on" if part.output == "pass" else "rejected"
    return _SORTED_ROW.format(part.part_id, part.output, after, on, how).rstrip()


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


def report(plc: PlcProgram, seen: list[Seen]) -> None:
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
