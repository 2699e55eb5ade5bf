"""An event loop for a test, whatever else its thread does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns, in a loop and a thread of its own: a browser's has this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextlib.contextmanager
def loop_put_aside() -> Iterator[None]:
    """A browser's event loop owns this thread until the session ends; meanwhile others may run."""
    asleep = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(asleep)
