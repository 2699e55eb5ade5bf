"""What travels over ZeroMQ, as data: messages, commands, replies and topics (docs/wire.md).

Loads no ZeroMQ: whoever holds a message, such as the ledger or the journal, needs no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from inspector.errors import WireError
from inspector.verdict import LIMIT_FACTOR_RANGE, Reason, Verdict
from inspector.wire.wording import first_wrong

if TYPE_CHECKING:
    from typing_extensions import Self

SCHEMA: Final = 2

MOST_OF_BUNDLE: Final = 2**30
"""Bytes of a bundle that may be sent."""
MOST_OF_CHUNK: Final = 60 << 10
"""Bytes of it that one command may bear."""
SHA256: Final = r"^[0-9a-f]{64}$"

Microseconds = Annotated[int, Field(ge=0, lt=2**53, description="µs since the Unix epoch")]
TriggerNumber = Annotated[int, Field(ge=0, lt=2**53)]
Milliseconds = Annotated[float, Field(ge=0, description="ms")]

State = Literal[
    "Preoperational",
    "Initialized",
    "Ready",
    "SingleExecution",
    "ContinuousExecution",
    "Halted",
    "Error",
]
"""States of a station, those of OPC 40100-1 (Machine Vision), section 7."""

TopicKind = Literal["verdict", "heatmap", "status"]
"""What is published: the first word of a topic."""

RecipeSource = Literal["file", "journal", "command"]
"""Who said which recipe is in force; stable identifiers, documented in docs/wire.md."""

Purpose = Literal["production", "challenge", "study"]
"""What a part is triggered for; stable identifiers, documented in docs/wire.md."""

Outcome = Literal["acknowledged", "overrun", "timed_out", "discarded", "failed"]
"""What became of a verdict beyond a bridge; stable identifiers, documented in docs/wire.md."""

MarkLabel = Literal["good", "bad"]
"""What a part really was; stable identifiers, documented in docs/wire.md."""

DeedKind = Literal[
    "recipe",
    "reload",
    "start",
    "stop",
    "reset",
    "limit",
    "mark",
    "acknowledge",
    "install",
    "revert",
]
"""What somebody did to a station; stable identifiers, documented in docs/wire.md."""

AlarmKind = Literal["fail", "fault", "drift", "storage"]
"""What an alarm is about; stable identifiers, documented in docs/wire.md."""

ObstacleKind = Literal["journal", "disk", "recipe", "self_test", "model"]
"""What keeps a station from judging; stable identifiers, documented in docs/wire.md."""

RefusalCode = Literal[
    "malformed",
    "forbidden",
    "busy",
    "unknown",
    "expired",
    "not_ready",
    "journal",
    "failed",
    "stopping",
]
"""Why a command was refused; stable identifiers, documented in docs/wire.md."""

RefusalCause = Literal[
    "alarm",
    "bundle",
    "camera",
    "golden",
    "in_force",
    "loading",
    "not_sent",
    "obstacle",
    "own_bundle",
    "part",
    "picture",
    "recipe",
    "self_test",
    "signature",
    "space",
    "stopped",
    "superseded",
    "transfer",
]
"""What a refusal is about, beside its code; stable identifiers, documented in docs/wire.md."""


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


Text = Annotated[str, AfterValidator(_escaped)]
"""Text that comes from outside the program.

