"""Rows of the table of the operator's page, much shortened: each measures what it says."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("stations are tried on Linux", allow_module_level=True)

from benchmarks import rows
from benchmarks.console import __main__ as console
from benchmarks.console import commits, strangers
from inspector.journal import writer


def quiet(done: int, total: int) -> None:
    pass


def test_every_row_is_there():
    for name in console.NAMES:
        assert rows.row("benchmarks.console", name).trials > 0


def test_commits_are_compared_with_such_that_cannot_be_searched(tmp_path, monkeypatch):
    filed = []
    file_new = writer.file_new

    def watched(db, findings, waiting):
        filed.append(len(findings))
        return file_new(db, findings, waiting)

    monkeypatch.setattr(writer, "file_new", watched)
    figures = commits.measure(tmp_path, 2, quiet)
    assert filed == [1, 1, 2, 2, 5, 5, 20, 20, 100, 100]
    assert writer.file_new is watched
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names) == 15
    assert all(figure.value > 0 for figure in figures)


def test_strangers_hold_up_no_part(tmp_path):
    figures = {figure.name: figure for figure in strangers.measure(tmp_path, 100, quiet)}
    assert figures["parts that were not judged"].value == 0
    assert figures["with strangers, p50"].value > 0
