"""Tables on standard output, and the line that names the next command.

At a terminal a table is coloured and as wide as the terminal; in a file its lines are whole.
"""

from __future__ import annotations

import os
import shlex
from typing import Final

from rich.console import Console
from rich.table import Column, Table

_UNLIMITED: Final = 100_000
"""Width of a table in a file or pipe; rich pads a table to its longest row only."""


def table(*columns: str | Column) -> Table:
    """An empty table with these columns, without a head where none has a name.

    A cell is text as it stands or a rich ``Text``. Where the terminal is too narrow cells are
    folded; nothing is ever cut off.
    """
    made = [column if isinstance(column, Column) else Column(column) for column in columns]
    for column in made:
        column.overflow = "fold"
    has_head = any(column.header for column in made)
    return Table(*made, box=None, pad_edge=False, show_header=has_head)


def numbers(name: str) -> Column:
    """A column of numbers, which stand at its right edge."""
    return Column(name, justify="right")


def print_next(*command: str | os.PathLike[str]) -> None:
    """Print ``next: COMMAND``, quoted for a shell: the last line of a command that took a while."""
    print(f"next: {shlex.join(os.fspath(word) for word in command)}", flush=True)


def show(filled: Table, title: str = "") -> None:
    """Print a table on standard output, at once, under its title if it has one."""
    console = Console(highlight=False, markup=False, emoji=False)
    if title:
        console.print(title, style="bold", soft_wrap=True)
    if console.file.isatty():
        console.print(filled)
        return
    console.width = _UNLIMITED
    with console.capture() as captured:
        console.print(filled)
    for line in captured.get().splitlines():
        print(line.rstrip(), flush=True)