A file name need not be UTF-8: Python keeps its odd bytes as lone surrogates, which JSON cannot
carry. They are written out as ``\\udcff``.
"""


class Message(BaseModel):
    """What is sent to others."""

    # A receiver ignores the fields that a newer daemon adds.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class RegionField(Message):
    """One area at or above the limit, in camera pixels."""

    x: int
    y: int
    w: int
    h: int
    peak: float = Field(description="highest map value inside, 1.0 is the limit")


class ModelField(Message):
    """The bundle that judged the part."""

    name: str
    version: str
    sha256: str = Field(description="SHA-256 of the bundle file, hex")


class VerdictMessage(Message):
    """One verdict on one part: the second frame of ``verdict/<station>/``."""

    schema_: Literal[1, 2] = Field(
        default=SCHEMA, alias="schema", description="1: recorded by an earlier version"
    )
    station: str
    camera: str
    epoch: str = Field(description="UUID, new at every daemon start")
    seq: int = Field(ge=1, description="gap-free within an epoch, from 1")
    part_id: Text
    trigger_seq: int | None = Field(description="the PLC's trigger number; null when free running")
    client: Text = Field(default="", description="whose trigger; empty when free running")
    session: Text = Field(default="", description="the client's own, its numbers rise within it")
    lot: Text = Field(default="", description="the trigger's; empty when free running")
    purpose: Purpose = Field(
        default="production",
        description="the trigger's; only production counts, and a study never passes a part",
    )
    verdict: Verdict
    score: float | None = Field(description="1.0 is the limit in force; null on FAULT")
    reason: str = Field(description="why not PASS; empty on PASS")
    detail: Text = Field(description="the reason in words for a person; may change, do not parse")
    limit_factor: float = Field(description="operator's sensitivity the score was divided by")
    regions: tuple[RegionField, ...]
    model: ModelField | None = Field(description="null when no model was asked")
    recipe: str
    triggered_us: Microseconds | None
    grabbed_us: Microseconds | None
    frame: int | None = Field(
        default=None,
        ge=1,
        description="number of the picture among the camera's since the start; null without one",
    )
    judged_us: Microseconds
    queue_ms: Milliseconds | None = Field(description="from grab to the start of judgement")
    judge_ms: Milliseconds | None = Field(description="geometry, inference and decision")
    sent_us: Microseconds | None = Field(
        default=None, description="the trigger's own, by its sender's clock; null without one"
    )
    repeated: bool = Field(
        default=False,
        description="a record of judged_us, as its trigger was repeated",
    )

    @property
    def counts(self) -> bool:
        """True for a part of the production: only these enter counters, drift and alarms."""
        return self.purpose == "production"

    @property
    def may_pass(self) -> bool:
        """True for a verdict by which an output may let its part pass, should it come in time.

        Never a study's, nor one that is told again. What was fetched from the journal may say so
        too, and is a record all the same: only its reader knows how it came.
        """
        return self.verdict is Verdict.PASS and self.purpose != "study" and not self.repeated

    def numbered(self, seq: int) -> Self:
        """The same verdict with another ``seq``."""
        return self.model_copy(update={"seq": seq})

    def told_again(self) -> Self:
        """The same verdict as a repeated trigger is answered with it."""
        return self.model_copy(update={"schema_": SCHEMA, "repeated": True})

    def overruled(self, reason: Reason, detail: str) -> Self:
        """The FAULT that takes the place of this verdict, under the same ``seq``."""
        return self.model_copy(
            update={
                "verdict": Verdict.FAULT,
                "score": None,
                "regions": (),
                "reason": reason.value,
                "detail": detail,
            }
        )


class AreaField(Message):
    """A rectangle in camera pixels, whose edges need not lie on whole ones or inside the frame."""

    x: float
    y: float
    w: float
    h: float


class HeatmapMessage(Message):
    """Second frame of ``heatmap/<station>/``; a PNG and a JPEG follow it."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    station: str
    camera: str
    epoch: str
    seq: int = Field(ge=1, description="that of the verdict it belongs to")
    part_id: Text
    verdict: Verdict
    score: float | None
    width: int = Field(description="of the map and the picture, pixels")
    height: int
    heatmap_area: AreaField | None = Field(
        default=None,
        description="the rectangle of the camera's picture that the map covers, in camera pixels, "
        "as the verdict's regions; null if it is not known, and from earlier versions",
    )


