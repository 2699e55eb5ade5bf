"""Keys are made once, readable by their owner alone, and refused when they are not."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import zmq
import zmq.auth
from cryptography.hazmat.primitives import serialization

from inspector.cli import keygen as keygen_command
from inspector.client.keys import ClientKeys
from inspector.config.station_file import Peer, Security
from inspector.detection.signing import load_bundle_keys, load_signing_key
from inspector.errors import SecretError
from inspector.files import read_guarded
from inspector.wire import keys
from inspector.wire.gate import Gate
from tests import running
from tests.parties import make_keys

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")


def keygen(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    keygen_command.add_arguments(parser)
    return keygen_command.run(parser.parse_args([str(word) for word in words]))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("bundle", [False, True])
def test_secret_is_for_its_owner_alone_whatever_the_umask(tmp_path, mask, bundle):
    before = os.umask(mask)
    try:
        secret, public = make_keys(tmp_path / "keys", "a", bundle)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "keys"), mode(secret)) == (0o700, 0o600)
    assert mode(public) & 0o022 == 0


def test_keygen_prints_what_goes_into_the_station_file(tmp_path, capsys):
    assert keygen(tmp_path / "keys", "--name", "plc-1") == 0
    said = capsys.readouterr().out
    peer = said.split("{plc-1: {key: '")[1].split("'")[0]
    assert Peer(key=peer, roles=("listen",)).key.encode() == keys.load_public_key(
        tmp_path / "keys" / "plc-1.public"
    )
    secret = keys.load_keys(tmp_path / "keys" / "plc-1.secret").secret.decode()
    assert secret not in said


def test_secret_shows_in_no_repr(tmp_path):
    secret, public = make_keys(tmp_path, "a")
    pair = keys.load_keys(secret)
    assert pair.secret.decode() not in repr(pair) + repr(ClientKeys.load(secret, public))
    assert pair.secret not in public.read_bytes()


def test_two_pairs_differ(tmp_path):
    first, second = (keys.load_keys(make_keys(tmp_path, name)[0]) for name in "ab")
    assert first.secret != second.secret
    assert zmq.curve_public(first.secret) == first.public


@pytest.mark.parametrize("there", ["station.secret", "station.public"])
def test_keys_are_never_overwritten(tmp_path, there):
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(SecretError, match=f"{there}: is there, and keys are never overwritten"):
        keygen(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_bytes() == b"mine"


def test_key_that_another_program_makes_at_the_same_time_is_left(tmp_path, monkeypatch):
    (tmp_path / "station.public").write_bytes(b"mine")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(SecretError, match=r"station\.public: is there"):
        keygen(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["station.public"]
    assert (tmp_path / "station.public").read_bytes() == b"mine"


def test_dangling_link_is_not_followed(tmp_path):
    (tmp_path / "station.secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretError, match="never overwritten"):
        keygen(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_no_keys_are_made_where_others_may_write(tmp_path):
    (tmp_path / "open").mkdir(mode=0o700)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SecretError, match=r"can be written by them \(mode 0777\); run 'chmod go-w"):
        keygen(tmp_path / "open")
    assert list((tmp_path / "open").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a" * 65, 'a"b', "a\nb"])
def test_names_that_are_none_are_refused(tmp_path, name, capsys):
    with pytest.raises(SystemExit):
        keygen(tmp_path, "--name", name)
    assert list(tmp_path.iterdir()) == []


def test_other_zeromq_programs_read_the_files(tmp_path):
    secret, public = make_keys(tmp_path, "a")
    pair = keys.load_keys(secret)
    assert zmq.auth.load_certificate(secret) == (pair.public, pair.secret)
    assert zmq.auth.load_certificate(public) == (pair.public, None)


def test_openssl_reads_the_keys_of_bundles(tmp_path):
    secret, public = make_keys(tmp_path, "b", bundle=True)
    try:
        done = subprocess.run(
            ["openssl", "pkey", "-in", secret, "-pubout"], capture_output=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert done.stdout == public.read_bytes()


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o660, 0o666, 0o644, 0o610])
def test_secret_that_others_may_reach_is_refused(tmp_path, wrong):
    secret, _ = make_keys(tmp_path, "a")
    bundle_secret, _ = make_keys(tmp_path, "b", bundle=True)
    for path, load in ((secret, keys.load_keys), (bundle_secret, load_signing_key)):
        path.chmod(wrong)
        with pytest.raises(SecretError, match=rf"mode {wrong:04o}\); run 'chmod 600 {path}'"):
            load(path)


@pytest.mark.parametrize("wrong", [0o664, 0o646])
def test_public_key_that_others_may_write_is_refused(tmp_path, wrong):
    _, public = make_keys(tmp_path, "a")
    _, bundle_public = make_keys(tmp_path, "b", bundle=True)
    public.chmod(wrong)
    bundle_public.chmod(wrong)
    with pytest.raises(SecretError, match="others may write it"):
        keys.load_public_key(public)
    with pytest.raises(SecretError, match="others may write it"):
        load_bundle_keys([bundle_public])


@pytest.mark.parametrize("wrong", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("depth", [0, 1])
def test_folder_that_others_may_write_is_refused(tmp_path, wrong, depth):
    folder = tmp_path / "outer" / "inner"
    secret, public = make_keys(folder, "a")
    (folder, folder.parent)[depth].chmod(wrong)
    for load, path in ((keys.load_keys, secret), (keys.load_public_key, public)):
        with pytest.raises(SecretError, match=rf"mode {wrong:04o}\); run 'chmod go-w"):
            load(path)
    # A link from a safe folder does not make it safe.
    link = tmp_path / "link.secret"
    link.symlink_to(secret)
    with pytest.raises(SecretError, match="chmod go-w"):
        keys.load_keys(link)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root gives files away")
def test_key_of_another_user_is_refused(tmp_path):
    secret, _ = make_keys(tmp_path / "keys", "a")
    os.chown(secret, 12345, 12345)
    with pytest.raises(SecretError, match=r"belongs to another user \(uid 12345\)"):
        keys.load_keys(secret)
    os.chown(secret, 0, 0)
    os.chown(secret.parent, 12345, 12345)
    with pytest.raises(SecretError, match=r"lies in .*keys, which belongs to another user"):
        keys.load_keys(secret)


def test_missing_keys_are_one_line(tmp_path):
    for load in (keys.load_keys, keys.load_public_key, load_signing_key):
        with pytest.raises(SecretError, match=r"none: no such key file; make one with 'inspector"):
            load(tmp_path / "none")
    with pytest.raises(SecretError, match="no such key file"):
        Gate(Security(secret_key=tmp_path / "none"))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop", "."):
        with pytest.raises(SecretError):
            keys.load_keys(tmp_path / name)


def test_public_and_secret_are_not_mixed_up(tmp_path):
    secret, public = make_keys(tmp_path, "a")
    bundle_secret, bundle_public = make_keys(tmp_path, "b", bundle=True)
    # Readable by all, as public keys are: to close them would be the wrong cure.
    assert {mode(path) for path in (public, bundle_public)} == {0o644}
    half = r"is the public half of a key; name the \.secret file beside it"
    with pytest.raises(SecretError, match=half):
        keys.load_keys(public)
    with pytest.raises(SecretError, match=half):
        load_signing_key(bundle_public)
    with pytest.raises(SecretError, match=r"belongs to its owner alone; name the \.public file"):
        keys.load_public_key(secret)
    for path in (bundle_secret, bundle_public):
        with pytest.raises(SecretError, match=r"holds no secret key for connections; name the"):
            keys.load_keys(path)
    with pytest.raises(SecretError, match="holds no key"):
        keys.load_public_key(bundle_public)
    for path in (secret, public):
        with pytest.raises(SecretError, match="holds no secret key for bundles"):
            load_signing_key(path)
    for path in (public, bundle_secret):
        with pytest.raises(SecretError, match="holds no public key for bundles"):
            load_bundle_keys([path])


@pytest.mark.parametrize(
    ("found", "put"),
    [
        (r'-key = "', '-key = "#'),
        (r'-key = "', r'-key = "\\'),
        (r'."\n', '"\n'),
        (r"-key = .*", "-key"),
    ],
)
def test_damaged_key_is_refused(tmp_path, found, put):
    secret, public = make_keys(tmp_path, "a")
    for path, load in ((secret, keys.load_keys), (public, keys.load_public_key)):
        path.write_text(re.sub(found, put, path.read_text()))
        with pytest.raises(SecretError, match=rf"{path}: its (public key is|keys are) damaged"):
            load(path)


def test_keys_of_version_0_1_still_load(tmp_path):
    secret, public = (
        Path(shutil.copy(Path(__file__).parent / "keys_0_1" / name, tmp_path))
        for name in ("station.secret", "station.public")
    )
    # Git keeps no modes: keygen wrote it so.
    secret.chmod(0o600)
    public.chmod(0o644)
    pair = keys.load_keys(secret)
    assert pair.public == keys.load_public_key(public)
    assert pair.public == b"p-4FI)32{hv}JFi5z0I>vX}OusED89GgOx)Lr^t>"
    Gate(Security(secret_key=secret)).close()


def test_link_that_changes_after_the_check_does_not_lead_elsewhere(tmp_path, monkeypatch):
    secret, _ = make_keys(tmp_path / "safe", "a")
    foreign, _ = make_keys(tmp_path / "open", "a")
    foreign.chmod(0o644)
    (tmp_path / "open").chmod(0o777)
    expected = keys.load_keys(secret)
    link = tmp_path / "link"
    link.symlink_to(secret)

    def read_and_turn(path: Path, secret: bool) -> bytes:
        data = read_guarded(path, secret)
        link.unlink()
        link.symlink_to(foreign)
        return data

    monkeypatch.setattr(keys, "read_guarded", read_and_turn)
    assert keys.load_keys(link) == expected
    assert link.resolve() == foreign


def test_halves_of_two_pairs_are_refused(tmp_path):
    first, second = (make_keys(tmp_path, name)[0] for name in "ab")
    lines = first.read_text().splitlines()[:-1] + second.read_text().splitlines()[-1:]
    first.write_text("\n".join(lines))
    with pytest.raises(SecretError, match="are no pair"):
        keys.load_keys(first)


def test_signing_key_with_a_password_or_of_another_kind_is_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec

    secret, _ = make_keys(tmp_path, "b", bundle=True)
    key = load_signing_key(secret)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked = serialization.BestAvailableEncryption(b"word")
    secret.write_bytes(key.private_bytes(*form, locked))
    with pytest.raises(SecretError, match="encrypted with a password"):
        load_signing_key(secret)
    other = ec.generate_private_key(ec.SECP256R1())
    secret.write_bytes(other.private_bytes(*form, serialization.NoEncryption()))
    with pytest.raises(SecretError, match="is no Ed25519 key"):
        load_signing_key(secret)


@pytest.mark.long
def test_commands_end_with_the_codes_of_their_errors(tmp_path, bundle_path):
    folder = tmp_path / "keys"
    (code, out, _), (signing, _, _) = running.at_once(
        ["keygen", folder], ["keygen", tmp_path / "bundle-keys", "--bundle"]
    )
    assert (code, signing) == (0, 0)
    assert "station.secret: secret" in out
    secret = tmp_path / "bundle-keys" / "bundle.secret"
    again, signed, unsigned = running.at_once(
        ["keygen", folder],
        ["sign", bundle_path, "--key", secret, "-o", tmp_path / "signed.onnx"],
        ["sign", bundle_path, "--key", folder / "station.secret"],
    )
    assert (again[0], signed[0], unsigned[0]) == (17, 0, 17)
    for _, _, err in (again, unsigned):
        assert err.count("\n") == 1
        assert err.startswith("inspector: error: ")
