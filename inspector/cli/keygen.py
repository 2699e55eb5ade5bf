"""``keygen``: make a pair of keys, for a station, a client or bundles."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from inspector.cli.arguments import name
from inspector.detection import signing
from inspector.errors import SecretError
from inspector.files import check_folders, reason_of, write_new
from inspector.tables import print_next
from inspector.wire.keys import load_public_key, make_pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``keygen``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the two files go")
    parser.add_argument("--name", type=name, help="of the files [station; with --bundle: bundle]")
    parser.add_argument(
        "--bundle", action="store_true", help="a pair that bundles are signed with (Ed25519)"
    )


def run(options: argparse.Namespace) -> int:
    """Make a pair of keys, never in place of existing files; 0. Raises :class:`SecretError`."""
    folder: Path = options.folder
    called = options.name or ("bundle" if options.bundle else "station")
    secret_path, public_path = folder / f"{called}.secret", folder / f"{called}.public"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            check_folders(secret_path, folder.resolve())
    except OSError as error:
        raise SecretError(f"{folder}: cannot be made: {reason_of(error)}") from None
    for path in (secret_path, public_path):
        if os.path.lexists(path):
            raise SecretError(
                f"{path}: is there, and keys are never overwritten; choose another --name"
            )
    secret, public = signing.make_pair() if options.bundle else make_pair(called)
    write_new(secret_path, secret, 0o600)
    try:
        write_new(public_path, public, 0o644)
    except SecretError:
        secret_path.unlink(missing_ok=True)
        raise
    print(f"{secret_path}: secret; it stays on this machine")
    print(f"{public_path}: public")
    if options.bundle:
        print(f"in the files of stations that trust it: security.bundle_keys: [{public_path}]")
        print_next("inspector", "sign", "part.onnx", "--key", secret_path)
        return 0
    key = load_public_key(public_path).decode()
    print(f"a station's own: security.secret_key: {secret_path}")
    print(f"a peer of a station: security.peers: {{{called}: {{key: '{key}', roles: [listen]}}}}")
    return 0
