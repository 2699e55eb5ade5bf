"""A station whose journal is taken away, or damaged, while it stands or works."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.client.commander import Commander
from inspector.client.subscriber import Gap
from inspector.errors import CommandError
from inspector.journal.schema import FILE, PLACES_PER_EPOCH
from inspector.wire.messages import StatusMessage, VerdictMessage
from tests import running, tiny


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path) -> Path:
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=2000)
    return running.write_station(tmp_path / "station.yaml", bundle_path, camera)


def status_when(ask: Commander, holds: Callable[[StatusMessage], bool]) -> StatusMessage:
    deadline = time.monotonic() + 10.0
    while not holds(status := ask.status()):
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def delete(folder: Path) -> None:
    (folder / FILE).unlink()


def delete_log(folder: Path) -> None:
    (folder / f"{FILE}-wal").unlink()


@pytest.mark.parametrize("attack", [delete, delete_log])
def test_without_its_journal_it_is_not_ready_and_passes_no_part(
    station: Path, attack: Callable[[Path], None]
) -> None:
    folder = station.parent / "journal"
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        told = [plc.trigger("top", number, f"p{number}") for number in range(1, 5)]
        assert [verdict.reason for verdict in told] == ["", "anomaly"] * 2
        attack(folder)
        # Nobody sends a trigger: it is found all the same.
        status = status_when(plc, lambda status: status.state == "Error")
        assert f"{folder / FILE}" in status.trouble
        # Whoever asked for the status may have made SQLite begin another log.
        assert re.search("was (deleted or moved|replaced by another file) while", status.trouble)
        for number in range(5, 8):
            # Refused, or answered by a FAULT: but never accepted and judged.
            with contextlib.suppress(CommandError):
                assert plc.trigger("top", number, f"p{number}").verdict.value == "FAULT"
        saved = Path(daemon.wait_for_log(r"journal saved file=(\S+) verdicts=4")[1])
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    with contextlib.closing(sqlite3.connect(saved)) as db:
        found = [json.loads(row[0]) for row in db.execute("SELECT json FROM verdict")]
    assert [each["part_id"] for each in found] == ["p1", "p2", "p3", "p4"]


def test_damaged_rows_are_gaps_of_one_and_in_the_status(station: Path, tmp_path: Path) -> None:
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        epoch = plc.status().epoch
        said = [plc.trigger("top", number, f"p{number}") for number in range(1, 11)]
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    with contextlib.closing(sqlite3.connect(station.parent / "journal" / FILE)) as db, db:
        for seq, old, new in ((3, "{", "<"), (10, '"seq":10', '"seq":11')):
            db.execute(
                "UPDATE verdict SET json = replace(json, ?, ?) WHERE place = ?",
                (old, new, PLACES_PER_EPOCH + seq),
            )
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        line = daemon.wait_for_log(r"damaged rows=2 which=\"(.*?)\" why=")[1]
        assert line == f"{epoch}/3, {epoch}/10"
        daemon.wait_for_log(r"state=Ready")
        status = status_when(plc, lambda status: status.damaged == 2)
        assert status.state == "Ready" or status.state.endswith("Execution")
        code, out, _ = running.inside("status", daemon.commands)
        assert (code, "2 damaged rows of the journal were set aside" in out) == (1, True)
        last = plc.trigger("top", 11, "p11")
        with daemon.subscriber(commands=daemon.commands, since_us=0) as subscriber:
            found: list[VerdictMessage | Gap] = []
            deadline = time.monotonic() + 10
            while len(found) < 11 and time.monotonic() < deadline:
                item = subscriber.receive(200)
                if isinstance(item, VerdictMessage | Gap):
                    found.append(item)
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0, daemon.log
    expected: list[VerdictMessage | Gap] = [*said, last]
    expected[2] = Gap("line-1", epoch, 3, 3)
    expected[9] = Gap("line-1", epoch, 10, 10)
    assert found == expected
    out_file = tmp_path / "out.csv"
    code, out, error = running.inside("export-verdicts", station, "-o", out_file)
    assert (code, error, out) == (0, "", f"{out_file}: 9 verdicts\n")
    bundle = re.search(r"bundle: (\S+)", station.read_text(encoding="utf-8"))
    assert bundle is not None
    code, out, error = running.inside("replay", station, "--bundle", bundle[1])
    assert (code, error) == (0, ""), error
    assert out.startswith("5 pictures judged")
