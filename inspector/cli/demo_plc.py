"""``demo-plc``: a station, a bridge and a simulated PLC, to see what the handshake does."""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from inspector.cli.arguments import count
from inspector.cli.bridge import require
from inspector.cli.examples import examples_folder
from inspector.cli.output import Screen
from inspector.cli.simulate_plc import connect, report, watch
from inspector.config.bridge_file import ModbusBridge, load_bridge
from inspector.config.station_file import load_station
from inspector.errors import WireError
from inspector.interrupt import Interrupt
from inspector.streams import complain
from inspector.tables import print_next

_START_S: Final = 120.0
_STOP_S: Final = 15.0
_EVERY_S: Final = 0.4
_TIMEOUT_S: Final = 2.0
_CAMERA: Final = "belt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``demo-plc``."""
    parser.add_argument("--parts", type=count, default=20, metavar="N", help="[%(default)s]")


def run(options: argparse.Namespace) -> int:
    """Send parts past a simulated camera by a simulated PLC; 0.

    Raises :class:`WireError` when station or bridge do not start, or a part got no result.
    """
    require("demo-plc", "modbus")
    with tempfile.TemporaryDirectory(prefix="inspector-demo-plc-") as name, Interrupt() as stop:
        folder = Path(name)
        with _child(["run", str(_station_file(folder))], folder / "station.log") as station:
            commands = _wait(station, folder / "station.log", r" commands address=(\S+)\n")
            config = _bridge_file(folder, commands)
            command = ["bridge", "modbus", str(folder / "bridge.yaml")]
            with _child(command, folder / "bridge.log") as bridge:
                found = _wait(bridge, folder / "bridge.log", r" listening modbus=\S+:(\d+)\n")
                plc = connect(config, _CAMERA, _TIMEOUT_S, int(found))
                try:
                    with Screen() as screen:
                        parts = plc.run(options.parts, _EVERY_S, stop=lambda: stop.requested)
                        seen = watch(parts, screen)
                finally:
                    plc.close()
    report(plc, seen)
    lost = sum(part.verdict == 0 for part in seen)
    if lost and not stop.requested:
        raise WireError(f"{lost} parts got no result")
    print(
        "for your own station: copy the examples into a folder of yours, as below; name cameras "
        "and recipes in its bridge-modbus.yaml, try that with 'inspector check', and start it with "
        "'inspector bridge modbus' (docs/plc/commissioning.md)"
    )
    print_next("inspector", "examples", "my-line")
    return 0


def _station_file(folder: Path) -> Path:
    """The station of the demo, which waits for triggers, on free ports."""
    station = load_station(examples_folder() / "demo.yaml")
    document: dict[str, Any] = station.model_dump(mode="json")
    document["cameras"][0] |= {"trigger": "software", "rate_hz": 0}
    document["sockets"] = dict.fromkeys(
        ("verdicts", "images", "commands", "queries"), "tcp://127.0.0.1:*"
    )
    document["journal"]["folder"] = str(folder / "journal")
    path = folder / "station.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _bridge_file(folder: Path, commands: str) -> ModbusBridge:
    document = {
        "bridge": "modbus",
        "station": {"commands": commands},
        "listen": "127.0.0.1:0",
        "cameras": [_CAMERA],
        "recipes": {1: "flange"},
        "result_timeout_ms": 1500,
    }
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_bridge(path)


@contextlib.contextmanager
def _child(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command of the product as a child, which is stopped when the block ends.

    It has a session of its own, so that Ctrl-C reaches only this process.
    """
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "inspector", *arguments], stderr=errors, start_new_session=True
        ) as child,
    ):
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _wait(child: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """What the child's log says of its address. Raises :class:`WireError`."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        said = log.read_text(encoding="utf-8")
        if found := re.search(pattern, said):
            return found[1]
        if ended:
            complain(said)
            break
        time.sleep(0.05)
    raise WireError(f"{log.stem}: did not start")
