"""What a camera's process says to its parent."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel

MESSAGE_BYTES: Final = 64 * 1024
"""Largest datagram, either way."""


class ChildMessage(BaseModel):
    """What the child says, as one datagram of JSON.

    ``opened`` or ``refused`` (with ``text``) come first. Each request, the longest wait in ms and
    the slot for the picture, is answered with one of ``frame``, ``bad``, ``lost`` and ``ended``.
    ``segment`` comes before a frame, with the descriptor of the memory that it is in.
    """

    what: Literal["opened", "refused", "segment", "frame", "bad", "lost", "ended"]
    text: str = ""
    part_id: str = ""
    exposed_ns: int = 0
    sequence: int = 0
