"""The OPC UA bridge: clients on one side, a station on the other, jobs for each camera."""

from __future__ import annotations

import asyncio
import collections
import datetime
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from asyncua import ua

from inspector.bridges import codes
from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import ErrorCode, reason_code
from inspector.bridges.fields import Order
from inspector.bridges.jobs import Finished, JobError, Jobs
from inspector.bridges.opcua_server import VisionServer, text_of
from inspector.bridges.station_link import Question, StationLink
from inspector.client import ClientKeys
from inspector.config.bridge_file import OpcuaBridge
from inspector.errors import WireError
from inspector.logs import say
from inspector.verdict import Verdict
from inspector.wire.messages import (
    RegionField,
    ReplayCommand,
    ReplyMessage,
    StatusMessage,
    VerdictMessage,
)

_TURN_S: Final = 0.02
"""Between two looks while nothing happens: time-outs go by them."""
_MOST_RESULTS: Final = 1000
"""Results of a camera that are at hand; older ones are fetched from the journal one by one."""
_MOST_LISTED: Final = 100
_ORDER_S: Final = 0.5
"""A call waits so long for the station to obey; a changeover goes on meanwhile."""
_JOURNAL_S: Final = 2.0
_COMPLETED, _ABORTED, _FAILED = 1, 3, 4
"""Of ResultState, as the specification numbers them."""
_TRUE, _DONT_CARE = 1, 2
_FILTERS: Final = (
    "MeasId",
    "PartId",
    "ExternalRecipeId",
    "InternalRecipeId",
    "ExternalConfigurationId",
    "InternalConfigurationId",
    "ProductId",
    "JobId",
)
"""What GetResultListFiltered compares, in its order."""
_SEVERITY: Final = {Verdict.PASS: 100, Verdict.FAIL: 300, Verdict.FAULT: 600}


