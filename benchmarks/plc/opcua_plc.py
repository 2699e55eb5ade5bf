"""A PLC over OPC UA: one client for each camera, all in one program with a scan cycle.

It calls StartSingleJob for a part, and lets the part through when a live ResultReadyEvent with this
part's MeasId says PASS within the PLC's own time. It knows the nodes by the specification's numbers
and docs/plc/opc-ua.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from asyncua import Client, Node, ua

from benchmarks.plc.books import FAULT, PASS, Books, Stand
from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import REASON_CODES

SPACE: Final = 2
"""The namespace of the specification at every bridge: the first after its own."""
_AUTOMATIC: Final = ("VisionStateMachine", "AutomaticModeStateMachine")
_REASONS: Final = {code: reason for reason, code in REASON_CODES.items()}
_CALL_S: Final = 1.0
_AGAIN_S: Final = 0.02
"""After a call that was refused."""
_PUBLISHING_MS: Final = 1
"""The interval that it asks for: the server revises it to what it can."""
_TROUBLE: Final = (OSError, asyncio.TimeoutError, ua.UaError, EOFError)


class Camera:
    """The nodes of one camera as a client reaches them."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.types = mv.Types(SPACE)
        self.types.register()
        self._name = name
        self._start = self._node(*_AUTOMATIC, "StartSingleJob").nodeid

    async def listen(self, hear: Callable[[str, Any], None], *kinds: int) -> None:
        """Have ``hear`` called for each event of these kinds, with the id of its job."""
        subscription = await self.client.create_subscription(_PUBLISHING_MS, _Ear(hear))
        for kind in kinds:
            await subscription.subscribe_events(
                self._node(), self.client.get_node(ua.NodeId(kind, SPACE)), queuesize=1000
            )

    async def start(self, meas_id: str, part_id: str) -> int:
        """Call StartSingleJob; its Error, 0 if the job was started."""
        new = self.types.new
        _, error = await asyncio.wait_for(
            self._node(*_AUTOMATIC).call_method(
                self._start,
                *(
                    self.types.variant(kind, value)
                    for kind, value in (
                        ("MeasIdDataType", new("MeasIdDataType", Id=meas_id)),
                        ("PartIdDataType", new("PartIdDataType", Id=part_id)),
                        (
                            "RecipeIdExternalDataType",
                            new("RecipeIdExternalDataType", Id=""),
                        ),
                        ("ProductIdDataType", None),
                        ("BaseDataType[]", []),
                    )
                ),
            ),
            _CALL_S,
        )
        return int(error)

    def _node(self, *path: str) -> Node:
        return self.client.get_node(ua.NodeId(".".join((self._name, *path)), 1))


class _Ear:
    """What asyncua hands its events to."""

    def __init__(self, hear: Callable[[str, Any], None]) -> None:
        self._hear = hear

    def event_notification(self, event: Any) -> None:
        self._hear(event.JobId.Id, event)


