"""Key files: made, checked, read; and the signing of bundles (docs/security.md).

CURVE keys lie in ZeroMQ certificates (ZPL), keys for bundles in PEM files, so that pyzmq, czmq and
openssl read them too.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from inspector.errors import OutputError, SecretError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_LARGEST: Final = 4096
_READ: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


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


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """The secret key that bundles are signed with, PEM. Raises :class:`SecretError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cure = "name the .secret file of 'inspector keygen --bundle'"
    data = _read(path, secret=True)
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
            key = load_pem_public_key(_read(path, secret=False))
        except (ValueError, UnsupportedAlgorithm):
            raise SecretError(f"{path}: holds no public key for bundles; {cure}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise SecretError(f"{path}: is no Ed25519 key; {cure}")
        keys.append(key)
    return tuple(keys)


def decode(key: bytes) -> bytes | None:
    """The 32 bytes of a Z85 ``key``; None when it is none."""
    try:
        raw = z85.decode(key)
    except (ValueError, KeyError, OverflowError, struct.error):
        return None
    return raw if len(raw) == 32 else None


def _certificate(path: Path, secret: bool) -> dict[str, bytes]:
    """Z85 keys in a ZeroMQ certificate (ZPL, as pyzmq and czmq read it), by kind."""
    text = _read(path, secret).decode("utf-8", "replace")
    found = {}
    for kind, key in re.findall(r'^[ \t]*(public|secret)-key[ \t]*=[ \t]*"(.*)"', text, re.M):
        if decode(key.encode()) is None:
            raise SecretError(f"{path}: its {kind} key is damaged; copy the file again")
        found[kind] = key.encode()
    return found


def _read(path: Path, secret: bool) -> bytes:
    """A key file that nobody else can write nor, if it is to hold a secret and does, read.

    Raises :class:`SecretError`.
    """
    try:
        real = path.resolve(strict=True)
        if os.name == "posix":
            _check_folders(path, real.parent)
        handle = os.open(real, _READ)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise SecretError(f"{path}: is no file; name the key file itself")
            if os.name == "posix":
                _check_owner(path, path, found)
            data = os.read(handle, _LARGEST)
            if os.name == "posix":
                # To close a public key that was named by mistake would cure nothing.
                _check_mode(path, found, secret and _holds_secret(data))
            return data
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise SecretError(f"{path}: no such key file; make one with 'inspector keygen'") from None
    except (OSError, RuntimeError) as error:
        raise SecretError(f"{path}: cannot be read: {_words(error)}") from None


def _holds_secret(data: bytes) -> bool:
    return b"secret-key" in data or b"PRIVATE KEY" in data


def _check_mode(path: Path, found: os.stat_result, secret: bool) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if secret and mode & 0o077:
        raise SecretError(
            f"{path}: a secret that others may read (mode {mode:04o}); run 'chmod 600 {path}', and "
            f"make a new key if one of them may have done so"
        )
    if mode & 0o022:
        raise SecretError(
            f"{path}: others may write it (mode {mode:04o}); check that it is still yours, then "
            f"run 'chmod go-w {path}'"
        )


def _check_folders(path: Path, folder: Path) -> None:
    """Who may write a folder above the file can put another file there."""
    for above in (folder, *folder.parents):
        found = above.stat()
        _check_owner(path, above, found)
        # In a sticky folder, such as /tmp, everyone may only take away what is his.
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            raise SecretError(
                f"{path}: others may put another file in its place, for {above} can be written by "
                f"them (mode {stat.S_IMODE(found.st_mode):04o}); run 'chmod go-w {above}'"
            )


def _check_owner(path: Path, what: Path, found: os.stat_result) -> None:
    if found.st_uid not in {os.geteuid(), 0}:
        subject = "belongs" if what == path else f"lies in {what}, which belongs"
        raise SecretError(
            f"{path}: {subject} to another user (uid {found.st_uid}), not to the one who runs this "
            f"(uid {os.geteuid()}) nor to root; run 'chown' on it"
        )


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def add_keygen_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``keygen``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the two files go")
    parser.add_argument("--name", type=_name, help="of the files [station; with --bundle: bundle]")
    parser.add_argument(
        "--bundle", action="store_true", help="a pair that bundles are signed with (Ed25519)"
    )


def run_keygen(options: argparse.Namespace) -> int:
    """Make a pair of keys; 0. Existing files are left. Raises :class:`SecretError`."""
    folder: Path = options.folder
    name = options.name or ("bundle" if options.bundle else "station")
    secret_path, public_path = folder / f"{name}.secret", folder / f"{name}.public"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            _check_folders(secret_path, folder.resolve())
    except OSError as error:
        raise SecretError(f"{folder}: cannot be made: {_words(error)}") from None
    for path in (secret_path, public_path):
        if os.path.lexists(path):
            raise SecretError(
                f"{path}: is there, and keys are never overwritten; choose another --name"
            )
    secret, public = _pem_pair() if options.bundle else _curve_pair(name)
    _write_new(secret_path, secret, 0o600)
    try:
        _write_new(public_path, public, 0o644)
    except SecretError:
        secret_path.unlink(missing_ok=True)
        raise
    print(f"{secret_path}: secret; it stays on this machine")
    print(f"{public_path}: public")
    if options.bundle:
        print(f"to sign: inspector sign part.onnx --key {secret_path}")
        print(f"in the files of stations that trust it: security.bundle_keys: [{public_path}]")
        return 0
    key = load_public_key(public_path).decode()
    print(f"a station's own: security.secret_key: {secret_path}")
    print(f"a peer of a station: security.peers: {{{name}: {{key: '{key}', roles: [listen]}}}}")
    return 0


def add_sign_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sign``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE.onnx")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE.secret",
        help="secret key of 'inspector keygen --bundle'",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.onnx", help="default: BUNDLE.onnx itself"
    )


def run_sign(options: argparse.Namespace) -> int:
    """Sign a bundle, instead of a signature it has; 0.

    Raises :class:`BundleError`, :class:`SecretError` and :class:`OutputError`.
    """
    from inspector import bundle

    out: Path = options.output or options.bundle
    key = load_signing_key(options.key)
    signed = bundle.sign(bundle.read(options.bundle), key)
    try:
        bundle.write_atomically(out, signed)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {_words(error)}") from None
    digest = bundle.read(out, (key.public_key(),)).sha256
    print(f"{out}: signed with {options.key}, sha256 {digest}")
    return 0


def _curve_pair(name: str) -> tuple[bytes, bytes]:
    """What goes into the secret and the public file."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    shared = f'metadata\n    name = "{name}"\ncurve\n    public-key = "{public}"\n'
    return (
        f'# SECRET key of one station or one client alone\n{shared}    secret-key = "{secret}"\n'
    ).encode(), f"# public key\n{shared}".encode()


def _pem_pair() -> tuple[bytes, bytes]:
    """What goes into the secret and the public file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there, ``mode`` from its first moment. Raises SecretError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise SecretError(
            f"{path}: is there, and keys are never overwritten; choose another --name"
        ) from None
    except OSError as error:
        raise SecretError(f"{path}: cannot be written: {_words(error)}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SecretError(f"{path}: cannot be written: {_words(error)}") from None


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise argparse.ArgumentTypeError(
            f"'{text}' must be letters, digits, '_', '.' or '-', at most 64"
        )
    return text
