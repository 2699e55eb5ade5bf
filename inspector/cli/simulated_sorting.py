"""``simulate-plc remote-io``: a module in software, and which output each part gets."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from rich.text import Text

from inspector.cli.output import Screen
from inspector.config.modbus_client import RemoteIoBridge
from inspector.interrupt import Interrupt
from inspector.tables import numbers, show, table

if TYPE_CHECKING:
    from inspector.bridges.simulated_io import Sorted

_ROW = "{:<12} {:<8} {:>9} {:>9}  {}"


def sort(config: RemoteIoBridge, parts: int, every_s: float) -> None:
    """Serve as the module of a bridge's file, send parts past its sensor, and print their ends.

    Raises :class:`PortError`.
    """
    from inspector.bridges.simulated_io import SimulatedIo

    io = SimulatedIo(config)
    try:
        with Interrupt() as interrupt, Screen() as screen:
            screen.print(Text(f"remote I/O at {config.connect}, waiting for a bridge"))
            io.wait(stop=lambda: interrupt.requested)
            head = _ROW.format("part", "output", "after", "on for", "")
            screen.print(Text(head.rstrip(), "bold"))
            ends: list[Sorted] = []
            for part in io.run(parts, every_s, stop=lambda: interrupt.requested):
                ends.append(part)
                screen.print(Text(_line(part)))
        longest_s = max((on_s for _, on_s in io.module.on_times(config.pass_coil)), default=0.0)
    finally:
        io.close()
    found = collections.Counter(part.output for part in ends)
    filled = table(*map(numbers, ("parts", "pass", "fail", "fault", "no output", "rejected")))
    counted = (found["pass"], found["fail"], found["fault"], found[""])
    filled.add_row(*map(str, (len(ends), *counted, len(ends) - found["pass"])))
    show(filled, "what came to the ejector")
    print(f"the longest pulse of the pass coil: {1000 * longest_s:.0f} ms")


def _line(part: Sorted) -> str:
    if not part.output:
        return _ROW.format(part.part_id, "none", "-", "-", "rejected")
    after, on = f"{part.after_ms:.0f} ms", f"{part.on_ms:.0f} ms"
    how = "passed on" if part.output == "pass" else "rejected"
    return _ROW.format(part.part_id, part.output, after, on, how)
