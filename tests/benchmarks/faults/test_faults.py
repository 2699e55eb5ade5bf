"""Every row of the faults table, much shortened: what it promises is kept, and it can fail."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("isolated cameras are Linux's", allow_module_level=True)

import inspector
from benchmarks.faults import (
    alarms,
    cameras,
    changeovers,
    config,
    frames,
    hangs,
    journals,
    lab,
    models,
    soak,
    strangers,
    subscribers,
    triggers,
)
from tests import running
from tests.paths import ROOT
from tests.stations import Recorded, verdict

REFUSING = """
import sys
from inspector.cli import main as cli
from inspector.wire import command_server as commands
commands._MOST_OUTSTANDING = 0
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""A station that takes no trigger."""


BLIND = """
import sys
from inspector.cli import main as cli
from inspector.journal.open_files import OpenFiles
OpenFiles.look = lambda self, *, written: ""
sys.exit(cli.main(["run", sys.argv[1]]))
"""
"""A station that does not look at its journal's files."""


def quiet(done: float, total: float) -> None:
    pass


def test_accounts_find_what_is_lost_duplicated_or_unexpected():
    tally = lab.settle({1, 2, 3, 4}, {1, 2}, [2, 2, 3, 5])
    assert (tally.lost, tally.duplicated, tally.unexpected, tally.recovered) == (1, 1, 1, 1)
    assert not tally.clean
    assert lab.settle({1, 2, 3}, {1, 2}, [2, 1]).clean


def test_quantile_is_a_value_that_was_measured():
    assert lab.quantile(range(1, 101), 0.99) == 99
    assert lab.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert lab.quantile([7.0], 0.99) == 7.0


def test_one_verdict_a_trigger(tmp_path):
    found = triggers.bursts(tmp_path, 400, quiet)
    assert found.holds, str(found)
    assert found.figures["verdicts_over_trigger"] > 0
    assert found.figures["verdicts_pass"] > 0


def test_kill_loses_nothing_acknowledged(tmp_path):
    found = triggers.kills(tmp_path, 2, quiet)
    assert found.holds, str(found)
    assert found.figures["triggers_acknowledged"] > 0


def test_a_wrong_picture_never_passes(tmp_path):
    found = frames.wrong_pictures(tmp_path, 10, quiet)
    assert found.holds, str(found)
    assert found.figures["changed"] > 0


def test_a_part_of_a_picture_that_passed_breaks_the_promise():
    passed = {"verdict": "PASS", "reason": ""}
    counts = frames.count(
        [
            {"camera": "video", "part_id": "frame-000001", **passed},
            {"camera": "photos", "part_id": "0000-several.tiff", **passed},
            {"camera": "stream", "part_id": "", "verdict": "FAULT", "reason": "frame_shape"},
            {"camera": "stream", "part_id": "", **passed},
        ]
    )
    assert (counts["cut"], counts["several"], counts["resized"]) == (1, 1, 1)


@pytest.mark.parametrize(("row", "trials"), [(triggers.bursts, 2), (triggers.kills, 1)])
def test_station_that_takes_no_trigger_keeps_no_promise(tmp_path, monkeypatch, row, trials):
    refusing = functools.partial(running.running, program=REFUSING)
    monkeypatch.setattr(running, "running", refusing)
    found = row(tmp_path, trials, quiet)
    assert not found.holds
    assert found.figures["triggers_refused"] > 0


def test_power_loss_loses_nothing_acknowledged(tmp_path):
    assert (found := triggers.power_cuts(tmp_path, 5, quiet)).holds, str(found)


def test_subscribers_end_complete(tmp_path):
    assert (found := subscribers.complete(tmp_path, 3, quiet, stopped=500)).holds, str(found)


def test_slow_subscriber_stalls_nobody(tmp_path):
    # So few say nothing of the last per cent: what is looked for is a stall.
    times = subscribers.compare(tmp_path, 50, quiet)
    assert max(times[True]) < 1.0
    assert lab.quantile(times[True], 0.5) < 2 * lab.quantile(times[False], 0.5)


