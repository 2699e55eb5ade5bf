"""``collect``: takes photos of good parts into a folder that training reads as it is."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inspector import cameras
from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame
from inspector.cli.album import Album, PhotoMeasures, measure
from inspector.cli.arguments import box, count
from inspector.config.cameras import CameraConfig
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.config.station_file import load_station
from inspector.errors import CameraError, ConfigError, Fault, OutputError
from inspector.imaging.geometry import Box
from inspector.imaging.images import IMAGE_SUFFIXES, encode_jpeg, to_bgr8

FEWEST: Final = 10
GOOD_START: Final = 100

RETRY_S: Final = (1.0, 2.0, 4.0, 8.0)
"""Waits before a lost camera is opened again; after the last it stays lost."""
SETTLE_S: Final = 1.0
"""What a live camera gets to find its exposure before the first photo."""

_INTERVAL_MS: Final = 1000
_FALSE_REJECT: Final = 0.005
_HINT_AFTER: Final = 5
_MOST_OLD_FRAMES: Final = 5


@dataclass(frozen=True)
class Source:
    """What CAMERA names."""

    config: CameraConfig
    region: Box | None = None

    @property
    def is_live(self) -> bool:
        """It runs on while nobody looks; of others every frame counts."""
        return self.config.is_live


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
    """Collect photos until there are enough, the source ends, or Ctrl-C; 0.

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
        source.is_live and options.interval_ms is None and _stdin_is_terminal()
    )
    if options.manual and (sys.stdin is None or sys.stdin.closed):
        raise ConfigError("--manual: standard input is closed; use --interval-ms instead")
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with closing(cameras.create(source.config)) as camera:
        feed = _Feed(camera, source, console)
        try:
            first = feed.first()
            with closing(Album(out)) as album:
                region = _choose_region(options, source, album, first, console)
                session = _Session(feed, album, console, options.keep_all)
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


def find_source(text: str) -> Source:
    """What the CAMERA argument ``text`` names; it gives good parts, each once.

    Raises :class:`CameraError` for what is no camera, and what a station file raises.
    """
    if text == "simulator":
        simulator = SimulatorCamera(name="simulator", kind="simulator", rate_hz=0)
        return Source(simulator.for_collecting())
    station = re.fullmatch(r"(.+\.ya?ml)(?::(.*))?", text, re.IGNORECASE)
    if station:
        return _of_station(Path(station[1]), station[2] or "")
    path = Path(text)
    if text and path.is_dir():
        return Source(FolderCamera(name="folder", kind="folder", path=path))
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        raise CameraError(f"{text}: a single picture; name the folder it lies in")
    is_named = text.isdecimal() or text.startswith("/dev/") or "://" in text or "!" in text
    if not text or not (is_named or path.exists()):
        raise CameraError(
            f"'{text}': no such camera; give a device number (0), a video file, a URL "
            f"(rtsp://...), a folder of images, 'simulator', or station.yaml:NAME"
        )
    number_or_text = int(text) if text.isdecimal() else text
    config = OpenCvCamera(name="camera", kind="opencv", source=number_or_text)
    return Source(config.model_copy(update={"name": config.source_kind}))


def _of_station(path: Path, name: str) -> Source:
    station = load_station(path)
    named = {camera.name: camera for camera in station.cameras}
    if not name and len(named) > 1:
        raise ConfigError(
            f"{path}: has {len(named)} cameras ({', '.join(named)}); name one: "
            f"{path}:{next(iter(named))}"
        )
    name = name or next(iter(named))
    if name not in named:
        raise ConfigError(f"{path}: has no camera '{name}'; it has {', '.join(named)}")
    return Source(named[name].for_collecting(), station.active(name).region)


