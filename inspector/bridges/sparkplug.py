"""Sparkplug B: a station as an edge node, its cameras as devices; payloads and their order.

It follows the Eclipse Sparkplug Specification 3.0. The message types are built from the field
numbers of its ``sparkplug_b.proto``, as far as they are used here. No input or output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from inspector.config.mqtt_bridge import SPARKPLUG
from inspector.errors import WireError
from inspector.wire.messages import StatusMessage, VerdictMessage

REBIRTH: Final = "Node Control/Rebirth"

DataType = Literal["Int64", "Double", "Boolean", "String", "DateTime"]
_TYPES: Final[dict[DataType, tuple[int, str]]] = {
    "Int64": (4, "long_value"),
    "Double": (10, "double_value"),
    "Boolean": (11, "boolean_value"),
    "String": (12, "string_value"),
    "DateTime": (13, "long_value"),
}
"""Number of each data type, and the field that holds its value."""

_Proto = descriptor_pb2.FieldDescriptorProto
_METRIC: Final = (
    ("name", 1, _Proto.TYPE_STRING),
    ("alias", 2, _Proto.TYPE_UINT64),
    ("timestamp", 3, _Proto.TYPE_UINT64),
    ("datatype", 4, _Proto.TYPE_UINT32),
    ("is_historical", 5, _Proto.TYPE_BOOL),
    ("is_transient", 6, _Proto.TYPE_BOOL),
    ("is_null", 7, _Proto.TYPE_BOOL),
)
_VALUES: Final = (
    ("int_value", 10, _Proto.TYPE_UINT32),
    ("long_value", 11, _Proto.TYPE_UINT64),
    ("float_value", 12, _Proto.TYPE_FLOAT),
    ("double_value", 13, _Proto.TYPE_DOUBLE),
    ("boolean_value", 14, _Proto.TYPE_BOOL),
    ("string_value", 15, _Proto.TYPE_STRING),
    ("bytes_value", 16, _Proto.TYPE_BYTES),
)


def _payload_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="inspector_sparkplug_b.proto", package="inspector.sparkplug_b", syntax="proto2"
    )
    payload = file.message_type.add(name="Payload")
    for name, number, kind in (
        ("timestamp", 1, _Proto.TYPE_UINT64),
        ("seq", 3, _Proto.TYPE_UINT64),
        ("uuid", 4, _Proto.TYPE_STRING),
        ("body", 5, _Proto.TYPE_BYTES),
    ):
        payload.field.add(name=name, number=number, type=kind, label=_Proto.LABEL_OPTIONAL)
    payload.field.add(
        name="metrics",
        number=2,
        type=_Proto.TYPE_MESSAGE,
        label=_Proto.LABEL_REPEATED,
        type_name=".inspector.sparkplug_b.Payload.Metric",
    )
    metric = payload.nested_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for name, number, kind in _METRIC:
        metric.field.add(name=name, number=number, type=kind, label=_Proto.LABEL_OPTIONAL)
    for name, number, kind in _VALUES:
        metric.field.add(
            name=name, number=number, type=kind, label=_Proto.LABEL_OPTIONAL, oneof_index=0
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("inspector.sparkplug_b.Payload")
    )


_Payload: Final = _payload_type()


@dataclass(frozen=True)
class Metric:
    """One value; None is null. ``at_ms``: when it was so, ms since the Unix epoch."""

    name: str
    kind: DataType
    value: str | int | float | bool | None
    at_ms: int
    historical: bool = False


def encode(metrics: Iterable[Metric], seq: int | None, at_ms: int | None = None) -> bytes:
    """A payload; ``seq`` None for a death, which has no number."""
    payload = _Payload()
    payload.timestamp = _now_ms() if at_ms is None else at_ms
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        number, field = _TYPES[metric.kind]
        made = payload.metrics.add(name=metric.name, timestamp=metric.at_ms, datatype=number)
        if metric.historical:
            made.is_historical = True
        if metric.value is None:
            made.is_null = True
        elif isinstance(metric.value, int) and field == "long_value":
            # Signed numbers travel as their two's complement.
            made.long_value = metric.value & (2**64 - 1)
        else:
            setattr(made, field, metric.value)
    return bytes(payload.SerializeToString())


def wants_rebirth(payload: bytes) -> bool:
    """True for a node command that asks for a rebirth. Raises :class:`WireError`."""
    try:
        found = _Payload.FromString(payload)
    except DecodeError:
        raise WireError("received a Sparkplug command that is no Sparkplug payload") from None
    return any(one.name == REBIRTH and one.boolean_value for one in found.metrics)


class EdgeNode:
    """One connection of the node: what it publishes, in order, as (topic, payload) to be sent.

    ``births`` is the connection's bdSeq, 0 to 255, one more than the connection's before.
    """

    def __init__(self, group: str, node: str, births: int) -> None:
        self._group = group
        self._node = node
        self._births = births
        self._seq = -1
        self._state: tuple[str, str, str] | None = None
        self._cameras: dict[str, VerdictMessage | None] = {}

    @property
    def commands(self) -> str:
        """The topic of the node's commands."""
        return self._topic("NCMD")

    def death(self) -> tuple[str, bytes]:
        """The will of the connection, which is also sent before an orderly end."""
        return self._topic("NDEATH"), encode([self._bd_seq()], None)

    def birth(self) -> list[tuple[str, bytes]]:
        """NBIRTH, and a DBIRTH for each camera that is known."""
        self._seq = -1
        now = _now_ms()
        station, state, recipe = self._state or (None, None, None)
        metrics = [
            self._bd_seq(),
            Metric(REBIRTH, "Boolean", False, now),
            Metric("Station", "String", station, now),
            Metric("State", "String", state, now),
            Metric("Recipe", "String", recipe, now),
        ]
        born = [(self._topic("NBIRTH"), encode(metrics, self._next()))]
        return born + [self._device_birth(camera) for camera in self._cameras]

    def status(self, status: StatusMessage) -> list[tuple[str, bytes]]:
        """What a status of the station changes: cameras are born, state and recipe are data."""
        made: list[tuple[str, bytes]] = []
        for camera in status.cameras:
            made += self._know(camera.name)
        told = status.station, status.state, status.recipe
        if told != self._state:
            self._state = told
            now = status.sent_us // 1000
            values = zip(("Station", "State", "Recipe"), told, strict=True)
            metrics = [Metric(name, "String", value, now) for name, value in values]
            made.append((self._topic("NDATA"), encode(metrics, self._next())))
        return made

    def verdict(self, verdict: VerdictMessage, is_record: bool) -> list[tuple[str, bytes]]:
        """A verdict as DDATA of its camera; a record is historical, and so no current value."""
        made = self._know(verdict.camera)
        metrics = _metrics(verdict, verdict.judged_us // 1000, is_record)
        if not is_record:
            self._cameras[verdict.camera] = verdict
        made.append((self._topic("DDATA", verdict.camera), encode(metrics, self._next())))
        return made

    def _know(self, camera: str) -> list[tuple[str, bytes]]:
        if camera in self._cameras:
            return []
        self._cameras[camera] = None
        return [self._device_birth(camera)]

    def _device_birth(self, camera: str) -> tuple[str, bytes]:
        metrics = _metrics(self._cameras[camera], _now_ms(), False)
        return self._topic("DBIRTH", camera), encode(metrics, self._next())

    def _bd_seq(self) -> Metric:
        return Metric("bdSeq", "Int64", self._births, _now_ms())

    def _next(self) -> int:
        self._seq = (self._seq + 1) % 256
        return self._seq

    def _topic(self, kind: str, *device: str) -> str:
        return "/".join((SPARKPLUG, self._group, kind, self._node, *device))


def _metrics(verdict: VerdictMessage | None, at_ms: int, is_record: bool) -> list[Metric]:
    """The metrics of a camera; all of them null before its first verdict."""
    return [
        Metric(name, kind, None if verdict is None else of(verdict), at_ms, is_record)
        for name, kind, of in _CAMERA
    ]


_Value = Callable[[VerdictMessage], "str | int | float | None"]
_CAMERA: Final[tuple[tuple[str, DataType, _Value], ...]] = (
    ("Verdict", "String", lambda told: told.verdict.value),
    ("Score", "Double", lambda told: told.score),
    ("Reason", "String", lambda told: told.reason),
    ("PartId", "String", lambda told: told.part_id),
    ("Lot", "String", lambda told: told.lot),
    ("Purpose", "String", lambda told: told.purpose),
    ("TriggerSeq", "Int64", lambda told: told.trigger_seq),
    ("Recipe", "String", lambda told: told.recipe),
    ("Epoch", "String", lambda told: told.epoch),
    ("Seq", "Int64", lambda told: told.seq),
    ("JudgedAt", "DateTime", lambda told: told.judged_us // 1000),
)
"""What a camera tells as a device: names, types, and their values in a verdict."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
