"""``trigger``: have one part judged, and print its verdict."""

from __future__ import annotations

import argparse

from inspector.cli.arguments import add_station, add_timeout, client_keys, whole
from inspector.client.commander import Commander
from inspector.shown import plain
from inspector.verdict import EXIT_CODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``trigger``."""
    parser.add_argument("camera", metavar="CAMERA", help="its name in the station file")
    parser.add_argument("--part", default="", metavar="ID", help="what the part is called")
    parser.add_argument(
        "--seq",
        type=whole,
        default=1,
        metavar="N",
        help="number of the trigger within its session [%(default)s]",
    )
    parser.add_argument(
        "--session",
        metavar="NAME",
        help="repeat session, number and part to ask for the same verdict again [a new one]",
    )
    add_timeout(parser, 10.0)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Trigger one part and print its verdict; 0 on PASS, 1 on FAIL, 2 on FAULT.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, session=options.session, keys=keys) as commander:
        verdict = commander.trigger(options.camera, options.seq, options.part, options.timeout)
    score = "" if verdict.score is None else f" score {verdict.score:.3f}"
    why = ": ".join(text for text in (verdict.reason, verdict.detail) if text)
    part = f" part {verdict.part_id}" if verdict.part_id else ""
    print(plain(f"{verdict.verdict} seq {verdict.seq}{part}{score}{f' {why}' if why else ''}"))
    return EXIT_CODES[verdict.verdict]