class CameraStatus(Message):
    """One camera of the station."""

    name: str
    state: Literal["opening", "running", "ended", "lost"]
    detail: Text
    frames: int
    ready_for_trigger: bool = Field(
        default=False,
        description="a trigger that came now would get the next picture; false while one waits for "
        "its picture, and for a camera that takes no triggers",
    )
    limit_factor: float | None = Field(
        default=None,
        description="the factor on the limit that its parts are judged by; null from a station "
        "that does not say",
    )
    model: ModelField | None = Field(
        default=None,
        description="what its next part is judged by; null before it is loaded, and from a station "
        "that does not say",
    )
    installed: bool = Field(
        default=False,
        description="true: model was sent by the command install, and judges in place of the "
        "bundle that the station file names",
    )
    takes_triggers: bool | None = Field(
        default=None,
        description="false: its parts come without trigger commands, and one is refused; null from "
        "a station that does not say",
    )
    deadline_ms: int | None = Field(
        default=None,
        description="a part judged later is a FAULT; null from a station that does not say",
    )


class AlarmField(Message):
    """One alarm that stands, and who has seen it."""

    kind: AlarmKind
    where: Text = Field(description="the camera; of storage: journal or pictures")
    detail: Text = Field(description="what is wrong and where to look first, in words")
    by: Text = Field(default="", description="the person who acknowledged it, as the client says")
    client: Text = Field(default="", description="name of that peer's key; empty without keys")
    acknowledged_us: Microseconds | None = Field(
        default=None, description="when it was acknowledged; null: nobody has"
    )
    bad: int | None = Field(
        default=None,
        description="of fail and fault: so many of parts were so when it was raised; null of the "
        "other kinds, and from a station that does not say, as all that follow",
    )
    parts: int | None = Field(default=None, description="of fail and fault: so many were counted")
    usual: float | None = Field(
        default=None, description="of fail and fault: the share that needs no alarm"
    )
    reason: str = Field(
        default="", description="of fault: the reason that most of the last ones have; or empty"
    )
    passed: bool | None = Field(
        default=None, description="of fail: whether any part had passed before it was raised"
    )
    score: float | None = Field(
        default=None,
        description="of drift: median of the last passed parts, in units of the limit in force",
    )
    calibrated: float | None = Field(
        default=None, description="of drift: that median when the limit was set"
    )


class ObstacleField(Message):
    """One thing that keeps the station from judging."""

    kind: ObstacleKind
    detail: Text = Field(description="in words for a person; may change")


class StoppedField(Message):
    """Who stopped the station by command."""

    client: Text = Field(description="name of the peer's key; empty without keys")
    at_us: Microseconds = Field(description="0: not known, as its row was damaged")


