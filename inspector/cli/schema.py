"""``schema``: the messages' JSON Schema, as docs/wire.schema.json holds it."""

from __future__ import annotations

import argparse

from inspector.wire.schemas import dump_schemas


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """``schema`` has no arguments."""


def run(_options: argparse.Namespace) -> int:
    """Print the schema; 0."""
    print(dump_schemas(), end="")
    return 0
