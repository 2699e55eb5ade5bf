"""Tables on standard output, and the line that names the next command.

At a terminal a table is coloured and as wide as the terminal; in a file its lines are whole.
"""

from __future__ import annotations

import os
import shlex
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from inspector.shown import findable, plain

_STATION: Final = "station.yaml"
"""What the pages call a station file; 'init' never overwrites one."""
_UNLIMITED: Final = 100_000
"""Width of a table in a file or pipe; rich pads a table to its longest row only."""


class Terminal(Console):
    """A console that raises BrokenPipeError, as ``print`` does, when its reader has ended.

    rich would end the program with exit code 1, which says FAIL or WARNING of some commands.
    """

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled."""
        raise BrokenPipeError


class _PlainTable(Table):
    """A table whose cells act on no terminal, whoever wrote their text."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """As rich's, each cell with escapes for characters that cannot be printed."""
        super().add_row(*map(_plain_cell, cells), **options)


def _plain_cell(content: RenderableType | None) -> RenderableType | None:
    if isinstance(content, str):
        return plain(content)
    if isinstance(content, Text) and not content.plain.isprintable():
        return Text(plain(content.plain), content.style)
    return content


def table(*columns: str | Column) -> Table:
    """An empty table with these columns, without a head where none has a name.

    A cell is a text or a rich ``Text``; characters that cannot be printed are escaped in it. Where
    the terminal is too narrow cells are folded; nothing is ever cut off.
    """
    made = [column if isinstance(column, Column) else Column(column) for column in columns]
    for column in made:
        column.overflow, column.header = "fold", _plain_cell(column.header) or ""
    has_head = any(column.header for column in made)
    return _PlainTable(*made, box=None, pad_edge=False, show_header=has_head)


def numbers(name: str) -> Column:
    """A column of numbers, which stand at its right edge."""
    return Column(name, justify="right")


def print_next(*command: str | os.PathLike[str]) -> None:
    """Print ``next: COMMAND``, quoted for a shell: the last line of a command that took a while.

    A program of this environment that a shell would not find is named by its path.
    """
    program, *words = (os.fspath(word) for word in command)
    print(plain(f"next: {shlex.join([findable(program), *words])}"), flush=True)


def print_next_station(bundle: str | os.PathLike[str]) -> None:
    """Print the next command for whoever has a bundle: to write a station file, if none is here."""
    if os.path.lexists(_STATION):
        print_next("inspector", "check", _STATION)
    else:
        print_next("inspector", "init", _STATION, "--camera", "0", "--bundle", bundle)


def show(filled: Table, title: str = "") -> None:
    """Print a table on standard output, at once, under its title if it has one."""
    console = Terminal(highlight=False, markup=False, emoji=False)
    if title:
        console.print("\n".join(map(plain, title.split("\n"))), style="bold", soft_wrap=True)
    if console.file.isatty():
        console.print(filled)
        return
    console.width = _UNLIMITED
    with console.capture() as captured:
        console.print(filled)
    for line in captured.get().splitlines():
        print(line.rstrip(), flush=True)
