"""``collect``: take photos of good parts into a folder that training reads as it is."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from inspector import cameras
from inspector.cameras.base import BadFrameError, Frame
from inspector.cli.arguments import box, count
from inspector.cli.photo_source import ReconnectingCamera, camera_remarks, find_source
from inspector.cli.region import as_argument, choose_region, stdin_is_terminal
from inspector.cli.repeats import Repeats
from inspector.config.cameras.folder import FolderCamera
from inspector.errors import ConfigError, Fault, OutputError
from inspector.imaging.geometry import Box
from inspector.interrupt import Interrupt
from inspector.photos.album import Album
from inspector.photos.checks import PhotoMeasures, measure
from inspector.progress import QUICK_S, Bars
from inspector.shown import plain
from inspector.tables import Terminal, print_next

FEWEST: Final = 10
"""With fewer photos training refuses to start."""
GOOD_START: Final = 100
"""So many photos are taken unless the user says otherwise."""

_INTERVAL_MS: Final = 1000
_FEWEST_REJECTS: Final = 200
"""Training lets 1 good part in so many be rejected; with fewer photos, 1 in their number."""
_HINT_AFTER: Final = 5
"""After so many refused photos in a row the user is told of ``--keep-all``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``collect``, the same in ``inspector`` and ``inspector-model``."""
    parser.add_argument(
        "camera",
        metavar="CAMERA",
        help="device number (0), video file, rtsp:// or http:// URL, folder of images, simulator, "
        "station.yaml or station.yaml:NAME",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the photos"
    )
    parser.add_argument(
        "--count",
        type=count,
        default=GOOD_START,
        metavar="N",
        help="photos that DIR shall hold [%(default)s]",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--interval-ms",
        type=count,
        metavar="MS",
        help=f"a photo by itself every MS, from a live camera [{_INTERVAL_MS}]",
    )
    pace.add_argument(
        "--manual",
        action="store_true",
        help="Enter takes a photo (a live camera's default in a terminal)",
    )
    region = parser.add_mutually_exclusive_group()
    region.add_argument(
        "--region", type=box, metavar="X,Y,W,H", help="part of the picture to judge, camera pixels"
    )
    region.add_argument("--pick", action="store_true", help="choose the region with the mouse")
    parser.add_argument(
        "--keep-all", action="store_true", help="warn, but keep blurred, badly lit and equal photos"
    )


def run(options: argparse.Namespace) -> int:
    """Collect photos until there are enough, the source ends, or the user stops it; 0.

    Raises :class:`CameraError`, :class:`ConfigError` and :class:`OutputError`.
    """
    source = find_source(options.camera)
    out: Path = options.output
    if isinstance(source.config, FolderCamera):
        theirs, ours = source.config.path.resolve(), out.resolve()
        if ours == theirs or theirs in ours.parents:
            raise OutputError(
                f"{out}: lies in {theirs}, which is the camera; choose another folder"
            )
    manual = options.manual or (
        source.is_live and options.interval_ms is None and stdin_is_terminal()
    )
    if options.manual and (sys.stdin is None or sys.stdin.closed):
        raise ConfigError("--manual: standard input is closed; use --interval-ms instead")
    console = Terminal(stderr=True, highlight=False, soft_wrap=True, markup=False)
    for remark in camera_remarks(source.config):
        console.print(plain(remark))
    with closing(cameras.create(source.config)) as camera:
        reconnecting = ReconnectingCamera(camera, source, console)
        try:
            first = reconnecting.first()
            with closing(Album(out)) as album:
                region = choose_region(options, source, album, first, console)
                session = _Session(reconnecting, album, console, options.keep_all)
                session.load(region)
                try:
                    session.take(None if source.is_live else first, options, manual)
                except KeyboardInterrupt:
                    console.print("stopped")
                finally:
                    session.sum_up()
        except KeyboardInterrupt:
            console.print("stopped before the first photo")
    return 0


class _Session:
    """Takes photos into an album and tells of each whether it was kept, and why not."""

    def __init__(
        self, camera: ReconnectingCamera, album: Album, console: Console, keep_all: bool
    ) -> None:
        self._camera = camera
        self._album = album
        self._console = console
        self._keep_all = keep_all
        self._refused: Counter[str] = Counter()
        self._new = 0
        self._in_a_row = 0
        self._note = ""
        put: Callable[[str], None] = console.print
        # While one part lies before a live camera, each frame would repeat the same line.
        self._remarks = Repeats(put, 1 if camera.source.is_live else 3)

    def load(self, region: Box | None) -> None:
        """Measure the photos that are in the album already."""
        with self._bar() as bar:
            task = bar.add_task("looking at the photos there", total=None, note="")
            problems = self._album.load(
                region, lambda done, total: bar.update(task, completed=done, total=total)
            )
        for problem in problems:
            self._console.print(plain(problem))

    def take(self, first: Frame | None, options: argparse.Namespace, manual: bool) -> None:
        """Fill the album up to ``--count``; ``first`` is a frame that was grabbed before."""
        is_live, count = self._camera.source.is_live, int(options.count)
        if options.interval_ms is not None and not is_live:
            self._console.print("--interval-ms is for live cameras: here every frame is looked at")
        interval_s = (options.interval_ms or _INTERVAL_MS) / 1000
        if len(self._album) >= count:
            self._console.print(f"there are {len(self._album)} already; a higher --count adds more")
            return
        if manual:
            self._console.print("Enter: take a photo; q and Enter: end")
        # Reading a line goes on after a signal unless that raises.
        by_itself = contextlib.nullcontext(Interrupt()) if manual else Interrupt()
        with by_itself as interrupt, self._bar(silent=manual) as bar:
            task = bar.add_task("photos", total=count, completed=len(self._album), note="")
            while len(self._album) < count:
                if manual and not _wait_for_enter():
                    return
                if interrupt.requested:
                    self._console.print("stopped")
                    return
                frame, first = first, None
                try:
                    if frame is None:
                        frame = self._camera.grab(time.time_ns() // 1000 if manual else 0)
                except BadFrameError as error:
                    self._refuse(error.part_id, ["unreadable"], str(error), manual)
                    continue
                if frame is None:
                    self._console.print("the source has ended")
                    return
                self._consider(frame, manual)
                bar.update(task, completed=len(self._album), note=self._note)
                if is_live and not manual and len(self._album) < count:
                    interrupt.wait(interval_s)

    def sum_up(self) -> None:
        """Print what the album holds, what that is enough for, and the command to train on it."""
        album = self._album
        self._remarks.close()
        for line in album.doubtful()[:10]:
            print(plain(f"look again at {line}"))
        refused = ", ".join(f"{number} {kind}" for kind, number in self._refused.most_common())
        total = f"; not kept: {refused}" if refused else ""
        print(f"{album.folder}: {len(album)} photos, {self._new} of them new{total}")
        print(enough(len(album)))
        if len(album) >= FEWEST:
            region = ["--region", as_argument(album.region)] if album.region is not None else []
            print_next("inspector-model", "train", album.folder, "-o", "run", *region)

    def _consider(self, frame: Frame, manual: bool) -> None:
        try:
            measures = measure(frame.image, self._album.region)
        except Fault as fault:
            self._refuse(frame.part_id, ["unusable"], str(fault), manual)
            return
        objections = self._album.judge(measures)
        text = "; ".join(objection.text for objection in objections)
        kinds = [objection.kind for objection in objections]
        # A recording that is collected from a second time brings every picture again, so that not
        # even --keep-all keeps these.
        again = "already there" in kinds
        if again or (objections and not self._keep_all):
            self._refuse(frame.part_id, kinds, text, manual)
            return
        name = self._album.add(frame.image, measures)
        self._new += 1
        self._in_a_row = 0
        self._note = _figures(measures)
        if objections:
            line = plain(f"{_label(Path(name).stem, frame.part_id)}: {text}; kept")
            self._say(f"{', '.join(kinds)}; kept", line, manual)
        elif manual:
            self._console.print(f"{name}: kept, {len(self._album)} photos; {self._note}")

    def _refuse(self, part_id: str, kinds: Sequence[str], text: str, manual: bool) -> None:
        self._refused[kinds[0]] += 1
        self._in_a_row += kinds[0] != "already there"
        self._note = f"{self._refused.total()} not kept"
        label = _label(self._album.next_name, part_id)
        self._say(f"{', '.join(kinds)}; not kept", plain(f"{label}: {text}; not kept"), manual)
        if self._in_a_row == _HINT_AFTER and kinds[0] != "already there" and not self._keep_all:
            self._console.print(
                f"{_HINT_AFTER} in a row were not kept; if they are good parts as the line makes "
                f"them, add --keep-all"
            )

    def _say(self, kind: str, line: str, manual: bool) -> None:
        """Print a remark on a photo; who takes each by hand is told of each."""
        most = sys.maxsize if manual else 1 if kind.startswith("already there") else None
        self._remarks.tell(kind, line, most)

    def _bar(self, silent: bool = False) -> Bars:
        return Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            quick_s=QUICK_S,
            silent=silent,
        )


def enough(photos: int) -> str:
    """What ``photos`` good parts are enough for."""
    if photos < FEWEST:
        return f"{photos} photos: too few, training needs {FEWEST}; {GOOD_START} are a good start"
    start = (
        "enough to train"
        if photos >= GOOD_START
        else f"enough to try training; {GOOD_START} are a good start"
    )
    rate = f"about 1 good part in {min(photos, _FEWEST_REJECTS)} may be rejected"
    more = f", 1 in {_FEWEST_REJECTS} with {_FEWEST_REJECTS} photos or more"
    return f"{photos} photos: {start}; {rate}{more if photos < _FEWEST_REJECTS else ''}"


def _wait_for_enter() -> bool:
    """True for Enter, False for q and at the end of standard input."""
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() not in {"q", "quit"}


def _label(name: str, part_id: str) -> str:
    return f"{name} ({part_id})" if part_id else name


def _figures(measures: PhotoMeasures) -> str:
    return f"sharpness {measures.sharpness:.0f}, brightness {measures.brightness:.0f}"
