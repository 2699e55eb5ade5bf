"""What stations publish, handed to every browser that looks; a slow one loses pictures, then lines.

A browser has a queue of its own. What does not fit is dropped and counted: the browser is told
``missed``, and asks for the history if it needs what was there.
"""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

_MOST_WAITING: Final = 300
"""Events that wait for one browser."""
_BEAT_S: Final = 5.0
"""After so long without an event ``beat`` is sent, by which a browser sees that the line is up."""


class Follower:
    """The events for one browser; used in the thread of the event loop."""

    def __init__(self, hub: Hub, who: str, holds: Callable[[], bool] | None) -> None:
        self.who = who
        self._hub = hub
        self._holds = holds or (lambda: True)
        self._waiting: collections.deque[tuple[str, str]] = collections.deque()
        self._statuses: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._missed = 0
        self.closed = False

    def put(self, event: str, station: str, data: str) -> None:
        """Hand over an event; of a station's statuses only the last one waits."""
        if event == "status":
            self._statuses[station] = data
        elif len(self._waiting) < _MOST_WAITING:
            self._waiting.append((event, data))
        else:
            self._missed += 1
        self._changed.set()

    def close(self) -> None:
        """End :meth:`lines`."""
        self.closed = True
        self._changed.set()

    async def lines(self) -> AsyncGenerator[str, None]:
        """What goes to the browser (text/event-stream), until :meth:`close` or its session ends."""
        try:
            yield "retry: 1000\n\n"
            while not self.closed and self._holds():
                try:
                    await asyncio.wait_for(self._changed.wait(), _BEAT_S)
                except asyncio.TimeoutError:
                    yield "event: beat\ndata: {}\n\n"
                    continue
                self._changed.clear()
                found = [*(("status", data) for data in self._statuses.values()), *self._waiting]
                self._statuses.clear()
                self._waiting.clear()
                if self._missed:
                    found.append(("missed", json.dumps({"count": self._missed})))
                    self._missed = 0
                if found:
                    yield "".join(f"event: {event}\ndata: {data}\n\n" for event, data in found)
        finally:
            self._hub.leave(self)


class Hub:
    """All browsers that look; used in the thread of the event loop."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()

    def join(self, who: str, holds: Callable[[], bool] | None = None) -> Follower:
        """A new follower, which hears what is told from now on; ``holds`` False ends it."""
        made = Follower(self, who, holds)
        self._followers.add(made)
        return made

    def count(self, who: str) -> int:
        """How many followers somebody has."""
        return sum(one.who == who for one in self._followers)

    def leave(self, follower: Follower) -> None:
        """Forget a follower; one that is forgotten already is no error."""
        self._followers.discard(follower)

    def tell(self, event: str, station: str, data: dict[str, Any]) -> None:
        """Hand an event of ``station`` to all."""
        if self._followers:
            text = json.dumps({"station": station, **data}, ensure_ascii=False, allow_nan=False)
            for one in self._followers:
                one.put(event, station, text)

    def close(self) -> None:
        """End every stream."""
        for one in tuple(self._followers):
            one.close()
