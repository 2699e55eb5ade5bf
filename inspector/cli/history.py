"""``history``: the recorded verdicts of a station that runs, the newest first."""

from __future__ import annotations

import argparse
from datetime import datetime
from itertools import islice

from inspector.cli.arguments import ANSWERS_S, add_queries, client_keys, count, moment, number
from inspector.client.viewer import Viewer
from inspector.tables import show, table
from inspector.verdict import Verdict
from inspector.wire.queries import EntryField


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``history``."""
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="2024-05-01, 2024-05-01T06:00, or 7d, 12h ago"
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="before this time")
    parser.add_argument("--camera", metavar="NAME", help="of this camera")
    parser.add_argument(
        "--verdict",
        action="append",
        default=[],
        choices=[verdict.value for verdict in Verdict],
        help="PASS, FAIL or FAULT; may be given several times",
    )
    parser.add_argument("--reason", metavar="REASON", help="such as too_dark (docs/wire.md)")
    parser.add_argument("--part", metavar="ID", help="exactly this part id")
    parser.add_argument("--score-from", type=number, metavar="SCORE", help="at least this")
    parser.add_argument("--score-to", type=number, metavar="SCORE", help="below this")
    parser.add_argument("--marked", action="store_true", help="parts that somebody has marked")
    parser.add_argument(
        "--show", type=count, default=20, metavar="N", help="at most so many [%(default)d]"
    )
    add_queries(parser)


def run(options: argparse.Namespace) -> int:
    """Print the newest verdicts that are asked for; 0.

    Raises :class:`CommandError` and :class:`SecretError`.
    """
    filled = table("judged", "camera", "part", "verdict", "score", "reason", "marks", "EPOCH/SEQ")
    with Viewer(options.queries, reach_s=ANSWERS_S, keys=client_keys(options)) as viewer:
        entries = viewer.history(
            since_us=options.since,
            until_us=options.until,
            camera=options.camera,
            verdicts=[Verdict(name) for name in options.verdict],
            reason=options.reason,
            part_id=options.part,
            score_from=options.score_from,
            score_to=options.score_to,
            marked=True if options.marked else None,
        )
        for entry in islice(entries, options.show):
            filled.add_row(*_row(entry))
    if filled.row_count:
        show(filled)
    else:
        print("no such verdict")
    return 0


def _row(entry: EntryField) -> tuple[str, ...]:
    verdict = entry.verdict
    at = datetime.fromtimestamp(verdict.judged_us / 1e6).astimezone()
    marks = ", ".join(f"{one.label} ({one.by or one.client or '?'})" for one in entry.marks)
    return (
        f"{at:%Y-%m-%d %H:%M:%S}",
        verdict.camera,
        verdict.part_id,
        verdict.verdict.value,
        "" if verdict.score is None else f"{verdict.score:.3f}",
        verdict.reason,
        marks,
        f"{verdict.epoch}/{verdict.seq}",
    )
