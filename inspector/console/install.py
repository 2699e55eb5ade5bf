"""A bundle on its way from a browser to a station, piece by piece; nothing of it is kept here."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.console.access import RefusedError, allowed
from inspector.console.app import body, line_of, number
from inspector.logs import say

_MOST_BYTES: Final = 1 << 20
"""Of a piece: a file of any size goes by in many small requests, and may stop at each."""


async def _piece(request: Request) -> Response:
    """Pass a piece on. The answer's ``offset`` is how much the station has, from the beginning."""
    allowed(request, "engineer")
    line, asked = line_of(request), request.query_params
    size, offset, sha256 = number(request, "size"), number(request, "offset"), asked.get("sha256")
    if sha256 is None:
        raise RefusedError(400, "malformed", "sha256")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > _MOST_BYTES:
            raise RefusedError(413, "malformed", f"a piece has at most {_MOST_BYTES} bytes")
    there = await line.order(lambda commander: commander.upload(sha256, size, offset, bytes(data)))
    return JSONResponse({"offset": there})


async def _install(request: Request) -> Response:
    """Have a camera judged by the bundle that was sent."""
    who, line = allowed(request, "engineer"), line_of(request)
    told = await body(request)
    recipe, camera, sha256 = _names(told, "recipe", "camera", "sha256")
    detail = await line.order(
        lambda commander: commander.install_uploaded(sha256, recipe, camera, by=who.name)
    )
    say("deed", station=line.name, deed="install", by=who.name)
    return JSONResponse({"detail": detail})


async def _back(request: Request) -> Response:
    """Have a camera judged by the bundle of before the last install; ``sha256``: only from this."""
    who, line = allowed(request, "engineer"), line_of(request)
    told = await body(request)
    recipe, camera, sha256 = _names(told, "recipe", "camera", "sha256")
    detail = await line.order(
        lambda commander: commander.revert(recipe, camera, sha256=sha256, by=who.name)
    )
    say("deed", station=line.name, deed="revert", by=who.name)
    return JSONResponse({"detail": detail})


def _names(told: dict[str, object], *keys: str) -> list[str]:
    found = [told.get(key) for key in keys]
    names = [one for one in found if isinstance(one, str)]
    if len(names) != len(keys):
        raise RefusedError(400, "malformed", f"needs {', '.join(keys)}")
    return names


_STATION: Final = "/api/stations/{station}/install"
ROUTES: Final = (
    Route(_STATION, _install, methods=["POST"]),
    Route(f"{_STATION}/pieces", _piece, methods=["POST"]),
    Route(f"{_STATION}/back", _back, methods=["POST"]),
)
