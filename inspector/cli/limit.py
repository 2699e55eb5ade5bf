"""``limit``: have a camera judged more tolerantly, or more strictly."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import ANSWERS_S, add_person, add_station, client_keys, factor
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``limit``."""
    parser.add_argument("camera", metavar="CAMERA", help="a camera of the station file")
    parser.add_argument(
        "limit_factor",
        type=factor,
        metavar="FACTOR",
        help="on the limit of its bundle, 0.5 to 2: above 1 tolerates more, below 1 less",
    )
    parser.add_argument("--recipe", metavar="NAME", help="under this recipe [the one in force]")
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have a camera judged by another factor on the limit, now and after a restart; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        recipe = options.recipe or commander.status().recipe
        print(plain(commander.limit(recipe, options.camera, options.limit_factor, by=options.by)))
    return 0
