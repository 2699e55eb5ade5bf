"""What every request passes first: the host that it names, and who sends it."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from inspector.config.console_file import ConsoleFile
from inspector.console.access import Person

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


class Guard:
    """Refuses requests for another host, and tells the others who sent them."""

    def __init__(self, app: ASGIApp, config: ConsoleFile) -> None:
        self._app = app
        self._hosts = {config.host_and_port[0], *(one.lower() for one in config.hosts)}
        if config.is_loopback:
            self._hosts |= {"localhost", "127.0.0.1", "::1"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers: list[tuple[bytes, bytes]] = [*message["headers"]]  # type: ignore[misc]
                # A page that is stricter still, such as a report, says so itself.
                said = {name.lower() for name, _ in headers}
                message["headers"] = headers + [one for one in _HEADERS if one[0] not in said]
            await send(message)

        host = Headers(scope=scope).get("host", "").rsplit(":", 1)[0].strip("[]").lower()
        if host not in self._hosts:
            refused = JSONResponse({"code": "host", "detail": ""}, status_code=421)
            await refused(scope, receive, guarded)  # type: ignore[arg-type]
            return
        scope.setdefault("state", {})["person"] = Person("", "engineer")
        await self._app(scope, receive, guarded)  # type: ignore[arg-type]
