"""Connections of peers that are slow, silent or too many; times are shortened."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from inspector.console import door
from inspector.console.access import Person
from inspector.console.door import Door
from inspector.logs import Refusals
from tests.loops import in_a_loop

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


class Application:
    """Streams for ever to those at /stream, and answers everybody else."""

    def __init__(self) -> None:
        self.streams = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/known"):
            scope["state"]["person"] = Person("anna", "viewer")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if not scope["path"].endswith("/stream"):
            await send({"type": "http.response.body", "body": b"well"})
            return
        self.streams += 1
        with contextlib.suppress(OSError):
            while (await self._gone(receive)) is False:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        self.streams -= 1

    async def _gone(self, receive: Any) -> bool:
        try:
            while True:
                message = await asyncio.wait_for(receive(), 0.001)
                if message["type"] == "http.disconnect":
                    return True
        except asyncio.TimeoutError:
            return False


class Served:
    def __init__(self, port: int, application: Application, doors: Door) -> None:
        self.port = port
        self.application = application
        self.door = doors

    async def connect(self, sent: bytes = b"", **options: Any) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        writer.write(sent)
        return Peer(reader, writer)


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        """Everything until the connection ends."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 5)
        return b""

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def served(most: int = 20) -> AsyncIterator[Served]:
    application = Application()
    config = uvicorn.Config(application, log_config=None, ws="none", lifespan="off")
    config.load()
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    made = Door(config, server.server_state, most, None, Refusals("page"))
    task = asyncio.ensure_future(made.serve(listening))
    try:
        yield Served(listening.getsockname()[1], application, made)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listening.close()
        for one in tuple(made._open):
            made.drop(one)
        await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(door, "_REQUEST_S", 0.4)
    monkeypatch.setattr(door, "_UNREAD_S", 0.6)


async def until(holds: Any, within_s: float = 5.0) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while not holds():
        assert loop.time() < end_s, "did not come true in time"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("sent", "whole_ones"), [(b"", 0), (HEAD, 0), (HEAD[:3], 0), (HEAD, 1), (HEAD[:3], 1)]
)
def test_a_request_that_is_never_whole_ends(sent, whole_ones, caplog):
    """Also the second one of a connection, for whose first byte uvicorn would wait, and no more."""

    async def whole() -> None:
        async with served() as page:
            peer = await page.connect()
            for _ in range(whole_ones):
                peer.writer.write(HEAD + b"\r\n")
                await peer.reader.readuntil(b"0\r\n\r\n")
            peer.writer.write(sent)
            assert await peer.answer() == b""
            await until(lambda: not page.door._open)
            await peer.close()

    in_a_loop(whole())
    assert "sent no whole request in 10 s" in caplog.text


def test_a_head_that_comes_byte_by_byte_ends_too():
    async def whole() -> None:
        async with served() as page:
            peer = await page.connect()
            with contextlib.suppress(ConnectionError):
                for number in range(100):
                    peer.writer.write((HEAD + b"X-A: " + b"x" * 100)[number : number + 1])
                    await asyncio.wait_for(peer.writer.drain(), 1)
                    await asyncio.sleep(0.05)
                    if peer.reader.at_eof():
                        break
            assert number < 40
            await peer.close()

    in_a_loop(whole())


@pytest.mark.long
def test_a_stream_that_nobody_reads_ends(caplog):
    async def whole() -> None:
        async with served() as page:
            reading = await page.connect(b"GET /known/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            idle = await page.connect(b"GET /known/stream HTTP/1.1\r\nHost: a\r\n\r\n", limit=1024)
            await idle.head()
            await until(lambda: page.application.streams == 2)
            got = 0
            end_s = asyncio.get_running_loop().time() + 2.5
            while asyncio.get_running_loop().time() < end_s:
                got += len(await asyncio.wait_for(reading.reader.read(65536), 5))
            assert got > 100_000
            await until(lambda: page.application.streams == 1)
            assert len(page.door._open) == 1
            await reading.close()
            await idle.close()

    in_a_loop(whole())
    assert "left unread for 30 s" in caplog.text


def test_a_connection_too_many_takes_the_place_of_an_idle_one_of_a_stranger():
    async def whole() -> None:
        async with served(most=4) as page:
            known = await page.connect(b"GET /known HTTP/1.1\r\nHost: a\r\n\r\n")
            await known.head()
            strangers = [await page.connect() for _ in range(50)]
            await until(lambda: len(page.door._open) == 4)
            newest = await page.connect(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await newest.answer()).endswith(b"well\r\n0\r\n\r\n")
            # A browser that logged in kept its connection meanwhile.
            known.writer.write(b"GET /known HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200 OK" in await known.reader.readuntil(b"OK")
            for one in (*strangers, known, newest):
                await one.close()

    in_a_loop(whole())


def test_when_all_are_at_work_one_more_is_refused():
    async def whole() -> None:
        async with served(most=3) as page:
            streams = []
            for _ in range(3):
                streams.append(await page.connect(b"GET /known/stream HTTP/1.1\r\nHost: a\r\n\r\n"))
                await streams[-1].head()
            more = await page.connect()
            answer = await more.answer()
            assert answer == b"" or (b" 503 " in answer and answer.endswith(b'"detail":""}'))
            assert page.application.streams == 3
            for one in (*streams, more):
                await one.close()

    in_a_loop(whole())


def test_strangers_streams_make_room():
    """What a stranger may ask for is short; one that holds it open all the same holds no place."""

    async def whole() -> None:
        async with served(most=3) as page:
            streams = []
            for _ in range(3):
                post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1"
                streams.append(await page.connect(post.replace(b"/ ", b"/stream ", 1)))
                await streams[-1].head()
            more = await page.connect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 200 " in await more.head()
            for one in (*streams, more):
                await one.close()

    in_a_loop(whole())


def test_an_answer_goes_out_in_pieces_without_waiting():
    """Else the body waits until the head is acknowledged, and a peer puts that off for 40 ms."""

    async def whole() -> None:
        async with served() as one:
            peer = await one.connect(HEAD.replace(b" / ", b" /known/stream ") + b"\r\n")
            await peer.head()
            (connection,) = one.door._open
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await peer.close()

    in_a_loop(whole())


def test_the_refusal_of_one_too_many_has_the_length_that_it_says():
    head, _, body = door._FULL.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
