"""What a table looks like in a pipe and at a terminal."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys

import pytest

from inspector.tables import print_next

WIDE = "word " * 60 + "x" * 400 + " end"
PROGRAM = f"""
from rich.text import Text
from inspector.tables import numbers, show, table
filled = table("name", numbers("score"), "reason")
filled.add_row("[red]a[/] :smile:", "0.5", Text("FAIL", "bold red"))
filled.add_row("b", "12.25", {WIDE!r})
show(filled, "a title that is longer than this table would be, and is not wrapped in a pipe " * 2)
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def at_a_terminal(columns: int) -> str:
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": str(columns), "PATH": os.environ["PATH"]}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, env=environment) as child:
        os.close(theirs)
        said = b""
        # A terminal whose last writer has gone is an error to its reader, not an end.
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:
            pass
        os.close(ours)
    assert child.returncode == 0
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", ["40", "200"])
def test_in_a_pipe_lines_are_whole_and_plain(columns):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": columns, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    title, *lines = done.stdout.splitlines()
    assert title.count("a title") == 2
    assert [line.split() for line in lines[:2]] == [
        ["name", "score", "reason"],
        ["[red]a[/]", ":smile:", "0.5", "FAIL"],
    ]
    assert lines[2].split(maxsplit=2) == ["b", "12.25", WIDE]
    assert len(lines) == 3
    assert [line.rstrip() for line in lines] == lines
    assert lines[1].index("0.5") + 3 == lines[2].index("12.25") + 5
    assert "\x1b" not in done.stdout


def test_at_a_terminal_cells_are_folded_and_nothing_is_cut_off():
    said = at_a_terminal(60)
    assert COLOUR.search(said)
    lines = COLOUR.sub("", said).splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("name"))) :]
    assert max(map(len, table)) <= 60
    assert "[red]a[/] :smile:" in table[1]
    assert "".join(table).count("x") == 400
    assert "".join("".join(table).split()).count("word") == 60
    assert "…" not in said


def test_the_next_command_is_quoted_for_a_shell(capsys, tmp_path):
    print_next("inspector", "run", tmp_path / "line 1's.yaml")
    words = shlex.split(capsys.readouterr().out)
    assert words == ["next:", "inspector", "run", str(tmp_path / "line 1's.yaml")]


def test_the_next_command_is_one_that_the_shell_finds(capsys, tmp_path, monkeypatch):
    """As after ``make demo``, whose environment is not activated."""
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "inspector").write_text("#!/bin/sh\n")
    (scripts / "inspector").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")

    def said() -> str:
        print_next("inspector", "run", "s.yaml")
        return capsys.readouterr().out

    assert said() == f"next: {scripts}/inspector run s.yaml\n"
    monkeypatch.chdir(tmp_path)
    assert said() == "next: .venv/bin/inspector run s.yaml\n"
    monkeypatch.setenv("PATH", str(scripts))
    assert said() == "next: inspector run s.yaml\n"
    # What is not installed here has no better name.
    monkeypatch.setenv("PATH", "/usr/bin")
    (scripts / "inspector").unlink()
    assert said() == "next: inspector run s.yaml\n"
