"""``reset``: have a station leave the state Error, through its self-tests."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import ANSWERS_S, add_person, add_station, client_keys
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``reset``."""
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have a station leave the state Error, if its self-tests find their defects; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        print(plain(commander.reset(by=options.by)))
    return 0
