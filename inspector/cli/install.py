"""``install``: have a camera judged by another bundle, or by the one before it again."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

from inspector.cli.arguments import ANSWERS_S, add_person, add_station, add_timeout, client_keys
from inspector.client.commander import Commander
from inspector.detection import bundle
from inspector.errors import CommandError
from inspector.progress import QUICK_S, Bars
from inspector.shown import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``install``."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("bundle", nargs="?", type=Path, metavar="FILE.onnx", help="the new bundle")
    which.add_argument(
        "--back", action="store_true", help="go one step back, at most to the station file's own"
    )
    parser.add_argument("--recipe", metavar="NAME", help="under this recipe [the one in force]")
    parser.add_argument("--camera", metavar="NAME", help="a camera of the station [the only one]")
    add_timeout(parser, 120.0)
    add_person(parser)
    add_station(parser)


def run(options: argparse.Namespace) -> int:
    """Have a camera judged by another bundle, now and after a restart; 0.

    Raises :class:`BundleError`, :class:`CommandError` and :class:`SecretError`.
    """
    keys = client_keys(options)
    if not options.back:
        # What is no bundle need not be sent to be refused.
        bundle.read(options.bundle)
    with Commander(options.address, timeout_s=ANSWERS_S, keys=keys) as commander:
        status = commander.status()
        recipe, camera = options.recipe or status.recipe, options.camera
        if camera is None:
            names = [one.name for one in status.cameras]
            if len(names) != 1:
                raise CommandError(f"--camera: say which of {', '.join(names)}")
            camera = names[0]
        if options.back:
            said = commander.revert(recipe, camera, options.timeout, by=options.by)
        else:
            said = _install(commander, options, recipe, camera)
        print(plain(said))
    return 0


def _install(commander: Commander, options: argparse.Namespace, recipe: str, camera: str) -> str:
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        quick_s=QUICK_S,
    )
    with bars:
        task = bars.add_task("sending", total=options.bundle.stat().st_size)
        return commander.install(
            options.bundle,
            recipe,
            camera,
            options.timeout,
            by=options.by,
            progress=lambda there, of: bars.update(task, completed=there, total=of),
        )
