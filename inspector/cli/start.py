"""``start``: have a station judge again after ``stop``."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import ANSWERS_S, add_person, add_station, client_keys
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``start``."""
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have a station judge again that was stopped; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        print(plain(commander.start(by=options.by)))
    return 0
