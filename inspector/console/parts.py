"""What the page shows of parts and cameras: history, pictures, previews, the log of deeds."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.client import View, Viewer
from inspector.console.access import RefusedError, person
from inspector.console.app import line_of
from inspector.verdict import Verdict
from inspector.wire.queries import AnswerMessage, DeedsQuery, HistoryQuery
from inspector.wire.wording import first_wrong

Asked = TypeVar("Asked", HistoryQuery, DeedsQuery)

_FOREVER: Final = {"Cache-Control": "private, max-age=86400, immutable"}
"""A verdict's picture never changes."""
_NEVER: Final = {"Cache-Control": "no-store"}


async def _history(request: Request) -> Response:
    person(request)
    query = _query(HistoryQuery, request)
    answer, _ = await line_of(request).ask(lambda viewer: viewer.ask(query))
    return _json(answer)


async def _deeds(request: Request) -> Response:
    person(request)
    query = _query(DeedsQuery, request)
    answer, _ = await line_of(request).ask(lambda viewer: viewer.ask(query))
    return _json(answer)


async def _picture(request: Request) -> Response:
    """``picture``: JPEG of the part; ``heatmap``: PNG, 128 is the limit; ``about``: JSON."""
    person(request)
    line, content = line_of(request), request.path_params["content"]
    epoch, seq = request.path_params["epoch"], request.path_params["seq"]
    if content == "model":
        # The judged region as the model saw it, and as it was published with the verdict.
        published = line.picture(epoch, seq)
        if published is None:
            raise RefusedError(404, "unknown")
        return Response(published.jpeg, media_type="image/jpeg", headers=_FOREVER)
    if content == "map" and (published := line.picture(epoch, seq)) is not None:
        return Response(published.png, media_type="image/png", headers=_FOREVER)

    def look(viewer: Viewer) -> View:
        return viewer.picture(epoch, seq)

    return _view(await line.look(look), content, _FOREVER)


async def _preview(request: Request) -> Response:
    person(request)
    camera = request.path_params["camera"]
    full = request.query_params.get("full") == "1"
    view = await line_of(request).preview(camera, full=full)
    about = view.about
    # A reduced picture does not tell how large the camera's is, by which a region is counted.
    told = {"X-Camera-Size": f"{about.width}x{about.height}", "X-Taken-Us": str(about.at_us)}
    return _view(view, "picture", _NEVER | told)


def _view(view: View, content: str, headers: dict[str, str]) -> Response:
    if content == "about":
        return Response(
            view.about.model_dump_json(by_alias=True),
            media_type="application/json",
            headers=headers,
        )
    data, kind = (view.picture, "picture") if content == "picture" else (view.heatmap, "heatmap")
    told = next((one for one in view.about.frames if one.content == kind), None)
    if data is None or told is None:
        raise RefusedError(404, "unknown")
    return Response(data, media_type=f"image/{told.format}", headers=headers)


def _query(model: type[Asked], request: Request) -> Asked:
    """The query that the address' parameters make. Raises :class:`RefusedError`."""
    given = request.query_params
    unknown = set(given) - model.model_fields.keys() | set(given) & {"command", "id"}
    if unknown:
        raise RefusedError(400, "malformed", f"no parameter {min(unknown)}")
    command = model.model_fields["command"].default
    asked = {name: given[name] for name in given if name != "verdicts"}
    try:
        made = model.model_validate_strings({"command": command, **asked})
        verdicts = tuple(Verdict(one) for one in given.getlist("verdicts"))
    except ValidationError as error:
        raise RefusedError(400, "malformed", first_wrong(error)) from None
    except ValueError as error:
        raise RefusedError(400, "malformed", str(error)) from None
    return made.model_copy(update={"verdicts": verdicts}) if verdicts else made


def _json(answer: AnswerMessage) -> JSONResponse:
    return JSONResponse(answer.model_dump(mode="json", by_alias=True), headers=_NEVER)


_PART: Final = "/api/stations/{station}/parts/{epoch}/{seq:int}"

ROUTES: Final = (
    Route("/api/stations/{station}/history", _history),
    Route("/api/stations/{station}/deeds", _deeds),
    Route(_PART + "/{content}", _picture),
    Route("/api/stations/{station}/preview/{camera}", _preview),
)
