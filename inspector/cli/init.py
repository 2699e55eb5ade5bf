"""``init``: write the station file of one camera, every key with a comment."""

from __future__ import annotations

import argparse
import os
import re
from itertools import chain, count
from pathlib import Path
from typing import Final

import yaml

from inspector.cli.examples import examples_folder
from inspector.cli.photo_source import find_camera
from inspector.config.cameras import CameraConfig
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.config.station_file import load_station, state_folder
from inspector.config.yaml_file import NAME
from inspector.detection import bundle
from inspector.errors import BundleError, ConfigError, JournalError, OutputError
from inspector.files import write_output
from inspector.journal.reader import Reader
from inspector.shown import masked
from inspector.tables import print_next

_BUNDLE: Final = "part.onnx"
"""Bundle that the file names unless one is given; it lies beside the file and may come later."""
_STATION, _RECIPE = "line-1", "part"
"""Names where neither the file nor the bundle has a better one."""
_SUFFIXES: Final = (".yaml", ".yml")

_HEAD: Final = (
    "# Station of one camera, from 'inspector init'. docs/station.md describes every key.\n"
)
_FOLDER: Final = """\
    kind: folder
    # Its images, those of its subfolders too, are the parts, sorted by path.
    path: {source}
    # Parts per second; 0: as fast as they are judged.
    rate_hz: 1
    # true: begin again after the last image, for ever, as a line for practice. false: the station
    # ends after the last one.
    loop: true
"""
_VIDEO: Final = """\
    kind: opencv
    # A video file: every frame of it is a part.
    source: {source}
    # Parts per second; left out: as fast as they are judged.
    # fps: 2
"""
_VIDEO_TIMEOUT: Final = """\
    # Longer than the time between two parts: 6000 allows 'fps: 0.2'. A file that gives no frame for
    # so long is lost.
    timeout_ms: 6000
"""
_SIMULATOR: Final = """\
    kind: simulator
    # Parts per second; 0: as fast as they are judged.
    rate_hz: 2
    # The same seed draws the same parts.
    seed: 0
    # Share of defective parts.
    defect_rate: 0.3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``init``."""
    parser.add_argument("station", type=Path, metavar="STATION.yaml", help="the file to write")
    parser.add_argument(
        "--camera",
        default="0",
        metavar="CAMERA",
        help="device number, video file, rtsp:// or http:// URL, folder of images, simulator "
        "[%(default)s]",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE.onnx",
        help=f"what judges the parts [{_BUNDLE} beside the file, which may come later]",
    )


def run(options: argparse.Namespace) -> int:
    """Write the station file, and print the command to type next; 0.

    Raises :class:`ConfigError`, :class:`CameraError`, :class:`BundleError` and
    :class:`OutputError`. A file that exists is never overwritten.
    """
    path: Path = options.station
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: a station file is called NAME.yaml; choose such a name")
    camera = find_camera(options.camera)
    bundle_path: Path = options.bundle or path.parent / _BUNDLE
    has_bundle = bundle_path.exists()
    if options.bundle is not None and not has_bundle:
        raise BundleError(
            f"{bundle_path}: no such bundle; leave --bundle out to train one later, or correct it"
        )
    recipe = _name(bundle.read(bundle_path).manifest.name, _RECIPE) if has_bundle else _RECIPE
    station = _name(path.stem, _STATION) if path.stem != "station" else _unused(path, recipe)
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists and is never overwritten; choose another name")
    write_output(path, _written(path, station, camera, recipe, bundle_path), mode=None)
    print(
        f"{path}: station {station}, camera {masked(options.camera)}, recipe {recipe}, bundle "
        f"{bundle_path}"
    )
    journal = load_station(path).state_folder
    if path.stem == "station" and station != _STATION:
        print(
            f"note: it is called {station}, for a station called {_STATION} ran on this machine "
            f"with another recipe; change 'station' in the file for a name that you like better"
        )
    if journal.exists():
        print(
            f"note: a station called {station} ran here before and goes on with its journal in "
            f"{journal}; if this is another line, change 'station' in the file"
        )
    if has_bundle:
        print_next("inspector", "check", path)
        return 0
    print(f"{bundle_path} is not there yet: photos of good parts come first")
    print(
        f"without a terminal: start 'inspector run {path} --without-model' and the operator's "
        f"page, then open its view Set up"
    )
    if isinstance(camera, FolderCamera):
        print_next("inspector-model", "train", options.camera, "-o", "run")
    else:
        print_next("inspector", "collect", path, "-o", "photos")
    return 0


