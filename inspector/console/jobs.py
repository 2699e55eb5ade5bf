"""Long work beside the line: one job at a time, in child processes that yield to everything else.

A job is a list of steps, commands or functions, that run one after the other. What is known of the
last job of each kind and station stands in a file, so that a page which is loaded anew has it. A
job never outlives the page's server, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.console.access import RefusedError, allowed, person
from inspector.console.app import line_of
from inspector.errors import InspectorError
from inspector.files import reason_of, write_whole
from inspector.logs import say
from inspector.progress import FOLLOWED

_LINES: Final = 60
"""Lines of a job's output that are kept."""
_LONGEST_LINE: Final = 500
_CHUNK: Final = 64 << 10
_PAUSE_S: Final = 0.02
"""Between two chunks of output, so that a program that prints without end has no core for it."""
_TELL_S: Final = 0.5
_WRITE_S: Final = 2.0
_GRACE_S: Final = 8.0
"""How long a command may take to end once it is asked to."""
_PROGRESS: Final = re.compile(r"(?P<stage>.{1,200}): (?P<done>\d+)(?: of (?P<total>\d+))?(?:, .*)?")
"""A line of inspector.progress: 'looking at the photos: 12 of 60, took 3.1 s'."""
_KIND: Final = re.compile(r"[a-z]{1,20}")

_BESIDE: Final = f"""
import os, signal, subprocess, sys, threading
if os.name == "posix":
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # With the idle class of the processor, Linux reads and writes its files last, too.
    if hasattr(os, "SCHED_IDLE"):
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:
            pass
    # A machine without memory left shall end this work, never a station.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")
    except OSError:
        pass
try:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
except OSError as error:
    print(f"{{sys.argv[1]}}: cannot be started: {{error.strerror}}")
    sys.exit(127)

def end():
    # The pipe ends with the page's server, however that ends.
    sys.stdin.buffer.read()
    for number in (signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
        try:
            child.wait({_GRACE_S / 4})
            return
        except subprocess.TimeoutExpired:
            pass
    child.kill()

threading.Thread(target=end, daemon=True).start()
code = child.wait()
if os.name == "posix":
    # What the command itself has started, and left.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
os._exit(code if code >= 0 else 128 - code)
"""
"""The program between the page's server and a command: it makes it yield, and ends it."""


class JobState(BaseModel):
    """What is known of a job, as the page has it and as it stands on the disk."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: str
    """Such as ``teach``; the page has words for it."""
    station: str
    by: str
    state: Literal["running", "done", "failed", "cancelled", "lost"] = "running"
    """``lost``: the page's server ended meanwhile."""
    began_us: int
    ended_us: int | None = None
    step: str = ""
    """Name of the step at work, or of the one that failed; the page has words for it."""
    number: int = 0
    """Of that step, from 1."""
    steps: int
    stage: str = ""
    """What the step is at, in the words of its program."""
    done: int | None = None
    total: int | None = None
    lines: tuple[str, ...] = ()
    """The last lines that its programs printed."""
    problem: str = ""
    """Why it failed, in one line."""
    left_out: dict[str, str] = {}
    """Optional steps that failed, and why."""
    about: dict[str, Any] = {}
    """What it is about, as whoever started it says."""
    result: dict[str, Any] | None = None
    """What came of it, once it is done."""


Report = Callable[[str, int, int], None]
"""Hears what a function is at: the stage in words, how much is done, and of how much."""


@dataclass(frozen=True)
class Step:
    """A command, or a function of the event loop, which may raise :class:`InspectorError`."""

    name: str
    work: tuple[str, ...] | Callable[[Report], Awaitable[None]]
    optional: bool = False
    """The job goes on where it fails; ``left_out`` then says why."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of a command, beside the page's own."""


class _FailedError(Exception):
    """A command ended with an error; the message is its own last word."""


