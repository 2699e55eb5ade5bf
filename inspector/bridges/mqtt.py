"""The MQTT bridge: a station's verdicts to a broker, none lost over an outage of hours.

While the broker is away nothing is subscribed and nothing held: the station's journal is the store.
Each connection goes on after the last verdict that the broker acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiomqtt

from inspector.bridges.broker import (
    Access,
    BrokerError,
    Complaints,
    Connection,
    NotTakenError,
    RefusedError,
    Window,
    connected,
    json_properties,
    naming,
    user_properties,
)
from inspector.bridges.broker_commands import CommandDesk, Sender
from inspector.bridges.feed import Feed
from inspector.bridges.position import Position, PositionFile
from inspector.client import ClientKeys, Gap, Heatmap, Item
from inspector.config.mqtt_bridge import SPARKPLUG, MqttBridge
from inspector.errors import WireError
from inspector.logs import say
from inspector.wire.messages import ReplyMessage, StatusMessage, VerdictMessage

if TYPE_CHECKING:
    from inspector.bridges.sparkplug import EdgeNode

_RECEIVE_MS: Final = 200
_AGAIN_S: Final = (0.2, 5.0)
"""Shortest and longest time between two attempts to connect."""
_GONE_S: Final = 3.0
"""A station that is silent for so long is told as gone."""
_FAREWELL_S: Final = 3.0
_CANCEL_S: Final = 0.1
"""What has not ended after this is cancelled again."""


class Bridge:
    """A bridge at work; used in the thread of one event loop."""

    def __init__(
        self, config: MqttBridge, access: Access, keys: ClientKeys | None, state: PositionFile
    ) -> None:
        self._config = config
        self._access = access
        self._keys = keys
        self._state = state
        self._complaints = Complaints(config.broker)
        self._again_s = _AGAIN_S[0]
        self._is_refused = False
        """True while the broker takes one message, and not the other."""
        self._desk: CommandDesk | None = None
        self._replies: asyncio.Queue[tuple[Sender, ReplyMessage]] = asyncio.Queue(1000)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until ``stop`` is set. Raises :class:`WireError`."""
        config = self._config
        say("bridge", broker=config.broker, topic=config.topic, state=config.state)
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(1, "feed") as thread:
            stack.callback(self._state.write)
            if config.commands.any:
                self._desk = CommandDesk(
                    config.station.commands, self._keys, config.commands, self._tell_from()
                )
                self._desk.start()
                stack.callback(self._desk.finish)
            while not stop.is_set():
                try:
                    await self._connection(stop, thread)
                except BrokerError as error:
                    self._complaints.trouble(str(error))
                    self._is_refused = isinstance(error, RefusedError)
                    self._state.write()
                if self._desk is not None and self._desk.crashed:
                    raise WireError("the connection to the station crashed, as the log shows")
                if not stop.is_set():
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(stop.wait(), self._again_s)
                    self._again_s = min(2 * self._again_s, _AGAIN_S[1])

    def _tell_from(self) -> Callable[[Sender, ReplyMessage], None]:
        loop = asyncio.get_running_loop()

        def put(sender: Sender, reply: ReplyMessage) -> None:
            # An answer that nobody can be told in time is of no use to its sender.
            with contextlib.suppress(asyncio.QueueFull):
                self._replies.put_nowait((sender, reply))

        def tell(sender: Sender, reply: ReplyMessage) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(put, sender, reply)

        return tell

    async def _connection(self, stop: asyncio.Event, thread: ThreadPoolExecutor) -> None:
        """One connection to the broker, from its beginning to its end. Raises BrokerError."""
        config = self._config
        will = aiomqtt.Will(f"{config.topic}/status", _status("offline"), qos=1, retain=True)
        async with (
            connected(config, self._access, will, config.client_id) as connection,
            self._sparkplug() as sparkplug,
        ):
            publisher = _Publisher(config, connection, sparkplug, self._acknowledged)
            feed = Feed(
                config.station, self._keys, self._state.last, self._state.since_us, config.heatmaps
            )
            try:
                await _first(
                    stop.wait(),
                    self._named(connection, publisher.failed()),
                    self._named(connection, self._pump(feed, publisher, thread)),
                    self._named(connection, self._listen(connection)),
                    self._named(connection, self._answer(connection)),
                    *([] if sparkplug is None else [sparkplug.listen()]),
                )
                await publisher.farewell()
            finally:
                await asyncio.get_running_loop().run_in_executor(thread, feed.close)
                await publisher.close()

    @contextlib.asynccontextmanager
    async def _sparkplug(self) -> AsyncIterator[_SparkplugConnection | None]:
        config = self._config
        if config.sparkplug is None:
            yield None
            return
        from inspector.bridges.sparkplug import EdgeNode

        node = EdgeNode(config.sparkplug.group, config.sparkplug.node, self._state.next_birth())
        topic, payload = node.death()
        will = aiomqtt.Will(topic, payload, qos=1, retain=False)
        # A connection has one will, and that of the other one is the status.
        async with connected(config, self._access, will, f"{config.client_id}-spb") as connection:
            made = _SparkplugConnection(node, connection, config)
            await made.begin()
            yield made
            await made.end()

    async def _named(self, connection: Connection, way: Coroutine[Any, Any, None]) -> None:
        with naming(connection, self._config):
            await way

    async def _pump(self, feed: Feed, publisher: _Publisher, thread: ThreadPoolExecutor) -> None:
        """Carry what the station has to the broker, for ever."""
        loop = asyncio.get_running_loop()
        heard = time.monotonic()
        await publisher.status(None, self._state)
        while True:
            items = await loop.run_in_executor(thread, feed.receive, _RECEIVE_MS)
            now = time.monotonic()
            if items:
                heard = now
            elif publisher.knows_station and now - heard > _GONE_S:
                say("station gone", logging.WARNING, address=self._config.station.verdicts)
                await publisher.status(None, self._state)
            for item, is_record in items:
                await publisher.publish(item, is_record, self._state)

    async def _listen(self, connection: Connection) -> None:
        """Take commands; also notices the end of the connection."""
        topic = f"{self._config.topic}/command"
        if self._desk is not None:
            await connection.subscribe(topic, qos=1)
        async for message in connection.messages:
            if self._desk is None or not isinstance(message.payload, bytes):
                continue
            properties = message.properties
            asked = str(getattr(properties, "ResponseTopic", ""))
            sender = Sender(self._answer_to(asked), getattr(properties, "CorrelationData", None))
            self._desk.take(sender, message.payload, message.retain)

    def _answer_to(self, asked: str) -> str:
        """Where an answer goes: where its sender asks for it, unless the bridge speaks there."""
        own = self._config.topic, SPARKPLUG
        # Nobody may have the station seem to say what a sender wrote.
        is_own = any(asked == one or asked.startswith(f"{one}/") for one in own)
        return asked if asked and not is_own else f"{self._config.topic}/reply"

    async def _answer(self, connection: Connection) -> None:
        while True:
            sender, reply = await self._replies.get()
            properties = json_properties()
            if sender.correlation is not None:
                properties.CorrelationData = sender.correlation
            told = _json(reply.model_dump(mode="json", by_alias=True))
            try:
                await connection.deliver(sender.topic, told, 1, False, properties)
            except (ValueError, NotTakenError) as error:
                # A sender may ask for its answer at a topic that is none, or is not for it.
                say("answer not taken", logging.WARNING, topic=sender.topic, problem=str(error))

    def _acknowledged(self, position: Position | None, missing: int = 0) -> None:
        if position is not None or not self._is_refused:
            self._is_refused = False
            self._complaints.well()
            self._again_s = _AGAIN_S[0]
        if missing:
            self._state.lack(missing)
        if position is not None:
            self._state.acknowledge(position)


