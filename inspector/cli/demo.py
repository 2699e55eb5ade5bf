"""``demo``: run a station on a simulated conveyor and watch it, to see what it does."""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import yaml

from inspector.cameras.simulated import conveyor as simulator
from inspector.cli import demo_page
from inspector.cli.arguments import count
from inspector.cli.examples import examples_folder
from inspector.cli.output import Lines, Screen, save_heatmap, write_picture
from inspector.client import Gap, Heatmap, Subscriber
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.config.station_file import Sockets, Station, load_station
from inspector.errors import WireError
from inspector.imaging.heatmaps import contact_sheet
from inspector.imaging.images import encode_png
from inspector.streams import complain
from inspector.tables import numbers, print_next, show, table
from inspector.verdict import Frame8, Verdict
from inspector.wire.messages import StatusMessage, VerdictMessage

_START_S: Final = 120.0
_STOP_S: Final = 15.0
_SUBSCRIBE_S: Final = 15
_PICTURES_GRACE_MS: Final = 500
_MOST_SAVED: Final = 200
_MOST_TILES: Final = 40
_GOOD_SAVED: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``demo``."""
    parser.add_argument(
        "station",
        type=Path,
        nargs="?",
        default=examples_folder() / "demo.yaml",
        metavar="STATION.yaml",
        help="another station than the demo's own",
    )
    parser.add_argument("--parts", type=count, metavar="N", help="end after N parts")
    parser.add_argument("--save", type=Path, default=Path("demo-output"), metavar="DIR")
    parser.add_argument(
        "--no-console", action="store_true", help="do not serve the operator's page beside it"
    )


def run(options: argparse.Namespace) -> int:
    """Run a station in a child process, and watch it until its parts are judged or Ctrl-C.

    Returns 0, or the child's exit code. Raises :class:`ConfigError`, :class:`OutputError`, and
    :class:`WireError` when a verdict did not arrive.
    """
    parts, save = options.parts, options.save
    address = ""
    station = load_station(options.station)
    seen = _DemoReport(station)
    with tempfile.TemporaryDirectory(prefix="inspector-demo-") as folder:
        log = Path(folder) / "log"
        with _station(_isolated(station, parts, Path(folder)), Path(folder), log) as child:
            addresses = _addresses(child, log)
            if addresses is not None:
                with (
                    Screen() as screen,
                    Subscriber(*addresses, from_start=True) as subscriber,
                    contextlib.nullcontext("")
                    if options.no_console
                    else demo_page.page(
                        station.station,
                        log,
                        Path(folder),
                        screen.print,
                        is_wanted=lambda: child.poll() is None,
                    ) as address,
                ):
                    _watch(subscriber, child, seen, Lines(screen, with_truth=True), save)
        if child.returncode != 0:
            _relay(log)
            return child.returncode if child.returncode > 0 else 1
    seen.report(save)
    expected = 0 if parts is None or seen.stopped else parts * len(seen.simulators)
    missing = max(seen.lost, expected - seen.count)
    if missing > 0:
        raise WireError(f"{missing} verdicts did not arrive")
    if address:
        print(
            f"the page was at {address}; 'inspector console FILE.yaml' serves it for your station"
        )
    print("to teach it your own part, take photos of good ones; 0 is the first camera")
    print_next("inspector", "collect", "0", "-o", "photos", "--pick")
    return 0


class _DemoReport:
    """The verdicts that came, against what the parts on the simulated belt really were."""

    def __init__(self, station: Station) -> None:
        self.simulators = {
            camera.name: camera for camera in station.cameras if isinstance(camera, SimulatorCamera)
        }
        self.count = self.lost = 0
        self.stopped = False
        self.tiles: list[tuple[str, Frame8]] = []
        self._table: collections.Counter[tuple[str, Verdict]] = collections.Counter()
        self._latencies_ms: collections.deque[float] = collections.deque(maxlen=10_000)
        self._saved: collections.Counter[bool] = collections.Counter()
        self._first_us = self._last_us = 0

    def truth(self, camera: str, part_id: str) -> str:
        """Whether the part is ``good``, else its kind of defect; "" for a real camera's part."""
        config = self.simulators.get(camera)
        if config is None or not part_id:
            return ""
        return simulator.truth(part_id, config.seed, config.defect_rate)

    def add(self, message: VerdictMessage) -> str:
        """Count a verdict; returns the part's truth, with a remark if the verdict is wrong."""
        truth = self.truth(message.camera, message.part_id)
        self.count += 1
        self._table[truth, message.verdict] += 1
        if message.judge_ms is not None:
            self._latencies_ms.append((message.queue_ms or 0.0) + message.judge_ms)
        self._first_us = self._first_us or message.judged_us
        self._last_us = message.judged_us
        if truth == simulator.GOOD and message.verdict is Verdict.FAIL:
            return f"{truth}  (false reject)"
        if truth not in {"", simulator.GOOD} and message.verdict is Verdict.PASS:
            return f"{truth}  (escape)"
        return truth

    def keep(self, heatmap: Heatmap, folder: Path) -> None:
        """Save the pictures of parts that did not pass, and of a few that did."""
        message = heatmap.message
        passed = message.verdict is Verdict.PASS
        self._saved[passed] += 1
        if self._saved[passed] > (_GOOD_SAVED if passed else _MOST_SAVED):
            return
        picture = save_heatmap(folder, heatmap)
        if len(self.tiles) < _MOST_TILES:
            score = "-" if message.score is None else f"{message.score:.2f}"
            truth = self.truth(message.camera, message.part_id)
            self.tiles.append((f"{message.verdict.value} {score} {truth}", picture))

    def report(self, folder: Path) -> None:
        """Print the table of truth against verdict, the latency, and where the pictures are."""
        if not self.count:
            print("No part came.")
            return
        against = table("truth", *(numbers(verdict.value) for verdict in Verdict))
        kinds = {truth for truth, _ in self._table}
        for kind in sorted(kinds, key=lambda truth: (truth != simulator.GOOD, truth)):
            against.add_row(kind or "unknown", *(str(self._table[kind, v]) for v in Verdict))
        show(against, "truth against verdict")
        good = sum(self._table[simulator.GOOD, verdict] for verdict in Verdict)
        bad = sum(n for (truth, _), n in self._table.items() if truth not in {"", simulator.GOOD})
        escapes = sum(
            n
            for (truth, verdict), n in self._table.items()
            if verdict is Verdict.PASS and truth not in {"", simulator.GOOD}
        )
        faults = sum(n for (_, verdict), n in self._table.items() if verdict is Verdict.FAULT)
        print(
            f"{self.count} parts, {self.lost} verdicts lost; "
            f"false rejects {self._table[simulator.GOOD, Verdict.FAIL]} of {good} good, "
            f"escapes {escapes} of {bad} defective, faults {faults}"
        )
        if self._latencies_ms:
            median, p99 = np.percentile(np.asarray(self._latencies_ms), [50, 99])
            seconds = (self._last_us - self._first_us) / 1e6
            rate = f", {(self.count - 1) / seconds:.1f} parts/s" if seconds > 0 else ""
            print(
                f"from picture to verdict: {median:.0f} ms as a rule (median), {p99:.0f} ms in the "
                f"slowest of 100 (p99){rate}"
            )
        if self.tiles:
            write_picture(folder / "heatmaps.png", encode_png(contact_sheet(self.tiles)))
            print(
                f"heatmaps of the parts that did not pass and of {_GOOD_SAVED} that did: "
                f"{folder / 'heatmaps.png'}, and one by one beside it"
            )


