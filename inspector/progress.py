"""Progress of long work: bars on a terminal, lines for whoever reads it from a file or a log."""

from __future__ import annotations

import os
import time
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

from inspector.shown import plain

QUICK_S: Final = 2.0
"""For commands that mostly end sooner, and then need say nothing."""
_EVERY_S: Final = 10.0
"""A step that takes longer than this tells how far it is, so often."""
FOLLOWED: Final = "INSPECTOR_FOLLOWED_S"
"""Environment variable by which a program that follows another one has it tell more often, s."""


class Bars(Progress):
    """Bars of ``columns`` while ``console`` is a terminal; else a line a step and every 10 s.

    A step's line comes when it is done, with its time, unless that is less than ``quick_s``; a
    field ``note`` of its task is shown. ``silent``: neither bars nor lines.
    """

    def __init__(
        self,
        *columns: ProgressColumn,
        console: Console,
        transient: bool = False,
        quick_s: float = 0.0,
        silent: bool = False,
    ) -> None:
        is_terminal = console.is_terminal
        super().__init__(
            *columns, console=console, transient=transient, disable=silent or not is_terminal
        )
        self._has_lines = not (silent or is_terminal)
        self._quick_s = quick_s
        self._every_s = _told_every_s()
        self._told_s: dict[TaskID, float] = {}
        self._begun_s: dict[TaskID, float] = {}
        self._done: set[TaskID] = set()

    def add_task(self, description: str, *args: Any, **fields: Any) -> TaskID:
        """Begin a step: see :class:`rich.progress.Progress`."""
        task = super().add_task(description, *args, **fields)
        self._begun_s[task] = self._told_s[task] = time.monotonic()
        return task

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a step."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move a step on."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        if not self._has_lines:
            return
        with self._lock:
            task, now_s = self._tasks[task_id], time.monotonic()
            is_done = task.total is not None and task.completed >= task.total
            if not is_done:
                self._done.discard(task_id)
            if task_id in self._done or not (
                is_done or now_s >= self._told_s[task_id] + self._every_s
            ):
                return
            is_first = self._told_s[task_id] == self._begun_s[task_id]
            took_s = now_s - self._begun_s[task_id]
            self._told_s[task_id] = now_s
            if is_done:
                self._done.add(task_id)
                if is_first and took_s < self._quick_s:
                    return
            of_all = "" if task.total is None else f" of {task.total:g}"
            line = f"{task.description}: {task.completed:g}{of_all}"
            if is_done:
                line += f", took {took_s:.1f} s"
            elif note := str(task.fields.get("note", "")):
                line += f", {note}"
        self.console.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def _told_every_s() -> float:
    try:
        return max(0.1, float(os.environ[FOLLOWED]))
    except (KeyError, ValueError):
        return _EVERY_S
