"""A station that says what no station file lets a station say; it answers no question."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from inspector.wire.publisher import Publisher
from tests import messages, stations


@contextlib.contextmanager
def saying(words: str, part_of: Callable[[int], str]) -> Iterator[dict[str, str]]:
    """Its sockets, while it says ``words`` in every text, ten times a second.

    ``part_of`` gives the part's id of each number.
    """
    verdicts, images, commands, queries = stations.free_ports(4)
    over = threading.Event()

    def publish() -> None:
        seq = 0
        while not over.wait(0.1):
            seq += 1
            changes = {"camera": words, "recipe": words, "detail": words, "part_id": part_of(seq)}
            fault = {"verdict": "FAULT", "reason": "camera_lost", "score": None}
            publisher.send_verdict(messages.verdict(seq, **changes, **fault))
            camera = {"name": words, "state": "lost", "detail": words, "frames": 0}
            told = dict.fromkeys(("trouble", "alarm", "drift", "storage", "recipe"), words)
            publisher.send_status(messages.status(seq, cameras=(camera,), **told))

    with contextlib.closing(Publisher(verdicts, images)) as publisher:
        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield {
                "verdicts": verdicts,
                "images": images,
                "commands": commands,
                "queries": queries,
            }
        finally:
            over.set()
            thread.join()
