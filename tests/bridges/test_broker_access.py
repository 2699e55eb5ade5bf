"""Who may talk to whom: certificates, users and rights, against another maker's broker."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspector.bridges.broker import Access, BrokerError, try_connection
from inspector.config.mqtt_bridge import MqttBridge
from tests.bridges.brokers import TOPIC, Broker, bridge, config, need_broker, wait_for
from tests.bridges.certificates import Authority
from tests.running import inside
from tests.stations import Station

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("works"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "other")


@contextlib.contextmanager
def tls_broker(
    folder: Path, works: Authority, certificate: tuple[Path, Path], *settings: str
) -> Iterator[Broker]:
    settings = (
        "allow_anonymous true",
        f"cafile {works.ca}",
        f"certfile {certificate[0]}",
        f"keyfile {certificate[1]}",
        *settings,
    )
    made = need_broker(folder, *settings, words=("--cafile", str(works.ca)))
    try:
        yield made
    finally:
        made.close()


def problem(broker: str, folder: Path, **keys: Any) -> str:
    """What is wrong with the connection; "" for nothing."""
    document = {"bridge": "mqtt", "broker": broker, "state": folder / "state"}
    made = MqttBridge.model_validate(document | keys)
    try:
        try_connection(made, Access.load(made))
    except BrokerError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def test_verdicts_travel_by_tls(tmp_path, works):
    with (
        tls_broker(tmp_path, works, works.sign("broker")) as broker,
        Station(tmp_path / "journal") as station,
    ):
        heard = broker.subscribe(tmp_path)
        station.lose(40)
        with bridge(config(station, broker.address, tmp_path, tls={"ca": works.ca})):
            station.wait()
            station.say_status()
            wait_for(lambda: len(heard.seqs()) == 40)
            station.publish(3)
            wait_for(lambda: len(heard.seqs()) == 43)


def test_a_broker_is_known_by_its_certificate(tmp_path, works, other):
    with tls_broker(tmp_path / "1", works, works.sign("broker")) as broker:
        own = {"ca": works.ca}
        assert problem(broker.address, tmp_path, tls=own) == ""
        assert "self-signed certificate" in problem(broker.address, tmp_path, tls={"ca": other.ca})
        assert "look at tls.ca" in problem(broker.address, tmp_path, tls={})
        named = broker.address.replace("127.0.0.1", "localhost")
        assert "not valid for 'localhost'" in problem(named, tmp_path, tls=own)
        assert "its port for TLS" in problem(broker.address, tmp_path)
    with tls_broker(tmp_path / "2", works, works.sign("old", days=-1)) as broker:
        assert "certificate has expired" in problem(broker.address, tmp_path, tls=own)
    with tls_broker(tmp_path / "3", works, works.sign("elsewhere", "broker.example")) as broker:
        assert "not valid for '127.0.0.1'" in problem(broker.address, tmp_path, tls=own)
    plain = need_broker(tmp_path / "4")
    with contextlib.closing(plain):
        assert "the broker's port for TLS" in problem(plain.address, tmp_path, tls=own)


def test_a_bridge_is_known_by_its_certificate(tmp_path, works, other):
    def with_own(names: tuple[Path, Path]) -> dict[str, Path]:
        return {"ca": works.ca, "certificate": names[0], "key": names[1]}

    with tls_broker(tmp_path, works, works.sign("broker"), "require_certificate true") as broker:
        assert problem(broker.address, tmp_path, tls=with_own(works.sign("bridge"))) == ""
        told = problem(broker.address, tmp_path, tls={"ca": works.ca})
        assert told.startswith("hung up") and "tls.certificate" in told
        for names in (works.sign("old-bridge", days=-1), other.sign("strange-bridge")):
            told = problem(broker.address, tmp_path, tls=with_own(names))
            assert told.startswith("hung up") and str(names[0]) in told


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Broker]:
    """A broker that knows line-1, who may write everything of its topic, and mes."""
    passwords, rights = tmp_path / "passwords", tmp_path / "rights"
    passwords.touch(0o600)
    rights.touch(0o600)
    rights.write_text(
        f"user line-1\ntopic write {TOPIC}/verdict\ntopic write {TOPIC}/status\n"
        f"topic read {TOPIC}/command\ntopic write {TOPIC}/reply\n"
        "user mes\ntopic #\nuser guest\ntopic read #\n"
    )
    broker = None
    try:
        broker = (
            need_broker(
                tmp_path,
                "allow_anonymous false",
                f"password_file {passwords}",
                f"acl_file {rights}",
                words=("-u", "mes", "-P", "p-mes"),
            )
            if _passwords(passwords)
            else None
        )
        yield broker
    finally:
        if broker is not None:
            broker.close()


def _passwords(path: Path) -> bool:
    for user in ("line-1", "mes", "guest"):
        command = ["mosquitto_passwd", "-b", str(path), user, f"p-{user}"]
        subprocess.run(command, check=True, capture_output=True)
    return True


def password_file(folder: Path, user: str, text: str | None = None) -> dict[str, Any]:
    path = folder / f"{user}.password"
    path.touch(0o600)
    path.write_text(f"p-{user}\n" if text is None else text, encoding="utf-8")
    return {"user": user, "password_file": path}


def test_users_and_passwords(tmp_path, users):
    assert problem(users.address, tmp_path, **password_file(tmp_path, "line-1")) == ""
    for keys in (
        {},
        {"user": "line-1"},
        password_file(tmp_path, "line-1", "wrong\n"),
        password_file(tmp_path, "nobody"),
    ):
        told = problem(users.address, tmp_path, **keys)
        assert told.startswith("refuses the connection: Not authorized; look at user"), keys


def test_a_broker_that_takes_no_verdict_of_this_user_is_named_and_nothing_counts(
    tmp_path, users, caplog
):
    caplog.set_level("INFO", "inspector")
    with Station(tmp_path / "journal") as station:
        station.lose(5)
        made = config(station, users.address, tmp_path, **password_file(tmp_path, "guest"))
        with bridge(made) as state:
            wait_for(lambda: "does not take" in caplog.text)
            time.sleep(1.5)
            station.say_status()
            assert state.last is None
    assert caplog.text.count("does not take") == 1 and "broker well" not in caplog.text
    assert re.search(r"does not take the bridge's messages: Not authorized; look at", caplog.text)


def test_a_command_whose_answer_nobody_may_have_ends_no_connection(tmp_path, users, caplog):
    caplog.set_level("INFO", "inspector")
    heard = users.subscribe(tmp_path)
    with Station(tmp_path / "journal") as station:
        keys = password_file(tmp_path, "line-1") | {"commands": {"trigger": True}}
        with bridge(config(station, users.address, tmp_path, **keys)):
            station.wait()
            wait_for(lambda: heard.documents("status"))
            users.publish(f"{TOPIC}/command", "1", "-D", "publish", "response-topic", "secret/x")
            users.publish(f"{TOPIC}/command", "2")
            wait_for(lambda: heard.documents("reply"))
            station.publish(2)
            wait_for(lambda: len(heard.seqs()) == 2)
    assert "does not take" not in caplog.text
    assert "answer not taken" in caplog.text and "secret/x" in caplog.text
    # One connection from the beginning to the end.
    assert [one["bridge"] for one in heard.documents("status")].count("offline") == 1


def checked(folder: Path, **keys: Any) -> tuple[int, str]:
    """Exit code and text of ``inspector check`` for a bridge with these keys."""
    path = folder / "bridge.yaml"
    document = {"bridge": "mqtt", "state": str(folder / "state")} | keys
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    code, out, err = inside("check", path)
    return code, out + err


def test_check_finds_what_is_wrong(tmp_path, works, users):
    with Station(tmp_path / "journal") as station:
        addresses = {"commands": station.commands, "verdicts": station.verdicts}
        keys = {"station": addresses, "broker": users.address, "user": "line-1"}
        secret = str(password_file(tmp_path, "line-1")["password_file"])
        good = keys | {"password_file": secret}
        code, text = checked(tmp_path, **good)
        assert code == 0 and "takes the connection" in text, text

        code, text = checked(tmp_path, **keys)
        assert code != 0 and "Not authorized; look at user" in text
        code, text = checked(tmp_path, **good | {"state": str(tmp_path / "no" / "state")})
        assert code != 0 and "state: is no folder to write to" in text
        (tmp_path / "state").write_text("{")
        code, text = checked(tmp_path, **good)
        assert code != 0 and "is no state file of a bridge" in text
        (tmp_path / "state").unlink()
        code, text = checked(tmp_path, **good | {"tls": {"ca": str(tmp_path / "no.pem")}})
        assert code != 0 and "access" in text and "tls.ca: cannot be used: No such file" in text
        ours = works.sign("bridge"), works.sign("another")
        mixed = {"ca": str(works.ca), "certificate": str(ours[0][0]), "key": str(ours[1][1])}
        code, text = checked(tmp_path, **good | {"tls": mixed})
        assert code != 0 and "belong together" in text
        ours[0][1].chmod(0o644)
        mixed["key"] = str(ours[0][1])
        code, text = checked(tmp_path, **good | {"tls": mixed})
        assert code != 0 and str(ours[0][1]) in text and "chmod" in text
        for wrong in ("two\nlines\n", "\n", "", "\udcff"):
            Path(secret).write_bytes(wrong.encode("utf-8", "surrogateescape"))
            code, text = checked(tmp_path, **good)
            assert code != 0 and "must hold the password alone" in text
        Path(secret).chmod(0o644)
        code, text = checked(tmp_path, **good)
        assert code != 0 and "chmod" in text
    password_file(tmp_path, "line-1")
    Path(secret).chmod(0o600)
    code, text = checked(tmp_path, **good)
    assert code != 0 and "a bridge waits for it" in text and "takes the connection" in text
    for keys, word in (
        ({"broker": "127.0.0.1"}, "HOST:PORT"),
        ({"topic": "a/#"}, "topic"),
        ({"tls": {"key": "x"}}, "certificate"),
        ({"password_file": "x"}, "user"),
        ({"commands": {"reload": True}}, "reload"),
        ({"in_flight": 0}, "in_flight"),
    ):
        code, text = checked(tmp_path, **keys)
        assert code != 0 and word in text and "Traceback" not in text, text
