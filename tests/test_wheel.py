"""The wheel is the product: it has all that a user needs, and is installed from a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from inspector import version
from inspector.version import VERSION, install_command
from tests.paths import ROOT

PAGES = (
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "pyproject.toml",
)
FOLDERS = ("docs", "inspector", "export", "config", "benchmarks", ".ci")
TEXTS = {".md", ".py", ".sh", ".yaml", ".service", ".j2", ".toml", ""}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    return built / f"cfa_inspector-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages, with the wheel's packages and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_has_both_packages_and_every_example_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"cfa_inspector-{VERSION}.dist-info"
    assert {name.split("/")[0] for name in names} == {"inspector", "export", info}
    examples = {name for name in names if name.startswith("inspector/examples/")}
    assert examples == {f"inspector/examples/{path.name}" for path in (ROOT / "config").iterdir()}
    assert {"demo.onnx", "station.yaml", "inspector@.service", "prometheus-rules.yaml"} <= {
        Path(name).name for name in examples
    }
    modules = {
        path.relative_to(ROOT).as_posix()
        for folder in ("inspector", "export")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names - examples - {name for name in names if name.startswith(info)} == modules
    assert f"{info}/licenses/LICENSE" in names


def test_the_description_names_no_machine_and_no_registry(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"cfa_inspector-{VERSION}.dist-info/METADATA").decode()
    head, _, page = text.partition("\n\n")
    assert head.splitlines()[1:3] == ["Name: cfa-inspector", f"Version: {VERSION}"]
    assert "\nLicense-Expression: Apache-2.0\n" in head
    assert page == (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([^/\s)]+)", text)) <= {"arxiv.org"}
    assert str(ROOT) not in text


@pytest.mark.long
def test_the_source_distribution_has_what_builds_and_tests_it(built):
    with tarfile.open(built / f"cfa_inspector-{VERSION}.tar.gz") as archive:
        top = {name.split("/")[1] for name in archive.getnames()}
    assert top - {"PKG-INFO"} == {
        *("inspector", "export", "config", "tests", "benchmarks", "docs", ".ci", ".gitignore"),
        *("pyproject.toml", "Makefile", "requirements-dev.txt"),
        *("README.md", "README.zh-CN.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    }


@pytest.mark.long
def test_the_demo_runs_in_an_empty_folder_without_the_checkout(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    program = (
        "import inspector, sys; from inspector.cli.examples import examples_folder;"
        "from inspector.cli.main import main;"
        "print(inspector.__file__, examples_folder()); sys.exit(main(['demo', '--parts', '2']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    package = installed / "inspector"
    assert done.stdout.splitlines()[0] == f"{package / '__init__.py'} {package / 'examples'}"
    assert "2 parts, 0 verdicts lost" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["demo-output"]
    assert list((tmp_path / "demo-output").glob("*_overlay.jpg"))


def installed_by_name(text: str) -> list[str]:
    """Commands in ``text`` that would ask an index for the product, by its name or its old one."""
    found = re.findall(r"\b(?:pip3?|pipx|uv|uvx)\b(?:[^\n`]*\n?){2}", text)
    bare = re.compile(r"(?:^|[\s'\"`])((?:line|cfa)[-_.]inspector(?:\[[^\]]*\])?)(?=$|[\s'\"`;),])")
    return [name for command in found for name in bare.findall(command)]


def test_no_text_tells_people_to_install_the_product_by_name():
    files = [ROOT / name for name in PAGES]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.is_file()}
    assert sum("pip install" in text for text in texts.values()) > 5
    assert {path: names for path, text in texts.items() if (names := installed_by_name(text))} == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("run /opt/inspector/bin/pip install cfa-inspector", ["cfa-inspector"]),
        ("f\"pip install 'line-inspector[parquet]', or\"", ["line-inspector[parquet]"]),
        ("`pip install --no-index --find-links\nwheels cfa_inspector` there", ["cfa_inspector"]),
        ("pipx install cfa-inspector;", ["cfa-inspector"]),
        ("pip install ./cfa_inspector-*.whl", []),
        ("pip install '/path/to/line-inspector[cuda]'", []),
        (install_command("train"), []),
    ],
)
def test_installing_by_name_is_found(text, names):
    assert installed_by_name(text) == names


def test_every_extra_stands_on_the_page_of_installation():
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = declared.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    assert len(extras) > 5
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert [extra for extra in extras if f"[{extra}]" not in page] == []


def test_an_extra_is_installed_from_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert install_command("mqtt") == "pip install --editable '.[mqtt]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("mqtt") == f"pip install --editable '{ROOT}[mqtt]'"
    # What a wheel installs has no checkout around it.
    (tmp_path / "inspector").mkdir()
    monkeypatch.setattr(version, "__file__", str(tmp_path / "inspector" / "version.py"))
    assert (
        install_command("mqtt") == f"pip install './cfa_inspector-{VERSION}-py3-none-any.whl[mqtt]'"
    )
