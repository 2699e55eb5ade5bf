"""``examples``: write the example files into a folder, for somebody who has the wheel alone."""

from __future__ import annotations

import argparse
import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from inspector.errors import OutputError
from inspector.files import output_errors, write_whole

_BUNDLE: Final = ".onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``examples``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the files go")


def run(options: argparse.Namespace) -> int:
    """Copy the example files into a folder and list them; 0.

    Raises :class:`OutputError`; a file that exists is never overwritten.
    """
    folder: Path = options.folder
    found = sorted(path for path in examples_folder().iterdir() if path.is_file())
    for path in found:
        if os.path.lexists(folder / path.name):
            raise OutputError(
                f"{folder / path.name}: exists and is never overwritten; choose another folder"
            )
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in found:
            write_whole(folder / path.name, path.read_bytes(), durable=False)
    width = max(len(str(folder / path.name)) for path in found)
    for path in found:
        print(f"{folder / path.name!s:<{width}}  {_subject(path)}")
    return 0


def examples_folder() -> Path:
    """The folder of the example files: in a wheel ``inspector/examples``, else ``config``.

    A wheel is built with the checkout's ``config`` in that place (``pyproject.toml``). A checkout,
    and what was installed from it with ``--editable``, has no copy that could grow old.
    """
    packaged = Path(str(files("inspector") / "examples"))
    return packaged if packaged.is_dir() else packaged.parents[1] / "config"


def _subject(path: Path) -> str:
    """What an example is for, as its first line says."""
    if path.suffix == _BUNDLE:
        return "The bundle of 'inspector demo', for parts of the simulated conveyor."
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
