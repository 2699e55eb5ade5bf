"""Teaching: the basket's parts are taught beside the line, and the last kept parts judged anew."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import re
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from inspector.client import Commander, Viewer
from inspector.config.yaml_file import NAME
from inspector.console.access import RefusedError, allowed, person
from inspector.console.app import body, line_of, well_formed
from inspector.console.basket import RESERVE_BYTES, BasketPart, basket_of
from inspector.console.jobs import JobState, Report, Step, jobs_of
from inspector.console.lessons import forget, in_use, version_of, write_facts
from inspector.console.line import Line
from inspector.console.training import Training
from inspector.errors import CommandError
from inspector.files import reason_of
from inspector.logs import say
from inspector.wire.messages import ModelField, RecipeCommand, VerdictMessage
from inspector.wire.queries import EntryField, HistoryQuery, PictureQuery

KIND: Final = "teach"
TRIED_PARTS: Final = 1000
"""Kept pictures that a taught model is tried on."""
_LOOKED_AT: Final = 50_000
"""Verdicts that are looked through for them."""
_MOST_BYTES: Final = 2 << 30
_PIECE_BYTES: Final = 1 << 20
_SHOWN_CHANGES: Final = 200
_LEFT_S: Final = 6 * 3600.0
_EPOCH: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_NAME: Final = re.compile(NAME)


class Lesson:
    """One lesson: its folder, and what it is about."""

    def __init__(self, folder: Path, line: Line, recipe: str, camera: str) -> None:
        self.folder = folder
        self.line = line
        self.recipe = recipe
        self.camera = camera

    @property
    def good(self) -> Path:
        """The pictures to teach."""
        return self.folder / "good"

    @property
    def bundle(self) -> Path:
        """What comes of it."""
        return self.folder / "taught.onnx"

    @property
    def run(self) -> Path:
        """The extended run."""
        return self.folder / "run"

    @property
    def kept(self) -> Path:
        """Pictures that the station kept, laid out as it keeps them (docs/journal.md)."""
        return self.folder / "kept"

    @property
    def trial(self) -> Path:
        """What the trial on them found."""
        return self.folder / "trial.json"

    def command(self, program: Path, run: Path, precision: str) -> tuple[str, ...]:
        """The command that teaches."""
        return (
            *(str(program), "extend", str(run)),
            *("--good", str(self.good), "-o", str(self.bundle), "--run", str(self.run)),
            # A graphics card knows no idle priority, and the station may judge with it.
            *("--device", "cpu", "--precision", precision),
        )

    async def fetch(self, report: Report) -> None:
        """Fetch the last pictures that the station kept of these parts, to try the model on.

        Raises :class:`CommandError`.
        """
        done = size = 0
        async for entry in self._entries():
            verdict = entry.verdict
            path = _path(verdict)
            if not entry.has_picture or path is None:
                continue
            if data := await self.line.look(functools.partial(_stored, verdict=verdict)):
                await asyncio.to_thread(_write, self.kept / path, data)
                done, size = done + 1, size + len(data)
                report("fetching pictures", done, TRIED_PARTS)
            if done >= TRIED_PARTS or size > _MOST_BYTES:
                return
            free = (await asyncio.to_thread(shutil.disk_usage, self.folder)).free
            if free < RESERVE_BYTES:
                return

    async def _entries(self) -> AsyncIterator[EntryField]:
        query = HistoryQuery(camera=self.camera, id="trial")
        for _ in range(_LOOKED_AT // query.limit):
            asked = query
            answer, _ = await self.line.ask(functools.partial(Viewer.ask, query=asked))
            for entry in answer.entries:
                verdict = entry.verdict
                if verdict.recipe == self.recipe and verdict.purpose == "production":
                    yield entry
            if answer.next_epoch is None:
                return
            query = query.model_copy(
                update={"before_epoch": answer.next_epoch, "before_seq": answer.next_seq}
            )

    def tidy(self) -> None:
        """Remove what was needed for the trial alone."""
        shutil.rmtree(self.kept, ignore_errors=True)

    def result(self, names: dict[str, BasketPart], training: Training) -> dict[str, Any]:
        """What came of it. Raises OSError or ValueError."""
        report = self.run / "taught.json"
        if not report.exists():
            raise ValueError("inspector-model wrote no taught.json; it is of an earlier version")
        told = json.loads(report.read_bytes())
        data = self.bundle.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        training.remember(sha256, self.run)
        write_facts(self.folder, self.line.name, sha256)
        for part in told["parts"]:
            taught = names[part["name"]]
            part |= {
                "id": taught.id,
                "epoch": taught.verdict.epoch,
                "seq": taught.verdict.seq,
                "part_id": taught.verdict.part_id,
                "limit_factor": taught.verdict.limit_factor,
            }
        trial = None
        if self.trial.exists():
            trial = json.loads(self.trial.read_bytes())
            trial["more"] = max(0, len(trial["changed"]) - _SHOWN_CHANGES)
            trial["changed"] = trial["changed"][:_SHOWN_CHANGES]
        bundle = {"sha256": sha256, "bytes": len(data), "path": str(self.bundle)}
        return {**told, "bundle": bundle, "trial": trial}


def _stored(viewer: Viewer, verdict: VerdictMessage) -> bytes | None:
    """The picture as the station keeps it; None where it has it no longer, or not whole."""
    query = PictureQuery(epoch=verdict.epoch, seq=verdict.seq, full=True, heatmap=False, id="trial")
    try:
        answer, frames = viewer.ask(query)
    except CommandError as error:
        if error.code in {"unknown", "failed"}:
            return None
        raise
    is_kept = answer.picture is not None and answer.picture.origin == "kept"
    return frames[0] if is_kept and frames else None


def _path(verdict: VerdictMessage) -> Path | None:
    """Where a station would keep the picture of this part; None for names that none has."""
    if not (_NAME.fullmatch(verdict.camera) and _EPOCH.fullmatch(verdict.epoch)):
        return None
    moment = datetime.fromtimestamp(verdict.judged_us / 1e6, timezone.utc)
    parts = (verdict.camera, verdict.verdict.value, verdict.epoch[:8], f"{verdict.seq:09d}")
    name = f"{moment:%Y%m%dT%H%M%S.%f}_{'_'.join(parts)}.png"
    return Path("pictures") / f"{moment:%Y-%m-%d}" / name


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def _model_in_use(request: Request, recipe: str, camera: str) -> ModelField:
    """The bundle that judges parts of this recipe. Raises :class:`RefusedError`."""
    line = line_of(request)
    query = HistoryQuery(camera=camera, id="model")
    answer, _ = await line.ask(lambda viewer: viewer.ask(query))
    # A part that could not be judged may name none.
    last = next(
        (
            entry.verdict
            for entry in answer.entries
            if entry.verdict.recipe == recipe and entry.verdict.model is not None
        ),
        None,
    )
    job = jobs_of(request).last(KIND, line.name)
    if job is not None and job.result is not None and (used := job.result.get("used")):
        is_of_this = (job.about["recipe"], job.about["camera"]) == (recipe, camera)
        if is_of_this and (last is None or last.judged_us < used["at_us"]):
            # The page has changed it since, and no part was judged by it yet.
            if used["deed"] == "use":
                sha256 = job.result["bundle"]["sha256"]
                return ModelField(**job.result["model"], sha256=sha256)
            return ModelField.model_validate(job.about["model"])
    if last is None or last.model is None:
        raise RefusedError(409, "no_model")
    return last.model


def _check_run(run: Path | None, model: ModelField) -> Path:
    """Raise :class:`RefusedError` where ``run`` is not the one that the bundle in use came from."""
    if run is None:
        raise RefusedError(409, "no_run")
    try:
        version = version_of(run)
    except OSError as error:
        raise RefusedError(409, "no_run", f"{run}: {reason_of(error)}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RefusedError(409, "no_run", f"{run}: no training run") from None
    if version != model.version:
        raise RefusedError(409, "run_other", f"{run}: {version}, {model.version}")
    return run


async def _about(request: Request) -> Response:
    """Whether the basket of a camera and recipe can be taught here, and if not, why."""
    person(request)
    line, recipe, camera = line_of(request), *_asked(dict(request.query_params))
    training: Training = request.app.state.training
    problem, detail, model = "", "", None
    try:
        model = await _model_in_use(request, recipe, camera)
        run = training.run_of(line.name, recipe, camera, model.sha256)
        await asyncio.to_thread(_check_run, run, model)
    except RefusedError as error:
        problem, detail = error.code, error.detail
    return JSONResponse(
        {
            "state": request.app.state.folder is not None,
            "program": await training.program() is not None,
            "problem": problem,
            "detail": detail,
            "model": None if model is None else model.model_dump(mode="json"),
        },
        headers={"Cache-Control": "no-store"},
    )


def _asked(told: dict[str, Any]) -> tuple[str, str]:
    recipe, camera = told.get("recipe"), told.get("camera")
    if not isinstance(recipe, str) or not isinstance(camera, str):
        raise RefusedError(400, "malformed")
    with well_formed():
        RecipeCommand(recipe=recipe)
        HistoryQuery(camera=camera)
    return recipe, camera


async def _prepared(
    request: Request, recipe: str, camera: str, where: str
) -> tuple[Lesson, dict[str, BasketPart]]:
    """A lesson's folder with the basket's pictures of this recipe and camera."""
    folder: Path | None = request.app.state.folder
    if folder is None:
        raise RefusedError(409, "no_state")
    line, basket = line_of(request), basket_of(request)
    stamp = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    lesson = Lesson((folder / where / stamp).resolve(), line, recipe, camera)

    def prepare() -> dict[str, BasketPart]:
        found = [
            one
            for one in basket.parts(line.name)
            if (one.verdict.recipe, one.verdict.camera) == (recipe, camera)
        ]
        if not found:
            raise RefusedError(409, "basket_empty")
        _tidy(folder / where)
        ids = {one.id: one for one in found}
        return {name: ids[one] for name, one in basket.write(line.name, found, lesson.good).items()}

    return lesson, await asyncio.to_thread(prepare)


def _tidy(folder: Path) -> None:
    """Remove what lessons that came to nothing have left, some hours ago."""
    if folder.name != "lessons" or not folder.is_dir():
        return
    for one in folder.iterdir():
        if one.stat().st_mtime > time.time() - _LEFT_S:
            continue
        is_lesson = (one / "run" / "taught.json").exists()
        shutil.rmtree(one / "kept" if is_lesson else one, ignore_errors=True)


async def _forget(request: Request, run: Path) -> None:
    """Remove lessons that nothing needs; where a station does not answer, its own stay.

    ``run`` is the one that is taught next.
    """
    folder: Path | None = request.app.state.folder
    if folder is None:
        return
    used: dict[str, frozenset[str]] = {}
    training: Training = request.app.state.training
    needed = [run, *training.named_runs]
    lines: Sequence[Line] = request.app.state.lines
    for line in lines:
        with contextlib.suppress(CommandError):
            used[line.name] = await line.ask(in_use)
        job = jobs_of(request).last(KIND, line.name)
        if job is not None and job.result is not None:
            # The page offers its bundle still.
            needed.append(Path(job.result["bundle"]["path"]))
    for names in used.values():
        needed += [path for name in names if (path := training.made_by_page(name)) is not None]
    await asyncio.to_thread(forget, (folder / "lessons").resolve(), used, needed)


async def _start(request: Request) -> Response:
    """Teach the parts in the basket, and try what comes of it."""
    who = allowed(request, "engineer")
    line, (recipe, camera) = line_of(request), _asked(await body(request))
    training: Training = request.app.state.training
    jobs = jobs_of(request)
    if (running := jobs.running) is not None:
        raise RefusedError(409, "job_busy", f"{running.kind}, {running.station}")
    program = await training.program()
    if program is None:
        raise RefusedError(409, "no_tools")
    model = await _model_in_use(request, recipe, camera)
    found = training.run_of(line.name, recipe, camera, model.sha256)
    run = await asyncio.to_thread(_check_run, found, model)
    await _forget(request, run)
    lesson, names = await _prepared(request, recipe, camera, "lessons")
    replay = (
        *(sys.executable, "-m", "inspector", "replay", str(lesson.kept), "--show", "0"),
        *("--bundle", str(lesson.bundle), "--report", str(lesson.trial)),
    )
    try:
        job = jobs.start(
            KIND,
            line.name,
            who.name,
            (
                Step("teach", lesson.command(program, run, training.precision)),
                Step("fetch", lesson.fetch, optional=True),
                Step("try", replay, optional=True, environment={"CUDA_VISIBLE_DEVICES": "-1"}),
            ),
            lesson.folder,
            about={
                "recipe": recipe,
                "camera": camera,
                "parts": len(names),
                "model": model.model_dump(mode="json"),
            },
            result=lambda: lesson.result(names, training),
            tidy=lesson.tidy,
        )
    except RefusedError:
        # Somebody else was quicker.
        await asyncio.to_thread(shutil.rmtree, lesson.folder, True)
        raise
    return JSONResponse({"job": job.model_dump(mode="json")})


async def _folder(request: Request) -> Response:
    """Write the basket as a folder, for another machine: where it is, and what to type there."""
    allowed(request, "operator")
    recipe, camera = _asked(await body(request))
    lesson, names = await _prepared(request, recipe, camera, "to-teach")
    return JSONResponse(
        {
            "folder": str(lesson.folder),
            "parts": len(names),
            "command": "inspector-model extend RUN --good good -o taught.onnx",
        }
    )


def _taught(request: Request, name: str | None = None) -> tuple[JobState, Path]:
    """The last lesson of the station that came to something, and its bundle.

    ``name``: the job's id, by which a page that is out of date is refused. Raises
    :class:`RefusedError`.
    """
    job = jobs_of(request).last(KIND, line_of(request).name)
    if job is None or job.state != "done" or job.result is None:
        raise RefusedError(404, "unknown")
    path = Path(job.result["bundle"]["path"])
    if name not in {None, job.id} or not path.is_file():
        raise RefusedError(404, "unknown")
    return job, path


async def _change(request: Request) -> Response:
    """``use``: the taught bundle comes into use; ``back``: the one before it again."""
    who = allowed(request, "engineer")
    line, told = line_of(request), await body(request)
    job, path = _taught(request, str(told.get("job")))
    assert job.result is not None
    deed = request.path_params["deed"]
    recipe, camera = job.about["recipe"], job.about["camera"]
    sha256 = job.result["bundle"]["sha256"]

    if deed == "use":
        detail = await _install(line, path, recipe, camera, by=who.name)
    elif deed == "back":
        detail = await line.order(
            lambda commander: commander.revert(recipe, camera, sha256=sha256, by=who.name)
        )
    else:
        raise RefusedError(404, "unknown")
    say("deed", station=line.name, deed=deed, by=who.name)
    used = {"deed": deed, "by": who.name, "at_us": time.time_ns() // 1000}
    await jobs_of(request).amend(job, used=used)
    if deed == "use":
        # The run knows these parts now, and would refuse to be taught them again.
        taught = [part["id"] for part in job.result["parts"]]
        await asyncio.to_thread(basket_of(request).remove, line.name, taught)
    return JSONResponse({"detail": detail})


async def _install(line: Line, path: Path, recipe: str, camera: str, *, by: str) -> str:
    """Send a bundle piece by piece, between which other deeds are done, and have it installed.

    Raises :class:`CommandError` and :class:`RefusedError`.
    """
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise RefusedError(409, "disk", reason_of(error)) from None
    sha256 = hashlib.sha256(data).hexdigest()

    def send(commander: Commander, there: int) -> int:
        piece = data[there : there + _PIECE_BYTES]
        return commander.upload(sha256, len(data), there, piece)

    there = await line.order(lambda commander: commander.upload(sha256, len(data)))
    while there < len(data):
        there = await line.order(functools.partial(send, there=there))
    return await line.order(
        lambda commander: commander.install_uploaded(sha256, recipe, camera, by=by)
    )


async def _bundle(request: Request) -> Response:
    allowed(request, "engineer")
    _, path = _taught(request)
    return FileResponse(path, media_type="application/octet-stream", filename="taught.onnx")


_TEACH: Final = "/api/stations/{station}/teach"

ROUTES: Final = (
    Route(_TEACH, _about, methods=["GET"]),
    Route(_TEACH + "/start", _start, methods=["POST"]),
    Route(_TEACH + "/folder", _folder, methods=["POST"]),
    Route(_TEACH + "/bundle", _bundle, methods=["GET"]),
    Route(_TEACH + "/{deed}", _change, methods=["POST"]),
)
