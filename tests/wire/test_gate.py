"""Strangers can do nothing, and the station goes on serving."""

from __future__ import annotations

import contextlib
import os
import random
import time

import psutil
import pytest
import zmq

from inspector.client.subscriber import Subscriber
from inspector.config.station_file import Peer, Security
from inspector.errors import PortError, SecretError
from inspector.wire import gate as security
from inspector.wire import messages as wire
from inspector.wire.command_server import Commands, CommandSocket
from inspector.wire.gate import ALL_ROLES, Gate
from inspector.wire.keys import load_public_key
from inspector.wire.messages import VerdictMessage
from inspector.wire.publisher import Publisher
from tests.messages import status, verdict
from tests.parties import ANY, Tap, connected, make_keys, plain, wait_until, was_cut_off

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"%s" + bytes(32)
"""ZMTP 3.0, client side; the mechanism is 20 bytes."""
NULL = GREETING % b"NULL".ljust(20, b"\0")
CURVE = GREETING % b"CURVE".ljust(20, b"\0")
NULL_READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: station\r\n\r\n",
    "random": random.Random(0).randbytes(100_000),
    "zeros": bytes(1 << 20),
    "greeting only": CURVE,
    "half a greeting": CURVE[:20],
    "null handshake with a command": NULL + NULL_READY + b"\x00\x02hi",
    "curve with a garbled hello": CURVE + b"\x04\xc8\x05HELLO\x01\x00" + bytes(192),
    "curve with a huge hello": CURVE + b"\x06" + (1 << 40).to_bytes(8, "big") + bytes(1000),
    "curve, then in clear": CURVE + b"\x00\x02hi",
}


@pytest.fixture
def gate(parties, monkeypatch):
    monkeypatch.setattr(security, "_HANDSHAKE_MS", 500)
    made = Gate(parties.security)
    yield made
    assert not made.crashed
    made.close()


@pytest.fixture
def commands(gate):
    made = gate.open(zmq.ROUTER, "commands", ANY, high_water=100, largest=64 << 10)
    yield made
    gate.close_socket(made)


@pytest.fixture
def publisher(gate):
    made = Publisher(ANY, ANY, gate)
    yield made
    made.close(linger_ms=0)


def address(socket) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def taken(commands, gate, timeout_ms: int = 400) -> list[tuple[str, bytes]]:
    """Who sent what, until nothing comes any more."""
    found = []
    while commands.poll(timeout_ms):
        _, frame = commands.recv_multipart(copy=False)
        found.append((gate.peer_of(frame), frame.bytes))
    return found


def assert_serves(commands, gate, parties) -> None:
    with connected(zmq.DEALER, address(commands), parties.client_keys("plc")) as plc:
        plc.send(b"trigger")
        identity, frame = commands.recv_multipart(copy=False)
        assert (gate.peer_of(frame), frame.bytes) == ("plc", b"trigger")
        commands.send_multipart([identity.bytes, b"accepted"])
        assert plc.poll(5000)
        assert plc.recv() == b"accepted"


@pytest.mark.parametrize(
    ("own", "server"), [(None, ""), ("stranger", "station"), ("plc", "stranger")]
)
def test_command_without_the_right_keys_is_not_taken(commands, gate, parties, own, server):
    held = parties.client_keys(own, server) if own else None
    with connected(zmq.DEALER, address(commands), held) as stranger:
        for _ in range(10):
            stranger.send(b"trigger")
        assert taken(commands, gate) == []
        assert wait_until(lambda: gate.refused > 0)
        assert_serves(commands, gate, parties)
        assert taken(commands, gate, 0) == []


@pytest.mark.parametrize("what", GARBAGE)
def test_bytes_that_are_no_session_are_cut_off(commands, gate, parties, what):
    with plain(address(commands)) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(GARBAGE[what])
        assert was_cut_off(connection)
    assert taken(commands, gate, 100) == []
    assert_serves(commands, gate, parties)


def test_many_idle_connections_do_not_keep_a_peer_out(commands, gate, parties):
    with contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(plain(address(commands)))
        assert_serves(commands, gate, parties)


def test_recorded_session_is_worth_nothing(commands, gate, parties):
    tap = Tap(address(commands))
    try:
        with connected(zmq.DEALER, tap.address, parties.client_keys("plc")) as plc:
            plc.send(b"trigger")
            assert taken(commands, gate) == [("plc", b"trigger")]
        assert wait_until(lambda: len(tap.sent) > 500)
        recorded = bytes(tap.sent)
    finally:
        tap.close()
    assert b"trigger" not in recorded
    message = recorded.rindex(b"\x07MESSAGE") - 2
    for replayed in (recorded, recorded[:64] + recorded[message:], recorded + recorded[message:]):
        with plain(address(commands)) as connection:
            connection.sendall(replayed)
            assert was_cut_off(connection)
    assert taken(commands, gate, 100) == []
    assert_serves(commands, gate, parties)


