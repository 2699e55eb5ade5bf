"""The default addresses of a station's sockets, and which addresses no other machine reaches."""

from __future__ import annotations

from typing import Final

VERDICTS: Final = "tcp://127.0.0.1:5555"
IMAGES: Final = "tcp://127.0.0.1:5556"
COMMANDS: Final = "tcp://127.0.0.1:5557"
QUERIES: Final = "tcp://127.0.0.1:5558"

_HIGH: Final = r"6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}"

PORT: Final = rf"({_HIGH}|\d{{1,4}})"
"""Pattern of a port number."""

LOOPBACK: Final = (
    rf"ipc://[^\s\x00-\x1f\x7f]+|tcp://(127(\.\d{{1,3}}){{3}}|localhost|\[::1\]):({PORT}|\*)"
)
"""Pattern of a ZeroMQ address that no other machine can reach."""

PEER: Final = (
    r"^(ipc://[^\s\x00-\x1f\x7f]{1,107}"
    rf"|tcp://([\w.-]+|\[[\w:.%]+\]):({_HIGH}|[1-9]\d{{0,3}}))$"
)
"""Pattern of a ZeroMQ address to connect to; a path is no longer than the system takes it."""
