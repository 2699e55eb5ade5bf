from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inspector import errors
from tests.paths import ROOT

UNIT = ROOT / "config" / "inspector@.service"
PAGE = ROOT / "config" / "inspector-console.service"


def settings(unit: Path = UNIT) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as one station's, with a program that this machine has."""
    text = UNIT.read_text(encoding="utf-8").replace("/opt/inspector/bin/inspector", sys.executable)
    (tmp_path / "inspector@.service").write_text(text, encoding="utf-8")
    instance = tmp_path / "inspector@line-1.service"
    instance.symlink_to("inspector@.service")
    return instance


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page's unit, with a program that this machine has."""
    text = PAGE.read_text(encoding="utf-8").replace("/opt/inspector/bin/inspector", sys.executable)
    path = tmp_path / PAGE.name
    path.write_text(text, encoding="utf-8")
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_systemd_finds_nothing_wrong_with_the_unit(installed):
    done = analyze("verify", "--man=no", installed)
    # It names whatever else is wrong on the machine; ours is what counts.
    ours = [line for line in done.stderr.splitlines() if "inspector@" in line]
    assert (done.returncode, ours) == (0, [])


def test_systemd_finds_nothing_wrong_with_the_pages_unit(page):
    done = analyze("verify", "--man=no", page)
    ours = [line for line in done.stderr.splitlines() if "inspector-" in line]
    assert (done.returncode, ours) == (0, [])
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=25", page)
    assert "nrecognized option" in done.stderr or done.returncode == 0, done.stdout


def test_the_page_yields_to_the_station_and_is_not_started_in_vain():
    unit = settings(PAGE)
    assert int(unit["Nice"][0]) > 0 and int(unit["OOMScoreAdjust"][0]) > 0
    (listed,) = unit["RestartPreventExitStatus"]
    incurable = {errors.ConfigError, errors.SecretError}
    assert {int(code) for code in listed.split()} == {kind.exit_code for kind in incurable}


def test_systemd_finds_mistakes_in_the_unit(installed):
    broken = installed.resolve()
    broken.write_text(broken.read_text("utf-8").replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in analyze("verify", "--man=no", installed).stderr


def test_the_unit_leaves_little_to_attack(installed):
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=20", installed)
    if "nrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is too old")
    assert done.returncode == 0, done.stdout


def test_what_another_start_cannot_cure_is_not_started_again():
    (listed,) = settings()["RestartPreventExitStatus"]
    incurable = {
        errors.ConfigError,
        errors.BundleError,
        errors.GoldenError,
        errors.ProviderError,
        errors.SecretError,
        errors.SignatureError,
    }
    assert {int(code) for code in listed.split()} == {kind.exit_code for kind in incurable}
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"Exit codes ([\d, ]+ and \d+) \(", page)
    assert re.findall(r"\d+", named) == listed.split()


def test_watchdog_is_slower_than_a_part_may_be_late():
    unit = settings()
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["Restart"] == ["on-failure"]
    (watchdog,) = unit["WatchdogSec"]
    assert watchdog == "10s"
    assert "PYTHONFAULTHANDLER=1" in unit["Environment"]
