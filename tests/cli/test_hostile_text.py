"""What others call things forges no line on a terminal, whichever command shows it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from inspector.bridges.scan_cycle import Seen
from inspector.cli import simulate_plc
from inspector.cli.output import Screen
from inspector.config.station_file import Security
from inspector.journal.schema import FILE, PLACES_PER_EPOCH
from inspector.journal.writer import Journal
from inspector.wire.gate import Gate
from inspector.wire.messages import TriggerCommand
from inspector.wire.queries import AnswerMessage, EntryField, MarkField, PictureField, Query
from inspector.wire.query_server import Answer, Queries, QuerySocket
from inspector.wire.requests import Request
from tests import running
from tests.parties import ANY
from tests.records import NOW_US
from tests.stations import serving, verdict

FORGED = "p1\x1b[2K\r\nPASS seq 9\x9b2J\u202e\u2028\0end"


def is_tame(shown: str, lines: int) -> bool:
    """Whether so many lines were shown, and nothing in them that acts on a terminal."""
    return shown.count("\n") == lines and shown.replace("\n", "").isprintable()


class Hostile:
    """Answers every query with a part, a camera and words that are made to forge a line."""

    def __init__(self, _wake: Callable[[], None]) -> None:
        pass

    def answer(self, query: Query, answer: Answer) -> None:
        part = verdict(1, part_id=FORGED, camera=FORGED, reason=FORGED, recipe=FORGED)
        if query.command == "history":
            mark = MarkField(label="bad", client=FORGED, by=FORGED, at_us=1, note=FORGED)
            entry = EntryField(verdict=part, marks=(mark,), delivered=(), has_picture=False)
            answer(AnswerMessage(id=query.id, kind="history", entries=(entry,)), ())
            return
        about: dict[str, Any] = {"origin": "kept", "camera": FORGED, "verdict": part, "at_us": 1}
        about |= {"width": 1, "height": 1, "heatmap_area": None}
        about["frames"] = [{"content": "picture", "format": "jpeg", "width": 1, "height": 1}]
        kind = "picture" if query.command == "picture" else "preview"
        picture = PictureField.model_validate(about)
        answer(AnswerMessage(id=query.id, kind=kind, picture=picture), [b"\xff\xd8"])

    def turn(self) -> float | None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture
def queries() -> Iterator[str]:
    """The address of a station that is hostile."""
    with closing(Gate(Security())) as gate:
        made = Queries(QuerySocket(gate, ANY), Hostile)
        made.start()
        try:
            yield made.address
        finally:
            made.finish()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("history",), 2),
        (("picture", "e/1", "-o", "out.jpg"), 1),
        (("preview", "top", "-o", "out.jpg"), 1),
    ],
)
def test_no_line_is_forged_by_what_a_station_recorded(queries, words, lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = running.inside(*words, "--queries", queries)
    assert (code, err) == (0, "")
    assert "\\x1b" in out
    assert is_tame(out, lines), out


@pytest.mark.parametrize(
    "words",
    [
        ("trigger", "top"),
        ("mark", f"{FORGED}/1", "bad"),
        ("install", "--back", "--recipe", "r", "--camera", "top"),
        ("recipe", "r"),
        ("reload",),
        ("limit", "top", "1.5", "--recipe", "r"),
        ("start",),
        ("stop",),
        ("reset",),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("refused", [False, True])
def test_no_line_is_forged_by_a_stations_answer(recorded, words, refused):
    def handle(request: Request) -> None:
        if refused:
            request.refuse("failed", FORGED)
        elif isinstance(request.command, TriggerCommand):
            told = {"camera": FORGED, "reason": "why", "detail": FORGED}
            request.answer(verdict(7, part_id=FORGED, verdict="FAIL", **told))
        else:
            request.finish(FORGED)

    with serving(recorded, handle) as commands:
        code, out, err = running.inside(*words, "--address", commands.address)
    shown = err if refused else out
    assert code == (30 if refused else words[0] == "trigger")
    assert "\\x1b" in shown
    assert is_tame(shown, 1), shown


def test_no_line_is_forged_by_what_a_plc_is_told(capsys):
    with Screen() as screen:
        simulate_plc.watch([Seen(FORGED, 2, FORGED, 1.0, 5.0)], screen)
    shown = capsys.readouterr().out
    assert shown.count("\\x1b") == 2
    assert is_tame(shown, 2), shown


def test_no_line_is_forged_by_a_damaged_row(tmp_path):
    epoch = "epoch\x1b[2J\r"
    with closing(Journal(tmp_path, verdict_days=36_500)) as journal:
        journal.begin(epoch, NOW_US)
        journal.commit([], [verdict(1, epoch)])
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        row = json.dumps({FORGED: FORGED})
        db.execute("UPDATE verdict SET json = ? WHERE place = ?", (row, PLACES_PER_EPOCH + 1))
    code, out, err = running.inside("export-verdicts", tmp_path, "-o", tmp_path / "out.csv")
    assert (code, is_tame(out, 1)) == (0, True)
    assert "damaged rows left out, the first is epoch\\x1b[2J\\r/1 (" in err
    assert is_tame(err, 1), err