def test_a_stall_of_many_is_told_from_one_bad_moment():
    calm = [[0.006] * 49 + [0.007]] * 20
    once = [*calm[1:], [0.050] * 50]
    always = [[0.006] * 48 + [0.009] * 2] * 20
    for crowded, calm_enough in ((once, True), (always, False)):
        taken = {False: list(itertools.chain(*calm)), True: list(itertools.chain(*crowded))}
        ratio, more_ms = subscribers.least_rise(taken)
        assert (ratio <= 1.1) == (more_ms <= 0.5) == calm_enough


def test_slow_subscriber_fills_no_memory(tmp_path):
    # Kept without a bound, so many verdicts are 11 % and more; SQLite's cache still fills.
    sizes = {"mark": 1000, "remembered": 1000, "past": 6000, "filled": 0, "compared": 500}
    growth, _, _ = subscribers.flood(tmp_path, **sizes)
    assert growth < 0.06


def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path):
    found = hangs.unread(tmp_path, 20, quiet)
    assert found.holds, str(found)


def test_a_share_that_hangs_holds_up_nothing(tmp_path):
    found = hangs.shares(tmp_path, 1, quiet)
    assert found.holds, str(found)
    assert found.figures["refused"] == 1


def test_camera_loss_is_a_fault_and_heals(tmp_path):
    chosen = [
        one
        for one in cameras.SCRIPTS
        if one.name in {"its process crashes", "returns a stale frame", "tears a frame"}
    ]
    found = cameras.play(tmp_path, chosen, 1, quiet)
    for what in ("faults_not_told", "false_passes", "not_recovered", "borne_without_cause"):
        assert found.figures[what] == 0, found
    assert found.figures["recovered_max_s"] < 5.0


def test_corrupted_models_are_refused(tmp_path, bundle_path):
    assert (found := models.models(tmp_path, 24, quiet, bundle_path)).holds, str(found)


def test_strangers_can_do_nothing(tmp_path):
    assert (found := strangers.strangers(tmp_path, 1, quiet)).holds, str(found)


def test_config_errors_are_refused_before_the_camera_opens(tmp_path):
    assert (found := config.config(tmp_path, 120, quiet)).holds, str(found)


def test_soak_goes_on_where_it_was_stopped(tmp_path):
    first = soak.soak(tmp_path, 0.03, quiet)
    assert first.figures["verdicts"] > 100
    assert soak.soak(tmp_path, 0.03, quiet).figures == first.figures
    more = soak.soak(tmp_path, first.figures["minutes"] + 0.03, quiet)
    assert more.figures["minutes"] > first.figures["minutes"]
    assert more.figures["numbers_left_out"] == 0
    assert more.figures["passed_newest"] > 0
    assert more.figures["passed_wide"] > 0


def soak_sample(at_s, **fields):
    one = dict.fromkeys(("memory", "handles", "threads", "children", "segments", "verdicts"), 100)
    return soak.Sample(at_s=at_s, **one | fields)


def write_soak(folder):
    """What a soak leaves: its station file and a verdict of each camera."""
    recorded = Recorded(folder / "journal")
    cameras = soak.load_station(soak._station(folder)).cameras
    recorded.commit([verdict(seq + 1, camera=one.name) for seq, one in enumerate(cameras)])
    recorded.close()


@pytest.mark.parametrize(
    ("what", "grown", "holds"),
    [("memory", 100, True), ("memory", 102, False), ("handles", 101, False), ("threads", 99, True)],
)
def test_soak_finds_what_grows(tmp_path, what, grown, holds):
    write_soak(tmp_path)
    run = [soak_sample(at_s, **{what: grown if at_s > 2096 else 100}) for at_s in range(0, 3601, 4)]
    assert soak._judge(tmp_path, [run], 3600.0).holds == holds


