"""A station that names keys takes signed bundles only."""

from __future__ import annotations

import argparse
import os
import random

import onnx
import onnxruntime
import pytest

from inspector.cli import sign as sign_command
from inspector.detection import bundle
from inspector.detection.signing import load_bundle_keys, load_signing_key
from inspector.errors import BundleError, SecretError, SignatureError
from tests import tiny
from tests.parties import make_keys


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    secret, public = make_keys(tmp_path_factory.mktemp("keys"), "bundle", bundle=True)
    return load_signing_key(secret), load_bundle_keys([public])


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    secret, public = make_keys(tmp_path_factory.mktemp("others"), "bundle", bundle=True)
    return load_signing_key(secret), load_bundle_keys([public])


@pytest.fixture
def signed_path(bundle_path, signer):
    bundle_path.write_bytes(bundle.sign(bundle.read(bundle_path), signer[0]))
    return bundle_path


def body_of(path) -> bytes:
    """All but the closing digest."""
    return path.read_bytes()[: -bundle.SEAL_SIZE]


def test_signed_bundle_is_read_with_and_without_keys(signed_path, signer, other):
    plain = bundle.read(signed_path)
    assert bundle.read(signed_path, signer[1]).manifest == plain.manifest
    assert bundle.read(signed_path, other[1] + signer[1]).sha256 == plain.sha256


def test_signed_bundle_is_still_a_plain_onnx_file(signed_path):
    model = onnx.load(signed_path)
    onnx.checker.check_model(model)
    names = [entry.key for entry in model.metadata_props]
    assert names == [bundle.MANIFEST_KEY, "ed25519", "sha256"]
    onnxruntime.InferenceSession(signed_path.read_bytes(), providers=["CPUExecutionProvider"])


def test_parsed_model_carries_no_stale_signature(signed_path):
    model = bundle.unseal(signed_path.read_bytes(), signed_path)
    assert [entry.key for entry in model.metadata_props] == [bundle.MANIFEST_KEY]


def test_unsigned_bundle_is_refused(bundle_path, signer):
    with pytest.raises(SignatureError, match=r"tiny\.onnx: not signed, .* 'inspector sign'") as bad:
        bundle.read(bundle_path, signer[1])
    assert bad.value.exit_code == 18
    assert isinstance(bad.value, BundleError)


def test_bundle_signed_by_another_key_is_refused(signed_path, signer, other):
    shown = signer[1][0].public_bytes_raw().hex()[:16]
    with pytest.raises(SignatureError, match=f"signed by key {shown}"):
        bundle.read(signed_path, other[1])


def test_signature_replaces_the_one_before(signed_path, signer, other):
    once = signed_path.read_bytes()
    signed_path.write_bytes(bundle.sign(bundle.read(signed_path), other[0]))
    assert len(signed_path.read_bytes()) == len(once)
    bundle.read(signed_path, other[1])
    with pytest.raises(SignatureError):
        bundle.read(signed_path, signer[1])


def test_signature_of_another_bundle_is_refused(signed_path, signer, tmp_path):
    changed = tiny.write_bundle(tmp_path / "changed.onnx", version="2")
    entry = body_of(signed_path)[-bundle.SIGNATURE_SIZE :]
    changed.write_bytes(bundle.seal(body_of(changed) + entry))
    bundle.read(changed)
    with pytest.raises(SignatureError, match="altered after signing"):
        bundle.read(changed, signer[1])


def test_own_signature_under_a_trusted_name_is_refused(signed_path, signer, other):
    forged = bundle.sign(bundle.read(signed_path), other[0])
    trusted = signer[1][0].public_bytes_raw().hex().encode()
    impostor = other[1][0].public_bytes_raw().hex().encode()
    body = forged[: -bundle.SEAL_SIZE].replace(impostor, trusted)
    signed_path.write_bytes(bundle.seal(body))
    with pytest.raises(SignatureError, match="altered after signing"):
        bundle.read(signed_path, signer[1])


@pytest.mark.parametrize("where", ["before", "after", "twice", "cut"])
def test_bytes_put_around_the_signature_are_refused(signed_path, signer, where):
    body = body_of(signed_path)
    inner, entry = body[: -bundle.SIGNATURE_SIZE], body[-bundle.SIGNATURE_SIZE :]
    # One more metadata entry, that protocol buffers would happily merge into the model.
    extra = b"\x72\x06\x0a\x01k\x12\x01v"
    forged = {
        "before": inner + extra + entry,
        "after": inner + entry + extra,
        "twice": inner + entry + entry,
        "cut": inner[:-1] + entry,
    }[where]
    signed_path.write_bytes(bundle.seal(forged))
    with pytest.raises(SignatureError):
        bundle.read(signed_path, signer[1])


def test_any_change_under_a_new_checksum_is_refused(signed_path, signer):
    body = body_of(signed_path)
    rng = random.Random(0)
    # All of the entry itself, and a sample of what it signs.
    tail = range(len(body) - bundle.SIGNATURE_SIZE, len(body))
    for place in (*tail, *(rng.randrange(len(body)) for _ in range(200))):
        changed = bytearray(body)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(SignatureError):
            bundle.unseal(bundle.seal(bytes(changed)), signed_path, signer[1])


def test_signature_is_looked_at_before_the_model_is_parsed(signed_path, signer, other):
    body = b"\xff" * 1000
    entry = body_of(signed_path)[-bundle.SIGNATURE_SIZE :]
    with pytest.raises(SignatureError):
        bundle.unseal(bundle.seal(body + entry), signed_path, signer[1])
    with pytest.raises(BundleError, match="not an ONNX model"):
        bundle.unseal(bundle.seal(body + entry), signed_path)


def sign(*words) -> int:
    parser = argparse.ArgumentParser()
    sign_command.add_arguments(parser)
    return sign_command.run(parser.parse_args([str(word) for word in words]))


def test_sign_command_signs_in_place_or_beside(bundle_path, tmp_path, capsys):
    secret, public = make_keys(tmp_path / "keys", "b", bundle=True)
    trusted = load_bundle_keys([public])
    before = bundle_path.read_bytes()
    assert sign(bundle_path, "--key", secret, "-o", tmp_path / "signed.onnx") == 0
    assert bundle_path.read_bytes() == before
    digest = bundle.read(tmp_path / "signed.onnx", trusted).sha256
    assert digest in capsys.readouterr().out
    assert sign(bundle_path, "--key", secret) == 0
    assert bundle_path.read_bytes() == (tmp_path / "signed.onnx").read_bytes()


def test_sign_command_leaves_what_it_cannot_sign(bundle_path, tmp_path):
    secret, _ = make_keys(tmp_path / "keys", "b", bundle=True)
    before = bundle_path.read_bytes()
    if os.name == "posix":
        secret.chmod(0o644)
        with pytest.raises(SecretError):
            sign(bundle_path, "--key", secret)
        secret.chmod(0o600)
    assert bundle_path.read_bytes() == before
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(before[:-1])
    with pytest.raises(BundleError, match="not a complete bundle"):
        sign(broken, "--key", secret)
    assert broken.read_bytes() == before[:-1]
