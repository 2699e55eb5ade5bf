"""The picture of the house shows the imports of today, or `make check` says that it does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.paths import ROOT

CONTRACTS = """
[tool.importlinter]
root_packages = ["inspector", "export"]

[[tool.importlinter.contracts]]
name = "line wing"
type = "layers"
containers = ["inspector"]
exhaustive = true
layers = ["cli", "station", "wire | cameras", "errors"]

[[tool.importlinter.contracts]]
name = "training wing"
type = "layers"
containers = ["export"]
layers = ["cli", "model"]
"""

MODULES = {
    "inspector/__init__.py": '"""Frames in, verdicts out."""\n',
    "inspector/cli.py": '"""The command."""\nfrom inspector.station.daemon import Daemon\n',
    "inspector/station/__init__.py": '"""The daemon. And more."""\n',
    "inspector/station/daemon.py": '"""Judges."""\nimport inspector.wire\n',
    "inspector/wire.py": '"""What ``travels`` & how."""\nfrom inspector import errors\n',
    "inspector/cameras.py": '"""A source of frames."""\n',
    "inspector/errors.py": '"""Every error."""\n',
    "export/__init__.py": '"""Photos in, a bundle out."""\nimport inspector\n',
    "export/cli.py": '"""Train."""\nimport export.model\n',
    "export/model.py": '"""The model."""\nfrom inspector.errors import Problem\n',
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house with both wings, and the scripts that draw it."""
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "pyproject.toml").write_text(CONTRACTS)
    (tmp_path / "docs").mkdir()
    for script in ROOT.glob("docs/house*.py"):
        shutil.copy(script, tmp_path / "docs")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = folder / "docs" / "house.py"
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def texts(folder: Path) -> list[str]:
    tree = ET.parse(folder / "docs" / "architecture.svg")
    return [element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_that_was_just_drawn_is_of_today(house: Path) -> None:
    assert run(house, "draw").returncode == 0
    checked = run(house, "check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_picture_names_every_room_with_its_size_and_first_sentence(house: Path) -> None:
    run(house, "draw")
    found = texts(house)
    for name in ("cli.py", "station/", "wire.py", "cameras.py", "errors.py", "model.py"):
        assert name in found
    assert "2 modules" in found
    assert "The daemon." in found and "What travels & how." in found


def test_the_same_house_gives_the_same_bytes(house: Path) -> None:
    run(house, "draw")
    before = (house / "docs" / "architecture.svg").read_bytes()
    run(house, "draw")
    assert (house / "docs" / "architecture.svg").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("inspector/station/daemon.py", "import inspector.cameras\n"),
        ("inspector/cli.py", "from inspector.errors import Problem\n"),
        ("export/cli.py", "def late():\n    from inspector import wire\n"),
    ],
)
def test_a_new_import_makes_the_picture_stale(house: Path, file: str, line: str) -> None:
    run(house, "draw")
    with (house / file).open("a") as module:
        module.write(line)
    stale = run(house, "check")
    assert stale.returncode == 1
    assert stale.stderr.splitlines() == [
        "house: docs/architecture.svg is not of today's imports; run 'python docs/house.py draw'"
    ]
    assert run(house, "draw").returncode == run(house, "check").returncode == 0


def test_a_picture_that_is_not_there_is_stale(house: Path) -> None:
    assert run(house, "check").returncode == 1


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("inspector/errors.py", "import inspector.wire\n", "inspector.errors imports"),
        ("inspector/cameras.py", '"""x."""\nimport inspector.wire\n', "on no lower floor"),
        ("inspector/cli.py", '"""x."""\nimport export.model\n', "of the training wing"),
        ("inspector/attic.py", '"""x."""\n', "inspector.attic has no floor"),
        ("inspector/wire.py", "from inspector import errors\n", "inspector/wire.py: has no doc"),
    ],
)
def test_a_house_that_cannot_be_drawn_is_refused_in_one_line(
    house: Path, file: str, text: str, words: str
) -> None:
    (house / file).write_text(text)
    refused = run(house, "draw")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1 and words in refused.stderr
    assert not (house / "docs" / "architecture.svg").exists()


def test_count_tells_the_sizes_of_the_house_it_lies_in(house: Path) -> None:
    counted = run(house, "count").stdout.splitlines()
    assert counted[:5] == [
        "inspector/",
        "       7  modules, on 4 floors",
        "       3  imports between modules",
        "       6  rooms, on 4 floors",
        "       3  imports between rooms",
    ]
    assert "       0  cycles of modules" in counted
    assert counted[counted.index("export/") + 1] == "       3  modules, on 2 floors"


def test_count_reads_another_checkout_and_names_its_cycles(house: Path, tmp_path: Path) -> None:
    other = tmp_path / "older"
    (other / "inspector").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "top": "import inspector.one\nx = 1\ny = 2\n",
        "one": "import inspector.two\n",
        "two": "import inspector.one\nimport inspector.base\n",
        "base": "",
    }.items():
        (other / "inspector" / f"{name}.py").write_text(text)
    counted = run(house, "count", str(other)).stdout.splitlines()
    assert "       5  rooms, on 3 floors" in counted
    assert "       1  cycles of rooms" in counted
    assert "          inspector.one, inspector.two" in counted
    longest = counted.index("   lines  of the longest files") + 1
    assert counted[longest : longest + 2] == [
        "       3  inspector/top.py",
        "       2  inspector/two.py",
    ]


def test_count_refuses_a_folder_without_the_house(house: Path, tmp_path: Path) -> None:
    refused = run(house, "count", str(tmp_path / "docs"))
    assert refused.returncode == 1
    assert "name a checkout" in refused.stderr
