"""The history as a table: what a filter finds, as CSV, for whoever works with a spreadsheet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inspector.client import Viewer
from inspector.console.access import person
from inspector.console.app import line_of
from inspector.console.downloads import Download
from inspector.console.line import Line
from inspector.console.parts import query_of
from inspector.wire.queries import MOST_ENTRIES, AnswerMessage, HistoryQuery
from inspector.wire.rows import COLUMNS, csv_line, row_of

MOST_ROWS: Final = 1_000_000
"""A spreadsheet has 1,048,576; the newest verdicts come first."""
_MARK: Final = "\ufeff"
"""By which a spreadsheet sees that the file is UTF-8."""


async def _table(request: Request) -> Response:
    person(request)
    line, query = line_of(request), query_of(HistoryQuery, request)
    with contextlib.ExitStack() as place:
        place.enter_context(line.downloads.one())
        # What is wrong with the question, or the station, is told before the file begins.
        first = await _page(line, query.model_copy(update={"limit": MOST_ENTRIES}))
        headers = {
            "cache-control": "no-store",
            "content-disposition": 'attachment; filename="verdicts.csv"',
        }
        pieces = _lines(line, query, first)
        return Download(pieces, place.pop_all(), media_type="text/csv", headers=headers)


async def _lines(line: Line, query: HistoryQuery, page: AnswerMessage) -> AsyncIterator[bytes]:
    yield (_MARK + csv_line(COLUMNS)).encode()
    rows = 0
    while True:
        found = page.entries[: MOST_ROWS - rows]
        rows += len(found)
        lines = (row_of(one.verdict, one.delivered, one.marks).values() for one in found)
        yield "".join(map(csv_line, lines)).encode()
        if page.next_epoch is None or rows >= MOST_ROWS:
            return
        place = {"before_epoch": page.next_epoch, "before_seq": page.next_seq}
        page = await _page(line, query.model_copy(update={"limit": MOST_ENTRIES, **place}))


async def _page(line: Line, query: HistoryQuery) -> AnswerMessage:
    def ask(viewer: Viewer) -> AnswerMessage:
        return viewer.ask(query)[0]

    return await line.ask(ask)


ROUTES: Final = (Route("/api/stations/{station}/history.csv", _table),)
