"""The file of those who may log in to the operator's page, as frozen models (docs/console.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import yaml
from pydantic import Field, model_validator

from inspector.config.yaml_file import USER, FrozenModel, Misplaced, load_yaml
from inspector.errors import SecretError
from inspector.files import read_guarded, reason_of, write_whole

Role = Literal["viewer", "operator", "engineer"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "engineer")
"""Each may do what those before it may."""

_LARGEST: Final = 2**20
_HASH: Final = re.compile(r"\$argon2id\$v=\d+\$m=\d{1,6},t=\d,p=\d\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
_ABOUT: Final = """\
# Who may log in to the operator's page. 'inspector console FILE.yaml --add-user NAME --role ROLE'
# and '--remove-user NAME' write this file; a page that runs takes the change by itself.
"""


class ConsoleUser(FrozenModel):
    """Somebody who may log in."""

    role: Role
    password: str
    """Argon2id, in the form of its reference program; the password itself stands nowhere."""

    @model_validator(mode="before")
    @classmethod
    def _check_hash(cls, told: object) -> object:
        # Misplaced, since any other error shows the value that it found.
        cure = "set the password with 'inspector console FILE.yaml --add-user NAME'"
        if not isinstance(told, dict):
            raise Misplaced((), f"must have the keys role and password; {cure}")
        found = told.get("password", "")
        if not isinstance(found, str) or (found and not _HASH.fullmatch(found)):
            raise Misplaced(("password",), f"is no argon2id hash; {cure}")
        return told


class ConsoleUsers(FrozenModel):
    """All who may log in."""

    documented_in: ClassVar[str] = "docs/console.md"

    users: dict[Annotated[str, Field(pattern=USER)], ConsoleUser] = {}


def load_users(path: Path) -> dict[str, ConsoleUser]:
    """Read the file of users. Raises :class:`ConfigError`, :class:`SecretError`, or
    :class:`Problems`.
    """
    if not path.exists():
        raise SecretError(
            f"{path}: no such file; make it with 'inspector console FILE.yaml --add-user NAME "
            f"--role engineer'"
        )

    def read(path: Path) -> bytes:
        return read_guarded(path, secret=True, always=True, largest=_LARGEST + 1)

    return load_yaml(path, ConsoleUsers, read=read).users


def write_users(path: Path, users: Mapping[str, ConsoleUser]) -> None:
    """Write the file of users, for its owner alone. Raises :class:`SecretError`."""
    told = {"users": {name: user.model_dump() for name, user in users.items()}}
    text = _ABOUT + yaml.safe_dump(told, allow_unicode=True, sort_keys=False, width=1000)
    try:
        write_whole(path, text.encode(), mode=0o600)
    except OSError as error:
        raise SecretError(f"{path}: cannot be written: {reason_of(error)}") from None