class Jobs:
    """The jobs of one page's server; used in the thread of the event loop.

    ``folder`` keeps what is known of them; None: there can be none. ``tell(event, station, data)``
    hears ``job`` with a ``job`` (:class:`JobState` as JSON) whenever something changed.
    """

    def __init__(
        self, folder: Path | None, tell: Callable[[str, str, dict[str, Any]], None]
    ) -> None:
        self._folder = folder
        self._tell = tell
        self._last: dict[tuple[str, str], JobState] = {}
        self._task: asyncio.Task[None] | None = None
        self._key = ("", "")
        self._cancelled = False
        self._closing = False
        self._written_s = self._told_s = 0.0
        self._changed = False
        if folder is not None:
            self._read(folder)

    @property
    def running(self) -> JobState | None:
        """The job at work."""
        return None if self._task is None else self._last[self._key]

    def last(self, kind: str, station: str) -> JobState | None:
        """The last job of this kind for this station, which may be at work."""
        return self._last.get((kind, station))

    def start(
        self,
        kind: str,
        station: str,
        by: str,
        steps: Sequence[Step],
        folder: Path,
        *,
        about: dict[str, Any] | None = None,
        result: Callable[[], dict[str, Any]] | None = None,
        tidy: Callable[[], None] | None = None,
    ) -> JobState:
        """Begin a job; its commands run in ``folder``, which is there.

        ``result`` is called in a thread once all steps are done; it may raise
        :class:`InspectorError`, OSError or ValueError, and the job has then failed. ``tidy`` is
        called in a thread at the end, however that comes. Raises :class:`RefusedError`.
        """
        if self._folder is None:
            raise RefusedError(409, "no_state")
        if (running := self.running) is not None:
            raise RefusedError(409, "job_busy", f"{running.kind}, {running.station}")
        if self._closing:
            raise RefusedError(409, "job_busy")
        assert _KIND.fullmatch(kind)
        self._key, self._cancelled = (kind, station), False
        self._last[self._key] = JobState(
            id=secrets.token_hex(8),
            kind=kind,
            station=station,
            by=by,
            began_us=_now_us(),
            steps=len(steps),
            about=about or {},
        )
        say("job", station=station, job=kind, state="running", by=by)
        self._task = asyncio.ensure_future(self._run(tuple(steps), folder, result, tidy))
        return self._last[self._key]

    async def amend(self, job: JobState, **result: Any) -> None:
        """Add to the result of ``job``, which is done; nothing if another one has begun since."""
        kind, station = job.kind, job.station
        state = self._last[kind, station]
        if state.id != job.id:
            return
        state = state.model_copy(update={"result": {**(state.result or {}), **result}})
        self._last[kind, station] = state
        self._hand_on(state)
        await self._write(state)

    async def cancel(self) -> None:
        """End the job at work, if there is one, and wait for that."""
        if (task := self._task) is not None:
            self._cancelled = True
            task.cancel()
            await asyncio.wait((task,))

    async def close(self) -> None:
        """End the job at work; there will be no other one."""
        self._closing = True
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(
        self,
        steps: tuple[Step, ...],
        folder: Path,
        result: Callable[[], dict[str, Any]] | None,
        tidy: Callable[[], None] | None,
    ) -> None:
        changes: dict[str, Any] = {}
        try:
            await self._save()
            for number, step in enumerate(steps, start=1):
                self._set(step=step.name, number=number, stage="", done=None, total=None)
                try:
                    if isinstance(step.work, tuple):
                        await self._command(step.work, folder, step.environment)
                    else:
                        await step.work(self._report)
                except (InspectorError, _FailedError, OSError) as error:
                    if not step.optional:
                        raise
                    left_out = self._last[self._key].left_out | {step.name: _in_words(error)}
                    self._set(left_out=left_out)
            self._set(stage="", done=None, total=None)
            found = None if result is None else await asyncio.to_thread(result)
            changes = {"state": "done", "result": found or {}}
        except asyncio.CancelledError:
            changes = {"state": "cancelled" if self._cancelled else "lost"}
        except (InspectorError, _FailedError, OSError, ValueError) as error:
            changes = {"state": "failed", "problem": _in_words(error)}
        finally:
            self._set(ended_us=_now_us(), **(changes or {"state": "failed"}))
            ended = self._last[self._key]
            say(
                "job",
                logging.WARNING if ended.state == "failed" else logging.INFO,
                station=ended.station,
                job=ended.kind,
                state=ended.state,
                problem=ended.problem,
            )
            await self._save()
            if tidy is not None:
                await asyncio.to_thread(tidy)
            # Whoever hears of the end may begin another one at once.
            self._task = None
            self._say()

    async def _command(
        self, argv: tuple[str, ...], folder: Path, environment: Mapping[str, str]
    ) -> None:
        """Run a command to its end. Raises :class:`_FailedError`."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _BESIDE, *argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, FOLLOWED: "1", **environment},
            start_new_session=True,
        )
        try:
            await self._follow(child)
            code = await child.wait()
        finally:
            await asyncio.shield(_end(child))
        if code:
            raise _FailedError(_why(code, self._last[self._key].lines))

    async def _follow(self, child: asyncio.subprocess.Process) -> None:
        """Read what a command prints, until it ends."""
        assert child.stdout is not None
        pending = b""
        while True:
            # Before Python 3.12 a wait_for that has just got its answer swallows a cancellation.
            reading = asyncio.ensure_future(child.stdout.read(_CHUNK))
            try:
                while not (await asyncio.wait((reading,), timeout=_TELL_S))[0]:
                    await self._flush()
            finally:
                reading.cancel()
            data = reading.result()
            # A line that never ends is cut.
            *lines, pending = re.split(rb"[\r\n]+", pending + data)
            if len(pending) > 4 * _LONGEST_LINE:
                lines, pending = [*lines, pending], b""
            if not data and pending:
                lines = [*lines, pending]
            self._hear(lines[-_LINES:])
            await self._flush()
            if not data:
                return
            await asyncio.sleep(_PAUSE_S)

    def _hear(self, lines: Sequence[bytes]) -> None:
        shown = [
            "".join(letter if letter.isprintable() else " " for letter in text)[:_LONGEST_LINE]
            for line in lines
            if (text := line.decode("utf-8", "replace").strip())
        ]
        changes: dict[str, Any] = {}
        kept = []
        for line in shown:
            found = _PROGRESS.fullmatch(line)
            if found is None or ", took " in line:
                kept.append(line)
            if found is not None:
                total = found["total"]
                changes |= {
                    "stage": found["stage"],
                    "done": int(found["done"]),
                    "total": None if total is None else int(total),
                }
        if kept:
            changes["lines"] = (*self._last[self._key].lines, *kept)[-_LINES:]
        if changes:
            self._set(**changes)

    def _report(self, stage: str, done: int, total: int) -> None:
        self._set(stage=stage, done=done, total=total)
        if time.monotonic() > self._told_s + _TELL_S:
            self._say()

    def _set(self, **changes: Any) -> None:
        self._last[self._key] = self._last[self._key].model_copy(update=changes)
        self._changed = True

    async def _flush(self) -> None:
        if not self._changed or (now := time.monotonic()) < self._told_s + _TELL_S:
            return
        self._say()
        if now > self._written_s + _WRITE_S:
            await self._save()

    def _say(self) -> None:
        self._told_s, self._changed = time.monotonic(), False
        self._hand_on(self._last[self._key])

    def _hand_on(self, state: JobState) -> None:
        self._tell("job", state.station, {"job": state.model_dump(mode="json")})

    async def _save(self) -> None:
        self._written_s = time.monotonic()
        await self._write(self._last[self._key])

    async def _write(self, state: JobState) -> None:
        assert self._folder is not None
        folder, data = self._folder, state.model_dump_json().encode()

        def write() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{state.kind}-{state.station}.json", data, durable=False)

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            say("state", logging.WARNING, problem=f"{folder}: {reason_of(error)}")

    def _read(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.json")):
            try:
                found = JobState.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                say("state", logging.WARNING, problem=f"{path}: {type(error).__name__}; left out")
                continue
            if found.state == "running":
                found = found.model_copy(update={"state": "lost", "ended_us": found.began_us})
            self._last[found.kind, found.station] = found


def _in_words(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)


def _why(code: int, lines: Sequence[str]) -> str:
    told = next((line for line in reversed(lines) if ": error: " in line), "")
    if told:
        return told.partition(": error: ")[2]
    if code == 137:
        return "ended by the system; it may have had too little memory"
    return lines[-1] if lines else f"ended with exit code {code}"


async def _end(child: asyncio.subprocess.Process) -> None:
    """Have a command end, and wait for that."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        await asyncio.wait_for(_drained(child), _GRACE_S)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drained(child), _GRACE_S)


