"""``acknowledge``: say that the alarms of a station were seen."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import ANSWERS_S, add_person, add_station, client_keys
from inspector.client.commander import Commander
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``acknowledge``."""
    parser.add_argument(
        "where",
        nargs="?",
        metavar="WHERE",
        help="the alarms of this camera, or of 'journal' or 'pictures' [all that stand]",
    )
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have the station tell that its alarms were seen, until they end; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        alarms = [
            alarm
            for alarm in commander.status().alarms
            if alarm.acknowledged_us is None and options.where in {None, alarm.where}
        ]
        for alarm in alarms:
            print(plain(commander.acknowledge(alarm.kind, alarm.where, by=options.by)))
            print(f"  {plain(alarm.detail)}")
        if not alarms:
            print("no alarm stands that nobody has seen")
    return 0
