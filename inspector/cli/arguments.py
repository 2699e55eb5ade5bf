"""Types of arguments and groups of arguments that several commands share."""

from __future__ import annotations

import argparse
import getpass
import math
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inspector.config.addresses import COMMANDS, QUERIES
from inspector.config.yaml_file import NAME
from inspector.errors import SecretError

if TYPE_CHECKING:
    from inspector.client.keys import ClientKeys
    from inspector.imaging.geometry import Box

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


ANSWERS_S: Final = 3.0
"""Time in which a station that runs answers a question."""


def whole(text: str) -> int:
    """A whole number from 0 that JSON can carry. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and int(text) < 2**53):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)


def count(text: str) -> int:
    """A whole number above 0. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**53):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def factor(text: str) -> float:
    """A finite number above 0. Raises ArgumentTypeError."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0, such as 1.2")
    return value


def number(text: str) -> float:
    """A finite number. Raises ArgumentTypeError."""
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is no number, such as 1.2")
    return value


def place(text: str) -> tuple[str, int]:
    """A verdict's EPOCH/SEQ. Raises ArgumentTypeError."""
    epoch, slash, seq = text.rpartition("/")
    if not (epoch and slash and seq.isascii() and seq.isdecimal() and 0 < int(seq) < 2**40):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not EPOCH/SEQ of a verdict, as 'inspector history' shows it"
        )
    return epoch, int(seq)


def seconds(text: str) -> float:
    """A time above 0, at most a day, s. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds above 0")
    return value


def patience(text: str) -> float:
    """A time from 0 to a day, s; 0: none. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from 0")
    return value


def name(text: str) -> str:
    """A name that fits a file: letters, digits, '_', '.' and '-'. Raises ArgumentTypeError."""
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError(
            f"'{text}' must be letters, digits, '_', '.' or '-', at most 64"
        )
    return text


def moment(text: str) -> int:
    """µs since the Unix epoch of a date, a time, or an age such as 7d or 12h.

    A time that names no zone is local time. Raises ArgumentTypeError.
    """
    age = re.fullmatch(r"(\d{1,6})([dhm])", text)
    try:
        if age:
            when = datetime.now(timezone.utc) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            # Python 3.10 cannot parse the Z of UTC.
            when = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).astimezone()
        return max(0, round(when.timestamp() * 1e6))
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no time; give 2024-05-01, 2024-05-01T06:00, or an age such as 7d, 12h, "
            f"30m"
        ) from None


def box(text: str) -> Box:
    """A region ``x,y,w,h`` in camera pixels. Raises ArgumentTypeError."""
    from inspector.imaging.geometry import Box

    try:
        x, y, w, h = (int(part) for part in text.split(","))
        return Box(x=x, y=y, w=w, h=h)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not x,y,w,h in camera pixels, such as 112,52,416,384"
        ) from None


def add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    """``--timeout``: how long the command waits for the station."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=default_s,
        metavar="SECONDS",
        help="longest wait for the answer [%(default)g]",
    )


def add_person(parser: argparse.ArgumentParser) -> None:
    """``--by``: the person who does it, for the station's log of deeds."""
    parser.add_argument(
        "--by",
        default=_user(),
        metavar="NAME",
        help="who does it, for the log of deeds [%(default)s]",
    )


def _user() -> str:
    try:
        return getpass.getuser()[:64]
    except (OSError, KeyError):
        # A user without an entry, as in a container.
        return ""


def add_address(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    """The address of one socket, as a word or as ``--address``, which other commands have."""
    parser.add_argument(
        "address",
        nargs="?",
        default=argparse.SUPPRESS,
        metavar="ADDRESS",
        help=f"{what} [{default}]",
    )
    parser.add_argument("--address", default=default, metavar="ADDRESS", help="the same")


def add_station(parser: argparse.ArgumentParser) -> None:
    """``--address`` of the station's command socket, and the keys to reach it."""
    parser.add_argument(
        "--address",
        default=COMMANDS,
        metavar="ADDRESS",
        help="command socket of the station [%(default)s]",
    )
    add_keys(parser)


def add_queries(parser: argparse.ArgumentParser) -> None:
    """``--queries``, the address of the station's query socket, and the keys to reach it."""
    parser.add_argument(
        "--queries",
        default=QUERIES,
        metavar="ADDRESS",
        help="query socket of the station [%(default)s]",
    )
    add_keys(parser)


def add_keys(parser: argparse.ArgumentParser) -> None:
    """``--key`` and ``--station-key``, with which a station beyond loopback is reached."""
    parser.add_argument(
        "--key", type=Path, metavar="FILE.secret", help="own key, made by 'inspector keygen'"
    )
    parser.add_argument(
        "--station-key", type=Path, metavar="FILE.public", help="the station's public key"
    )


def client_keys(options: argparse.Namespace) -> ClientKeys | None:
    """The keys that the options of :func:`add_keys` name, None for none. Raises SecretError."""
    from inspector.client.keys import ClientKeys

    if options.key is None and options.station_key is None:
        return None
    if options.key is None or options.station_key is None:
        raise SecretError("--key and --station-key: give both, or neither on loopback")
    return ClientKeys.load(options.key, options.station_key)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
