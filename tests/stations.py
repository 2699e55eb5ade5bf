"""A station's sockets and journal, without cameras: what its clients see of it."""

from __future__ import annotations

import contextlib
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inspector.client.subscriber import Item, Subscriber
from inspector.config.station_file import Security
from inspector.imaging.images import encode_jpeg, encode_png
from inspector.journal.reader import Reader
from inspector.journal.recovery import Damage
from inspector.journal.schema import FILE, PLACES_PER_EPOCH
from inspector.journal.writer import Journal
from inspector.verdict import Frame8
from inspector.wire.command_server import Commands, CommandSocket
from inspector.wire.gate import Gate
from inspector.wire.messages import CameraStatus, HeatmapMessage, StatusMessage, VerdictMessage
from inspector.wire.publisher import Publisher
from inspector.wire.requests import Request

NAME = "line-1"


def free_ports(count: int) -> list[str]:
    """Addresses that nobody has, to be bound again and again."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in found]


def verdict(seq: int, epoch: str = "epoch-1", **changes: Any) -> VerdictMessage:
    fields: dict[str, Any] = {
        "station": NAME,
        "camera": "top",
        "epoch": epoch,
        "seq": seq,
        "part_id": f"p{seq}",
        "trigger_seq": None,
        "verdict": "PASS",
        "score": 0.5,
        "reason": "",
        "detail": "",
        "limit_factor": 1.0,
        "regions": (),
        "model": None,
        "recipe": "r",
        "triggered_us": None,
        "grabbed_us": 1,
        "judged_us": time.time_ns() // 1000,
        "queue_ms": 0.1,
        "judge_ms": 3.0,
    }
    return VerdictMessage.model_validate(fields | changes)


class Recorded:
    """A journal, and who writes it; epochs are epoch-1, epoch-2, ..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0
        self.verdicts: list[VerdictMessage] = []
        self.trouble = ""
        self.cameras: tuple[CameraStatus, ...] = ()
        self._journal: Journal | None = None
        self.start()

    @property
    def epoch(self) -> str:
        return f"epoch-{self._started}"

    @property
    def last_seq(self) -> int:
        return max((one.seq for one in self.verdicts if one.epoch == self.epoch), default=0)

    def start(self) -> None:
        self.close()
        self._started += 1
        self._journal = Journal(self.folder)
        self._journal.begin(self.epoch, time.time_ns() // 1000)

    def record(self, count: int) -> list[VerdictMessage]:
        """The next ``count`` verdicts, on the disk."""
        first = self.last_seq + 1
        new = [verdict(seq, self.epoch) for seq in range(first, first + count)]
        self.commit(new)
        return new

    def commit(self, new: list[VerdictMessage]) -> None:
        """These, whatever their numbers, on the disk."""
        assert self._journal is not None
        self._journal.commit((), new)
        self.verdicts += new

    def suspect(self, damage: Damage) -> None:
        """A reader met this."""
        if self._journal is not None:
            self._journal.suspect(damage)

    def tend(self) -> None:
        """What the recorder does once a second."""
        assert self._journal is not None
        self._journal.tend()

    @property
    def damaged(self) -> int:
        assert self._journal is not None
        return self._journal.damaged

    def damage(self, seq: int, row: str) -> None:
        """Have the journal say ``row`` instead of verdict ``seq`` of the first epoch."""
        with contextlib.closing(sqlite3.connect(self.folder / FILE)) as db, db:
            db.execute("UPDATE verdict SET json = ? WHERE place = ?", (row, PLACES_PER_EPOCH + seq))

    def prune(self, epoch: int, before: int) -> None:
        """Delete the verdicts of an epoch before this seq, as age does."""
        base = PLACES_PER_EPOCH * epoch
        with contextlib.closing(sqlite3.connect(self.folder / FILE)) as db, db:
            db.execute("DELETE FROM verdict WHERE place > ? AND place < ?", (base, base + before))

    def status(self, state: str = "ContinuousExecution") -> StatusMessage:
        fields: dict[str, Any] = {
            "station": NAME,
            "epoch": self.epoch,
            "state": state,
            "last_seq": self.last_seq,
            "passed": self.last_seq,
            "failed": 0,
            "faults": 0,
            "recipe": "r",
            "provider": "CPUExecutionProvider",
            "inference": "",
            "trouble": self.trouble,
            "cameras": self.cameras,
            "sent_us": 3,
        }
        return StatusMessage.model_validate(fields)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


@contextlib.contextmanager
def serving(
    recorded: Recorded,
    handle: Callable[[Request], None],
    address: str = "tcp://127.0.0.1:*",
    security: Security | None = None,
    **options: Any,
) -> Iterator[Commands]:
    """The command socket of a station."""
    gate = Gate(security or Security())
    try:
        commands = Commands(
            CommandSocket(gate, address),
            handle=handle,
            status=recorded.status,
            reader=lambda: Reader(recorded.folder, recorded.suspect),
            **options,
        )
        commands.start()
        try:
            yield commands
        finally:
            commands.finish()
            assert not commands.crashed
    finally:
        gate.close()


class Station:
    """Publishes what it records, or loses it on the way, and is started anew at the same ports."""

    def __init__(
        self,
        folder: Path,
        on_request: Callable[[Request], None] = lambda request: None,
        **options: Any,
    ) -> None:
        self.recorded = Recorded(folder)
        self._on_request = on_request
        self.verdicts, self.images, self.commands = free_ports(3)
        self._options = options
        self._stack = contextlib.ExitStack()
        self._open()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.recorded.close()

    def _open(self) -> None:
        self.publisher = Publisher(self.verdicts, self.images)
        self._stack.callback(self.publisher.close, linger_ms=0)
        self._stack.enter_context(
            serving(self.recorded, self._on_request, self.commands, **self._options)
        )

    def wait(self, subscriber: Subscriber | None = None) -> list[Item]:
        """Until somebody subscribes; what ``subscriber`` received meanwhile.

        One that was cut off subscribes anew only within its calls: so ZeroMQ does it.
        """
        found: list[Item] = []
        deadline = time.monotonic() + 10.0
        while not self.publisher.wait_for_subscriber(0.005):
            assert time.monotonic() < deadline
            while subscriber is not None and (item := subscriber.receive(10)) is not None:
                found.append(item)
        return found

    def publish(self, count: int) -> None:
        for message in self.recorded.record(count):
            self.publisher.send_verdict(message)

    def lose(self, count: int) -> None:
        """Recorded, but never sent: as if the network had lost them."""
        self.recorded.record(count)

    def say_status(self, state: str = "ContinuousExecution") -> None:
        self.publisher.send_status(self.recorded.status(state))

    def go_down(self) -> None:
        self._stack.close()

    def show(self, seq: int, map_: Frame8, picture: Frame8) -> tuple[bytes, bytes]:
        """Publish a heatmap; its two files."""
        height, width = map_.shape
        of = verdict(seq, self.recorded.epoch)
        told = of.model_dump(include=set(HeatmapMessage.model_fields)) | {
            "width": width,
            "height": height,
        }
        files = encode_png(map_), encode_jpeg(picture)
        self.publisher.send_heatmap(HeatmapMessage.model_validate(told), *files)
        return files

    def come_up(self) -> None:
        """Another epoch."""
        self.recorded.start()
        self._open()

    def rest(self, count: int) -> None:
        """A start that nobody hears of: it records and is gone."""
        self.recorded.start()
        self.recorded.record(count)


class Relay:
    """A cable between client and station that can be cut."""

    def __init__(self, to: str) -> None:
        self._to = ("127.0.0.1", int(to.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._wake, self._waker = socket.socketpair()
        self._whole = True
        self._ending = False
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def cut(self) -> None:
        self._whole = False
        self._waker.send(b"\0")

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self._ending = True
        self._waker.send(b"\0")
        self._thread.join()
        for one in (self._listener, self._wake, self._waker):
            one.close()

    def _carry(self) -> None:
        while not self._ending:
            readable, _, _ = select.select([self._listener, self._wake, *self._pairs], [], [])
            if self._wake in readable:
                self._wake.recv(100)
            if not self._whole or self._ending:
                self._hang_up(*self._pairs)
            if self._listener in readable:
                near, _ = self._listener.accept()
                try:
                    if not self._whole:
                        raise ConnectionError
                    far = socket.create_connection(self._to)
                except OSError:
                    near.close()
                    continue
                # Held back until the last bytes are acknowledged, a short answer takes 40 ms.
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs |= {near: far, far: near}
            for one in readable:
                if one in self._pairs:
                    try:
                        data = one.recv(65536)
                        self._pairs[one].sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        self._hang_up(one)
        self._hang_up(*self._pairs)

    def _hang_up(self, *ends: socket.socket) -> None:
        for one in ends:
            for end in (one, self._pairs.pop(one, None)):
                if end is not None:
                    self._pairs.pop(end, None)
                    end.close()


def accept_and_answer(request: Request) -> None:
    """A handler that has judged every part at once."""
    request.accept()
    request.answer(verdict(7, part_id=request.command.part_id))