class StatusMessage(Message):
    """Second frame of ``status/<station>/``, every second and on every change of state."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    station: str
    epoch: str
    state: State
    last_seq: int = Field(ge=0, description="0 before the first verdict")
    passed: int
    failed: int
    faults: int
    challenges: int = Field(
        default=0, description="verdicts whose purpose is challenge, which no other counter has"
    )
    studies: int = Field(
        default=0, description="verdicts whose purpose is study, which no other counter has"
    )
    over_triggers: int = Field(default=0, description="triggers before the last one's picture")
    overruns: int = Field(default=0, description="parts that were not judged in time")
    late: int = Field(default=0, description="results for parts that had their verdict by then")
    repeated: int = Field(default=0, description="triggers sent again, answered as the first time")
    recipe: str
    recipe_from: RecipeSource | Literal[""] = Field(
        default="",
        description="who said so: the station file, the journal (it was in force before the "
        "start) or a command; empty from a station that does not say",
    )
    recipes: tuple[str, ...] = Field(
        default=(),
        description="all that a changeover may select; empty from a station that does not say",
    )
    provider: str = Field(
        description="what inference runs on, as ONNX Runtime names it; or OpenVINO"
    )
    inference: Text = Field(
        description="cameras whose last part the model failed on, and how; or empty"
    )
    trouble: Text = Field(default="", description="why the station is not Ready; or empty")
    obstacles: tuple[ObstacleField, ...] = Field(
        default=(), description="what trouble tells, one by one"
    )
    stopped: Text = Field(
        default="", description="who stopped the station by command, and when; or empty"
    )
    stopped_by: StoppedField | None = Field(
        default=None,
        description="the same as fields; null while it is not stopped, and from a station that "
        "does not say",
    )
    drift: Text = Field(
        default="", description="cameras whose good parts no longer score as calibrated; or empty"
    )
    alarm: Text = Field(
        default="",
        description="cameras of which clearly more parts FAIL, or FAULT, than is usual, and where "
        "to look first; or empty",
    )
    storage: Text = Field(
        default="", description="what is wrong with the disk, though the station judges; or empty"
    )
    alarms: tuple[AlarmField, ...] = Field(
        default=(), description="what alarm, drift and storage tell, one by one"
    )
    damaged: int = Field(
        default=0, description="rows of the journal that could not be read and were set aside"
    )
    cameras: tuple[CameraStatus, ...]
    sent_us: Microseconds

    @property
    def unrecorded(self) -> bool:
        """True while the journal may not know this start of the station.

        A start is recorded once the station has opened all that it needs; one that fails before
        never is.
        """
        return self.state in {"Preoperational", "Error"} and self.last_seq == 0


def _require_command(schema: dict[str, Any]) -> None:
    """A default makes ``command`` optional in the schema, but the union is told apart by it."""
    schema["required"] = ["command", *schema.get("required", [])]


class WireCommand(BaseModel):
    """What others send."""

    # Unlike a message, a command with an unknown field is refused: the field may be misspelt.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra=_require_command
    )

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    id: str = Field(default="", max_length=64, description="comes back in every reply")

    @field_validator("schema_", mode="before")
    @classmethod
    def _upgraded(cls, value: Any) -> Any:
        if value == 1 and not isinstance(value, bool):
            raise ValueError(
                "schema 1 is no longer spoken, because a trigger could then get another part's "
                "verdict; send schema 2: every trigger names its session, and one that is sent "
                "again says repeat: true (docs/wire.md)"
            )
        return value


class _Deed(WireCommand):
    by: Text = Field(default="", max_length=64, description="the person who orders it")


class TriggerCommand(WireCommand):
    """Judge the part before the camera."""

    command: Literal["trigger"] = "trigger"
    camera: Text = Field(max_length=64)
    session: Text = Field(
        min_length=1, max_length=64, description="another one whenever trigger_seq begins anew"
    )
    trigger_seq: TriggerNumber = Field(description="the client's number of the trigger")
    part_id: Text = Field(default="", max_length=256)
    repeat: bool = Field(
        default=False, description="this trigger was sent before, for the same part"
    )
    sent_us: Microseconds | None = Field(
        default=None, description="when it was sent first, by the sender's clock"
    )
    lot: Text = Field(default="", max_length=64, description="comes back in the verdict")
    purpose: Purpose = Field(default="production", description="what the part is judged for")


class StatusCommand(WireCommand):
    """Say how the station stands."""

    command: Literal["status"] = "status"
    sent_us: Microseconds | None = Field(
        default=None, description="when it was sent, by the sender's clock"
    )
    answered_us: Microseconds | None = Field(
        default=None, description="when the reply to the sender's status command before came to it"
    )


class RecipeCommand(_Deed):
    """Judge by another recipe of the station file."""

    command: Literal["recipe"] = "recipe"
    recipe: Text = Field(max_length=64)


class ReloadCommand(_Deed):
    """Read the bundles again, and acknowledge a missed self-test."""

    command: Literal["reload"] = "reload"


class StartCommand(_Deed):
    """Judge again after a stop."""

    command: Literal["start"] = "start"


class StopCommand(_Deed):
    """Judge no more, and take no triggers, until the command start."""

    command: Literal["stop"] = "stop"


class ResetCommand(_Deed):
    """Leave the state Error, if every self-test finds its defect and nothing else is wrong."""

    command: Literal["reset"] = "reset"


class DeliveredCommand(WireCommand):
    """Note what became of a verdict, such as that a PLC acknowledged it."""

    command: Literal["delivered"] = "delivered"
    epoch: str = Field(max_length=64, description="that of the verdict")
    seq: int = Field(ge=1, lt=2**40, description="that of the verdict")
    outcome: Outcome
    at_us: Microseconds = Field(description="when that was, by the sender's clock")


class MarkCommand(_Deed):
    """Note what a part really was; a later mark stands beside the earlier."""

    command: Literal["mark"] = "mark"
    epoch: str = Field(max_length=64, description="that of the verdict")
    seq: int = Field(ge=1, lt=2**40, description="that of the verdict")
    label: MarkLabel
    note: Text = Field(default="", max_length=200)


class LimitCommand(_Deed):
    """Judge a camera by another limit_factor under a recipe, in this start and later ones."""

    command: Literal["limit"] = "limit"
    recipe: Text = Field(max_length=64)
    camera: Text = Field(max_length=64)
    limit_factor: float = Field(ge=LIMIT_FACTOR_RANGE[0], le=LIMIT_FACTOR_RANGE[1])


class AcknowledgeCommand(_Deed):
    """Note that somebody has seen an alarm; nothing is judged otherwise for it."""

    command: Literal["acknowledge"] = "acknowledge"
    kind: AlarmKind = Field(description="as the status has it")
    where: Text = Field(max_length=64, description="as the status has it")


class UploadCommand(WireCommand):
    """Take over a piece of a bundle, the bytes in the second frame; without one, say what is there.

    It is the only command of two frames. Nothing judges by what was sent until ``install``.
    """

    command: Literal["upload"] = "upload"
    sha256: str = Field(pattern=SHA256, description="of the whole file, hex")
    size: int = Field(ge=1, le=MOST_OF_BUNDLE, description="of the whole file, bytes")
    offset: int = Field(default=0, ge=0, lt=MOST_OF_BUNDLE, description="of the piece in the file")


class InstallCommand(_Deed):
    """Judge a camera by the bundle that was sent, under a recipe, in this start and later ones."""

    command: Literal["install"] = "install"
    recipe: Text = Field(max_length=64)
    camera: Text = Field(max_length=64)
    sha256: str = Field(pattern=SHA256, description="of the bundle that was sent, hex")


class RevertCommand(_Deed):
    """Judge a camera by the bundle from before the last install, or else the station file's."""

    command: Literal["revert"] = "revert"
    recipe: Text = Field(max_length=64)
    camera: Text = Field(max_length=64)
    sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="of the bundle to go back from, which must be in force; empty: any",
    )


