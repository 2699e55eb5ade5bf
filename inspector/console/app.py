"""What a browser may ask of the page: files, what stations do, and deeds."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from inspector.console.access import RefusedError, person
from inspector.console.hub import Hub
from inspector.console.line import Line
from inspector.console.texts import LANGUAGES, texts
from inspector.errors import CommandError
from inspector.version import VERSION
from inspector.wire.wording import first_wrong

_PAGE: Final = Path(str(files("inspector.console") / "page"))
_NUMBER: Final = "[0-9]{1,15}"


class _Number(Convertor[int]):
    """A number in a path, ``{name:number}``: Python refuses to read one of thousands of digits."""

    regex = _NUMBER

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Number())


class _Files(StaticFiles):
    """Files that a browser asks for anew each time: those of two versions do not fit together."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Page:
    """The page's application, ``app``, for any server of ASGI; one event loop at a time."""

    def __init__(
        self,
        lines: Sequence[Line],
        hub: Hub,
        routes: Sequence[BaseRoute] = (),
        most_streams: int = 16,
    ) -> None:
        self._lines = {line.name: line for line in lines}
        self._hub = hub
        self._most_streams = most_streams
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/api/texts/{language}", self._texts),
                Route("/api/session", self._session),
                Route("/api/events", self._events),
                *routes,
                Mount("/static", _Files(directory=_PAGE)),
            ],
            exception_handlers={
                RefusedError: _refused,
                CommandError: _station_refused,
                ClientDisconnect: _left,
                Exception: _failed,
            },
        )
        self.app.state.line = self.line
        self.app.state.lines = tuple(lines)

    def line(self, name: str) -> Line:
        """The station of this name. Raises :class:`RefusedError`."""
        if name not in self._lines:
            raise RefusedError(404, "unknown_station")
        return self._lines[name]

    async def _index(self, _: Request) -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    async def _texts(self, request: Request) -> Response:
        language = request.path_params["language"]
        if language not in LANGUAGES:
            raise RefusedError(404, "unknown")
        return JSONResponse(texts()[language])

    async def _session(self, request: Request) -> Response:
        found = person(request)
        return JSONResponse(
            {
                "name": found.name,
                "role": found.role,
                "csrf": getattr(request.state, "csrf", ""),
                "log_in": getattr(request.state, "log_in", False),
                "stations": list(self._lines),
                "version": VERSION,
            }
        )

    async def _events(self, request: Request) -> Response:
        who = person(request)
        if self._hub.count(who.name) >= self._most_streams:
            raise RefusedError(429, "too_many_pages", str(self._most_streams))

        async def lines() -> AsyncIterator[str]:
            # Joined here and not before: a browser that has gone again never gets so far.
            follower = self._hub.join(who.name, getattr(request.state, "holds", None))
            snapshot = [line.snapshot() for line in self._lines.values()]
            async with contextlib.aclosing(follower.lines()) as told:
                yield await anext(told)
                yield f"event: snapshot\ndata: {json.dumps(snapshot, ensure_ascii=False)}\n\n"
                async for one in told:
                    yield one

        return StreamingResponse(
            lines(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def line_of(request: Request) -> Line:
    """The station that the request's path names. Raises :class:`RefusedError`."""
    found: Line = request.app.state.line(request.path_params["station"])
    return found


async def body(request: Request) -> dict[str, Any]:
    """The JSON object that the request bears. Raises :class:`RefusedError`."""
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RefusedError(400, "malformed")
    return found


def number(request: Request, name: str, default: str | None = None) -> int:
    """The whole number that a parameter of the address gives. Raises :class:`RefusedError`."""
    given = request.query_params.get(name, default)
    if given is None or not re.fullmatch(_NUMBER, given):
        raise RefusedError(400, "malformed", name)
    return int(given)


@contextlib.contextmanager
def well_formed() -> Iterator[None]:
    """Refuse what was asked where the wire has no room for it."""
    try:
        yield
    except ValidationError as error:
        raise RefusedError(400, "malformed", first_wrong(error)) from None


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"code": error.code, "detail": error.detail}, status_code=error.status)


def _left(_: Request, __: Exception) -> Response:
    # Nobody reads it. A tablet that leaves while it sends is no mistake of the page.
    return Response(status_code=400)


def _failed(_: Request, error: Exception) -> Response:
    # The error goes on to the server, which has it in the log.
    return JSONResponse({"code": "crash", "detail": type(error).__name__}, status_code=500)


def _station_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, CommandError)
    # Without a code the station did not answer.
    status = 409 if error.code else 504
    told = {"code": error.code or "no_answer", "cause": error.cause, "detail": error.detail}
    return JSONResponse(told, status)
