"""Good parts that are to be taught: their whole pictures, as the page keeps them in its folder.

A picture is fetched when its part is put in, so that it is there however much later somebody
teaches. All names are numbers of the page's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from inspector.client import View, Viewer
from inspector.console.access import RefusedError, allowed, person
from inspector.console.app import body, line_of, well_formed
from inspector.files import reason_of, write_whole
from inspector.logs import say
from inspector.verdict import Verdict
from inspector.wire.messages import VerdictMessage
from inspector.wire.queries import PictureQuery

MOST_PARTS: Final = 200
"""In the basket of one station; a lesson of more is no lesson, but a training."""
RESERVE_BYTES: Final = 1 << 30
"""What the page leaves free on its disk."""
_THUMBNAIL_PX: Final = 320
_NEW_US: Final = 30 * 10**6
_WRITTEN_S: Final = 6
"""How long the page waits for the picture of a new reject to be kept."""
_ID: Final = re.compile(r"[0-9]{1,20}")


class BasketPart(BaseModel):
    """A part in the basket."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(pattern=r"^[0-9]{1,20}$")
    verdict: VerdictMessage
    by: str
    at_us: int


class Basket:
    """The baskets of all stations; ``folder`` is the page's, None where it has none.

    Every method reads or writes files, and belongs in a thread; those that write raise
    :class:`RefusedError`.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / "basket"

    def parts(self, station: str) -> list[BasketPart]:
        """What is in the basket, in the order in which it came in."""
        if self._folder is None:
            return []
        found = []
        for path in sorted((self._folder / station).glob("*.json"), key=lambda one: one.name):
            with contextlib.suppress(OSError, ValidationError):
                found.append(BasketPart.model_validate_json(path.read_bytes()))
        return found

    def add(
        self, station: str, verdict: VerdictMessage, png: bytes, thumbnail: bytes, by: str
    ) -> None:
        """Put a part in; one that is in already stays as it is."""
        if self._folder is None:
            raise RefusedError(409, "no_state")
        there = self.parts(station)
        key = verdict.epoch, verdict.seq
        if any((one.verdict.epoch, one.verdict.seq) == key for one in there):
            return
        if len(there) >= MOST_PARTS:
            raise RefusedError(409, "basket_full", f"{MOST_PARTS}")
        now_us = time.time_ns() // 1000
        folder = self._folder / station
        part = BasketPart(id=f"{now_us:020d}", verdict=verdict, by=by, at_us=now_us)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < RESERVE_BYTES + len(png):
                raise RefusedError(409, "disk")
            write_whole(folder / f"{part.id}.png", png)
            write_whole(folder / f"{part.id}.jpg", thumbnail)
            # A part is in the basket once this file is there.
            told = part.model_dump_json(by_alias=True).encode()
            write_whole(folder / f"{part.id}.json", told)
        except OSError as error:
            raise RefusedError(409, "disk", reason_of(error)) from None

    def remove(self, station: str, ids: Sequence[str]) -> None:
        """Take parts out; one that is not in is no error."""
        if self._folder is None:
            raise RefusedError(409, "no_state")
        for name in ids:
            if not _ID.fullmatch(name):
                raise RefusedError(400, "malformed")
            try:
                for ending in ("json", "jpg", "png"):
                    (self._folder / station / f"{name}.{ending}").unlink(missing_ok=True)
            except OSError as error:
                raise RefusedError(409, "disk", reason_of(error)) from None

    def thumbnail(self, station: str, name: str) -> Path:
        """The small picture of a part. Raises :class:`RefusedError`."""
        if self._folder is None or not _ID.fullmatch(name):
            raise RefusedError(404, "unknown")
        path = self._folder / station / f"{name}.jpg"
        if not path.is_file():
            raise RefusedError(404, "unknown")
        return path

    def write(self, station: str, parts: Sequence[BasketPart], folder: Path) -> dict[str, str]:
        """The pictures as ``folder``/0001.png and so on; the part's id of each name."""
        if self._folder is None:
            raise RefusedError(409, "no_state")
        names = {f"{number:04d}.png": part.id for number, part in enumerate(parts, start=1)}
        try:
            folder.mkdir(parents=True)
            for name, one in names.items():
                source = self._folder / station / f"{one}.png"
                try:
                    os.link(source, folder / name)
                except OSError:
                    shutil.copyfile(source, folder / name)
        except OSError as error:
            raise RefusedError(409, "disk", reason_of(error)) from None
        return names


