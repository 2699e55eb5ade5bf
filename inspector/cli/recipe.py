"""``recipe``: have a station change over to another recipe."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import add_station, add_timeout, client_keys
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``recipe``."""
    parser.add_argument("name", metavar="NAME", help="a recipe of the station file")
    add_timeout(parser, 120.0)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have the station judge by another recipe; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    with Commander(options.address, keys=client_keys(options)) as commander:
        print(plain(commander.recipe(options.name, options.timeout) or f"recipe {options.name}"))
    return 0
