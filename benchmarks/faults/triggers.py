"""One verdict a trigger, whatever is sent and whenever the station is killed."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.faults.lab import (
    Ear,
    Found,
    Journal,
    Key,
    Plc,
    Tick,
    quantile,
    settle_all,
    triggered_station,
)
from inspector.config.station_file import load_station
from tests import running
from tests.journal import powerloss

CLIENTS = 4
MOST_WAITING = 100
REMEMBERED = 500
"""How far back a trigger is repeated; a station knows the last 10,000."""


def bursts(folder: Path, trials: int, tick: Tick) -> Found:
    """Four clients: bursts, over-rate, repetitions, numbers used twice, dropped connections."""
    station = triggered_station(folder)
    address = load_station(station).sockets
    chance = random.Random(1)
    done: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running.running(station))
        daemon.wait_for_log(r"state=Ready")
        plcs = [Plc(address.commands, f"line-{number}") for number in range(CLIENTS)]
        for plc in plcs:
            stack.callback(plc.close)
        ear = stack.enter_context(Ear(address.verdicts, address.commands, from_start=True))
        time.sleep(0.3)
        begun = time.monotonic()
        while sum(len(plc.attempted) for plc in plcs) < trials:
            calm = chance.random() < 0.8
            for plc in plcs:
                for _ in range(chance.choice((1, 2)) if calm else chance.choice((1, 4, 40))):
                    _trigger(plc, chance, done)
                if chance.random() < 0.01:
                    done["dropped connections"] += 1
                    plc.reconnect(address.commands)
            for plc in plcs:
                plc.pump(30.0, 0 if calm else MOST_WAITING)
            tick(sum(len(plc.answers) for plc in plcs), trials)
        for plc in plcs:
            plc.pump(60.0)
        taken_s = time.monotonic() - begun
        count = sum(len(plc.answers) for plc in plcs)
        ear.wait_for(count)
        daemon.child.terminate()
        assert daemon.child.wait(20) == 0, daemon.log
    journal = Journal(folder / "journal")
    tally = settle_all(plcs, journal, ear.lines)
    reasons = sum((plc.reasons for plc in plcs), Counter())
    triggers = sum(len(plc.attempted) for plc in plcs)
    acknowledged = sum(len(plc.acknowledged) for plc in plcs)
    # More than a camera can expose is a part with a FAULT, not a command that is refused.
    refused = sum(sum(plc.refused.values()) for plc in plcs)
    took_all = not refused and acknowledged == triggers and reasons["pass"] > 0
    return Found(
        fault=f"bursts, over-rate, {done['repeated']} repetitions, {done['conflicts']} numbers "
        f"used twice, {done['dropped connections']} connections dropped in the middle",
        trials=triggers,
        figure=f"{tally}; out of order {journal.disorder}; acknowledged {acknowledged:,} of "
        f"{triggers:,}",
        holds=took_all
        and tally.clean
        and not journal.disorder
        and not journal.holes
        and not ear.gaps,
        figures={
            **vars(tally),
            "triggers_acknowledged": acknowledged,
            "triggers_refused": refused,
            "out_of_order": journal.disorder,
            "numbers_left_out": journal.holes,
            "gaps_at_subscriber": ear.gaps,
            "triggers_per_s": round(triggers / taken_s, 1),
            **{f"verdicts_{reason}": count for reason, count in sorted(reasons.items())},
        },
    )


def _trigger(plc: Plc, chance: random.Random, done: Counter[str]) -> None:
    """A new trigger, now and then with one that was there before."""
    key = plc.trigger()
    if chance.random() < 0.1:
        done["repeated"] += 1
        plc.send(key)
    number = chance.randint(max(1, plc.number - REMEMBERED), plc.number)
    if chance.random() < 0.05:
        done["repeated"] += 1
        plc.send((plc.session, number, f"{plc.session}-{number}"))
    if chance.random() < 0.005:
        done["conflicts"] += 1
        plc.send((plc.session, number, f"other-{plc.number}"))


def kills(folder: Path, trials: int, tick: Tick) -> Found:
    """SIGKILL at random moments of work and of the start; the next start must know everything."""
    station = triggered_station(folder)
    address = load_station(station).sockets
    chance = random.Random(2)
    ready_s: list[float] = []
    open_at_a_kill: set[Key] = set()
    with contextlib.ExitStack() as stack:
        plc = Plc(address.commands, "line")
        stack.callback(plc.close)
        ear = stack.enter_context(Ear(address.verdicts, address.commands, since_us=0))
        for trial in range(trials):
            if chance.random() < 0.2:
                _kill_while_it_starts(station, chance.uniform(0.0, 1.0))
            else:
                ready_s.append(_kill_at_work(station, plc, address.commands, chance))
                open_at_a_kill |= plc.waiting.keys()
            tick(trial + 1, trials)
        with running.running(station) as daemon:
            daemon.wait_for_log(r"state=Ready")
            plc.reconnect(address.commands)
            plc.pump(30.0)
            # It must judge on, too: a good part and a bad one.
            for _ in range(2):
                plc.trigger()
                plc.pump(30.0)
            ear.wait_for(len(plc.answers))
            # A status tells of what the end of the epoch before had.
            time.sleep(1.2)
            ear.wait_for(len(Journal(folder / "journal").verdicts))
            daemon.child.terminate()
            assert daemon.child.wait(20) == 0, daemon.log
    journal = Journal(folder / "journal")
    tally = settle_all([plc], journal, ear.lines)
    restarted = sum(verdict["reason"] == "restarted" for verdict in journal.verdicts)
    answered_later = len(open_at_a_kill & plc.answers.keys())
    worked = bool(plc.acknowledged) and not plc.refused and plc.reasons["pass"] > 0
    return Found(
        fault="SIGKILL of the daemon at random moments, a fifth of them while it starts",
        trials=trials,
        figure=f"acknowledged but not in the journal: {tally.lost} of "
        f"{len(plc.acknowledged):,}; duplicated {tally.duplicated}, unexpected "
        f"{tally.unexpected}; open at a kill and answered later {answered_later}; restart to "
        f"Ready: median {quantile(ready_s, 0.5):.2f} s, 99 % {quantile(ready_s, 0.99):.2f} s",
        holds=worked and answered_later > 0 and tally.clean and not journal.holes and not ear.gaps,
        figures={
            **vars(tally),
            "numbers_left_out": journal.holes,
            "gaps_at_subscriber": ear.gaps,
            "triggers_acknowledged": len(plc.acknowledged),
            "triggers_refused": sum(plc.refused.values()),
            "answered_after_a_restart": answered_later,
            "verdicts_pass": plc.reasons["pass"],
            "fault_restarted": restarted,
            "epochs": len({verdict["epoch"] for verdict in journal.verdicts}),
            "restart_to_ready_median_s": round(quantile(ready_s, 0.5), 3),
            "restart_to_ready_p99_s": round(quantile(ready_s, 0.99), 3),
        },
    )


def _kill_while_it_starts(station: Path, after_s: float) -> None:
    command = [sys.executable, "-m", "inspector", "run", str(station)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=running.environment()) as child:
        time.sleep(after_s)
        child.kill()


def _kill_at_work(station: Path, plc: Plc, address: str, chance: random.Random) -> float:
    begun = time.monotonic()
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        ready_s = time.monotonic() - begun
        plc.reconnect(address)
        until = time.monotonic() + chance.uniform(0.0, 0.5)
        while time.monotonic() < until:
            for _ in range(chance.choice((1, 1, 5))):
                plc.trigger()
            plc.pump(0.005, 20)
        daemon.child.send_signal(signal.SIGKILL)
        daemon.child.wait()
        # What was on the way when it died may have been acknowledged.
        plc.pump(0.02)
    return ready_s


def power_cuts(folder: Path, trials: int, tick: Tick) -> Found:
    """The journal's own statements on a disk that forgets what was not synced."""
    folder.mkdir(parents=True, exist_ok=True)
    found = powerloss.cut_often(
        folder, "lossy", cuts=trials, on_cut=lambda done: tick(done, trials)
    )
    control = {
        lax: powerloss.cut_often(folder, lax, f"synchronous={lax}", cuts=max(20, trials // 5))
        for lax in ("OFF", "NORMAL")
    }
    notices = all(one.verdicts > 0 for one in control.values())
    return Found(
        fault="unsynced writes torn and discarded (apsw VFS) at random steps of the disk",
        trials=found.cuts,
        figure=f"verdicts lost {found.verdicts}, triggers lost {found.triggers}, inconsistent "
        f"{found.inconsistent}; the same with synchronous=OFF: {control['OFF'].verdicts} lost in "
        f"{control['OFF'].cuts} cuts, NORMAL: {control['NORMAL'].verdicts} in "
        f"{control['NORMAL'].cuts}",
        holds=notices and not (found.verdicts or found.triggers or found.inconsistent),
        figures={
            **vars(found),
            **{
                f"{name}_with_synchronous_{lax}": value
                for lax, one in control.items()
                for name, value in vars(one).items()
            },
        },
    )
