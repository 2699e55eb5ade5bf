"""The systemd unit of a bridge."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from inspector import errors
from tests.paths import ROOT
from tests.station.test_service import analyze

UNIT = ROOT / "config" / "inspector-bridge@.service"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as one bridge's, with a program that this machine has."""
    text = UNIT.read_text(encoding="utf-8").replace("/opt/inspector/bin/inspector", sys.executable)
    (tmp_path / UNIT.name).write_text(text, encoding="utf-8")
    instance = tmp_path / "inspector-bridge@plc-1.service"
    instance.symlink_to(UNIT.name)
    return instance


def test_systemd_finds_nothing_wrong_with_the_unit(installed):
    done = analyze("verify", "--man=no", installed)
    ours = [line for line in done.stderr.splitlines() if "inspector-bridge@" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_unit_leaves_little_to_attack(installed):
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=20", installed)
    if "nrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is too old")
    assert done.returncode == 0, done.stdout


def test_what_another_start_cannot_cure_is_not_started_again():
    (listed,) = re.findall(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text("utf-8"), re.M)
    incurable = {errors.ConfigError.exit_code, errors.SecretError.exit_code}
    assert {int(code) for code in listed.split()} == incurable
