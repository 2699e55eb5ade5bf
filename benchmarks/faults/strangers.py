"""Strangers can do nothing: no key, the wrong one, a role that does not suffice, recorded bytes."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks.faults.lab import Found, Journal, Tick, fixed_sockets
from inspector.client.commander import Commander
from inspector.config.station_file import load_station
from tests import running, tiny
from tests.parties import Parties, Tap, connected, plain, wait_until

_QUIET_S: Final = 2.0
"""So long nothing is answered, on a machine with other work, too."""

COMMANDS: Final[dict[str, dict[str, Any]]] = {
    "trigger": {
        "command": "trigger",
        "camera": "top",
        "session": "strange",
        "trigger_seq": 9,
        "part_id": "strange",
    },
    "status": {"command": "status"},
    "recipe": {"command": "recipe", "recipe": "other"},
    "reload": {"command": "reload"},
    "replay": {"command": "replay", "since_us": 0},
}
MAY: Final = {
    "mes": {"status", "replay"},
    "plc": {"status", "trigger"},
    "desk": {"status", "replay", "recipe", "reload"},
}


def strangers(folder: Path, trials: int, tick: Tick) -> Found:
    """No key, wrong keys, roles that do not suffice, raw bytes, recorded sessions: all commands."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(None):
        parties = Parties(folder / "keys")
    station = _locked_station(folder, parties)
    address = load_station(station).sockets
    accepted = dict.fromkeys(COMMANDS, 0)
    tried: Counter[str] = Counter()
    overheard = unanswered = 0
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        with Commander(address.commands, keys=parties.client_keys("plc")) as plc:
            legitimate = [plc.trigger("top", 1, "known")]
        for trial in range(trials):
            outside = {
                "no key": None,
                "unknown key": parties.client_keys("stranger"),
                "another station's key": parties.client_keys("plc", "stranger"),
            }
            for command in answered(address.commands, outside.values(), parties):
                accepted[command] += 1
            tried.update(dict.fromkeys(outside, len(COMMANDS)))
            for name, may in MAY.items():
                refused, others = _forbidden(address.commands, parties.client_keys(name), may)
                for command in others:
                    accepted[command] += 1
                unanswered += len(COMMANDS) - len(may) - len(others) - refused
                tried[name] += len(COMMANDS) - len(may)
            with _ears(address.verdicts, address.images, parties) as (strange, known):
                for command in _replayed(address.commands, parties):
                    accepted[command] += 1
                assert wait_until(lambda ears=known: all(ear.poll(0) for ear in ears)), daemon.log
                overheard += sum(bool(ear.poll(0)) for ear in strange)
            tried["recorded session"] += 3
            tried["listening without the role"] += len(strange)
            tried["raw bytes"] += _throw_bytes(address.commands, random.Random(trial))
            tick(trial + 1, trials)
        # Whoever belongs there is still served.
        with Commander(address.commands, keys=parties.client_keys("plc")) as plc:
            for number in range(trials):
                legitimate.append(plc.trigger("top", 2 + number, f"known-{number}"))
        served = len(legitimate) == trials + 1
        log = daemon.log
        daemon.child.terminate()
        assert daemon.child.wait(20) == 0, daemon.log
    verdicts = Journal(folder / "journal").verdicts
    known = {one.part_id for one in legitimate} | {"tapped"}
    uninvited = sum(one["part_id"] not in known for one in verdicts)
    # What was tapped was the PLC's own, once for each session that was recorded.
    repeated = sum(one["part_id"] == "tapped" for one in verdicts) - trials
    accepted["trigger"] += uninvited + max(0, repeated)
    accepted["reload"] += log.count(" changeover ")
    total = sum(accepted.values()) + overheard
    return Found(
        fault=", ".join(f"{who} ({count})" for who, count in tried.items()),
        trials=sum(tried.values()),
        figure="accepted "
        + ", ".join(f"{command} {count}" for command, count in accepted.items())
        + f"; messages overheard {overheard}; peers served on: {'yes' if served else 'no'}",
        holds=total == 0 and served and not unanswered,
        figures={
            **{f"accepted_{command}": count for command, count in accepted.items()},
            "overheard": overheard,
            "refusals_not_told": unanswered,
        },
    )


