"""What the operator's page promises: how soon a part is seen, and what the line notices of it.

    python -m benchmarks.console             # the whole table, about half an hour
    python -m benchmarks.console --quick     # shortened, some minutes on two cores
    python -m benchmarks.console pixels      # some rows; the others keep their last figures

Real stations, a real `inspector console`, Debian's Chromium. A row's figures are written as soon as
it has ended, to ``benchmarks/results/console.json`` (``console-quick.json`` with ``--quick``).
"""

from __future__ import annotations

import sys
from typing import Final

from benchmarks import rows

NAMES: Final = (
    "pixels",
    "heap",
    "first_view",
    "clients",
    "strangers",
    "beside",
    "history",
    "commits",
)

if __name__ == "__main__":
    try:
        sys.exit(rows.main("benchmarks.console", NAMES, __doc__ or ""))
    except KeyboardInterrupt:
        sys.exit("stopped; rows that ended are written")
