"""A folder of photos as a camera: replayed in the order of their paths."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inspector.cameras.base import BadFrameError, Frame
from inspector.cameras.pace import Pace, Place, now_us
from inspector.config.cameras.folder import FolderCamera
from inspector.errors import CameraError
from inspector.imaging.folders import find_parts
from inspector.imaging.images import IMAGE_SUFFIXES, read_image
from inspector.shown import masked


class Folder:
    """Images under a folder; each is a part, named by its path below it (docs/cameras.md)."""

    def __init__(self, config: FolderCamera, memory: npt.NDArray[np.int64] | None = None) -> None:
        self._config = config
        self._pace = Pace(config.name, config.rate_hz, config.timeout_ms)
        self._files: list[Path] = []
        self._place = Place(memory)

    def open(self) -> None:
        """List the folder, to begin with its first image or where the camera was cut off.

        Raises CameraError when it is missing or has no image.
        """
        self._files = list_images(self._config.path, self._config.name)
        self._place.open()
        self._pace.start()

    def grab(self, timeout_ms: int) -> Frame | None:
        """Next image when it is due; None after the last. Raises :class:`BadFrameError`."""
        if self._place.next >= len(self._files) and self._config.loop:
            self._place.rewind()
        if self._place.next >= len(self._files) or not self._pace.wait(timeout_ms):
            return None
        exposed_ns = time.monotonic_ns()
        path = self._files[self._place.take()]
        part_id = path.relative_to(self._config.path).as_posix()
        try:
            image = read_image(path)
        except ValueError as error:
            raise BadFrameError(part_id, str(error), exposed_ns) from None
        return Frame(image, now_us(), part_id, exposed_ns)

    def interrupt(self) -> None:
        """Make a waiting ``grab`` return None."""
        self._pace.interrupt()

    def close(self) -> None:
        """Forget the listing."""
        self._files = []
        self._pace.reset()


def list_images(root: Path, camera: str) -> list[Path]:
    """The images of parts under ``root``, sorted by path; no masks beside them.

    Raises CameraError when there is none.
    """
    who, where = f"camera {camera}", masked(str(root))
    cure = (
        "('path' in a station file), or write the station file of your own camera or photos with "
        "'inspector init station.yaml --camera ...'"
    )
    try:
        if not root.is_dir():
            raise CameraError(f"{who}: {where}: no such folder; name one that is there {cure}")
        found, _ = find_parts(root)
    except OSError as error:
        raise CameraError(
            f"{who}: {masked(str(error.filename or root))}: {error.strerror}; give this user the "
            f"right to read it"
        ) from None
    if not found:
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        raise CameraError(
            f"{who}: {where}: holds no image ({kinds}); name one that has some {cure}"
        )
    return found
