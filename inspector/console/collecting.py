"""Photos of good parts, taken at the page: sets of them, in folders whose names are made here."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from inspector.console.access import RefusedError, allowed, person, take_up_to
from inspector.console.app import body, line_of
from inspector.console.line import Line
from inspector.errors import CommandError, ConfigError, Fault, OutputError
from inspector.files import write_output
from inspector.logs import say
from inspector.photos.album import Album, Box, OtherShapeError, says_turned, small_jpeg
from inspector.photos.checks import Objection
from inspector.threads import yield_to_others

Result = TypeVar("Result")
Tell = Callable[[str, str, dict[str, Any]], None]

FEWEST: Final = 10
"""With fewer photos training refuses to start."""
GOOD_START: Final = 100
"""So many photos are enough to begin with."""
MOST_PHOTOS: Final = 500
"""In one set; a page that shows more is no help to anybody."""
MOST_SETS: Final = 200
MOST_PHOTO_BYTES: Final = 128 << 20
"""Of a file that a browser sends."""
RESERVE_BYTES: Final = 1 << 30
"""So much of the disk stays free: the station may record its verdicts there."""

_NOTES: Final = ".set.json"
_SMALL_PX: Final = 240
_LARGE_PX: Final = 1600
_MOST_OPEN: Final = 4
"""Folders that are open at once: their photos need not be measured again."""
_PAUSE_S: Final = 0.15
_SAME_PAUSE_S: Final = 0.5
"""While one part lies before the camera, it need not be looked at more often."""
_IDLE_S: Final = 300.0
"""Taking one of each part ends by itself after so long without a new one."""


class SetNotes(BaseModel):
    """What a set of photos is of, in a hidden file beside them."""

    model_config = ConfigDict(frozen=True)

    station: str
    camera: str
    made_us: int
    by: str = ""


@dataclass
class _Set:
    """One set, and what is done with it now."""

    number: int
    folder: Path
    notes: SetNotes
    refused: Counter[str] = field(default_factory=Counter)
    """Photos of the present taking that were not kept, by the reason."""
    goal: int = 0
    why: str = ""
    """What holds up, or has ended, the taking of one of each part: a key of the page's texts."""
    taking: asyncio.Task[None] | None = None

    @property
    def is_taking(self) -> bool:
        return self.taking is not None and not self.taking.done()


@dataclass(frozen=True)
class Taken:
    """One photo: its name where it was kept, and what is wrong with it."""

    name: str
    objections: list[Objection]
    count: int


