"""What a station recorded, looked at afterwards: ``replay`` and ``export-verdicts``.

Both read while the station writes.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inspector.archive import Picture, Record, pictures
from inspector.config import Provider, Station, load_station
from inspector.errors import ConfigError, JournalError, OutputError
from inspector.fitness import History, reconsider
from inspector.frame import Box
from inspector.journal import Reader
from inspector.verdict import Judgement, Verdict
from inspector.wire import VerdictMessage

if TYPE_CHECKING:
    from inspector.detector import Detector

_SHOWN: Final = 20
_CHUNK: Final = 10_000
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}

COLUMNS: Final = (
    *("judged_at", "station", "camera", "epoch", "seq", "part_id", "client", "session"),
    *("trigger_seq", "verdict", "score", "reason", "detail", "limit_factor", "regions"),
    *("model_name", "model_version", "model_sha256", "recipe"),
    *("triggered_us", "grabbed_us", "judged_us", "queue_ms", "judge_ms"),
)
"""Of an exported table. ``judged_at`` is ``judged_us`` as a time, UTC; ``regions`` JSON."""


@dataclass
class Comparison:
    """Verdicts then and now: counts by (then, now), and the parts whose verdict changed."""

    counts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    changed: list[tuple[VerdictMessage, Judgement]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    gone: int = 0

    def add(self, then: VerdictMessage, now: Judgement) -> None:
        """Count one part."""
        label = f"FAULT {then.reason}" if then.verdict is Verdict.FAULT else then.verdict.value
        self.counts[label, now.verdict] += 1
        if then.verdict is not now.verdict:
            self.changed.append((then, now))


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``inspector replay``."""
    _add_source(parser)
    parser.add_argument(
        "--bundle", type=Path, required=True, metavar="NEW.onnx", help="the bundle to judge with"
    )
    parser.add_argument("--camera", metavar="NAME", help="only pictures of this camera")
    parser.add_argument(
        "--limit-factor", type=_factor, metavar="F", help="sensitivity [as each part was judged]"
    )
    parser.add_argument(
        "--show",
        type=int,
        default=_SHOWN,
        metavar="N",
        help="list at most N parts whose verdict would change [%(default)s]",
    )


