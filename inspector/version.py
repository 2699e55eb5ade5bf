"""The version of the product, as ``pyproject.toml`` has it, and how an extra of it is installed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from inspector.shown import findable

VERSION: Final = "0.1.0"


def install_command(extra: str) -> str:
    """The command that adds one of the product's extras, such as ``parquet``, where it is now.

    That is a checkout, which is installed as ``make`` does it, or the wheel, which is named by its
    file: no package index has the product yet, so that a project of its name there would be
    somebody else's.
    """
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install './cfa_inspector-{VERSION}-py3-none-any.whl[{extra}]'"
    place = "." if checkout == Path.cwd() else str(checkout)
    return f"{findable('pip')} install --editable {shlex.quote(f'{place}[{extra}]')}"
