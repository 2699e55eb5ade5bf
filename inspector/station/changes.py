"""What was changed in the station file since the start: it counts from the next start only."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from inspector.config.station_file import Station, changed_keys, load_station
from inspector.errors import InspectorError, Problems
from inspector.files import read_within

_NAMED: Final = 3
"""Keys that are named; the others are counted."""


def say_changes(path: Path, started: Station, timeout_s: float) -> str:
    """What ``path`` says otherwise than ``started``, which was read from it; "" for nothing.

    Reads the file, but waits no longer than ``timeout_s`` for a share that hangs. Never raises for
    what is wrong with the file: that is told.
    """
    try:
        # By a child process first: one that does not get the file in time must not keep a thread.
        read_within(path, timeout_s)
        keys = changed_keys(started, load_station(path))
    except OSError as error:
        return f"note: {path} cannot be read now ({error.strerror or error})"
    except InspectorError as error:
        first = error.problems[0] if isinstance(error, Problems) else error
        return f"note: the next start would refuse the station file as it is now: {first}"
    if not keys:
        return ""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return (
        f"note: {path} was changed since this start ({', '.join(keys[:_NAMED])}{more}); that "
        f"counts from the next start: restart the station"
    )
