"""Every row of the table of PLCs, much shortened: it holds, and it can fail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("stations are tried on Linux", allow_module_level=True)

from benchmarks import rows
from benchmarks.console import __main__ as console
from benchmarks.figures import Figure
from benchmarks.plc import __main__ as command
from benchmarks.plc import books, clone, latency, method_call, modbus, not_ready, opcua
from benchmarks.plc.books import FAIL, FAULT, NONE, PASS, Accounts, Books
from benchmarks.plc.line import HEARTBEAT_S, TIMEOUT_S, Cable
from benchmarks.plc.opcua_plc import OpcuaPlc
from benchmarks.plc.register_write import measure as register_write
from inspector.bridges.simulated_plc import FunctionBlock, Seen

PARTS = 24


def quiet(done: int, total: int) -> None:
    pass


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    found = {figure.name: figure for figure in figures}
    assert len(found) == len(figures), "each figure has a name of its own"
    return found


def broken(figures: list[Figure]) -> set[str]:
    return {figure.name for figure in figures if figure.holds is False}


# What is counted.


class Counted:
    """Books with two parts, the second of them defective, and what the PLC made of them."""

    def __init__(self) -> None:
        self.books = Books(TIMEOUT_S)
        self.books.trigger("good", 0.5)
        self.books.trigger("bad", 1.5)
        self.journal = {"good": "PASS", "bad": "FAIL"}

    def honest(self, *but: str) -> Counted:
        if "good" not in but:
            self.books.end("good", PASS, "", 0.5, "good")
        if "bad" not in but:
            self.books.end("bad", FAIL, "anomaly", 1.5, "bad")
        return self

    def sums(self) -> Accounts:
        return books.settle(self.books, self.journal)

    def broken(self) -> set[str]:
        return broken(books.figures(self.sums(), Counter(), ()))


def test_honest_accounts_hold():
    sums = Counted().honest().sums()
    assert (sums.triggers, sums.results, sums.passes, sums.bad_caught) == (2, 2, 1, 1)
    assert not Counted().honest().broken()


MISSING = "triggers less results, overruns and time-outs"


def test_a_part_without_an_end_is_told():
    assert Counted().honest("good").sums().missing == 1
    assert MISSING in Counted().honest("good").broken()


def test_an_end_that_came_twice_or_for_no_part_is_told():
    twice = Counted().honest()
    twice.books.end("good", PASS, "", 0.5, "good")
    nobody = Counted().honest()
    nobody.books.end("nobody", FAULT, "restarted", -1.0, "nobody")
    # One lost and one doubled are not even.
    both = Counted().honest("bad")
    both.books.end("good", PASS, "", 0.5, "good")
    for counted in (twice, nobody, both):
        assert MISSING in counted.broken()


def test_a_bad_part_that_passes_is_told_whatever_the_station_says():
    counted = Counted().honest("bad")
    counted.journal["bad"] = "PASS"
    counted.books.end("bad", PASS, "", 1.5, "bad")
    assert counted.sums().false_passes == 1
    assert "false passes" in counted.broken()


@pytest.mark.parametrize(("score", "told_id"), [(0.5, "other"), (0.25, "good")])
def test_another_parts_result_is_told_by_its_name_or_by_its_score(score, told_id):
    counted = Counted().honest("good")
    counted.books.end("good", PASS, "", score, told_id)
    assert counted.broken() == {"another part's result"}


def test_a_result_that_the_journal_does_not_have_is_told():
    counted = Counted().honest()
    del counted.journal["good"]
    assert counted.broken() == {"results that the journal tells otherwise"}


def test_a_time_out_needs_something_that_was_done_to_the_line():
    counted = Counted().honest("good")
    counted.books.end("good", NONE)
    sums = counted.sums()
    assert (sums.missing, sums.timeouts, sums.unexplained) == (0, 1, 1)
    now_s = time.monotonic()
    counted.books.disturbed.append((now_s - 10, now_s - 9))
    assert counted.sums().unexplained == 1, "that was over before the part came"
    counted.books.disturbed.append((now_s - 9, now_s))
    assert counted.sums().unexplained == 0


def test_a_pass_after_the_plcs_own_time_is_told():
    counted = Counted()
    counted.books.timeout_s = -1.0
    assert counted.honest().broken() == {"passes after the PLC's own time"}


def test_a_kind_of_disturbance_that_never_came_breaks_the_row():
    figures = books.figures(Counted().honest().sums(), Counter({"a": 3}), ("a", "b"))
    assert broken(figures) == {"kinds of these not done"}


def test_neighbours_never_score_alike(tmp_path):
    stand = books.Stand(tmp_path, "part")
    scores = [stand.place()[1] for _ in range(600)]
    assert sum(score >= 1 for score in scores) == 200
    for at, score in enumerate(scores):
        assert score not in scores[at + 1 : at + 20]


# Parts, through real stations and bridges.


class Losing(FunctionBlock):
    """A PLC that forgets a part."""

    def scan(self, read: Any, now_s: float) -> Iterator[Seen]:
        for seen in super().scan(read, now_s):
            if not seen.part_id.endswith("0004"):
                yield seen


class Passing(FunctionBlock):
    """A PLC that lets everything through that has a result."""

    def scan(self, read: Any, now_s: float) -> Iterator[Seen]:
        for seen in super().scan(read, now_s):
            yield Seen(seen.part_id, 1, "", seen.score, seen.took_ms)


class Swapping(FunctionBlock):
    """A PLC that takes the results of two parts, and has them the wrong way round."""

    def scan(self, read: Any, now_s: float) -> Iterator[Seen]:
        for seen in super().scan(read, now_s):
            before, self.before = getattr(self, "before", None), seen
            if before is not None:
                yield Seen(before.part_id, seen.verdict, seen.reason, seen.score, seen.took_ms)
                yield Seen(seen.part_id, before.verdict, before.reason, before.score, 0)
                self.before = None


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (FunctionBlock, set()),
        (Losing, {MISSING}),
        (Passing, {"false passes", "results that the journal tells otherwise"}),
        (Swapping, {"another part's result", "false passes"}),
    ],
)
def test_parts_over_modbus(tmp_path, make, told):
    figures = modbus.parts(tmp_path, PARTS, quiet, kinds=(), make=make)
    found = by_name(figures)
    assert found["triggers"].value >= PARTS
    if not told:
        assert not broken(figures) - {"wraps of TriggerSeq"}
    assert told <= broken(figures), broken(figures)


@pytest.mark.parametrize("kind", ["bridge killed", "acknowledgements missing"])
def test_parts_over_modbus_while_something_is_done_to_the_line(tmp_path, kind):
    figures = modbus.parts(tmp_path, PARTS, quiet, kinds=[kind])
    assert not broken(figures) - {"wraps of TriggerSeq"}
    assert by_name(figures)[f"done to the line: {kind}"].value >= 1


class Careless(OpcuaPlc):
    """A PLC that takes any event for its part's, and lets everything through."""

    def _take(self, meas_id: str, event: Any) -> None:
        if hasattr(event, "ResultContent"):
            event.ResultContent[0].Value = PASS
        super()._take(meas_id, event)


