"""A PLC program in Python that works with an OPC UA bridge, as the client that a PLC has.

What a PLC programmer knows from the PLCopen blocks is here in their order: connect, subscribe to
events, call a method, each of which is begun in one scan and done in a later one.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asyncua import Client, Node, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import ErrorCode
from inspector.bridges.opcua_security import Pki, application_uri
from inspector.bridges.scan_cycle import ScanCycle, Seen
from inspector.errors import SecretError, WireError
from inspector.logs import Refusals

# What its complaints are about is told in this product's own words.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

_CONNECT_S: Final = 10.0
_RETRY_S: Final = 0.5
_INTERVAL_MS: Final = 1.0
"""The publishing interval that is asked for: the shortest, at which an event leaves at once."""
_QUEUE: Final = 100
_OWN: Final = 1
"""The namespace of the nodes that a bridge itself has."""
_ERRORS: Final = {-int(code): code.name.lower() for code in ErrorCode}
_TROUBLE: Final = (ua.UaError, OSError, asyncio.TimeoutError)


@dataclass(frozen=True)
class Login:
    """Who the PLC is: its folder of certificates, that of the bridge, user and password."""

    pki: Path
    """Made by ``inspector keygen FOLDER --opcua``."""
    user: str
    password: str
    server: Path | None = None
    """The bridge's certificate; None: the one that it shows."""


@dataclass
class _Part:
    part_id: str
    begun_s: float


