"""A changeover outlives a crash; a station file that was changed meanwhile is asked about."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
import yaml

from inspector.client import Commander
from inspector.config.station_file import Station, load_station
from inspector.errors import CommandError, JournalError
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, RecipeInForce
from inspector.journal.writer import Journal
from inspector.station import recorder as recorder_module
from inspector.station.file_changes import changes_since
from inspector.station.recipes import choose
from inspector.station.recorder import KeepEntry, Recorder, VerdictEntry
from inspector.verdict import Verdict
from tests import running, stations, tiny

LINE = "line-1"


def station_file(folder: Path, bundle: Path, recipe: str = "a", names: str = "abc") -> Path:
    """A triggered camera that shows good parts; recipe b's limit factor is 2, the others' 1."""
    parts = folder / "parts"
    if not parts.exists():
        running.write_parts(parts, tiny.good_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=5000)
    recipes = {
        name: {"top": {"bundle": str(bundle), "limit_factor": 2.0 if name == "b" else 1.0}}
        for name in names
    }
    path = folder / "station.yaml"
    return running.write_station(path, bundle, camera, recipes=recipes, recipe=recipe)


def kept(folder: Path) -> RecipeInForce | None:
    with Reader(folder / "journal") as reader:
        return reader.in_force(LINE)


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path) -> Station:
    return load_station(station_file(tmp_path, bundle_path))


@pytest.mark.parametrize(
    ("before", "of_file", "ordered", "recipe", "source", "asked"),
    [
        (None, "", None, "a", "file", ""),
        ("b", "a", None, "b", "journal", ""),
        ("a", "a", None, "a", "file", ""),
        # The file was brought in line with the changeover: nothing to ask.
        ("a", "c", None, "a", "file", ""),
        ("b", "c", None, "b", "journal", "now names 'a', no longer 'c'"),
        ("gone", "a", None, "a", "file", "no longer has it"),
        ("none", "a", None, "a", "file", "'none' was in force"),
        ("gone", "a", "c", "c", "command", ""),
        ("b", "c", "a", "a", "command", ""),
    ],
)
def test_a_start_goes_on_with_what_was_in_force(
    station, before, of_file, ordered, recipe, source, asked
):
    row = None if before is None else RecipeInForce(LINE, before, of_file)
    choice = choose(station, row, ordered)
    assert (choice.recipe, choice.source, bool(choice.question)) == (recipe, source, bool(asked))
    assert asked in choice.question
    # While nobody has answered, the next start asks the same again.
    assert choice.kept == (row if asked else RecipeInForce(LINE, recipe, "a"))


def test_a_recipe_may_be_called_none(tmp_path, bundle_path):
    path = station_file(tmp_path, bundle_path, recipe="a", names=["a", "none"])
    choice = choose(load_station(path), RecipeInForce(LINE, "none", "a"))
    assert (choice.recipe, choice.source, choice.question) == ("none", "journal", "")


@pytest.mark.long
def test_a_changed_station_file_is_asked_about_until_somebody_answers(tmp_path, bundle_path):
    path = station_file(tmp_path, bundle_path)
    with contextlib.closing(Journal(tmp_path / "journal")) as journal:
        journal.keep(RecipeInForce(LINE, "b", "a"))
    # The file begins with another recipe than at the last start: only the line knows.
    station_file(tmp_path, bundle_path, recipe="c")
    code, out, _ = running.inside("check", path)
    assert code == 10
    assert "station file now names 'c', no longer 'a'" in out
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Error")
        found = plc.trigger("top", 2)
        assert (found.verdict, found.reason) == (Verdict.FAULT, "not_ready")
        code, out, _ = running.inside("status", daemon.commands)
        assert code == 2
        assert "inspector recipe NAME" in out
        # To read the bundles again answers nothing.
        plc.reload()
        assert plc.status().state == "Error"
        daemon.child.send_signal(signal.SIGKILL)
        daemon.child.wait(running.START_S)
    # Nobody answered, so it is asked again.
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Error")
        plc.recipe("b")
        assert plc.status().state == "Ready"
        assert plc.trigger("top", 3).recipe == "b"
    assert kept(tmp_path) == RecipeInForce(LINE, "b", "c")


@pytest.mark.long
def test_run_recipe_answers_for_a_recipe_that_is_gone(tmp_path, bundle_path):
    path = station_file(tmp_path, bundle_path, names="ac")
    with contextlib.closing(Journal(tmp_path / "journal")) as journal:
        journal.keep(RecipeInForce(LINE, "b", "a"))
    code, _, err = running.inside("run", path, "--recipe", "b")
    assert (code, err.count("\n")) == (10, 1)
    assert "there is no 'b', as --recipe asks; choose one of a, c" in err
    code, out, _ = running.inside("check", path)
    assert (code, "no longer has it" in out) == (10, True)
    with running.running(path, "--recipe", "c") as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        assert plc.trigger("top", 1).recipe == "c"
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0
    assert kept(tmp_path) == RecipeInForce(LINE, "c", "a")
    code, out, _ = running.inside("check", path)
    assert code == 0, out
    assert "'c' goes on: the journal has it in force" in out


def test_a_changeover_that_crashes_halfway_leaves_the_recipe_before(tmp_path, bundle_path):
    """Killed while the new bundle is being checked: no part was judged by it, nobody was told."""
    path = station_file(tmp_path, bundle_path)
    program = """
