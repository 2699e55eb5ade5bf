"""The promises of a station, one a row: what must be reached, how often it is tried, by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.faults import (
    alarms,
    answers,
    cameras,
    changeovers,
    config,
    frames,
    hangs,
    journals,
    models,
    soak,
    strangers,
    subscribers,
    triggers,
)
from benchmarks.faults.lab import Found, Tick

SOAK_MINUTES: Final = 60.0
QUICK_SOAK_MINUTES: Final = 2.0


@dataclass(frozen=True)
class Row:
    """One promise. ``trials`` and ``quick`` are what ``run`` counts: its own unit, often."""

    promise: str
    goal: str
    trials: float
    quick: float
    run: Callable[[Path, Any, Tick], Found]


ROWS: Final = {
    "triggers": Row(
        "one verdict a trigger",
        "lost 0, duplicated 0, unexpected 0",
        100_000,
        5000,
        triggers.bursts,
    ),
    "kills": Row(
        "kill -9 loses nothing acknowledged",
        "acknowledged but not in the journal: 0",
        500,
        10,
        triggers.kills,
    ),
    "repeats": Row(
        "two parts never share a verdict",
        "parts with another part's verdict: 0",
        2000,
        40,
        answers.repeats,
    ),
    "late": Row(
        "no PASS after its deadline",
        "late PASS or FAIL 0, replayed otherwise 0, pictures for stale triggers 0",
        120,
        6,
        answers.late,
    ),
    "accepted": Row(
        "accepted means recorded",
        "accepted while nothing can be recorded: 0",
        100,
        3,
        answers.accepted,
    ),
    "changeovers": Row(
        "a changeover outlives a crash",
        "judged by another recipe than the one in force: 0",
        100,
        3,
        changeovers.changeovers,
    ),
    "alarms": Row(
        "a station whose parts all fail says so",
        "an alarm within 10 parts, none at usual rejects",
        5000,
        200,
        alarms.alarms,
    ),
    "power": Row(
        "power loss loses nothing acknowledged",
        "0; synchronous=OFF must lose",
        500,
        50,
        triggers.power_cuts,
    ),
    "subscribers": Row(
        "subscribers end complete", "missing after refill 0", 80, 8, subscribers.complete
    ),
    "slow": Row(
        "a slow subscriber never stalls the line",
        "99 % within 1.1 times or 0.5 ms (95 % interval); memory bounded",
        10_000,
        600,
        subscribers.slow,
    ),
    "cameras": Row(
        "camera loss is a FAULT and heals",
        "detected within 500 ms, recovered within 5 s of the return, false passes 0",
        5,
        1,
        cameras.scripts,
    ),
    "frames": Row(
        "a picture that is not whole, or of another size, never passes",
        "judged although wrong 0, whole pictures refused 0",
        600,
        100,
        frames.wrong_pictures,
    ),
    "models": Row("corrupted models are refused", "refused 100 %", 1000, 120, models.models),
    "strangers": Row(
        "strangers can do nothing", "accepted 0 per command", 50, 3, strangers.strangers
    ),
    "config": Row(
        "config errors are refused before the camera opens",
        "refused 100 %, camera opens 0",
        10_000,
        10_000,
        config.config,
    ),
    "journal": Row(
        "without its journal a station passes no part",
        "judged without a record 0; lost of what was recorded 0; Error within 3 s",
        70,
        7,
        journals.taken_away,
    ),
    "odd": Row(
        "odd rows, files and messages end nothing, and a wrong clock deletes nothing at a glance",
        "a gap of one for each damaged verdict, other verdicts missing 0, workers ended 0",
        30,
        1,
        journals.odd_things,
    ),
    "unread": Row(
        "a log that nobody reads holds up nothing",
        "lost 0, stopped within 8 s",
        2000,
        100,
        hangs.unread,
    ),
    "shares": Row(
        "a share that hangs in a changeover holds up nothing",
        "accepted but without a verdict: 0, stopped within 8 s",
        20,
        1,
        hangs.shares,
    ),
    "soak": Row(
        "it holds for hours",
        "memory growth after warm-up under 1 %, no leaked handles, threads or segments",
        SOAK_MINUTES,
        QUICK_SOAK_MINUTES,
        soak.soak,
    ),
}
