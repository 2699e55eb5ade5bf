"""What a command that works long tells where nobody sees its bars."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from inspector import progress
from inspector.progress import Bars


def written(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_step_is_a_line_when_it_is_done() -> None:
    console = written()
    with Bars(*Bars.get_default_columns(), console=console) as bars:
        task = bars.add_task("looking", total=3, note="")
        for done in range(4):
            bars.update(task, completed=done)
        bars.update(task, completed=3)
        for _ in bars.track(range(2), description="judging\x1b[2J"):
            pass
    looking, judging = text(console).splitlines()
    assert looking.startswith("looking: 3 of 3, took 0.")
    assert judging.startswith("judging\\x1b[2J: 2 of 2, took ")


def test_a_long_step_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = written()
    with Bars(*Bars.get_default_columns(), console=console, quick_s=2.0) as bars:
        quick = bars.add_task("quick", total=1)
        bars.advance(quick)
        task = bars.add_task("learning", total=100, note="")
        for done in range(1, 101):
            now[0] += 0.5
            bars.update(task, completed=done, note=f"fold {done // 50}")
    assert text(console).splitlines() == [
        "learning: 20 of 100, fold 0",
        "learning: 40 of 100, fold 0",
        "learning: 60 of 100, fold 1",
        "learning: 80 of 100, fold 1",
        "learning: 100 of 100, took 50.0 s",
    ]


def test_a_terminal_has_bars_and_no_lines_and_a_silent_one_nothing() -> None:
    for silent in (False, True):
        console = written(terminal=True)
        with Bars(*Bars.get_default_columns(), console=console, silent=silent) as bars:
            bars.advance(bars.add_task("looking", total=1))
        assert ("looking" in text(console), "took" in text(console)) == (not silent, False)
    console = written()
    with Bars(*Bars.get_default_columns(), console=console, silent=True) as bars:
        bars.advance(bars.add_task("looking", total=1))
    assert text(console) == ""
