"""What peers do wrong at an OPC UA bridge: one line each, and the others' parts are judged on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_to_binary

from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import ErrorCode
from inspector.journal.reader import Reader
from inspector.logs import Refusals
from tests.bridges.opcua_line import Caller, Opcua, connected
from tests.loops import in_a_loop

SCHEMA = 7617
"""The description of the base specification's types, 200 kB."""


@pytest.fixture
def opcua(line, tmp_path):
    return Opcua(line, tmp_path, line._stack)


def hello(receives: int = 65_535, sends: int = 65_535, announced: int | None = None) -> bytes:
    body = struct_to_binary(
        ua.Hello(
            ReceiveBufferSize=receives, SendBufferSize=sends, EndpointUrl="opc.tcp://127.0.0.1"
        )
    )
    return struct.pack("<4sI", b"HELF", announced or len(body) + 8) + body


def channel() -> bytes:
    """A secure channel without security, which a client may open to ask what is offered."""
    body = struct_to_binary(ua.OpenSecureChannelRequest())
    uri = b"http://opcfoundation.org/UA/SecurityPolicy#None"
    head = struct.pack("<Ii", 0, len(uri)) + uri + struct.pack("<iiII", -1, -1, 1, 1)
    return struct.pack("<4sI", b"OPNF", 8 + len(head) + len(body)) + head + body


