"""What ``check`` says of one thing that it tried."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.errors import StartupError


@dataclass(frozen=True)
class CheckResult:
    """One thing tried, with the text to print; ``problem`` is None when a station would start.

    ``is_doubt``: it would, but somebody should look at this first.
    """

    subject: str
    text: str
    problem: StartupError | None = None
    is_doubt: bool = False


def wrong(subject: str, problem: StartupError) -> CheckResult:
    """``problem``, as what was found out about ``subject``."""
    return CheckResult(subject, str(problem), problem)
