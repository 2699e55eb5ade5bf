"""The client of PLCs and modules: an answer for a question, or an error, whatever comes back."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from inspector.bridges.modbus_client import Device, DeviceError
from inspector.config.modbus_client import ModbusDevice


class Liar:
    """A server that answers each request with what ``answer`` makes of it."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes] = lambda request: request
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                try:
                    while request := peer.recv(300):
                        self.requests += 1
                        peer.sendall(self.answer(request))
                except OSError:
                    continue


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


@pytest.fixture
def device(liar: Liar) -> Iterator[Device]:
    config = ModbusDevice(connect=f"127.0.0.1:{liar.port}", timeout_ms=50)
    made = Device(config)
    yield made
    made.close()


def framed(request: bytes, message: bytes) -> bytes:
    return request[:4] + struct.pack(">H", len(message) + 1) + request[6:7] + message


def right(request: bytes) -> bytes:
    """What a module answers whose inputs are all on, and whose registers hold 7."""
    code, count = request[7], int.from_bytes(request[10:12], "big")
    if code in {1, 2}:
        size = (count + 7) // 8
        return framed(request, bytes([code, size]) + b"\xff" * size)
    if code in {3, 4}:
        return framed(request, bytes([code, 2 * count]) + b"\0\7" * count)
    return framed(request, request[7:12])


QUESTIONS: dict[str, tuple[Callable[[Device], object], object]] = {
    "inputs": (lambda device: device.read_inputs(3, 2), [True, True]),
    "holding": (lambda device: device.read_registers(9, 3), [7, 7, 7]),
    "input": (lambda device: device.read_registers(9, 1, "input"), [7]),
    "coil": (lambda device: device.write_coil(0, True), None),
    "registers": (lambda device: device.write_registers(0, [1, 2]), None),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_right_answer_is_taken(liar, device, name):
    ask, expected = QUESTIONS[name]
    liar.answer = right
    device.connect()
    assert ask(device) == expected and ask(device) == expected
    assert device.is_connected and liar.requests == 2


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_no_answer_to_this_question_is_an_error_and_ends_the_connection(liar, device, name):
    ask, _ = QUESTIONS[name]
    wrong: dict[str, Callable[[bytes], bytes]] = {
        "nothing": lambda _: b"",
        "exception": lambda got: framed(got, bytes([got[7] | 0x80, 2])),
        "another function": lambda got: framed(got, b"\x01\x01\x01" if got[7] != 1 else b"\x02"),
        "another unit": lambda got: right(got)[:6] + b"\x09" + right(got)[7:],
        "another transaction": lambda got: b"\x77\x77" + right(got)[2:],
        "short": lambda got: right(got)[:-1],
        "no values": lambda got: framed(got, got[7:8] + b"\0"),
        "html": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "too many": lambda got: framed(got, got[7:8] + b"\x40" + b"\1" * 64),
    }
    if name == "coil":
        wrong["off"] = lambda got: framed(got, got[7:10] + b"\0\0")
    if name == "registers":
        wrong["one of two"] = lambda got: framed(got, got[7:10] + b"\0\1")
    for how, answer in wrong.items():
        if how == "too many" and name in {"coil", "registers"}:
            continue
        liar.answer = answer
        device.connect()
        with pytest.raises(DeviceError, match=r"inputs|registers|coil"):
            ask(device)
        assert not device.is_connected, how
        with pytest.raises(DeviceError, match="no connection"):
            ask(device)


def test_any_bytes_are_one_error_or_a_right_answer(liar, device):
    """Three hundred answers with bytes changed, dropped and added."""
    chance = random.Random(7)

    def spoilt(request: bytes) -> bytes:
        answer = bytearray(right(request))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(answer))
            how = chance.randrange(3)
            if how == 0:
                answer[at] = chance.randrange(256)
            elif how == 1 and len(answer) > 1:
                del answer[at]
            else:
                answer.insert(at, chance.randrange(256))
        return bytes(answer)

    liar.answer = spoilt
    config = ModbusDevice(connect=f"127.0.0.1:{liar.port}", timeout_ms=10)
    quick, errors = Device(config), 0
    for number in range(300):
        ask, expected = list(QUESTIONS.values())[number % len(QUESTIONS)]
        try:
            if not quick.is_connected:
                quick.connect()
            found = ask(quick)
        except DeviceError:
            errors += 1
            continue
        # A value may be spoilt as well; the checksum of Modbus TCP is that of TCP.
        assert expected is None or len(found) == len(expected)
    quick.close()
    assert errors > 100


def test_a_server_that_is_not_there_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DeviceError, match="cannot be reached"):
        Device(ModbusDevice(connect=f"127.0.0.1:{port}", timeout_ms=50)).connect()
