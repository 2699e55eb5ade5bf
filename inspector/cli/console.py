"""``console``: serve the operator's page."""

from __future__ import annotations

import argparse
from importlib import util
from pathlib import Path
from typing import Final

from inspector import logs
from inspector.cli.bridge import load_keys
from inspector.config.console_file import load_console
from inspector.errors import ConfigError
from inspector.version import install_command

_PACKAGES: Final = ("starlette", "uvicorn", "argon2", "itsdangerous")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``console``."""
    parser.add_argument("file", type=Path, metavar="FILE.yaml")
    parser.add_argument(
        "--stop-on-stdin-eof",
        action="store_true",
        help="stop when standard input ends (for programs that start a page)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve the page until SIGTERM or Ctrl-C; 0. Raises :class:`StartupError`."""
    config = load_console(options.file)
    keys = {name: load_keys(station) for name, station in config.stations.items()}
    require()
    from inspector.console import server

    logs.to_stderr()
    server.run(config, keys, stop_on_stdin_eof=options.stop_on_stdin_eof)
    return 0


def require() -> None:
    """Raise :class:`ConfigError` where a package is missing that the page needs."""
    for module in _PACKAGES:
        if util.find_spec(module) is None:
            raise ConfigError(
                f"console: needs {module}, which is not installed; run {install_command('console')}"
            )
