"""With what the page trains and teaches: the program, and the runs that the bundles came from."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from inspector.config.console_file import TrainingTools
from inspector.files import write_whole

_PROGRAM: Final = "inspector-model"
_ASKED_S: Final = 30.0
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Training:
    """The training program, if it can be used, and the run of each bundle.

    ``state`` is the page's folder; what the page has made itself is remembered there.
    """

    def __init__(self, tools: TrainingTools, state: Path | None) -> None:
        self._tools = tools
        self._models = None if state is None else state / "models"
        self._program: asyncio.Task[Path | None] | None = None

    @property
    def precision(self) -> str:
        """Of the bundles that are written, as ``inspector-model`` names it."""
        return self._tools.precision

    async def program(self) -> Path | None:
        """``inspector-model``, where it and all that it trains with are installed."""
        if self._program is None or (
            self._program.done() and (self._program.cancelled() or self._program.result() is None)
        ):
            # Somebody may have installed it meanwhile.
            self._program = asyncio.ensure_future(asyncio.to_thread(self._find))
        return await asyncio.shield(self._program)

    def run_of(self, station: str, recipe: str, camera: str, sha256: str) -> Path | None:
        """The training run of the bundle with this ``sha256``, which is in use there.

        It is the one by which the page itself made that bundle, or else the one that the file of
        the page names; None where there is neither.
        """
        if (run := self.made_by_page(sha256)) is not None:
            return run
        named = self._tools.runs.get(station, {}).get(recipe, {}).get(camera)
        # A command of a job runs in another folder.
        return None if named is None else named.resolve()

    def made_by_page(self, sha256: str) -> Path | None:
        """The run by which the page itself made the bundle with this ``sha256``; or None."""
        if self._models is not None and _SHA256.fullmatch(sha256):
            try:
                made = json.loads((self._models / f"{sha256}.json").read_bytes())
                # A command of a job runs in another folder.
                if (run := Path(made["run"]).resolve()).is_dir():
                    return run
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                pass
        return None

    @property
    def named_runs(self) -> list[Path]:
        """The runs that the page's file names."""
        per_recipe = (one for recipes in self._tools.runs.values() for one in recipes.values())
        return [run.resolve() for cameras in per_recipe for run in cameras.values()]

    def remember(self, sha256: str, run: Path) -> None:
        """The bundle with this ``sha256`` came from ``run``. Raises OSError."""
        if self._models is not None and _SHA256.fullmatch(sha256):
            self._models.mkdir(parents=True, exist_ok=True)
            told = json.dumps({"run": str(run)}).encode()
            write_whole(self._models / f"{sha256}.json", told)

    def _find(self) -> Path | None:
        named = self._tools.program
        beside = Path(sys.executable).with_name(_PROGRAM)
        for found in [named] if named else [beside, shutil.which(_PROGRAM)]:
            if found is not None and _has_torch(Path(found)):
                return Path(found).absolute()
        return None


def _has_torch(program: Path) -> bool:
    """Whether a program's own Python has what it takes to train."""
    try:
        with program.open("rb") as file:
            head = file.readline(512)
    except OSError:
        return False
    named = Path(head[2:].decode("utf-8", "replace").strip()) if head.startswith(b"#!") else None
    python = named if named and named.is_file() else program.resolve().with_name("python")
    question = (
        "import importlib.util as u, sys; "
        "sys.exit(not all(map(u.find_spec, ('torch', 'torchvision'))))"
    )
    try:
        asked = subprocess.run(  # noqa: S603
            [python, "-c", question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_ASKED_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0
