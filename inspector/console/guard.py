"""What every request passes first: the host that it names, the page it is of, who sends it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspector.config.console_file import ConsoleFile
from inspector.console.access import Person, RefusedError
from inspector.console.log_in import LOG_IN
from inspector.console.sessions import Session, Sessions, Tokens
from inspector.console.texts import texts
from inspector.logs import Refusals

_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HOST: Final = re.compile(r"(\[[^\[\]@/]*\]|[^\[\]:@/]*)(?::[0-9]{0,5})?")
_READS: Final = frozenset({"GET", "HEAD"})
LONGEST_HEAD: Final = 16_384
"""Of a request: its line, names and values. A head that comes in one piece passes uvicorn's."""
_MOST_BYTES: Final = 2**20
"""Of a body, unless its route takes more (:func:`inspector.console.access.take_up_to`)."""
_BODY_S: Final = 10.0
_BYTES_A_SECOND: Final = 32_768
"""A body may take ten seconds, and a second more for so many bytes that have come."""
_LINGER_S: Final = 1.0
_LINGER_BYTES: Final = 2**24
"""How long, and how much of, a body that is not wanted is read, that the answer be read, too."""


class Guard:
    """Refuses what no page of ours asks for, and tells the application who sent the rest."""

    def __init__(
        self,
        app: ASGIApp,
        config: ConsoleFile,
        sessions: Sessions | None,
        tokens: Tokens,
        refusals: Refusals,
    ) -> None:
        """``sessions`` None: without users everybody is an engineer."""
        self._app = app
        self._hosts = frozenset(config.names)
        self._is_secure = config.tls is not None
        self._sessions = sessions
        self._tokens = tokens
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return
        state = scope.setdefault("state", {})
        body = _Body(scope, receive)
        cookie = self._cookie_name(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"]]
                # A page that is stricter still, such as a report, says so itself.
                headers += [one for one in _HEADERS if not _has(headers, one[0])]
                if scope["path"].startswith("/api/") and not _has(headers, b"cache-control"):
                    headers.append((b"cache-control", b"no-store"))
                if (value := state.get("set_cookie")) is not None:
                    headers.append((b"set-cookie", self._set_cookie(cookie, value)))
                if not body.is_over:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            elif not message.get("more_body", False) and not body.is_over:
                # Closed at once, the connection would take the answer from a browser that still
                # sends.
                await send({**message, "more_body": True})
                await body.linger()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        headers = Headers(scope=scope)
        try:
            _check_form(scope, headers, body)
            self._identify(scope, headers, cookie)
        except RefusedError as error:
            await _answer(scope["path"], error)(scope, body.receive, guarded)
            return
        await self._app(scope, body.receive, guarded)

    def _identify(self, scope: Scope, headers: Headers, cookie: str) -> None:
        """Find out who sends a request. Raises :class:`RefusedError`."""
        state, is_deed = scope["state"], scope["method"] not in _READS
        host = headers.get("host", "").lower()
        if _name_of(host) not in self._hosts:
            raise self._refused(scope, 421, "host", "named another host; see 'hosts'")
        if not self._is_ours(headers, host, is_deed):
            raise self._refused(scope, 403, "cross_site", "was sent by another site's page")
        state["log_in"] = self._sessions is not None
        if self._sessions is None:
            state["person"] = Person("", "engineer")
            session_id = ""
        else:
            session = self._recognise(self._sessions, scope, headers, cookie)
            if session is None:
                if is_deed and scope["path"] != LOG_IN:
                    raise RefusedError(401, "who")
                return
            session_id = session.id
        state["csrf"] = self._tokens.of(session_id)
        token = headers.get("x-csrf-token", "")
        if is_deed and scope["path"] != LOG_IN and not self._tokens.fits(token, session_id):
            raise self._refused(scope, 403, "csrf", "came without the token of its session")

    def _recognise(
        self, sessions: Sessions, scope: Scope, headers: Headers, cookie: str
    ) -> Session | None:
        state: dict[str, Any] = scope["state"]
        found = sessions.find(_cookie(headers, cookie))
        if found is None:
            return None
        session, user = found
        state["session"] = session
        state["person"] = Person(session.name, user.role)
        state["holds"] = _holds(sessions, session)
        # A page with a picture for each part asks for something all the time, by itself.
        if scope["method"] not in _READS or headers.get("x-somebody-here") == "1":
            state["set_cookie"] = sessions.use(session)
        return session

    def _is_ours(self, headers: Headers, host: str, is_deed: bool) -> bool:
        """Whether the page itself sent this, or a program that is no browser."""
        site = headers.get("sec-fetch-site", "same-origin")
        # A link on another page may lead here, but nothing there may ask in the background.
        leads = not is_deed and headers.get("sec-fetch-mode") == "navigate"
        if site not in {"same-origin", "none"} and not leads:
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        try:
            found = urlsplit(origin)
        except ValueError:
            return False
        schemes = {"https"} if self._is_secure else {"http", "https"}
        return found.scheme in schemes and found.netloc.lower() == host

    def _refused(self, scope: Scope, status: int, code: str, problem: str) -> RefusedError:
        client = scope.get("client")
        self._refusals.say(client[0] if client else "", problem)
        return RefusedError(status, code)

    def _cookie_name(self, scope: Scope) -> str:
        # Browsers keep one jar for all ports of a host.
        name = f"inspector-{scope['server'][1]}"
        return f"__Host-{name}" if self._is_secure else name

    def _set_cookie(self, name: str, value: str) -> bytes:
        parts = [f"{name}={value}", "Path=/", "HttpOnly", "SameSite=Strict"]
        if self._is_secure:
            parts.append("Secure")
        if not value:
            parts.append("Max-Age=0")
        return "; ".join(parts).encode("ascii")


class _Body:
    """The body of a request, within bounds of length and time."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._state = scope["state"]
        self._receive = receive
        headers = Headers(scope=scope)
        self._length = headers.get("content-length", "0")
        self._bytes = 0
        self._begun_s = 0.0
        self.is_over = self._length == "0" and "transfer-encoding" not in headers
        """Nothing of it is left to be read."""

    async def receive(self) -> Message:
        """The next piece. Raises :class:`RefusedError` when it is too long, or comes too slowly."""
        if self.is_over:
            return await self._receive()
        most = self._state.get("most_bytes", _MOST_BYTES)
        # uvicorn has read the header as a number.
        if max(self._bytes, int(self._length)) > most:
            raise self._too_long(most)
        self._begun_s = self._begun_s or time.monotonic()
        end_s = self._begun_s + _BODY_S + self._bytes / _BYTES_A_SECOND
        try:
            message = await asyncio.wait_for(self._receive(), end_s - time.monotonic())
        except asyncio.TimeoutError:
            raise RefusedError(408, "too_slow") from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self.is_over = not message.get("more_body", False)
            if self._bytes > most:
                raise self._too_long(most)
        return message

    def _too_long(self, most: int) -> RefusedError:
        return RefusedError(413, "too_long", f"{most // 1000:,} kB")

    async def linger(self) -> None:
        """Read on for a moment, for a browser that reads no answer before it has sent all."""
        end_s, read = time.monotonic() + _LINGER_S, 0
        with contextlib.suppress(asyncio.TimeoutError):
            while read < _LINGER_BYTES:
                message = await asyncio.wait_for(self._receive(), end_s - time.monotonic())
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                read += len(message["body"])


def _check_form(scope: Scope, headers: Headers, body: _Body) -> None:
    """Raise :class:`RefusedError` for a request that no browser makes."""
    head = sum(len(name) + len(value) for name, value in headers.raw)
    if head + len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_HEAD:
        raise RefusedError(431, "too_long", f"{LONGEST_HEAD // 1000} kB")
    if scope["method"] in _READS and not body.is_over:
        # Nothing reads it, and an answer that is streamed would be broken by it.
        raise RefusedError(400, "malformed", "body")


def _answer(path: str, error: RefusedError) -> Response:
    """A refusal, in the form that the page reads, or in words for who typed an address."""
    if path.startswith("/api/"):
        return JSONResponse({"code": error.code, "detail": error.detail}, error.status)
    words = [told[f"error.{error.code}"] for told in texts().values()]
    return PlainTextResponse("\n".join(words) + "\n", error.status)


def _holds(sessions: Sessions, session: Session) -> Callable[[], bool]:
    return lambda: sessions.user(session) is not None


def _name_of(host: str) -> str:
    """A host without its port, such as the ``[::1]:8080`` of a header; "" for what is no host."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found[1].strip("[]")


def _has(headers: list[tuple[bytes, bytes]], name: bytes) -> bool:
    return any(key.lower() == name for key, _ in headers)


def _cookie(headers: Headers, name: str) -> str:
    return cookie_parser(headers.get("cookie", "")).get(name, "")
