"""The page at work: stations listened to, browsers served, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from inspector.client import ClientKeys
from inspector.config.console_file import ConsoleFile
from inspector.console import (
    basket,
    certificate,
    deeds,
    install,
    jobs,
    parts,
    published,
    table,
    teach,
)
from inspector.console.app import Page
from inspector.console.basket import Basket
from inspector.console.collecting import Collecting
from inspector.console.door import Door
from inspector.console.guard import LONGEST_HEAD, Guard
from inspector.console.hub import Hub
from inspector.console.jobs import Jobs
from inspector.console.line import Line
from inspector.console.log_in import LogIn
from inspector.console.models import Models
from inspector.console.scores import Scores
from inspector.console.sessions import Sessions, Store, Tokens
from inspector.console.training import Training
from inspector.console.users import Users
from inspector.errors import PortError
from inspector.logs import Refusals, say

_LIBRARIES: Final = ("uvicorn.error", "asyncio")
_REFRESH_S: Final = 1.0
_KEEP_ALIVE_S: Final = 30
_MOST_STREAMS: Final = 16
"""Pages that one user has open at once."""


class Server(uvicorn.Server):
    """Serves until ``should_exit``; ends the event streams, for which uvicorn would wait."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's; uvicorn would raise them again after its end."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        self._ending()
        await super().shutdown(sockets)


class Console:
    """The page of some stations; used in the thread of one event loop."""

    def __init__(self, config: ConsoleFile, keys: dict[str, ClientKeys | None]) -> None:
        """Raises :class:`ConfigError`, :class:`SecretError` or :class:`Problems`."""
        self._config = config
        self._refusals = Refusals("page")
        self._tls = None if config.tls is None else certificate.load(config.tls)
        self._users = None if config.users is None else Users(config.users)
        self._store = Store(config.state)
        self._hub = Hub()
        self._jobs = Jobs(None if config.state is None else config.state / "jobs", self._hub.tell)
        self._lines = [
            Line(name, station, keys[name], self._hub.tell, config.shifts)
            for name, station in config.stations.items()
        ]
        self._collecting = Collecting(
            None if config.state is None else config.state / "photos", self._hub.tell
        )

    async def run(
        self, stop: asyncio.Event, listening: Callable[[str], None] | None = None
    ) -> None:
        """Serve until ``stop`` is set; ``listening`` hears the page's address (URL).

        Raises :class:`PortError`.
        """
        config = self._config
        made = uvicorn.Config(
            self._guarded(),
            log_config=None,
            access_log=False,
            server_header=False,
            # Whoever is on this machine could else claim any address.
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=LONGEST_HEAD,
        )
        made.load()
        server = Server(made, self._hub.close)
        door = Door(made, server.server_state, config.connections, self._tls, self._refusals)
        with _heard(self._refusals), _bound(config) as bound:
            loop = asyncio.get_running_loop()
            for line in self._lines:
                line.open(loop)
            # The door takes the connections, and uvicorn only what comes by them.
            serving = asyncio.ensure_future(server.serve([]))
            ending = asyncio.ensure_future(stop.wait())
            others = [asyncio.ensure_future(door.serve(bound))]
            if self._users is not None:
                others.append(asyncio.ensure_future(_refresh(self._users)))
            try:
                address = self._url(bound)
                say("console", page=address, stations=",".join(config.stations))
                if listening is not None:
                    listening(address)
                every = (serving, ending, *others)
                await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
                crashed = [task for task in others if task.done()]
                others[0].cancel()
                server.should_exit = True
                await serving
                for broken in crashed:
                    await broken
            finally:
                for task in (ending, *others):
                    task.cancel()
                await asyncio.gather(ending, *others, return_exceptions=True)
                await self._jobs.close()
                await self._collecting.end()
                await loop.run_in_executor(None, self._close)

    def _guarded(self) -> Guard:
        """The page's application, behind its guard."""
        config = self._config
        training = Training(config.training, config.state)
        trained = None if config.state is None else config.state / "trained"
        routes = [
            *parts.ROUTES,
            *table.ROUTES,
            *deeds.ROUTES,
            *published.ROUTES,
            *install.ROUTES,
            *jobs.ROUTES,
            *basket.ROUTES,
            *teach.ROUTES,
            *self._collecting.routes,
            *Models(trained, self._collecting, training).routes,
            *Scores().routes(),
        ]
        sessions = None
        if self._users is not None:
            sessions = Sessions(
                self._users,
                self._store,
                hours=config.session_hours,
                idle_minutes=config.idle_minutes,
            )
            routes += LogIn(self._users, sessions, self._refusals).routes
        most = min(_MOST_STREAMS, config.connections // 2)
        page = Page(self._lines, self._hub, routes, most)
        page.app.state.jobs = self._jobs
        page.app.state.training = training
        page.app.state.basket = Basket(config.state)
        page.app.state.folder = config.state
        return Guard(page.app, config, sessions, Tokens(self._store.secret), self._refusals)

    def _close(self) -> None:
        self._collecting.close()
        for line in self._lines:
            line.close()
        if self._users is not None:
            self._users.close()

    def _url(self, bound: socket.socket) -> str:
        host = self._config.host_and_port[0]
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if self._config.tls is None else "https"
        return f"{scheme}://{shown}:{bound.getsockname()[1]}/"


class _Complaints(logging.Handler):
    """What libraries complain of, in this log: no oftener than what peers do wrong."""

    def __init__(self, refusals: Refusals) -> None:
        super().__init__(logging.WARNING)
        self._refusals = refusals

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down, with the traceback of an error."""
        if record.exc_info is None or record.exc_info[0] is None:
            self._refusals.say("", record.getMessage())
        elif self._refusals.admits(f"{record.name} {record.exc_info[0].__name__}"):
            error = record.exc_info[0].__name__
            logging.getLogger("inspector").error("page error=%s", error, exc_info=record.exc_info)


@contextlib.contextmanager
def _heard(refusals: Refusals) -> Iterator[None]:
    """Have the libraries complain here."""
    handler = _Complaints(refusals)
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    for one in loggers:
        one.addHandler(handler)
        one.propagate = False
    try:
        yield
    finally:
        for one in loggers:
            one.removeHandler(handler)
            one.propagate = True


async def _refresh(users: Users) -> None:
    """Take over changes of the file of users, until cancelled."""
    while True:
        await asyncio.sleep(_REFRESH_S)
        await asyncio.to_thread(users.refresh)


def _bound(config: ConsoleFile) -> socket.socket:
    host, port = config.host_and_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise PortError(f"listen: {config.listen}: cannot be used: {error.strerror}") from None


def run(
    config: ConsoleFile,
    keys: dict[str, ClientKeys | None],
    listening: Callable[[str], None] | None = None,
    *,
    stop_on_stdin_eof: bool = False,
) -> None:
    """Serve the page until SIGTERM or Ctrl-C. Raises :class:`PortError`.

    With ``stop_on_stdin_eof`` the end of standard input stops it too: a page that a program
    started ends with it, however that ends.
    """

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if stop_on_stdin_eof:
            threading.Thread(target=_stop_at_eof, args=(loop, stop), daemon=True).start()
        await Console(config, keys).run(stop, listening)

    asyncio.run(serve())


def _stop_at_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # Not sys.stdin: its lock would be held while the interpreter shuts down.
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(stop.set)
