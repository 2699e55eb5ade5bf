"""For other programs: receive what a station publishes, and send it commands.

::

    from inspector.client import Commander, Subscriber

    with Subscriber(commands="tcp://127.0.0.1:5557") as subscriber:
        for item in subscriber:
            ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from inspector.config.addresses import COMMANDS, IMAGES, QUERIES, VERDICTS

if TYPE_CHECKING:
    from inspector.client.commander import Commander
    from inspector.client.exchange import Answer, Sent
    from inspector.client.keys import ClientKeys
    from inspector.client.refill import Gap
    from inspector.client.subscriber import Heatmap, Item, Subscriber
    from inspector.client.viewer import View, Viewer

__all__ = [
    "COMMANDS",
    "IMAGES",
    "QUERIES",
    "VERDICTS",
    "Answer",
    "ClientKeys",
    "Commander",
    "Gap",
    "Heatmap",
    "Item",
    "Sent",
    "Subscriber",
    "View",
    "Viewer",
]

_HOMES: Final = {
    "Answer": "exchange",
    "ClientKeys": "keys",
    "Commander": "commander",
    "Gap": "refill",
    "Heatmap": "subscriber",
    "Item": "subscriber",
    "Sent": "exchange",
    "Subscriber": "subscriber",
    "View": "viewer",
    "Viewer": "viewer",
}


def __getattr__(name: str) -> Any:
    # ZeroMQ loads on first use (PEP 562), since inspector.client.refill must not need it.
    if name in _HOMES:
        return getattr(importlib.import_module(f"inspector.client.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
