"""Send commands to a station: triggers, orders, and what became of its verdicts."""

from __future__ import annotations

import collections
import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from inspector.client.connection import Channel, Connection, in_words, new_id
from inspector.client.exchange import Answer, Exchange, Sent
from inspector.client.keys import ClientKeys
from inspector.client.upload import opened, send_file, send_pieces
from inspector.config.addresses import COMMANDS
from inspector.errors import CommandError
from inspector.wire.messages import (
    AcknowledgeCommand,
    AlarmKind,
    Command,
    DeliveredCommand,
    InstallCommand,
    LimitCommand,
    MarkCommand,
    MarkLabel,
    Outcome,
    Purpose,
    RecipeCommand,
    ReloadCommand,
    ReplyMessage,
    ResetCommand,
    RevertCommand,
    StartCommand,
    StatusCommand,
    StatusMessage,
    StopCommand,
    TriggerCommand,
    VerdictMessage,
)

_RELOAD_S: Final = 120.0
_ENTER_S: Final = 1.0
_MEASURE_S: Final = 60.0
"""How often the station measures this side's clock, which drifts by some ms meanwhile."""
_ROUND_TRIPS: Final = 3
"""Questions that measure a clock: the first may have waited for the connection."""
_CALLS_KNOWN: Final = 1000
"""Triggers of which it is known when they were called for, should they be repeated."""


