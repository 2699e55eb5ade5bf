"""Ed25519 keys: the secret ones that sign bundles, and the public ones that a station trusts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import SecretError
from inspector.files import read_guarded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the secret key that bundles are signed with, a PEM file without a password.

    Raises :class:`SecretError` when it is missing, readable by others, or no such key.
    """
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
    """Read the public keys whose bundles a station trusts, a PEM file each.

    Raises :class:`SecretError` for the first that is missing or no such key.
    """
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
    """A new key pair, as PEM: the contents of the secret and of the public file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