def replay(options: argparse.Namespace) -> int:
    """Judge the kept pictures with another bundle, and print what would change; 0.

    Raises :class:`ConfigError`, :class:`JournalError`, :class:`BundleError`, ProviderError.
    """
    # Here, so that the help of every command does not load ONNX Runtime.
    from inspector.detector import Detector

    folder, station = _find(options.source)
    chosen = _choose(folder, station, options)
    if not chosen:
        raise JournalError(f"{folder}: no pictures to replay; docs/journal.md says what is kept")
    provider: Provider = station.provider if station else "auto"
    detector = Detector.load(options.bundle, provider, station.threads if station else 0)
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    comparison = Comparison()
    judge = _judge(detector, options.limit_factor)
    with _bar(console) as bar:
        for picture in bar.track(chosen, description="judging"):
            try:
                record, frame = picture.load()
            except FileNotFoundError:
                comparison.gone += 1
            except ValueError as error:
                comparison.unreadable.append(str(error))
            else:
                comparison.add(record.verdict, judge(record, frame))
    for line in comparison.unreadable:
        console.print(f"{line}; left out")
    _print(comparison, detector, options.show)
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``inspector export-verdicts``."""
    _add_source(parser)
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        required=True,
        metavar="FILE",
        help="out.csv or out.parquet",
    )


def export(options: argparse.Namespace) -> int:
    """Write the journal's verdicts as a table; 0.

    Raises :class:`ConfigError`, :class:`JournalError` and :class:`OutputError`.
    """
    out: Path = options.output
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(out.suffix.lower())
    if write is None:
        raise ConfigError(f"--output {out}: the name must end in .csv or .parquet")
    if write is _write_parquet:
        _pyarrow(out)
    folder, _ = _find(options.source)
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with closing(Reader(folder)) as reader, _bar(console) as bar:
        task = bar.add_task("verdicts", total=None)

        def rows() -> Iterator[dict[str, Any]]:
            for json in reader.walk(options.since or 0):
                verdict = VerdictMessage.model_validate_json(json)
                if _within(verdict.judged_us, options):
                    bar.advance(task)
                    yield row_of(verdict)

        count = _write_whole(out, lambda path: write(path, rows()))
    print(f"{out}: {count} verdicts")
    return 0


def row_of(verdict: VerdictMessage) -> dict[str, Any]:
    """One row of the table, by :data:`COLUMNS`."""
    fields = verdict.model_dump(mode="json", exclude={"schema_", "regions", "model"})
    model = verdict.model
    fields["judged_at"] = datetime.fromtimestamp(0, timezone.utc) + timedelta(
        microseconds=verdict.judged_us
    )
    fields["regions"] = "[" + ",".join(region.model_dump_json() for region in verdict.regions) + "]"
    for name in ("name", "version", "sha256"):
        fields[f"model_{name}"] = getattr(model, name) if model else None
    return {name: fields[name] for name in COLUMNS}


def moment(text: str) -> int:
    """µs since the Unix epoch of a date, a time (here, where it names no zone) or an age: 7d, 12h.

    Raises :class:`argparse.ArgumentTypeError`.
    """
    age = re.fullmatch(r"(\d{1,6})([dhm])", text)
    try:
        if age:
            when = datetime.now(timezone.utc) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            # Python 3.10 does not know the Z.
            when = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).astimezone()
        return max(0, round(when.timestamp() * 1e6))
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no time; give 2024-05-01, 2024-05-01T06:00, or an age such as 7d, 12h, "
            f"30m"
        ) from None


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        metavar="STATION.yaml|FOLDER",
        help="a station file, or the folder of a journal",
    )
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="2024-05-01, 2024-05-01T06:00, or 7d, 12h ago"
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="before this time")


def _find(source: Path) -> tuple[Path, Station | None]:
    if source.suffix.lower() in {".yaml", ".yml"} and not source.is_dir():
        station = load_station(source)
        return station.state_folder, station
    if not source.is_dir():
        raise ConfigError(f"{source}: no such folder; give a station file or a journal's folder")
    return source, None


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0, such as 1.2")
    return value


def _within(judged_us: int, options: argparse.Namespace) -> bool:
    return (options.since is None or judged_us >= options.since) and (
        options.until is None or judged_us < options.until
    )


def _choose(folder: Path, station: Station | None, options: argparse.Namespace) -> list[Picture]:
    if not folder.is_dir():
        raise JournalError(f"{folder}: no such folder; give the one that the station's log names")
    kept = list(pictures(folder))
    known = {picture.camera for picture in kept}
    known |= {camera.name for camera in station.cameras} if station else set()
    if known and options.camera not in {None, *known}:
        raise ConfigError(
            f"--camera {options.camera}: {folder} knows no such camera; it knows "
            f"{', '.join(sorted(known))}"
        )
    return [
        picture
        for picture in kept
        if _within(picture.judged_us, options) and options.camera in (None, picture.camera)
    ]


def _judge(detector: Detector, limit_factor: float | None) -> Callable[[Record, Any], Judgement]:
    """Judges as the station would: same region, same factor, pictures checked for fitness."""
    adapted: dict[tuple[Box | None, float], Detector] = {}

    def judge(record: Record, frame: Any) -> Judgement:
        key = (record.region, limit_factor or record.verdict.limit_factor)
        if key not in adapted:
            adapted[key] = detector.adapted(*key)
        judgement = adapted[key].judge(frame)
        if not record.checked:
            return judgement
        # Kept pictures are no row of frames: whether a camera froze they cannot tell.
        return reconsider(judgement, frame, detector.manifest.exposure, History(live=False))

    return judge


def _print(comparison: Comparison, detector: Detector, most: int) -> None:
    manifest, counts = detector.manifest, comparison.counts
    total = counts.total()
    gone = f"; {comparison.gone} were deleted meanwhile" if comparison.gone else ""
    left = f"; {len(comparison.unreadable)} cannot be read" if comparison.unreadable else ""
    print(f"{total} pictures judged with {manifest.name} {manifest.version}{gone}{left}")
    if not total:
        return
    width = max(len("then"), *(len(then) for then, _ in counts))
    print(f"\n{'then':<{width}}{'':9}now PASS      FAIL     FAULT   changed")
    for then in sorted({then for then, _ in counts}, key=lambda then: (then != "PASS", then)):
        row = [counts[then, now] for now in Verdict]
        other = sum(counts[then, now] for now in Verdict if now.value != then.partition(" ")[0])
        numbers = "".join(f"{number:>10}" for number in row)
        print(f"{then:<{width}}{'':7}{numbers}   {other / sum(row):>6.1%}")
    if comparison.changed and most > 0:
        print(f"\n{'judged':<20}{'camera':<10}{'part':<20}change")
    for old, new in comparison.changed[: max(most, 0)]:
        when = datetime.fromtimestamp(old.judged_us / 1e6).astimezone()
        print(
            f"{when.strftime('%Y-%m-%d %H:%M:%S'):<20}{old.camera:<10}"
            f"{old.part_id or f'seq {old.seq}':<20}"
            f"{old.verdict} {_figure(old)} -> {new.verdict} {_figure(new)}"
        )
    if len(comparison.changed) > most > 0:
        print(f"... and {len(comparison.changed) - most} more (--show N)")


def _figure(verdict: VerdictMessage | Judgement) -> str:
    if verdict.score is not None:
        return f"{verdict.score:.3f}"
    return verdict.reason if isinstance(verdict, VerdictMessage) else verdict.reason.value


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _write_whole(out: Path, write: Callable[[Path], int]) -> int:
    """Have ``write`` fill a temporary file that then takes the name ``out``; what it returned."""
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        count = write(temporary)
        temporary.chmod(0o644)
        temporary.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
    return count


def _write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in rows:
            row["judged_at"] = row["judged_at"].isoformat(timespec="microseconds")
            table.writerow(row)
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    pa, parquet = _pyarrow(path)
    floats = {"score", "limit_factor", "queue_ms", "judge_ms"}
    integers = {"seq", "trigger_seq", "triggered_us", "grabbed_us", "judged_us"}
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
            f"{out}: Parquet needs pyarrow: pip install 'line-inspector[parquet]', or write "
            f"{out.with_suffix('.csv').name}"
        ) from None
    return pyarrow, pyarrow.parquet