class OpcuaPlc:
    """One camera's part of the program; used in the program's loop, but for what is done to it."""

    def __init__(self, program: Program, port: int, name: str, stand: Stand) -> None:
        self._program = program
        self._books = program.books
        self._url = f"opc.tcp://127.0.0.1:{port}"
        self._name = name
        self._stand = stand
        self._awaited: dict[str, tuple[str, float]] = {}
        """By MeasId: the part, and when it was begun (monotonic, s)."""
        self._exposing = ""
        self._placed: tuple[str, float] | None = None
        self._held_until_s = 0.0
        self._held: list[tuple[str, Any]] = []
        self._client: Client | None = None
        self._restart = False
        self.refused = 0
        self.ready_s = 0.0

    @property
    def waiting(self) -> int:
        """Parts without an end."""
        return len(self._awaited)

    def freeze(self, for_s: float) -> None:
        """The whole program stands still."""
        self._program.stand_still(for_s)

    def hold(self, for_s: float) -> None:
        """It looks at no event until then."""
        self._held_until_s = time.monotonic() + for_s

    def restart(self) -> None:
        """It begins anew with another connection; the one before is dropped without a word."""
        self._restart = True

    async def work(self) -> None:
        """Until it is cancelled."""
        while True:
            with contextlib.suppress(*_TROUBLE):
                await self._connected()
            self._pass_time()
            await asyncio.sleep(0.05)

    async def _connected(self) -> None:
        client = Client(self._url, timeout=_CALL_S)
        try:
            await client.connect()
            camera = Camera(client, self._name)
            kinds = mv.RESULT_READY, mv.ACQUISITION_DONE
            await camera.listen(self._hear, *kinds)
            while not self._restart:
                begun_s = time.monotonic()
                await self._scan(camera)
                left_s = self._program.cycle_s - (time.monotonic() - begun_s)
                await asyncio.sleep(max(0.0, left_s))
            self._restart = False
            for part_id, _ in self._awaited.values():
                self._books.end(part_id, 0, "restart")
            self._awaited.clear()
            self._held.clear()
        finally:
            self._exposing = ""
            await _drop(client)

    async def _scan(self, camera: Camera) -> None:
        self._pass_time()
        if time.monotonic() >= self._held_until_s:
            held, self._held = self._held, []
            for meas_id, event in held:
                self._take(meas_id, event)
        await camera.client.check_connection()
        if self._exposing or self._program.enough():
            if not self._exposing:
                self.ready_s = time.monotonic()
            return
        part_id, score = self._placed or self._stand.place()
        self._placed = None
        meas_id = f"{self._name}-{uuid.uuid4().hex[:16]}"
        self._books.trigger(part_id, score)
        self._awaited[meas_id] = part_id, time.monotonic()
        self._exposing = meas_id
        error = await camera.start(meas_id, part_id)
        if error:
            # Nothing was started: the part stands there still, and comes again.
            del self._awaited[meas_id]
            self._exposing = ""
            self._books.take_back(part_id)
            self._placed = part_id, score
            self.refused += 1
            await asyncio.sleep(_AGAIN_S)
        else:
            self.ready_s = time.monotonic()

    def _hear(self, meas_id: str, event: Any) -> None:
        if time.monotonic() < self._held_until_s:
            self._held.append((meas_id, event))
        else:
            self._take(meas_id, event)

    def _take(self, meas_id: str, event: Any) -> None:
        if meas_id == self._exposing:
            self._exposing = ""
        if not hasattr(event, "ResultContent"):
            return
        # Before a result is taken: a PLC that stood still finds one that came too late.
        self._pass_time()
        awaited = self._awaited.pop(meas_id, None)
        if awaited is None:
            return
        verdict, reason, score, _words, _regions, live = [one.Value for one in event.ResultContent]
        if verdict == PASS and not live:
            verdict = FAULT
        told_id = event.PartId.Id or ""
        self._books.end(awaited[0], verdict, _REASONS.get(reason, ""), score, told_id)

    def _pass_time(self) -> None:
        now_s = time.monotonic()
        for meas_id, (part_id, begun_s) in list(self._awaited.items()):
            if now_s > begun_s + self._books.timeout_s:
                del self._awaited[meas_id]
                if self._exposing == meas_id:
                    self._exposing = ""
                self._books.end(part_id, 0)


class Program(threading.Thread):
    """The program of all cameras; a context manager."""

    def __init__(self, books: Books, *, cycle_s: float, enough: Callable[[], bool]) -> None:
        super().__init__(name="plc-program", daemon=True)
        # What goes wrong here is meant to.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        self.books = books
        self.cycle_s = cycle_s
        self.enough = enough
        self.plcs: list[OpcuaPlc] = []
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()

    def __enter__(self) -> Program:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self.join()

    def stand_still(self, for_s: float) -> None:
        """No scan, no answer to anybody, for so long."""
        self._loop.call_soon_threadsafe(time.sleep, for_s)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work())
        finally:
            self._loop.close()

    async def _work(self) -> None:
        tasks = [asyncio.ensure_future(one.work()) for one in self.plcs]
        ending = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
        # asyncua's own tasks too.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for one in tasks:
            if not one.cancelled() and one.exception() is not None:
                raise one.exception()


async def _drop(client: Client) -> None:
    """Hang up as a program that dies does: the server hears of it by the connection alone."""
    client.disconnect_socket()
    # asyncua would go on asking for events, once a second, by a connection that there is no more.
    asking = client.uaclient._publish_task
    if asking is not None:
        asking.cancel()
    with contextlib.suppress(*_TROUBLE, asyncio.CancelledError):
        await asyncio.wait_for(client.disconnect(), 0.2)
