"""Threads that tell a normal end from a crash."""

from __future__ import annotations

import threading


class Worker(threading.Thread):
    """A thread that tells a normal end from a crash."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._finished = False

    @property
    def crashed(self) -> bool:
        """True when it died of an error, which ``threading.excepthook`` has shown."""
        return self.ident is not None and not self.is_alive() and not self._finished

    def run(self) -> None:
        """Work, and remember that it ended as it should."""
        self.work()
        self._finished = True

    def work(self) -> None:
        """What the thread does."""
        raise NotImplementedError