def _isolated(station: Station, parts: int | None, folder: Path) -> Station:
    """The station on free ports and with a journal in ``folder``, to disturb no other station.

    ``parts``: after so many each simulated belt is empty; None leaves it as it is.
    """
    cameras = tuple(
        camera.model_copy(update={"parts": parts})
        if parts is not None and isinstance(camera, SimulatorCamera)
        else camera
        for camera in station.cameras
    )
    free = "tcp://127.0.0.1:*"
    return station.model_copy(
        update={
            "cameras": cameras,
            "sockets": Sockets(verdicts=free, images=free, commands=free, queries=free),
            "journal": station.journal.model_copy(update={"folder": folder / "journal"}),
        }
    )


@contextlib.contextmanager
def _station(station: Station, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as a child, which is stopped when the block ends; it writes its log to ``log``.

    It has a session of its own, so that Ctrl-C reaches only this process. However this process
    ends, the daemon's standard input ends with it, and the daemon stops.
    """
    file = folder / "station.yaml"
    file.write_text(yaml.safe_dump(station.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "inspector", "run", str(file)]
    command += ["--stop-on-stdin-eof", "--wait-for-subscriber", str(_SUBSCRIBE_S)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as child,
    ):
        try:
            yield child
            # A station that has halted still has to close its journal.
            _wait(child, _STOP_S)
        finally:
            if child.poll() is None:
                child.terminate()
                if not _wait(child, _STOP_S):
                    child.kill()


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout_s)
    return child.poll() is not None


def _relay(log: Path) -> None:
    """Print why the daemon ended on standard error: its error lines, or all of its log."""
    lines = log.read_text(encoding="utf-8").splitlines()
    errors = [line for line in lines if line.startswith("inspector: error: ")]
    complain("\n".join(errors or lines))


def _addresses(child: subprocess.Popen[bytes], log: Path) -> tuple[str, str] | None:
    """Addresses of verdicts and images, from the daemon's log; None when it ended instead.

    Raises :class:`WireError` when it does neither in time.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        found = re.search(
            r" listening verdicts=(\S+) images=(\S+)\n", log.read_text(encoding="utf-8")
        )
        if found and not ended:
            return found[1], found[2]
        if ended:
            return None
        time.sleep(0.05)
    raise WireError(f"the station did not start within {_START_S:.0f} s")


def _watch(
    subscriber: Subscriber,
    child: subprocess.Popen[bytes],
    seen: _DemoReport,
    lines: Lines,
    save: Path,
) -> None:
    """Receive until the station has halted and its last pictures have come.

    SIGINT, SIGTERM or a closed terminal stop the station; the second of them kills it.
    """

    def on_signal(_number: int, _frame: object) -> None:
        if seen.stopped:
            child.kill()
        else:
            child.terminate()
        seen.stopped = True

    before = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
    }
    halted = False
    try:
        while True:
            item = subscriber.receive(_PICTURES_GRACE_MS)
            if item is None and (halted or child.poll() is not None):
                return
            if isinstance(item, VerdictMessage):
                lines.verdict(item, seen.add(item))
            elif isinstance(item, Heatmap):
                seen.keep(item, save)
            elif isinstance(item, Gap):
                seen.lost += item.count
                lines.gap(item)
            elif isinstance(item, StatusMessage):
                lines.status(item)
                halted = item.state == "Halted"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
