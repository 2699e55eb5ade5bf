"""Which region of the picture ``collect`` looks at: given, picked in a window, or remembered."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from inspector.cameras.base import Frame
from inspector.cli.arguments import box
from inspector.cli.photo_source import PhotoSource
from inspector.errors import CameraError, ConfigError, Fault
from inspector.imaging.geometry import Box
from inspector.imaging.images import encode_jpeg, to_bgr8
from inspector.photos.album import Album
from inspector.shown import plain


def choose_region(
    options: argparse.Namespace, source: PhotoSource, album: Album, first: Frame, console: Console
) -> Box | None:
    """The region in pixels of ``first``, None for the whole picture; says on ``console`` which.

    ``--pick`` asks; else ``--region`` counts, then what ``album`` remembers, then what the source's
    station judges. Raises :class:`ConfigError` when a region reaches beyond the picture or nobody
    can be asked, :class:`CameraError` and :class:`OutputError` when ``first`` cannot be shown.
    """
    height, width = first.image.shape[:2]
    origin = ""
    if options.pick:
        region = _pick(album, first, console)
    elif options.region is not None:
        region = options.region
    elif album.notes.region is not None:
        region, origin = album.notes.region, "as before in this folder"
    else:
        region, origin = source.region, source.region_of
    where = as_argument(region) if region else "the whole picture"
    if region is not None and (region.x + region.w > width or region.y + region.h > height):
        raise ConfigError(
            f"{f'region {where} ({origin})' if origin else f'--region {where}'}: reaches beyond "
            f"the camera's {width}x{height} px; give --region X,Y,W,H within them"
        )
    of_whom = f" ({origin})" if origin else ""
    console.print(
        plain(f"camera {source.config.name}: {width}x{height} px, region: {where}{of_whom}")
    )
    return region


def as_argument(region: Box) -> str:
    """``region`` as ``--region`` takes it."""
    return f"{region.x},{region.y},{region.w},{region.h}"


def stdin_is_terminal() -> bool:
    """True when somebody can be asked."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _pick(album: Album, first: Frame, console: Console) -> Box | None:
    """Ask in a window; without one, in the terminal beside a picture written to ``album``."""
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
            window = picker.PickerWindow(picture)
        except tkinter.TclError as error:
            why = str(error)
        else:
            console.print("choose the region in the window")
            return window.run()
    height, width = picture.shape[:2]
    preview = album.write_preview(encode_jpeg(picture))
    shown = f"see {preview} ({width}x{height} px)"
    if not stdin_is_terminal():
        raise ConfigError(f"--pick: no window: {why}; {shown} and give --region x,y,w,h instead")
    console.print(f"--pick: no window: {why}; {shown}")
    return _ask_for_numbers(width, height, console)


def _ask_for_numbers(width: int, height: int, console: Console) -> Box | None:
    """Ask until the answer is a region of the picture, or empty: None."""
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
