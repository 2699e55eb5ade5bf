"""What people do to a station: marks, limits, recipes and stops, and who did them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspector.client.commander import Commander
from inspector.client.viewer import Viewer
from inspector.config.station_file import load_station
from inspector.detection.manifest import Manifest
from inspector.errors import CommandError
from inspector.journal.reader import Reader
from inspector.journal.schema import Deed, LimitInForce
from inspector.station.deeds import parts_taught
from inspector.station.recipes import with_limits
from inspector.verdict import Verdict
from inspector.wire.judging import JudgedField
from inspector.wire.queries import DeedField
from tests import running, tiny


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx")


def write(folder: Path, bundle: Path, limit_factor: float = 1.0, **keys: Any) -> Path:
    """A station that is shown a bad part with each trigger, with two recipes."""
    parts = running.write_parts(folder / "parts", tiny.bad_picture())
    of = {"bundle": str(bundle), "limit_factor": limit_factor}
    return running.write_station(
        folder / "station.yaml",
        bundle,
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=5000),
        recipes={"r": {"top": of}, "other": {"top": {"bundle": str(bundle)}}},
        sockets={"queries": "tcp://127.0.0.1:*"},
        **keys,
    )


@contextlib.contextmanager
def working(station: Path) -> Iterator[tuple[running.Running, Commander]]:
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        with Commander(daemon.commands) as desk:
            yield daemon, desk


def told(daemon: running.Running) -> JudgedField:
    with Viewer(daemon.queries, timeout_s=5.0) as viewer:
        return viewer.judging().cameras[0]


def deeds(daemon: running.Running) -> list[DeedField]:
    """The oldest first."""
    with Viewer(daemon.queries, timeout_s=5.0) as viewer:
        return list(viewer.deeds())[::-1]


def in_short(found: list[DeedField]) -> list[tuple[str, ...]]:
    return [(one.kind, one.by, one.subject, one.before, one.after) for one in found]


def test_marks_stand_beside_the_verdict_and_the_pictures_stay(tmp_path, bundle):
    station = write(tmp_path, bundle)
    with working(station) as (daemon, desk):
        verdict = desk.trigger("top", 1, "S/N 1")
        before_us = time.time_ns() // 1000
        desk.mark(verdict.epoch, verdict.seq, "good", "a scratch is allowed", by="Li Wei")
        place = f"{verdict.epoch}/{verdict.seq}"
        said = running.inside("mark", place, "bad", "--by", "Ann", "--address", daemon.commands)
        assert said == (0, f"{place}: this part was bad\n", "")
        with pytest.raises(CommandError, match="is not in the journal") as refused:
            desk.mark(verdict.epoch, 99, "good")
        assert refused.value.code == "unknown"
        with pytest.raises(CommandError, match="at most 200 characters") as refused:
            desk.mark(verdict.epoch, verdict.seq, "good", "x" * 201)
        assert refused.value.code == "malformed"
        with Viewer(daemon.queries, timeout_s=5.0) as viewer:
            (entry,) = viewer.history(marked=True)
            assert list(viewer.history(marked=False)) == []
            wanted = [("good", "Li Wei", "a scratch is allowed"), ("bad", "Ann", "")]
            assert [(one.label, one.by, one.note) for one in entry.marks] == wanted
            assert all(before_us <= one.at_us <= time.time_ns() // 1000 for one in entry.marks)
            assert entry.verdict == verdict
        found = deeds(daemon)
        assert in_short(found) == [
            ("mark", "Li Wei", place, "", "good"),
            ("mark", "Ann", place, "", "bad"),
        ]
        assert found[0].note == "a scratch is allowed"
    out = tmp_path / "out.csv"
    assert running.inside("export-verdicts", station, "-o", out)[0] == 0
    with out.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    told = json.loads(row["marks"])
    assert [(one["label"], one["by"]) for one in told] == [("good", "Li Wei"), ("bad", "Ann")]


@pytest.mark.long
def test_a_limit_is_in_force_at_once_and_after_a_restart(tmp_path, bundle):
    station = write(tmp_path, bundle)
    with working(station) as (daemon, desk):
        assert desk.trigger("top", 1).verdict is Verdict.FAIL
        assert desk.status().cameras[0].limit_factor == 1.0
        told = desk.limit("r", "top", 2.0, by="Li Wei")
        assert told == "recipe r, camera top: limit_factor 2, before 1"
        judged = desk.trigger("top", 2)
        assert (judged.verdict, judged.limit_factor) == (Verdict.PASS, 2.0)
        assert desk.status().cameras[0].limit_factor == 2.0
        for wrong, code in (
            (("r", "left", 1.0), "unknown"),
            (("none", "top", 1.0), "unknown"),
            (("r", "top", 2.1), "malformed"),
        ):
            with pytest.raises(CommandError) as refused:
                desk.limit(*wrong)
            assert refused.value.code == code
        # Of a recipe that is not in force, too; the one in force stays as it is.
        desk.limit("other", "top", 0.5, by="Ann")
        assert desk.trigger("top", 3).limit_factor == 2.0
        assert in_short(deeds(daemon)) == [
            ("limit", "Li Wei", "r/top", "1", "2"),
            ("limit", "Ann", "other/top", "1", "0.5"),
        ]
        # As in a power cut.
        os.kill(daemon.child.pid, signal.SIGKILL)
    with working(station) as (daemon, desk):
        assert desk.trigger("top", 1).limit_factor == 2.0
        assert "limit recipe=r camera=top limit_factor=2.0 file=1.0" in daemon.log
        desk.recipe("other", by="Ann")
        assert desk.trigger("top", 2).limit_factor == 0.5
        # A changeover and a reload keep what was ordered.
        desk.recipe("r", by="Ann")
        desk.reload(by="Ann")
        assert desk.trigger("top", 3).limit_factor == 2.0
        assert in_short(deeds(daemon))[2:] == [
            ("recipe", "Ann", "line-1", "r", "other"),
            ("recipe", "Ann", "line-1", "other", "r"),
            ("reload", "Ann", "r", "top by tiny 1", "top by tiny 1"),
        ]
    document = yaml.safe_load(station.read_text())
    document["recipes"]["r"]["top"]["limit_factor"] = 1.5
    station.write_text(yaml.safe_dump(document))
    with working(station) as (daemon, desk):
        # Whoever spoke last counts, and that was whoever changed the file.
        assert desk.trigger("top", 1).limit_factor == 1.5
        last = deeds(daemon)[-1]
        assert in_short([last]) == [("limit", "", "r/top", "2", "1.5")]
        assert last.note == "the station file was changed"
        said = running.inside("limit", "top", "0.75", "--by", "Li", "--address", daemon.commands)
        assert said == (0, "recipe r, camera top: limit_factor 0.75, before 1.5\n", "")
    with working(station) as (daemon, desk):
        assert desk.trigger("top", 1).limit_factor == 0.75
        assert len(deeds(daemon)) == 7
    code, said, _ = running.inside("check", station)
    assert code == 0
    wanted = "top under recipe r: limit_factor 0.75 is in force by command, 1.5 stands in the file"
    assert wanted in " ".join(said.split())


def test_a_limit_that_lets_the_known_defect_pass_is_refused(tmp_path, bundle):
    photo = running.write_parts(tmp_path / "defect", tiny.bad_picture()) / "000.png"
    station = write(tmp_path, bundle, self_test={"every_s": 3600, "defect": str(photo)})
    with working(station) as (daemon, desk):
        with pytest.raises(CommandError, match=r"defect '000\.png' is a PASS") as refused:
            desk.limit("r", "top", 2.0)
        assert refused.value.code == "failed"
        judged = desk.trigger("top", 1)
        assert (judged.verdict, judged.limit_factor) == (Verdict.FAIL, 1.0)
        assert desk.status().trouble == ""
        assert deeds(daemon) == []
        desk.limit("r", "top", 0.5)
        assert desk.trigger("top", 2).limit_factor == 0.5


def test_stops_and_starts_are_deeds_and_can_be_exported(tmp_path, bundle):
    station = write(tmp_path, bundle)
    with working(station) as (daemon, _):
        for command in ("stop", "stop", "start", "reset"):
            code, _, wrong = running.inside(command, "--by", "=Li", "--address", daemon.commands)
            assert (code, wrong) == (0, "")
        daemon.child.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while len(found := deeds(daemon)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # What changed nothing is none.
        assert in_short(found) == [
            ("stop", "=Li", "line-1", "", ""),
            ("start", "=Li", "line-1", "", ""),
            ("reload", "", "r", "top by tiny 1", "top by tiny 1"),
        ]
        assert "SIGHUP" in found[2].note
        out = tmp_path / "deeds.csv"
        code, said, _ = running.inside("export-verdicts", station, "--deeds", "-o", out)
        assert (code, said) == (0, f"{out}: 3 deeds\n")
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["stop", "start", "reload"]
    # No spreadsheet computes a name.
    assert rows[0]["by"] == "'=Li"
    assert rows[0]["at_us"] == str(found[0].at_us)
    out = tmp_path / "none.csv"
    code, said, _ = running.inside(
        "export-verdicts", station, "--deeds", "--until", "7d", "-o", out
    )
    assert (code, said) == (0, f"{out}: 0 deeds\n")
    with Reader(tmp_path / "journal") as reader:
        assert [deed.kind for _, deed in reader.deeds(None, 2)] == ["reload", "start"]


def test_a_limit_of_a_camera_that_is_gone_says_nothing(tmp_path, bundle):
    station = load_station(write(tmp_path, bundle))
    gone = [
        LimitInForce("line-1", "r", "left", 2.0, 1.0),
        LimitInForce("line-1", "none", "top", 2.0, 1.0),
    ]
    assert with_limits(station, gone) == (station, [])
    changed, overruled = with_limits(station, [LimitInForce("line-1", "r", "top", 1.5, 1.0)])
    assert changed.recipes["r"]["top"].limit_factor == 1.5
    assert changed.recipes["other"] == station.recipes["other"]
    assert overruled == []
    assert Deed(1, "limit", "", "").before == ""


def test_who_looks_is_told_the_limit_in_force(tmp_path, bundle):
    with working(write(tmp_path, bundle)) as (daemon, desk):
        desk.limit("r", "top", 1.5)
        camera = told(daemon)
        assert (camera.limit_factor, camera.of_file) == (1.5, 1.0)
        # Where the known defect is tested at the new limit its score stays what it was.
        assert camera.self_test.score == pytest.approx(camera.self_test.expected, abs=1e-3)
        assert camera.drift.calibrated == pytest.approx(0.5 / 1.5)
        desk.recipe("other")
        camera = told(daemon)
        assert (camera.recipe, camera.limit_factor) == ("other", 1.0)


@pytest.mark.long
def test_an_alarm_is_acknowledged_until_it_ends(tmp_path, bundle):
    station = write(tmp_path, bundle, alarm={"fail_share": 0.01})
    with working(station) as (daemon, desk):
        with pytest.raises(CommandError, match="no alarm") as refused:
            desk.acknowledge("fail", "top", by="Li Wei")
        assert refused.value.code == "unknown"
        number = 0
        while not (alarms := desk.status().alarms):
            number += 1
            assert number < 50
            judged = desk.trigger("top", number)
            time.sleep(0.05)
        (alarm,) = alarms
        assert (alarm.kind, alarm.where, alarm.acknowledged_us) == ("fail", "top", None)
        assert desk.status().alarm == f"top: {alarm.detail}"
        at = ("--address", daemon.commands)
        code, said, _ = running.inspector("acknowledge", "side", "--by", "Li Wei", *at)
        assert (code, said.strip()) == (0, "no alarm stands that nobody has seen")
        code, said, _ = running.inspector("acknowledge", "top", "--by", "Li Wei", *at)
        assert code == 0 and "alarm fail of top: acknowledged" in said
        desk.acknowledge("fail", "top", by="Ana")
        (seen,) = desk.status().alarms
        assert (seen.by, seen.detail) == ("Li Wei", alarm.detail)
        assert abs(seen.acknowledged_us - judged.judged_us) < 60_000_000
        # It stands all the same, at the terminal too, and parts are judged as before.
        code, *said = running.inspector("status", "--address", daemon.commands)
        assert code == 1 and "top acknowledged by Li Wei at " in " ".join("".join(said).split())
        assert desk.trigger("top", number + 1).verdict is Verdict.FAIL
        assert in_short(deeds(daemon)) == [("acknowledge", "Li Wei", "fail/top", "", "")]
        assert deeds(daemon)[0].note == alarm.detail
        # It ends, and the next one has been seen by nobody.
        desk.reload()
        assert desk.status().alarms == ()
        for more in range(2, number + 3):
            desk.trigger("top", number + more)
        until = time.monotonic() + 5
        while not (alarms := desk.status().alarms):
            assert time.monotonic() < until
        assert alarms[0].acknowledged_us is None


def test_parts_are_taught_only_from_one_model_to_its_heir():
    lesson = {
        "created": "2024-05-01T10:00:00+00:00",
        "parts": 5,
        "fingerprint": "1" * 64,
        "parent_version": "1",
        "parent_fingerprint": "0" * 64,
        "bank_replaced": 3,
    }
    second = lesson | {"parts": 2, "parent_fingerprint": "2" * 64}
    base = tiny.manifest(tiny.model())
    plain = Manifest.model_validate(base)
    once = Manifest.model_validate(base | {"lineage": [lesson], "training_fingerprint": "2" * 64})
    twice = Manifest.model_validate(base | {"lineage": [lesson, second]})
    other = Manifest.model_validate(base | {"training_fingerprint": "9" * 64})
    assert parts_taught(plain, once) == 5
    assert parts_taught(once, twice) == 2
    assert parts_taught(plain, twice) == 7
    for before, after in ((plain, plain), (once, plain), (other, once), (once, once)):
        assert parts_taught(before, after) == 0
