"""The promises of a station, one a row: what must be reached, how often it is tried, by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.faults import (
    cameras,
    config,
    hangs,
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
        1000,
        subscribers.slow,
    ),
    "cameras": Row(
        "camera loss is a FAULT and heals",
        "detected within 500 ms, recovered within 5 s of the return, false passes 0",
        5,
        1,
        cameras.scripts,
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
