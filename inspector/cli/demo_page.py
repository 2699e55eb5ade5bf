"""The operator's page of ``demo``: a child process, without which the demo goes on as well."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import yaml

from inspector.cli import console
from inspector.errors import ConfigError

_START_S: Final = 15.0
_SOCKETS_S: Final = 3.0
_STOP_S: Final = 5.0


@contextlib.contextmanager
def page(
    station: str,
    log: Path,
    folder: Path,
    tell: Callable[[str], None],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[str]:
    """Serve the page of a station that runs, until the block ends; its address (URL).

    ``log`` is the station's, which names its sockets; ``tell`` hears the address. Where the page
    cannot be served, "" comes in place of the address, and ``tell`` hears why. Nothing is waited
    for while ``is_wanted`` is false.
    """
    try:
        console.require()
        sockets = _sockets(log)
    except ConfigError as error:
        tell(f"no page: {error}")
        yield ""
        return
    (folder / "console").mkdir()
    file, told = folder / "console.yaml", folder / "console.log"
    document = {
        "stations": {station: sockets},
        "listen": "127.0.0.1:0",
        "state": str(folder / "console"),
    }
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "-m", "inspector", "console", str(file), "--stop-on-stdin-eof"]
    with (
        told.open("wb") as errors,
        # Ctrl-C reaches only the demo, and however that ends, the page ends after it.
        subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as child,
    ):
        try:
            address = _address(child, told, is_wanted)
            if address:
                tell(f"the page for a browser: {address}")
            elif is_wanted():
                lines = told.read_text(encoding="utf-8").splitlines()
                tell(f"no page: {lines[-1] if lines else 'it did not start in time'}")
            yield address
        finally:
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _sockets(log: Path) -> dict[str, str]:
    """The addresses of a station's four sockets. Raises :class:`ConfigError`."""
    patterns = {
        "verdicts": r" listening verdicts=(\S+) ",
        "images": r" listening verdicts=\S+ images=(\S+)\n",
        "commands": r" commands address=(\S+)\n",
        "queries": r" queries address=(\S+)\n",
    }
    deadline = time.monotonic() + _SOCKETS_S
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
        sockets = {name: match[1] for name, match in found.items() if match}
        if len(sockets) == len(patterns):
            return sockets
        time.sleep(0.05)
    raise ConfigError("the station has no sockets for commands and queries")


def _address(child: subprocess.Popen[bytes], log: Path, is_wanted: Callable[[], bool]) -> str:
    """Where the page is, as its log says; "" when it has ended, or has not begun in time."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and child.poll() is None and is_wanted():
        if found := re.search(r" page=(\S+)", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.05)
    return ""
