"""Long answers to a browser: a few at a time, at the browser's pace, and not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inspector.console.access import RefusedError
from inspector.errors import CommandError
from inspector.logs import say

LONGEST_S: Final = 900.0
"""After so long an answer that a browser has not read to its end is given up."""


class Places:
    """How many long answers may be under way at once; used in the thread of the event loop."""

    def __init__(self, most: int) -> None:
        self._free = most

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place. Raises :class:`RefusedError` where there is none."""
        if self._free < 1:
            raise RefusedError(503, "busy")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Download(Response):
    """``pieces`` one by one, each when the browser has read those before; then ``after`` is closed.

    Where a piece cannot be had, or the browser is too slow, the connection is broken, so that no
    half of an answer looks like a whole one.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        after: contextlib.ExitStack,
        *,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        assert scope["type"] == "http"
        with self._after:
            sending = asyncio.ensure_future(self._send(send))
            gone = asyncio.ensure_future(_gone(receive))
            both = {sending, gone}
            try:
                await asyncio.wait(both, timeout=LONGEST_S, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done() and not gone.done():
                    say("download", logging.WARNING, problem="the browser reads too slowly")
            finally:
                for one in both:
                    one.cancel()
                await asyncio.wait(both)
            if not sending.cancelled() and (error := sending.exception()) is not None:
                if not isinstance(error, CommandError):
                    raise error
                say("download", logging.WARNING, problem=str(error))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