def _written(path: Path, station: str, camera: CameraConfig, recipe: str, bundle_path: Path) -> str:
    """The text of the example station.yaml with these in their places."""
    text = (examples_folder() / "station.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\A(#.*\n)+", _HEAD, text)
    text = _set(text, "station", station).replace(f"/{_STATION}", f"/{station}")
    if isinstance(camera, OpenCvCamera) and camera.is_live:
        text = _set(text, "source", camera.source)
        # Left to the device: it refuses a size that it does not have.
        text = re.sub(r"(?m)^    (?=(?:width|height|fps): )", "    # ", text)
    else:
        keys, timeout = _SIMULATOR, ""
        if isinstance(camera, FolderCamera):
            keys = _FOLDER.format(source=_scalar(_seen_from(path, camera.path)))
        elif isinstance(camera, OpenCvCamera):
            keys = _VIDEO.format(source=_scalar(_seen_from(path, Path(str(camera.source)))))
            timeout = _VIDEO_TIMEOUT
        # From the kind to the keys that every kind has.
        text = re.sub(
            r"(?s)    kind: opencv\n.*?(?=    # What makes a part)", lambda _: keys, text, count=1
        )
        if isinstance(camera, SimulatorCamera):
            # The alarm must not begin with what the simulator does on purpose.
            text = _set(text, "fail_share", 0.5)
        for key, instead in (("latency_ms", ""), ("timeout_ms", timeout)):
            text = re.sub(rf"(?m)(?:^    # .*\n)+^    {key}: .*\n", instead, text)
    text = re.sub(r"(?m)^  flange:$", f"  {_scalar(recipe)}:", text)
    text = _set(text, "recipe", recipe)
    return _set(text, "bundle", _seen_from(path, bundle_path))


def _set(text: str, key: str, value: str | float) -> str:
    """``text`` with another value for the one ``key`` of this name, wherever it stands."""
    changed, times = re.subn(rf"(?m)^( *{key}: ).*$", lambda found: found[1] + _scalar(value), text)
    assert times == 1, key
    return changed


def _scalar(value: str | float) -> str:
    """``value`` in YAML, in quotes where it needs them."""
    return yaml.safe_dump(value, width=float("inf")).removesuffix("\n").removesuffix("\n...")


def _seen_from(path: Path, file: Path) -> str:
    """``file`` as the station file at ``path`` names it: relative where it lies beside or below."""
    there, file = path.parent.absolute(), file.absolute()
    return str(file.relative_to(there) if file.is_relative_to(there) else file)


def _unused(path: Path, recipe: str) -> str:
    """A name for a station whose file has none: no other product's journal goes by it."""
    folder = _name(path.absolute().parent.name, _STATION)
    numbered = (f"line-{number}" for number in count(2))
    return next(name for name in chain((_STATION, folder), numbered) if _is_free(name, recipe))


def _is_free(station: str, recipe: str) -> bool:
    """Whether ``station`` never ran here, or by ``recipe`` at last."""
    journal = state_folder(station)
    if not journal.exists():
        return True
    try:
        with Reader(journal) as reader:
            kept = reader.in_force(station)
    except JournalError:
        return False
    return kept is None or kept.recipe == recipe


def _name(wanted: str, otherwise: str) -> str:
    """``wanted`` if it can be the name of a station or a recipe."""
    return wanted if re.fullmatch(NAME, wanted) else otherwise
