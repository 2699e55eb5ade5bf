"""Connections to an MQTT 5 broker, and what goes wrong with them in words."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from inspector.config.mqtt_bridge import MqttBridge, Tls
from inspector.errors import ConfigError, SecretError
from inspector.files import read_guarded, reason_of
from inspector.logs import say

_CONNECT_S: Final = 5.0
_AGAIN_S: Final = 600.0
"""After this a problem that goes on is said again."""
_REFUSED: Final = 0x80
"""Reason codes of MQTT 5 from here on are failures."""
_LARGEST_PACKET: Final = 268_435_460
"""Bytes of the longest packet of MQTT, where the broker names no other limit."""
_LARGEST_TAKEN: Final = 1 << 20
"""Bytes of the longest packet that the bridge takes: commands are shorter by far."""
_HEADER: Final = 9
"""Bytes of a message's packet beside topic, payload and properties, at most."""
_PROTOCOL: Final = 0x82
"""Protocol error: the library found it, in what the broker sent."""
_UNSPECIFIED: Final = 0x80
_CURES: Final = (
    ({0x85, 0x86, 0x87, 0x8A, 0x8C}, "; look at user, password_file and client_id"),
    ({0x84}, "; a bridge speaks MQTT 5, which this broker does not"),
    ({0x9A, 0x9B}, "; a bridge needs QoS 1 and retained messages: look at the broker's settings"),
)
"""Where to look, by the reason for which a broker refuses."""
_SILENT: Final = logging.Logger("mqtt", logging.CRITICAL + 1)
"""What the library would say of every attempt is said by the bridge, once."""


class _HungUpError(aiomqtt.MqttError):
    """The broker ended the connection in place of an answer to the first packet."""


class _GarbageError(aiomqtt.MqttError):
    """What came in place of an answer to the first packet is no MQTT."""


class NotTakenError(aiomqtt.MqttError):
    """The broker did not take a message; ``str()`` is its reason."""


class BrokerError(Exception):
    """The broker is not there, refuses, or does not answer; ``str()`` is one line for a person."""


class RefusedError(BrokerError):
    """The broker is there, and does not take a message."""


@dataclass(frozen=True)
class Access:
    """What the bridge's file names for the connection, read from its files."""

    user: str | None
    password: str | None
    context: ssl.SSLContext | None

    @classmethod
    def load(cls, config: MqttBridge) -> Access:
        """Read password, certificates and keys. Raises :class:`SecretError`, ConfigError."""
        password = None
        if config.password_file is not None:
            data = read_guarded(config.password_file, secret=True, always=True)
            try:
                password = data.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                password = ""
            if not password or "\n" in password:
                raise SecretError(
                    f"{config.password_file}: must hold the password alone, on one line of UTF-8"
                )
        return cls(config.user, password, None if config.tls is None else _context(config.tls))


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    except OSError as error:
        raise ConfigError(
            f"{tls.ca}: tls.ca: cannot be used: {_reason(error)}; it must be a PEM certificate"
        ) from None
    context.sslsocket_class = _TlsSocket
    if tls.certificate is not None and tls.key is not None:
        read_guarded(tls.key, secret=True, always=True)
        try:
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except OSError as error:
            raise ConfigError(
                f"{tls.certificate}: tls.certificate: cannot be used with {tls.key}: "
                f"{_reason(error)}; both must be PEM, belong together, and have no passphrase"
            ) from None
    return context


