"""Who has logged in: signed cookies, the tokens of deeds, and how often somebody may try."""

from __future__ import annotations

import collections
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from itsdangerous import BadData, Signer, URLSafeSerializer

from inspector.config.console_users import ConsoleUser
from inspector.console.users import Users
from inspector.errors import ConfigError, InspectorError, SecretError
from inspector.files import read_guarded, reason_of, write_whole
from inspector.logs import say

_FILE: Final = "sessions.json"
_SECRET: Final = re.compile(r"[0-9a-f]{64}")
"""A shorter one could be guessed, and cookies be signed with it."""
_LARGEST: Final = 2**24
"""Of the file, bytes: of a month in which somebody logs in and out as often as is let."""
_DIGEST: Final = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
_CLOCK_S: Final = 60.0
"""As far ahead may a cookie's time be: a clock that is set back a little ends no session."""
_RENEW_S: Final = 60.0
"""A cookie that says when it was used last is so old at most."""
_MOST_KNOWN: Final = 10_000


@dataclass(frozen=True)
class Session:
    """One log-in at one browser; times in seconds since the Unix epoch."""

    id: str
    name: str
    begun_s: float
    seen_s: float
    password: str
    """A hash of the user's hash: a new password ends the sessions of the old one."""


class Store:
    """What outlives a restart, in a file for its owner alone: the secret, and who logged out."""

    def __init__(self, folder: Path | None) -> None:
        """``folder`` None: nothing does. Raises :class:`ConfigError` or :class:`SecretError`."""
        self._path = None if folder is None else folder / _FILE
        self._writing = threading.Lock()
        self.secret = secrets.token_hex(32)
        self.ended: dict[str, float] = {}
        """Sessions that were ended, each with the time at which it would have ended by itself."""
        if self._path is None or folder is None:
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"state: {folder}: cannot be made: {reason_of(error)}; make it, or name another"
            ) from None
        if not self._path.exists():
            self.write()
        # What was just written, too: somebody may be able to put another one in its place.
        self._read(self._path)

    def _read(self, path: Path) -> None:
        try:
            told = json.loads(read_guarded(path, secret=True, always=True, largest=_LARGEST))
            if not _SECRET.fullmatch(told["secret"]):
                raise ValueError
            self.secret = told["secret"]
            self.ended = {str(key): float(until_s) for key, until_s in told["ended"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise SecretError(
                f"{path}: is damaged; remove it, after which everybody has to log in again"
            ) from None

    def write(self) -> None:
        """Write the file, where there is one. Raises :class:`SecretError`."""
        if self._path is None:
            return
        with self._writing:
            text = json.dumps({"secret": self.secret, "ended": dict(self.ended)})
            try:
                write_whole(self._path, text.encode(), mode=0o600)
            except OSError as error:
                why = f"cannot be written: {reason_of(error)}; see to its folder and the disk"
                raise SecretError(f"{self._path}: {why}") from None


class Sessions:
    """The sessions of all browsers; used in the thread of the event loop."""

    def __init__(
        self,
        users: Users,
        store: Store,
        *,
        hours: float,
        idle_minutes: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._store = store
        self._longest_s = 3600.0 * hours
        self._idle_s = 60.0 * idle_minutes
        self._clock = clock
        self._cookies = URLSafeSerializer(store.secret, salt="session", signer_kwargs=_DIGEST)
        self._seen_s: dict[str, float] = {}

    def begin(self, name: str, user: ConsoleUser) -> Session:
        """A new session, as somebody logs in."""
        now_s = self._clock()
        return Session(secrets.token_hex(16), name, now_s, now_s, self._hash(user))

    def cookie(self, session: Session) -> str:
        """What the browser sends from then on."""
        return str(self._cookies.dumps([*vars(session).values()]))

    def find(self, cookie: str) -> tuple[Session, ConsoleUser] | None:
        """The session of a cookie, and who it is; None for none that goes on."""
        try:
            told: Any = self._cookies.loads(cookie)
            session = Session(*told)
        except (BadData, TypeError, ValueError):
            return None
        user = self.user(session)
        return None if user is None else (session, user)

    def user(self, session: Session) -> ConsoleUser | None:
        """Who it is, as long as the session goes on."""
        user = self._users.find(session.name)
        if user is None or session.id in self._store.ended:
            return None
        if not hmac.compare_digest(session.password, self._hash(user)):
            return None
        now_s = self._clock()
        if not -_CLOCK_S <= now_s - session.begun_s <= self._longest_s:
            return None
        # A wall screen only shows: it may hang for as long as a session lasts.
        seen_s = max(session.seen_s, self._seen_s.get(session.id, 0.0))
        if user.role != "viewer" and not -_CLOCK_S <= now_s - seen_s <= self._idle_s:
            return None
        return user

    def use(self, session: Session) -> str | None:
        """Note that the session is used; a new cookie, when the browser's is growing old."""
        now_s = self._clock()
        if len(self._seen_s) >= _MOST_KNOWN:
            self._seen_s = {key: at for key, at in self._seen_s.items() if now_s - at < _RENEW_S}
        self._seen_s[session.id] = now_s
        if now_s - session.seen_s < _RENEW_S:
            return None
        return self.cookie(replace(session, seen_s=now_s))

    def end(self, session: Session) -> None:
        """End a session, as somebody logs out; :meth:`remember` has it outlive a restart."""
        now_s, ended = self._clock(), self._store.ended
        for key in [key for key, until_s in ended.items() if until_s < now_s]:
            del ended[key]
        ended[session.id] = session.begun_s + self._longest_s

    def remember(self) -> None:
        """Write down which sessions have ended; called in a thread."""
        try:
            self._store.write()
        except InspectorError as error:
            say("users", logging.ERROR, problem=str(error))

    def _hash(self, user: ConsoleUser) -> str:
        key = self._store.secret.encode()
        return hmac.new(key, user.password.encode(), hashlib.sha256).hexdigest()[:32]


class Tokens:
    """The token that every deed bears: only a page of ours can read it."""

    def __init__(self, secret: str) -> None:
        self._signer = Signer(
            secret, salt="deed", key_derivation="hmac", digest_method=hashlib.sha256
        )

    def of(self, session_id: str) -> str:
        """The token of a session; "" is everybody's at a page without users."""
        return self._signer.get_signature(session_id).decode()

    def fits(self, token: str, session_id: str) -> bool:
        """Whether a deed may be done with this token."""
        return hmac.compare_digest(token.encode(), self.of(session_id).encode())


class Tries:
    """How often each may try: ``burst`` times at once, then every ``refill_s``."""

    def __init__(
        self, burst: int, refill_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._clock = clock
        self._full_s: collections.OrderedDict[str, float] = collections.OrderedDict()
        """For each the time at which all tries are theirs again; the one used last stands last."""

    def take(self, who: str) -> float:
        """Take a try, and return 0; or how many seconds there is none."""
        now_s = self._clock()
        full_s = max(now_s, self._full_s.get(who, now_s))
        wait_s = full_s - now_s - (self._burst - 1) * self._refill_s
        if wait_s > 0:
            return wait_s
        self._full_s[who] = full_s + self._refill_s
        self._full_s.move_to_end(who)
        if len(self._full_s) > _MOST_KNOWN:
            self._full_s.popitem(last=False)
        return 0.0


def network_of(address: str) -> str:
    """What counts as one address: in IPv6 a machine chooses its own from a network of many."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
