"""``reload``: have a station read its bundles again, and acknowledge a missed self-test."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import add_station, add_timeout, client_keys
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``reload``."""
    add_timeout(parser, 120.0)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have the station read its bundles again, and acknowledge a missed self-test; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    with Commander(options.address, keys=client_keys(options)) as commander:
        print(plain(commander.reload(options.timeout) or "reloaded"))
    return 0
