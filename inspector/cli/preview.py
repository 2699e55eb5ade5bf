"""``preview``: what a camera sees now, into a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspector.cli.arguments import ANSWERS_S, add_queries, client_keys
from inspector.cli.picture import is_full
from inspector.client.viewer import Viewer
from inspector.files import write_output
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``preview``."""
    parser.add_argument("camera", metavar="CAMERA", help="a camera of the station file")
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        required=True,
        metavar="FILE",
        help="out.png: all pixels, lossless; out.jpg: reduced",
    )
    add_queries(parser)


def run(options: argparse.Namespace) -> int:
    """Write the next picture of a camera; no part is judged by it; 0.

    Raises :class:`CommandError`, :class:`OutputError` and :class:`SecretError`.
    """
    full = is_full(options.output)
    with Viewer(options.queries, reach_s=ANSWERS_S, keys=client_keys(options)) as viewer:
        view = viewer.preview(options.camera, full=full)
    write_output(options.output, view.picture or b"")
    about = view.about
    print(plain(f"{options.output}: {about.camera} gives {about.width}x{about.height} pixels"))
    return 0
