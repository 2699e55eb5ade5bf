"""The watch over the shares of FAIL and FAULT: its promises, its words, a station that tells."""

from __future__ import annotations

import random
import re
import statistics
import time
import urllib.request

import pytest

from inspector.cli import output, status
from inspector.client import Commander
from inspector.config.station_file import Alarm
from inspector.judging.alarms import _TOLD_BY_STATE, FIRST_LOOK, Alarms, RateWatch
from inspector.verdict import Reason, Verdict
from tests import running, stations, tiny
from tests.paths import ROOT


def run_length(share: float, usual: float, between: int, seed: int) -> int:
    """Parts until the alarm when ``share`` of them are bad."""
    watch, draw, parts = RateWatch(usual, between), random.Random(seed), 0
    while not watch.alarm:
        parts += 1
        watch.note(draw.random() < share)
    return parts


@pytest.mark.long
@pytest.mark.parametrize("usual", [0.02, 0.2, 0.6])
def test_false_alarms_are_as_rare_as_promised(usual):
    """Run lengths are nearly exponential: the mean of 100 is above 0.75 of theirs in 99 of 100."""
    lengths = [run_length(usual, usual, 500, seed) for seed in range(100)]
    assert statistics.mean(lengths) > 0.75 * 500
    # A share below the usual one raises fewer.
    fewer = [run_length(0.8 * usual, usual, 20, seed) for seed in range(100)]
    assert statistics.mean(fewer) > statistics.mean(
        [run_length(usual, usual, 20, seed) for seed in range(100)]
    )


def test_when_everything_fails_the_alarm_comes_within_ten_parts():
    settings = Alarm()
    between = settings.parts_between_false_alarms
    assert run_length(1.0, settings.fail_share, between, 0) <= 10
    assert run_length(1.0, settings.fault_share, between, 0) <= 5


@pytest.mark.parametrize("page", ["config/station.yaml", "docs/operations.md"])
def test_the_pages_say_how_many_fails_in_a_row_are_enough(page):
    settings = Alarm()
    words = ["seven", "eight", "nine", "ten", "eleven"]
    length = run_length(1.0, settings.fail_share, settings.parts_between_false_alarms, 0)
    told = re.findall(r"(\w+) FAILs in a row", (ROOT / page).read_text(encoding="utf-8"))
    assert told == [words[length - 7]]


@pytest.mark.parametrize("good_before", [0, 1, 37, 1000, 99_999])
def test_it_does_not_matter_when_the_trouble_begins(good_before):
    """Unlike in a fixed window: what came before delays nothing."""
    watch = RateWatch(0.2, 100_000)
    for _ in range(min(good_before, 5000)):
        assert not watch.note(False)
    bad = 0
    while not watch.alarm:
        watch.note(True)
        bad += 1
    assert bad == 9
    assert watch.alarm == "9 of 9"


@pytest.mark.parametrize(("share", "within"), [(0.4, 250), (0.3, 700), (0.6, 60)])
def test_a_raised_share_is_found(share, within):
    lengths = [run_length(share, 0.2, 100_000, seed) for seed in range(40)]
    assert statistics.median(lengths) < within


def test_an_alarm_ends_by_itself_once_parts_are_good_again():
    for bad in (9, 222, 10_000):
        watch = RateWatch(0.2, 100_000)
        assert sum(watch.note(True) for _ in range(bad)) == 1
        good = 0
        while watch.alarm:
            watch.note(False)
            good += 1
        assert good < 300, "however long the trouble lasted"
        assert sum(watch.note(True) for _ in range(9)) == 1, "and the next one is found as fast"


def test_no_watch_where_none_is_wanted():
    watch = RateWatch(0.2, 0)
    assert not any(watch.note(True) for _ in range(1000))


def verdicts(kind: Verdict, reason: Reason = Reason.NONE, recipe: str = "r", camera: str = "top"):
    score = None if kind is Verdict.FAULT else 1.0
    return stations.verdict(
        1, verdict=kind.value, reason=reason.value, score=score, recipe=recipe, camera=camera
    )


def note(alarms: Alarms, count: int, *what, **more) -> None:
    for _ in range(count):
        alarms.note(verdicts(*what, **more))


def test_every_fault_has_words_for_where_to_look_first():
    faults = set(Reason) - {Reason.NONE, Reason.ANOMALY}
    assert set(FIRST_LOOK) == faults - _TOLD_BY_STATE
    for reason in FIRST_LOOK:
        alarms = Alarms(Alarm())
        note(alarms, 1, Verdict.FAULT, Reason.CAMERA_LOST)
        note(alarms, 10, Verdict.FAULT, reason)
        assert "top: 4 of 4 parts FAULT, usual are at most 2 in 100" in alarms.in_words("r")
        assert FIRST_LOOK[reason] in alarms.in_words("r")


