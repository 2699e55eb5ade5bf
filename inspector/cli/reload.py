"""``reload``: have a station read its bundles again, and acknowledge a missed self-test."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import ANSWERS_S, add_person, add_station, add_timeout, client_keys
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``reload``."""
    add_timeout(parser, 120.0)
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have the station read its bundles again, and acknowledge a missed self-test; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        # Loading takes minutes at times, but a station that is there says so at once.
        commander.status()
        print(plain(commander.reload(options.timeout, by=options.by) or "reloaded"))
    return 0