async def _drained(child: asyncio.subprocess.Process) -> None:
    # A pipe that is full would keep a program from ending, and one that is not read stays open.
    assert child.stdout is not None
    while await child.stdout.read(_CHUNK):
        pass
    await child.wait()


def _now_us() -> int:
    return time.time_ns() // 1000


def jobs_of(request: Request) -> Jobs:
    """The jobs of this page's server."""
    found: Jobs = request.app.state.jobs
    return found


async def _job(request: Request) -> Response:
    """The last job of a kind, and which one is at work, if any."""
    person(request)
    jobs, line = jobs_of(request), line_of(request)
    last, running = jobs.last(request.path_params["kind"], line.name), jobs.running
    return JSONResponse(
        {
            "job": None if last is None else last.model_dump(mode="json"),
            "running": None
            if running is None
            else {"kind": running.kind, "station": running.station, "by": running.by},
        },
        headers={"Cache-Control": "no-store"},
    )


async def _cancel(request: Request) -> Response:
    who = allowed(request, "engineer")
    jobs, line = jobs_of(request), line_of(request)
    running = jobs.running
    if running is not None and (running.kind, running.station) == (
        request.path_params["kind"],
        line.name,
    ):
        say("job", station=line.name, job=running.kind, state="cancelling", by=who.name)
        await jobs.cancel()
    return JSONResponse({"detail": ""})


_JOB: Final = "/api/stations/{station}/jobs/{kind}"

ROUTES: Final = (
    Route(_JOB, _job, methods=["GET"]),
    Route(_JOB + "/cancel", _cancel, methods=["POST"]),
)