class _TlsSocket(ssl.SSLSocket):
    """One that ends with its handshake, if that fails; the library would not close it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Connection(aiomqtt.Client):
    """One connection to the broker: made once, and never again after it broke.

    The library does not say whether the broker took a message; ``deliver`` does.
    """

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self._refused: dict[int, str] = {}
        """Messages that the broker did not take, and why."""
        self.largest = _LARGEST_PACKET
        """Bytes of a packet, of which the broker takes no longer one."""
        self.why_ended: ReasonCode | None = None
        """Why the connection ended; what fails afterwards fails without a reason of its own."""

    async def deliver(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None
    ) -> None:
        """Publish, and wait until the broker has taken it.

        Raises :class:`MqttError`, :class:`NotTakenError`; ValueError for a topic that is none.
        """
        if not self.takes(topic, payload, properties):
            # It would end the connection instead.
            raise self.too_large(payload)
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc)
        if info.is_published():
            return
        taken = asyncio.Event()
        with self._pending_call(info.mid, taken, self._pending_publishes):
            await self._wait_for(taken.wait(), timeout=None)
        if (why := self._refused.pop(info.mid, None)) is not None:
            raise NotTakenError(why)

    def takes(self, topic: str, payload: bytes, properties: Properties | None) -> bool:
        """True when the message is not longer than the broker takes."""
        more = 0 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
        return _HEADER + len(topic.encode()) + len(payload) + more <= self.largest

    def too_large(self, payload: bytes) -> NotTakenError:
        """What to say of a message that it does not take."""
        return NotTakenError(f"{len(payload)} bytes; it takes packets of {self.largest}")

    def _on_connect(
        self,
        client: Any,
        userdata: Any,
        flags: Any,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.largest = getattr(properties, "MaximumPacketSize", _LARGEST_PACKET)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.value >= _REFUSED and mid in self._pending_publishes:
            self._refused[mid] = str(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_disconnect(
        self,
        client: Any,
        userdata: Any,
        flags: Any,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if self.why_ended is None and isinstance(reason_code, ReasonCode):
            self.why_ended = reason_code
        # Without this the library would wait for an answer that cannot come any more.
        if not self._connected.done():
            is_garbage = isinstance(reason_code, ReasonCode) and reason_code.value == _PROTOCOL
            self._connected.set_exception(_GarbageError() if is_garbage else _HungUpError())
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_socket_register_write(self, client: Any, _: Any, sock: Any) -> None:
        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - the library takes any as its end, too
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def register() -> None:
            # The library would ask for a socket by its number, and it may be closed by then.
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), write)

        self._loop.call_soon_threadsafe(register)

    async def drop(self) -> None:
        """Close what is left of the connection, whatever its state."""
        left = self._client.socket()
        if isinstance(left, socket.socket):
            # The library then reads the end of the stream, and tidies up.
            with contextlib.suppress(OSError, ValueError):
                left.shutdown(socket.SHUT_RDWR)
            for _ in range(20):
                if self._client.socket() is None:
                    break
                await asyncio.sleep(0.01)
        misc = self._misc_task
        if misc is not None:
            misc.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await misc
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                # Nobody else asks for it, and asyncio would complain.
                future.exception()


@contextlib.asynccontextmanager
async def connected(
    config: MqttBridge, access: Access, will: aiomqtt.Will | None, client_id: str
) -> AsyncIterator[Connection]:
    """A connection that is open in the block. Raises :class:`BrokerError`, also for its end."""
    host, port = config.host_and_port
    # The broker drops what is longer: no sender can fill the memory of this machine.
    taken = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    taken.MaximumPacketSize = _LARGEST_TAKEN
    made = Connection(
        host,
        port,
        username=access.user,
        password=access.password,
        tls_context=access.context,
        logger=_SILENT,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V5,
        will=will,
        timeout=_CONNECT_S,
        keepalive=config.keepalive_s,
        max_queued_incoming_messages=100,
        max_inflight_messages=config.in_flight,
        properties=taken,
    )
    made.pending_calls_threshold = 10 * config.in_flight
    try:
        with naming(made, config):
            await made.__aenter__()
            made.timeout = config.timeout_s
            yield made
            made.timeout = _CONNECT_S
            # After an error there is no goodbye: the broker shall publish the will.
            await made.__aexit__(None, None, None)
    finally:
        await made.drop()


def try_connection(config: MqttBridge, access: Access) -> None:
    """Connect once, under a name of its own, and end. Raises :class:`BrokerError`."""

    async def connect() -> None:
        async with connected(config, access, None, f"{config.client_id}-check"):
            pass

    asyncio.run(connect())


@contextlib.contextmanager
def naming(connection: Connection, config: MqttBridge) -> Iterator[None]:
    """Turn the library's errors in the block into a :class:`BrokerError`."""
    try:
        yield
    except NotTakenError as error:
        raise RefusedError(in_words(error, connection, config)) from None
    except aiomqtt.MqttError as error:
        raise BrokerError(in_words(error, connection, config)) from None
    except (ValueError, ssl.SSLError) as error:
        raise BrokerError(f"cannot be used: {error}") from None


