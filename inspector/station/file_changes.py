"""What a station file says otherwise than the station that was started from it.

A station takes its file once, at its start: a reload reads bundles again, and a changeover selects
a recipe of that start. Whoever edited the file meanwhile must hear that this is not in force yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from inspector.config.station_file import Station, load_station
from inspector.errors import ConfigError, Problems
from inspector.files import read_within

_MOST_SHOWN: Final = 3


def changes_since(path: Path, station: Station, given_up: Callable[[], bool]) -> str:
    """What the file at ``path`` says otherwise than ``station``, read from it; "" for nothing.

    The file is waited for no longer than ``station.load_timeout_s``, and not after ``given_up()``.
    """
    read = partial(read_within, timeout_s=station.load_timeout_s, given_up=given_up)
    try:
        now = load_station(path, read)
    except (ConfigError, Problems) as wrong:
        return f"the next start would be refused: {wrong}"
    keys = list(_differing(station, now))
    if not keys:
        return ""
    shown = ", ".join(keys[:_MOST_SHOWN])
    more = f" and {len(keys) - _MOST_SHOWN} more" if len(keys) > _MOST_SHOWN else ""
    return (
        f"not in force yet: {path} was changed since the start ({shown}{more}); that counts from "
        f"the next start"
    )


def _differing(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The keys whose values differ, as they are nested in the file."""
    if old == new:
        return
    parts, others = _parts(old), _parts(new)
    if type(old) is not type(new) or not parts or not others:
        yield at
        return
    for key in dict.fromkeys((*parts, *others)):
        below = f"{at}.{key}" if at else key
        if key in parts and key in others:
            yield from _differing(parts[key], others[key], below)
        else:
            yield below


def _parts(value: Any) -> dict[str, Any]:
    """What ``value`` is made of, by name; nothing for what stands in one line of a file."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple) and all(isinstance(item, BaseModel) for item in value):
        return {str(getattr(item, "name", i)): item for i, item in enumerate(value)}
    return {}