@pytest.mark.parametrize(
    ("pieces_s", "compared_min"), [([600] * 6, 5.0), ([3600], 50.0), ([2460, 600, 600], 31.0)]
)
def test_soak_in_pieces_is_as_long_as_one_of_them(tmp_path, pieces_s, compared_min):
    write_soak(tmp_path)
    runs = [[soak_sample(at_s) for at_s in range(0, piece + 1, 4)] for piece in pieces_s]
    found = soak._judge(tmp_path, runs, 3600.0)
    assert found.figures["minutes"] >= 60
    assert found.figures["minutes_compared"] == pytest.approx(compared_min, abs=0.1)
    assert found.holds == (compared_min >= 30)
    least_s = soak._long_enough_s(3600.0)
    assert soak._compared_s([soak_sample(least_s)]) >= 1800


def test_mutations_cover_every_key_of_the_example():
    example = config.yaml.safe_load(config.EXAMPLE.read_text(encoding="utf-8"))
    places = {one.place for one in config.mistakes(example) if one.how == "misspelt"}
    assert places == set(config.keys(example))
    known = {place[-1] for place in config.keys(config.complete(example))}
    assert known >= set(config.Station.model_fields)


@pytest.mark.parametrize(
    ("place", "how", "line", "clear"),
    [
        (("sockets", "images"), "mistyped", "12: sockets.images: must be a string", True),
        (("sockets", "images"), "mistyped", "12: sockets: must be a string", False),
        (("sockets", "images"), "mistyped", "12: sockets.images2: must be a string", False),
        (("recipe",), "out of range", "3: recipe: 'x' is not among the recipes a", True),
        (("recipe",), "out of range", "3: file: there is no such one among the recipes a", False),
        (("station",), "misspelt", "1: statio: unknown key", True),
        (("station",), "misspelt", "1: station: missing; add it", True),
        (("station",), "misspelt", "1: file: unknown key", False),
        (("station",), "mistyped", "1: file: must be a string", False),
        (("station",), "mistyped", " station: must be a string", False),
    ],
)
def test_line_that_names_another_key_is_not_clear(place, how, line, clear):
    path = Path("/recipe/station.yaml")
    said = f"inspector: error: {path}:{line}\n"
    assert config.names(config.Wrong(how, place, {}), said, path) == clear


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the folder of the start comes first there")
def test_children_import_this_checkout(tmp_path, monkeypatch):
    (tmp_path / "inspector").mkdir()
    for name in ("__init__", "cli"):
        (tmp_path / "inspector" / f"{name}.py").write_text("raise SystemExit(77)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert running.environment()["PYTHONPATH"] == f"{ROOT}{os.pathsep}{tmp_path}"
    code, said, _ = running.inspector("--version")
    assert (code, said.strip()) == (0, inspector.__version__)


def test_without_its_journal_a_station_passes_no_part(tmp_path, monkeypatch):
    found = journals.taken_away(tmp_path, 1, quiet)
    assert found.holds, str(found)
    assert (found.figures["asked"], found.figures["before"]) == (5, 10)
    blind = functools.partial(running.running, program=BLIND)
    monkeypatch.setattr(running, "running", blind)
    found = journals.taken_away(tmp_path, 1, quiet)
    assert not found.holds
    assert (found.figures["judged"], found.figures["lost"]) == (5, 10)


def test_odd_things_end_nothing(tmp_path):
    found = journals.odd_things(tmp_path, 1, quiet)
    assert found.holds, str(found)
    assert found.figures["damaged"] >= 1


def test_changeovers_outlive_kills_and_the_row_can_fail(tmp_path, monkeypatch):
    found = changeovers.changeovers(tmp_path / "kept", 1, quiet)
    assert found.holds, str(found)
    assert found.figures["answered"] == 1
    (tmp_path / "sitecustomize.py").write_text(
        "from inspector.journal import writer\nwriter.Journal.keep = lambda *_: None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert changeovers.changeovers(tmp_path / "lost", 1, quiet).figures["wrong_recipe"] == 1


def test_alarms_come_where_they_must_and_only_there(tmp_path):
    found = alarms.alarms(tmp_path, 20, quiet)
    assert found.holds, str(found)
    assert set(found.figures) == {"parts_until_alarm_FAIL", "parts_until_alarm_FAULT"}
