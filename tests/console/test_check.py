"""``check`` of the page's file, and the certificate that ``keygen --console`` makes."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from inspector.config.console_file import ServerTls
from inspector.console import certificate
from inspector.console.users import add_user
from inspector.errors import ConfigError, PortError, SecretError, StartupError
from tests import running
from tests.console.serving import addresses


def write(path: Path, stations: dict[str, Any], **keys: Any) -> Path:
    path.write_text(yaml.safe_dump({"stations": stations} | keys), encoding="utf-8")
    return path


def made(folder: Path, *hosts: str) -> dict[str, str]:
    """What stands under ``tls``."""
    named = [word for host in hosts for word in ("--host", host)]
    code, out, err = running.inside("keygen", folder, "--console", *named)
    assert (code, err) == (0, ""), err
    assert "in the page's file:" in out and f"hosts: [{', '.join(hosts)}]" in out
    return {"certificate": str(folder / "console.pem"), "key": str(folder / "console.key")}


def test_all_is_well(tiny_line, tmp_path):
    users = tmp_path / "users.yaml"
    add_user(users, "anna", "operator", "correct horse")
    tls = made(tmp_path / "keys", "localhost", "127.0.0.1")
    file = write(
        tmp_path / "console.yaml",
        {"line-1": addresses(tiny_line)},
        listen="127.0.0.1:0",
        hosts=["localhost"],
        tls=tls,
        users=str(users),
        state=str(tmp_path / "state"),
    )
    code, out, err = running.inside("check", file)
    assert (code, err) == (0, ""), out + err
    for said in ("anna (operator)", "its key can be used", "'line-1' is", "verdicts come from"):
        assert said in " ".join(out.split())
    assert "note" not in out and f"console {file}" in " ".join(out.split())
    assert not (tmp_path / "state").exists()


@pytest.mark.long
def test_each_thing_that_would_fail_is_named(tiny_line, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gone = {"commands": f"tcp://127.0.0.1:{port}"}
        deaf = addresses(tiny_line) | {"verdicts": f"tcp://127.0.0.1:{port}"}
        file = write(
            tmp_path / "console.yaml",
            {"gone": gone, "deaf": deaf},
            listen=f"127.0.0.1:{port}",
            tls={"certificate": "none.pem", "key": str(tmp_path / "none.key")},
            users=str(tmp_path / "users.yaml"),
            state=str(file_of(tmp_path)),
        )
        code, out, _ = running.inside("check", file)
    said = " ".join(out.split())
    assert code == SecretError.exit_code
    for words in (
        "users.yaml: no such file; make it with",
        "none.key: no such key file",
        f"127.0.0.1:{port}: cannot be used",
        "is no folder to write to",
        "gone: tcp://",
        "deaf: tcp://",
        "nothing came in 3 s",
    ):
        assert words in said, words


def file_of(folder: Path) -> Path:
    """A path on which no folder can be made, not even by root."""
    (folder / "file").write_text("")
    return folder / "file" / "state"


def test_a_file_that_is_wrong_ends_it(tmp_path):
    file = write(tmp_path / "console.yaml", {"line-1": {}}, listen="0.0.0.0:8443")
    code, out, _ = running.inside("check", file)
    assert code == ConfigError.exit_code and "beyond loopback" in out
    assert PortError.exit_code != code != StartupError.exit_code


def shake_hands(tls: dict[str, str], host: str) -> None:
    """As a browser that trusts the certificate does at ``host``."""
    trusting = ssl.create_default_context(cafile=tls["certificate"])
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        trusting.wrap_bio(back, there, server_hostname=host),
        certificate.load(ServerTls(**tls)).wrap_bio(there, back, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                ends.remove(end)


def test_the_certificate_is_one_that_browsers_take(tmp_path):
    tls = made(tmp_path, "inspector.plant.example", "10.0.3.7", "::1")
    assert Path(tls["key"]).stat().st_mode & 0o777 == 0o600
    for host in ("inspector.plant.example", "10.0.3.7", "::1"):
        shake_hands(tls, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls, "other.example")
    found = x509.load_pem_x509_certificate(Path(tls["certificate"]).read_bytes())
    assert found.not_valid_after_utc - found.not_valid_before_utc < datetime.timedelta(days=825)
    loaded = ServerTls(**tls)
    assert certificate.load(loaded).minimum_version == ssl.TLSVersion.TLSv1_2
    assert certificate.doubts(loaded, ["INSPECTOR.plant.example".lower(), "10.0.3.7", "::1"]) == []
    (doubt,) = certificate.doubts(loaded, ["other.example"])
    assert "not for other.example" in doubt
    code, _, err = running.inside("keygen", tmp_path, "--console", "--host", "a.example")
    assert code == SecretError.exit_code and "never overwritten" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--console", "--bundle"), "two things"),
        (("--console", "--opcua"), "two things"),
        (("--console", "--host", "ä ö"), "is no name of a host"),
        (("--console", "--user", "a"), "--user is of --opcua"),
        (("--host", "a"), "--host is of --opcua and --console"),
    ],
)
def test_what_keygen_cannot_make_is_one_line(tmp_path, words, said):
    code, out, err = running.inside("keygen", tmp_path / "keys", *words)
    assert (code, out, err.count("\n")) == (SecretError.exit_code, "", 1)
    assert said in err and not (tmp_path / "keys").exists()


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path):
    tls, other = made(tmp_path / "a", "localhost"), made(tmp_path / "b", "localhost")
    wrong = {
        "is not the certificate of": {"certificate": tls["certificate"], "key": other["key"]},
        "no such certificate": {"certificate": str(tmp_path / "none.pem"), "key": tls["key"]},
        "holds no certificate": {"certificate": tls["key"], "key": tls["key"]},
    }
    for said, keys in wrong.items():
        with pytest.raises(SecretError, match=said):
            certificate.load(ServerTls(**keys))
    Path(tls["key"]).chmod(0o644)
    with pytest.raises(SecretError, match="chmod 600"):
        certificate.load(ServerTls(**tls))