def test_message_sent_twice_within_a_session_is_not_taken_twice(commands, gate, parties):
    # What stands between the two can repeat bytes in the session that it relays.
    tap = Tap(address(commands))
    try:
        with connected(zmq.DEALER, tap.address, parties.client_keys("plc")) as plc:
            plc.send(b"trigger")
            assert taken(commands, gate) == [("plc", b"trigger")]
            message = bytes(tap.sent[tap.sent.rindex(b"\x07MESSAGE") - 2 :])
            tap._ends[1].sendall(message)
            assert taken(commands, gate) == []
    finally:
        tap.close()
    assert_serves(commands, gate, parties)


@pytest.mark.parametrize("size", [(64 << 10) + 1, 10 << 20])
def test_command_beyond_the_size_limit_is_not_taken(commands, gate, parties, size):
    with connected(zmq.DEALER, address(commands), parties.client_keys("plc")) as plc:
        plc.send(bytes(size))
        assert taken(commands, gate) == []
        assert_serves(commands, gate, parties)


def test_subscription_beyond_the_size_limit_ends_its_connection_alone(publisher, parties):
    at = publisher.addresses[0]
    with (
        Subscriber(at, keys=parties.client_keys("desk")) as desk,
        connected(zmq.SUB, at, parties.client_keys("mes")) as rude,
    ):
        assert publisher.wait_for_subscriber(5.0)
        rude.subscribe(b"x" * 2000)
        for seq in range(1, 6):
            publisher.send_verdict(verdict(seq))
            heard = desk.receive(5000)
            assert isinstance(heard, VerdictMessage)
            assert heard.seq == seq


def test_subscriptions_without_end_do_not_hold_up_the_line(publisher, parties):
    at = publisher.addresses[0]
    with connected(zmq.SUB, at, parties.client_keys("mes")) as rude:
        assert publisher.wait_for_subscriber(5.0)
        for number in range(20_000):
            rude.subscribe(b"%d" % number)
        time.sleep(0.5)
        publisher.send_status(status(0))
        assert publisher._verdicts.poll(0), "all were read in one go"
        longest = 0.0
        for _ in range(30):
            begun = time.monotonic()
            publisher.send_status(status(0))
            longest = max(longest, time.monotonic() - begun)
        assert longest < 0.5


@pytest.mark.parametrize("who", ["mes", "desk"])
def test_listener_hears_over_curve(publisher, parties, who):
    with Subscriber(*publisher.addresses, keys=parties.client_keys(who)) as subscriber:
        assert publisher.wait_for_subscriber(5.0)
        publisher.send_verdict(verdict(1))
        assert subscriber.receive(5000) == verdict(1)


@pytest.mark.parametrize(
    ("own", "server"),
    [(None, ""), ("stranger", "station"), ("mes", "stranger"), ("plc", "station")],
    ids=["no key", "unknown key", "wrong station", "no role"],
)
def test_who_may_not_listen_hears_nothing(publisher, gate, parties, own, server):
    held = parties.client_keys(own, server) if own else None
    with (
        connected(zmq.SUB, publisher.addresses[0], held) as verdicts,
        connected(zmq.SUB, publisher.addresses[1], held) as images,
        Subscriber(publisher.addresses[0], keys=parties.client_keys("mes")) as honest,
    ):
        assert publisher.wait_for_subscriber(5.0)
        for seq in range(1, 4):
            publisher.send_verdict(verdict(seq))
            assert honest.receive(5000) == verdict(seq)
        assert not verdicts.poll(300)
        assert not images.poll(100)
        assert wait_until(lambda: gate.refused >= 2)


