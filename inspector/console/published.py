"""What was published of a part, in one answer: a page that shows parts live asks once for each."""

from __future__ import annotations

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inspector.console.access import person
from inspector.console.app import line_of

_LENGTH_BYTES: Final = 4


async def _published(request: Request) -> Response:
    """A length (4 bytes, the highest first), that many bytes of JSON, the JPEG, the PNG.

    The JSON has ``area``, as of the event ``picture``, and ``jpeg``, the length of the JPEG. It is
    empty (204) where nothing was published, or is in memory no longer: that is no error of a page
    that shows old parts.
    """
    person(request)
    line = line_of(request)
    found = line.picture(request.path_params["epoch"], request.path_params["seq"])
    if found is None:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    area = None if found.area is None else found.area.model_dump()
    head = json.dumps({"area": area, "jpeg": len(found.jpeg)}).encode()
    return Response(
        len(head).to_bytes(_LENGTH_BYTES, "big") + head + found.jpeg + found.png,
        media_type="application/octet-stream",
        # A page shows a live part once; a panel's flash memory is not written for it.
        headers={"Cache-Control": "no-store"},
    )


ROUTES: Final = (Route("/api/stations/{station}/published/{epoch}/{seq:number}", _published),)
