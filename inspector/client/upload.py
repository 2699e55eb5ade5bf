"""Send a bundle to a station piece by piece, and go on where the connection broke."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from inspector.client.connection import in_words, new_id
from inspector.client.exchange import Exchange, Sent
from inspector.errors import BundleError, CommandError
from inspector.files import reason_of
from inspector.wire.messages import MOST_OF_CHUNK, UploadCommand

_UNDER_WAY: Final = 4
"""Pieces that are sent before the first of them is answered."""
_BLOCK: Final = 1 << 20
_PATIENCE_S: Final = 30.0
"""So long without a byte more at the station is it tried again."""
_PAUSE_S: Final = 0.2
_MAY_PASS: Final = frozenset({"", "busy", "not_ready"})
"""Codes of refusals after which it is tried again; "": there was no answer."""


def send_file(
    file: BinaryIO,
    sha256: str,
    size: int,
    send: Callable[[int, bytes], int],
    progress: Callable[[int, int], None],
) -> None:
    """Send what the station lacks of a file; it may be cut off or started again meanwhile.

    ``send(offset, data)`` is :func:`send_pieces`; without data it asks. ``progress`` hears how many
    bytes are there, and of how many. Raises CommandError.
    """
    most, until = 0, time.monotonic() + _PATIENCE_S
    offset: int | None = None
    while offset is None or offset < size:
        try:
            if offset is None:
                offset = send(0, b"")
            else:
                file.seek(offset)
                data = file.read(_BLOCK)
                if not data:
                    raise CommandError("the bundle's file has become shorter meanwhile", "failed")
                offset = send(offset, data)
        except CommandError as error:
            if error.code not in _MAY_PASS or time.monotonic() > until:
                raise
            offset = None
            time.sleep(_PAUSE_S)
            continue
        progress(offset, size)
        if offset > most:
            most, until = offset, time.monotonic() + _PATIENCE_S
        elif time.monotonic() > until:
            raise CommandError(f"the station has taken no more of bundle {sha256[:12]} for a while")


def send_pieces(
    exchange: Exchange, sha256: str, size: int, offset: int, data: bytes, timeout_s: float
) -> int:
    """Send ``data``, the bytes of a file from ``offset`` on; how many the station has then.

    That may be fewer, such as 0 if it was started again: then begin from there. Without ``data`` it
    is asked. Raises CommandError.
    """
    under_way: collections.deque[tuple[Sent, int]] = collections.deque()
    sent, there = 0, offset
    try:
        while True:
            while len(under_way) < _UNDER_WAY and (sent < len(data) or not (data or under_way)):
                piece = data[sent : sent + MOST_OF_CHUNK]
                with in_words():
                    command = UploadCommand(
                        id=new_id(), sha256=sha256, size=size, offset=offset + sent
                    )
                sent += len(piece)
                one = exchange.launch(command, timeout_s, beside=True, data=piece)
                under_way.append((one, offset + sent))
            if not under_way:
                return there
            first, end = under_way.popleft()
            reply = exchange.wait(first)
            if reply.offset is None:
                raise CommandError(f"answered upload with {reply.kind}")
            there = reply.offset
            if there != end or not data:
                return there
    finally:
        for one, _ in under_way:
            exchange.forget(one)


@contextlib.contextmanager
def opened(bundle: Path | bytes) -> Iterator[tuple[BinaryIO, str, int]]:
    """A bundle's file, its SHA-256 (hex) and its size, bytes. Raises BundleError."""
    try:
        with io.BytesIO(bundle) if isinstance(bundle, bytes) else bundle.open("rb") as file:
            digest, size = hashlib.sha256(), 0
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
            yield file, digest.hexdigest(), size
    except OSError as error:
        raise BundleError(f"{bundle!s}: cannot be read: {reason_of(error)}") from None
