"""One station as the page knows it: what it publishes, and how it is asked and ordered."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from inspector.client import ClientKeys, Commander, Gap, Heatmap, Subscriber, View, Viewer
from inspector.config.console_file import ShownStation
from inspector.console.downloads import Places
from inspector.console.recall import Recall, Recalled
from inspector.console.shift import Shift
from inspector.errors import CommandError, WireError
from inspector.logs import say
from inspector.threads import Worker
from inspector.verdict import Verdict
from inspector.wire.messages import AreaField, StatusMessage, VerdictMessage
from inspector.wire.queries import AnswerMessage, CountsQuery, EntryField, HistoryQuery

Result = TypeVar("Result")

_POLL_MS: Final = 200
_GONE_S: Final = 3.0
"""A station that has sent no status for so long is gone (docs/wire.md)."""
_LAST: Final = 60
"""Verdicts, and rejects, that a page which is opened shows at once."""
_PICTURES: Final = 200
"""Pictures that are kept in memory; those of the last rejects are kept besides."""
_ANSWERS_S: Final = 10.0
_COUNTS_S: Final = 3.0
"""A question of the counting waits so long, and so does the end of this program for it."""
_DEAF_S: Final = 10.0
"""After so long without a word the connection is made anew, in case that it was cut unnoticed."""
_PREVIEWS_S: Final = 5.0
"""A station that has no picture says so after two seconds; nobody waits for one that is gone."""
_DOWNLOADS: Final = 2
"""Tables and pictures in full that are sent at once."""


@dataclass(frozen=True)
class PartPicture:
    """What a part looked like to the model: JPEG and PNG as they were published."""

    jpeg: bytes
    png: bytes
    area: AreaField | None
    """The rectangle of the camera's picture that both cover; None: not known."""


