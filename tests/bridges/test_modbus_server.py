"""The server answers every request once and in order, and refuses what it must."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time

import pytest

from inspector.bridges import modbus_server
from tests.bridges import serving
from tests.bridges.serving import PLC, Wire


@pytest.fixture(scope="module")
def port():
    with serving.bridge(serving.config()) as made:
        yield made


@pytest.fixture(autouse=True)
def no_leaks(port):
    """The server outlives a test: what must not is connections."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def wire(port):
    with Wire(port) as made:
        yield made


@pytest.mark.parametrize("in_flight", range(1, 17))
@pytest.mark.parametrize("cut", ["joined", "split", "byte by byte"])
def test_requests_in_flight_are_answered_once_and_in_order(wire, in_flight, cut):
    randomness = random.Random(in_flight)
    wire.write(PLC + 10, *range(1, 33))
    addresses = [randomness.randrange(10, 40) for _ in range(in_flight)]
    sent = b"".join(wire.request(struct.pack(">BHH", 3, PLC + at, 2)) for at in addresses)
    first = wire._transaction - in_flight + 1
    if cut == "joined":
        wire.socket.sendall(sent)
    else:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        while at < len(sent):
            size = 1 if cut == "byte by byte" else randomness.randrange(1, 20)
            wire.socket.sendall(sent[at : at + size])
            at += size
    for number, address in enumerate(addresses):
        transaction, unit, body = wire.answer()
        values = [value if value <= 32 else 0 for value in (address - 9, address - 8)]
        assert (transaction, unit) == (first + number, 1)
        assert body == b"\x03\x04" + struct.pack(">HH", *values)
    wire.socket.settimeout(0.02)
    with pytest.raises(TimeoutError):
        wire.socket.recv(1)


def test_writes_in_flight_are_all_done(wire):
    sent = b"".join(
        wire.request(struct.pack(">BHH", 6, PLC + 10 + at, 100 + at)) for at in range(16)
    )
    wire.socket.sendall(sent)
    for at in range(16):
        assert wire.answer()[2] == struct.pack(">BHH", 6, PLC + 10 + at, 100 + at)
    assert wire.read(PLC + 10, 16) == list(range(100, 116))


@pytest.mark.parametrize("code", [3, 4])
@pytest.mark.parametrize(("count", "error"), [(0, 3), (125, 0), (126, 3), (65535, 3)])
def test_counts_of_registers(wire, code, count, error):
    body = wire.ask(struct.pack(">BHH", code, 200, count))
    assert body == bytes([code | 0x80, error]) if error else len(body) == 2 + 2 * count


@pytest.mark.parametrize("code", [1, 2])
@pytest.mark.parametrize(("count", "error"), [(0, 3), (2000, 0), (2001, 3)])
def test_counts_of_bits(wire, code, count, error):
    body = wire.ask(struct.pack(">BHH", code, 16 * 200, count))
    assert body == bytes([code | 0x80, error]) if error else len(body) == 2 + 250


def test_bits_are_those_of_the_registers(wire):
    wire.write(PLC + 10, 0b1010_0000_0000_0101)
    for code in (1, 2):
        assert wire.ask(struct.pack(">BHH", code, 16 * (PLC + 10), 16))[2:] == b"\x05\xa0"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (struct.pack(">BHH", 3, 374, 2), 2),
        (struct.pack(">BHH", 3, 65535, 125), 2),
        (struct.pack(">BHH", 6, 200, 1), 2),
        (struct.pack(">BHH", 6, 0, 1), 2),
        (struct.pack(">BHHB2H", 16, 374, 2, 4, 1, 1), 2),
        (struct.pack(">BHHBH", 16, 300, 2, 4, 1), 3),
        (struct.pack(">BHHBH", 16, 300, 1, 4, 1), 3),
        (struct.pack(">BHHB", 16, 300, 0, 0), 3),
        (struct.pack(">BHHHHBH", 23, 200, 0, 300, 1, 2, 1), 3),
        (struct.pack(">BHHHHBH", 23, 200, 126, 300, 1, 2, 1), 3),
        (struct.pack(">BHH", 5, 0, 0xFF00), 1),
        (struct.pack(">BHHB", 15, 0, 1, 1) + b"\1", 1),
        (struct.pack(">BHHH", 22, 300, 1, 1), 1),
        (b"\x2b\x0e\x01\x00", 1),
        (b"\x63", 1),
        (b"\x03", 3),
        (b"\x03\x00", 3),
    ],
)
def test_what_cannot_be_obeyed_gets_the_right_exception_and_changes_nothing(wire, message, error):
    before = wire.read(PLC, 75)
    assert wire.ask(message) == bytes([message[0] | 0x80, error])
    assert wire.read(PLC, 75) == before


def test_write_and_read_in_one_request_reads_what_the_write_has_done(wire):
    wire.write(PLC, 0, 0)
    # A new session: its echo is in the answer to the very request that opened it.
    body = wire.ask(struct.pack(">BHHHHBH", 23, 245, 1, PLC, 1, 2, 4711))
    assert body == struct.pack(">BBH", 23, 2, 4711)


@pytest.mark.parametrize("unit", [0, 1, 17, 255])
def test_any_unit_is_answered_under_its_own_number(wire, unit):
    assert wire.ask(struct.pack(">BHH", 3, 0, 1), unit)[:2] == b"\x03\x02"


