"""Which finished lessons are kept: the last few, those in use or one step back, and their parents.

A lesson is a folder of the page's, with its pictures, its run and its bundle. ``lesson.json`` in it
says what it was for; a folder without one is left alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inspector.client import Viewer
from inspector.files import write_whole
from inspector.logs import say
from inspector.wire.queries import DeedField, DeedsQuery

KEPT: Final = 5
"""Of the lessons of a station so many are kept in any case, the last ones."""
_FACTS: Final = "lesson.json"
_DEEDS_OF_ONE: Final = 3
"""Installs and reverts of a camera under a recipe that are looked at: one step back and more."""
_MOST_PAGES: Final = 20


@dataclass(frozen=True)
class _Lesson:
    folder: Path
    station: str
    names: frozenset[str]
    """By which a station knows its bundle: the SHA-256, and the version."""
    parents: frozenset[str]
    """Versions of the models that its run comes from."""


def write_facts(folder: Path, station: str, sha256: str) -> None:
    """Say what the finished lesson in ``folder`` was for. Raises OSError."""
    write_whole(folder / _FACTS, json.dumps({"station": station, "sha256": sha256}).encode())


def version_of(run: Path) -> str:
    """The version of the model of a training run. Raises OSError, ValueError or LookupError."""
    facts = json.loads((run / "run.json").read_bytes())
    outcome = json.loads((run / "outcome.json").read_bytes())
    return f"{outcome['created'][:10].replace('-', '')}-{facts['fingerprint'][:8]}"


def parents_of(run: Path) -> frozenset[str]:
    """Versions of the models that a run comes from. Raises OSError, ValueError or LookupError."""
    lineage: list[dict[str, Any]] = json.loads((run / "run.json").read_bytes()).get("lineage", [])
    return frozenset(str(one["parent_version"]) for one in lineage)


def in_use(viewer: Viewer) -> frozenset[str]:
    """What a station names as in use, or as one step back: digests and versions of bundles.

    Raises :class:`CommandError`.
    """
    now = viewer.judging()
    found = {text for one in now.cameras for text in (one.model.sha256, one.model.version)}
    # A bundle that was installed lies under its digest as its name.
    found |= {Path(one.bundle).stem for recipe in now.recipes for one in recipe.cameras}
    seen: dict[str, int] = {}
    before: int | None = None
    for _ in range(_MOST_PAGES):
        answer, _ = viewer.ask(DeedsQuery(kinds=("install", "revert"), before=before))
        for deed in answer.deeds:
            seen[deed.subject] = seen.get(deed.subject, 0) + 1
            if seen[deed.subject] <= _DEEDS_OF_ONE:
                found |= _named(deed)
        before = answer.next_deed
        if before is None:
            break
    return frozenset(found)


def _named(deed: DeedField) -> set[str]:
    # The note has names and versions: a bundle that was signed has another digest than before.
    return {deed.before, deed.after, *deed.note.split()}


def forget(folder: Path, used: Mapping[str, frozenset[str]], runs: Iterable[Path]) -> None:
    """Remove the lessons in ``folder`` that nothing needs any more.

    ``used``: what each station names as in use or one step back; lessons of a station that is not
    among them stay. ``runs`` are training runs that are needed, wherever they lie.
    """
    lessons = [one for one in map(_read, sorted(folder.glob("*"))) if one is not None]
    runs = tuple(runs)
    needed: set[str] = set()
    for run in runs:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            needed |= {version_of(run), *parents_of(run)}
    last: dict[str, list[Path]] = {}
    for one in lessons:
        last.setdefault(one.station, []).append(one.folder)
    kept: set[Path] = set()
    more = True
    while more:
        more = False
        for one in lessons:
            if one.folder in kept:
                continue
            if (
                one.station not in used
                or one.folder in last[one.station][-KEPT:]
                or one.names & (used[one.station] | needed)
                or any(run.is_relative_to(one.folder) for run in runs)
            ):
                kept.add(one.folder)
                # What a run comes from is needed as long as the run is.
                needed |= one.parents
                more = True
    for one in lessons:
        if one.folder not in kept:
            shutil.rmtree(one.folder, ignore_errors=True)
            say("lesson removed", folder=str(one.folder), station=one.station)


def _read(folder: Path) -> _Lesson | None:
    """A finished lesson; None for another folder, or one that cannot be read."""
    try:
        told = json.loads((folder / _FACTS).read_bytes())
        run = folder / "run"
        names = frozenset((str(told["sha256"]), version_of(run)))
        return _Lesson(folder, str(told["station"]), names, parents_of(run))
    except (OSError, ValueError, LookupError, TypeError):
        return None
