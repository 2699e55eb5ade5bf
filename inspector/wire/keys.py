"""Key files: made, checked, read; and the signing of bundles (docs/security.md).

CURVE keys lie in ZeroMQ certificates (ZPL), keys for bundles in PEM files, so that pyzmq, czmq and
openssl read them too.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from inspector.errors import SecretError
from inspector.files import read_guarded


@dataclass(frozen=True)
class Keys:
    """A CURVE key pair, Z85."""

    public: bytes
    secret: bytes = field(repr=False)


def load_keys(path: Path) -> Keys:
    """The pair in a ``.secret`` file of ``keygen``. Raises :class:`SecretError`."""
    found = _certificate(path, secret=True)
    if "secret" not in found and "public" in found:
        raise SecretError(f"{path}: is the public half of a key; name the .secret file beside it")
    if "secret" not in found:
        raise SecretError(
            f"{path}: holds no secret key for connections; name the .secret file of 'inspector "
            f"keygen'"
        )
    keys = Keys(found.get("public", b""), found["secret"])
    if zmq.curve_public(keys.secret) != keys.public:
        raise SecretError(
            f"{path}: its two keys are no pair; copy the file again, or make new keys"
        )
    return keys


def load_public_key(path: Path) -> bytes:
    """The Z85 key in a ``.public`` file of ``keygen``. Raises :class:`SecretError`."""
    found = _certificate(path, secret=False)
    if "secret" in found:
        raise SecretError(
            f"{path}: holds a secret key, which belongs to its owner alone; name the .public file"
        )
    if "public" not in found:
        raise SecretError(f"{path}: holds no key; name the .public file of 'keygen'")
    return found["public"]


def decode(key: bytes) -> bytes | None:
    """The 32 bytes of a Z85 ``key``; None when it is none."""
    try:
        raw = z85.decode(key)
    except (ValueError, KeyError, OverflowError, struct.error):
        return None
    return raw if len(raw) == 32 else None


def _certificate(path: Path, secret: bool) -> dict[str, bytes]:
    """Z85 keys in a ZeroMQ certificate (ZPL, as pyzmq and czmq read it), by kind."""
    text = read_guarded(path, secret).decode("utf-8", "replace")
    found = {}
    for kind, key in re.findall(r'^[ \t]*(public|secret)-key[ \t]*=[ \t]*"(.*)"', text, re.M):
        if decode(key.encode()) is None:
            raise SecretError(f"{path}: its {kind} key is damaged; copy the file again")
        found[kind] = key.encode()
    return found


def make_pair(name: str) -> tuple[bytes, bytes]:
    """A new CURVE pair called ``name``: what goes into the secret and into the public file."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    shared = f'metadata\n    name = "{name}"\ncurve\n    public-key = "{public}"\n'
    return (
        f'# SECRET key of one station or one client alone\n{shared}    secret-key = "{secret}"\n'
    ).encode(), f"# public key\n{shared}".encode()
