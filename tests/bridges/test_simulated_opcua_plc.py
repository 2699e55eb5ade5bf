"""The simulated PLC over OPC UA: a client that works as a line does."""

from __future__ import annotations

import shutil
import time

import pytest

from inspector.bridges.opcua_security import make_password, make_pki
from inspector.bridges.simulated_opcua_plc import OpcuaPlc
from tests import running
from tests.bridges.opcua_line import Opcua
from tests.stations import free_ports


@pytest.fixture
def opcua(line, tmp_path):
    return Opcua(line, tmp_path, line._stack)


def turn(plc: OpcuaPlc, until: str, timeout_s: float = 20.0) -> None:
    """Scan without a part until the PLC reads this state."""
    deadline = time.monotonic() + timeout_s
    while plc.state != until:
        assert plc.scan() == []
        plc.rest(0.005)
        assert time.monotonic() < deadline, plc.state


@pytest.mark.peers
def test_every_part_ends_once_whoever_dies(opcua, line):
    line.start_station()
    bridge = opcua.start(result_timeout_ms=5000)
    plc = OpcuaPlc(opcua.url, timeout_s=10)
    try:
        plc.connect()
        assert plc.camera == "top"
        seen = list(plc.run(6, 0.0))
        assert [part.part_id for part in seen] == [f"part-{n:05}" for n in range(1, 7)]
        assert [part.verdict for part in seen] == [1, 2] * 3
        assert [part.passes for part in seen] == [True, False] * 3
        assert all(part.score >= 1.0 and part.reason for part in seen if part.verdict == 2)

        # Without a station no part is sent.
        line.relay.cut()
        turn(plc, "", 10)
        assert not plc.may_trigger
        line.relay.mend()
        turn(plc, "Ready")
        assert len(list(plc.run(2, 0.0))) == 2

        # A part that is under way when the bridge dies ends by the PLC's own time, as a reject.
        plc._timeout_s = 0.5
        plc.trigger("lost")
        bridge.kill()
        bridge.wait()
        ended = []
        deadline = time.monotonic() + 10
        while not ended:
            ended = plc.scan()
            plc.rest(0.005)
            assert time.monotonic() < deadline
        (lost,) = ended
        assert (lost.part_id, lost.passes, plc.waiting) == ("lost", False, 0)
        plc._timeout_s = 10
        turn(plc, "")
        opcua.start(result_timeout_ms=5000)
        turn(plc, "Ready")
        assert plc.connections == 2
        assert {part.verdict for part in plc.run(4, 0.0)} == {1, 2}
        # A job that the bridge refuses is a reject, too, and says why.
        plc.trigger("x" * 65)
        while not (ended := plc.scan()):
            plc.rest(0.005)
        assert (ended[0].verdict, ended[0].reason) == (0, "part_id")
    finally:
        plc.close()


@pytest.mark.peers
def test_the_command_logs_in_as_a_plc_does(opcua, line, tmp_path):
    line.start_station()
    for name in ("pki", "plc"):
        make_pki(tmp_path / name, name, ["127.0.0.1"])
    make_password(tmp_path / "plc-1.password")
    make_password(tmp_path / "other.password")
    users = {
        "viewer": {"password_file": str(tmp_path / "other.password"), "roles": ["read"]},
        "plc-1": {"password_file": str(tmp_path / "plc-1.password"), "roles": ["read", "trigger"]},
    }
    opcua.start(pki=str(tmp_path / "pki"), users=users, result_timeout_ms=5000)
    command = ("simulate-plc", "opcua", opcua.file, "--timeout", "10", "--parts", "4", "--every")
    own = ("0", "--pki", tmp_path / "plc")
    # Nobody has trusted its certificate yet.
    code, _, err = running.inside(*command, *own)
    assert code == 16 and err.count("\n") == 1 and "the bridge's log says more" in err
    assert "certificate is not trusted" in opcua.said()
    shutil.copy(tmp_path / "plc" / "own.der", tmp_path / "pki" / "trusted" / "plc.der")
    code, out, err = running.inside(*command, *own)
    assert (code, err) == (0, ""), err
    assert out.count(" PASS ") == out.count(" FAIL ") == 2 and out.count(" reject ") == 2
    assert "results of parts that were given up by then: 0" in out
    # Whoever may only read has every part refused, and the PLC rejects it.
    viewer = ("--user", "viewer", "--password-file", tmp_path / "other.password")
    by_url = ("simulate-plc", "opcua", opcua.url, "--parts", "1", *viewer, *own[1:])
    code, out, _ = running.inside(*by_url)
    assert (code, out.count("BadUserAccessDenied")) == (0, 1)
    wrong = ("--user", "plc-1", "--password-file", tmp_path / "other.password")
    code, _, err = running.inside(*command, *own, *wrong)
    assert code == 16 and err.count("\n") == 1
    assert "user unknown, or wrong password" in opcua.said()
    code, _, err = running.inside(*by_url, "--camera", "side")
    assert code == 16 and "has no VisionSystem 'side'; it has top" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("b.yaml", "--camera", "side"), 10, "there is no 'side'"),
        (("b.yaml",), 16, "opc.tcp://127.0.0.1:"),
        (("b.yaml", "--user", "plc"), 10, "--pki: missing"),
        (("b.yaml", "--pki", "nowhere"), 10, "--user: missing"),
        (("b.yaml", "--pki", "nowhere", "--user", "plc"), 10, "--password-file: missing"),
        (("c.yaml",), 10, "c.yaml"),
    ],
)
def test_what_keeps_the_plc_from_connecting_is_one_line(tmp_path, arguments, code, said):
    (port,) = (one.rpartition(":")[2] for one in free_ports(1))
    (tmp_path / "b.yaml").write_text(f"bridge: opcua\ncameras: [top]\nlisten: 127.0.0.1:{port}\n")
    file, *options = arguments
    found, _, err = running.inside("simulate-plc", "opcua", tmp_path / file, *options)
    assert (found, err.count("\n")) == (code, 1) and said in err