@pytest.mark.parametrize(("make", "told"), [(OpcuaPlc, set()), (Careless, {"false passes"})])
def test_parts_over_opcua(tmp_path, make, told):
    pytest.importorskip("asyncua")
    figures = opcua.parts(tmp_path, PARTS, quiet, kinds=(), make=make)
    assert by_name(figures)["triggers"].value >= PARTS
    assert told <= broken(figures) if told else not broken(figures), broken(figures)


# Times.


def test_what_a_bridge_adds_is_a_difference_of_the_same_run():
    goals = [(0.5, 2.0), (0.99, 5.0)]
    held = by_name(latency.figures("x", [7.0] * 99 + [30.0], [5.5] * 100, goals))
    assert (held["the bridge adds, p50"].value, held["the bridge adds, p50"].holds) == (1.5, True)
    assert held["the bridge adds, p99"].value == 1.5
    slow = latency.figures("x", [7.6] * 90 + [30.0] * 10, [5.5] * 100, goals)
    assert broken(slow) == {"the bridge adds, p50", "the bridge adds, p99"}


def test_a_register_write_and_a_method_call_are_timed(tmp_path):
    pytest.importorskip("asyncua")
    for measure in (register_write, method_call.measure):
        figures = measure(tmp_path / measure.__module__, 5, quiet)
        over, under = figures[0], figures[1]
        # Which of a few is quicker is chance on a machine that does other things, too.
        assert 0 < under.value < 5000 and 0 < over.value < 5000