def test_where_to_look_first_depends_on_whether_any_part_passed():
    alarms = Alarms(Alarm())
    note(alarms, 20, Verdict.FAIL, Reason.ANOMALY)
    assert "none has passed so far: check that recipe 'r' is for this product" in (
        alarms.in_words("r")
    )
    alarms.forget()
    assert alarms.in_words("r") == ""
    note(alarms, 20, Verdict.PASS)
    note(alarms, 20, Verdict.FAIL, Reason.ANOMALY)
    assert "parts have passed before: look at a part that failed" in alarms.in_words("r")


def test_what_counts_where(caplog):
    caplog.set_level("INFO", logger="inspector")
    alarms = Alarms(Alarm())
    # A station that is not Ready says so in its state.
    for reason in _TOLD_BY_STATE:
        note(alarms, 100, Verdict.FAULT, reason)
    assert alarms.in_words("r") == ""
    # FAULTs between them neither hide FAILs nor count as such.
    for _ in range(9):
        note(alarms, 1, Verdict.FAIL, Reason.ANOMALY)
        note(alarms, 1, Verdict.FAULT, Reason.TOO_DARK)
    assert [one[:2] for one in alarms.standing("r")] == [
        ("top", Verdict.FAULT),
        ("top", Verdict.FAIL),
    ]
    # Another camera and another recipe stand by themselves, and return with their recipe.
    note(alarms, 9, Verdict.PASS, camera="side")
    note(alarms, 9, Verdict.FAIL, Reason.ANOMALY, recipe="s", camera="side")
    assert [one[:2] for one in alarms.standing("s")] == [("side", Verdict.FAIL)]
    assert {one[0] for one in alarms.standing("r")} == {"top"}
    note(alarms, 400, Verdict.PASS, recipe="s", camera="side")
    assert alarms.in_words("s") == ""
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" recipe=")[0] for line in said] == [
        "alarm verdict=FAULT",
        "alarm verdict=FAIL",
        "alarm verdict=FAIL",
        "alarm over verdict=FAIL",
    ]


def test_a_station_whose_parts_all_fail_says_so(tmp_path, bundle_path, capsys):
    """222 of 222 FAIL, and the status was OK."""
    parts = running.write_parts(tmp_path / "parts", tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=5000)
    path = running.write_station(
        tmp_path / "station.yaml", bundle_path, camera, metrics="127.0.0.1:0"
    )
    with running.running(path) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        metrics = daemon.wait_for_log(r" metrics address=(\S+)\n")[1]
        for number in range(1, 23):
            assert plc.trigger("top", number).verdict is Verdict.FAIL
        daemon.wait_for_log(r"WARNING alarm verdict=FAIL recipe=r camera=top seq=9 ")
        found = alarmed(plc, True, state="Ready")
        assert found.alarm.startswith("top: 9 of 9 parts FAIL, usual are at most 20 in 100; none")
        code, out, _ = running.inside("status", daemon.commands)
        assert (code, out.splitlines()[0][:30]) == (1, "WARNING line-1 Ready, alarm: t")
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as reply:
            figures = reply.read().decode()
        assert 'inspector_alarm{camera="top",verdict="FAIL"} 1.0' in figures
        assert 'inspector_alarm{camera="top",verdict="FAULT"} 0.0' in figures
        plc.reload()
        assert alarmed(plc, False).alarm == ""
        daemon.wait_for_log(r"WARNING alarm verdict=FAIL recipe=r camera=top seq=9 ")
        daemon.child.terminate()
        assert daemon.child.wait(running.START_S) == 0
    assert status.assess(found)[0].text == f"alarm: {found.alarm}"
    lines = output.Lines(output.Terminal(width=300))
    lines.status(found)
    lines.status(found)
    lines.status(found.model_copy(update={"alarm": ""}))
    shown = capsys.readouterr().out
    assert shown.count("ALARM top: 9 of 9 parts FAIL") == 1
    assert shown.endswith("the alarm is over\n")


def alarmed(plc: Commander, wanted: bool, state: str = ""):
    """The first status with an alarm, or without one: it is made once a second."""
    until = time.monotonic() + running.START_S
    while bool((found := plc.status()).alarm) is not wanted or found.state != (
        state or found.state
    ):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found
