"""A journal that is taken away under the station, and what may lie in it and beside it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from benchmarks.faults.lab import Found, Plc, Tick, triggered_station
from inspector.client.commander import Commander
from inspector.client.subscriber import Gap, Subscriber
from inspector.errors import CommandError
from inspector.journal.pictures import pictures
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, PLACES_PER_EPOCH
from inspector.wire.messages import VerdictMessage
from tests import running

_DAY_US: Final = 86_400_000_000


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _replace(path: Path) -> None:
    other = path.with_name("other")
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE other (x)")
    other.replace(path)


def _move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


ATTACKS: Final[dict[str, Callable[[Path], object]]] = {
    "deleted": Path.unlink,
    "moved": lambda path: path.rename(path.with_name("moved")),
    "cut": _cut,
    "replaced": _replace,
    "log deleted": lambda path: Path(f"{path}-wal").unlink(),
    "log cut": lambda path: os.truncate(f"{path}-wal", 0),
    "folder moved": _move_folder,
}
CUT: Final = {"cut", "log cut"}
"""After these some bytes are nowhere any more."""


def taken_away(folder: Path, trials: int, tick: Tick) -> Found:
    """One attack a trial, on a station at work: what it still accepts, and what is saved."""
    counts: Counter[str] = Counter()
    error_s: list[float] = []
    for trial in range(trials):
        name = list(ATTACKS)[trial % len(ATTACKS)]
        here = folder / str(trial)
        here.mkdir(parents=True)
        _attack(here, name, counts, error_s)
        shutil.rmtree(here)
        tick(trial + 1, trials)
    holds = not (counts["judged"] or counts["lost"] or counts["ended otherwise"])
    return Found(
        fault="its files deleted, moved, cut or replaced while the station has them open; its log "
        "deleted or cut; its folder moved",
        trials=trials,
        figure=f"parts judged without a record: {counts['judged']} of {counts['asked']}; recorded "
        f"before and not saved, where no byte was cut: {counts['lost']} of {counts['before']}; "
        f"Error within {max(error_s, default=float('nan')):.2f} s",
        holds=holds and max(error_s, default=9.0) < 3.0,
        figures={**counts, "error_within_s": round(max(error_s, default=float("nan")), 3)},
    )


def _attack(here: Path, name: str, counts: Counter[str], error_s: list[float]) -> None:
    station = triggered_station(here)
    path = here / "journal" / FILE
    with running.running(station) as daemon, Commander(daemon.commands) as plc:
        daemon.wait_for_log(r"state=Ready")
        for number in range(1, 11):
            plc.trigger("top", number, f"p{number}")
        ATTACKS[name](path)
        begun = time.monotonic()
        for number in range(11, 16):
            counts["asked"] += 1
            with contextlib.suppress(CommandError):
                counts["judged"] += plc.trigger("top", number, f"p{number}").verdict != "FAULT"
        while plc.status().state != "Error" and time.monotonic() - begun < 5:
            time.sleep(0.02)
        error_s.append(time.monotonic() - begun)
        saved = None
        if "journal lost" in daemon.log:
            saved = daemon.wait_for_log(r"journal saved file=(\S+) |journal not saved ")[1]
        daemon.child.terminate()
        counts["ended otherwise"] += daemon.child.wait(20) != 0
    if name in CUT:
        return
    counts["before"] += 10
    found: set[str] = set()
    if saved:
        with contextlib.closing(sqlite3.connect(saved)) as db:
            rows = db.execute("SELECT json FROM verdict").fetchall()
        found = {json.loads(row[0])["part_id"] for row in rows}
    counts["lost"] += len({f"p{number}" for number in range(1, 11)} - found)


SET_CLOCK: Final = f"""
import sys, time
from pathlib import Path
from inspector.cli.main import main
real = time.time_ns
right = Path(sys.argv[1]).with_name("right")
time.time_ns = lambda: real() + (0 if right.exists() else 40 * {_DAY_US} * 1000)
sys.exit(main(["run", sys.argv[1]]))
"""
"""A daemon on a machine whose clock is 40 days ahead until somebody sets it."""

ODD_ROWS: Final = (
    "UPDATE verdict SET latest_us = 'x' WHERE place % 7 = 0",
    "INSERT INTO open_trigger VALUES (x'ff', '', '', 'x', '', -1, x'ff', '')",
    "INSERT INTO epoch VALUES (-5, x'ff', 'x')",
    f"INSERT INTO epoch VALUES ({2**63 - 1}, 'far', 0)",
    f"INSERT INTO verdict VALUES ({2**62}, 0, '')",
)


def odd_things(folder: Path, trials: int, tick: Tick) -> Found:
    """A trial damages rows, leaves odd rows, files and messages, and starts with a wrong clock."""
    chance = random.Random(7)
    counts: Counter[str] = Counter()
    for trial in range(trials):
        here = folder / str(trial)
        here.mkdir(parents=True)
        _live_with(here, chance, counts)
        shutil.rmtree(here)
        tick(trial + 1, trials)
    return Found(
        fault="verdicts damaged in one character, odd rows in every table, odd names, pipes and "
        "links among the pictures, odd commands, a clock 40 days ahead at the start",
        trials=trials,
        figure=f"damaged {counts['damaged']}, gaps of one {counts['gaps']}, other verdicts missing "
        f"{counts['missing']}; pictures deleted beyond two for a new one: {counts['too many']}; "
        f"stations and commands that ended: {counts['ended']}; steps of the clock logged "
        f"{counts['steps']} of {trials}",
        holds=counts["damaged"] == counts["gaps"] == counts["in the status"] - counts["odd rows"]
        and not (counts["missing"] or counts["too many"] or counts["ended"])
        and counts["steps"] == trials,
        figures=dict(counts),
    )


def _live_with(here: Path, chance: random.Random, counts: Counter[str]) -> None:
    station = triggered_station(here)
    journal = here / "journal"
    with running.running(station) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_for_log(r"state=Ready")
        plc = Plc(daemon.commands, "line")
        stack.callback(plc.close)
        for _ in range(60):
            plc.trigger()
            plc.pump(30.0)
        time.sleep(0.3)
        daemon.child.terminate()
        counts["ended"] += daemon.child.wait(20) != 0
    kept = len(list(pictures(journal)))
    assert kept >= 20
    with Reader(journal) as reader:
        epoch = reader.epochs()[0][0]
    seqs = set(chance.sample(range(1, 61), chance.randint(1, 5)))
    with contextlib.closing(sqlite3.connect(journal / FILE)) as db, db:
        for seq in seqs:
            _damage(db, PLACES_PER_EPOCH + seq, chance)
        for statement in ODD_ROWS:
            db.execute(statement)
    counts["damaged"] += len(seqs)
    # The trigger that is none, and the verdict of no epoch.
    counts["odd rows"] += 2
    _put_odd_files(journal / "pictures")
    with running.running(station, program=SET_CLOCK) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_for_log(r"state=Ready")
        plc = Plc(daemon.commands, "line-2")
        # By the station's wrong clock they would be 40 days old, and get no picture.
        plc.tells_time = False
        stack.callback(plc.close)
        for _ in range(8):
            plc.trigger()
            plc.pump(30.0)
        _send_odd_commands(daemon.commands, chance, 200)
        _hear(daemon, epoch, seqs, counts)
        (here / "right").touch()
        daemon.wait_for_log(r"clock set_by_s=-345[56]")
        counts["steps"] += len(re.findall(r" clock set_by_s=", daemon.log))
        with Commander(daemon.commands) as ask:
            counts["in the status"] += ask.status().damaged
        daemon.child.terminate()
        counts["ended"] += daemon.child.wait(20) != 0 or " crash" in daemon.log
    new = sum(picture.path.parent.name > time.strftime("%Y-%m-%d") for picture in pictures(journal))
    gone = kept - (len(list(pictures(journal))) - new)
    counts["too many"] += max(0, gone - 2 * 2 * (new - 1))
    code, _, _ = running.inspector("export-verdicts", station, "-o", here / "out.csv")
    counts["ended"] += code != 0


def _hear(daemon: running.Running, epoch: str, seqs: set[int], counts: Counter[str]) -> None:
    """All that a subscriber gets of both starts."""
    heard: set[int] = set()
    second: set[int] = set()
    deadline = time.monotonic() + 20
    with Subscriber(daemon.verdicts, commands=daemon.commands, since_us=0) as subscriber:
        while (len(heard) < 60 or len(second) < 8) and time.monotonic() < deadline:
            item = subscriber.receive(100)
            if isinstance(item, Gap) and item.epoch == epoch and item.last is not None:
                found = set(range(item.first, item.last + 1))
                counts["gaps"] += len(found & seqs)
                counts["missing"] += len(found - seqs)
                heard |= found
            elif isinstance(item, VerdictMessage):
                (heard if item.epoch == epoch else second).add(item.seq)
    counts["missing"] += 60 - len(heard) + 8 - len(second)


def _damage(db: sqlite3.Connection, place: int, chance: random.Random) -> None:
    """Another character in a verdict, where it makes another thing of it."""
    text = db.execute("SELECT json FROM verdict WHERE place = ?", (place,)).fetchone()[0]
    seq = place % PLACES_PER_EPOCH
    old, new = chance.choice(
        [("{", "<"), ('"station"', '"stations"'), (f'"seq":{seq},', f'"seq":{seq + 1},')]
    )
    db.execute("UPDATE verdict SET json = ? WHERE place = ?", (text.replace(old, new, 1), place))


def _put_odd_files(root: Path) -> None:
    day = next(path for path in root.iterdir() if path.is_dir())
    name = "20200101T000000.000000_top_FAIL_a1b2c3d4_000000001.png"
    for odd in (b"\xff.png", b"a\nb.png", name.encode().replace(b"top", b"\xff")):
        Path(os.fsdecode(os.fsencode(day) + b"/" + odd)).write_bytes(b"")
    (day / name.replace("20200101", "99999999")).write_bytes(b"")
    (day / name).mkdir()
    os.mkfifo(day / name.replace("top", "pipe"))
    (day / name.replace("top", "link")).symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")


def _send_odd_commands(address: str, chance: random.Random, count: int) -> None:
    context = zmq.Context()
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 500
        socket.connect(address)
        for _ in range(count):
            body = {
                "command": chance.choice(["trigger", "status", "replay", "recipe", "x", None, 5]),
                "camera": chance.choice(["nowhere", "\0", 5, None, "\ud800"]),
                "trigger_seq": chance.choice([-1, 2**53, 2**64, 1.5, "1", None]),
                "epoch": chance.choice(["", "x", None, 7]),
                "from_seq": chance.choice([0, 2**53 - 1, 2**63, "x"]),
                "id": chance.choice(["", "x" * 65, 3, None]),
            }
            for key in chance.sample(list(body), chance.randint(0, 4)):
                del body[key]
            data = json.dumps(body).encode()
            if chance.random() < 0.3:
                data = chance.choice([data[:-3], b"[" * 50_000, chance.randbytes(50), b""])
            socket.send(data)
    context.term()
