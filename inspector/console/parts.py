"""What the page shows of parts and cameras: history, pictures, previews, the log of deeds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.client import Viewer
from inspector.console.access import RefusedError, person
from inspector.console.app import line_of, well_formed
from inspector.console.downloads import Download
from inspector.console.line import Line, PartPicture
from inspector.errors import CommandError
from inspector.wire.queries import (
    AnswerMessage,
    DeedsQuery,
    HistoryQuery,
    PictureField,
    PictureQuery,
)

Asked = TypeVar("Asked", HistoryQuery, DeedsQuery)

_Answered = tuple[AnswerMessage, tuple[bytes, ...]]

_LISTS: Final = {"verdicts", "kinds"}
_FOREVER: Final = {"Cache-Control": "private, max-age=86400, immutable"}
"""A verdict's picture never changes."""
_NEVER: Final = {"Cache-Control": "no-store"}
_PIECE_BYTES: Final = 256 << 10

_PICTURE: Final = {"picture": True, "heatmap": False}
_CONTENTS: Final[dict[str, dict[str, Any]]] = {
    "model": {},
    "map": {},
    "thumbnail": {**_PICTURE, "longest_px": 160},
    "picture": {**_PICTURE, "longest_px": 1024},
    "large": {**_PICTURE, "longest_px": 2048},
    "full": {**_PICTURE, "full": True},
    "heatmap": {"picture": False, "heatmap": True},
    "about": {"picture": False, "heatmap": False},
}
"""What there is of a part, and what of it the station is asked for.

``model`` (JPEG) and ``map`` (PNG) are what was published with the verdict, of the last parts only.
``thumbnail``, ``picture`` and ``large`` are JPEG, ``full`` is lossless, ``heatmap`` a PNG in which
128 is the limit; ``about`` is JSON. Pictures bear in ``X-Picture`` what they show: ``origin``,
``width`` and ``height`` in full, ``heatmap_area`` and ``frame_area`` as docs/wire.md has them. What
was published has its map all over it.
"""


async def _history(request: Request) -> Response:
    person(request)
    query = query_of(HistoryQuery, request)
    answer, _ = await line_of(request).ask(lambda viewer: viewer.ask(query))
    return _json(answer)


async def _deeds(request: Request) -> Response:
    person(request)
    query = query_of(DeedsQuery, request)
    answer, _ = await line_of(request).ask(lambda viewer: viewer.ask(query))
    return _json(answer)


async def _picture(request: Request) -> Response:
    """Something of a part, one of :data:`_CONTENTS`; 204 where there is none, or no longer."""
    person(request)
    line, content = line_of(request), request.path_params["content"]
    epoch, seq = request.path_params["epoch"], request.path_params["seq"]
    if content not in _CONTENTS:
        raise RefusedError(404, "unknown")
    published = line.picture(epoch, seq)
    if content == "map":
        return _nothing() if published is None else _image(published.png, "png", None, _FOREVER)
    if content == "model" or (content == "thumbnail" and published is not None):
        if published is None:
            return _nothing()
        return _image(published.jpeg, "jpeg", _of_published(published), _FOREVER)
    with well_formed():
        query = PictureQuery(epoch=epoch, seq=seq, **_CONTENTS[content])

    def look(viewer: Viewer) -> _Answered:
        return viewer.ask(query)

    try:
        if content == "full":
            return await _in_full(line, look, f"part-{seq}")
        answer, frames = await (line.glance if content == "thumbnail" else line.look)(look)
    except CommandError as error:
        # A part without a picture is nothing wrong; a browser would log it as if it were.
        if error.code != "unknown":
            raise
        return _nothing()
    about = answer.picture
    if about is None:
        raise RefusedError(404, "unknown")
    # What is in memory now may be kept, and then larger, a moment later.
    headers = _FOREVER if about.origin == "kept" else _NEVER
    if content == "about":
        told = about.model_dump_json(by_alias=True)
        return Response(told, media_type="application/json", headers=headers)
    if not frames:
        return _nothing()
    return _image(frames[0], about.frames[0].format, _of_answer(about), headers)


async def _in_full(line: Line, look: Callable[[Viewer], _Answered], name: str) -> Response:
    with contextlib.ExitStack() as place:
        place.enter_context(line.downloads.one())
        answer, frames = await line.look(look)
        if not frames or answer.picture is None:
            return _nothing()
        data, kind = frames[0], answer.picture.frames[0].format
        headers = {
            **_NEVER,
            "content-length": str(len(data)),
            "content-disposition": f'attachment; filename="{name}.{kind}"',
        }
        pieces = _pieces(data)
        return Download(pieces, place.pop_all(), media_type=f"image/{kind}", headers=headers)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]


async def _preview(request: Request) -> Response:
    person(request)
    camera = request.path_params["camera"]
    full = request.query_params.get("full") == "1"
    try:
        view = await line_of(request).preview(camera, full=full)
    except CommandError as error:
        if error.code != "not_ready":
            raise
        # A camera that waits for its next part is no failure.
        return _nothing()
    if view.picture is None:
        raise RefusedError(404, "unknown")
    return _image(view.picture, view.about.frames[0].format, _of_answer(view.about), _NEVER)


def _nothing() -> Response:
    return Response(status_code=204, headers=_NEVER)


def _image(
    data: bytes, kind: str, about: dict[str, Any] | None, headers: dict[str, str]
) -> Response:
    """A picture; ``about`` says in a header of its own what it shows."""
    told = {} if about is None else {"X-Picture": json.dumps(about, separators=(",", ":"))}
    return Response(data, media_type=f"image/{kind}", headers=headers | told)


def _of_answer(about: PictureField) -> dict[str, Any]:
    names = {"origin", "width", "height", "heatmap_area", "frame_area"}
    return about.model_dump(mode="json", include=names)


def _of_published(picture: PartPicture) -> dict[str, Any]:
    """As of an answer; map and picture cover the same."""
    area = picture.area
    return {"origin": "published", "frame_area": None if area is None else area.model_dump()}


def query_of(model: type[Asked], request: Request) -> Asked:
    """The query that the address' parameters make. Raises :class:`RefusedError`."""
    given = request.query_params
    unknown = set(given) - model.model_fields.keys() | set(given) & {"command", "id"}
    if unknown:
        raise RefusedError(400, "malformed", f"no parameter {min(unknown)}")
    command = model.model_fields["command"].default
    asked = {name: given[name] for name in given if name not in _LISTS}
    # A list is its parameter several times.
    lists = {name: given.getlist(name) for name in given if name in _LISTS}
    with well_formed():
        made = model.model_validate_strings({"command": command, **asked})
        told = made.model_dump(mode="json", by_alias=True) | lists
        return model.model_validate_json(json.dumps(told))


def _json(answer: AnswerMessage) -> JSONResponse:
    return JSONResponse(answer.model_dump(mode="json", by_alias=True), headers=_NEVER)


_PART: Final = "/api/stations/{station}/parts/{epoch}/{seq:number}"

ROUTES: Final = (
    Route("/api/stations/{station}/history", _history),
    Route("/api/stations/{station}/deeds", _deeds),
    Route(_PART + "/{content}", _picture),
    Route("/api/stations/{station}/preview/{camera}", _preview),
)
