"""What must be refused: corrupted models, strangers' commands, wrong station files."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from faults_lab import Found, Journal, Tick, fixed_sockets
from onnx import numpy_helper

from inspector.client.commander import Commander
from inspector.config.station_file import load_station
from inspector.detection import bundle
from inspector.detection.detector import Detector
from inspector.detection.signing import load_bundle_keys, load_signing_key
from inspector.errors import BundleError, CommandError, GoldenError, SignatureError
from inspector.files import write_whole
from tests import running, tiny
from tests.parties import Parties, Tap, connected, make_keys, plain, wait_until

DEMO: Final = Path(__file__).parents[1] / "config" / "demo.onnx"
_QUIET_S: Final = 2.0
"""So long nothing is answered, on a machine with other work, too."""


def models(folder: Path, trials: int, tick: Tick, source: Path = DEMO) -> Found:
    """Mutated bundles, each loaded as a station would; some also by a reload of one at work."""
    folder.mkdir(parents=True, exist_ok=True)
    vault = _Vault(folder, source)
    chance = random.Random(4)
    path = folder / "mutated.onnx"
    tried: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    kinds = list(_MUTATIONS)
    Detector.load(_written(path, vault.signed), "cpu", 1, keys=vault.trusted)
    for trial in range(trials):
        kind = kinds[trial % len(kinds)]
        mutate, trusted = _MUTATIONS[kind]
        path.write_bytes(mutate(vault, chance))
        tried[kind] += 1
        try:
            Detector.load(path, "cpu", 1, keys=vault.trusted if trusted else ())
        except SignatureError:
            refused["signature"] += 1
        except GoldenError:
            refused["golden picture"] += 1
        except BundleError:
            refused["checksum or form"] += 1
        else:
            accepted[kind] += 1
        tick(trial + 1, trials)
    swapped, served, reloads = _reload_at_work(folder, vault, chance, max(3, trials // 50))
    share = 1 - (sum(accepted.values()) + swapped) / (trials + reloads)
    return Found(
        fault=", ".join(f"{kind} ({count})" for kind, count in tried.items())
        + f"; {reloads} of them reloaded by a station at work",
        trials=trials + reloads,
        figure=f"refused {share:.2%} ("
        + ", ".join(f"{by} {count}" for by, count in refused.items())
        + f"); the model at work served on {served} of {reloads} times",
        holds=not accepted and not swapped and served == reloads,
        figures={
            "accepted": sum(accepted.values()),
            "accepted_at_work": swapped,
            "served_on": served,
            **{f"refused_by_{by.replace(' ', '_')}": count for by, count in refused.items()},
            **{f"accepted_{kind}": count for kind, count in accepted.items()},
        },
    )


class _Vault:
    """A signed bundle, and what a forger has."""

    def __init__(self, folder: Path, source: Path) -> None:
        with contextlib.redirect_stdout(None):
            secret, public = make_keys(folder / "keys", "bundle", bundle=True)
        self.public = public
        found = bundle.read(source)
        self.key: Ed25519PrivateKey = load_signing_key(secret)
        self.trusted: tuple[Ed25519PublicKey, ...] = load_bundle_keys([public])
        self.stranger = Ed25519PrivateKey.generate()
        self.plain = found.data
        self.signed = bundle.sign(found, self.key)
        self.found = found

    def with_bank(self, chance: random.Random) -> bytes:
        """The model with another memory bank, neither sealed nor signed."""
        model = bundle.unseal(self.plain, self.found.path)
        bank = next(one for one in model.graph.initializer if one.name == bundle.BANK)
        values = numpy_helper.to_array(bank)
        rng = np.random.default_rng(chance.getrandbits(32))
        spread = float(np.abs(values).mean()) or 1.0
        other = values + rng.normal(0.0, chance.uniform(0.5, 3.0) * spread, values.shape)
        bank.CopyFrom(numpy_helper.from_array(other.astype(values.dtype), bundle.BANK))
        return bytes(model.SerializeToString())


def _flip(data: bytes, chance: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        bit = chance.randrange(len(mutated) * 8)
        mutated[bit // 8] ^= 1 << bit % 8
    return _other_than(data, bytes(mutated))


def _other_than(data: bytes, mutated: bytes) -> bytes:
    return mutated if mutated != data else bytes([data[0] ^ 1]) + data[1:]


def _truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _scramble(data: bytes, chance: random.Random) -> bytes:
    """A block is zeroed, or stands elsewhere, as a file system may leave it."""
    size = min(4096, len(data) // 4)
    at, other = sorted(chance.sample(range(len(data) - size), 2))
    block = bytes(size) if chance.random() < 0.5 else data[other : other + size]
    return _other_than(data, data[:at] + block + data[at + size :])


def _forge(model: bytes, signature: bytes) -> bytes:
    """``model`` with a signature's entry that was not made for it, sealed again."""
    return bundle.seal(model + signature)


