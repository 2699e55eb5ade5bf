"""What is asked on the query socket, and its answers (docs/wire.md): data, without a socket.

A query never changes anything, so that it may be sent again; an answer is one JSON frame, after
which the pictures come that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from inspector.errors import WireError
from inspector.verdict import Verdict
from inspector.wire.judging import JudgingField
from inspector.wire.messages import (
    SCHEMA,
    AreaField,
    DeedKind,
    MarkLabel,
    Message,
    Microseconds,
    Outcome,
    RefusalCause,
    RefusalCode,
    Text,
    VerdictMessage,
    WireCommand,
    encode,
)
from inspector.wire.wording import first_wrong

MOST_ENTRIES: Final = 100
"""Verdicts, or deeds, in one answer."""

LONGEST_PX: Final = (64, 4096)
"""Bounds of the longer side of a reduced picture."""

Score = Annotated[float, Field(allow_inf_nan=False)]


class HistoryQuery(WireCommand):
    """Which recorded verdicts are there, the newest first? What is null is not asked about."""

    command: Literal["history"] = "history"
    since_us: Microseconds | None = Field(
        default=None, description="judged at this moment or later"
    )
    until_us: Microseconds | None = Field(default=None, description="judged before this moment")
    camera: Text | None = Field(default=None, max_length=64)
    verdicts: tuple[Verdict, ...] = Field(
        default=(), max_length=3, description="one of these; empty: any"
    )
    reason: Text | None = Field(default=None, max_length=64)
    part_id: Text | None = Field(default=None, max_length=256, description="exactly this one")
    score_from: Score | None = Field(default=None, description="a score of at least this")
    score_to: Score | None = Field(default=None, description="a score below this")
    marked: bool | None = Field(default=None, description="whether somebody has marked the part")
    before_epoch: str | None = Field(
        default=None, max_length=64, description="with before_seq: only what came before that one"
    )
    before_seq: int | None = Field(default=None, ge=1, le=2**40)
    limit: int = Field(default=MOST_ENTRIES, ge=1, le=MOST_ENTRIES)

    @model_validator(mode="after")
    def _whole_place(self) -> HistoryQuery:
        if (self.before_epoch is None) != (self.before_seq is None):
            raise ValueError("history needs both before_epoch and before_seq, or neither")
        return self


class PictureQuery(WireCommand):
    """What did a part look like?"""

    command: Literal["picture"] = "picture"
    epoch: str = Field(max_length=64, description="that of the verdict")
    seq: int = Field(ge=1, lt=2**40, description="that of the verdict")
    picture: bool = Field(default=True, description="send the picture")
    heatmap: bool = Field(default=True, description="send the heatmap")
    full: bool = Field(
        default=False, description="a lossless PNG as it is stored, in place of a reduced JPEG"
    )
    longest_px: int = Field(
        default=1024, ge=LONGEST_PX[0], le=LONGEST_PX[1], description="of a reduced picture"
    )


class PreviewQuery(WireCommand):
    """What does a camera see now?"""

    command: Literal["preview"] = "preview"
    camera: Text = Field(max_length=64)
    full: bool = Field(
        default=False, description="a lossless PNG of all pixels, in place of a reduced JPEG"
    )
    longest_px: int = Field(
        default=1024, ge=LONGEST_PX[0], le=LONGEST_PX[1], description="of a reduced picture"
    )


class DeedsQuery(WireCommand):
    """What did people do to the station, the newest first? What is null is not asked about."""

    command: Literal["deeds"] = "deeds"
    since_us: Microseconds | None = Field(default=None, description="done at this moment or later")
    until_us: Microseconds | None = Field(default=None, description="done before this moment")
    kinds: tuple[DeedKind, ...] = Field(
        default=(), max_length=10, description="one of these; empty: any"
    )
    who: Text = Field(
        default="",
        max_length=64,
        description="the person, or the name of the peer's key, has this in it; of A to Z upper "
        "and lower case count alike; empty: anybody",
    )
    before: int | None = Field(
        default=None, ge=1, lt=2**53, description="only deeds with a lower number"
    )
    limit: int = Field(default=MOST_ENTRIES, ge=1, le=MOST_ENTRIES)


class JudgingQuery(WireCommand):
    """By what is each camera judged now, and how does that do?"""

    command: Literal["judging"] = "judging"


class CountsQuery(WireCommand):
    """How many verdicts of the production are recorded?"""

    command: Literal["counts"] = "counts"
    since_us: Microseconds = Field(description="judged at this moment or later")
    until_us: Microseconds = Field(description="judged before this moment")


Query = Annotated[
    HistoryQuery | PictureQuery | PreviewQuery | DeedsQuery | JudgingQuery | CountsQuery,
    Field(discriminator="command"),
]
"""Any query; ``command`` says which."""


class MarkField(Message):
    """What somebody says a part really was."""

    label: MarkLabel
    client: Text = Field(description="name of the peer's key; empty without keys")
    by: Text = Field(description="the person, as the client says")
    at_us: Microseconds = Field(description="when the station heard it")
    note: Text


class DeliveredField(Message):
    """What became of a verdict, as a bridge told it."""

    outcome: Outcome
    client: Text
    at_us: Microseconds


class EntryField(Message):
    """One recorded verdict, and what stands beside it."""

    verdict: VerdictMessage
    marks: tuple[MarkField, ...] = Field(description="in the order in which they came")
    delivered: tuple[DeliveredField, ...]
    has_picture: bool = Field(description="its picture is there, kept or in memory")


class DeedField(Message):
    """What somebody did to the station."""

    number: int = Field(ge=1, description="rises with each deed")
    at_us: Microseconds
    kind: DeedKind
    client: Text = Field(description="name of the peer's key; empty without keys")
    by: Text = Field(description="the person, as the client says")
    subject: Text = Field(description="what it was done to")
    before: Text
    after: Text
    note: Text


class FrameField(Message):
    """One of the frames that follow an answer."""

    content: Literal["picture", "heatmap"]
    format: Literal["png", "jpeg"]
    width: int = Field(description="as it is sent, pixels")
    height: int


class PictureField(Message):
    """The picture of a part, or of what a camera sees now."""

    origin: Literal["kept", "memory", "camera"] = Field(
        description="kept on the disk, in memory, or from the camera now"
    )
    camera: Text
    verdict: VerdictMessage | None = Field(description="of a part, as it was published")
    at_us: Microseconds = Field(description="when the part was judged, or the picture was taken")
    width: int = Field(description="of the picture in full, pixels")
    height: int
    heatmap_area: AreaField | None = Field(
        description="where the heatmap lies, in pixels of the picture in full; null: not known"
    )
    frame_area: AreaField | None = Field(
        default=None,
        description="what of the camera's frame the picture shows, in camera pixels; null: not "
        "known, or from a station that does not say",
    )
    frames: tuple[FrameField, ...] = Field(description="what follows, in order")


class CountsField(Message):
    """How many verdicts there are whose purpose is production."""

    passed: int
    failed: int
    faults: int
    newest_epoch: str | None = Field(
        description="with newest_seq and newest_us: the last verdict, of any purpose, that was "
        "looked at; null: there is none"
    )
    newest_seq: int | None
    newest_us: Microseconds | None = Field(description="when that was judged")


class AnswerMessage(Message):
    """The answer to a query."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    id: str = Field(description="that of the query")
    kind: Literal["history", "picture", "preview", "deeds", "judging", "counts", "refused"]
    code: RefusalCode | Literal[""] = Field(default="", description="why it was refused")
    cause: RefusalCause | Literal[""] = Field(
        default="", description="what the refusal is about, where the station says so"
    )
    detail: Text = Field(default="", description="in words for a person; may change")
    entries: tuple[EntryField, ...] = Field(default=(), description="the newest first")
    next_epoch: str | None = Field(
        default=None, description="with next_seq: the before of the next page; null: no more"
    )
    next_seq: int | None = None
    deeds: tuple[DeedField, ...] = Field(default=(), description="the newest first")
    next_deed: int | None = Field(
        default=None, description="the before of the next deeds; null: no more"
    )
    picture: PictureField | None = None
    judging: JudgingField | None = None
    counts: CountsField | None = None


_QUERIES: Final[TypeAdapter[Query]] = TypeAdapter(Query)


def decode_query(body: bytes) -> Query:
    """The query in ``body``. Raises :class:`WireError` when docs/wire.md does not allow it."""
    try:
        return _QUERIES.validate_json(body)
    except ValidationError as error:
        raise WireError(f"received query {first_wrong(error, tagged=True)}") from None


def decode_answer(frames: Sequence[bytes]) -> tuple[AnswerMessage, tuple[bytes, ...]]:
    """The answer in ``frames``, and the pictures that it names, which are not looked at.

    Raises :class:`WireError` when docs/wire.md does not allow it.
    """
    try:
        answer = AnswerMessage.model_validate_json(bytes(frames[0]))
    except ValidationError as error:
        raise WireError(f"received answer {first_wrong(error)}") from None
    told = 0 if answer.picture is None else len(answer.picture.frames)
    if len(frames) != 1 + told:
        raise WireError(f"received answer of {len(frames)} frames, expected {1 + told}")
    return answer, tuple(map(bytes, frames[1:]))


def encode_answer(answer: AnswerMessage, pictures: Sequence[bytes]) -> list[bytes]:
    """The frames of an answer."""
    return [encode(answer), *pictures]
