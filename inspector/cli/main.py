"""The ``inspector`` command: which sub-commands there are, and what their errors end with."""

from __future__ import annotations

import argparse
import importlib
import io
import signal
import sys
from collections.abc import Sequence
from typing import Final

from inspector.errors import InspectorError, Problems
from inspector.shown import Parser, complaint
from inspector.streams import complain, until_unread
from inspector.version import VERSION

COMMANDS: Final = {
    "init": "write the station file of one camera",
    "run": "run a station until SIGTERM or Ctrl-C",
    "check": "try everything that could fail at start",
    "watch": "show verdicts as they come",
    "demo": "a station on a simulated conveyor, watched",
    "examples": "write the example files into a folder",
    "simulate": "draw a data set of simulated parts, MVTec AD layout",
    "collect": "take photos of good parts (docs/collect.md)",
    "judge": "judge photos by a bundle, no station",
    "tune": "find the fastest engine for a bundle here",
    "status": "how a station stands",
    "history": "the last verdicts, by camera, part, verdict, score",
    "picture": "write the picture of a part into a file",
    "preview": "write what a camera sees now into a file",
    "mark": "say what a part really was, good or bad",
    "trigger": "have one part judged",
    "recipe": "change over to another recipe",
    "reload": "read the bundles again; acknowledge a missed self-test",
    "install": "have a camera judged by another bundle, or go back",
    "limit": "have a camera judged more tolerantly or strictly",
    "start": "have a station judge again after 'stop'",
    "stop": "have a station judge no more, until 'start'",
    "reset": "leave the state Error, through the self-tests",
    "replay": "judge kept pictures again with another bundle",
    "export-verdicts": "write recorded verdicts as CSV or Parquet",
    "console": "serve the operator's page (docs/console.md)",
    "bridge": "let PLCs trigger and read verdicts (docs/plc)",
    "simulate-plc": "a PLC that works with a bridge, to try it",
    "demo-plc": "a station, a bridge and a simulated PLC, watched",
    "keygen": "make a pair of keys",
    "sign": "sign a bundle",
    "schema": "print the messages' JSON Schema (docs/wire.md)",
}
"""Name and help of each sub-command; its module has the same name, with ``_`` for ``-``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, as :mod:`inspector.errors` lists them.

    0 where the reader of the output ended first, as in 'inspector check | head': nothing is wrong.
    """
    words = sys.argv[1:] if argv is None else argv
    return until_unread(lambda: _run(words), cut_short=0)


def _run(argv: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal cannot show is escaped instead of ending the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # Loading a command takes seconds on a slow machine, and Ctrl-C may come then.
        options = _parser(argv).parse_args(argv)
        return int(options.run(options))
    except InspectorError as error:
        problems = error.problems if isinstance(error, Problems) else [error]
        said = (complaint(str(problem), argv) for problem in problems)
        complain("\n".join(f"inspector: error: {each}" for each in said))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="inspector",
        words=argv,
        description="Judges parts on a production line with a bundle made by inspector-model.",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    asked = next((word for word in argv if not word.startswith("-")), "")
    for name, explained in COMMANDS.items():
        made = commands.add_parser(name, help=explained, words=argv)
        # Only the command asked for is imported, so that '--help' waits for no ONNX Runtime.
        if name == asked:
            module = importlib.import_module(f"inspector.cli.{name.replace('-', '_')}")
            module.add_arguments(made)
            made.set_defaults(run=module.run)
    return parser