class OpcuaPlc(ScanCycle):
    """Calls StartSingleJob for each part, and takes its ResultReadyEvent; used by one thread.

    ``camera`` is "" for the first VisionSystem that there is. The connection is made again when it
    is lost; what was awaited then ends by its own time.
    """

    def __init__(
        self,
        url: str,
        camera: str = "",
        *,
        login: Login | None = None,
        timeout_s: float = 1.5,
        heartbeat_s: float = 1.0,
    ) -> None:
        self.camera = camera
        self.state = ""
        """CurrentState; "" while it has no good value, and no part may be sent."""
        self.connections = 0
        self._url = url
        self._login = login
        self._timeout_s = timeout_s
        self._heartbeat_s = heartbeat_s
        self._run = f"plc-{uuid.uuid4().hex[:8]}"
        self._number = 0
        self._discarded = 0
        self._awaited: dict[str, _Part] = {}
        self._exposing = ""
        """The job whose picture is still to be taken: the part must stand still."""
        self._call: asyncio.Task[tuple[str, str]] | None = None
        self._ended: list[Seen] = []
        self._client: Client | None = None
        self._nodes: mv.Types
        self._loop = asyncio.new_event_loop()
        self._work: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Make the first connection. Raises :class:`WireError`, :class:`SecretError`."""
        first: asyncio.Future[None] = self._loop.create_future()
        self._work = self._loop.create_task(self._serve(first))
        both = {first, self._work}
        self._loop.run_until_complete(asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED))
        if not first.done():
            self._work.result()
        first.result()

    def close(self) -> None:
        """Close the connection."""
        tasks = [one for one in (self._work, self._call) if one is not None]
        for one in tasks:
            one.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def scan(self) -> list[Seen]:
        """One cycle: what has come since the last one; gives the parts that ended."""
        now_s = time.monotonic()
        if self._call is not None and self._call.done():
            self._take_call(self._call.result(), now_s)
            self._call = None
        for meas_id, part in list(self._awaited.items()):
            if now_s > part.begun_s + self._timeout_s:
                self._end(meas_id, 0, "", -1.0)
        ended, self._ended = self._ended, []
        return ended

    def trigger(self, part_id: str) -> None:
        """Call StartSingleJob for the part that stands before the camera."""
        self._number += 1
        # The event may come before the answer to the call.
        meas_id = self._exposing = f"{self._run}:{self._number}"
        self._awaited[meas_id] = _Part(part_id, time.monotonic())
        self._call = self._loop.create_task(self._start(meas_id, part_id))

    @property
    def may_trigger(self) -> bool:
        """True while the camera takes a part."""
        return self.state == "Ready" and self._call is None and not self._exposing

    @property
    def waiting(self) -> int:
        """Parts that have no end yet."""
        return len(self._awaited)

    @property
    def discarded(self) -> int:
        """Results that came for parts which were given up by then."""
        return self._discarded

    def rest(self, left_s: float) -> None:
        """Send and receive until the cycle's time is over."""
        self._loop.run_until_complete(asyncio.sleep(left_s))

    # What a subscription calls.

    def event_notification(self, event: Any) -> None:
        """An event has come."""
        if event.EventType == self._nodes.own(mv.READY_EVENT):
            if event.JobId.Id == self._exposing:
                self._exposing = ""
            return
        verdict, _, score, reason, _, is_live = (one.Value for one in event.ResultContent)
        if event.MeasId.Id not in self._awaited:
            # Another client's, or of a part that was given up: of no effect.
            self._discarded += event.MeasId.Id.startswith(f"{self._run}:")
        elif not is_live:
            self._end(event.MeasId.Id, 3, "record_only", -1.0)
        else:
            self._end(event.MeasId.Id, int(verdict), str(reason), float(score))

    def datachange_notification(self, _node: Node, _value: Any, data: Any) -> None:
        """CurrentState has changed."""
        self._read_state(data.monitored_item.Value)

    def status_change_notification(self, _status: Any) -> None:
        """The subscription has ended: nothing that was read counts any more."""
        self.state = ""

    # The connection.

    def _read_state(self, value: ua.DataValue) -> None:
        is_good = value.StatusCode is not None and value.StatusCode.is_good()
        self.state = str(value.Value.Value.Text) if is_good and value.Value is not None else ""

    def _end(self, meas_id: str, verdict: int, reason: str, score: float) -> None:
        part = self._awaited.pop(meas_id)
        if self._exposing == meas_id:
            self._exposing = ""
        took_ms = 1000 * (time.monotonic() - part.begun_s)
        self._ended.append(Seen(part.part_id, verdict, reason, score, took_ms))

    def _take_call(self, answer: tuple[str, str], now_s: float) -> None:
        meas_id, refusal = answer
        part = self._awaited.get(meas_id)
        if part is not None and refusal and now_s <= part.begun_s + self._timeout_s:
            self._end(meas_id, 0, refusal, -1.0)

    async def _start(self, meas_id: str, part_id: str) -> tuple[str, str]:
        """Call StartSingleJob; why nothing was begun, or "" if it was, or nobody knows."""
        path = f"{self.camera}.VisionStateMachine.AutomaticModeStateMachine"
        (method,) = [one for one in mv.METHODS[mv.AUTOMATIC_MODE] if one.name == "StartSingleJob"]
        given = {
            "MeasId": self._nodes.new("MeasIdDataType", Id=meas_id),
            "PartId": self._nodes.new("PartIdDataType", Id=part_id),
        }
        arguments = [
            self._nodes.variant(kind, given.get(name))
            for name, _, kind in (text.partition(": ") for text in method.inputs)
        ]
        try:
            if self._client is None:
                return meas_id, "not_connected"
            node = self._client.get_node(ua.NodeId(path, _OWN))
            called = ua.NodeId(f"{path}.StartSingleJob", _OWN)
            _, error = await node.call_method(called, *arguments)
        except ua.UaStatusCodeError as problem:
            return meas_id, type(problem).__name__
        except _TROUBLE:
            return meas_id, ""
        return meas_id, "" if not error else _ERRORS.get(int(error), str(error))

    async def _serve(self, first: asyncio.Future[None]) -> None:
        """Connect, and watch the connection; again and again."""
        while True:
            try:
                async with await self._made() as client:
                    try:
                        await self._subscribe(client)
                        self._client = client
                        self.connections += 1
                        if not first.done():
                            first.set_result(None)
                        await self._watch(client)
                    finally:
                        self._client, self.state, self._exposing = None, "", ""
            except (*_TROUBLE, SecretError, WireError) as problem:
                if not first.done():
                    is_told = isinstance(problem, SecretError | WireError)
                    first.set_exception(
                        problem if is_told else WireError(f"{self._url}: {_reason(problem)}")
                    )
                    return
            await asyncio.sleep(_RETRY_S)

    async def _made(self) -> Client:
        """A client that is not connected yet. Raises :class:`SecretError`."""
        client = Client(self._url, timeout=_CONNECT_S, watchdog_intervall=self._heartbeat_s)
        client.name = client.description = "Line Inspector, simulated PLC"
        login = self._login
        if login is not None:
            # A client's certificate is for no host that anybody looks for.
            certificate, _ = Pki(login.pki, Refusals("opcua")).own("::")
            client.application_uri = application_uri(certificate)
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                str(login.pki / "own.der"),
                str(login.pki / "own.pem"),
                None,
                None if login.server is None else str(login.server),
            )
            client.set_user(login.user)
            client.set_password(login.password)
        return client

    async def _subscribe(self, client: Client) -> None:
        space = await client.get_namespace_index(mv.URI)
        self._nodes = mv.Types(space)
        self._nodes.register()
        found = await self._cameras(client)
        self.camera = self.camera or (found[0] if found else "")
        if self.camera not in found:
            known = ", ".join(found) or "none"
            raise WireError(f"{self._url}: has no VisionSystem '{self.camera}'; it has {known}")
        subscription = await client.create_subscription(_INTERVAL_MS, self)
        source = client.get_node(ua.NodeId(self.camera, _OWN))
        for kind in (mv.RESULT_READY, mv.READY_EVENT):
            await subscription.subscribe_events(
                source, client.get_node(self._nodes.own(kind)), queuesize=_QUEUE
            )
        await subscription.subscribe_data_change(self._state_node(client))

    async def _cameras(self, client: Client) -> list[str]:
        """The names of the VisionSystems below Objects."""
        found = []
        for one in await client.nodes.objects.get_children(ua.ObjectIds.Organizes):
            if await one.read_type_definition() == self._nodes.own(mv.VISION_SYSTEM):
                found.append((await one.read_browse_name()).Name)
        return found

    async def _watch(self, client: Client) -> None:
        """Read the state as long as that works: a PLC does not believe what it was told once."""
        node = self._state_node(client)
        while True:
            read = node.read_data_value(raise_on_bad_status=False)
            self._read_state(await asyncio.wait_for(read, self._heartbeat_s))
            await asyncio.sleep(self._heartbeat_s / 4)

    def _state_node(self, client: Client) -> Node:
        path = f"{self.camera}.VisionStateMachine.AutomaticModeStateMachine.CurrentState"
        return client.get_node(ua.NodeId(path, _OWN))


def _reason(problem: BaseException) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return f"{text}; the bridge's log says more" if isinstance(problem, ua.UaError) else text