class _Feed:
    """A camera that is opened again when it was lost."""

    def __init__(self, camera: Camera, source: Source, console: Console) -> None:
        self.source = source
        self._camera = camera
        self._console = console
        self._is_open = False

    def first(self) -> Frame:
        """Open the camera and let it settle; its first readable frame. Raises CameraError."""
        self._camera.open()
        self._is_open = True
        settled_s = time.monotonic() + SETTLE_S
        while True:
            try:
                frame = self.grab()
            except BadFrameError as error:
                self._console.print(f"{error}: left out")
                continue
            if frame is None:
                raise CameraError(f"camera {self.source.config.name}: gave no picture")
            if not self.source.is_live or time.monotonic() > settled_s:
                return frame

    def grab(self, since_us: int = 0) -> Frame | None:
        """Next frame, of a live camera one grabbed after ``since_us``; None at the end.

        Raises BadFrameError, and CameraError when the camera stays lost.
        """
        who, timeout_ms = self.source.config.name, self.source.config.timeout_ms
        for number, wait_s in enumerate((*RETRY_S, None), 1):
            try:
                if not self._is_open:
                    self._camera.open()
                    self._is_open = True
                frame = self._camera.grab(timeout_ms)
                for _ in range(_MOST_OLD_FRAMES):
                    if frame is None or not self.source.is_live or frame.grabbed_us >= since_us:
                        break
                    frame = self._camera.grab(timeout_ms)
                return frame
            except (CameraLostError, CameraError) as error:
                self._camera.close()
                self._is_open = False
                if wait_s is None or not self.source.is_live:
                    raise CameraError(
                        f"camera {who}: lost: {error}; mend it, then run the same command again: "
                        f"it goes on where it stopped"
                    ) from None
                self._console.print(
                    f"camera {who}: lost: {error}; trying again in {wait_s:g} s "
                    f"({number} of {len(RETRY_S)})"
                )
                time.sleep(wait_s)
        raise AssertionError("the last round returns or raises")


class _Session:
    """Takes photos into an album and says what becomes of each."""

    def __init__(self, feed: _Feed, album: Album, console: Console, keep_all: bool) -> None:
        self._feed = feed
        self._album = album
        self._console = console
        self._keep_all = keep_all
        self._refused: Counter[str] = Counter()
        self._new = 0
        self._in_a_row = 0
        self._last_kinds: tuple[str, ...] = ()
        self._note = ""

    def load(self, region: Box | None) -> None:
        """Look at the photos that are there."""
        with self._bar() as bar:
            task = bar.add_task("looking at the photos there", total=None, note="")
            problems = self._album.load(
                region, lambda done, total: bar.update(task, completed=done, total=total)
            )
        for problem in problems:
            self._console.print(problem)

    def take(self, first: Frame | None, options: argparse.Namespace, manual: bool) -> None:
        """Fill the album; ``first`` is a frame that was grabbed already and counts."""
        is_live, count = self._feed.source.is_live, int(options.count)
        if options.interval_ms is not None and not is_live:
            self._console.print("--interval-ms is for live cameras: here every frame is looked at")
        interval_s = (options.interval_ms or _INTERVAL_MS) / 1000
        if len(self._album) >= count:
            self._console.print(f"there are {len(self._album)} already; a higher --count adds more")
            return
        if manual:
            self._console.print("Enter: take a photo; q and Enter: end")
        with self._bar(disable=manual) as bar:
            task = bar.add_task("photos", total=count, completed=len(self._album), note="")
            while len(self._album) < count:
                if manual and not _wait_for_enter():
                    return
                frame, first = first, None
                try:
                    if frame is None:
                        frame = self._feed.grab(time.time_ns() // 1000 if manual else 0)
                except BadFrameError as error:
                    self._refuse(error.part_id, ["unreadable"], str(error), always=True)
                    continue
                if frame is None:
                    self._console.print("the source has ended")
                    return
                self._consider(frame, manual)
                bar.update(task, completed=len(self._album), note=self._note)
                if is_live and not manual and len(self._album) < count:
                    time.sleep(interval_s)

    def sum_up(self) -> None:
        """Say what there is, what it is enough for, and how to train on it."""
        album = self._album
        for line in album.doubtful()[:10]:
            print(f"look again at {line}")
        refused = ", ".join(f"{number} {kind}" for kind, number in self._refused.most_common())
        total = f"; not kept: {refused}" if refused else ""
        print(f"{album.folder}: {len(album)} photos, {self._new} of them new{total}")
        print(enough(len(album)))
        if len(album) >= FEWEST:
            command = ["inspector-model", "train", str(album.folder), "-o", "run"]
            if album.region is not None:
                command += ["--region", _numbers(album.region)]
            print(shlex.join(command))

    def _consider(self, frame: Frame, manual: bool) -> None:
        try:
            measures = measure(frame.image, self._album.region)
        except Fault as fault:
            self._refuse(frame.part_id, ["unusable"], str(fault), always=True)
            return
        objections = self._album.judge(measures)
        text = "; ".join(objection.text for objection in objections)
        kinds = [objection.kind for objection in objections]
        # A recording that is gone through again brings every picture again.
        again = "already there" in kinds
        if again or (objections and not self._keep_all):
            # A part that lies still before a camera that runs on is no news every second.
            always = manual or not (again or self._feed.source.is_live)
            self._refuse(frame.part_id, kinds, text, always)
            return
        name = self._album.add(frame.image, measures)
        self._new += 1
        self._in_a_row, self._last_kinds = 0, ()
        self._note = _figures(measures)
        if objections:
            self._console.print(f"{_label(Path(name).stem, frame.part_id)}: {text}; kept")
        elif manual:
            self._console.print(f"{name}: kept, {len(self._album)} photos; {self._note}")

    def _refuse(self, part_id: str, kinds: Sequence[str], text: str, always: bool) -> None:
        self._refused[kinds[0]] += 1
        self._in_a_row += kinds[0] != "already there"
        self._note = f"{self._refused.total()} not kept"
        if always or tuple(kinds) != self._last_kinds:
            more = "" if always else " (further ones like it are only counted)"
            label = _label(self._album.next_name, part_id)
            self._console.print(f"{label}: {text}; not kept{more}")
        self._last_kinds = tuple(kinds)
        if self._in_a_row == _HINT_AFTER and kinds[0] != "already there" and not self._keep_all:
            self._console.print(
                f"{_HINT_AFTER} in a row were not kept; if they are good parts as the line makes "
                f"them, add --keep-all"
            )

    def _bar(self, disable: bool = False) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            disable=disable or not self._console.is_terminal,
        )


