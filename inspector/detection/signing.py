"""The keys that bundles are signed with, and that stations trust."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import SecretError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
from inspector.files import read_guarded


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """The secret key that bundles are signed with, PEM. Raises :class:`SecretError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cure = "name the .secret file of 'inspector keygen --bundle'"
    data = read_guarded(path, secret=True)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise SecretError(
            f"{path}: is encrypted with a password; 'openssl pkey' takes it off"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        if b"PUBLIC KEY" in data:
            raise SecretError(
                f"{path}: is the public half of a key; name the .secret file beside it"
            ) from None
        raise SecretError(f"{path}: holds no secret key for bundles; {cure}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SecretError(f"{path}: is no Ed25519 key; {cure}")
    return key


def load_bundle_keys(paths: Sequence[Path]) -> tuple[Ed25519PublicKey, ...]:
    """The keys a station trusts bundles of, PEM. Raises :class:`SecretError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys = []
    for path in paths:
        cure = "name the .public file of 'inspector keygen --bundle'"
        try:
            key = load_pem_public_key(read_guarded(path, secret=False))
        except (ValueError, UnsupportedAlgorithm):
            raise SecretError(f"{path}: holds no public key for bundles; {cure}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise SecretError(f"{path}: is no Ed25519 key; {cure}")
        keys.append(key)
    return tuple(keys)


def make_pair() -> tuple[bytes, bytes]:
    """A new Ed25519 pair, PEM: what goes into the secret and into the public file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
