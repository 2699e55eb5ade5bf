"""``trigger``, ``recipe`` and ``reload``: commands to a running station from a terminal."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from inspector.arguments import whole
from inspector.client import COMMANDS, Commander
from inspector.errors import SecretError
from inspector.security import ClientKeys
from inspector.verdict import EXIT_CODES


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the station is, and with which keys to reach it."""
    parser.add_argument(
        "--address",
        default=COMMANDS,
        metavar="ADDRESS",
        help="command socket of the station [%(default)s]",
    )
    add_key_arguments(parser)


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """With which keys to reach a station."""
    parser.add_argument(
        "--key", type=Path, metavar="FILE.secret", help="own key, made by 'inspector keygen'"
    )
    parser.add_argument(
        "--station-key", type=Path, metavar="FILE.public", help="the station's public key"
    )


def client_keys(options: argparse.Namespace) -> ClientKeys | None:
    """The keys that ``options`` name, None for none. Raises :class:`SecretError`."""
    if options.key is None and options.station_key is None:
        return None
    if options.key is None or options.station_key is None:
        raise SecretError("--key and --station-key: give both, or neither on loopback")
    return ClientKeys.load(options.key, options.station_key)


def add_trigger_arguments(parser: argparse.ArgumentParser) -> None:
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
    _add_timeout(parser, 10.0)
    add_connection_arguments(parser)


def run_trigger(options: argparse.Namespace) -> int:
    """Trigger one part and print its verdict; 0 on PASS, 1 on FAIL, 2 on FAULT.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    with Commander(options.address, session=options.session, keys=keys) as commander:
        verdict = commander.trigger(options.camera, options.seq, options.part, options.timeout)
    score = "" if verdict.score is None else f" score {verdict.score:.3f}"
    why = ": ".join(text for text in (verdict.reason, verdict.detail) if text)
    part = f" part {verdict.part_id}" if verdict.part_id else ""
    print(f"{verdict.verdict} seq {verdict.seq}{part}{score}{f' {why}' if why else ''}")
    return EXIT_CODES[verdict.verdict]


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``recipe``."""
    parser.add_argument("name", metavar="NAME", help="a recipe of the station file")
    _add_timeout(parser, 120.0)
    add_connection_arguments(parser)


def run_recipe(options: argparse.Namespace) -> int:
    """Have the station judge by another recipe; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    with Commander(options.address, keys=client_keys(options)) as commander:
        print(commander.recipe(options.name, options.timeout) or f"recipe {options.name}")
    return 0


def add_reload_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``reload``."""
    _add_timeout(parser, 120.0)
    add_connection_arguments(parser)


def run_reload(options: argparse.Namespace) -> int:
    """Have the station read its bundles again, and acknowledge a missed self-test; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    with Commander(options.address, keys=client_keys(options)) as commander:
        print(commander.reload(options.timeout) or "reloaded")
    return 0


def _add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=default_s,
        metavar="SECONDS",
        help="longest wait for the answer [%(default)g]",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds above 0")
    return value


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**53):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)