def in_words(error: aiomqtt.MqttError, connection: Connection, config: MqttBridge) -> str:
    """What is wrong, and where to look."""
    if isinstance(error, NotTakenError):
        return (
            f"does not take the bridge's messages: {error}; look at what the broker lets this "
            f"user publish under '{config.topic}'"
        )
    if isinstance(error, MqttConnectError):
        return f"refuses the connection: {error.rc}{_cure(error.rc)}"
    if isinstance(error, _HungUpError):
        return f"hung up before it answered; {_why_silent(config.tls)}"
    if isinstance(error, _GarbageError):
        return "answers what is no MQTT 5; look at the port in 'broker'"
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        said = text.partition("certificate verify failed: ")[2].partition(" (_ssl.c")[0]
        return f"its certificate is not accepted: {said}; look at tls.ca and the name in 'broker'"
    if "SSL" in text or "TLS" in text or "ssl" in text:
        said = text.partition("] ")[2].partition(" (_ssl.c")[0] or text
        return f"no TLS connection: {said}; look at tls and at the broker's port"
    if text == "Operation timed out":
        return f"no answer in {connection.timeout:g} s"
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return f"ended the TLS connection: {_reason(cause)}; look at tls.certificate"
    why = connection.why_ended
    if isinstance(error, aiomqtt.MqttCodeError) or isinstance(cause, aiomqtt.MqttCodeError):
        known = why is not None and why.value != _UNSPECIFIED
        return f"the connection ended: {why}" if known else "the connection ended"
    if text.startswith("Disconnected"):
        return "the connection ended"
    told = f"cannot be reached: {text.partition('] ')[2] or text}"
    if config.tls is not None and "reset by peer" in text:
        # It took the connection, and ended it at the first word of TLS.
        return f"{told}; look whether this is the broker's port for TLS"
    return told


def _cure(code: object) -> str:
    value = code.value if isinstance(code, ReasonCode) else None
    return next((cure for codes, cure in _CURES if value in codes), "")


def _why_silent(tls: Tls | None) -> str:
    """Where to look if a broker hangs up at once: for why, it has told nothing."""
    if tls is None:
        where = "look whether this is its port for TLS, which needs the key tls"
    elif tls.certificate is None:
        where = "look whether it asks for a certificate (tls.certificate, tls.key)"
    else:
        where = f"look whether it accepts {tls.certificate}, and whether that has expired"
    return f"{where}; and whether it speaks MQTT 5"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return reason_of(error)


class Complaints:
    """Says each problem with the broker once, and counts while it lasts."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._said: dict[str, float] = {}
        self._attempts = 0

    def trouble(self, problem: str) -> None:
        """Another attempt ended with ``problem``."""
        self._attempts += 1
        now = time.monotonic()
        if now - self._said.get(problem, -_AGAIN_S) < _AGAIN_S:
            return
        self._said[problem] = now
        say(
            "broker",
            logging.WARNING,
            problem=f"{self._broker}: {problem}",
            attempts=self._attempts if self._attempts > 1 else "",
        )

    def well(self) -> None:
        """The broker acknowledged a message."""
        if self._attempts:
            say("broker well", broker=self._broker, attempts=self._attempts)
        self._attempts = 0
        self._said.clear()


class Window:
    """Messages under way, ``size`` at most; their acknowledgements count in order."""

    def __init__(self, connection: Connection, size: int) -> None:
        self.connection = connection
        self._room = asyncio.Semaphore(size)
        self._under_way: collections.deque[tuple[asyncio.Task[None], Callable[[], None]]] = (
            collections.deque()
        )
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with the :class:`MqttError` of the first message that was not acknowledged."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        acknowledged: Callable[[], None] = lambda: None,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """Send a message as soon as there is room.

        ``acknowledged`` is called once this message and all before it have been acknowledged.
        Raises :class:`MqttError` once a message before it, or this one, cannot be.
        """
        if not self.failed.done() and not self.connection.takes(topic, payload, properties):
            # Known before anything that follows is sent, which so cannot overtake it.
            self.failed.set_exception(self.connection.too_large(payload))
        if self.failed.done():
            self.failed.result()
        await self._room.acquire()
        task = asyncio.create_task(self.connection.deliver(topic, payload, qos, retain, properties))
        self._under_way.append((task, acknowledged))
        task.add_done_callback(self._done)

    async def empty(self) -> None:
        """Wait until nothing is under way, or something failed."""
        while self._under_way and not self.failed.done():
            await asyncio.wait([self._under_way[-1][0], self.failed], return_when="FIRST_COMPLETED")
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Wait for nothing any more."""
        tasks = [task for task, _ in self._under_way]
        self._under_way.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self.failed.cancel() and not self.failed.cancelled():
            # Nobody else may have asked for it, and asyncio would complain.
            self.failed.exception()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            self.failed.set_exception(error)
            return
        while self._under_way and _went_well(self._under_way[0][0]):
            self._under_way.popleft()[1]()


def _went_well(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def user_properties(**told: object) -> Properties:
    """Properties of a message that a consumer of MQTT 5 sees beside its payload."""
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    made.UserProperty = [(name, str(value)) for name, value in told.items()]
    return made


def json_properties(**told: object) -> Properties:
    """The same for a payload in JSON."""
    made = user_properties(**told)
    made.PayloadFormatIndicator = 1
    made.ContentType = "application/json"
    return made