def test_functions_3_and_4_read_the_same(wire):
    wire.write(PLC + 10, 1, 2, 3)
    assert wire.read(PLC, 40, 3) == wire.read(PLC, 40, 4)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\1\0\7\0\6\1\3\0\0\0\1", b"\0\1\0\0\0\0\1\3", b"\xff" * 300],
)
def test_garbage_ends_its_connection_and_no_other(port, wire, garbage):
    with Wire(port) as other:
        other.socket.sendall(garbage)
        with pytest.raises(OSError):
            other.answer()
    assert wire.read(0, 1) == [1]


def test_half_a_request_keeps_nobody_else_waiting(port, wire):
    with Wire(port) as other:
        other.socket.sendall(wire.request(b"\x03\0\0\0\1")[:9])
        assert wire.read(0, 1) == [1]


def test_garbage_in_every_register_is_no_crash(wire):
    randomness = random.Random(3)
    for _ in range(200):
        at = randomness.randrange(75)
        values = [randomness.randrange(65_536) for _ in range(randomness.randint(1, 75 - at))]
        assert wire.write(PLC + at, *values)[0] == 16
        assert len(wire.read(200, 70)) == 70
    wire.write(PLC, *[0] * 75)


def test_a_peer_that_reads_no_answers_is_hung_up(port):
    with Wire(port) as deaf:
        deaf.socket.settimeout(5)
        many = deaf.request(struct.pack(">BHH", 3, 200, 125)) * 2000
        with pytest.raises(OSError):
            for _ in range(5000):
                deaf.socket.sendall(many)


def test_strangers_are_hung_up_and_readers_may_not_write():
    made = serving.config(readers=["127.0.0.1"], writers=["10.1.2.3"], connections=3)
    with serving.bridge(made) as port, Wire(port) as reader:
        assert reader.read(0, 1) == [1]
        assert reader.write(PLC, 1) == b"\x90\x01"
        assert reader.ask(struct.pack(">BHH", 6, PLC, 1)) == b"\x86\x01"
        assert reader.ask(struct.pack(">BHHHHBH", 23, 200, 1, PLC, 1, 2, 1)) == b"\x97\x01"
        assert reader.read(PLC, 1) == [0]
    made = serving.config(readers=[], writers=["10.1.2.3"])
    with serving.bridge(made) as port, Wire(port) as stranger, pytest.raises(OSError):
        stranger.read(0, 1)


def test_one_connection_too_many_is_closed_and_the_others_live():
    with serving.bridge(serving.config(connections=3)) as port:
        open_ones = [Wire(port) for _ in range(3)]
        try:
            assert [one.read(0, 1) for one in open_ones] == [[1]] * 3
            for _ in range(1000):
                with Wire(port) as more, pytest.raises(OSError):
                    more.read(0, 1)
            assert [one.read(0, 1) for one in open_ones] == [[1]] * 3
        finally:
            for one in open_ones:
                one.socket.close()
        deadline = time.monotonic() + 5
        while True:
            try:
                with Wire(port) as again:
                    assert again.read(0, 1) == [1]
                break
            except OSError:
                assert time.monotonic() < deadline


def test_a_peer_that_floods_lets_the_others_have_their_turn(port, wire, caplog):
    one = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 200, 70)
    ending = threading.Event()

    def flood() -> None:
        with Wire(port) as peer:
            peer.socket.settimeout(0.2)
            while not ending.is_set():
                # Another one, who takes no answer, is hung up amid them.
                with Wire(port) as mute:
                    mute.socket.settimeout(0.2)
                    with contextlib.suppress(OSError):
                        mute.socket.sendall(one * 5_000)
                with contextlib.suppress(OSError):
                    peer.socket.sendall(one * 1_000)
                    peer.socket.recv(1 << 20)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        waits_s = []
        for _ in range(20):
            begun_s = time.monotonic()
            assert len(wire.read(200, 70)) == 70
            waits_s.append(time.monotonic() - begun_s)
    finally:
        ending.set()
        thread.join()
    assert max(waits_s) < 0.4, waits_s
    assert "socket.send" not in caplog.text


def test_connections_that_a_plc_left_behind_do_not_keep_it_out(monkeypatch):
    monkeypatch.setattr(modbus_server, "_SILENT_S", 0.3)
    with serving.bridge(serving.config(connections=3)) as port, contextlib.ExitStack() as stack:
        # Without power it closes none of them; here it only falls silent.
        left_behind = [stack.enter_context(Wire(port)) for _ in range(3)]
        assert [one.read(0, 1) for one in left_behind] == [[1]] * 3
        with Wire(port) as early, pytest.raises(OSError):
            early.read(0, 1)
        time.sleep(0.35)
        assert left_behind[2].read(0, 1) == [1]
        for _ in range(2):
            assert stack.enter_context(Wire(port)).read(0, 1) == [1]
        assert left_behind[2].read(0, 1) == [1]
        with pytest.raises(OSError):
            left_behind[0].read(0, 1)


def test_those_who_may_only_read_do_not_keep_the_plc_out():
    made = serving.config(readers=["127.0.0.1"], writers=["127.0.0.2"], connections=3)
    with serving.bridge(made) as port, contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Wire(port)) for _ in range(3)]
        assert [one.read(0, 1) for one in readers] == [[1]] * 3
        plc = stack.enter_context(Wire(port, source="127.0.0.2"))
        assert plc.write(PLC, 0)[0] == 16
        assert [one.read(0, 1) for one in readers[1:]] == [[1]] * 2
        with Wire(port) as another, pytest.raises(OSError):
            another.read(0, 1)
        assert plc.read(0, 1) == [1]
