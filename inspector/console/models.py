"""Models made at the page: trained on a set of photos beside the line, reported, put into use."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from inspector.client import Commander
from inspector.config.yaml_file import NAME
from inspector.console.access import RefusedError, allowed, person
from inspector.console.app import body, line_of, number
from inspector.console.collecting import FEWEST, Collecting
from inspector.console.jobs import Step, jobs_of
from inspector.console.training import Training
from inspector.errors import BundleError
from inspector.files import write_output
from inspector.logs import say
from inspector.photos.album import Box

KIND: Final = "train"
"""Of the jobs that make a model."""

_NOTES: Final = "model.json"
_OUTCOME: Final = "outcome.json"
_REPORT_POLICY: Final = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""The report is one page without scripts, whose pictures and styles stand in it."""
_PACES: Final[dict[str, tuple[str, ...]]] = {
    # To see in minutes whether photos and region are what they should be.
    "quick": ("--size", "224", "--folds", "2", "--bank-items", "512"),
    "usual": (),
    "thorough": ("--auto",),
}


class ModelNotes(BaseModel):
    """What stands beside a model of the page."""

    model_config = ConfigDict(frozen=True)

    station: str
    camera: str
    set: int
    photos: int
    region: Box | None = None
    pace: Literal["quick", "usual", "thorough"]
    name: str
    """In every verdict."""
    made_us: int
    by: str = ""
    sha256: str = ""
    """Of the bundle; empty until there is one."""