def enough(photos: int) -> str:
    """What ``photos`` good parts are enough for."""
    needed = math.ceil(3 / _FALSE_REJECT)
    if photos < FEWEST:
        return f"{photos} photos: too few, training needs {FEWEST}; {GOOD_START} are a good start"
    start = (
        "enough to train"
        if photos >= GOOD_START
        else f"enough to try training; {GOOD_START} are a good start"
    )
    rate = f"a limit for {100 * _FALSE_REJECT:g} % false rejects can be read directly from"
    if photos >= needed:
        return f"{photos} photos: {start}; {rate} them"
    return f"{photos} photos: {start}; {rate} {needed}, below that the tail is extrapolated"


def _choose_region(
    options: argparse.Namespace, source: Source, album: Album, first: Frame, console: Console
) -> Box | None:
    height, width = first.image.shape[:2]
    if options.pick:
        region = _pick(album, first, console)
    elif options.region is not None:
        region = options.region
        if region.x + region.w > width or region.y + region.h > height:
            raise ConfigError(
                f"--region {_numbers(region)}: reaches beyond the camera's {width}x{height} px"
            )
    else:
        region = album.remembered.region or source.region
    where = _numbers(region) if region else "the whole picture"
    console.print(f"camera {source.config.name}: {width}x{height} px, region: {where}")
    return region


def _pick(album: Album, first: Frame, console: Console) -> Box | None:
    try:
        picture = to_bgr8(first.image)
    except Fault as fault:
        raise CameraError(f"camera: {fault}") from None
    try:
        import tkinter

        from inspector.cli import picker
    except ImportError as error:
        why = f"Python's tkinter is not installed ({error})"
    else:
        try:
            window = picker.Window(picture)
        except tkinter.TclError as error:
            why = str(error)
        else:
            console.print("choose the region in the window")
            return window.run()
    height, width = picture.shape[:2]
    preview = album.write_preview(encode_jpeg(picture))
    shown = f"see {preview} ({width}x{height} px)"
    if not _stdin_is_terminal():
        raise ConfigError(f"--pick: no window: {why}; {shown} and give --region x,y,w,h instead")
    console.print(f"--pick: no window: {why}; {shown}")
    return _ask_for_numbers(width, height, console)


def _ask_for_numbers(width: int, height: int, console: Console) -> Box | None:
    while True:
        console.print("region x,y,w,h (Enter: the whole picture): ", end="")
        answer = sys.stdin.readline().strip()
        if not answer:
            return None
        try:
            region = box(answer)
        except argparse.ArgumentTypeError as error:
            console.print(str(error))
            continue
        if region.x + region.w <= width and region.y + region.h <= height:
            return region
        console.print(f"{answer} reaches beyond the picture's {width}x{height} px")


def _wait_for_enter() -> bool:
    """True for Enter, False for q and at the end of standard input."""
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() not in {"q", "quit"}


def _stdin_is_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _label(name: str, part_id: str) -> str:
    return f"{name} ({part_id})" if part_id else name


def _figures(measures: PhotoMeasures) -> str:
    return f"sharpness {measures.sharpness:.0f}, brightness {measures.brightness:.0f}"


def _numbers(region: Box) -> str:
    return f"{region.x},{region.y},{region.w},{region.h}"
