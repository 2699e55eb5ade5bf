"""The page at work: stations listened to, browsers served, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.middleware import Middleware

from inspector.client import ClientKeys
from inspector.config.console_file import ConsoleFile
from inspector.console import basket, deeds, jobs, parts, table, teach
from inspector.console.app import Page
from inspector.console.basket import Basket
from inspector.console.collecting import Collecting
from inspector.console.guard import Guard
from inspector.console.hub import Hub
from inspector.console.jobs import Jobs
from inspector.console.line import Line
from inspector.console.models import Models
from inspector.console.scores import Scores
from inspector.console.training import Training
from inspector.errors import PortError
from inspector.logs import say


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
        self._config = config
        self._hub = Hub()
        self._lines = [
            Line(name, station, keys[name], self._hub.tell)
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
        training = Training(config.training, config.state)
        models = Models(
            None if config.state is None else config.state / "trained", self._collecting, training
        )
        page = Page(
            self._lines,
            self._hub,
            [
                *parts.ROUTES,
                *table.ROUTES,
                *deeds.ROUTES,
                *jobs.ROUTES,
                *basket.ROUTES,
                *teach.ROUTES,
                *self._collecting.routes,
                *models.routes,
                *Scores().routes(),
            ],
            [Middleware(Guard, config=config)],
        )
        page.app.state.jobs = at_work = Jobs(
            None if config.state is None else config.state / "jobs", self._hub.tell
        )
        page.app.state.training = training
        page.app.state.basket = Basket(config.state)
        page.app.state.folder = config.state
        tls: dict[str, Any] = {}
        if config.tls is not None:
            tls = {"ssl_certfile": config.tls.certificate, "ssl_keyfile": config.tls.key}
        made = uvicorn.Config(
            page.app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=config.connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
            **tls,
        )
        server = Server(made, self._hub.close)
        with _bound(config) as bound:
            loop = asyncio.get_running_loop()
            for line in self._lines:
                line.open(loop)
            try:
                serving = asyncio.ensure_future(server.serve([bound]))
                ending = asyncio.ensure_future(stop.wait())
                address = self._url(bound)
                say("console", page=address, stations=",".join(config.stations))
                if listening is not None:
                    listening(address)
                await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
                server.should_exit = True
                ending.cancel()
                await serving
            finally:
                await at_work.close()
                await self._collecting.end()
                await loop.run_in_executor(None, self._close)

    def _close(self) -> None:
        self._collecting.close()
        for line in self._lines:
            line.close()

    def _url(self, bound: socket.socket) -> str:
        host = self._config.host_and_port[0]
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if self._config.tls is None else "https"
        return f"{scheme}://{shown}:{bound.getsockname()[1]}/"


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
) -> None:
    """Serve the page until SIGTERM or Ctrl-C. Raises :class:`PortError`."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Console(config, keys).run(stop, listening)

    asyncio.run(serve())