def _locked_station(folder: Path, parties: Parties) -> Path:
    model = tiny.write_bundle(folder / "tiny.onnx")
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=10_000)
    recipe = {"top": {"bundle": str(model)}}
    return running.write_station(
        folder / "station.yaml",
        model,
        camera,
        sockets=fixed_sockets(),
        recipes={"r": recipe, "other": recipe},
        security={
            "secret_key": str(parties.security.secret_key),
            "peers": {
                name: {"key": peer.key, "roles": list(peer.roles)}
                for name, peer in parties.security.peers.items()
            },
        },
    )


def answered(address: str, strangers: Iterable[Any], parties: Parties) -> list[str]:
    """Send every command with each of these keys; those that were answered at all."""
    found: list[str] = []
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connected(zmq.DEALER, address, held)) for held in strangers]
        for peer in peers:
            for name, body in COMMANDS.items():
                # Once its handshake has failed for good, a socket has nowhere to send to.
                with contextlib.suppress(zmq.Again):
                    peer.send(json.dumps(body | {"id": name}).encode(), zmq.NOBLOCK)
        # One who came after them got in and was answered: so could they have been.
        with Commander(address, keys=parties.client_keys("mes"), timeout_s=30.0) as marker:
            marker.status()
        deadline = time.monotonic() + _QUIET_S
        for peer in peers:
            while peer.poll(max(0, round((deadline - time.monotonic()) * 1000))):
                found.append(json.loads(peer.recv())["id"])
    return found


def _forbidden(address: str, held: Any, allowed: set[str]) -> tuple[int, list[str]]:
    """Send every command that is not ``allowed``; how many were forbidden, and the others."""
    asked = {name: body for name, body in COMMANDS.items() if name not in allowed}
    forbidden, others = 0, []
    with connected(zmq.DEALER, address, held) as peer:
        for name, body in asked.items():
            peer.send(json.dumps(body | {"id": name}).encode())
        while forbidden + len(others) < len(asked) and peer.poll(10_000):
            reply = json.loads(peer.recv())
            if (reply["kind"], reply["code"]) == ("refused", "forbidden"):
                forbidden += 1
            else:
                others.append(reply["id"])
    return forbidden, others


def _replayed(address: str, parties: Parties) -> Iterator[str]:
    """Record the PLC's session and send it again, whole, in parts, and within itself."""
    tap = Tap(address)
    try:
        with connected(zmq.DEALER, tap.address, parties.client_keys("plc")) as plc:
            body = COMMANDS["trigger"] | {
                "part_id": "tapped",
                "session": str(time.monotonic_ns()),
                "id": "tapped",
            }
            plc.send(json.dumps(body).encode())
            while plc.poll(5000) and json.loads(plc.recv())["kind"] != "verdict":
                pass
            recorded = bytes(tap.sent)
            message = recorded.rindex(b"\x07MESSAGE") - 2
            with contextlib.suppress(OSError):
                tap._ends[1].sendall(recorded[message:])
            if plc.poll(_QUIET_S * 1000):
                yield "trigger"
    finally:
        tap.close()
    for again in (recorded, recorded[:64] + recorded[message:]):
        with plain(address) as connection, contextlib.suppress(OSError):
            connection.sendall(again)
            connection.settimeout(_QUIET_S)
            while connection.recv(4096):
                pass


def _throw_bytes(address: str, chance: random.Random) -> int:
    body = json.dumps(COMMANDS["reload"]).encode()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"%s" + bytes(32)
    null = greeting % b"NULL".ljust(20, b"\0")
    ready = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    thrown = (
        chance.randbytes(chance.randrange(1, 10_000)),
        body,
        b"POST / HTTP/1.1\r\n\r\n" + body,
        null + ready + bytes([0, len(body)]) + body,
        greeting % b"CURVE".ljust(20, b"\0") + bytes([0, len(body)]) + body,
        greeting % b"CURVE".ljust(20, b"\0") + b"\x06" + (1 << 40).to_bytes(8, "big"),
    )
    for data in thrown:
        with plain(address) as connection, contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
    return len(thrown)


@contextlib.contextmanager
def _ears(verdicts: str, images: str, parties: Parties) -> Iterator[tuple[list[Any], list[Any]]]:
    """Subscribers to both sockets: those who may not listen, and for comparison one who may."""
    with contextlib.ExitStack() as stack:
        strange, known = (
            [
                stack.enter_context(connected(zmq.SUB, address, held))
                for address in (verdicts, images)
                for held in several
            ]
            for several in (
                (None, parties.client_keys("stranger"), parties.client_keys("plc")),
                (parties.client_keys("mes"),),
            )
        )
        # The status comes every second: then the others would have got in, too.
        assert wait_until(lambda: known[0].poll(0))
        yield strange, known