class Collecting:
    """The sets of photos in ``folder``; None: the page only looks.

    ``tell`` hears of each photo (event ``photos``). Used in the thread of one event loop; photos
    are measured and written in a thread of their own, one after another.
    """

    def __init__(self, folder: Path | None, tell: Tell, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._tell = tell
        self._reserve_bytes = reserve_bytes
        self._thread = ThreadPoolExecutor(1, "photos", yield_to_others)
        self._sets: dict[int, _Set] | None = None
        self._coming = asyncio.Lock()
        """Held while a photo comes from a browser, so that one is in memory and not a hundred."""
        self._albums: dict[int, Album] = {}
        """Folders that are open, and so locked for ``inspector collect``; only of the thread."""
        where = "/api/stations/{station}/photos"
        self.routes = (
            Route(where, self._list),
            Route(where, self._make, methods=["POST"]),
            Route(where + "/{set:number}", self._show),
            Route(where + "/{set:number}/region", self._region, methods=["POST"]),
            Route(where + "/{set:number}/take", self._take, methods=["POST"]),
            Route(where + "/{set:number}/add", self._add, methods=["POST"]),
            Route(where + "/{set:number}/each", self._each, methods=["POST"]),
            Route(where + "/{set:number}/remove", self._remove, methods=["POST"]),
            Route(where + "/{set:number}/picture/{photo:path}", self._photo),
        )

    def close(self) -> None:
        """End everything; may be called in any thread, once the event loop serves nobody."""

        def close_albums() -> None:
            for album in self._albums.values():
                album.close()

        self._thread.submit(close_albums)
        self._thread.shutdown()

    async def end(self) -> None:
        """End what takes photos by itself."""
        tasks = [one.taking for one in (self._sets or {}).values() if one.taking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def camera(self, number: int) -> str:
        """The camera of a set that :meth:`find` has found."""
        assert self._sets is not None
        return self._sets[number].notes.camera

    async def find(self, station: str, number: int) -> tuple[Path, Box | None, int]:
        """Folder, region and number of photos of a set. Raises :class:`RefusedError`."""
        found = (await self._all()).get(number)
        if found is None or found.notes.station != station:
            raise RefusedError(404, "unknown")
        album = await self._work(partial(self._open, found))
        return found.folder, album.region, len(album)

    # What browsers ask.

    async def _list(self, request: Request) -> Response:
        person(request)
        line = line_of(request)
        sets = await self._all() if self._folder is not None else {}
        shown = [one for one in sets.values() if one.notes.station == line.name]
        return JSONResponse(
            {
                "writable": self._folder is not None,
                "fewest": FEWEST,
                "good_start": GOOD_START,
                "most": MOST_PHOTOS,
                "sets": [{"number": one.number, **one.notes.model_dump()} for one in shown],
            }
        )

    async def _make(self, request: Request) -> Response:
        who, line = allowed(request, "engineer"), line_of(request)
        camera = (await body(request)).get("camera")
        if not isinstance(camera, str) or camera not in _cameras(line):
            raise RefusedError(404, "unknown_camera")
        sets = await self._all()
        if len(sets) >= MOST_SETS:
            raise RefusedError(409, "many_sets", str(MOST_SETS))
        notes = SetNotes(
            station=line.name, camera=camera, made_us=time.time_ns() // 1000, by=who.name
        )
        made = await self._work(partial(self._new, notes, 1 + max(sets, default=0)))
        sets[made.number] = made
        say("photo set", station=line.name, camera=camera, number=made.number, by=who.name)
        return JSONResponse(await self._told(made))

    async def _show(self, request: Request) -> Response:
        person(request)
        return JSONResponse(await self._told(await self._asked(request)))

    async def _region(self, request: Request) -> Response:
        allowed(request, "engineer")
        found, told = await self._asked(request), await body(request)
        if found.is_taking:
            raise RefusedError(409, "taking")
        try:
            region = None if told.get("region") is None else Box.model_validate(told["region"])
        except ValidationError:
            raise RefusedError(400, "malformed", "region") from None
        await self._work(lambda: self._open(found).load(region, lambda *_: None))
        return JSONResponse(await self._told(found))

    async def _take(self, request: Request) -> Response:
        allowed(request, "engineer")
        found, told = await self._asked(request), await body(request)
        taken = await self._one(line_of(request), found, keep_all=told.get("keep_all") is True)
        return JSONResponse(_photo_told(taken))

    async def _add(self, request: Request) -> Response:
        """Add a photo that the browser sends: a picture file; ``?keep_all=1``: also a doubtful one.

        It is decoded as training would, and kept as a lossless PNG of what was decoded. ``turned``
        in the answer: it says that it is to be shown otherwise than it is stored, and so kept.
        """
        allowed(request, "engineer")
        found = await self._asked(request)
        keep_all = request.query_params.get("keep_all") == "1"
        take_up_to(request, MOST_PHOTO_BYTES)
        async with self._coming:
            data = await request.body()

            def keep() -> dict[str, Any]:
                self._check_room()
                album = self._open(found)
                try:
                    png = album.as_png(data)
                except OtherShapeError as error:
                    raise RefusedError(409, "photo_shape", str(error)) from None
                except (Fault, ValueError) as error:
                    raise RefusedError(409, "photo", str(error)) from None
                # The PNG has no such mark any more, so that nobody could tell later.
                turned = says_turned(data)
                return {**_photo_told(_keep(album, png, keep_all)), "turned": turned}

            return JSONResponse(await self._work(keep))

    async def _each(self, request: Request) -> Response:
        """Begin, or end, to take one photo of each part."""
        allowed(request, "engineer")
        found, told = await self._asked(request), await body(request)
        if told.get("on") is not True:
            if found.taking is not None:
                found.taking.cancel()
                await asyncio.gather(found.taking, return_exceptions=True)
            return JSONResponse(await self._told(found))
        goal = told.get("goal", GOOD_START)
        if not isinstance(goal, int) or goal is True or not 1 <= goal <= MOST_PHOTOS:
            raise RefusedError(400, "malformed", f"goal: 1 to {MOST_PHOTOS}")
        if not found.is_taking:
            found.goal, found.why = goal, ""
            found.refused.clear()
            keep_all = told.get("keep_all") is True
            found.taking = asyncio.ensure_future(self._take_each(line_of(request), found, keep_all))
        return JSONResponse(await self._told(found))

    async def _remove(self, request: Request) -> Response:
        allowed(request, "engineer")
        found, told = await self._asked(request), await body(request)
        try:
            await self._work(lambda: self._open(found).remove(told["photo"]))
        except (KeyError, TypeError):
            raise RefusedError(404, "unknown") from None
        return JSONResponse(await self._told(found))

    async def _photo(self, request: Request) -> Response:
        """A photo as it is, or a smaller JPEG of it (``?side=small``, ``large``)."""
        person(request)
        found = await self._asked(request)
        asked = request.path_params["photo"]

        def look() -> tuple[Path, bytes | None]:
            # Only a name that the folder has is ever opened; what was asked is compared with them.
            names = {name: name for name, _ in self._open(found).photos()}
            if asked not in names:
                raise RefusedError(404, "unknown")
            path = found.folder / names[asked]
            side = {"small": _SMALL_PX, "large": _LARGE_PX}.get(
                request.query_params.get("side", "")
            )
            return path, None if side is None else small_jpeg(path, side)

        headers = {"Cache-Control": "private, max-age=86400"}
        try:
            path, jpeg = await self._work(look)
        except (Fault, ValueError) as error:
            raise RefusedError(409, "unreadable", str(error)) from None
        if jpeg is not None:
            return Response(jpeg, media_type="image/jpeg", headers=headers)
        return FileResponse(path, media_type="image/png", headers=headers)

    # What is done.

    async def _take_each(self, line: Line, found: _Set, keep_all: bool) -> None:
        """Take one photo of each part, until there are enough."""
        last_s = time.monotonic()
        why = "stopped"
        try:
            while True:
                if time.monotonic() > last_s + _IDLE_S:
                    why = "idle"
                    return
                pause_s = _PAUSE_S
                try:
                    taken = await self._one(line, found, keep_all)
                except CommandError as error:
                    # No part was there, or no station: both may come back.
                    found.why = error.code or "no_answer"
                    self._told_of(line, found, None)
                    pause_s = _PAUSE_S if error.code == "not_ready" else 1.0
                else:
                    found.why = ""
                    if taken.name:
                        last_s = time.monotonic()
                    else:
                        found.refused[taken.objections[0].kind] += 1
                        pause_s = _SAME_PAUSE_S
                    self._told_of(line, found, taken)
                    if taken.count >= found.goal:
                        why = "enough"
                        return
                await asyncio.sleep(pause_s)
        except RefusedError as error:
            why = error.code
        finally:
            found.why = why
            self._told_of(line, found, None, taking=False)

    async def _one(self, line: Line, found: _Set, keep_all: bool) -> Taken:
        """Take one photo. Raises :class:`RefusedError`, :class:`CommandError`."""
        await self._work(self._check_room)
        view = await line.preview(found.notes.camera, full=True)
        png = view.picture
        if png is None:
            raise RefusedError(409, "unreadable")

        return await self._work(lambda: _keep(self._open(found), png, keep_all))

    def _told_of(self, line: Line, found: _Set, taken: Taken | None, taking: bool = True) -> None:
        self._tell(
            "photos",
            line.name,
            {
                "set": found.number,
                "taking": taking,
                "goal": found.goal,
                "refused": dict(found.refused),
                "why": found.why,
                **({} if taken is None else {"taken": _photo_told(taken)}),
            },
        )

    async def _told(self, found: _Set) -> dict[str, Any]:
        """What a page shows of a set."""

        def look() -> dict[str, Any]:
            album = self._open(found)
            doubts = album.stand_out()
            return {
                "region": None if album.region is None else album.region.model_dump(),
                "photos": [
                    {
                        "name": name,
                        "brightness": round(measures.brightness, 1),
                        "sharpness": round(measures.sharpness, 1),
                        "objections": [_objection_told(one) for one in doubts.get(name, [])],
                    }
                    for name, measures in album.photos()
                ],
            }

        return {
            "number": found.number,
            **found.notes.model_dump(),
            "folder": str(found.folder),
            "taking": found.is_taking,
            "goal": found.goal,
            "refused": dict(found.refused),
            "why": found.why,
            **await self._work(look),
        }

    async def _asked(self, request: Request) -> _Set:
        """The set that the request names. Raises :class:`RefusedError`."""
        found = (await self._all()).get(request.path_params["set"])
        if found is None or found.notes.station != line_of(request).name:
            raise RefusedError(404, "unknown")
        return found

    async def _all(self) -> dict[int, _Set]:
        if self._sets is None:
            read = await self._work(self._read)
            # Somebody else may have asked meanwhile, and has the sets in use.
            self._sets = self._sets or read
        return self._sets

    async def _work(self, work: Callable[[], Result]) -> Result:
        """Do something in the thread of the photos. Raises :class:`RefusedError` for its errors."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (OutputError, ConfigError) as error:
            raise RefusedError(409, "folder", str(error)) from None
        except OSError as error:
            raise RefusedError(409, "folder", error.strerror or str(error)) from None

    # In the thread of the photos.

    def _home(self) -> Path:
        if self._folder is None:
            raise RefusedError(409, "no_state")
        return self._folder

    def _read(self) -> dict[int, _Set]:
        """The sets of earlier starts."""
        home = self._home()
        home.mkdir(parents=True, exist_ok=True)
        found = {}
        for folder in sorted(home.iterdir()):
            if not (folder.name.isascii() and folder.name.isdecimal() and folder.is_dir()):
                continue
            with contextlib.suppress(OSError, ValidationError):
                notes = SetNotes.model_validate_json((folder / _NOTES).read_bytes())
                found[int(folder.name)] = _Set(int(folder.name), folder, notes)
        return found

    def _new(self, notes: SetNotes, number: int) -> _Set:
        self._check_room()
        # A folder that was put there by somebody else is nobody's set, and stays as it is.
        while (folder := self._home() / f"{number:04d}").exists():
            number += 1
        folder.mkdir()
        write_output(folder / _NOTES, notes.model_dump_json())
        return _Set(number, folder, notes)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._home()).free
        if free < self._reserve_bytes:
            raise RefusedError(507, "disk", f"{free >> 20} MB")

    def _open(self, found: _Set) -> Album:
        """The album of a set; those of sets in which nothing happens are closed."""
        album = self._albums.get(found.number)
        if album is None:
            idle = [n for n in self._albums if not (self._sets or {})[n].is_taking]
            for number in idle[: max(0, len(self._albums) + 1 - _MOST_OPEN)]:
                self._albums.pop(number).close()
            album = Album(found.folder)
            try:
                album.load(album.notes.region, lambda *_: None)
            except BaseException:
                album.close()
                raise
            self._albums[found.number] = album
        return album


def _keep(album: Album, png: bytes, keep_all: bool) -> Taken:
    """Keep a photo, unless something is wrong with it. Raises :class:`RefusedError`."""
    if len(album) >= MOST_PHOTOS:
        raise RefusedError(409, "many_photos", str(MOST_PHOTOS))
    try:
        measures = album.measure_png(png)
    except (Fault, ValueError) as error:
        raise RefusedError(409, "photo", str(error)) from None
    objections = album.judge(measures)
    # The very same picture again is of no use to anybody.
    again = any(one.kind == "already there" for one in objections)
    name = ""
    if not again and (keep_all or not objections):
        name = album.add_png(png, measures)
    return Taken(name, objections, len(album))


def _cameras(line: Line) -> set[str]:
    return {one["name"] for one in (line.status or {}).get("cameras", ())}


def _photo_told(taken: Taken) -> dict[str, Any]:
    return {
        "name": taken.name,
        "count": taken.count,
        "objections": [_objection_told(one) for one in taken.objections],
    }


def _objection_told(one: Objection) -> dict[str, str]:
    return {"kind": one.kind.replace(" ", "_"), "like": one.like}
