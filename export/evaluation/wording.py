"""Figures for readers: no more digits than carry information, none rounded to look better."""

from __future__ import annotations

import math
from typing import Final

from export.evaluation import metrics
from inspector.verdict import LIMIT

UNDEFINED: Final = "–"


def say_count(count: int, noun: str) -> str:
    """``1 part``, ``1,200 parts``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def say_percent(value: float | None) -> str:
    """0.00512 as "0.51 %": two digits after the point below 1 %, else one."""
    if value is None:
        return UNDEFINED
    percent = 100.0 * value
    digits = 2 if 0.0 < percent < 1.0 else 1
    return f"{percent:.{digits}f}".removesuffix(".0") + " %"


def say_share(value: float | None) -> str:
    """An AUROC, AUPRO or F1; only a perfect one reads 1.000."""
    if value is None:
        return UNDEFINED
    return f"{value:.3f}" if value == 1.0 or value < 0.9995 else "> 0.999"


def say_score(value: float | None) -> str:
    """Two digits after the point; a score below the limit never reads 1.00."""
    if value is None:
        return UNDEFINED
    text = f"{value:.2f}" if value < 100 else f"{value:.3g}"
    return "< 1.00" if text == "1.00" and value < LIMIT else text


def say_threshold(value: float) -> str:
    """A listed threshold as it is; one found in the data is rounded down, so that it holds."""
    return f"{value:.2f}" if value in metrics.SWEEP else f"{math.floor(value * 1000) / 1000:.3f}"


def say_of(rate: metrics.Rate) -> str:
    """``3 of 200 (1.5 %)``."""
    if not rate.total:
        return UNDEFINED
    return f"{rate.hits} of {rate.total} ({say_percent(rate.value)})"


def say_signal(value: float) -> str:
    """Four digits, because candidates lie close together; only a perfect signal reads 1.0000."""
    return f"{value:.4f}" if value == 1.0 or value < 0.99995 else "> 0.9999"