import os, signal, sys
from inspector.cli import main as cli
from inspector.judging import judges
load = judges.load
def dying(station, *rest):
    if station.recipe == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return load(station, *rest)
judges.load = dying
sys.exit(cli.main(["run", sys.argv[1]]))
"""
    with running.running(path, program=program) as daemon, Commander(daemon.commands) as plc:
        with pytest.raises(CommandError):
            plc.recipe("b", timeout_s=2)
        daemon.child.wait(running.START_S)
    assert kept(tmp_path) == RecipeInForce(LINE, "a", "a")


def test_a_changeover_that_is_rolled_back_asks_again_what_it_had_answered(tmp_path, bundle_path):
    other = tiny.write_bundle(tmp_path / "other.onnx", name="other")
    parts = running.write_parts(tmp_path / "parts", tiny.nan_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True)
    path = running.write_station(tmp_path / "station.yaml", bundle_path, camera)
    document = yaml.safe_load(path.read_text())
    document["recipes"]["next"] = {"top": {"bundle": str(other)}}
    path.write_text(yaml.safe_dump(document))
    before = RecipeInForce(LINE, "r", "old")
    with contextlib.closing(Journal(tmp_path / "journal")) as journal:
        journal.keep(before)
    document["recipe"] = "next"
    path.write_text(yaml.safe_dump(document))
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Error")
        plc.recipe("next")
        assert plc.status().state == "Ready"
        assert plc.trigger("top", 1).verdict is Verdict.FAULT
        daemon.wait_for_log(r"rolled back")
        status = plc.status()
        assert (status.recipe, status.state) == ("r", "Error")
        assert "'next', no longer 'old'" in status.trouble
    assert kept(tmp_path) == before


def test_a_journal_from_before_recipes_were_kept_goes_on(tmp_path):
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin("e", 1)
        journal.commit((), [stations.verdict(1, "e")])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        later = ("recipe_in_force", "damaged", "stop_order", "delivered")
        for table in (
            *later,
            "search",
            "aside",
            "mark",
            "limit_in_force",
            "deed",
            "bundle_in_force",
        ):
            db.execute(f"DROP TABLE {table}")
        for column in ("lot", "purpose"):
            db.execute(f"ALTER TABLE open_trigger DROP COLUMN {column}")
        db.execute("PRAGMA user_version=1")
    with Reader(tmp_path) as reader:
        assert reader.in_force(LINE) is None
    with contextlib.closing(Journal(tmp_path)) as journal:
        assert journal.in_force(LINE) is None
        journal.keep(RecipeInForce(LINE, "b", "a"))
        journal.keep(RecipeInForce("line-2", "x", "x"))
        assert journal.in_force(LINE) == RecipeInForce(LINE, "b", "a")
    with Reader(tmp_path) as reader:
        assert reader.count() == 1
        assert reader.in_force("line-2") == RecipeInForce("line-2", "x", "x")


class Disk:
    """Lists what is written, in its order; full when told so."""

    def __init__(self) -> None:
        self.full = False
        self.written: list[str] = []

    def commit(self, _triggers, verdicts):
        self._check()
        self.written += [f"{one.seq} {one.verdict}" for one in verdicts]

    def keep(self, recipe, _deed=None):
        self._check()
        self.written.append(recipe.recipe)

    def tend(self):
        self._check()

    def _check(self) -> None:
        if self.full:
            raise JournalError("disk full")


class Wire:
    def send_verdict(self, message):
        pass

    def send_status(self, message):
        pass


def test_a_recipe_is_recorded_before_the_first_verdict_that_it_gave(monkeypatch):
    monkeypatch.setattr(recorder_module, "_TEND_S", 0.02)
    disk = Disk()
    recorder = Recorder(disk, Wire(), on_trouble=lambda _: None)
    heard: list[bool] = []
    disk.full = True
    recorder.put(KeepEntry(RecipeInForce(LINE, "b", "a"), heard.append))
    recorder.start()
    while not heard:
        time.sleep(0.005)
    assert (heard, disk.written) == ([False], [])
    disk.full = False
    while "b" not in disk.written:
        time.sleep(0.005)
    recorder.put(KeepEntry(RecipeInForce(LINE, "c", "a"), heard.append))
    recorder.put(VerdictEntry(stations.verdict(1)))
    recorder.finish()
    assert heard == [False, True]
    assert disk.written == ["b", "c", "1 PASS"]


@pytest.mark.long
def test_a_reload_says_what_of_the_station_file_is_not_in_force(tmp_path, bundle_path):
    path = station_file(tmp_path, bundle_path)
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        assert plc.reload() == "recipe a: top by tiny 1"
        document = yaml.safe_load(path.read_text())
        document["recipes"]["a"]["top"]["limit_factor"] = 1.2
        document["recipes"]["new"] = document["recipes"]["a"]
        path.write_text(yaml.safe_dump(document))
        for done in (plc.reload(), plc.recipe("a")):
            assert "top by tiny 1; not in force yet: " in done
            assert f"{path} was changed since the start (recipes.a.top.limit_factor, " in done
            assert "recipes.new); that counts from the next start" in done
        daemon.wait_for_log(r"WARNING station file detail=.*limit_factor")
        with pytest.raises(CommandError, match="at the start the station file had a, b, c"):
            plc.recipe("new")
        assert plc.trigger("top", 1).limit_factor == 1.0
        path.write_text("station: [")
        assert f"the next start would be refused: {path}:1: not YAML" in plc.reload()
        path.unlink()
        os.mkfifo(path)
        assert "it is no file" in plc.reload()
        assert "limit_factor" not in running.inside("status", daemon.commands)[1]
        plc.recipe("b")
        assert (
            ", limit_factor 2 (more tolerant than the bundle)"
            in (running.inside("status", daemon.commands)[1])
        )
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0
        path.unlink()


def test_what_was_changed_is_named_as_it_is_nested_in_the_file(tmp_path, bundle_path):
    path = station_file(tmp_path, bundle_path)
    station = load_station(path)
    assert changes_since(path, station, bool) == ""
    text = path.read_text()
    path.write_text("# only a comment\n" + text)
    assert changes_since(path, station, bool) == ""
    document = yaml.safe_load(text)
    document["cameras"][0]["deadline_ms"] = 400
    document["drift"] = {"parts_between_false_alarms": 5}
    document["alarm"] = {"fail_share": 0.5, "fault_share": 0.5}
    path.write_text(yaml.safe_dump(document))
    shown = "drift.parts_between_false_alarms, alarm.fail_share, alarm.fault_share and 1 more"
    assert f"({shown})" in changes_since(path, station, bool)
    document = yaml.safe_load(text)
    document["cameras"][0]["deadline_ms"] = 400
    path.write_text(yaml.safe_dump(document))
    assert "(cameras.top.deadline_ms)" in changes_since(path, station, bool)