class ReplayCommand(WireCommand):
    """Send recorded verdicts: of an epoch by number, or the first since a moment."""

    command: Literal["replay"] = "replay"
    epoch: str | None = Field(default=None, max_length=64)
    from_seq: int = Field(default=1, ge=1, lt=2**53)
    to_seq: int | None = Field(default=None, ge=0, lt=2**53, description="null: to the end")
    since_us: Microseconds | None = Field(
        default=None, description="in place of epoch: verdicts judged at this moment or later"
    )

    @model_validator(mode="after")
    def _one_start(self) -> ReplayCommand:
        if (self.epoch is None) == (self.since_us is None):
            raise ValueError("replay needs epoch or since_us, and not both")
        return self


Command = Annotated[
    TriggerCommand
    | StatusCommand
    | RecipeCommand
    | ReloadCommand
    | StartCommand
    | StopCommand
    | ResetCommand
    | DeliveredCommand
    | MarkCommand
    | LimitCommand
    | AcknowledgeCommand
    | UploadCommand
    | InstallCommand
    | RevertCommand
    | ReplayCommand,
    Field(discriminator="command"),
]
"""Any command; ``command`` says which."""

Order = (
    TriggerCommand
    | RecipeCommand
    | ReloadCommand
    | StartCommand
    | StopCommand
    | ResetCommand
    | DeliveredCommand
    | MarkCommand
    | LimitCommand
    | AcknowledgeCommand
    | UploadCommand
    | InstallCommand
    | RevertCommand
)
"""A command that the station obeys; the others are questions, which its socket answers."""


class EpochField(Message):
    """One start of the station, as the journal has it."""

    epoch: str
    last_seq: int = Field(ge=0)


