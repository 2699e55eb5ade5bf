"""Which bundles were installed by command, and what the next install or step back makes of them.

Pure: nothing here is loaded, written or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from inspector.config.station_file import Station
from inspector.journal.schema import BundleInForce
from inspector.wire.messages import InstallCommand, RevertCommand


class Installs:
    """The bundles in force that were installed by command, by recipe and camera.

    ``station`` is as its file has it; ``found`` is all that its journal names.
    """

    def __init__(self, station: Station, found: Iterable[BundleInForce]) -> None:
        self._station = station
        self._found: dict[tuple[str, str], BundleInForce] = {}
        self._others: list[BundleInForce] = []
        """Of recipes and cameras that are no more, and of a station of another name."""
        for one in found:
            is_ours = one.station == station.station
            if is_ours and one.camera in station.recipes.get(one.recipe, {}):
                self._found[one.recipe, one.camera] = one
            else:
                self._others.append(one)
        self._undo: tuple[BundleInForce, BundleInForce] | None = None

    def now(self, recipe: str, camera: str) -> BundleInForce:
        """What is in force; ``sha256`` is "" for the station file's own bundle.

        Raises KeyError for a recipe or camera that the station file does not have.
        """
        of_file = str(self._station.recipes[recipe][camera].bundle)
        own = BundleInForce(self._station.station, recipe, camera, "", "", of_file)
        return self._found.get((recipe, camera), own)

    def after(self, command: InstallCommand | RevertCommand) -> BundleInForce:
        """What is in force once ``command`` is done. Raises KeyError as :meth:`now`."""
        now = self.now(command.recipe, command.camera)
        if isinstance(command, InstallCommand):
            return replace(now, sha256=command.sha256, before=now.sha256)
        return replace(now, sha256=now.before, before="")

    def path(self, one: BundleInForce) -> Path:
        """Where its bundle lies."""
        return self._station.installed(one.sha256) if one.sha256 else Path(one.of_file)

    def take(self, new: BundleInForce, *, on_probation: bool) -> None:
        """``new`` is in force; ``on_probation``: its judge may fail, and it be taken back."""
        if on_probation:
            self._undo = new, self.now(new.recipe, new.camera)
        self._found[new.recipe, new.camera] = new

    def settle(self) -> None:
        """What was taken last is not taken back any more: a changeover came after it."""
        self._undo = None

    def take_back(self) -> tuple[BundleInForce, BundleInForce] | None:
        """Undo the last ``take``; what it was, and what is in force again. None: nothing is."""
        undo, self._undo = self._undo, None
        if undo is None:
            return None
        # The bundle that was one step behind may have been deleted meanwhile.
        undone, now = undo[0], replace(undo[1], before="")
        self._found[now.recipe, now.camera] = now
        return undone, now

    @property
    def named(self) -> frozenset[str]:
        """The SHA-256 of each bundle that is in force, or one step back, or may be again."""
        found = (*self._found.values(), *self._others)
        return frozenset(text for one in found for text in (one.sha256, one.before) if text)
