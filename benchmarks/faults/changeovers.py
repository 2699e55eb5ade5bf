"""A changeover outlives a kill: what was ordered and answered is what judges after the restart."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path

import yaml

from benchmarks.faults.lab import Found, Tick, triggered_station
from inspector.client import Commander
from inspector.config.station_file import load_station
from inspector.errors import CommandError
from tests import running

RECIPES = ("r", "s", "t")


def changeovers(folder: Path, trials: int, tick: Tick) -> Found:
    """SIGKILL after a changeover was answered, or at a random moment of one."""
    path = triggered_station(folder)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["recipes"] = dict.fromkeys(RECIPES, document["recipes"]["r"])
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    address = load_station(path).sockets.commands
    chance = random.Random(2)
    allowed = {"r"}
    answered = halfway = wrong = unsaid = 0
    for trial in range(trials):
        with running.running(path) as daemon, Commander(address) as plc:
            daemon.wait_for_log(r"state=Ready")
            status = plc.status()
            found = plc.trigger("top", 1, timeout_s=20.0)
            wrong += found.recipe not in allowed or status.recipe != found.recipe
            is_said = " recipe name=" in daemon.log and status.recipe_from == "journal"
            unsaid += is_said is not (found.recipe != "r")
            before = found.recipe
            wanted = chance.choice([name for name in RECIPES if name != before])
            if chance.random() < 0.5:
                plc.recipe(wanted)
                answered += 1
                allowed = {wanted}
            else:
                is_done = _kill_within(daemon, address, wanted, chance.uniform(0.0, 0.2))
                allowed = {wanted} if is_done else {before, wanted}
                halfway += 1
            daemon.child.send_signal(signal.SIGKILL)
            daemon.child.wait(10)
        tick(trial + 1, trials)
    with running.running(path) as daemon, Commander(address) as plc:
        daemon.wait_for_log(r"state=Ready")
        wrong += plc.trigger("top", 1, timeout_s=20.0).recipe not in allowed
    return Found(
        fault=f"SIGKILL after {answered} changeovers that were answered, and within {halfway}",
        trials=trials,
        figure=f"judged by another recipe after the restart: {wrong}; not said: {unsaid}",
        holds=not wrong and not unsaid,
        figures={"wrong_recipe": wrong, "unsaid": unsaid, "answered": answered, "within": halfway},
    )


def _kill_within(daemon: running.Running, address: str, wanted: str, after_s: float) -> bool:
    """SIGKILL while a changeover is under way; whether it was answered before."""
    done = threading.Event()

    def order() -> None:
        with Commander(address) as other, contextlib.suppress(CommandError):
            other.recipe(wanted, timeout_s=2.0)
            done.set()

    thread = threading.Thread(target=order)
    thread.start()
    time.sleep(after_s)
    daemon.child.send_signal(signal.SIGKILL)
    thread.join()
    return done.is_set()
