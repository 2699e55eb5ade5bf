from __future__ import annotations

import threading

from inspector.threads import Worker


class Job(Worker):
    """Ends, or dies, when told."""

    def __init__(self, dies: bool) -> None:
        super().__init__("job")
        self.go = threading.Event()
        self._dies = dies

    def work(self) -> None:
        self.go.wait(5.0)
        if self._dies:
            raise KeyError("a bug")


def test_crash_of_a_thread_is_told_from_its_end(monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    for dies in (False, True):
        job = Job(dies)
        assert not job.crashed
        job.start()
        assert not job.crashed
        job.go.set()
        job.join(5.0)
        assert job.crashed == dies
    assert [type(error.exc_value) for error in shown] == [KeyError]
