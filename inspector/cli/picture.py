"""``picture``: what a part looked like, into a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspector.cli.arguments import ANSWERS_S, add_queries, client_keys, place
from inspector.client.viewer import Viewer
from inspector.errors import OutputError
from inspector.files import write_output
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``picture``."""
    parser.add_argument(
        "part", type=place, metavar="EPOCH/SEQ", help="of its verdict, as 'history' shows it"
    )
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        required=True,
        metavar="FILE",
        help="out.png: all pixels, lossless; out.jpg: reduced",
    )
    parser.add_argument("--heatmap", type=Path, metavar="FILE.png", help="its heatmap, too")
    add_queries(parser)


def run(options: argparse.Namespace) -> int:
    """Write the picture of a part, and its heatmap; 0.

    Raises :class:`CommandError`, :class:`OutputError` and :class:`SecretError`.
    """
    full = is_full(options.output)
    epoch, seq = options.part
    with Viewer(options.queries, reach_s=ANSWERS_S, keys=client_keys(options)) as viewer:
        view = viewer.picture(epoch, seq, full=full)
    if options.heatmap is not None and view.heatmap is None:
        raise OutputError(f"{options.heatmap}: this part has no heatmap")
    write_output(options.output, view.picture or b"")
    if options.heatmap is not None and view.heatmap is not None:
        write_output(options.heatmap, view.heatmap)
    about = view.about
    origin = "the whole picture" if about.origin == "kept" else "the judged region alone"
    verdict = "" if about.verdict is None else f" {about.verdict.verdict.value}"
    print(plain(f"{options.output}: {about.camera}{verdict}, {origin}"))
    return 0


def is_full(path: Path) -> bool:
    """True for a file of all pixels, by its name. Raises :class:`OutputError` for any other."""
    known = {".png": True, ".jpg": False, ".jpeg": False}
    if path.suffix.lower() not in known:
        raise OutputError(f"{path}: the name must end in .png or .jpg")
    return known[path.suffix.lower()]
