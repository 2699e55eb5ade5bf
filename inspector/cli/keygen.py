"""``keygen``: make a pair of keys, for a station, a client or bundles; or certificates."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from inspector.cli.arguments import name
from inspector.cli.bridge import require
from inspector.cli.console import require as require_console
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
    parser.add_argument(
        "--opcua", action="store_true", help="certificate and folders of an OPC UA bridge"
    )
    parser.add_argument(
        "--console", action="store_true", help="a self-signed certificate of the operator's page"
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        help="with --opcua or --console: a name or address by which the bridge or the page is "
        "reached; may be repeated",
    )
    parser.add_argument(
        "--user", type=name, help="with --opcua: a new password for this user, and nothing else"
    )


def run(options: argparse.Namespace) -> int:
    """Make a pair of keys, never in place of existing files; 0. Raises :class:`SecretError`."""
    folder: Path = options.folder
    if options.user and not options.opcua:
        raise SecretError("keygen: --user is of --opcua; add it, or leave --user out")
    if options.opcua and options.console:
        raise SecretError("keygen: --opcua and --console are two things; make one after the other")
    if options.opcua:
        return _opcua(options)
    if options.console:
        return _console(options)
    if options.host:
        raise SecretError("keygen: --host is of --opcua and --console; add one, or leave it out")
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


def _opcua(options: argparse.Namespace) -> int:
    """Make certificates, or a password."""
    if options.bundle:
        raise SecretError("keygen: --opcua and --bundle are two things; make one after the other")
    require("keygen", "opcua")
    from inspector.bridges.opcua_security import make_password, make_pki

    folder: Path = options.folder
    if options.user:
        path = folder / f"{options.user}.password"
        make_password(path)
        print(f"{path}: the password of {options.user}; enter it in the PLC, too")
        print(f"users: {{{options.user}: {{password_file: {path}, roles: [read, trigger]}}}}")
        return 0
    make_pki(folder, options.name or "opcua-bridge", options.host or ["localhost", "127.0.0.1"])
    print(f"{folder / 'own.pem'}: secret; it stays on this machine")
    print(f"{folder / 'own.der'}: certificate; PLCs are to trust it")
    print(f"{folder / 'trusted'}: put the PLCs' certificates here")
    print(f"in the bridge's file: pki: {folder}")
    return 0


def _console(options: argparse.Namespace) -> int:
    """Make the certificate of the page."""
    if options.bundle:
        raise SecretError("keygen: --console and --bundle are two things; make one after the other")
    require_console("keygen")
    from inspector.console.certificate import make_certificate

    hosts = options.host or [socket.gethostname(), "localhost", "127.0.0.1"]
    certificate, key = make_certificate(options.folder, options.name or "console", hosts)
    print(f"{key}: secret; it stays on this machine")
    print(f"{certificate}: certificate, for {', '.join(hosts)}; browsers are to trust it")
    print("in the page's file:")
    print(f"hosts: [{', '.join(hosts)}]")
    print(f"tls: {{certificate: {certificate.absolute()}, key: {key.absolute()}}}")
    return 0
