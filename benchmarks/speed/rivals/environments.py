"""An environment for each package, and the models that it deploys, made once and kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from benchmarks.checkout import ROOT, environment
from benchmarks.figures import commit
from benchmarks.speed.rivals.plan import Entry, Source

GOOD_PARTS: Final = 100
BUILD_S: Final = 600.0
MAKE: Final = Path(__file__).with_name("make.py")

PINS: Final = {
    "anomalib": [
        ["anomalib==2.7.0", "openvino==2026.4.1", "onnx==1.23.2", "onnxscript==0.7.2"],
    ],
    # Without its web pages, which no model needs and which pin most of the rest.
    "anomavision": [
        ["--no-deps", "anomavision==3.6.2"],
        [
            *("numpy==1.26.4", "easydict==1.13", "scikit-image==0.22.0", "scikit-learn==1.3.2"),
            *("matplotlib==3.8.3", "opencv-python-headless==4.11.0.86", "onnxscript==0.7.2"),
            *("onnxruntime==1.31.1", "tqdm==4.70.1", "pyyaml==6.0.3"),
        ],
    ],
}


def prepare(entries: Sequence[Entry], root: Path) -> dict[Source, str]:
    """Make what is not there yet; why each source that cannot be had cannot."""
    root.mkdir(parents=True, exist_ok=True)
    _draw_photos(root)
    lacking: dict[Source, str] = {}
    sources = list(dict.fromkeys(entry.source for entry in entries))
    broken = {
        package: install(package, root)
        for package in dict.fromkeys(source.package for source in sources)
    }
    for source in track(sources, "models", console=Console(stderr=True)):
        reason = broken[source.package] or build(source, root)
        if reason:
            lacking[source] = reason
    return lacking


def _draw_photos(root: Path) -> None:
    if (root / "photos" / "test").exists():
        return
    command = [sys.executable, "-m", "inspector", "simulate", str(root / "photos")]
    counts = ["--good", str(GOOD_PARTS), "--test-good", "1", "--defective", "1", "--seed", "1"]
    subprocess.run(
        [*command, *counts], cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL
    )


def python_of(package: str, root: Path) -> str:
    return sys.executable if package == "ours" else str(root / package / "bin" / "python")


def install(package: str, root: Path) -> str:
    """An environment with the package's pins; why not, or empty."""
    if package == "ours":
        return ""
    folder = root / package
    done, wanted = folder / "installed", json.dumps([PINS[package], sys.executable])
    if done.exists() and done.read_text() == wanted:
        return ""
    venv.create(folder, clear=True, with_pip=True)
    # Last on the path: what a package pins itself comes before what this Python has.
    (folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages").joinpath(
        "shared.pth"
    ).write_text(sysconfig.get_paths()["purelib"] + "\n")
    for requirements in PINS[package]:
        Console(stderr=True).print(f"pip install {' '.join(requirements)}")
        ran = subprocess.run(
            [python_of(package, root), "-m", "pip", "install", "--quiet", *requirements],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            return f"pip: {last_line(ran.stderr)}"
    done.write_text(wanted)
    return ""


def build(source: Source, root: Path) -> str:
    """The source's models; why not, or empty. What is there and up to date is kept."""
    folder = root / "models" / source.folder
    made_by = hashlib.sha256(MAKE.read_bytes()).hexdigest()
    pins = json.dumps([PINS.get(source.package), made_by])
    state = commit() if source.package == "ours" else pins
    done = folder / "made"
    if not state.endswith("+") and done.exists():
        made, _, reason = done.read_text().partition("\n")
        if made == state:
            return reason
    command = [python_of(source.package, root), "-m", "benchmarks.speed.rivals.make"]
    command += [source.package, source.model, source.backbone, str(source.size)]
    command += [str(root / "photos"), str(folder)]
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment(),
            timeout=BUILD_S,
        )
        reason = last_line(ran.stderr) if ran.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"its export took more than {BUILD_S:g} s"
    folder.mkdir(parents=True, exist_ok=True)
    done.write_text(f"{state}\n{reason}")
    return reason


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it failed without a word"