class ReplyMessage(Message):
    """The answer to a command."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    id: str = Field(description="that of the command")
    kind: Literal[
        "accepted", "acquired", "verdict", "status", "replayed", "uploaded", "done", "refused"
    ]
    code: RefusalCode | Literal[""] = Field(default="", description="why it was refused")
    cause: RefusalCause | Literal[""] = Field(
        default="", description="what the refusal is about, where the station says so"
    )
    detail: Text = Field(default="", description="in words for a person; may change")
    grabbed_us: Microseconds | None = Field(
        default=None, description="with acquired: when the picture left the camera"
    )
    verdict: VerdictMessage | None = None
    status: StatusMessage | None = None
    epochs: tuple[EpochField, ...] = Field(default=(), description="oldest first, the newest 100")
    verdicts: tuple[VerdictMessage, ...] = Field(default=(), description="in order, at most 100")
    more: bool = Field(default=False, description="what was asked for goes on after verdicts")
    next_epoch: str | None = Field(
        default=None, description="the epoch with verdicts that follows the one asked for"
    )
    last_seq: int = Field(
        default=0,
        ge=0,
        description="at the end of an epoch: the last seq that the journal had of it; what did not "
        "come up to there was damaged or deleted",
    )
    offset: int | None = Field(
        default=None,
        ge=0,
        description="with uploaded: bytes of the file that the station has, from its beginning; "
        "the next piece begins there",
    )


_KINDS: Final[
    dict[TopicKind, tuple[int, type[VerdictMessage | HeatmapMessage | StatusMessage]]]
] = {
    "verdict": (2, VerdictMessage),
    "heatmap": (4, HeatmapMessage),
    "status": (2, StatusMessage),
}
"""How many frames a published message has, its topic included, and the type of the second."""

_COMMANDS: Final[TypeAdapter[Command]] = TypeAdapter(Command)


def topic(kind: TopicKind, station: str = "") -> bytes:
    """``b"<kind>/<station>/"``, or the beginning that all stations have in common.

    A subscription matches every topic that begins with it: without the closing slash station 1's
    subscribers would receive station 10, too.
    """
    return f"{kind}/{station}/".encode() if station else f"{kind}/".encode()


def encode(message: BaseModel) -> bytes:
    """One message as UTF-8 JSON; the models let neither NaN nor infinities into it.

    The same message gives the same bytes each time: what is recorded is what is published.
    """
    return message.model_dump_json(by_alias=True).encode()


def decode(frames: Sequence[bytes]) -> VerdictMessage | HeatmapMessage | StatusMessage:
    """The message in the ``frames`` of a subscription; a heatmap's pictures are not looked at.

    Raises :class:`WireError` when docs/wire.md does not allow it.
    """
    kind = bytes(frames[0]).partition(b"/")[0].decode("ascii", "replace")
    if kind not in _KINDS:
        raise WireError(f"received topic {bytes(frames[0])[:80]!r}, which docs/wire.md has not")
    parts, model = _KINDS[kind]
    if len(frames) != parts:
        raise WireError(f"received {kind} of {len(frames)} frames, expected {parts}")
    try:
        message = model.model_validate_json(bytes(frames[1]))
    except ValidationError as error:
        raise WireError(f"received {kind} {first_wrong(error)}") from None
    if bytes(frames[0]) != topic(kind, message.station):
        raise WireError(f"received {kind} of station '{message.station}' under another topic")
    return message


def decode_verdict(body: bytes) -> VerdictMessage:
    """The verdict in ``body``. Raises :class:`WireError` when docs/wire.md does not allow it."""
    try:
        return VerdictMessage.model_validate_json(body)
    except ValidationError as error:
        raise WireError(f"received verdict {first_wrong(error)}") from None


def decode_command(body: bytes) -> Command:
    """The command in ``body``. Raises :class:`WireError` when docs/wire.md does not allow it."""
    try:
        return _COMMANDS.validate_json(body)
    except ValidationError as error:
        raise WireError(f"received command {first_wrong(error, tagged=True)}") from None


def decode_reply(body: bytes) -> ReplyMessage:
    """The reply in ``body``. Raises :class:`WireError` when docs/wire.md does not allow it."""
    try:
        return ReplyMessage.model_validate_json(body)
    except ValidationError as error:
        raise WireError(f"received reply {first_wrong(error)}") from None
