"""The systemd unit of a bridge."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inspector import errors
from tests import running
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


def settings() -> dict[str, str]:
    lines = UNIT.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and line[0] not in "#[")


CONFINED = """
import ctypes, runpy
# What MemoryDenyWriteExecute=yes does, on a Linux that can (6.3).
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
runpy.run_module("inspector", run_name="__main__", alter_sys=True)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("fieldbus", "keys", "said"),
    [
        ("modbus", "cameras: [top]\nlisten: 127.0.0.1:0\n", " listening modbus="),
        ("opcua", "cameras: [top]\nlisten: 127.0.0.1:0\n", " listening opcua="),
        ("mqtt", "state: mqtt.state\nbroker: 127.0.0.1:9\n", " bridge broker=127.0.0.1:9 "),
    ],
)
def test_the_unit_runs_every_kind_of_bridge(tmp_path, fieldbus, keys, said):
    file = tmp_path / "plc-1.yaml"
    file.write_text(f"bridge: {fieldbus}\n{keys}", encoding="utf-8")
    state = tmp_path / "state"
    state.mkdir()
    program, *arguments = shlex.split(settings()["ExecStart"])
    assert program == "/opt/inspector/bin/inspector"
    arguments = [one.replace("/etc/inspector/%i.yaml", str(file)) for one in arguments]
    assert str(file) in arguments
    log = tmp_path / "log"
    with (
        log.open("wb") as errors_to,
        subprocess.Popen(
            [sys.executable, "-c", CONFINED, *arguments],
            stderr=errors_to,
            cwd=state,
            env=running.environment(),
        ) as child,
    ):
        try:
            deadline = time.monotonic() + 40
            while said not in log.read_text("utf-8"):
                assert child.poll() is None and time.monotonic() < deadline, log.read_text("utf-8")
                time.sleep(0.05)
            child.terminate()
            assert child.wait(20) == 0, log.read_text("utf-8")
        finally:
            child.kill()
    assert "Traceback" not in log.read_text("utf-8")


def test_the_unit_lets_a_bridge_write_what_it_has_to():
    found = settings()
    assert found["WorkingDirectory"] == f"%S/{found['StateDirectory']}"
    example = (ROOT / "config" / "bridge-opcua.yaml").read_text("utf-8")
    (pki,) = re.findall(r"pki: (/\S+)/plc-1$", example, re.M)
    assert found["ReadWritePaths"] == f"-{pki}/%i/rejected"


def test_auto_names_a_fieldbus_that_there_is_not(tmp_path):
    file = tmp_path / "b.yaml"
    file.write_text("bridge: profinet\ncameras: [top]\n")
    for path, said in ((file, "bridge"), (tmp_path / "none.yaml", "inspector examples")):
        code, _, err = running.inside("bridge", "auto", path)
        assert code == 10 and err.count("\n") == 1 and said in err
