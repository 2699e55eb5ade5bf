"""``watch``: show verdicts as they come, and write their pictures to a folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final

from inspector.cli.arguments import add_address, add_keys, client_keys, count
from inspector.cli.output import Lines, Screen, save_heatmap
from inspector.cli.repeats import Repeats
from inspector.client import Gap, Heatmap, Subscriber
from inspector.client.keys import why_silent
from inspector.config.addresses import VERDICTS
from inspector.errors import ConfigError, WireError
from inspector.interrupt import Interrupt
from inspector.shown import plain
from inspector.wire.messages import StatusMessage, VerdictMessage

_IMAGES_GRACE_S: Final = 5.0
"""After the last verdict asked for, and after each picture, wait so long for one that is missing.

A station encodes pictures when it has time, so they may be seconds behind their verdicts."""
_SILENCE_S: Final = 3.0
"""After so long without a message, ask whether the station is running."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``watch``."""
    add_address(parser, VERDICTS, "verdict socket of the station")
    parser.add_argument(
        "--images", metavar="ADDRESS", help="of the pictures, for --save [ADDRESS's port + 1]"
    )
    add_keys(parser)
    parser.add_argument("--station", default="", help="only this station")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write pictures and overlays")
    parser.add_argument("--count", type=count, metavar="N", help="end after N verdicts")


def run(arguments: argparse.Namespace) -> int:
    """Show what is published, for ever or until there were ``--count`` verdicts; 0.

    Raises :class:`ConfigError`, :class:`SecretError` and :class:`OutputError`.
    """
    keys = client_keys(arguments)
    images = arguments.images or (_images_beside(arguments.address) if arguments.save else None)
    with (
        Interrupt() as interrupt,
        Screen() as screen,
        Screen(stderr=True) as notes,
        Subscriber(arguments.address, images, arguments.station, keys=keys) as subscriber,
        Repeats(notes.print) as remarks,
    ):
        _show(subscriber, Lines(screen), notes, remarks, arguments, interrupt=interrupt)
    return 0


def _show(
    subscriber: Subscriber,
    lines: Lines,
    notes: Screen,
    remarks: Repeats,
    arguments: argparse.Namespace,
    *,
    interrupt: Interrupt,
) -> None:
    seen, heard, until = 0, time.monotonic(), float("inf")
    pending: set[tuple[str, int]] = set()
    came: set[tuple[str, int]] = set()
    while time.monotonic() < until:
        interrupt.check()
        try:
            item = subscriber.receive(200)
        except WireError as error:
            # The operator must still see what follows a message that cannot be read.
            remarks.tell("messages that cannot be read", plain(f"inspector: {error}"))
            heard = time.monotonic()
            continue
        if item is not None:
            heard = time.monotonic()
        elif time.monotonic() > heard + _SILENCE_S:
            notes.print(
                f"inspector: nothing from {arguments.address} for {_SILENCE_S:.0f} s; "
                f"{why_silent(arguments.address, arguments.key is not None)}"
            )
            heard = float("inf")
        if isinstance(item, Gap):
            lines.gap(item)
        elif isinstance(item, StatusMessage):
            lines.status(item)
            if item.state == "Halted":
                # It said that nothing more comes, so nobody wonders at its silence.
                heard = float("inf")
        elif isinstance(item, Heatmap):
            key = (item.message.epoch, item.message.seq)
            if arguments.save and (seen != arguments.count or key in pending):
                save_heatmap(arguments.save, item)
                came.add(key)
            pending.discard(key)
            until = float("inf")
        elif isinstance(item, VerdictMessage) and seen != arguments.count:
            lines.verdict(item)
            seen += 1
            key = (item.epoch, item.seq)
            if arguments.save and item.verdict != "FAULT" and key not in came:
                pending.add(key)
            came.discard(key)
        if seen == arguments.count:
            if not pending:
                return
            until = min(until, time.monotonic() + _IMAGES_GRACE_S)
    notes.print(
        f"inspector: {len(pending)} pictures did not come within {_IMAGES_GRACE_S:.0f} s: "
        f"'pictures' in the recipe may leave them out, or the line is too fast for all of them"
    )


def _images_beside(address: str) -> str:
    """The default address of the pictures: the port after that of the verdicts."""
    head, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(f"watch: where are the pictures of {address}? Give --images ADDRESS")
    return f"{head}:{int(port) + 1}"
