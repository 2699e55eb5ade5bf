"""``judge``: judge photos by a bundle as a station would, without a station."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Final

from rich.text import Text

from inspector.cli.output import STYLES, write_picture
from inspector.detection.detector import Detector
from inspector.errors import ImageError
from inspector.imaging.folders import find_parts, remarks, turned_among
from inspector.imaging.heatmaps import map_to_grey, overlay
from inspector.imaging.images import IMAGE_SUFFIXES, encode_jpeg, read_image
from inspector.progress import QUICK_S, Bars
from inspector.shown import plain, printable
from inspector.tables import Terminal, numbers, print_next_station, show, table
from inspector.verdict import EXIT_CODES, FloatMap, Frame8, Judgement, Reason, Verdict

_OVERLAY: Final = "_overlay.jpg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``judge``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE.onnx")
    parser.add_argument(
        "photos",
        type=Path,
        nargs="+",
        metavar="PHOTO",
        help="image files, and folders of them at any depth",
    )
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="DIR",
        help="write the heatmap of each over the judged region: DIR/NAME_overlay.jpg",
    )


def run(options: argparse.Namespace) -> int:
    """Judge photos and print a line each; 0 if all PASS, 2 if any is a FAULT, else 1.

    Raises :class:`ImageError` for a photo that is not there, :class:`BundleError` and
    :class:`OutputError`.
    """
    out: Path | None = options.output
    notes: list[str] = []
    photos = list(_find(options.photos, out, notes))
    notes += turned_among([path for path in options.photos if not path.is_dir()])
    detector = Detector.load(options.bundle)
    taken = {path.resolve() for path, _ in photos}
    made = 0
    judged = table("photo", "verdict", numbers("score"), "reason")
    tally: Counter[Verdict] = Counter()
    stderr = Terminal(stderr=True)
    with Bars(*Bars.get_default_columns(), console=stderr, transient=True, quick_s=QUICK_S) as bar:
        for path, name in bar.track(photos, description="judging"):
            judgement = _judge(detector, path)
            tally[judgement.verdict] += 1
            judged.add_row(*_row(path, judgement))
            if out is not None and judgement.judged is not None:
                picture = _picture(judgement.judged, judgement.anomaly_map)
                write_picture(_free(out.joinpath(*map(printable, name.parts)), taken), picture)
                made += 1
    show(judged)
    for note in notes:
        print(plain(note))
    verdicts = ", ".join(f"{tally[verdict]} {verdict}" for verdict in Verdict if tally[verdict])
    print(
        plain(
            f"{len(photos)} judged by {detector.manifest.name} {detector.manifest.version}: "
            f"{verdicts}"
        )
        + (f"; heatmaps: {made} in {out}" if out else "")
    )
    print_next_station(options.bundle)
    return max(EXIT_CODES[verdict] for verdict in tally)


def _find(given: list[Path], out: Path | None, notes: list[str]) -> Iterator[tuple[Path, Path]]:
    """Each photo, and its path below the folder that was given.

    Masks are left out, and heatmaps that an earlier call wrote to ``out``. What a person should
    know of a folder is added to ``notes``. Raises :class:`ImageError`.
    """
    for path in given:
        try:
            if not path.is_dir():
                path.stat()
                yield path, Path(path.name)
                continue
            found, masks = find_parts(path)
            theirs = [mask for mask in masks if out is None or not _is_made_by_us(mask, out)]
            notes += remarks(path, found, theirs)
        except FileNotFoundError:
            raise ImageError(f"{path}: no such photo or folder") from None
        except OSError as error:
            raise ImageError(
                f"{error.filename or path}: cannot be read: {error.strerror}"
            ) from None
        photos = [each for each in found if out is None or not _is_made_by_us(each, out)]
        if not photos:
            kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
            raise ImageError(f"{path}: holds no photo ({kinds})")
        yield from ((photo, photo.relative_to(path)) for photo in photos)


def _is_made_by_us(path: Path, folder: Path) -> bool:
    return path.name.endswith(_OVERLAY) and path.resolve().is_relative_to(folder.resolve())


def _judge(detector: Detector, path: Path) -> Judgement:
    """Judge a photo as a station judges a frame; a file that cannot be read is a FAULT."""
    try:
        frame = read_image(path)
    except ValueError as error:
        detail = str(error).removeprefix(f"{path}: ")
        return Judgement(Verdict.FAULT, None, Reason.FRAME_UNREADABLE, detail=detail)
    return detector.judge(frame)


def _row(path: Path, judgement: Judgement) -> tuple[str | Text, ...]:
    score = "-" if judgement.score is None else f"{judgement.score:.3f}"
    why = ": ".join(text for text in (judgement.reason.value, judgement.detail) if text)
    verdict = judgement.verdict
    return str(path), Text(verdict.value, STYLES[verdict]), score, why


def _picture(judged: Frame8, anomaly_map: FloatMap | None) -> bytes:
    """JPEG of the judged region, under its heatmap if there is one."""
    if anomaly_map is None:
        return encode_jpeg(judged)
    return encode_jpeg(overlay(judged, map_to_grey(anomaly_map)))


def _free(photo: Path, taken: set[Path]) -> Path:
    """A name for the heatmap of ``photo`` that is not in ``taken``, which it is added to."""
    stems = chain((photo.stem, photo.name), (f"{photo.name}-{n}" for n in count(2)))
    names = (photo.with_name(f"{stem}{_OVERLAY}") for stem in stems)
    name = next(name for name in names if name.resolve() not in taken)
    taken.add(name.resolve())
    return name
