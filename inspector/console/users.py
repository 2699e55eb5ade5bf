"""Those who may log in: their passwords, and the file of them, read again when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from inspector.config.console_users import ConsoleUser, Role, load_users, write_users
from inspector.errors import ConfigError, InspectorError, SecretError
from inspector.logs import say
from inspector.threads import yield_to_others

SHORTEST: Final = 10
"""Letters of a password."""
LONGEST: Final = 256

# OWASP's parameters. The package's own take four lanes and three times the memory, and so the cores
# and the caches from the line.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_AT_ONCE: Final = 2
_MOST_WAITING: Final = 8


class BusyError(Exception):
    """So many log-ins wait already that no further one is taken."""


class Users:
    """The file of users, as it stands; used in the event loop, but for :meth:`refresh`."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`ConfigError`, :class:`SecretError` or :class:`Problems`."""
        self._path = path
        self._problem = ""
        self._stamp = _stamp(path)
        self._users = load_users(path)
        if not self._users:
            raise ConfigError(
                f"{path}: has no user, so that nobody could log in; add one with 'inspector "
                f"console FILE.yaml --add-user NAME --role engineer'"
            )
        # Who names a user that there is not waits as long as for one that there is.
        self._nobody = _HASHER.hash(os.urandom(16))
        self._desk = ThreadPoolExecutor(_AT_ONCE, "passwords", initializer=yield_to_others)
        self._waiting = 0

    def find(self, name: str) -> ConsoleUser | None:
        """The user of this name."""
        return self._users.get(name)

    async def check(self, name: str, password: str) -> ConsoleUser | None:
        """The user, if the password is theirs; unknown names take as long as known ones.

        Raises :class:`BusyError`.
        """
        if self._waiting >= _MOST_WAITING:
            raise BusyError
        user = self._users.get(name)
        hashed = self._nobody if user is None else user.password
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            is_right = await loop.run_in_executor(self._desk, _is_right, hashed, password)
        finally:
            self._waiting -= 1
        return user if is_right else None

    def refresh(self) -> None:
        """Read the file if it has changed; one that is wrong leaves the users as they were."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            self._users = load_users(self._path)
        except InspectorError as error:
            if self._problem != str(error):
                self._problem = str(error)
                say("users", logging.ERROR, problem=f"{error}; those known so far stay")
            return
        self._stamp, self._problem = stamp, ""
        say("users", known=len(self._users))

    def close(self) -> None:
        """End the threads."""
        self._desk.shutdown()


def add_user(path: Path, name: str, role: Role, password: str) -> bool:
    """Add a user to the file, or change them; True for a new one.

    Raises :class:`ConfigError`, :class:`SecretError` or :class:`Problems`.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise SecretError(
            f"{path}: a password has {SHORTEST} to {LONGEST} letters; choose another one"
        )
    users = dict(load_users(path)) if path.exists() else {}
    is_new = name not in users
    users[name] = ConsoleUser(role=role, password=_HASHER.hash(_bytes(password)))
    write_users(path, users)
    return is_new


def remove_user(path: Path, name: str) -> None:
    """Take a user out of the file. Raises as :func:`add_user` does."""
    users = dict(load_users(path))
    if name not in users:
        there = ", ".join(users) or "nobody"
        raise ConfigError(f"{path}: has no user '{name}'; it has {there}")
    del users[name]
    write_users(path, users)


def _is_right(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False


def _bytes(password: str) -> bytes:
    # Two keyboards may write one letter differently: as a whole, or as a letter and its accent.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
