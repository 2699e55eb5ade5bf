"""What travels: messages (data without a socket), the station's sockets, and who may use them.

The messages are here for programs that read them without this package's client; they load no
ZeroMQ. The sockets' modules do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.wire.messages import (
        HeatmapMessage,
        ReplyMessage,
        StatusMessage,
        VerdictMessage,
        decode,
    )

__all__ = ["HeatmapMessage", "ReplyMessage", "StatusMessage", "VerdictMessage", "decode"]


def __getattr__(name: str) -> Any:
    # pydantic loads on first use (PEP 562).
    if name in __all__:
        return getattr(importlib.import_module("inspector.wire.messages"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