def _entry(signed: bytes) -> bytes:
    """The signature's entry of a signed bundle."""
    end = len(signed) - bundle.SEAL_SIZE
    return signed[end - bundle.SIGNATURE_SIZE : end]


def _spoil_signature(vault: _Vault, chance: random.Random) -> bytes:
    entry = bytearray(_entry(vault.signed))
    at = chance.randrange(len(bundle.SIGNATURE_HEAD) + 64, len(entry))
    entry[at] = ord(chance.choice([c for c in "0123456789abcdef" if ord(c) != entry[at]]))
    return _forge(vault.plain[: -bundle.SEAL_SIZE], bytes(entry))


Mutation = tuple[Callable[[_Vault, random.Random], bytes], bool]

_MUTATIONS: Final[dict[str, Mutation]] = {
    "bits flipped": (lambda v, c: _flip(v.plain, c), False),
    "bits flipped, signed": (lambda v, c: _flip(v.signed, c), True),
    "truncated": (lambda v, c: _truncate(v.plain, c), False),
    "truncated, signed": (lambda v, c: _truncate(v.signed, c), True),
    "block lost or moved": (lambda v, c: _scramble(v.plain, c), False),
    "bank swapped": (
        lambda v, c: v.plain.replace(_bank(v.plain), _bank(bundle.seal(v.with_bank(c))), 1),
        False,
    ),
    "bank swapped, sealed again": (lambda v, c: bundle.seal(v.with_bank(c)), False),
    "bank swapped, unsigned": (lambda v, c: bundle.seal(v.with_bank(c)), True),
    "bank swapped, old signature": (
        lambda v, c: _forge(v.with_bank(c), _entry(v.signed)),
        True,
    ),
    "signed by a stranger": (lambda v, _: bundle.sign(v.found, v.stranger), True),
    "signature altered": (_spoil_signature, True),
    "not signed": (lambda v, _: v.plain, True),
}
"""How, and whether the station names a key; without one the golden pictures must tell."""


def _bank(data: bytes) -> bytes:
    model = onnx.ModelProto.FromString(data)
    return next(
        one.raw_data or numpy_helper.to_array(one).tobytes()
        for one in model.graph.initializer
        if one.name == bundle.BANK
    )


def _reload_at_work(
    folder: Path, vault: _Vault, chance: random.Random, times: int
) -> tuple[int, int, int]:
    """Swaps that were accepted, how often the old model judged on, and tries."""
    model = _written(folder / "work.onnx", vault.signed)
    parts = running.write_parts(folder / "parts", tiny.good_picture(256))
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=20_000)
    recipe = {"r": {"top": {"bundle": str(model), "check_pictures": False}}}
    geometry = vault.found.manifest.geometry
    if geometry.region is not None:
        recipe["r"]["top"]["region"] = {"x": 0, "y": 0, "w": 208, "h": 192}
    station = running.write_station(
        folder / "station.yaml",
        model,
        camera,
        recipes=recipe,
        security={"bundle_keys": [str(vault.public)]},
    )
    swapped = served = 0
    kinds = [kind for kind, (_, trusted) in _MUTATIONS.items() if trusted]
    with running.running(station) as daemon, Commander(daemon.commands) as desk:
        daemon.wait_for_log(r"state=Ready")
        before = desk.trigger("top", 1, timeout_s=30.0).model
        for number in range(times):
            write_whole(model, _MUTATIONS[kinds[number % len(kinds)]][0](vault, chance))
            try:
                desk.reload()
            except CommandError as error:
                assert error.code == "failed", error
            else:
                swapped += 1
            served += desk.trigger("top", number + 2, timeout_s=30.0).model == before
    return swapped, served, times


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


COMMANDS: Final[dict[str, dict[str, Any]]] = {
    "trigger": {"command": "trigger", "camera": "top", "trigger_seq": 9, "part_id": "strange"},
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
