"""What ``check`` says of one thing that it tried."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from inspector.errors import ConfigError, Problems, StartupError


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


def wrong_file(refusal: ConfigError | Problems) -> Iterator[CheckResult]:
    """All that is wrong with a station's or a bridge's file."""
    for problem in refusal.problems if isinstance(refusal, Problems) else [refusal]:
        yield wrong("config", problem)


def try_port(host: str, port: int) -> None:
    """Listen for a moment where a bridge or the page will. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()