def dies_in_the_middle(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(hello()[:20])
        time.sleep(0.05)


def sends(data: bytes) -> Callable[[int], None]:
    """Someone who sends these bytes, and is hung up."""

    def send(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            try:
                peer.sendall(data)
                while peer.recv(65_536):
                    pass
            except ConnectionError:
                return

    return send


RAW: list[tuple[str, Callable[[int], None]]] = [
    ("sent bytes that are no OPC UA", sends(b"GET / HTTP/1.1\r\nHost: inspector\r\n\r\n")),
    ("sent bytes that are no OPC UA", sends(hello(announced=8))),
    ("announced a message of 4294967295 bytes", sends(hello(announced=0xFFFFFFFF))),
    ("has buffers of less than 8192 bytes", sends(hello(receives=100))),
    ("has buffers of less than 8192 bytes", sends(hello(sends=0))),
    ("sent a message that cannot be read", sends(struct.pack("<4sI", b"HELF", 9) + b"x")),
    (
        "sent a message that cannot be read",
        sends(hello() + struct.pack("<4sI", b"OPNF", 40) + b"\xff" * 32),
    ),
    (
        "sent a message that cannot be read",
        sends(hello() + channel() + struct.pack("<4sI", b"MSGF", 64) + b"\xff" * 56),
    ),
    ("bytes before it logged in", sends(hello() * 1500)),
    ("hung up in the middle of a message", dies_in_the_middle),
]


def lines_of(opcua: Opcua, problem: str, count: int = 1) -> None:
    """Wait until the log has a line about it, and there is no other."""
    until = time.monotonic() + 10
    while problem not in opcua.said():
        assert time.monotonic() < until, (problem, opcua.said())
        time.sleep(0.02)
    assert opcua.said().count(problem) == count, opcua.said()
    assert "Traceback" not in opcua.said()


async def crowd(port: int, many: int) -> list[Any]:
    """So many connections that say nothing."""

    async def come() -> Any:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return None

    return [one for one in await asyncio.gather(*[come() for _ in range(many)]) if one]


async def deaf(opcua: Opcua) -> None:
    """A client that asks on and on, and takes no answers."""
    with contextlib.suppress(ua.UaError, ConnectionError, asyncio.TimeoutError):
        async with connected(opcua.url) as caller:
            client = caller.client
            transport = client.uaclient.protocol.transport
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            transport.pause_reading()
            schema = client.get_node(ua.NodeId(SCHEMA))
            asked = [asyncio.create_task(client.read_values([schema] * 5)) for _ in range(20)]
            await asyncio.to_thread(lines_of, opcua, "does not take its answers")
            transport.resume_reading()
            await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.long
def test_bytes_that_are_none_of_the_protocol_end_their_own_connection(opcua):
    child = opcua.start(connections=8)

    async def whole() -> None:
        async with connected(opcua.url) as client:
            for problem, misdeed in RAW:
                await asyncio.to_thread(misdeed, opcua.line.port)
                await asyncio.to_thread(lines_of, opcua, problem)
                assert await client.state() is None
            # A crowd takes nobody's place who has logged in, and keeps nobody from logging in.
            silent = await crowd(opcua.line.port, 100)
            async with connected(opcua.url) as other:
                assert await other.state() is None
            for _, writer in silent:
                writer.close()
            assert await client.state() is None
            # Requests of more than the largest size, and of more operations than there may be.
            many = [ua.NodeId(2258)] * 1001
            with pytest.raises(ua.UaStatusCodeError, match="BadTooManyOperations"):
                await client.client.read_values([client.client.get_node(one) for one in many])
            with pytest.raises(ua.UaStatusCodeError, match="BadResponseTooLarge"):
                await client.client.read_values([client.client.get_node(ua.NodeId(SCHEMA))] * 100)
            objects = ua.BrowseDescription(
                NodeId=ua.NodeId(ua.ObjectIds.BaseObjectType),
                BrowseDirection=ua.BrowseDirection.Both,
                ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
                IncludeSubtypes=True,
            )
            asked = ua.BrowseParameters(NodesToBrowse=[objects] * 500)
            with pytest.raises(ua.UaStatusCodeError, match="BadResponseTooLarge"):
                await client.client.uaclient.session.browse(asked)
            await deaf(opcua)
            async with connected(opcua.url) as large:
                with pytest.raises((ua.UaError, ConnectionError, asyncio.TimeoutError)):
                    await large.start(parameters=["lot=" + "x" * 70_000])
            assert await client.state() is None

    in_a_loop(whole())
    lines_of(opcua, "had not logged in when 'connections' were used up")
    lines_of(opcua, "sent a request of more than 65536 bytes")
    assert child.poll() is None


def test_the_log_has_few_lines_however_many_names_a_peer_thinks_of(caplog):
    refusals = Refusals("opcua")
    for number in range(500):
        refusals.say(f"user-{number}" + "x" * 70_000, "user unknown, or wrong password")
        refusals.say("10.0.0.1", "y" * 70_000)
    assert len(caplog.records) == 20
    assert max(len(one.getMessage()) for one in caplog.records) < 1000


@pytest.mark.peers
def test_parts_are_judged_whatever_other_peers_do(opcua, line):
    """A PLC has one part after the other judged while everything else happens."""
    line.start_station()
    # Machines that build are slow; here only peers shall be able to keep a verdict back.
    child = opcua.start(result_timeout_ms=10_000, heartbeat_s=8)
    judged: list[float] = []
    work: asyncio.Task[None]

    async def plc(client: Caller, over: asyncio.Event) -> None:
        heard = await client.listen(mv.RESULT_READY)
        while not over.is_set():
            job = await client.accepted(part=f"part-{len(judged)}")
            event = await heard.next()
            content = [one.Value for one in event.ResultContent]
            assert (event.JobId.Id, content[5]) == (job, True)
            assert content[0] in {1, 2}, content
            judged.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def while_judging(misdeed: Awaitable[Any]) -> Any:
        assert not work.done() or work.result()
        before = len(judged)
        found = await misdeed
        until = time.monotonic() + 10
        while len(judged) < before + 3:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        return found

    async def whole() -> None:
        nonlocal work
        port, over = line.port, asyncio.Event()
        async with connected(opcua.url) as client:
            await client.until("Ready")
            work = asyncio.create_task(plc(client, over))
            silent = await while_judging(crowd(port, 3))
            # One that logs in, and then says nothing more than a machine that is switched off.
            mute = Client(opcua.url, timeout=10, watchdog_intervall=1000)
            mute.session_timeout = 5000
            await mute.connect()
            wire = mute.uaclient.protocol.transport
            for problem, misdeed in RAW:
                await while_judging(asyncio.to_thread(misdeed, port))
                await asyncio.to_thread(lines_of, opcua, problem)
            await while_judging(asyncio.to_thread(time.sleep, 10))
            for reader, writer in silent:
                assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()
            thousand = await while_judging(crowd(port, 1000))
            for _, writer in thousand:
                writer.close()
            async with connected(opcua.url) as other:
                # The largest request that is taken.
                text = [f"lot={number}" for number in range(3500)]
                job, error = await while_judging(other.start(parameters=text))
                assert (job, error) == ("", -int(ErrorCode.ARGUMENT))
                nodes = [other.client.get_node(ua.NodeId(2255))] * 1000
                assert len(await while_judging(other.client.read_values(nodes))) == 1000
            await while_judging(deaf(opcua))
            until = time.monotonic() + 30
            while not wire.is_closing():
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            with contextlib.suppress(ua.UaError, ConnectionError, asyncio.TimeoutError):
                await mute.disconnect()
            over.set()
            await work

    try:
        in_a_loop(whole())
    finally:
        print(opcua.said())
    lines_of(opcua, "was not logged in for 10 s")
    assert child.poll() is None
    assert max(b - a for a, b in itertools.pairwise(judged)) < 4


@pytest.mark.peers
def test_an_event_for_a_client_that_is_gone_is_not_called_heard(opcua, line):
    """Its subscription lives on, should it come back, and keeps nobody's verdicts as delivered."""
    line.start_station()
    opcua.start(result_timeout_ms=5000, heartbeat_s=8)

    async def whole() -> None:
        async with connected(opcua.url) as plc:
            await plc.until("Ready")
            with contextlib.suppress(ua.UaError, ConnectionError, asyncio.TimeoutError):
                async with connected(opcua.url) as other:
                    heard = await other.listen(mv.RESULT_READY)
                    first = await plc.accepted(part="heard")
                    assert (await heard.next()).JobId.Id == first
                    other.client.uaclient.protocol.transport.abort()
                    await asyncio.sleep(0.2)
                    await plc.accepted(part="unheard")
                    until = time.monotonic() + 20
                    while "unheard" not in delivered():
                        assert time.monotonic() < until
                        await asyncio.sleep(0.1)

    def delivered() -> dict[str, str]:
        with Reader(line.journal) as reader:
            ((epoch, _),) = reader.epochs()
            told = {one.seq: one.outcome for one in reader.delivered(epoch, 1, 10)}
            parts = {
                found["seq"]: found["part_id"]
                for found in map(json.loads, reader.verdicts(epoch, 1, None, 10))
            }
        return {parts[seq]: outcome for seq, outcome in told.items() if seq in parts}

    in_a_loop(whole())
    assert delivered() == {"unheard": "failed"}