class Trusting(not_ready.IdlePlc):
    """A PLC that believes that all is well for a second and a half more."""

    def scans(self, for_s: float) -> Iterator[bool]:
        for ready in super().scans(for_s):
            if ready:
                self.ready_s = time.monotonic()
            yield time.monotonic() < getattr(self, "ready_s", 0.0) + 1.5


@pytest.mark.parametrize(("make", "holds"), [(not_ready.IdlePlc, True), (Trusting, False)])
def test_a_plc_sees_that_nobody_judges(tmp_path, make, holds):
    kinds = [("cable to the station silent",)]
    figures = not_ready.measure(tmp_path, 2, quiet, kinds=kinds, make=make)
    assert not_ready.LIMIT_S == HEARTBEAT_S + 2 * not_ready.CYCLE_S
    assert (figures[1].holds, figures[1].value == 2) == (holds, holds)


def test_a_clone_that_shows_nothing_holds_nothing(tmp_path, capsys):
    source = tmp_path / "source"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run([*git, "init", "--quiet", source], check=True)
    commit = [*git, "-C", source, "commit", "--quiet", "--allow-empty", "-m", "x"]
    subprocess.run(commit, check=True)

    def run(name: str, program: str) -> set[str]:
        command = (sys.executable, "-c", program)
        folder = tmp_path / name
        folder.mkdir()
        return broken(clone.measure(folder, 1, quiet, source=source, command=command))

    table = "from nothing to the table of 20 parts"
    shows = f"print('part x'); print('{clone.TABLE}')"
    assert run("shows", shows) == set()
    assert run("fails", f"{shows}; raise SystemExit(1)") == {"commands that failed"}
    assert run("silent", "pass") == {"commands that failed", table}


# The cables, and the table.


def test_a_silent_cable_delivers_late_and_a_cut_one_hangs_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        cable = Cable(server.getsockname()[1])
        try:
            with socket.create_connection(("127.0.0.1", cable.port), timeout=5) as near:
                far, _ = server.accept()
                with far:
                    far.settimeout(0.2)
                    near.sendall(b"a")
                    assert far.recv(10) == b"a"
                    cable.silence()
                    time.sleep(0.05)
                    near.sendall(b"b")
                    with pytest.raises(TimeoutError):
                        far.recv(10)
                    cable.mend()
                    assert far.recv(10) == b"b"
                    cable.cut()
                    with pytest.raises(ConnectionError):
                        assert near.recv(10) == b"", "hung up"
                        raise ConnectionError
        finally:
            cable.close()


@pytest.mark.parametrize(
    ("package", "name"),
    [("plc", name) for name in command.NAMES] + [("console", name) for name in console.NAMES],
)
def test_every_name_is_a_row(package, name):
    found = rows.row(f"benchmarks.{package}", name)
    assert found.promise and found.trials >= found.quick >= 0


def test_rows_are_written_as_they_end_and_others_stay(tmp_path, monkeypatch, capsys):
    holds = True

    def run(folder, trials, tick):
        tick(trials, trials)
        return [Figure("lost", 0 if holds else 1, "parts", "0", holds)]

    made = rows.Row("nothing is lost", 7, 2, run)
    monkeypatch.setattr(rows, "row", lambda package, name: made)
    monkeypatch.setattr(sys, "argv", ["plc", "modbus", "clone", "--out", str(tmp_path)])
    assert rows.main("benchmarks.plc", command.NAMES, "") == 0
    holds = False
    monkeypatch.setattr(sys, "argv", ["plc", "modbus", "--out", str(tmp_path)])
    assert rows.main("benchmarks.plc", command.NAMES, "") == 1
    figures = json.loads((tmp_path / "plc.json").read_text())["figures"]
    told = [(one["row"], one["name"], one["value"], one["goal"], one["holds"]) for one in figures]
    assert told == [("modbus", "lost", 1, "0", False), ("clone", "lost", 0, "0", True)]
    assert {"unit", "commit", "time", "trials"} <= figures[0].keys()
    assert not (tmp_path / "plc-quick.json").exists()