class Bridge:
    """A bridge at work; used in the thread of one event loop."""

    def __init__(
        self,
        config: OpcuaBridge,
        keys: ClientKeys | None,
        passwords: Mapping[str, tuple[str, frozenset[str]]],
    ) -> None:
        self._config = config
        self._keys = keys
        run = uuid.uuid4().hex
        self._jobs = {
            camera: Jobs(camera, run, config.result_timeout_ms / 1000) for camera in config.cameras
        }
        self._run = run
        self._faults = 0
        self._results: dict[str, collections.OrderedDict[str, Any]] = {
            camera: collections.OrderedDict() for camera in config.cameras
        }
        self._started: list[tuple[str, str]] = []
        self._orders: list[tuple[Order, asyncio.Future[bool]]] = []
        self._epoch, self._read_seq, self._is_reading = "", 0, False
        self._news = asyncio.Event()
        self._link: StationLink | None = None
        self.server = VisionServer(
            config.cameras,
            config.host_and_port,
            pki=config.pki,
            passwords=passwords,
            connections=config.connections,
            nodeset=config.nodeset,
            handlers={
                "StartSingleJob": self._start_single_job,
                "StartContinuous": self._start_continuous,
                "Stop": partial(self._give, codes.Command.STOP),
                "Abort": self._abort,
                "Halt": self._halt,
                "Reset": partial(self._give, codes.Command.RESET),
                "PrepareRecipe": self._prepare_recipe,
                "UnprepareRecipe": self._unprepare_recipe,
                "GetRecipeListFiltered": self._list_recipes,
                "GetResultById": self._result_by_id,
                "GetResultComponentsById": self._components_by_id,
                "GetResultListFiltered": self._list_results,
            },
        )

    async def run(
        self, stop: asyncio.Event, listening: Callable[[int], None] | None = None
    ) -> None:
        """Serve until ``stop`` is set; ``listening`` hears the port.

        Raises :class:`PortError`, :class:`WireError`, :class:`SecretError`, :class:`ConfigError`.
        """
        config, loop = self._config, asyncio.get_running_loop()

        def tell(function: Callable[[], None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._hear, function)

        port = await self.server.open()
        link = self._link = StationLink(
            config.station.commands,
            self._keys,
            self._jobs,
            tell=tell,
            heartbeat_s=config.heartbeat_s,
            result_timeout_s=config.result_timeout_ms / 1000,
        )
        link.start()
        try:
            say("listening", opcua=f"{config.host_and_port[0]}:{port}")
            if listening is not None:
                listening(port)
            while not stop.is_set() and link.is_alive():
                self._news.clear()
                for camera in self._jobs:
                    await self._look(camera)
                try:
                    await asyncio.wait_for(self._news.wait(), _TURN_S)
                except asyncio.TimeoutError:
                    continue
        finally:
            await self.server.stop()
            await asyncio.to_thread(link.finish)
        if link.crashed:
            raise WireError("the connection to the station ended by a crash, which the log shows")

    # What the station says.

    def _hear(self, function: Callable[[], None]) -> None:
        function()
        self._news.set()

    async def _look(self, camera: str) -> None:
        """Tell clients what became of this camera's jobs, and the station what is to be done."""
        jobs = self._jobs[camera]
        jobs.pass_time(time.monotonic())
        self._send(camera)
        self._read(jobs.told)
        for order, done in jobs.ends():
            for waiting in [one for one in self._orders if one[0] is order]:
                self._orders.remove(waiting)
                if not waiting[1].done():
                    waiting[1].set_result(done)
            if done and order.recipe:
                name = self.server.nodes.new("RecipeIdInternalDataType", Id=order.recipe)
                await self.server.fire(
                    camera, mv.RECIPE_PREPARED, f"recipe {order.recipe}", InternalId=name
                )
        for job_id in [job for one, job in self._started if one == camera]:
            self._started.remove((camera, job_id))
            await self.server.fire(camera, mv.JOB_STARTED, job_id, JobId=self._job(job_id))
        for job in jobs.acquisitions():
            done_job = self._job(job.meas_id)
            await self.server.fire(camera, mv.ACQUISITION_DONE, job.meas_id, JobId=done_job)
            await self.server.fire(camera, mv.READY_EVENT, job.meas_id, JobId=done_job)
        for end in jobs.finished():
            await self._finish(camera, end)
        await self.server.show(camera, jobs.state)
        self._send(camera)

    def _send(self, camera: str) -> None:
        for action in self._jobs[camera].actions():
            if self._link is not None:
                self._link.do(camera, action)

    async def _finish(self, camera: str, end: Finished) -> None:
        result, message = end.result, end.message
        is_station = message is not None and result.reason == message.reason
        fields = self._fields(
            _id_of(message) if is_station and message is not None else self._own_id(),
            meas_id=end.job.meas_id,
            part_id=result.part_id or end.job.part_id,
            recipe=end.job.recipe,
            state=_ABORTED if end.is_aborted else _state_of(result.verdict),
            message=message if is_station else None,
            content=_content(
                result.verdict,
                result.reason,
                result.score,
                message.regions if message is not None and is_station else (),
                live=True,
            ),
        )
        heard = await self.server.fire(
            camera,
            mv.RESULT_READY,
            f"{result.verdict.value} {result.part_id}".strip(),
            _SEVERITY[result.verdict],
            **fields,
        )
        if result.origin is not None and not heard:
            self._jobs[camera].delivered(result.origin, "failed")
        record = _content(
            result.verdict,
            result.reason,
            result.score,
            message.regions if message is not None and is_station else (),
            live=False,
        )
        self._keep(camera, fields | {"ResultContent": record})

    def _read(self, status: StatusMessage | None) -> None:
        """Read the newest verdicts from the journal, so that they can be asked for."""
        if status is None or self._is_reading or not status.last_seq:
            return
        if status.epoch != self._epoch:
            self._epoch = status.epoch
            self._read_seq = max(0, status.last_seq - _MOST_RESULTS)
        if status.last_seq <= self._read_seq:
            return
        command = ReplayCommand(
            epoch=self._epoch, from_seq=self._read_seq + 1, to_seq=status.last_seq
        )
        self._is_reading = True
        if self._link is not None:
            self._link.do(
                self._config.cameras[0], Question(command, partial(self._take, status.last_seq))
            )

    def _take(self, last: int, reply: ReplyMessage | None) -> None:
        self._is_reading = False
        if reply is None:
            # Without the role listen, or the journal, only what comes by itself is at hand.
            self._read_seq = last
            return
        for message in reply.verdicts:
            self._remember(message)
        self._read_seq = reply.verdicts[-1].seq if reply.more and reply.verdicts else last

    def _remember(self, message: VerdictMessage) -> None:
        """Keep a verdict as a record, unless this bridge's own job ended with it."""
        known = self._results.get(message.camera)
        if known is not None and _id_of(message) not in known:
            self._keep(message.camera, self._record(message))

    def _keep(self, camera: str, fields: dict[str, Any]) -> None:
        known = self._results[camera]
        known[fields["ResultId"].Id] = self.server.nodes.new("ResultDataType", **fields)
        while len(known) > _MOST_RESULTS:
            known.popitem(last=False)

    # What clients call.

    async def _start_single_job(self, camera: str, *inputs: Any) -> Sequence[Any]:
        meas, part, recipe, product, parameters = inputs
        if text_of(product):
            raise JobError(ErrorCode.ARGUMENT)
        jobs = self._jobs[camera]
        job = jobs.start(
            text_of(meas), text_of(part), text_of(recipe), _lot(parameters), time.monotonic()
        )
        self._send(camera)
        self._started.append((camera, job.meas_id))
        self._news.set()
        return [self._job(job.meas_id)]

    async def _start_continuous(self, camera: str, *_: Any) -> Sequence[Any]:
        await self._give(codes.Command.START, camera)
        return [self._job("")]

    async def _abort(self, camera: str, *_: Any) -> Sequence[Any]:
        self._jobs[camera].abort()
        self._news.set()
        return []

    async def _halt(self, camera: str, *_: Any) -> Sequence[Any]:
        self._jobs[camera].abort()
        return await self._give(codes.Command.STOP, camera)

    async def _give(self, command: codes.Command, camera: str, *_: Any) -> Sequence[Any]:
        if await self._obeyed(camera, Order(command)) is not True:
            raise JobError(ErrorCode.COMMAND_REFUSED)
        return []

    async def _prepare_recipe(self, camera: str, external: Any, internal: Any) -> Sequence[Any]:
        name = text_of(external) or text_of(internal)
        jobs = self._jobs[camera]
        if not jobs.state:
            raise JobError(ErrorCode.COMMAND_NOT_READY)
        if name not in self._recipes(jobs):
            raise JobError(ErrorCode.RECIPE_UNKNOWN)
        done: bool | None = True
        if name != jobs.recipe:
            done = await self._obeyed(camera, Order(codes.Command.RECIPE, name))
        if done and jobs.state == "Initialized":
            done = await self._obeyed(camera, Order(codes.Command.START))
        if done is False:
            raise JobError(ErrorCode.COMMAND_REFUSED)
        return [self._recipe(name), bool(done)]

    async def _unprepare_recipe(self, camera: str, external: Any, internal: Any) -> Sequence[Any]:
        name = text_of(external) or text_of(internal)
        if name != self._jobs[camera].recipe:
            raise JobError(ErrorCode.RECIPE_MISMATCH)
        await self._give(codes.Command.STOP, camera)
        return [self._recipe(name)]

    async def _list_recipes(self, camera: str, *inputs: Any) -> Sequence[Any]:
        external, product, is_prepared, most, start, _timeout = inputs
        jobs = self._jobs[camera]
        in_force = jobs.recipe if jobs.is_operational and jobs.state != "Initialized" else ""
        names = [] if text_of(product) else list(self._recipes(jobs))
        wanted = int(is_prepared)
        if text_of(external):
            names = [one for one in names if one == text_of(external)]
        if wanted != _DONT_CARE:
            names = [one for one in names if (one == in_force) is (wanted == _TRUE)]
        page, is_complete = _page(names, most, start)
        return [is_complete, len(page), 0, [self._recipe(one) for one in page]]

    async def _result_by_id(self, camera: str, result: Any, _timeout: Any) -> Sequence[Any]:
        return [0, await self._found(camera, text_of(result))]

    async def _components_by_id(self, camera: str, result: Any, _timeout: Any) -> Sequence[Any]:
        found = await self._found(camera, text_of(result))
        return [
            False,
            0,
            found.IsPartial,
            False,
            found.ResultState,
            found.MeasId,
            found.PartId,
            found.ExternalRecipeId,
            found.InternalRecipeId,
            None,
            None,
            None,
            found.JobId,
            found.CreationTime,
            found.ProcessingTimes,
            found.ResultContent,
        ]

    async def _list_results(self, camera: str, *inputs: Any) -> Sequence[Any]:
        state, *ids, most, start, _timeout = inputs
        wanted = dict(zip(_FILTERS, [text_of(one) for one in ids], strict=True))
        found = [
            one
            for one in reversed(self._results[camera].values())
            if int(state or 0) in {0, one.ResultState}
            and all(
                not text or text_of(getattr(one, name)) == text for name, text in wanted.items()
            )
        ]
        page, is_complete = _page(found, most, start)
        return [is_complete, len(page), 0, page]

    async def _found(self, camera: str, result_id: str) -> Any:
        """A result by its id, from the journal if it is not at hand. Raises :class:`JobError`."""
        found = self._results[camera].get(result_id)
        if found is not None:
            return found
        epoch, _, number = result_id.rpartition(":")
        if self._link is None or not epoch or not number.isdecimal() or len(number) > 12:
            raise JobError(ErrorCode.RESULT_UNKNOWN)
        seq, answer = int(number), asyncio.get_running_loop().create_future()

        def answered(reply: ReplyMessage | None) -> None:
            if not answer.done():
                answer.set_result(reply)

        if not seq or len(epoch) > 64:
            raise JobError(ErrorCode.RESULT_UNKNOWN)
        command = ReplayCommand(epoch=epoch, from_seq=seq, to_seq=seq)
        self._link.do(camera, Question(command, answered))
        try:
            reply = await asyncio.wait_for(answer, _JOURNAL_S)
        except asyncio.TimeoutError:
            reply = None
        for message in () if reply is None else reply.verdicts:
            if message.seq == seq and message.camera == camera:
                return self.server.nodes.new("ResultDataType", **self._record(message))
        raise JobError(ErrorCode.RESULT_UNKNOWN)

    async def _obeyed(self, camera: str, order: Order) -> bool | None:
        """True or False once the station has answered; None: it has not yet."""
        if not self._jobs[camera].state:
            raise JobError(ErrorCode.COMMAND_NOT_READY)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._orders.append((order, answer))
        self._jobs[camera].order(order)
        self._news.set()
        try:
            return await asyncio.wait_for(answer, _ORDER_S)
        except asyncio.TimeoutError:
            return None

    def _recipes(self, jobs: Jobs) -> Sequence[str]:
        return self._config.recipes or tuple(one for one in (jobs.recipe,) if one)

    # Results as structures.

    def _record(self, message: VerdictMessage) -> dict[str, Any]:
        return self._fields(
            _id_of(message),
            meas_id=(
                "" if message.trigger_seq is None else f"{message.session}:{message.trigger_seq}"
            ),
            part_id=message.part_id,
            recipe=message.recipe,
            state=_state_of(message.verdict),
            message=message,
            content=_content(
                message.verdict, message.reason, message.score, message.regions, live=False
            ),
        )

    def _fields(
        self,
        result_id: str,
        *,
        meas_id: str,
        part_id: str,
        recipe: str,
        state: int,
        message: VerdictMessage | None,
        content: list[ua.Variant],
    ) -> dict[str, Any]:
        new = self.server.nodes.new
        judged = None if message is None else message.judged_us
        created = datetime.datetime.now(datetime.timezone.utc) if judged is None else _time(judged)
        times = None
        if message is not None and message.grabbed_us is not None:
            begun = message.grabbed_us if message.triggered_us is None else message.triggered_us
            times = new(
                "ProcessingTimesDataType",
                StartTime=_time(begun),
                EndTime=created,
                AcquisitionDuration=max(0.0, (message.grabbed_us - begun) / 1000),
                ProcessingDuration=message.judge_ms,
            )
        return {
            "ResultId": new("ResultIdDataType", Id=result_id),
            "IsPartial": False,
            "IsSimulated": False,
            "ResultState": state,
            "MeasId": new("MeasIdDataType", Id=meas_id),
            "PartId": new("PartIdDataType", Id=part_id),
            "ExternalRecipeId": new("RecipeIdExternalDataType", Id=recipe),
            "InternalRecipeId": new("RecipeIdInternalDataType", Id=recipe),
            "InternalConfigurationId": new("ConfigurationIdDataType"),
            "JobId": self._job(meas_id),
            "CreationTime": created,
            "ProcessingTimes": times,
            "ResultContent": content,
        }

    def _own_id(self) -> str:
        """The id of a FAULT that the bridge made itself."""
        self._faults += 1
        return f"bridge-{self._run}:{self._faults}"

    def _job(self, job_id: str) -> Any:
        return self.server.nodes.new("JobIdDataType", Id=job_id)

    def _recipe(self, name: str) -> Any:
        return self.server.nodes.new("RecipeIdInternalDataType", Id=name)


def run(
    config: OpcuaBridge,
    keys: ClientKeys | None,
    passwords: Mapping[str, tuple[str, frozenset[str]]],
) -> None:
    """Run a bridge until SIGTERM or Ctrl-C. Raises StartupError, WireError."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Bridge(config, keys, passwords).run(stop)

    asyncio.run(serve())


def _content(
    verdict: Verdict,
    reason: str,
    score: float | None,
    regions: Sequence[RegionField],
    *,
    live: bool,
) -> list[ua.Variant]:
    """ResultContent: verdict, reason, score, reason in words, regions, and whether it is live."""
    kinds = ua.VariantType
    areas = [float(value) for one in regions for value in (one.x, one.y, one.w, one.h, one.peak)]
    return [
        ua.Variant(codes.VERDICT_CODES[verdict], kinds.UInt16),
        ua.Variant(reason_code(reason), kinds.UInt16),
        ua.Variant(-1.0 if score is None else score, kinds.Double),
        ua.Variant(reason, kinds.String),
        ua.Variant(areas, kinds.Double, is_array=True),
        ua.Variant(live, kinds.Boolean),
    ]


def _state_of(verdict: Verdict) -> int:
    return _FAILED if verdict is Verdict.FAULT else _COMPLETED


def _id_of(message: VerdictMessage) -> str:
    return f"{message.epoch}:{message.seq}"


def _time(microseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(microseconds / 1_000_000, datetime.timezone.utc)


def _page(found: list[Any], most: Any, start: Any) -> tuple[list[Any], bool]:
    begin = int(start or 0)
    end = begin + min(int(most or 0) or _MOST_LISTED, _MOST_LISTED)
    return found[begin:end], len(found) <= end


def _lot(parameters: Any) -> str:
    """The lot, which is the only parameter of a call. Raises :class:`JobError` for another one."""
    found = [getattr(one, "Value", one) for one in parameters or ()]
    if not found:
        return ""
    if len(found) > 1 or not isinstance(found[0], str) or not found[0].startswith("lot="):
        raise JobError(ErrorCode.ARGUMENT)
    return found[0].removeprefix("lot=")
