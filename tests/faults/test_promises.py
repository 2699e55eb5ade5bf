"""Every row of benchmarks/faults.py, much shortened: what it promises is kept, and it can fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("isolated cameras are Linux's", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import faults_cameras
import faults_config
import faults_lab
import faults_refusals
import faults_soak
import faults_triggers
import faults_wire


def quiet(done: float, total: float) -> None:
    pass


def test_accounts_find_what_is_lost_duplicated_or_unexpected():
    tally = faults_lab.settle({1, 2, 3, 4}, {1, 2}, [2, 2, 3, 5])
    assert (tally.lost, tally.duplicated, tally.unexpected, tally.recovered) == (1, 1, 1, 1)
    assert not tally.clean
    assert faults_lab.settle({1, 2, 3}, {1, 2}, [2, 1]).clean


def test_quantile_is_a_value_that_was_measured():
    assert faults_lab.quantile(range(1, 101), 0.99) == 99
    assert faults_lab.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert faults_lab.quantile([7.0], 0.99) == 7.0


def test_one_verdict_a_trigger(tmp_path):
    found = faults_triggers.bursts(tmp_path, 400, quiet)
    assert found.holds, found
    assert found.figures["verdicts_over_trigger"] > 0
    assert found.figures["verdicts_pass"] > 0


def test_kill_loses_nothing_acknowledged(tmp_path):
    found = faults_triggers.kills(tmp_path, 2, quiet)
    assert found.holds, found
    assert found.figures["triggers_acknowledged"] > 0


def test_power_loss_loses_nothing_acknowledged(tmp_path):
    assert (found := faults_triggers.power_cuts(tmp_path, 5, quiet)).holds, found


def test_subscribers_end_complete(tmp_path):
    assert (found := faults_wire.complete(tmp_path, 3, quiet)).holds, found


def test_slow_subscriber_stalls_nobody(tmp_path):
    # So few say nothing of the last per cent: what is looked for is a stall.
    times = faults_wire.compare(tmp_path, 50, quiet)
    assert max(times[True]) < 1.0
    assert faults_lab.quantile(times[True], 0.5) < 2 * faults_lab.quantile(times[False], 0.5)


def test_camera_loss_is_a_fault_and_heals(tmp_path):
    chosen = [
        one
        for one in faults_cameras.SCRIPTS
        if one.name in {"its process crashes", "returns a stale frame", "tears a frame"}
    ]
    found = faults_cameras.play(tmp_path, chosen, 1, quiet)
    for what in ("faults_not_told", "false_passes", "not_recovered", "borne_without_cause"):
        assert found.figures[what] == 0, found
    assert found.figures["recovered_max_s"] < 5.0


def test_corrupted_models_are_refused(tmp_path, bundle_path):
    assert (found := faults_refusals.models(tmp_path, 24, quiet, bundle_path)).holds, found


def test_strangers_can_do_nothing(tmp_path):
    assert (found := faults_refusals.strangers(tmp_path, 1, quiet)).holds, found


def test_config_errors_are_refused_before_the_camera_opens(tmp_path):
    assert (found := faults_config.config(tmp_path, 120, quiet)).holds, found


def test_soak_goes_on_where_it_was_stopped(tmp_path):
    first = faults_soak.soak(tmp_path, 0.04, quiet)
    assert first.figures["verdicts"] > 100
    assert faults_soak.soak(tmp_path, 0.04, quiet).figures == first.figures
    more = faults_soak.soak(tmp_path, 0.08, quiet)
    assert more.figures["minutes"] > first.figures["minutes"]
    assert more.figures["numbers_left_out"] == 0
    for what in ("handles", "threads", "segments"):
        assert more.figures[f"{what}_more"] <= 0, more


def test_mutations_cover_every_key_of_the_example():
    example = faults_config.yaml.safe_load(faults_config.EXAMPLE.read_text(encoding="utf-8"))
    places = {one.place for one in faults_config.mistakes(example) if one.how == "misspelt"}
    assert places == set(faults_config.keys(example))
    known = {place[-1] for place in faults_config.keys(faults_config.complete(example))}
    assert known >= set(faults_config.Station.model_fields)
