"""The keys with which a program connects to a station (docs/security.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import zmq

from inspector.config.addresses import LOOPBACK
from inspector.wire.keys import Keys, load_keys, load_public_key


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs to connect to a station with keys: its own, and the station's public."""

    own: Keys
    server: bytes

    @classmethod
    def load(cls, secret_key: Path, server_key: Path) -> ClientKeys:
        """Read the client's ``.secret`` and the station's ``.public`` file that ``keygen`` made.

        Raises :class:`SecretError`.
        """
        return cls(load_keys(secret_key), load_public_key(server_key))


def configure_client(socket: zmq.Socket[bytes], keys: ClientKeys | None) -> None:
    """Have ``socket`` use ``keys``; call it before ``connect``. None: no keys, loopback only."""
    if keys is not None:
        socket.curve_secretkey = keys.own.secret
        socket.curve_publickey = keys.own.public
        socket.curve_serverkey = keys.server


def why_silent(address: str, has_keys: bool) -> str:
    """What to ask oneself when nothing comes from ``address``, to a client with keys or without."""
    if has_keys:
        return "is the station running, and does it know this key?"
    if re.fullmatch(LOOPBACK, address):
        return "is the station running?"
    return "is the station running? Other machines reach it with keys only"
