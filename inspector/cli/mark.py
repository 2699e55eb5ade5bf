"""``mark``: say what a part really was, good or bad."""

from __future__ import annotations

import argparse
from typing import get_args

from inspector.cli.arguments import (
    ANSWERS_S,
    add_person,
    add_station,
    client_keys,
    place,
)
from inspector.client.commander import Commander
from inspector.shown import plain
from inspector.wire.messages import MarkLabel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``mark``."""
    parser.add_argument(
        "part", type=place, metavar="EPOCH/SEQ", help="of its verdict, as 'history' shows it"
    )
    parser.add_argument("label", choices=get_args(MarkLabel), help="what it really was")
    parser.add_argument("--note", default="", metavar="TEXT", help="why, at most 200 characters")
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Note in the journal what a part really was, so that its pictures stay; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    epoch, seq = options.part
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        commander.mark(epoch, seq, options.label, options.note, by=options.by)
    print(plain(f"{epoch}/{seq}: this part was {options.label}"))
    return 0
