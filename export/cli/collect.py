"""``collect``: the station's own command, offered here to whoever is about to train."""

from __future__ import annotations

from inspector.cli.collect import add_arguments, run

__all__ = ["add_arguments", "run"]
