"""CURVE keys in files: made and read as ZeroMQ certificates (docs/security.md).

``zmq.auth.load_certificate`` reads them, after :mod:`inspector.files` has checked who else can
reach the file. ``zmq.auth.create_certificates`` does not make them: the mode of its secret file
follows the umask, so that other users could read it until somebody closes it, and it overwrites
keys that are there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.auth
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
    public, secret = _load(path, secret=True)
    if secret is None and public is not None:
        raise SecretError(f"{path}: is the public half of a key; name the .secret file beside it")
    if secret is None:
        raise SecretError(
            f"{path}: holds no secret key for connections; name the .secret file of 'inspector "
            f"keygen'"
        )
    if zmq.curve_public(secret) != public:
        raise SecretError(
            f"{path}: its two keys are no pair; copy the file again, or make new keys"
        )
    return Keys(public, secret)


def load_public_key(path: Path) -> bytes:
    """The Z85 key in a ``.public`` file of ``keygen``. Raises :class:`SecretError`."""
    public, secret = _load(path, secret=False)
    if secret is not None:
        raise SecretError(
            f"{path}: holds a secret key, which belongs to its owner alone; name the .public file"
        )
    if public is None:
        raise SecretError(f"{path}: holds no key; name the .public file of 'keygen'")
    return public


def decode(key: bytes) -> bytes | None:
    """The 32 bytes of a Z85 ``key``; None when it is none."""
    try:
        raw = z85.decode(key)
    except (ValueError, KeyError, OverflowError, struct.error):
        return None
    return raw if len(raw) == 32 else None


def _load(path: Path, secret: bool) -> tuple[bytes | None, bytes | None]:
    """Public and secret Z85 key in a certificate, None where it has none.

    ``secret``: the file may hold a secret, which nobody else may then read. Raises
    :class:`SecretError`.
    """
    try:
        # pyzmq opens the file again: under this name, whose folders are checked, it is the same
        # file. A link might lead elsewhere by then.
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        real = path
    read_guarded(real, secret)
    try:
        found = zmq.auth.load_certificate(real)
    except ValueError:
        # A certificate has a public key, always.
        return None, None
    except (OSError, IndexError):
        raise SecretError(f"{path}: its keys are damaged; copy the file again") from None
    for kind, key in zip(("public", "secret"), found, strict=True):
        if key is not None and decode(key) is None:
            raise SecretError(f"{path}: its {kind} key is damaged; copy the file again")
    return found


def make_pair(name: str) -> tuple[bytes, bytes]:
    """A new CURVE pair called ``name``: what goes into the secret and into the public file."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    shared = f'metadata\n    name = "{name}"\ncurve\n    public-key = "{public}"\n'
    return (
        f'# SECRET key of one station or one client alone\n{shared}    secret-key = "{secret}"\n'
    ).encode(), f"# public key\n{shared}".encode()
