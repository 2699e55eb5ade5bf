"""What every benchmark ends with: a table for a person and a JSON file beside it."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkout import RESULTS, ROOT
from inspector.files import write_output


@dataclass(frozen=True)
class Figure:
    """One measured value. ``goal`` in words, ``holds`` None when there is no goal."""

    name: str
    value: float
    unit: str
    goal: str = ""
    holds: bool | None = None


def publish(name: str, command: str, figures: list[Figure]) -> None:
    """Print the table and write ``results/<name>.json``."""
    table = Table("figure", "value", "unit", "goal", "holds", title=name)
    for figure in figures:
        holds = {None: "", True: "yes", False: "NO"}[figure.holds]
        table.add_row(figure.name, f"{figure.value:.5g}", figure.unit, figure.goal, holds)
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = {
        "benchmark": name,
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "figures": [asdict(figure) for figure in figures],
    }
    write_output(RESULTS / f"{name}.json", json.dumps(document, indent=2) + "\n")


def machine() -> dict[str, str | int]:
    """Processor, cores and versions: what a reader needs to compare figures."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        processor = next(
            (ln.split(":")[1].strip() for ln in lines if "model name" in ln), processor
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor, "cores": cores or 0, "python": platform.python_version()}


@functools.cache
def commit() -> str:
    """Of the code, ``+`` when files differ from it; empty outside a repository."""
    try:
        return _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "-s") else "")
    except OSError:
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