class Models:
    """The models in ``folder``; None: the page only looks. Used in the thread of the event loop."""

    def __init__(self, folder: Path | None, collecting: Collecting, training: Training) -> None:
        self._folder = folder
        self._collecting = collecting
        self._training = training
        where = "/api/stations/{station}/models"
        self.routes = (
            Route(where, self._list),
            Route(
                "/api/stations/{station}/photos/{set:number}/train", self._train, methods=["POST"]
            ),
            Route(where + "/{model:number}/report", self._report),
            Route(where + "/{model:number}/bundle", self._bundle),
            Route(where + "/{model:number}/use", self._use, methods=["POST"]),
        )

    async def _list(self, request: Request) -> Response:
        """The models of a station, the newest first, and whether more can be trained here.

        ``?set=N``: also what to type where the training tools are, for that set.
        """
        person(request)
        line, typed = line_of(request), list[str]()
        if "set" in request.query_params:
            photos, region, _ = await self._collecting.find(line.name, number(request, "set"))
            typed = commands(photos, region)
        found = await asyncio.to_thread(self._read, line.name)
        program = await self._training.program()
        return JSONResponse(
            {
                "tools": program is not None and self._folder is not None,
                "commands": typed,
                "models": [
                    {"number": place, **notes.model_dump(), **told} for place, notes, told in found
                ],
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _train(self, request: Request) -> Response:
        who, line, told = allowed(request, "engineer"), line_of(request), await body(request)
        pace = told.get("pace", "usual")
        if not isinstance(pace, str) or pace not in _PACES:
            raise RefusedError(400, "malformed", "pace")
        if self._folder is None:
            raise RefusedError(409, "no_state")
        album = request.path_params["set"]
        photos, region, count = await self._collecting.find(line.name, album)
        if count < FEWEST:
            raise RefusedError(409, "few_photos", f"{count} / {FEWEST}")
        program = await self._training.program()
        if program is None:
            raise RefusedError(409, "no_tools")
        if (running := jobs_of(request).running) is not None:
            raise RefusedError(409, "job_busy", f"{running.kind}, {running.station}")
        camera = self._collecting.camera(album)
        made = ModelNotes(
            station=line.name,
            camera=camera,
            set=album,
            photos=count,
            region=region,
            pace=pace,
            name=camera if re.fullmatch(NAME, camera) else "part",
            made_us=time.time_ns() // 1000,
            by=who.name,
        )
        try:
            model, folder, made = await asyncio.to_thread(self._new, made, photos)
        except OSError as error:
            raise RefusedError(409, "folder", error.strerror or str(error)) from None
        tool = str(program)
        state = jobs_of(request).start(
            KIND,
            line.name,
            who.name,
            [
                Step("train", (tool, *train_words(Path("photos"), region, pace))),
                Step("report", (tool, "evaluate", "run")),
                Step("export", (tool, "export", "run", "-o", "part.onnx", "--name", made.name)),
            ],
            folder,
            about={"set": album, "model": model, "pace": pace, "photos": count},
            result=self._finish(folder, made, model),
        )
        return JSONResponse(state.model_dump(mode="json"))

    async def _report(self, request: Request) -> Response:
        person(request)
        folder, _ = await self._asked(request)
        return _file(
            folder / "run" / "report.html",
            "text/html",
            {"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "no-store"},
        )

    async def _bundle(self, request: Request) -> Response:
        """The bundle itself, for a station that takes it by hand."""
        allowed(request, "engineer")
        folder, notes = await self._asked(request)
        named = {"Content-Disposition": f'attachment; filename="{notes.name}.onnx"'}
        return _file(folder / "part.onnx", "application/octet-stream", named)

    async def _use(self, request: Request) -> Response:
        """Have the station judge by a model."""
        who, line, told = allowed(request, "engineer"), line_of(request), await body(request)
        folder, notes = await self._asked(request)
        recipe, camera = told.get("recipe"), told.get("camera", notes.camera)
        if not isinstance(recipe, str) or not isinstance(camera, str):
            raise RefusedError(400, "malformed", "recipe, camera")
        path = folder / "part.onnx"
        if not notes.sha256:
            raise RefusedError(409, "unfinished")

        def install(commander: Commander) -> str:
            return commander.install(path, recipe, camera, by=who.name)

        try:
            detail = await line.send(install)
        except BundleError as error:
            raise RefusedError(409, "folder", str(error)) from None
        say("deed", station=line.name, deed="install", model=notes.name, by=who.name)
        return JSONResponse({"detail": detail})

    async def _asked(self, request: Request) -> tuple[Path, ModelNotes]:
        """Folder and notes of the model that a request names. Raises :class:`RefusedError`."""
        if self._folder is None:
            raise RefusedError(404, "unknown")
        # A number alone makes the name of the folder.
        folder = self._folder / f"{request.path_params['model']:04d}"
        notes = await asyncio.to_thread(_notes_of, folder)
        if notes is None or notes.station != line_of(request).name:
            raise RefusedError(404, "unknown")
        return folder, notes

    # In threads.

    def _read(self, station: str) -> list[tuple[int, ModelNotes, dict[str, Any]]]:
        found = []
        for folder in _numbered(self._folder):
            notes = _notes_of(folder)
            if notes is not None and notes.station == station and notes.sha256:
                told = {"folder": str(folder), "report": (folder / "run" / "report.html").exists()}
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                    told |= outcome_of(folder / "run")
                found.append((int(folder.name), notes, told))
        return sorted(found, key=lambda one: -one[0])

    def _new(self, notes: ModelNotes, photos: Path) -> tuple[int, Path, ModelNotes]:
        """A folder for a model, with the photos as they are now, which later ones leave alone.

        Returns its number and the notes, too: models of one camera are told apart by the number.
        """
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(one.name) for one in _numbered(self._folder)), default=0)
        folder = self._folder / f"{number:04d}"
        folder.mkdir()
        _copy_photos(photos, folder / "photos")
        notes = notes.model_copy(update={"name": f"{notes.name}-{number}"})
        write_output(folder / _NOTES, notes.model_dump_json())
        return number, folder, notes

    def _finish(self, folder: Path, notes: ModelNotes, number: int) -> Callable[[], dict[str, Any]]:
        def finish() -> dict[str, Any]:
            path = folder / "part.onnx"
            digest = _sha256(path)
            self._training.remember(digest, folder / "run")
            made = notes.model_copy(update={"sha256": digest})
            write_output(folder / _NOTES, made.model_dump_json())
            return {"model": number, "sha256": digest}

        return finish


def train_words(photos: Path, region: Box | None, pace: str) -> list[str]:
    """What ``inspector-model`` is told to train a run in the folder ``run``."""
    where = [] if region is None else [f"--region={region.x},{region.y},{region.w},{region.h}"]
    return ["train", str(photos), "-o", "run", *where, *_PACES[pace]]


def commands(photos: Path, region: Box | None) -> list[str]:
    """What a person types where the training tools are installed."""
    return [
        shlex.join(["inspector-model", *train_words(photos, region, "usual")]),
        shlex.join(["inspector-model", "export", "run", "-o", "part.onnx"]),
    ]


def outcome_of(run: Path) -> dict[str, Any]:
    """The figures of a finished run that the page shows. Raises OSError, ValueError, KeyError."""
    told = json.loads((run / _OUTCOME).read_bytes())
    calibration = told["calibration"]
    return {
        "good_parts": calibration["good_parts"],
        "good_rejected": calibration["good_rejected"],
        "interval": calibration["interval"],
        "drawn": (calibration.get("cost") or {}).get("drawn"),
        "passed": (calibration.get("cost") or {}).get("passed"),
        "suspects": [one["name"] for one in told.get("suspects", ())],
        "seconds": told["train_seconds"],
    }


def _numbered(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return [one for one in folder.iterdir() if one.name.isascii() and one.name.isdecimal()]


def _notes_of(folder: Path) -> ModelNotes | None:
    try:
        return ModelNotes.model_validate_json((folder / _NOTES).read_bytes())
    except (OSError, ValidationError):
        return None


def _copy_photos(source: Path, target: Path) -> None:
    """The photos of a set in another folder, by links where the disk has them."""

    def link(photo: str, copy: str) -> None:
        try:
            os.link(photo, copy)
        except OSError:
            shutil.copyfile(photo, copy)

    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"), copy_function=link)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _file(path: Path, kind: str, headers: dict[str, str]) -> Response:
    if not path.is_file():
        raise RefusedError(404, "unknown")
    return FileResponse(path, media_type=kind, headers=headers)
