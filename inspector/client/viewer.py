"""Look at a station: what it recorded, what parts looked like, what its cameras see now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import zmq

from inspector.client.connection import PAUSE_S, Channel, Connection, in_words, new_id
from inspector.client.keys import ClientKeys
from inspector.config.addresses import QUERIES
from inspector.errors import CommandError, WireError
from inspector.imaging.images import decode as decode_picture
from inspector.verdict import Frame8, Verdict
from inspector.wire.judging import JudgingField
from inspector.wire.queries import (
    AnswerMessage,
    CountsField,
    CountsQuery,
    DeedField,
    DeedsQuery,
    EntryField,
    HistoryQuery,
    JudgingQuery,
    PictureField,
    PictureQuery,
    PreviewQuery,
    Query,
    decode_answer,
)

_LARGEST_FRAME: Final = 512 << 20
_ANSWERS_S: Final = 10.0
_REPEAT_S: Final = 3.0
"""A picture in full takes a second at times; the question would otherwise be answered twice."""


@dataclass(frozen=True)
class View:
    """A picture as it came: ``about`` says of what, ``picture`` and ``heatmap`` are files' bytes.

    Each is None where there is none, or it was not asked for.
    """

    about: PictureField
    picture: bytes | None
    heatmap: bytes | None

    @property
    def pixels(self) -> Frame8 | None:
        """The picture, uint8, grey ``[H, W]`` or BGR ``[H, W, 3]``. Raises ValueError."""
        return None if self.picture is None else decode_picture(self.picture)


class Viewer(Connection):
    """Looks at one station; a context manager, for one thread.

    Nothing that it asks changes anything, so that a question without an answer is sent again until
    ``timeout_s``; one that cannot even be sent, as nothing like a station is there, until
    ``reach_s``. Every method raises :class:`CommandError` when the station refuses it or does not
    answer in time; its ``code`` is the refusal's (docs/wire.md), or "".
    """

    def __init__(
        self,
        address: str = QUERIES,
        *,
        timeout_s: float = _ANSWERS_S,
        reach_s: float | None = None,
        keys: ClientKeys | None = None,
    ) -> None:
        super().__init__()
        self._address = address
        self._timeout_s = timeout_s
        self._reach_s = timeout_s if reach_s is None else min(reach_s, timeout_s)
        self._keys = keys
        self._channel: Channel | None = None

    def close(self) -> None:
        """Close the connection; may be called more than once."""
        super().close()
        self._channel = None

    def history(
        self,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        camera: str | None = None,
        verdicts: Sequence[Verdict] = (),
        reason: str | None = None,
        part_id: str | None = None,
        score_from: float | None = None,
        score_to: float | None = None,
        marked: bool | None = None,
        before: tuple[str, int] | None = None,
    ) -> Iterator[EntryField]:
        """Recorded verdicts with what stands beside them, the newest first; page after page.

        What is None, or empty, is not asked about: see
        :class:`inspector.wire.queries.HistoryQuery`. ``before``: (epoch, seq) of the verdict below
        which to begin.
        """
        while True:
            epoch, seq = before or (None, None)
            with in_words():
                query = HistoryQuery(
                    since_us=since_us,
                    until_us=until_us,
                    camera=camera,
                    verdicts=tuple(verdicts),
                    reason=reason,
                    part_id=part_id,
                    score_from=score_from,
                    score_to=score_to,
                    marked=marked,
                    before_epoch=epoch,
                    before_seq=seq,
                )
            answer, _ = self.ask(query)
            yield from answer.entries
            if answer.next_epoch is None or answer.next_seq is None:
                return
            before = answer.next_epoch, answer.next_seq

    def picture(self, epoch: str, seq: int, *, full: bool = False, longest_px: int = 1024) -> View:
        """What the part of verdict ``seq`` of ``epoch`` looked like, with its heatmap.

        The picture is a JPEG no side of which is longer than ``longest_px``; ``full``: a lossless
        PNG of all pixels.
        """
        with in_words():
            query = PictureQuery(epoch=epoch, seq=seq, full=full, longest_px=longest_px)
        return self._view(query)

    def preview(self, camera: str, *, full: bool = False, longest_px: int = 1024) -> View:
        """What ``camera`` sees now; ``full`` and ``longest_px`` as of ``picture``."""
        with in_words():
            query = PreviewQuery(camera=camera, full=full, longest_px=longest_px)
        return self._view(query)

    def deeds(self) -> Iterator[DeedField]:
        """What people did to the station, the newest first; page after page."""
        before: int | None = None
        while True:
            answer, _ = self.ask(DeedsQuery(before=before))
            yield from answer.deeds
            before = answer.next_deed
            if before is None:
                return

    def judging(self) -> JudgingField:
        """By what the station judges now, and how that does."""
        answer, _ = self.ask(JudgingQuery())
        if answer.judging is None:
            raise CommandError(f"{self._address}: answered judging with {answer.kind}")
        return answer.judging

    def counts(self, since_us: int, until_us: int) -> CountsField:
        """How many verdicts of the production were judged within this time."""
        answer, _ = self.ask(CountsQuery(since_us=since_us, until_us=until_us))
        if answer.counts is None:
            raise CommandError(f"{self._address}: answered counts with {answer.kind}")
        return answer.counts

    def ask(self, query: Query) -> tuple[AnswerMessage, tuple[bytes, ...]]:
        """The answer to any query, and the pictures that it names; the ``id`` is replaced."""
        if self._channel is None:
            raise ValueError("use it as a context manager")
        query = query.model_copy(update={"id": new_id()})
        begun, ask_at, patience_s = time.monotonic(), 0.0, self._reach_s
        while (now := time.monotonic()) < begun + patience_s:
            if now >= ask_at:
                was_sent = self._channel.send(query)
                ask_at = now + (_REPEAT_S if was_sent else PAUSE_S)
                if was_sent:
                    # Who took the question may search a large journal for its answer.
                    patience_s = self._timeout_s
            until = begun + patience_s
            frames = self._channel.receive_frames(min(until, ask_at) - now)
            if frames is None:
                continue
            try:
                answer, pictures = decode_answer(frames)
            except WireError as error:
                raise CommandError(f"{self._address}: {error}") from None
            if answer.id != query.id:
                continue
            if answer.kind == "refused":
                text = f"{self._address}: refused {query.command}: {answer.code}: {answer.detail}"
                raise CommandError(text, answer.code, cause=answer.cause, detail=answer.detail)
            return answer, pictures
        raise CommandError(
            f"{self._address}: no answer to {query.command} in {patience_s:g} s; is the "
            f"station running, has it this query socket, and does it know this key?"
        )

    def _view(self, query: Query) -> View:
        answer, frames = self.ask(query)
        if answer.picture is None:
            raise CommandError(f"{self._address}: answered {query.command} with {answer.kind}")
        told = zip(answer.picture.frames, frames, strict=True)
        found = {one.content: data for one, data in told}
        return View(answer.picture, found.get("picture"), found.get("heatmap"))

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._channel = Channel(context, self._address, self._keys, _LARGEST_FRAME)
        self._open.callback(self._channel.close)
