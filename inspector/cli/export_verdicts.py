"""``export-verdicts``: write recorded verdicts as a table, CSV or Parquet."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from inspector.cli.recorded import add_journal, find_journal, is_within, progress_bar
from inspector.errors import ConfigError, OutputError
from inspector.files import output_errors, whole_file
from inspector.journal.reader import Reader
from inspector.journal.recovery import Damage
from inspector.journal.schema import Delivered
from inspector.shown import cell
from inspector.tables import Terminal
from inspector.version import install_command
from inspector.wire.messages import VerdictMessage, decode_verdict

_CHUNK: Final = 10_000

COLUMNS: Final = (
    *("judged_at", "station", "camera", "epoch", "seq", "part_id", "client", "session"),
    *(
        "trigger_seq",
        "lot",
        "purpose",
        "verdict",
        "score",
        "reason",
        "detail",
        "limit_factor",
        "regions",
    ),
    *("model_name", "model_version", "model_sha256", "recipe"),
    *("triggered_us", "grabbed_us", "frame", "judged_us", "queue_ms", "judge_ms"),
    *("sent_us", "acknowledged_us", "delivered"),
)
"""Columns of the table. ``judged_at`` is ``judged_us`` as a UTC time, ``regions`` are JSON.

``delivered`` is what bridges told of the verdict, JSON; ``acknowledged_us`` when it was first
acknowledged.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``export-verdicts``."""
    add_journal(parser)
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        required=True,
        metavar="FILE",
        help="out.csv or out.parquet",
    )


def run(options: argparse.Namespace) -> int:
    """Write the journal's verdicts as a table, in the order in which they were judged; 0.

    Raises :class:`ConfigError`, :class:`JournalError` and :class:`OutputError`.
    """
    out: Path = options.output
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(out.suffix.lower())
    if write is None:
        raise ConfigError(f"--output {out}: the name must end in .csv or .parquet")
    if write is _write_parquet:
        _pyarrow(out)
    folder, _ = find_journal(options.source)
    console = Terminal(stderr=True, highlight=False, soft_wrap=True, markup=False)
    damages: list[Damage] = []
    with closing(Reader(folder, damages.append)) as reader, progress_bar(console) as bar:
        task = bar.add_task("verdicts", total=None)

        def rows() -> Iterator[dict[str, Any]]:
            for verdict, told in _with_delivered(reader, options.since or 0):
                if is_within(verdict.judged_us, options):
                    bar.advance(task)
                    yield row_of(verdict, told)

        with output_errors(out), whole_file(out) as path:
            count = write(path, rows())
        first = reader.name_of(damages[0]) if damages else ""
    if damages:
        console.print(
            f"{folder}: {len(damages)} damaged rows left out, the first is {first} "
            f"({damages[0].why}); docs/journal.md says what becomes of them"
        )
    print(f"{out}: {count} verdicts")
    return 0


def _with_delivered(
    reader: Reader, since_us: int
) -> Iterator[tuple[VerdictMessage, Sequence[Delivered]]]:
    """Every verdict since then, with what bridges told of it."""
    verdicts = map(decode_verdict, reader.walk(since_us))
    for epoch, group in groupby(verdicts, lambda verdict: verdict.epoch):
        while chunk := list(islice(group, _CHUNK)):
            told: dict[int, list[Delivered]] = {}
            for one in reader.delivered(epoch, chunk[0].seq, chunk[-1].seq):
                told.setdefault(one.seq, []).append(one)
            for verdict in chunk:
                yield verdict, told.get(verdict.seq, ())


def row_of(verdict: VerdictMessage, told: Sequence[Delivered] = ()) -> dict[str, Any]:
    """One row of the table, a value for each of :data:`COLUMNS`."""
    fields = verdict.model_dump(mode="json", exclude={"schema_", "regions", "model"})
    model = verdict.model
    fields["judged_at"] = datetime.fromtimestamp(0, timezone.utc) + timedelta(
        microseconds=verdict.judged_us
    )
    fields["regions"] = "[" + ",".join(region.model_dump_json() for region in verdict.regions) + "]"
    fields["acknowledged_us"] = min(
        (one.at_us for one in told if one.outcome == "acknowledged"), default=None
    )
    fields["delivered"] = json.dumps(
        [{"client": one.client, "outcome": one.outcome, "at_us": one.at_us} for one in told],
        separators=(",", ":"),
    )
    for name in ("name", "version", "sha256"):
        fields[f"model_{name}"] = getattr(model, name) if model else None
    return {name: fields[name] for name in COLUMNS}


def _write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in rows:
            row["judged_at"] = row["judged_at"].isoformat(timespec="microseconds")
            table.writerow(
                {name: cell(each) if isinstance(each, str) else each for name, each in row.items()}
            )
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    pa, parquet = _pyarrow(path)
    floats = {"score", "limit_factor", "queue_ms", "judge_ms"}
    integers = {"seq", "trigger_seq", "triggered_us", "grabbed_us", "judged_us", "sent_us"}
    integers |= {"frame", "acknowledged_us"}
    kinds = dict.fromkeys(floats, pa.float64()) | dict.fromkeys(integers, pa.int64())
    kinds["judged_at"] = pa.timestamp("us", tz="UTC")
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as table:
        while chunk := list(islice(rows, _CHUNK)):
            table.write_table(pa.Table.from_pylist(chunk, schema=schema))
            count += len(chunk)
    return count


def _pyarrow(out: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise OutputError(
            f"{out}: Parquet needs pyarrow: run {install_command('parquet')}, or write "
            f"{out.with_suffix('.csv').name}"
        ) from None
    return pyarrow, pyarrow.parquet
