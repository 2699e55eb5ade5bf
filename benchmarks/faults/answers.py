"""What a sender is told of its trigger: of the right part, in time, and only what is recorded."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks.faults.lab import (
    Ear,
    Found,
    Journal,
    Plc,
    Tick,
    quantile,
    triggered_station,
)
from inspector.client.commander import Commander
from inspector.config.station_file import load_station
from inspector.verdict import Verdict
from tests import running
from tests.station.test_triggers import FAIL_WHILE, SLOW_SYNC

_DEADLINE_MS: Final = 300
_UNDER_WAY_MS: Final = 50
"""So much later than it was handed over may a verdict reach this process."""
_A_RUN: Final = 10
"""Parts that the PLC triggers before it starts again, at most; the station is killed as often."""


def repeats(folder: Path, trials: int, tick: Tick) -> Found:
    """A PLC that counts from 1 at each start, and half the time forgets to change its session."""
    station = triggered_station(folder)
    address = load_station(station).sockets.commands
    chance = random.Random(3)
    owners: dict[tuple[str, int], int] = {}
    done: Counter[str] = Counter()
    while done["parts"] < trials:
        with running.running(station) as daemon:
            daemon.wait_for_log(r"state=Ready")
            for _ in range(3):
                session = "plc" if chance.random() < 0.5 else None
                with Commander(address, session=session) as plc:
                    _run_of_a_plc(plc, chance, owners, done)
                tick(done["parts"], trials)
            daemon.child.send_signal(signal.SIGKILL)
            daemon.child.wait()
    return Found(
        fault="the PLC starts again and counts from 1, in half its starts with the same session; "
        "the station is killed between; triggers are repeated",
        trials=done["parts"],
        figure=f"parts with another part's verdict {done['shared']}; numbers used twice "
        f"{done['conflicts']}, all FAULT; repeated and answered with the first verdict "
        f"{done['again']} of {done['repeated']}",
        holds=not done["shared"]
        and not done["otherwise"]
        and done["conflicts"] > 0
        and done["judged"] > 0
        and done["again"] == done["repeated"] > 0,
        figures=dict(done),
    )


def _run_of_a_plc(
    plc: Commander, chance: random.Random, owners: dict[tuple[str, int], int], done: Counter[str]
) -> None:
    for number in range(1, chance.randint(2, _A_RUN)):
        done["parts"] += 1
        part = done["parts"]
        verdict = plc.trigger("top", number)
        done["shared"] += owners.setdefault((verdict.epoch, verdict.seq), part) != part
        # A verdict that was judged before its trigger was sent would be a record.
        done["otherwise"] += verdict.repeated
        done["conflicts"] += verdict.reason == "trigger_conflict"
        done["judged"] += verdict.verdict is not Verdict.FAULT
        if chance.random() < 0.3:
            done["repeated"] += 1
            again = plc.trigger("top", number, repeat=True)
            done["again"] += again == verdict.told_again()


def late(folder: Path, trials: int, tick: Tick) -> Found:
    """A disk that syncs too slowly, and a station that stands still; a third of each, in turns."""
    station = triggered_station(folder, stale_trigger_ms=500)
    text = station.read_text(encoding="utf-8")
    station.write_text(text.replace("deadline_ms: 5000", f"deadline_ms: {_DEADLINE_MS}"))
    address = load_station(station).sockets
    slow = station.with_name("slow")
    took_ms: list[float] = []
    done: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running.running(station, program=SLOW_SYNC))
        daemon.wait_for_log(r"state=Ready")
        plc = stack.enter_context(Commander(address.commands))
        ear = stack.enter_context(Ear(address.verdicts, address.commands, from_start=True))
        replayed = stack.enter_context(_replaying(address.commands))
        for trial in range(1, trials + 1):
            fault = ("none", "slow disk", "stood still")[trial % 3]
            if fault == "slow disk":
                slow.touch()
            elif fault == "stood still":
                daemon.child.send_signal(signal.SIGSTOP)
                threading.Timer(0.7, daemon.child.send_signal, (signal.SIGCONT,)).start()
            begun = time.monotonic()
            verdict = plc.trigger("top", trial, timeout_s=20.0)
            ear.wait_for(trial)
            slow.unlink(missing_ok=True)
            done[f"{fault}: {verdict.reason or verdict.verdict}"] += 1
            if verdict.verdict is not Verdict.FAULT:
                took_ms.append(1e3 * (time.monotonic() - begun))
                done["late"] += took_ms[-1] > _DEADLINE_MS + _UNDER_WAY_MS
            done["pictures"] += fault == "stood still" and verdict.grabbed_us is not None
            done["judged"] += fault == "none" and verdict.verdict is not Verdict.FAULT
            tick(trial, trials)
        daemon.child.terminate()
        assert daemon.child.wait(20) == 0, daemon.log
    published = {(one.epoch, one.seq): one.verdict.value for one in ear.verdicts}
    recorded = {
        (one["epoch"], one["seq"]): one["verdict"] for one in Journal(folder / "journal").verdicts
    }
    withdrawn = sum(published.get(key) != verdict for key, verdict in replayed)
    return Found(
        fault=f"a disk that syncs in 600 ms, a station that stands still for 700 ms; the deadline "
        f"is {_DEADLINE_MS} ms",
        trials=trials,
        figure=f"PASS or FAIL after the deadline {done['late']} (longest "
        f"{quantile(took_ms, 1.0):.0f} ms); replayed otherwise than published {withdrawn}; "
        f"pictures taken for triggers that waited {done['pictures']}",
        holds=not done["late"]
        and not done["pictures"]
        and not withdrawn
        and published == recorded
        and done["slow disk: deadline_missed"] > 0
        and done["judged"] > 0,
        figures=dict(done) | {"replayed_otherwise": withdrawn, "replayed": len(replayed)},
    )


@contextlib.contextmanager
def _replaying(address: str) -> Iterator[set[tuple[tuple[str, int], str]]]:
    """Ask for everything again and again; which verdict each part had."""
    found: set[tuple[tuple[str, int], str]] = set()
    over = threading.Event()

    def work() -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(address)
            since_us = time.time_ns() // 1000
            while not over.wait(0.02):
                socket.send(json.dumps({"command": "replay", "since_us": since_us}).encode())
                if not socket.poll(5000):
                    continue
                reply: dict[str, Any] = json.loads(socket.recv())
                for one in reply["verdicts"]:
                    found.add(((one["epoch"], one["seq"]), one["verdict"]))
                    since_us = max(since_us, one["judged_us"] - 2_000_000)

    thread = threading.Thread(target=work, name="replaying")
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def accepted(folder: Path, trials: int, tick: Tick) -> Found:
    """Triggers, new ones and repeated ones, while the journal cannot be written."""
    station = triggered_station(folder)
    address = load_station(station).sockets.commands
    full = station.with_name("full")
    chance = random.Random(4)
    done: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running.running(station, program=FAIL_WHILE))
        daemon.wait_for_log(r"state=Ready")
        plc = Plc(address, "line")
        stack.callback(plc.close)
        desk = stack.enter_context(Commander(address))
        for trial in range(1, trials + 1):
            before = plc.trigger()
            plc.pump(10.0)
            full.touch()
            known, refused = len(plc.acknowledged), sum(plc.refused.values())
            unrecorded = plc.trigger()
            plc.pump(10.0)
            for _ in range(3):
                plc.waiting[unrecorded] = time.monotonic()
                plc.send(unrecorded)
                plc.pump(10.0)
            # What is in the journal may be told again, but nothing may be accepted.
            plc.send(before)
            plc.pump(chance.uniform(0.05, 0.2), -1)
            done["accepted"] += len(plc.acknowledged) - known
            done["refused"] += sum(plc.refused.values()) - refused
            full.unlink()
            deadline = time.monotonic() + 20.0
            while desk.status().state != "Ready" and time.monotonic() < deadline:
                time.sleep(0.02)
            tick(trial, trials)
        daemon.child.terminate()
        assert daemon.child.wait(20) == 0, daemon.log
    missing = len(plc.acknowledged - set(Journal(folder / "journal").keys))
    return Found(
        fault="the journal cannot be written; the trigger of that time is sent four times, one "
        "from before once more",
        trials=trials,
        figure=f"accepted meanwhile {done['accepted']}, refused {done['refused']} of {5 * trials}; "
        f"accepted and in no journal {missing}",
        holds=not done["accepted"]
        and not missing
        and done["refused"] == 5 * trials
        and set(plc.refused) == {"journal"}
        and len(plc.acknowledged) == trials,
        figures={**done, "accepted_in_no_journal": missing},
    )
