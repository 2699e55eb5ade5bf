"""``export-verdicts``: write recorded verdicts, or deeds, as a table, CSV or Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from inspector.cli.recorded import add_journal, find_journal, is_within, progress_bar
from inspector.errors import ConfigError, OutputError
from inspector.files import output_errors, whole_file
from inspector.journal.reader import Reader
from inspector.journal.recovery import Damage
from inspector.journal.schema import Deed, Delivered, Mark
from inspector.shown import plain
from inspector.tables import Terminal
from inspector.version import install_command
from inspector.wire.messages import VerdictMessage, decode_verdict
from inspector.wire.rows import COLUMNS, DEED_COLUMNS, Row, csv_line, moment, row_of

_CHUNK: Final = 10_000


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
    parser.add_argument(
        "--deeds",
        action="store_true",
        help="what people did to the station, in place of verdicts",
    )


def run(options: argparse.Namespace) -> int:
    """Write the journal's verdicts as a table, in the order in which they were judged; 0.

    Or its deeds, in the order in which they were done.

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
        what, columns = ("deeds", DEED_COLUMNS) if options.deeds else ("verdicts", COLUMNS)
        task = bar.add_task(what, total=None)
        found = _deeds(reader, options) if options.deeds else _verdicts(reader, options)

        def rows() -> Iterator[Row]:
            for row in found:
                bar.advance(task)
                yield row

        with output_errors(out), whole_file(out) as path:
            count = write(path, columns, rows())
        first = reader.name_of(damages[0]) if damages else ""
    if damages:
        console.print(
            plain(
                f"{folder}: {len(damages)} damaged rows left out, the first is {first} "
                f"({damages[0].why}); docs/journal.md says what becomes of them"
            )
        )
    print(plain(f"{out}: {count} {what}"))
    return 0


def _verdicts(reader: Reader, options: argparse.Namespace) -> Iterator[Row]:
    for verdict, told, marks in _with_reports(reader, options.since or 0):
        if is_within(verdict.judged_us, options):
            yield row_of(verdict, told, marks)


def _deeds(reader: Reader, options: argparse.Namespace) -> Iterator[Row]:
    found: list[tuple[int, Deed]] = []
    while page := reader.deeds(found[-1][0] if found else None, _CHUNK):
        found += page
    for number, deed in reversed(found):
        if is_within(deed.at_us, options):
            fields = {"number": number, "done_at": moment(deed.at_us)} | asdict(deed)
            yield {name: fields[name] for name in DEED_COLUMNS}


def _with_reports(
    reader: Reader, since_us: int
) -> Iterator[tuple[VerdictMessage, Sequence[Delivered], Sequence[Mark]]]:
    """Every verdict since then, with what bridges told of it, and its marks."""
    verdicts = map(decode_verdict, reader.walk(since_us))
    for epoch, group in groupby(verdicts, lambda verdict: verdict.epoch):
        while chunk := list(islice(group, _CHUNK)):
            told: dict[int, list[Delivered]] = {}
            for one in reader.delivered(epoch, chunk[0].seq, chunk[-1].seq):
                told.setdefault(one.seq, []).append(one)
            marked: dict[int, list[Mark]] = {}
            for mark in reader.marks(epoch, chunk[0].seq, chunk[-1].seq):
                marked.setdefault(mark.seq, []).append(mark)
            for verdict in chunk:
                yield verdict, told.get(verdict.seq, ()), marked.get(verdict.seq, ())


def _write_csv(path: Path, columns: Sequence[str], rows: Iterator[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(columns))
        for row in rows:
            file.write(csv_line(row.values()))
            count += 1
    return count


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterator[Row]) -> int:
    pa, parquet = _pyarrow(path)
    floats = {"score", "limit_factor", "queue_ms", "judge_ms"}
    integers = {"seq", "trigger_seq", "triggered_us", "grabbed_us", "judged_us", "sent_us"}
    integers |= {"frame", "acknowledged_us", "number", "at_us"}
    kinds = dict.fromkeys(floats, pa.float64()) | dict.fromkeys(integers, pa.int64())
    kinds[columns[0]] = pa.timestamp("us", tz="UTC")
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
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
