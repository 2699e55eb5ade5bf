"""Peers of a station in processes of their own: one that listens, and a crowd that does not.

    python -m benchmarks.faults.peers listen '{"verdicts": ..., "commands": ..., "out": FILE}'
    python -m benchmarks.faults.peers crowd '{"verdicts": ..., "images": ..., "guests": 10}'

Each ends with its standard input. ``listen`` appends a line of JSON for each verdict or gap.
``crowd`` obeys 'on' and 'off': subscribers that never read (``deaf``), and guests that come and go.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import zmq


def listen(verdicts: str, commands: str | None, out: str) -> None:
    from inspector.client.subscriber import Gap, Subscriber
    from inspector.wire.messages import VerdictMessage

    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
    options: dict[str, Any] = {"commands": commands, "since_us": 0} if commands else {}
    with Path(out).open("w", buffering=1) as file, Subscriber(verdicts, **options) as subscriber:
        print("listening", flush=True)
        while not ending.is_set():
            item = subscriber.receive(100)
            if isinstance(item, Gap):
                file.write(json.dumps({"gap": item.count}) + "\n")
            elif isinstance(item, VerdictMessage):
                file.write(item.model_dump_json() + "\n")


def crowd(verdicts: str, images: str, guests: int, deaf: bool = True) -> None:
    context = zmq.Context()
    chance = random.Random(0)
    held: list[tuple[float, zmq.Socket[bytes]]] = []
    on = False

    def come(address: str, until: float) -> None:
        made = context.socket(zmq.SUB)
        made.linger, made.rcvhwm, made.rcvbuf = 0, 1, 4096
        made.subscribe(b"")
        made.connect(address)
        held.append((until, made))

    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        if readable:
            words = os.read(0, 100).split()
            if not words:
                break
            on = words[-1] == b"on"
            if on and deaf:
                come(verdicts, float("inf"))
                come(images, float("inf"))
            print("on" if on else "off", flush=True)
        now = time.monotonic()
        for until, made in list(held):
            if not on or now > until:
                made.close()
                held.remove((until, made))
        if on:
            for _ in range(guests + 2 * deaf - len(held)):
                come(chance.choice((verdicts, images)), now + chance.uniform(0.1, 2.0))
    context.destroy(linger=0)


if __name__ == "__main__":
    # Who started it ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kinds = {"listen": listen, "crowd": crowd}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("options", type=json.loads, metavar="JSON")
    chosen = parser.parse_args()
    kinds[chosen.kind](**chosen.options)
