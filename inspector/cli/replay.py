"""``replay``: judge kept pictures again with another bundle, and list verdicts that change."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from inspector.cli.arguments import factor, whole
from inspector.cli.recorded import add_journal, find_journal, is_within, progress_bar
from inspector.config.station_file import Provider, Station
from inspector.detection.detector import Detector
from inspector.errors import ConfigError, JournalError
from inspector.files import write_output
from inspector.imaging.geometry import Box
from inspector.journal.pictures import KeptPicture, PictureRecord, pictures
from inspector.shown import plain
from inspector.tables import Terminal, numbers, show, table
from inspector.verdict import Judgement, Verdict
from inspector.wire.messages import VerdictMessage

_SHOWN: Final = 20


@dataclass
class Comparison:
    """Verdicts then and now: counts by (then, now), and the parts whose verdict changed.

    ``then`` is the verdict, of a FAULT with its reason. ``unreadable`` has a line for each picture
    that cannot be read; ``gone`` counts those that the station deleted meanwhile.
    """

    counts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    changed: list[tuple[VerdictMessage, Judgement]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    gone: int = 0

    def add(self, then: VerdictMessage, now: Judgement) -> None:
        """Count one part, and keep it if its verdict changed."""
        label = f"FAULT {then.reason}" if then.verdict is Verdict.FAULT else then.verdict.value
        self.counts[label, now.verdict] += 1
        if then.verdict is not now.verdict:
            self.changed.append((then, now))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``replay``."""
    add_journal(parser)
    parser.add_argument(
        "--bundle", type=Path, required=True, metavar="NEW.onnx", help="the bundle to judge with"
    )
    parser.add_argument("--camera", metavar="NAME", help="only pictures of this camera")
    parser.add_argument(
        "--limit-factor", type=factor, metavar="F", help="sensitivity [as each part was judged]"
    )
    parser.add_argument(
        "--show",
        type=whole,
        default=_SHOWN,
        metavar="N",
        help="list at most N parts whose verdict would change [%(default)s]",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.json", help="write what would change, for programs"
    )


def run(options: argparse.Namespace) -> int:
    """Judge the kept pictures with another bundle, and print what would change; 0.

    Raises :class:`ConfigError`, :class:`JournalError`, :class:`BundleError`,
    :class:`ProviderError` and :class:`OutputError`.
    """
    folder, station = find_journal(options.source)
    console = Terminal(stderr=True, highlight=False, soft_wrap=True, markup=False)
    chosen = _choose(folder, station, options, console)
    if not chosen:
        raise JournalError(f"{folder}: no pictures to replay; docs/journal.md says what is kept")
    provider: Provider = station.provider if station else "auto"
    detector = Detector.load(options.bundle, provider, station.threads if station else 0)
    comparison = Comparison()
    judge = _judge(detector, options.limit_factor)
    with progress_bar(console) as bar:
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
        console.print(plain(f"{line}; left out"))
    _print(comparison, detector, options.show)
    if options.report is not None:
        told = json.dumps(_report(comparison, detector), indent=2, allow_nan=False)
        write_output(options.report, told + "\n")
    return 0


def _choose(
    folder: Path, station: Station | None, options: argparse.Namespace, console: Console
) -> list[KeptPicture]:
    if not folder.is_dir():
        raise JournalError(f"{folder}: no such folder; give the one that the station's log names")
    kept = list(pictures(folder, lambda trouble: console.print(plain(f"{trouble}; left out"))))
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
        if is_within(picture.judged_us, options) and options.camera in (None, picture.camera)
    ]


def _judge(
    detector: Detector, limit_factor: float | None
) -> Callable[[PictureRecord, Any], Judgement]:
    """Judges a picture as the station would: region, factor and check of the picture as then.

    Kept pictures are not consecutive, so a frozen camera cannot be detected.
    """
    adapted: dict[tuple[Box | None, float], Detector] = {}

    def judge(record: PictureRecord, frame: Any) -> Judgement:
        key = (record.region, limit_factor or record.verdict.limit_factor)
        if key not in adapted:
            adapted[key] = detector.adapted(*key)
        return adapted[key].judge(frame, check_picture=record.checked)

    return judge


def _print(comparison: Comparison, detector: Detector, most: int) -> None:
    manifest, counts = detector.manifest, comparison.counts
    total = counts.total()
    gone = f"; {comparison.gone} were deleted meanwhile" if comparison.gone else ""
    left = f"; {len(comparison.unreadable)} cannot be read" if comparison.unreadable else ""
    print(plain(f"{total} pictures judged with {manifest.name} {manifest.version}{gone}{left}"))
    if not total:
        return
    against = table("then", *map(numbers, ("now PASS", "FAIL", "FAULT", "changed")))
    for then in sorted({then for then, _ in counts}, key=lambda then: (then != "PASS", then)):
        row = [counts[then, now] for now in Verdict]
        other = sum(counts[then, now] for now in Verdict if now.value != then.partition(" ")[0])
        against.add_row(then, *map(str, row), f"{other / sum(row):.1%}")
    print()
    show(against)
    if not comparison.changed or most <= 0:
        return
    parts = table("judged", "camera", "part", "change")
    for old, new in comparison.changed[:most]:
        when = datetime.fromtimestamp(old.judged_us / 1e6).astimezone()
        parts.add_row(
            when.strftime("%Y-%m-%d %H:%M:%S"),
            old.camera,
            old.part_id or f"seq {old.seq}",
            f"{old.verdict} {_figure(old)} -> {new.verdict} {_figure(new)}",
        )
    print()
    show(parts)
    if len(comparison.changed) > most:
        print(f"... and {len(comparison.changed) - most} more (--show N)")


def _report(comparison: Comparison, detector: Detector) -> dict[str, Any]:
    """What ``--report`` writes (docs/journal.md)."""
    manifest = detector.manifest
    return {
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": detector.sha256,
        },
        "judged": comparison.counts.total(),
        "gone": comparison.gone,
        "unreadable": len(comparison.unreadable),
        "counts": [
            {"then": then, "now": now.value, "parts": parts}
            for (then, now), parts in sorted(comparison.counts.items())
        ],
        "changed": [
            {
                "epoch": then.epoch,
                "seq": then.seq,
                "camera": then.camera,
                "part_id": then.part_id,
                "judged_us": then.judged_us,
                "then": then.verdict.value,
                "score_then": then.score,
                "now": now.verdict.value,
                "score_now": now.score,
                "reason_now": now.reason.value,
            }
            for then, now in comparison.changed
        ],
    }


def _figure(verdict: VerdictMessage | Judgement) -> str:
    if verdict.score is not None:
        return f"{verdict.score:.3f}"
    return verdict.reason if isinstance(verdict, VerdictMessage) else verdict.reason.value
