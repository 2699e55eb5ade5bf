"""Who is at the browser, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from inspector.config.console_users import ROLES, Role

__all__ = [
    "ROLES",
    "Person",
    "RefusedError",
    "Role",
    "allowed",
    "person",
    "take_up_to",
]


@dataclass(frozen=True)
class Person:
    """Who is at the browser."""

    name: str
    """As it stands in the station's log of deeds."""
    role: Role

    def may(self, role: Role) -> bool:
        """True when this person may do what ``role`` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class RefusedError(Exception):
    """The browser's request is refused: ``status`` is HTTP's, ``code`` is for the page's words."""

    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.status = status
        self.code = code
        self.detail = detail


def person(request: Request) -> Person:
    """Who sent this request, as the guard found. Raises :class:`RefusedError` for a stranger."""
    found = getattr(request.state, "person", None)
    if not isinstance(found, Person):
        raise RefusedError(401, "who")
    return found


def allowed(request: Request, role: Role) -> Person:
    """The person, if they may do what ``role`` may. Raises :class:`RefusedError`."""
    found = person(request)
    if not found.may(role):
        raise RefusedError(403, "role", role)
    return found


def take_up_to(request: Request, most_bytes: int) -> None:
    """Let the body of this request be longer than that of others, which is 1 MB at most.

    Called before the body is read, and after :func:`allowed`: a stranger's body is never long.
    """
    request.state.most_bytes = most_bytes