def basket_of(request: Request) -> Basket:
    """The baskets of this page's server."""
    found: Basket = request.app.state.basket
    return found


async def _parts(request: Request) -> Response:
    person(request)
    line, basket = line_of(request), basket_of(request)
    found = await asyncio.to_thread(basket.parts, line.name)
    return JSONResponse(
        {"parts": [one.model_dump(mode="json", by_alias=True) for one in found]},
        headers={"Cache-Control": "no-store"},
    )


async def _add(request: Request) -> Response:
    """Put the part ``seq`` of ``epoch`` in: the station must have kept its whole picture."""
    who = allowed(request, "operator")
    line, basket, told = line_of(request), basket_of(request), await body(request)
    epoch: Any = told.get("epoch")
    seq: Any = told.get("seq")
    with well_formed():
        query = PictureQuery(epoch=epoch, seq=seq, full=True, heatmap=False, id="basket")

    def look(viewer: Viewer) -> tuple[View, View]:
        answer, frames = viewer.ask(query)
        small = query.model_copy(update={"full": False, "longest_px": _THUMBNAIL_PX})
        other, pictures = viewer.ask(small)
        if answer.picture is None or other.picture is None or not frames or not pictures:
            raise RefusedError(404, "unknown")
        return View(answer.picture, frames[0], None), View(other.picture, pictures[0], None)

    full, thumbnail = await line.look(look)
    for _ in range(_WRITTEN_S):
        if full.about.origin == "kept" or not _is_new(full.about.verdict):
            break
        # The station writes the picture of a reject after it has published the verdict.
        await asyncio.sleep(1)
        full, thumbnail = await line.look(look)
    verdict = full.about.verdict
    # Of a part that was not kept the station has the judged region alone, at the model's size.
    if full.about.origin != "kept" or verdict is None:
        raise RefusedError(409, "not_whole")
    assert full.picture is not None and thumbnail.picture is not None
    await asyncio.to_thread(
        basket.add, line.name, verdict, full.picture, thumbnail.picture, who.name
    )
    say("basket", station=line.name, part=f"{verdict.epoch}/{verdict.seq}", by=who.name)
    return JSONResponse({"detail": ""})


def _is_new(verdict: VerdictMessage | None) -> bool:
    if verdict is None or verdict.verdict is Verdict.PASS:
        return False
    return verdict.judged_us > time.time_ns() // 1000 - _NEW_US


async def _remove(request: Request) -> Response:
    allowed(request, "operator")
    line, told = line_of(request), await body(request)
    ids = told.get("ids")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise RefusedError(400, "malformed")
    if len(ids) > MOST_PARTS:
        raise RefusedError(400, "malformed")
    await asyncio.to_thread(basket_of(request).remove, line.name, ids)
    return JSONResponse({"detail": ""})


async def _thumbnail(request: Request) -> Response:
    person(request)
    line, name = line_of(request), request.path_params["part"]
    path = await asyncio.to_thread(basket_of(request).thumbnail, line.name, name)
    cached = {"Cache-Control": "private, max-age=86400, immutable"}
    return FileResponse(path, media_type="image/jpeg", headers=cached)


_BASKET: Final = "/api/stations/{station}/basket"

ROUTES: Final = (
    Route(_BASKET, _parts, methods=["GET"]),
    Route(_BASKET + "/add", _add, methods=["POST"]),
    Route(_BASKET + "/remove", _remove, methods=["POST"]),
    Route(_BASKET + "/{part}/picture", _thumbnail, methods=["GET"]),
)
