"""A station's start: everything that can refuse is tried, and every problem is told at once."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from inspector import cameras
from inspector.cameras.base import Camera
from inspector.config.cameras import CameraConfig
from inspector.config.station_file import Station
from inspector.errors import NoBundleError, Problems, StartupError
from inspector.journal.pictures import Archive
from inspector.journal.schema import (
    BundleInForce,
    Deed,
    LimitInForce,
    Recovered,
    StopOrder,
)
from inspector.journal.writer import Journal
from inspector.judging.judges import Judges
from inspector.logs import say
from inspector.station.deeds import bundle_deed, limit_deed
from inspector.station.ledger import Ledger
from inspector.station.metrics import Metrics
from inspector.station.recipes import (
    RecipeChoice,
    choose,
    with_bundles,
    with_cure,
    with_limits,
)
from inspector.wire.command_server import Commands, CommandSocket
from inspector.wire.gate import Gate
from inspector.wire.messages import StatusMessage
from inspector.wire.publisher import Publisher
from inspector.wire.query_server import QuerySocket

T = TypeVar("T")


@dataclass(frozen=True)
class Opened:
    """What a station holds while it works; closed by the stack that it was opened on."""

    gate: Gate
    publisher: Publisher
    commands: Commands
    queries: QuerySocket | None
    journal: Journal
    archive: Archive
    recovered: Recovered
    choice: RecipeChoice
    bundles: tuple[BundleInForce, ...]
    """Those that were installed, as the journal names them, also for stations of another name."""
    stop_order: StopOrder
    cameras: tuple[tuple[CameraConfig, Camera], ...]


class Start:
    """One try to open everything; ``leave`` closes what was opened, the last one first.

    ``recipe`` is the one that was ordered for this start; None: that of the journal or the file.
    ``tell`` is called after each step, so that the status never stands still, and ``status`` by
    another thread for what was told last, which answers whoever asks meanwhile; ``speak_through``
    with what publishes it, once there is one; ``announce`` with each camera whose judge is loaded.
    After ``stop_asked()`` no bundle's file is waited for, and ``open`` raises. ``without_model``: a
    bundle whose file is not there is no problem.
    """

    def __init__(
        self,
        station: Station,
        leave: contextlib.ExitStack,
        recipe: str | None,
        *,
        tell: Callable[[], None],
        status: Callable[[], StatusMessage],
        speak_through: Callable[[Callable[[StatusMessage], None]], None],
        announce: Callable[[str], None],
        stop_asked: Callable[[], bool],
        without_model: bool = False,
    ) -> None:
        self._station = station
        self._leave = leave
        self._recipe = recipe
        self._tell = tell
        self._status = status
        self._speak_through = speak_through
        self._announce = announce
        self._stop_asked = stop_asked
        self._without_model = without_model
        self._problems: list[StartupError] = []

    def open(self, judges: Judges, metrics: Metrics, ledger: Ledger) -> Opened:
        """Open sockets, journal, judges and cameras, and begin the ledger's epoch in the journal.

        Raises :class:`StartupError`, several of them together as :class:`Problems`. Those of
        bundles and cameras come first: what stands between the user and a verdict.
        """
        publisher = commands = queries = None
        gate = self._try(self._open_gate)
        if gate is not None:
            publisher = self._try(partial(self._open_publisher, gate))
            commands = self._try(partial(self._open_commands, gate))
            if self._station.sockets.queries is not None:
                address = self._station.sockets.queries
                queries = self._try(partial(self._open_queries, gate, address))
        if self._station.metrics is not None:
            self._try(partial(self._serve_metrics, metrics, self._station.metrics))
        journal = self._try(self._open_journal)
        marked = [] if journal is None else self._try(journal.marked)
        archive = Archive(self._station.state_folder, self._station.journal, marked=marked or ())
        choice = self._choose_recipe(journal)
        overruled = self._restore_orders(journal, judges, ledger)
        judges.select(choice.recipe)
        ledger.select(choice.recipe, choice.source)
        later, self._problems = self._problems, []
        for camera, problem in judges.load(self._stop_asked):
            if problem is None:
                self._announce(camera)
            elif not (self._without_model and self._is_to_come(judges.station, camera, problem)):
                self._problems.append(with_cure(judges.station, camera, problem))
            self._tell()
        held = [self._try(partial(self._open_camera, config)) for config in self._station.cameras]
        problems = [*self._problems, *later]
        if problems or gate is None or publisher is None or commands is None or journal is None:
            raise problems[0] if len(problems) == 1 else Problems(problems)
        journal.keep(choice.kept)
        for kept, deed in overruled:
            journal.keep(kept, deed)
        recovered = journal.begin(ledger.epoch, time.time_ns() // 1000)
        opened = tuple(camera for camera in held if camera is not None)
        return Opened(
            gate=gate,
            publisher=publisher,
            commands=commands,
            queries=queries,
            journal=journal,
            archive=archive,
            recovered=recovered,
            choice=choice,
            bundles=tuple(journal.bundles()),
            stop_order=journal.stop_order(self._station.station),
            cameras=opened,
        )

    def _is_to_come(self, station: Station, camera: str, problem: StartupError) -> bool:
        # Of a bundle that was installed the file is the station's own: it was there, and is lost.
        is_own = station.is_installed(station.recipe, camera)
        return isinstance(problem, NoBundleError) and not is_own

    def _try(self, step: Callable[[], T]) -> T | None:
        """What ``step`` opened; None where it has a problem, which is kept until all are known."""
        try:
            return step()
        except Problems as several:
            self._problems.extend(several.problems)
        except StartupError as problem:
            self._problems.append(problem)
        finally:
            self._tell()
        return None

    def _open_gate(self) -> Gate:
        gate = Gate(self._station.security)
        self._leave.callback(gate.close)
        return gate

    def _open_publisher(self, gate: Gate) -> Publisher:
        addresses = self._station.sockets
        publisher = Publisher(addresses.verdicts, addresses.images, gate)
        self._leave.callback(publisher.close)
        self._speak_through(publisher.send_status)
        verdicts, images = publisher.addresses
        say("listening", verdicts=verdicts, images=images)
        return publisher

    def _open_commands(self, gate: Gate) -> Commands:
        socket = CommandSocket(gate, self._station.sockets.commands)
        commands = Commands(socket, status=self._status)
        self._leave.callback(commands.finish)
        # Bundles load for minutes at times, in which whoever asks shall hear that it starts.
        commands.start()
        say("commands", address=commands.address)
        return commands

    def _open_queries(self, gate: Gate, address: str) -> QuerySocket:
        socket = QuerySocket(gate, address)
        self._leave.callback(socket.close)
        say("queries", address=socket.address)
        return socket

    def _serve_metrics(self, metrics: Metrics, address: str) -> None:
        self._leave.callback(metrics.close)
        say("metrics", address=metrics.serve(address))

    def _open_journal(self) -> Journal:
        folder = self._station.state_folder
        journal = Journal(folder, self._station.journal.verdict_days)
        self._leave.callback(journal.close)
        say("journal", folder=folder)
        return journal

    def _choose_recipe(self, journal: Journal | None) -> RecipeChoice:
        station, before = self._station, None
        if journal is not None:
            before = self._try(partial(journal.in_force, station.station))
        choice = choose(station, before, self._recipe)
        if choice.recipe != station.recipe:
            say(
                "recipe",
                logging.WARNING,
                name=choice.recipe,
                source=choice.source,
                file=station.recipe,
                detail="" if choice.source == "command" else "it was in force before this start",
            )
        return choice

    def _restore_orders(
        self, journal: Journal | None, judges: Judges, ledger: Ledger
    ) -> list[tuple[LimitInForce | BundleInForce, Deed]]:
        """Go on with what was ordered; what the file has overruled is to be kept."""
        limits, installed = None, None
        if journal is not None:
            limits = self._try(partial(journal.limits, self._station.station))
            installed = self._try(journal.bundles)
        station, other_files = with_bundles(self._station, installed or ())
        # Limits are compared with those of the file, which no bundle changes.
        station, other_limits = with_limits(station, limits or ())
        judges.adopt(station)
        ledger.adopt(station)
        self._tell_orders(station, other_files)
        now_us, note = time.time_ns() // 1000, "the station file was changed"
        return [
            *(
                (limit, limit_deed(limit, before, at_us=now_us, note=note))
                for limit, before in other_limits
            ),
            *(
                (bundle, bundle_deed(bundle, before, bundle.of_file, at_us=now_us, note=note))
                for bundle, before in other_files
            ),
        ]

    def _tell_orders(
        self, station: Station, other_files: Sequence[tuple[BundleInForce, str]]
    ) -> None:
        """Log what ``station`` has otherwise than its file, and what its file has overruled."""
        for recipe, per_camera in station.recipes.items():
            for camera, found in per_camera.items():
                of_file = self._station.recipes[recipe][camera]
                where = {"recipe": recipe, "camera": camera}
                detail = "it was in force before this start"
                if found.limit_factor != of_file.limit_factor:
                    say(
                        "limit",
                        logging.WARNING,
                        **where,
                        limit_factor=found.limit_factor,
                        file=of_file.limit_factor,
                        detail=detail,
                    )
                if found.bundle != of_file.bundle:
                    say(
                        "installed",
                        logging.WARNING,
                        **where,
                        sha256=found.bundle.stem,
                        file=of_file.bundle,
                        detail=detail,
                    )
        for bundle, before in other_files:
            say(
                "reverted",
                logging.WARNING,
                recipe=bundle.recipe,
                camera=bundle.camera,
                before=before,
                file=bundle.of_file,
                detail="the station file names another bundle than when this one was installed",
            )

    def _open_camera(self, config: CameraConfig) -> tuple[CameraConfig, Camera]:
        camera = cameras.isolate(config)
        self._leave.callback(camera.close)
        camera.open()
        return config, camera