def test_refusal_is_logged_with_its_key_but_not_without_end(commands, gate, parties, caplog):
    key = load_public_key(parties.folder / "stranger.public").decode()
    with caplog.at_level("WARNING", logger="inspector"):
        for _ in range(5):
            refused = gate.refused
            with connected(
                zmq.DEALER, address(commands), parties.client_keys("stranger")
            ) as stranger:
                stranger.send(b"trigger")
                assert wait_until(lambda before=refused: gate.refused > before)
    lines = [record.getMessage() for record in caplog.records if key in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(
        'refused socket=commands why="unknown key" times=1 address=127.0.0.1'
    )


def test_client_gets_in_once_its_key_is_added(parties, tmp_path):
    path = f"ipc://{tmp_path}/commands"
    limits = {"high_water": 10, "largest": 1000}
    before = Gate(parties.security.model_copy(update={"peers": {}}))
    refusing = before.open(zmq.ROUTER, "commands", path, **limits)
    with connected(zmq.DEALER, path, parties.client_keys("plc")) as plc:
        plc.send(b"trigger")
        assert wait_until(lambda: before.refused > 0)
        assert not refusing.poll(0)
        before.close_socket(refusing)
        before.close()
        after = Gate(parties.security)
        admitting = after.open(zmq.ROUTER, "commands", path, **limits)
        assert admitting.poll(5000)
        assert after.peer_of(admitting.recv_multipart(copy=False)[1]) == "plc"
        after.close_socket(admitting)
        after.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_gets_in_while_no_thread_answers_for_it(parties, monkeypatch):
    gate = Gate(parties.security)
    socket = gate.open(zmq.ROUTER, "commands", ANY, high_water=10, largest=1000)
    monkeypatch.setattr(gate._guard, "_peers", None)
    for _ in range(2):
        with connected(zmq.DEALER, address(socket), parties.client_keys("plc")) as plc:
            plc.send(b"trigger")
            assert not socket.poll(400)
        assert gate.crashed
    gate.close_socket(socket)
    gate.close()


def test_nobody_gets_in_once_nothing_answers_at_all(parties):
    gate = Gate(parties.security)
    socket = gate.open(zmq.ROUTER, "commands", ANY, high_water=10, largest=1000)
    socket.disable_monitor()
    assert gate._guard is not None
    gate._guard.stop()
    gate._guard = None
    with connected(zmq.DEALER, address(socket), parties.client_keys("plc")) as plc:
        plc.send(b"trigger")
        assert not socket.poll(400)
    gate.close_socket(socket)
    gate.close()


COMMANDS = {
    "trigger": wire.TriggerCommand(camera="top", session="s", trigger_seq=1),
    "recipe": wire.RecipeCommand(recipe="r"),
    "reload": wire.ReloadCommand(),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("who", ["mes", "plc", "desk", "stranger"])
def test_command_is_taken_from_who_has_its_role_alone(gate, parties, who, command):
    handled = []

    def handle(request) -> None:
        handled.append(request.client)
        request.finish()

    def reader():
        raise AssertionError("nobody asked for a replay")

    served = Commands(
        CommandSocket(gate, ANY), handle=handle, status=lambda: status(0), reader=reader
    )
    served.start()
    may = {"trigger": {"plc"}, "recipe": {"desk"}, "reload": {"desk"}}[command]
    try:
        with connected(zmq.DEALER, served.address, parties.client_keys(who)) as client:
            client.send(wire.encode(COMMANDS[command]))
            if who == "stranger":
                assert not client.poll(400)
            else:
                assert client.poll(5000)
                reply = wire.decode_reply(client.recv())
                expected = ("done", "") if who in may else ("refused", "forbidden")
                assert (reply.kind, reply.code) == expected
    finally:
        served.finish()
    assert handled == ([who] if who in may else [])


def test_without_keys_nothing_but_loopback_opens():
    gate = Gate()
    try:
        for open_to_all in ("tcp://*:*", "tcp://0.0.0.0:*", "tcp://eth0:5555"):
            with pytest.raises(PortError, match=r"sockets\.commands: .* needs keys"):
                gate.open(zmq.ROUTER, "commands", open_to_all, high_water=1, largest=1)
        assert gate.roles_of("") == ALL_ROLES
        assert (gate.public_key, gate.refused, gate.crashed) == ("", 0, False)
    finally:
        gate.close()


def test_with_keys_other_machines_are_let_in(parties):
    gate = Gate(parties.security)
    socket = gate.open(zmq.ROUTER, "commands", "tcp://0.0.0.0:*", high_water=10, largest=1000)
    at = address(socket).replace("0.0.0.0", "127.0.0.1")
    with connected(zmq.DEALER, at, parties.client_keys("plc")) as plc:
        plc.send(b"trigger")
        assert taken(socket, gate) == [("plc", b"trigger")]
    gate.close_socket(socket)
    gate.close()


def test_peers_that_cannot_be_told_apart_are_refused(parties, tmp_path):
    secret, public = make_keys(tmp_path, "other")
    key = load_public_key(public).decode()
    twice = {name: Peer(key=key, roles=("listen",)) for name in ("a", "b")}
    with pytest.raises(SecretError, match=r"peers: a and b have the same key"):
        Gate(Security(secret_key=parties.folder / "station.secret", peers=twice))
    with pytest.raises(SecretError, match=r"peers\.a\.key: is the station's own"):
        Gate(Security(secret_key=secret, peers={"a": twice["a"]}))
    with pytest.raises(SecretError, match=r"peers\.a\.key: is no key"):
        over = Peer(key="#" * 40, roles=("listen",))
        Gate(Security(secret_key=secret, peers={"a": over}))
    with pytest.raises(SecretError, match=r"peers: has no effect without security\.secret_key"):
        Gate(Security(peers={"a": twice["a"]}))


@pytest.mark.skipif(os.name != "posix", reason="Windows counts its handles otherwise")
def test_gate_leaves_no_handle_open(parties):
    process = psutil.Process()
    for turn in range(6):
        gate = Gate(parties.security)
        Publisher(ANY, ANY, gate).close()
        gate.close()
        if turn == 0:
            before = process.num_fds()
    assert process.num_fds() <= before