class _Publisher:
    """What is published over one connection."""

    def __init__(
        self,
        config: MqttBridge,
        connection: Connection,
        sparkplug: _SparkplugConnection | None,
        acknowledged: Callable[..., None],
    ) -> None:
        self._topic = config.topic
        self._window = Window(connection, config.in_flight)
        self._sparkplug = sparkplug
        self._acknowledged = acknowledged
        self.knows_station = False
        """True while the status that was told last was the station's."""
        self._too_large_told = False

    async def publish(self, item: Item, is_record: bool, state: PositionFile) -> None:
        """Publish one item; waits while too much is under way."""
        if isinstance(item, VerdictMessage):
            await self._verdict(item, is_record)
        elif isinstance(item, Heatmap):
            await self._heatmap(item)
        elif isinstance(item, StatusMessage):
            if self._sparkplug is not None:
                await self._sparkplug.send(self._sparkplug.node.status(item))
            await self.status(item, state)
        else:
            await self._gap(item)

    async def status(self, status: StatusMessage | None, state: PositionFile) -> None:
        """Publish how the bridge and its station stand."""
        self.knows_station = status is not None
        await self._window.publish(
            f"{self._topic}/status",
            _status("online", status, state),
            partial(self._acknowledged, None),
            retain=True,
            properties=json_properties(),
        )

    async def farewell(self) -> None:
        """Say, in an orderly end, what the will says otherwise."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._farewell(), _FAREWELL_S)

    async def _farewell(self) -> None:
        await self._window.publish(f"{self._topic}/status", _status("offline"), retain=True)
        await self._window.empty()

    async def failed(self) -> None:
        """Wait for the first message that the broker does not acknowledge, and raise its error."""
        # Whoever waits may be cancelled; the outcome of the messages stays.
        await asyncio.shield(self._window.failed)

    async def close(self) -> None:
        """Wait for no acknowledgement any more."""
        await self._window.close()

    async def _verdict(self, verdict: VerdictMessage, is_record: bool) -> None:
        told = verdict.model_dump(mode="json", by_alias=True) | {"record": is_record}
        if self._sparkplug is not None:
            await self._sparkplug.send(self._sparkplug.node.verdict(verdict, is_record))
        await self._window.publish(
            f"{self._topic}/verdict",
            _json(told),
            partial(self._acknowledged, Position(verdict.epoch, verdict.seq)),
            properties=json_properties(
                epoch=verdict.epoch, seq=verdict.seq, record=str(is_record).lower()
            ),
        )

    async def _gap(self, gap: Gap) -> None:
        say(
            "verdicts missing", logging.ERROR, epoch=gap.epoch, first=gap.first, last=gap.last or ""
        )
        told = {"station": gap.station, "epoch": gap.epoch, "first": gap.first, "last": gap.last}
        end = None if gap.last is None else Position(gap.epoch, gap.last)
        await self._window.publish(
            f"{self._topic}/gap",
            _json(told),
            partial(self._acknowledged, end, gap.count),
            properties=json_properties(),
        )

    async def _heatmap(self, heatmap: Heatmap) -> None:
        message = heatmap.message
        told = user_properties(
            epoch=message.epoch,
            seq=message.seq,
            part_id=message.part_id,
            verdict=message.verdict.value,
        )
        where = f"{self._topic}/heatmap/{message.camera}"
        for name, picture in (("map.png", heatmap.png), ("picture.jpg", heatmap.jpeg)):
            topic = f"{where}/{name}"
            if self._window.connection.takes(topic, picture, told):
                await self._window.publish(topic, picture, qos=0, properties=told)
            elif not self._too_large_told:
                self._too_large_told = True
                limit = f"{self._window.connection.largest} bytes, the longest packet of the broker"
                say("picture left out", logging.WARNING, topic=topic, problem=f"is beyond {limit}")


class _SparkplugConnection:
    """The edge node's own connection; its messages are not acknowledged, as Sparkplug says."""

    def __init__(self, node: EdgeNode, connection: Connection, config: MqttBridge) -> None:
        self.node = node
        self._connection = connection
        self._config = config
        self._turn = asyncio.Lock()

    async def begin(self) -> None:
        """Subscribe to commands, and be born."""
        await self._connection.subscribe(self.node.commands, qos=1)
        await self.send(self.node.birth())

    async def end(self) -> None:
        """Say so in an orderly end."""
        await self.send([self.node.death()])

    async def send(self, messages: list[tuple[str, bytes]]) -> None:
        """Send messages in the order of their numbers."""
        async with self._turn:
            with naming(self._connection, self._config):
                for topic, payload in messages:
                    await self._connection.publish(topic, payload, qos=0)

    async def listen(self) -> None:
        """Be born again when a host asks for it; also notices the end of the connection."""
        from inspector.bridges.sparkplug import wants_rebirth

        with naming(self._connection, self._config):
            async for message in self._connection.messages:
                try:
                    asked = isinstance(message.payload, bytes) and wants_rebirth(message.payload)
                except WireError as error:
                    say("unreadable", logging.WARNING, problem=str(error))
                    continue
                if asked and not message.retain:
                    await self.send(self.node.birth())


def run(config: MqttBridge, access: Access, keys: ClientKeys | None, state: PositionFile) -> None:
    """Run a bridge until SIGTERM or Ctrl-C. Raises WireError."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Bridge(config, access, keys, state).run(stop)

    asyncio.run(serve())


async def _first(*ways: Coroutine[Any, Any, Any]) -> None:
    """Wait until the first of these ends, and end the others; raises its error if it has one."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        while left := [task for task in tasks if not task.done()]:
            # Before Python 3.12 a wait_for that has just got its answer swallows its cancellation.
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_CANCEL_S)
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _status(
    bridge: str, status: StatusMessage | None = None, state: PositionFile | None = None
) -> bytes:
    last = None if state is None else state.last
    told: dict[str, Any] = {
        "bridge": bridge,
        "acknowledged": None if last is None else {"epoch": last.epoch, "seq": last.seq},
        "missing": None if state is None else state.missing,
        "station": None if status is None else status.model_dump(mode="json", by_alias=True),
    }
    return _json(told)


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