class Commander(Connection):
    """Sends commands to one station; a context manager, for one thread.

    The station knows a trigger by session, number and part. So trigger numbers (``trigger_seq``)
    may begin anew only in another ``session``; the default is a new one for each ``Commander``.
    Every trigger tells when it was called for, so that the station takes no picture of a part that
    has gone by; so enter it before the first part comes, which waits for the station for a second
    at most. Every command raises :class:`CommandError` when the station refuses it
    or does not answer in time; its ``code`` is the refusal's (docs/wire.md), or "".

    Methods named after a command wait for its end. To have several under way, ``send`` them, or
    ``send_trigger``, neither of which waits, and call ``receive`` again and again: it hands out the
    answers as they come, sends again what is not answered, and keeps the station's knowledge of
    this side's clock fresh. The two ways may be mixed.
    """

    def __init__(
        self,
        address: str = COMMANDS,
        *,
        session: str | None = None,
        timeout_s: float = 10.0,
        keys: ClientKeys | None = None,
    ) -> None:
        super().__init__()
        self.session = str(uuid.uuid4()) if session is None else session
        self._address = address
        self._timeout_s = timeout_s
        self._keys = keys
        self._exchange: Exchange | None = None
        # Wall time at first, but it goes on without a jump when somebody sets the clock.
        self._clock_us = (time.time_ns() - time.monotonic_ns()) // 1000
        self._measured_s: float | None = None
        """When (monotonic) this clock was measured last; None: not by the station at work."""
        self._answered_us: int | None = None
        self._epoch = ""
        self._called: collections.OrderedDict[tuple[str, str, int, str], int] = (
            collections.OrderedDict()
        )
        """When the last triggers were called for that were no repetitions."""
        self._question: Sent | None = None
        """The round trip under way that ``receive`` makes beside the caller's commands."""
        self._round_trips = 0

    def close(self) -> None:
        """Close the connection, and forget what is under way; may be called more than once."""
        super().close()
        self._exchange = self._question = None

    def trigger(
        self,
        camera: str,
        trigger_seq: int,
        part_id: str = "",
        timeout_s: float | None = None,
        *,
        lot: str = "",
        purpose: Purpose = "production",
        repeat: bool = False,
        session: str | None = None,
        on_acquired: Callable[[int], None] | None = None,
    ) -> VerdictMessage:
        """Have the part before ``camera`` judged, and wait for its verdict.

        ``on_acquired`` is called, in this thread, when the picture is taken and the part may move,
        with that time in µs since the Unix epoch; not where the trigger gets no picture.

        Until there is an answer the trigger is sent again as a repetition, which makes no second
        part. After a CommandError the caller may do the same with ``repeat``; a verdict that the
        part had already then comes with ``repeated`` set: it is a record, no permission to pass.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        until = time.monotonic() + timeout_s
        command = self._trigger(
            camera, trigger_seq, part_id, session, lot=lot, purpose=purpose, repeat=repeat
        )
        if self._clock_is_due():
            self._have_clock_measured(timeout_s, until, about=command)
        reply = self.wait(self._launch(command, timeout_s, until), on_acquired)
        if reply.verdict is None:
            raise self._wrong(command, reply)
        return reply.verdict

    def status(self) -> StatusMessage:
        """The station's status now."""
        command = self._ask_status()
        reply = self.wait(self._launch(command, self._timeout_s))
        if reply.status is None:
            raise self._wrong(command, reply)
        return reply.status

    def recipe(self, name: str, timeout_s: float = _RELOAD_S, *, by: str = "") -> str:
        """Have the station judge by another recipe; returns what it says about that.

        ``by``, here and below: the person who orders it, for the station's log of deeds.
        """
        with in_words():
            command = RecipeCommand(id=new_id(), recipe=name, by=by)
        return self.wait(self._launch(command, timeout_s)).detail

    def reload(self, timeout_s: float = _RELOAD_S, *, by: str = "") -> str:
        """Have it read its bundles again, and acknowledge a missed self-test; returns its words."""
        with in_words():
            command = ReloadCommand(id=new_id(), by=by)
        return self.wait(self._launch(command, timeout_s)).detail

    def start(self, *, by: str = "") -> str:
        """Have a station judge that was stopped by command; returns its words."""
        with in_words():
            command = StartCommand(id=new_id(), by=by)
        return self.wait(self._launch(command, self._timeout_s)).detail

    def stop(self, *, by: str = "") -> str:
        """Have it judge no more, and take no triggers, until ``start``; returns its words."""
        with in_words():
            command = StopCommand(id=new_id(), by=by)
        return self.wait(self._launch(command, self._timeout_s)).detail

    def reset(self, *, by: str = "") -> str:
        """Have it leave the state Error, through its self-tests; returns its words."""
        with in_words():
            command = ResetCommand(id=new_id(), by=by)
        return self.wait(self._launch(command, self._timeout_s)).detail

    def mark(self, epoch: str, seq: int, label: MarkLabel, note: str = "", *, by: str = "") -> None:
        """Have the journal note what the part of verdict ``seq`` of ``epoch`` really was.

        Its pictures stay from then on. A later mark stands beside the earlier. The answer may take
        a second, as that of ``delivered``.
        """
        with in_words():
            command = MarkCommand(id=new_id(), epoch=epoch, seq=seq, label=label, note=note, by=by)
        self.wait(self._launch(command, self._timeout_s))

    def limit(self, recipe: str, camera: str, limit_factor: float, *, by: str = "") -> str:
        """Have ``camera`` judged by another ``limit_factor`` under ``recipe``; returns its words.

        It is in force from its next part on, and after a restart.
        """
        with in_words():
            command = LimitCommand(
                id=new_id(), recipe=recipe, camera=camera, limit_factor=limit_factor, by=by
            )
        return self.wait(self._launch(command, self._timeout_s)).detail

    def install(
        self,
        bundle: Path | bytes,
        recipe: str,
        camera: str,
        timeout_s: float = _RELOAD_S,
        *,
        by: str = "",
        progress: Callable[[int, int], None] = lambda _there, _of: None,
    ) -> str:
        """Have ``camera`` judged by another bundle under ``recipe``; returns the station's words.

        The file, or its bytes, is sent piece by piece; ``progress`` hears how many bytes the
        station has, and of how many. A connection that breaks, and a station that is started again,
        are waited for. ``timeout_s`` is for the loading and checking that follow. In force from the
        camera's next part on, and after a restart. Raises :class:`BundleError` when the file cannot
        be read.
        """
        with opened(bundle) as (file, sha256, size):
            send_file(
                file, sha256, size, lambda at, data: self.upload(sha256, size, at, data), progress
            )
        return self.install_uploaded(sha256, recipe, camera, timeout_s, by=by)

    def upload(self, sha256: str, size: int, offset: int = 0, data: bytes = b"") -> int:
        """Send bytes of a bundle from ``offset`` on; how many the station has then, from 0 on.

        For programs that have the file in pieces themselves: send those in order, and go on from
        what is returned. Without ``data`` it is asked. ``sha256`` (hex) and ``size`` (bytes) are
        those of the whole file.
        """
        return send_pieces(self._entered(), sha256, size, offset, data, self._timeout_s)

    def install_uploaded(
        self, sha256: str, recipe: str, camera: str, timeout_s: float = _RELOAD_S, *, by: str = ""
    ) -> str:
        """As ``install``, with a bundle that ``upload`` has sent whole."""
        with in_words():
            command = InstallCommand(
                id=new_id(), recipe=recipe, camera=camera, sha256=sha256, by=by
            )
        return self.wait(self._launch(command, timeout_s)).detail

    def revert(
        self,
        recipe: str,
        camera: str,
        timeout_s: float = _RELOAD_S,
        *,
        sha256: str = "",
        by: str = "",
    ) -> str:
        """Have ``camera`` judged by the bundle of before the last install; returns its words.

        Beyond that, by the one that the station file names. ``sha256``: only if this one is in
        force, so that no second call goes a second step.
        """
        with in_words():
            command = RevertCommand(id=new_id(), recipe=recipe, camera=camera, sha256=sha256, by=by)
        return self.wait(self._launch(command, timeout_s)).detail

    def acknowledge(self, kind: AlarmKind, where: str, *, by: str = "") -> str:
        """Say that an alarm of the status was seen; returns the station's words."""
        with in_words():
            command = AcknowledgeCommand(id=new_id(), kind=kind, where=where, by=by)
        return self.wait(self._launch(command, self._timeout_s)).detail

    def delivered(self, epoch: str, seq: int, outcome: Outcome, at_us: int | None = None) -> None:
        """Have the journal note what became of the verdict ``seq`` of ``epoch``.

        ``at_us``: when that was, µs since the Unix epoch; None: now. The answer may take a second,
        since the station writes it together with the next verdict.
        """
        with in_words():
            command = DeliveredCommand(
                id=new_id(),
                epoch=epoch,
                seq=seq,
                outcome=outcome,
                at_us=time.time_ns() // 1000 if at_us is None else at_us,
            )
        self.wait(self._launch(command, self._timeout_s))

    def send_trigger(
        self,
        camera: str,
        trigger_seq: int,
        part_id: str = "",
        timeout_s: float | None = None,
        *,
        lot: str = "",
        purpose: Purpose = "production",
        repeat: bool = False,
        session: str | None = None,
    ) -> Sent:
        """Send a trigger, and do not wait; ``receive`` hands out its answers.

        It is sent again, as a repetition, while ``receive`` finds no answer. Raises
        :class:`CommandError` only for a trigger that cannot be written.
        """
        command = self._trigger(
            camera, trigger_seq, part_id, session, lot=lot, purpose=purpose, repeat=repeat
        )
        return self._launch(command, self._timeout_s if timeout_s is None else timeout_s)

    def send(self, command: Command, timeout_s: float | None = None) -> Sent:
        """Send any command, and do not wait; ``receive`` hands out its answers.

        Its ``id`` is replaced, and the times of this side's clock are put in. Triggers, as
        repetitions, status and delivered are sent again while there is no answer.
        """
        command = command.model_copy(update={"id": new_id()})
        if isinstance(command, TriggerCommand):
            command = self._called_for(command)
        elif isinstance(command, StatusCommand):
            command = self._ask_status()
        return self._launch(command, self._timeout_s if timeout_s is None else timeout_s)

    def wait(self, sent: Sent, on_acquired: Callable[[int], None] | None = None) -> ReplyMessage:
        """Wait for the final reply to what was sent; the answers to other commands are kept.

        Raises :class:`CommandError`.
        """
        return self._entered().wait(sent, on_acquired)

    def receive(self, timeout_s: float) -> Answer | None:
        """The next answer to what was sent; None when there is none in time, or after ``wake``.

        Call it again and again, also while nothing is under way: what is due is sent by it.
        """
        exchange, until = self._entered(), time.monotonic() + timeout_s
        while True:
            if (answer := exchange.next_answer()) is not None:
                return answer
            if exchange.channel.was_woken() or time.monotonic() >= until:
                return None
            self._measure_beside()
            exchange.turn(until)

    def wake(self) -> None:
        """Have a ``receive`` that waits in another thread return, or else the next one.

        Any thread may call this, and only this. It is for a program that waits for more than
        answers: put what it is to do into a queue, then wake it.
        """
        if (exchange := self._exchange) is not None:
            exchange.channel.wake()

    def _trigger(
        self,
        camera: str,
        trigger_seq: int,
        part_id: str,
        session: str | None,
        *,
        lot: str,
        purpose: Purpose,
        repeat: bool,
    ) -> TriggerCommand:
        with in_words():
            command = TriggerCommand(
                id=new_id(),
                camera=camera,
                session=self.session if session is None else session,
                trigger_seq=trigger_seq,
                part_id=part_id,
                lot=lot,
                purpose=purpose,
                repeat=repeat,
            )
        return self._called_for(command)

    def _called_for(self, command: TriggerCommand) -> TriggerCommand:
        """``command`` with the time at which it was called for first, where that is known."""
        key = command.camera, command.session, command.trigger_seq, command.part_id
        if not command.repeat:
            self._called[key] = self._now_us()
            if len(self._called) > _CALLS_KNOWN:
                self._called.popitem(last=False)
        # Another object's trigger may be repeated, whose time is not known here.
        return command.model_copy(update={"sent_us": self._called.get(key)})

    def _entered(self) -> Exchange:
        if self._exchange is None:
            raise ValueError("use it as a context manager")
        return self._exchange

    def _launch(
        self,
        command: Command,
        timeout_s: float,
        until: float | None = None,
        about: Command | None = None,
    ) -> Sent:
        return self._entered().launch(command, timeout_s, until, about=about)

    def _note(self, command: Command, reply: ReplyMessage) -> None:
        """A final reply came: what it says of the station's knowledge of this clock."""
        if isinstance(command, StatusCommand) and command.sent_us is not None:
            self._answered_us = self._now_us()
        told = reply.status or reply.verdict
        if told is not None and told.epoch != self._epoch:
            # A station that was started again has measured nothing yet.
            self._epoch, self._measured_s, self._round_trips = told.epoch, None, 0

    def _forget_clock(self) -> None:
        """The station knows a clock by its connection, and this one is new."""
        self._measured_s = self._answered_us = None
        self._round_trips = 0

    def _now_us(self) -> int:
        return self._clock_us + time.monotonic_ns() // 1000

    def _ask_status(self) -> StatusCommand:
        """The next status command, which has the station measure this side's clock.

        Not so while another one is under way: a round trip has one question and one reply.
        """
        if self._entered().is_under_way(StatusCommand):
            return StatusCommand(id=new_id())
        return StatusCommand(id=new_id(), sent_us=self._now_us(), answered_us=self._answered_us)

    def _clock_is_due(self) -> bool:
        return self._measured_s is None or time.monotonic() > self._measured_s + _MEASURE_S

    def _measure_beside(self) -> None:
        """Have this clock measured by round trips beside the commands that are under way."""
        if self._question is not None:
            if not self._question.is_done:
                return
            self._round_trips += self._question.reply is not None
            self._question = None
        if self._round_trips >= _ROUND_TRIPS:
            self._round_trips, self._measured_s = 0, time.monotonic()
        exchange = self._entered()
        if self._clock_is_due() and not exchange.is_under_way(StatusCommand):
            self._question = exchange.launch(self._ask_status(), self._timeout_s, beside=True)

    def _have_clock_measured(
        self, timeout_s: float, until: float | None = None, about: Command | None = None
    ) -> None:
        """Make some round trips, and tell the station how long they took. Raises CommandError.

        ``about`` is what waits for this, which the error names.
        """
        if self._question is not None:
            # Round trips that overlap measure nothing.
            self._entered().forget(self._question)
            self._question = None
        for _ in range(_ROUND_TRIPS):
            self.wait(self._launch(self._ask_status(), timeout_s, until, about))
        self._measured_s = time.monotonic()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        channel = Channel(context, self._address, self._keys)
        self._open.callback(channel.close)
        self._exchange = Exchange(
            self._address,
            channel,
            self._note,
            self._forget_clock,
            has_keys=self._keys is not None,
        )
        # The first trigger shall not have to wait for this; a station that is down is no error yet.
        with contextlib.suppress(CommandError):
            self._have_clock_measured(min(_ENTER_S, self._timeout_s))

    def _wrong(self, command: Command, reply: ReplyMessage) -> CommandError:
        return CommandError(f"{self._address}: answered {command.command} with {reply.kind}")
