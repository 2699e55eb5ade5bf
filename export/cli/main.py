"""The ``inspector-model`` command: which sub-commands there are, and what their errors end with."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from inspector import __version__
from inspector.errors import InspectorError, Problems
from inspector.shown import Parser, complaint
from inspector.streams import until_unread
from inspector.version import install_command

COMMANDS: Final = {
    "collect": "take photos of good parts (docs/collect.md)",
    "train": "learn a model from photos of good parts",
    "calibrate": "set the limit for another share of false rejects, without training",
    "evaluate": "judge the test photos; figures and a report",
    "compare": "figures of several runs side by side, and the settings that differ",
    "export": "write the bundle, once it judges as the trained model does",
    "extend": "teach in good parts that were rejected, without training (docs/teach-in.md)",
    "show": "print what a bundle holds and how it was made",
}
"""Name and help of each sub-command; its module has the same name."""
INTERRUPTED: Final = 130
UNREAD: Final = 141
WITHOUT_TORCH: Final = 3
TRAINING_PACKAGES: Final = {
    *("torch", "torchvision", "sklearn", "scipy", "matplotlib", "jinja2", "PIL"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, as :mod:`inspector.errors` lists them.

    141, as a shell says it of others, where the reader of the output ended before the command did.
    """
    words = sys.argv[1:] if argv is None else argv
    return until_unread(lambda: _run(words), cut_short=UNREAD)


def _run(argv: Sequence[str]) -> int:
    options: argparse.Namespace | None = None
    try:
        # Loading a command takes seconds on a slow machine, and Ctrl-C may come then.
        options = _parser(argv).parse_args(argv)
        return int(options.run(options))
    except InspectorError as error:
        problems = error.problems if isinstance(error, Problems) else [error]
        for problem in problems:
            print(f"inspector-model: error: {complaint(str(problem), argv)}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if options is None or error.name not in TRAINING_PACKAGES:
            raise
        print(
            f"inspector-model: error: {options.command} needs {error.name}, which a station does "
            f"not have; run {install_command('train')}, or 'make train-tools' in a checkout",
            file=sys.stderr,
        )
        return WITHOUT_TORCH
    except KeyboardInterrupt:
        hint = ""
        if options is not None and options.command == "train":
            hint = "; go on with --resume" if (options.output / "run.json").exists() else ""
        print(f"inspector-model: interrupted{hint}", file=sys.stderr)
        return INTERRUPTED


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="inspector-model",
        words=argv,
        description="Photos of good parts in, one verified ONNX bundle out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in argv if not word.startswith("-")), "")
    for name, explained in COMMANDS.items():
        # An abbreviated option of one release could mean another in the next.
        made = commands.add_parser(name, help=explained, allow_abbrev=False, words=argv)
        # Only the command asked for is imported, so that '--help' waits for nothing.
        if name == asked:
            command = importlib.import_module(f"export.cli.{name}")
            command.add_arguments(made)
            made.set_defaults(run=command.run)
    return parser
