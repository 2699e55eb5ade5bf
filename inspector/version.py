"""The version of the product, as ``pyproject.toml`` has it, and how an extra of it is installed."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"


def install_command(extra: str) -> str:
    """The command that installs the product with one of its extras, such as ``parquet``.

    It names the wheel's file. No package index has the product yet, so that a project of its name
    there would be somebody else's.
    """
    return f"pip install './cfa_inspector-{VERSION}-py3-none-any.whl[{extra}]'"
