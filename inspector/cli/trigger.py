"""``trigger``: have one part judged, and print its verdict."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import get_args

from inspector.cli.arguments import ANSWERS_S, add_station, add_timeout, client_keys, whole
from inspector.client.commander import Commander
from inspector.errors import CommandError
from inspector.shown import plain
from inspector.verdict import EXIT_CODES
from inspector.wire.messages import Purpose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``trigger``."""
    parser.add_argument("camera", metavar="CAMERA", help="its name in the station file")
    parser.add_argument("--part", default="", metavar="ID", help="what the part is called")
    parser.add_argument(
        "--seq",
        type=whole,
        default=1,
        metavar="N",
        help="number of the trigger within its session; without --session each call is a session "
        "of its own, and so the same number twice is two triggers [%(default)s]",
    )
    parser.add_argument(
        "--session",
        metavar="NAME",
        help="what the number is counted in: another one whenever numbers begin anew [a new one]",
    )
    parser.add_argument(
        "--repeat",
        action="store_true",
        help="ask again for the verdict that session, number and part had a moment ago",
    )
    parser.add_argument(
        "--lot", default="", metavar="NAME", help="what the part belongs to; stands in the verdict"
    )
    parser.add_argument(
        "--purpose",
        choices=get_args(Purpose),
        default="production",
        help="challenge: a known test part; study: a trial, never a pass; only production counts "
        "in figures and alarms [%(default)s]",
    )
    add_timeout(parser, 10.0)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Trigger one part and print its verdict; 0 on PASS, 1 on FAIL, 2 on FAULT.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    if options.repeat and options.session is None:
        raise CommandError("trigger: --repeat needs the --session that the trigger was sent in")
    keys = client_keys(options)
    with Commander(
        options.address, session=options.session, keys=keys, timeout_s=ANSWERS_S
    ) as commander:
        # Whether anybody is there is known at once; a part may take its time.
        commander.status()
        verdict = commander.trigger(
            options.camera,
            options.seq,
            options.part,
            options.timeout,
            lot=options.lot,
            purpose=options.purpose,
            repeat=options.repeat,
        )
    score = "" if verdict.score is None else f" score {verdict.score:.3f}"
    why = ": ".join(text for text in (verdict.reason, verdict.detail) if text)
    part = f" part {verdict.part_id}" if verdict.part_id else ""
    judged = datetime.fromtimestamp(verdict.judged_us / 1e6).astimezone()
    again = f" (again; it was judged at {judged:%H:%M:%S})" if verdict.repeated else ""
    apart = "" if verdict.counts else f" ({verdict.purpose})"
    line = (
        f"{verdict.verdict}{apart} seq {verdict.seq}{part}{score}{f' {why}' if why else ''}{again}"
    )
    print(plain(line))
    return EXIT_CODES[verdict.verdict]
