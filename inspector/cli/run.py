"""``run``: a station in this process."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspector import logs
from inspector.cli.arguments import patience
from inspector.config.station_file import load_station
from inspector.errors import ConfigError
from inspector.station import process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``run``."""
    parser.add_argument("station", type=Path, metavar="STATION.yaml")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="judge by this recipe of the file [the one of before, or the file's in a new journal]",
    )
    parser.add_argument(
        "--without-model",
        action="store_true",
        help="start also where a bundle's file is not there yet: the cameras are shown, and the "
        "operator's page takes the photos, trains the model and installs it",
    )
    parser.add_argument(
        "--wait-for-subscriber",
        type=patience,
        default=0.0,
        metavar="SECONDS",
        help="before the first part, wait this long for a subscriber (for replays and demos)",
    )
    parser.add_argument(
        "--stop-on-stdin-eof",
        action="store_true",
        help="stop when standard input ends (for programs that start a station)",
    )


def run(options: argparse.Namespace) -> int:
    """Run a station until its cameras end or it is stopped; 0. Raises StartupError."""
    station = load_station(options.station)
    if options.recipe is not None and options.recipe not in station.recipes:
        there = ", ".join(sorted(station.recipes))
        raise ConfigError(
            f"{options.station}: recipes: there is no '{options.recipe}', as --recipe asks; "
            f"choose one of {there}"
        )
    logs.to_stderr()
    process.run(
        station,
        options.wait_for_subscriber,
        options.stop_on_stdin_eof,
        options.recipe,
        options.station,
        without_model=options.without_model,
    )
    return 0
