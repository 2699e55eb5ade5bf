"""A disk that forgets what was not synced: an apsw VFS, and the journal's own statements on it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from inspector.errors import JournalError
from inspector.journal import writer as journal
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, begin, prepare, record
from inspector.station.triggers import Trigger
from inspector.wire.messages import VerdictMessage
from tests.records import EPOCH, answer, trigger

SECTOR = 512


@dataclass
class _File:
    """``durable`` is None until the first sync: before, not even the name is on the disk."""

    durable: bytearray | None = None
    waiting: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes (offset, data) and truncations (size, None) since the last sync."""

    def settle(self) -> None:
        content = self.durable or bytearray()
        for offset, data in self.waiting:
            _apply(content, offset, data)
        self.durable, self.waiting = content, []

    def survivors(self, chance: random.Random) -> bytes | None:
        """What a cut leaves: of what was not synced, each sector only perhaps."""
        if self.durable is None and chance.random() < 0.5:
            return None
        content = bytearray(self.durable or b"")
        for offset, data in self.waiting:
            if data is None:
                if chance.random() < 0.5:
                    _apply(content, offset, None)
                continue
            at = 0
            while at < len(data):
                end = min(len(data), at + SECTOR - (offset + at) % SECTOR)
                if chance.random() < 0.5:
                    _apply(content, offset + at, data[at:end])
                at = end
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """Every file of a database, what is durable of it apart from what is not.

    ``on_step`` is called before each write, sync, truncation and deletion.
    """

    def __init__(self, name: str, on_step: Callable[[], None] = lambda: None) -> None:
        super().__init__(name, "")
        self.label = name
        self.files: dict[str, _File] = {}
        self.on_step = on_step

    def cut(self, into: Path, chance: random.Random) -> None:
        """Write the files as a power cut at this moment would leave them."""
        into.mkdir()
        for name, file in self.files.items():
            content = file.survivors(chance)
            if content is not None:
                (into / Path(name).name).write_bytes(content)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _LossyFile(self, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        self.on_step()
        super().xDelete(name, sync)
        self.files.pop(name, None)


class _LossyFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._file = disk.files.setdefault(path, _File())

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.on_step()
        super().xWrite(data, offset)
        self._file.waiting.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.on_step()
        super().xTruncate(size)
        self._file.waiting.append((size, None))

    def xSync(self, flags: int) -> None:
        self._disk.on_step()
        super().xSync(flags)
        self._file.settle()


class Writer:
    """The statements of :class:`inspector.journal.writer.Journal`, run on a lossy disk."""

    def __init__(self, disk: Disk, path: Path, epoch: str, *extra: str) -> None:
        """``extra``: pragmas set after the journal's own, such as ``synchronous=OFF``."""
        self._db = apsw.Connection(str(path), vfs=disk.label)
        prepare(self._db, path)
        for pragma in extra:
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._latest_us = 0
        self._number = self._transact(lambda: begin(self._db, epoch, 0, 0))

    def commit(self, triggers: list[Trigger], verdicts: list[VerdictMessage]) -> None:
        self._latest_us = self._transact(
            lambda: record(self._db, self._number, self._latest_us, triggers, verdicts)
        )

    def close(self) -> None:
        self._db.close()

    def _transact(self, work: Callable[[], int]) -> int:
        self._db.execute("BEGIN IMMEDIATE")
        result = work()
        self._db.execute("COMMIT")
        return result


@dataclass
class Losses:
    """What power cuts took: acknowledged verdicts and triggers, and journals that made no sense."""

    cuts: int = 0
    verdicts: int = 0
    triggers: int = 0
    inconsistent: int = 0


def cut_often(
    folder: Path,
    name: str,
    *pragmas: str,
    cuts: int,
    on_cut: Callable[[int], None] = lambda done: None,
) -> Losses:
    """Cut the power at ``cuts`` random moments of a journal's work, and open what is left."""
    chance = random.Random(7)
    losses = Losses()
    live = folder / f"{name}-live"
    asked = answered = 0

    def step() -> None:
        if answered and losses.cuts < cuts and chance.random() < 0.012:
            image = folder / f"{name}-cut"
            disk.cut(image, chance)
            _examine(image, asked, answered, losses)
            shutil.rmtree(image)
            losses.cuts += 1
            on_cut(losses.cuts)

    epoch = 0
    while losses.cuts < cuts:
        epoch += 1
        asked = answered = 0
        shutil.rmtree(live, ignore_errors=True)
        live.mkdir()
        disk = Disk(f"{name}-{epoch}", step)
        writer = Writer(disk, live / FILE, EPOCH, *pragmas)
        # Longer than the 1,000 pages after which SQLite brings the WAL into the database.
        for number in range(1, 221):
            writer.commit([trigger(number)], [])
            asked = number
            writer.commit([], [answer(number, trigger(number), detail="x" * 9000)])
            answered = number
            if losses.cuts >= cuts:
                break
        writer.close()
        disk.unregister()
    shutil.rmtree(live)
    return losses


def _examine(image: Path, asked: int, answered: int, losses: Losses) -> None:
    try:
        with Reader(image) as reader:
            found = [
                VerdictMessage.model_validate_json(body).seq
                for body in reader.verdicts(EPOCH, 1, None, 1_000_000)
            ]
        opened = journal.Journal(image)
        try:
            unanswered = [row.number for row in opened.begin("after", 1).unanswered]
        finally:
            opened.close()
    except JournalError:
        losses.verdicts += answered
        return
    # Open is what was asked and not answered: nothing else, and at most one.
    whole = found == list(range(1, len(found) + 1)) and unanswered in ([], [len(found) + 1])
    losses.inconsistent += not whole
    losses.verdicts += max(0, answered - len(found))
    losses.triggers += max(0, asked - len(found) - len(unanswered))
