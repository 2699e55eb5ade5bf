"""What the bridges to PLCs promise: parts counted, times taken, each with its goal.

    python -m benchmarks.plc                    # the whole table, about an hour
    python -m benchmarks.plc --quick            # shortened, under five minutes on two cores
    python -m benchmarks.plc modbus not_ready   # some rows; the others keep their last figures

Real stations, bridges, sockets and cables. A row's figures are written as soon as it has ended, to
``benchmarks/results/plc.json`` (``plc-quick.json`` with ``--quick``): to go on with a run that was
stopped, name the rows that it had not reached.
"""

from __future__ import annotations

import sys
from typing import Final

from benchmarks import rows

NAMES: Final = (
    "modbus",
    "opcua",
    "register_write",
    "method_call",
    "not_ready",
    "clone",
    "coils",
    "outages",
)

if __name__ == "__main__":
    try:
        sys.exit(rows.main("benchmarks.plc", NAMES, __doc__ or ""))
    except KeyboardInterrupt:
        sys.exit("stopped; rows that ended are written")
