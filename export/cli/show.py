"""``show``: print what a bundle holds and how it was made."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inspector.tables import show, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``show``."""
    parser.add_argument("bundle", type=Path, metavar="part.onnx")
    parser.add_argument("--json", action="store_true", help="the whole manifest as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the bundle's facts, or its manifest as JSON; 0. Raises :class:`BundleError`."""
    from export.bundle.describe import describe
    from inspector.detection import bundle

    read = bundle.read(options.bundle)
    if options.json:
        # ASCII alone, so that no name in it can act on a terminal.
        print(json.dumps(read.manifest.model_dump(mode="json"), indent=2, allow_nan=False))
        return 0
    facts = table("", "")
    for name, text in describe(read.manifest):
        facts.add_row(name, text)
    show(facts, f"{options.bundle}\nsha256 {read.sha256}")
    return 0
