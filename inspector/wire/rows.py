"""Recorded verdicts and deeds as rows of a table, and lines of CSV that act on no spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Protocol

from inspector.shown import cell
from inspector.wire.messages import VerdictMessage

COLUMNS: Final = (
    *("judged_at", "station", "camera", "epoch", "seq", "part_id", "client", "session"),
    *("trigger_seq", "lot", "purpose", "verdict", "score", "reason", "detail", "limit_factor"),
    *("regions", "model_name", "model_version", "model_sha256", "recipe"),
    *("triggered_us", "grabbed_us", "frame", "judged_us", "queue_ms", "judge_ms"),
    *("sent_us", "acknowledged_us", "delivered", "marks"),
)
"""Columns of a table of verdicts. ``judged_at`` is ``judged_us`` as a UTC time, ``regions`` JSON.

``delivered`` is what bridges told of the verdict, JSON; ``acknowledged_us`` when it was first
acknowledged. ``marks`` is what people said the part really was, JSON.
"""

DEED_COLUMNS: Final = (
    *("done_at", "number", "kind", "client", "by"),
    *("subject", "before", "after", "note", "at_us"),
)
"""Columns of a table of deeds. ``done_at`` is ``at_us`` as a UTC time."""

Row = dict[str, Any]


class Told(Protocol):
    """What a bridge told of a verdict, as the journal or the wire has it."""

    @property
    def client(self) -> str:
        """The peer that told it."""
        ...

    @property
    def outcome(self) -> str:
        """What became of the verdict."""
        ...

    @property
    def at_us(self) -> int:
        """When that was, µs since the Unix epoch."""
        ...


class Said(Protocol):
    """What somebody said a part really was, as the journal or the wire has it."""

    @property
    def label(self) -> str:
        """``good`` or ``bad``."""
        ...

    @property
    def client(self) -> str:
        """The peer that said it."""
        ...

    @property
    def by(self) -> str:
        """The person."""
        ...

    @property
    def at_us(self) -> int:
        """When that was, µs since the Unix epoch."""
        ...

    @property
    def note(self) -> str:
        """In the person's words."""
        ...


def row_of(verdict: VerdictMessage, told: Sequence[Told] = (), marks: Sequence[Said] = ()) -> Row:
    """One row of a table of verdicts, a value for each of :data:`COLUMNS`."""
    fields = verdict.model_dump(mode="json", exclude={"schema_", "regions", "model"})
    model = verdict.model
    fields["judged_at"] = moment(verdict.judged_us)
    fields["regions"] = "[" + ",".join(region.model_dump_json() for region in verdict.regions) + "]"
    fields["acknowledged_us"] = min(
        (one.at_us for one in told if one.outcome == "acknowledged"), default=None
    )
    fields["delivered"] = json.dumps(
        [{"client": one.client, "outcome": one.outcome, "at_us": one.at_us} for one in told],
        separators=(",", ":"),
    )
    fields["marks"] = json.dumps(
        [
            {
                "label": one.label,
                "client": one.client,
                "by": one.by,
                "at_us": one.at_us,
                "note": one.note,
            }
            for one in marks
        ],
        separators=(",", ":"),
        ensure_ascii=False,
    )
    for name in ("name", "version", "sha256"):
        fields[f"model_{name}"] = getattr(model, name) if model else None
    return {name: fields[name] for name in COLUMNS}


def moment(us: int) -> datetime:
    """A time in µs since the Unix epoch, in UTC."""
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=us)


def csv_line(values: Iterable[Any]) -> str:
    """One line of CSV with its end; text is plain, and no spreadsheet computes it."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow([_in_csv(value) for value in values])
    return line.getvalue()


def _in_csv(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return cell(value) if isinstance(value, str) else value