class Line:
    """One station. ``tell(event, station, data)`` hears, in the event loop, what it publishes.

    Events: ``verdict`` (``verdict``, ``shift``), ``picture`` (``camera``, ``epoch``, ``seq``,
    ``area``), ``status`` (``status``, ``alive``, ``shift``), ``gap`` (``first``, ``last``),
    ``recent`` (as :meth:`snapshot`, when the history told of parts that did not come live).
    ``shifts``: as of :class:`Shift`.
    """

    def __init__(
        self,
        name: str,
        config: ShownStation,
        keys: ClientKeys | None,
        tell: Callable[[str, str, dict[str, Any]], None],
        shifts: Sequence[str] = ("00:00",),
    ) -> None:
        self.name = name
        self._config = config
        self._keys = keys
        self._tell = tell
        self.status: dict[str, Any] | None = None
        self.alive = False
        self._heard_s = 0.0
        self._shift = Shift(shifts)
        self._recall = Recall(
            self._shift, self._ask_counts, self._hear_recalled, lambda: self.alive, _LAST
        )
        self._recalling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._verdicts: collections.deque[dict[str, Any]] = collections.deque(maxlen=_LAST)
        self._rejects: collections.deque[dict[str, Any]] = collections.deque(maxlen=_LAST)
        self._kept: set[tuple[str, int]] = set()
        """Rejects whose pictures the station keeps, as far as the history told."""
        self._pictures: collections.OrderedDict[tuple[str, int], PartPicture] = (
            collections.OrderedDict()
        )
        self._reject_pictures: collections.OrderedDict[tuple[str, int], PartPicture] = (
            collections.OrderedDict()
        )
        self._listening: _Listening | None = None
        self._viewers = (
            _Desk(f"history {name}", lambda: Viewer(config.queries, keys=keys)),
            _Desk(f"pictures {name}", lambda: Viewer(config.queries, keys=keys)),
            _Desk(f"thumbnails {name}", lambda: Viewer(config.queries, keys=keys)),
            _Desk(
                f"previews {name}",
                lambda: Viewer(config.queries, timeout_s=_PREVIEWS_S, keys=keys),
            ),
        )
        self._counts = _Desk(
            f"counts {name}", lambda: Viewer(config.queries, timeout_s=_COUNTS_S, keys=keys)
        )
        self._previews: dict[tuple[str, bool], asyncio.Future[View]] = {}
        self.downloads = Places(_DOWNLOADS)
        self._commanders = tuple(
            _Desk(of, lambda: Commander(config.commands, timeout_s=_ANSWERS_S, keys=keys))
            for of in (f"orders {name}", f"models {name}")
        )

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen."""

        def hear(item: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._hear, item)

        self._loop = loop
        self._recalling = loop.create_task(self._recall.run())
        self._listening = _Listening(self.name, self._config, self._keys, hear)
        self._listening.start()

    def close(self) -> None:
        """End all threads; not in that of the event loop."""
        if self._loop is not None and self._recalling is not None:
            self._loop.call_soon_threadsafe(self._recalling.cancel)
        if self._listening is not None:
            self._listening.finish()
        desks = (*self._viewers, self._counts, *self._commanders)
        for desk in desks:
            desk.end()
        for desk in desks:
            desk.close()

    def snapshot(self) -> dict[str, Any]:
        """What a page shows of the station as soon as it is opened.

        ``pictures``: of which of its verdicts, ``EPOCH/SEQ``, there are pictures: ``area`` of one
        that was published, ``kept`` where only the station has it.
        """
        pictures: dict[str, Any] = {}
        for told in (*self._verdicts, *self._rejects):
            key = told["epoch"], told["seq"]
            found = self.picture(*key)
            if found is not None:
                area = None if found.area is None else found.area.model_dump()
                pictures[f"{key[0]}/{key[1]}"] = {"kept": False, "area": area}
            elif key in self._kept:
                pictures[f"{key[0]}/{key[1]}"] = {"kept": True, "area": None}
        return {
            "station": self.name,
            "status": self.status,
            "alive": self.alive,
            "shift": self._told_shift(),
            "verdicts": list(self._verdicts),
            "rejects": list(self._rejects),
            "pictures": pictures,
        }

    def picture(self, epoch: str, seq: int) -> PartPicture | None:
        """What was published of the part, if it is still in memory."""
        key = epoch, seq
        return self._pictures.get(key) or self._reject_pictures.get(key)

    async def ask(self, question: Callable[[Viewer], Result]) -> Result:
        """Have a :class:`Viewer` asked, in a thread. Raises :class:`CommandError`."""
        return await self._viewers[0].do(question)

    async def look(self, question: Callable[[Viewer], Result]) -> Result:
        """As :meth:`ask`, for pictures, which do not wait for a search."""
        return await self._viewers[1].do(question)

    async def glance(self, question: Callable[[Viewer], Result]) -> Result:
        """As :meth:`look`, for thumbnails, of which a list asks for many."""
        return await self._viewers[2].do(question)

    async def preview(self, camera: str, *, full: bool = False) -> View:
        """What a camera sees now; those who ask while one waits for its picture get the same.

        Raises :class:`CommandError`.
        """
        waiting = self._previews.get((camera, full))
        if waiting is None:

            def look(viewer: Viewer) -> View:
                return viewer.preview(camera, full=full)

            def done(future: asyncio.Future[View]) -> None:
                del self._previews[camera, full]
                if not future.cancelled():
                    # Those who asked may have gone; nobody else need hear of it.
                    future.exception()

            waiting = asyncio.ensure_future(self._viewers[3].do(look))
            self._previews[camera, full] = waiting
            waiting.add_done_callback(done)
        return await asyncio.shield(waiting)

    async def order(self, deed: Callable[[Commander], Result]) -> Result:
        """Have a :class:`Commander` do something, in a thread. Raises :class:`CommandError`."""
        return await self._commanders[0].do(deed)

    async def send(self, deed: Callable[[Commander], Result]) -> Result:
        """As :meth:`order`, for a model, for which no stop of the line waits."""
        return await self._commanders[1].do(deed)

    def _hear(self, item: object) -> None:
        match item:
            case VerdictMessage():
                if item.judged_us >= self._shift.until_us and self._shift.turn(item.judged_us):
                    self._recall.due()
                self._shift.add(item)
                told = item.model_dump(mode="json", by_alias=True)
                self._verdicts.append(told)
                if item.verdict is not Verdict.PASS:
                    self._rejects.append(told)
                self._tell("verdict", self.name, {"verdict": told, "shift": self._told_shift()})
            case Heatmap():
                self._hear_picture(item)
            case StatusMessage():
                self._heard_s = time.monotonic()
                is_new = not self.alive or self.status is None or self.status["epoch"] != item.epoch
                self.status = item.model_dump(mode="json", by_alias=True)
                self.alive = item.state != "Halted"
                if self._shift.turn(item.sent_us) or (is_new and self.alive):
                    self._recall.due()
                self._tell_status()
            case Gap():
                self._recall.due()
                self._tell("gap", self.name, {"first": item.first, "last": item.last})
            case None if self.alive and time.monotonic() > self._heard_s + _GONE_S:
                self.alive = False
                self._tell_status()

    def _hear_picture(self, item: Heatmap) -> None:
        key = item.message.epoch, item.message.seq
        area = item.message.heatmap_area
        groups = [(self._pictures, _PICTURES)]
        if item.message.verdict is not Verdict.PASS:
            groups.append((self._reject_pictures, _LAST))
        for pictures, most in groups:
            pictures[key] = PartPicture(item.jpeg, item.png, area)
            if len(pictures) > most:
                pictures.popitem(last=False)
        shown = None if area is None else area.model_dump()
        told = {"camera": item.message.camera, "epoch": key[0], "seq": key[1], "area": shown}
        self._tell("picture", self.name, told)

    def _tell_status(self) -> None:
        told = {"status": self.status, "alive": self.alive, "shift": self._told_shift()}
        self._tell("status", self.name, told)

    def _told_shift(self) -> dict[str, Any] | None:
        return self._shift.told() if self._shift.until_us else None

    async def _ask_counts(self, query: HistoryQuery | CountsQuery) -> AnswerMessage:
        def ask(viewer: Viewer) -> AnswerMessage:
            return viewer.ask(query)[0]

        return await self._counts.do(ask)

    def _hear_recalled(self, found: Recalled) -> None:
        self._kept = {
            (entry.verdict.epoch, entry.verdict.seq) for entry in found.rejects if entry.has_picture
        }
        _merge(self._verdicts, found.verdicts)
        _merge(self._rejects, found.rejects)
        self._tell("recent", self.name, self.snapshot())


def _merge(shown: collections.deque[dict[str, Any]], found: Sequence[EntryField]) -> None:
    """Add what is found and not shown, in the order of time."""
    known = {(told["epoch"], told["seq"]) for told in shown}
    merged = list(shown)
    for entry in found:
        if (entry.verdict.epoch, entry.verdict.seq) not in known:
            merged.append(entry.verdict.model_dump(mode="json", by_alias=True))
    merged.sort(key=lambda told: int(told["judged_us"]))
    shown.clear()
    shown.extend(merged)


class _Listening(Worker):
    """Receives what the station publishes; ``hear(None)`` is called while nothing comes."""

    def __init__(
        self,
        name: str,
        config: ShownStation,
        keys: ClientKeys | None,
        hear: Callable[[object], None],
    ) -> None:
        super().__init__(f"listen {name}")
        self._station = name
        self._config = config
        self._keys = keys
        self._hear = hear
        self._ending = threading.Event()

    def finish(self) -> None:
        """End it, and wait for that."""
        self._ending.set()
        self.join()

    def work(self) -> None:
        """Listen, until :meth:`finish`."""
        config = self._config
        while not self._ending.is_set():
            # A page shows what comes; what it lacks it finds in the history.
            subscriber = Subscriber(config.verdicts, config.images, queued=2000, keys=self._keys)
            with subscriber:
                self._listen(subscriber)

    def _listen(self, subscriber: Subscriber) -> None:
        """Listen until the end, or until nothing has come for long."""
        heard_s = time.monotonic()
        while not self._ending.is_set() and time.monotonic() < heard_s + _DEAF_S:
            try:
                item = subscriber.receive(_POLL_MS)
            except WireError as error:
                say("unreadable", logging.WARNING, station=self._station, problem=str(error))
                continue
            if item is not None:
                heard_s = time.monotonic()
            self._hear(item)


class _Desk:
    """One connection in one thread of its own, made at the first question."""

    def __init__(self, name: str, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._thread = ThreadPoolExecutor(1, name)
        self._open = contextlib.ExitStack()
        self._connection: Any = None
        self._is_ending = False

    def end(self) -> None:
        """Questions that wait get no answer; one to a station that is gone takes its time."""
        self._is_ending = True

    async def do(self, work: Callable[[Any], Result]) -> Result:
        def act() -> Result:
            if self._is_ending:
                raise CommandError("the page ends")
            if self._connection is None:
                self._connection = self._open.enter_context(self._connect())
            return work(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    def close(self) -> None:
        self._thread.submit(self._open.close)
        self._thread.shutdown()
