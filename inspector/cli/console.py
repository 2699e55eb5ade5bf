"""``console``: serve the operator's page, or say who may log in to it."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import re
import sys
import unicodedata
from importlib import util
from pathlib import Path
from typing import Final

from inspector import logs
from inspector.cli.bridge import load_keys
from inspector.config.console_file import ConsoleFile, load_console
from inspector.config.console_users import ROLES
from inspector.config.yaml_file import USER
from inspector.errors import ConfigError, SecretError
from inspector.version import install_command

_PACKAGES: Final = ("starlette", "uvicorn", "argon2", "itsdangerous")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``console``."""
    parser.add_argument("file", type=Path, metavar="FILE.yaml")
    parser.add_argument(
        "--stop-on-stdin-eof",
        action="store_true",
        help="stop when standard input ends (for programs that start a page)",
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--add-user",
        metavar="NAME",
        help="add somebody who may log in, or change them: asks for the password, or reads a line "
        "of standard input",
    )
    change.add_argument("--remove-user", metavar="NAME", help="their sessions end within seconds")
    parser.add_argument(
        "--role",
        choices=ROLES,
        help="with --add-user: viewer sees, operator marks parts and changes over, engineer does "
        "everything",
    )


def run(options: argparse.Namespace) -> int:
    """Serve the page until SIGTERM or Ctrl-C; 0. Raises :class:`StartupError`."""
    config = load_console(options.file)
    name = options.add_user if options.add_user is not None else options.remove_user
    if name is not None:
        require()
        _change_users(config, options)
        return 0
    if options.role is not None:
        raise ConfigError("console: --role is of --add-user; add it, or leave --role out")
    keys = {name: load_keys(station) for name, station in config.stations.items()}
    require()
    from inspector.console import server

    logs.to_stderr()
    server.run(config, keys, stop_on_stdin_eof=options.stop_on_stdin_eof)
    return 0


def require(what: str = "console") -> None:
    """Raise :class:`ConfigError` where a package is missing that the page needs."""
    for module in _PACKAGES:
        if util.find_spec(module) is None:
            raise ConfigError(
                f"{what}: needs {module}, which is not installed; run {install_command('console')}"
            )


def _change_users(config: ConsoleFile, options: argparse.Namespace) -> None:
    """Add, change or remove a user. Raises :class:`ConfigError` or :class:`SecretError`."""
    from inspector.console.users import add_user, remove_user

    path = config.users
    if path is None:
        raise ConfigError(
            f"{options.file}: users: names no file; add a line such as "
            f"'users: {options.file.absolute().parent / 'console-users.yaml'}'"
        )
    if options.remove_user is not None:
        name = _name("--remove-user", options.remove_user)
        if options.role is not None:
            raise ConfigError("console: --role is of --add-user; leave it out")
        remove_user(path, name)
        print(f"{path}: {name} is removed, and may log in no more")
        return
    name = _name("--add-user", options.add_user)
    if options.role is None:
        raise ConfigError(f"console: --add-user {name}: add --role viewer, operator or engineer")
    is_new = add_user(path, name, options.role, _ask_password(name))
    done = "may log in" if is_new else "has a new password"
    print(f"{path}: {name} {done}, as {options.role}")


def _name(option: str, given: str) -> str:
    name = unicodedata.normalize("NFC", given.strip())
    if not re.fullmatch(USER, name):
        raise ConfigError(
            f"console: {option}: a name has letters, digits, spaces and . @ ' - _, at most 64, the "
            f"first a letter or digit"
        )
    return name


def _ask_password(name: str) -> str:
    """What was typed twice, or one line of standard input. Raises :class:`SecretError`."""
    if not sys.stdin.isatty():
        try:
            return sys.stdin.readline().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretError(
                f"console: --add-user {name}: the password is no UTF-8 text; write it as such"
            ) from None
    with contextlib.suppress(EOFError):
        typed = getpass.getpass(f"Password of {name}: ")
        if typed == getpass.getpass("Once more: "):
            return typed
    raise SecretError(f"console: --add-user {name}: the two passwords differ; begin again")
