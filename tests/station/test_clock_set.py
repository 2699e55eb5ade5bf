"""A station on a machine whose clock is wrong at boot, and is set later."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from inspector.client.commander import Commander
from inspector.journal.pictures import pictures
from tests import running, tiny

AHEAD = """
import sys, time
from pathlib import Path
from inspector.cli.main import main
real = time.time_ns
right = Path(sys.argv[1]).with_name("right")
time.time_ns = lambda: real() + (0 if right.exists() else 40 * 86_400 * 10**9)
sys.exit(main(["run", sys.argv[1]]))
"""


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path) -> Path:
    parts = running.write_parts(tmp_path / "parts", tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=2000)
    return running.write_station(tmp_path / "station.yaml", bundle_path, camera)


def judge(plc: Commander, count: int, first: int = 1) -> None:
    for number in range(first, count + 1):
        assert plc.trigger("top", number).verdict.value == "FAIL"


@pytest.mark.long
def test_wrong_clock_at_boot_deletes_few_pictures_and_is_logged_when_it_is_set(
    station: Path,
) -> None:
    folder = station.parent / "journal"
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        for number in range(1, 31):
            judge(plc, number, first=number)
            # A machine that is busy keeps pictures later than parts come, and drops some.
            deadline = time.monotonic() + 10
            while len(list(pictures(folder))) < number and time.monotonic() < deadline:
                time.sleep(0.01)
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log
        assert " clock set" not in daemon.log
    assert len(list(pictures(folder))) == 30
    with (
        running.running(station, program=AHEAD) as daemon,
        Commander(daemon.commands) as plc,
    ):
        daemon.wait_for_log(r"state=Ready")
        judge(plc, 4)
        station.with_name("right").touch()
        line = daemon.wait_for_log(r"clock set_by_s=(\S+)")
        assert abs(int(line[1]) + 40 * 86_400) <= 1
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    assert len(re.findall(" clock set_by_s=", daemon.log)) == 1
    # Four came; the first of them let none go, each other one two.
    assert len(list(pictures(folder))) == 30 + 4 - 3 * 2
