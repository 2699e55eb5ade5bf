"""Where ``collect`` takes photos from: the camera that CAMERA names, opened again when lost."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from rich.console import Console

from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame
from inspector.cameras.opencv import turn_of
from inspector.cli.repeats import Repeats
from inspector.config.cameras import CameraConfig
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera, is_device
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.config.station_file import Station, load_station
from inspector.config.yaml_file import in_words
from inspector.errors import BundleError, CameraError, ConfigError, JournalError
from inspector.imaging.folders import find_parts, remarks
from inspector.imaging.geometry import Box
from inspector.imaging.images import IMAGE_SUFFIXES
from inspector.shown import masked, plain

RETRY_S: Final = (1.0, 2.0, 4.0, 8.0)
"""Waits before a lost camera is opened again; after the last one it stays lost."""
SETTLE_S: Final = 1.0
"""Time that a live camera gets to find its exposure before the first photo."""

UNREADABLE_S: Final = 10.0
"""Longest time that a live camera may give nothing but pictures that cannot be read."""

_STATION_FILE: Final = re.compile(r"(.+\.ya?ml)(?::(.*))?", re.IGNORECASE)
_MOST_OLD_FRAMES: Final = 5
"""Frames of a live camera that are thrown away while a later one is asked for."""


@dataclass(frozen=True)
class PhotoSource:
    """The camera that CAMERA names, and the region that its station judges.

    ``region_of`` says where the region, or that there is none, comes from.
    """

    config: CameraConfig
    region: Box | None = None
    region_of: str = ""

    @property
    def is_live(self) -> bool:
        """True when it runs on while nobody looks; of any other source every frame counts."""
        return self.config.is_live


def find_source(text: str) -> PhotoSource:
    """The source that the argument CAMERA names, set to give good parts only, and each once.

    Raises :class:`CameraError` when ``text`` names no camera, and :class:`ConfigError` or
    :class:`Problems` for a station file that is wrong.
    """
    station = _STATION_FILE.fullmatch(text)
    if station:
        return _of_station(Path(station[1]), station[2] or "")
    return PhotoSource(find_camera(text).for_collecting())


def find_camera(text: str) -> FolderCamera | OpenCvCamera | SimulatorCamera:
    """The camera that ``text`` names otherwise than by a station file, with the default settings.

    Raises :class:`CameraError`.
    """
    if text == "simulator":
        return SimulatorCamera(name="simulator", kind="simulator", rate_hz=0)
    path = Path(text)
    if text and path.is_dir():
        return FolderCamera(name="folder", kind="folder", path=path)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        raise CameraError(f"{text}: a single picture; name the folder it lies in")
    if path.suffix.lower() == ".onnx" and path.is_file():
        raise CameraError(f"{text}: a bundle, not a camera; name what gives the pictures")
    is_named = is_device(text) or "://" in text or "!" in text
    is_file = path.exists() and not _STATION_FILE.fullmatch(text)
    if not text or not (is_named or is_file):
        raise CameraError(
            f"'{masked(text)}': no such camera; give a device number (0), a video file, a URL "
            f"(rtsp://...), a folder of images, or 'simulator'"
        )
    number_or_text = int(text) if text.isdecimal() else text
    try:
        config = OpenCvCamera(name="camera", kind="opencv", source=number_or_text)
    except ValidationError as error:
        raise CameraError(f"'{masked(text)}': {in_words(error.errors()[0])}") from None
    return config.model_copy(update={"name": config.source_kind})


def camera_remarks(config: CameraConfig) -> list[str]:
    """What a person should know of a camera that is a folder or a video file, a line each.

    That is what is not read, and what is to be shown otherwise than it is stored.
    """
    if isinstance(config, FolderCamera):
        # What cannot be read is told by the camera.
        with contextlib.suppress(OSError):
            found, masks = find_parts(config.path)
            return remarks(config.path, found, masks)
    if isinstance(config, OpenCvCamera) and (degrees := turn_of(config)):
        return [
            f"the video says that it is to be shown turned by {degrees} degrees; its frames are "
            f"read as they are stored, as a camera would give them"
        ]
    return []


def _of_station(path: Path, name: str) -> PhotoSource:
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
    region, region_of = _region_of_station(station, name)
    return PhotoSource(named[name].for_collecting(), region, region_of)


def _region_of_station(station: Station, camera: str) -> tuple[Box | None, str]:
    """What ``station`` would judge of a picture of ``camera`` if it started now, and who says so.

    That is the region of the recipe in force, which a changeover may have put into the place of the
    file's, or else the region of its bundle, where that is there already: of the one that was
    installed by command, if it would judge.
    """
    # Only here, so that 'inspector collect --help' loads no ONNX.
    from inspector.detection import bundle
    from inspector.journal.reader import Reader
    from inspector.station.recipes import choose, with_bundles

    before, installed = None, []
    with contextlib.suppress(JournalError), Reader(station.state_folder) as reader:
        before = reader.in_force(station.station)
        installed = reader.bundles()
    name = choose(station, before).recipe
    station, _ = with_bundles(station, installed)
    recipe = station.recipes[name][camera]
    if recipe.region is not None:
        return recipe.region, f"from recipe '{name}'"
    try:
        region = bundle.read(recipe.bundle).manifest.geometry.region
    except BundleError:
        return None, f"recipe '{name}' names none, and {recipe.bundle} cannot be read"
    if station.is_installed(name, camera):
        return region, f"from the bundle that was installed for recipe '{name}'"
    return region, f"from the bundle of recipe '{name}'"


class ReconnectingCamera:
    """A camera that is opened again when it is lost, and says so on ``console``."""

    def __init__(self, camera: Camera, source: PhotoSource, console: Console) -> None:
        self.source = source
        self._camera = camera
        self._console = console
        self._is_open = False

    def first(self) -> Frame:
        """Open the camera and let it settle; its first readable frame.

        Raises CameraError, also when no picture can be read for ten seconds.
        """
        self._camera.open()
        self._is_open = True
        settled_s = time.monotonic() + SETTLE_S
        with Repeats(self._console.print) as remarks:
            return self._first(settled_s, remarks)

    def _first(self, settled_s: float, remarks: Repeats) -> Frame:
        while True:
            try:
                frame = self.grab()
            except BadFrameError as error:
                if self.source.is_live and time.monotonic() > settled_s + UNREADABLE_S:
                    raise CameraError(
                        f"camera {self.source.config.name}: gives no picture that can be read: "
                        f"{error}; check its cable, or choose another format in its settings"
                    ) from None
                remarks.tell("pictures that cannot be read", plain(f"{error}: left out"))
                continue
            if frame is None:
                raise CameraError(f"camera {self.source.config.name}: gave no picture")
            if not self.source.is_live or time.monotonic() > settled_s:
                return frame

    def grab(self, since_us: int = 0) -> Frame | None:
        """The next frame, from a live camera one grabbed after ``since_us``; None at the end.

        ``since_us`` is in µs since the Unix epoch. Raises :class:`BadFrameError`, and
        :class:`CameraError` when the camera stays lost.
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
                    plain(
                        f"camera {who}: lost: {error}; trying again in {wait_s:g} s "
                        f"({number} of {len(RETRY_S)})"
                    )
                )
                time.sleep(wait_s)
        raise AssertionError("the last round returns or raises")
