"""A station's journal on disk, as ``replay`` and ``export-verdicts`` are told to find it.

Both may read while the station writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from inspector.cli.arguments import moment
from inspector.config.station_file import Station, load_station
from inspector.errors import ConfigError
from inspector.progress import QUICK_S, Bars


def add_journal(parser: argparse.ArgumentParser) -> None:
    """The journal to read, and ``--since`` and ``--until`` for the time to read of."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="STATION.yaml|FOLDER",
        help="a station file, or the folder of a journal",
    )
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="2024-05-01, 2024-05-01T06:00, or 7d, 12h ago"
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="before this time")


def find_journal(source: Path) -> tuple[Path, Station | None]:
    """The folder of the journal, and the station if ``source`` is a station file.

    Raises :class:`ConfigError`.
    """
    if source.suffix.lower() in {".yaml", ".yml"} and not source.is_dir():
        station = load_station(source)
        return station.state_folder, station
    if not source.is_dir():
        what = "a file, not a folder" if source.exists() else "no such folder"
        raise ConfigError(f"{source}: {what}; give a station file or a journal's folder")
    return source, None


def is_within(judged_us: int, options: argparse.Namespace) -> bool:
    """True when ``judged_us`` lies within the time that the options of ``add_journal`` name."""
    return (options.since is None or judged_us >= options.since) and (
        options.until is None or judged_us < options.until
    )


def progress_bar(console: Console) -> Bars:
    """A bar with the number done and the time left, at a terminal; else lines."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        quick_s=QUICK_S,
    )
