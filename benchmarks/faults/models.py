"""Corrupted models are refused: mutated, forged, swapped at work."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from onnx import numpy_helper

from benchmarks.checkout import DEMO
from benchmarks.faults.lab import Found, Tick
from inspector.client.commander import Commander
from inspector.detection import bundle
from inspector.detection.detector import Detector
from inspector.detection.signing import load_bundle_keys, load_signing_key
from inspector.errors import BundleError, CommandError, GoldenError, SignatureError
from inspector.files import write_whole
from tests import running, tiny
from tests.parties import make_keys


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
