"""``check`` of the page's file: users, certificate, port, folder, and the stations behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inspector.cli.bridge import load_keys
from inspector.cli.check_result import CheckResult, try_port, wrong, wrong_file
from inspector.cli.console import require
from inspector.client import ClientKeys, Commander, Subscriber, Viewer
from inspector.config.console_file import ConsoleFile, ShownStation, load_console
from inspector.config.console_users import load_users
from inspector.errors import (
    CommandError,
    ConfigError,
    PortError,
    Problems,
    SecretError,
    StartupError,
    WireError,
)
from inspector.files import reason_of
from inspector.wire.queries import HistoryQuery

_ANSWER_S: Final = 3.0


def check_console(path: Path) -> Iterator[CheckResult]:
    """Try what the page's file names, in the order in which the page starts."""
    try:
        config = load_console(path)
    except (ConfigError, Problems) as refusal:
        yield from wrong_file(refusal)
        return
    yield CheckResult(
        "config", f"{path}: page at {config.listen}, {len(config.stations)} station(s)"
    )
    try:
        require(str(path))
    except ConfigError as problem:
        yield wrong("packages", problem)
        return
    yield _check_users(config)
    yield from _check_tls(config)
    yield _check_port(config)
    if config.state is not None:
        yield _check_state(config.state)
    for name, station in config.stations.items():
        yield from _check_station(name, station)


def _check_users(config: ConsoleFile) -> CheckResult:
    if config.users is None:
        return CheckResult("users", "none: whoever is on this machine is an engineer")
    try:
        users = load_users(config.users)
        if not users:
            raise ConfigError(f"{config.users}: has no user; add one with --add-user")
    except StartupError as problem:
        return wrong("users", problem)
    told = ", ".join(f"{name} ({user.role})" for name, user in users.items())
    return CheckResult("users", f"{config.users}: {told}")


def _check_tls(config: ConsoleFile) -> Iterator[CheckResult]:
    from inspector.console import certificate

    if config.tls is None:
        return
    try:
        certificate.load(config.tls)
    except SecretError as problem:
        yield wrong("tls", problem)
        return
    yield CheckResult("tls", f"{config.tls.certificate} and its key can be used")
    for doubt in certificate.doubts(config.tls, config.hosts):
        yield CheckResult("tls", f"{config.tls.certificate}: {doubt}", is_doubt=True)


def _check_port(config: ConsoleFile) -> CheckResult:
    try:
        try_port(*config.host_and_port)
    except OSError as error:
        why = f"cannot be used: {reason_of(error)}; is the page running already?"
        return wrong("port", PortError(f"listen: {config.listen}: {why}"))
    return CheckResult("port", f"{config.listen} is free")


def _check_state(folder: Path) -> CheckResult:
    home = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        return wrong("state", ConfigError(f"state: {home} is no folder to write to; make {folder}"))
    return CheckResult("state", f"{folder} can be used")


def _check_station(name: str, station: ShownStation) -> Iterator[CheckResult]:
    """Ask by each of the station's sockets what the page will ask by it."""
    try:
        keys = load_keys(station)
    except SecretError as problem:
        yield wrong("keys", problem)
        return
    try:
        with Commander(station.commands, keys=keys, timeout_s=_ANSWER_S) as commander:
            status = commander.status()
    except (CommandError, WireError) as error:
        yield wrong("station", StartupError(f"{name}: {error}; the page waits for it, too"))
        return
    yield CheckResult("station", f"{name}: '{status.station}' is {status.state}")
    yield _check_queries(name, station, keys)
    yield _check_verdicts(name, station, keys)


def _check_queries(name: str, station: ShownStation, keys: ClientKeys | None) -> CheckResult:
    try:
        with Viewer(station.queries, timeout_s=_ANSWER_S, keys=keys) as viewer:
            viewer.ask(HistoryQuery(command="history", limit=1))
    except (CommandError, WireError) as error:
        why = f"{name}: history: {error}; look at queries, and at the role listen"
        return wrong("station", StartupError(why))
    return CheckResult("history", f"{name}: {station.queries} answers")


def _check_verdicts(name: str, station: ShownStation, keys: ClientKeys | None) -> CheckResult:
    """Whether the station's publications arrive; it publishes its status once a second."""
    try:
        with Subscriber(station.verdicts, keys=keys) as subscriber:
            if subscriber.receive(round(1000 * _ANSWER_S)) is not None:
                return CheckResult("verdicts", f"{name}: verdicts come from {station.verdicts}")
        why = f"nothing came in {_ANSWER_S:g} s; look at verdicts, and at the role listen"
    except WireError as error:
        why = str(error)
    return wrong("verdicts", StartupError(f"{name}: {station.verdicts}: {why}"))
