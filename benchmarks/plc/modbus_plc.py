"""A PLC over Modbus TCP: the shipped function block in a scan cycle, on a bare socket of its own.

Like a PLC, and unlike a program that waits, it goes on scanning while an answer is on its way; then
the block sees what was read before, and notices by the heartbeat that nothing new comes.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.plc.books import Books, Stand
from benchmarks.plc.line import HEARTBEAT_S
from inspector.bridges.registers import CAMERA, PLC, PLC_OFFSET, ByteOrders, camera_base
from inspector.bridges.simulated_plc import FunctionBlock, Mode, Seen, read_values

READY, VALID = 1, 8

_READ: Final = CAMERA[-1].at + 1
_WRITTEN: Final = PLC[-1].at + 1
_ORDERS: Final = ByteOrders()
_RESULT_ID: Final = next(field for field in CAMERA if field.name == "ResultPartID")

Values = dict[str, int | float]


class Exchange:
    """Writes the PLC's block and reads the camera's, one request (function 23) at a time.

    One without an answer in ``reply_s`` is given up, and so is its connection.
    """

    def __init__(self, port: int, camera: int, reply_s: float = 0.5) -> None:
        self._reply_s = reply_s
        self._address = ("127.0.0.1", port)
        base = camera_base(camera)
        self._where = struct.pack(
            ">BHHHHB", 23, base, _READ, base + PLC_OFFSET, _WRITTEN, 2 * _WRITTEN
        )
        self._socket: socket.socket | None = None
        self._transaction = 0
        self._asked_s: float | None = None
        self._bytes = b""
        self._last: Values | None = None
        self.told_id = ""
        """ResultPartID as it was read last."""

    def turn(self, block: FunctionBlock, patience_s: float) -> Values | None:
        """What was read last; waits so long for what is new. None: there is no connection."""
        try:
            if self._socket is None:
                self._connect()
            if self._asked_s is None:
                self._ask(block)
            self._take(patience_s)
        except OSError:
            self.close()
        return self._last

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._last, self._asked_s, self._bytes = None, None, None, b""

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=self._reply_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _ask(self, block: FunctionBlock) -> None:
        assert self._socket is not None
        values = [0] * _WRITTEN
        for field in PLC:
            if field.name == "PartID":
                values[field.at : field.at + field.registers] = _ORDERS.letters(block.part_id)
            elif field.kind != "STRING":
                values[field.at] = block.block[field.name]
        body = self._where + struct.pack(f">{_WRITTEN}H", *values)
        self._transaction = (self._transaction + 1) % 65_536
        self._socket.sendall(struct.pack(">HHHB", self._transaction, 0, len(body) + 1, 1) + body)
        self._asked_s = time.monotonic()

    def _take(self, patience_s: float) -> None:
        assert self._socket is not None and self._asked_s is not None
        until = time.monotonic() + patience_s
        while True:
            self._socket.settimeout(max(0.0001, until - time.monotonic()))
            try:
                found = self._socket.recv(4096)
            except (TimeoutError, BlockingIOError):
                if time.monotonic() > self._asked_s + self._reply_s:
                    raise ConnectionError from None
                return
            if not found:
                raise ConnectionError
            self._bytes += found
            if len(self._bytes) < 9 + 2 * _READ:
                # An exception is no answer that a PLC could work with.
                if len(self._bytes) >= 9 and self._bytes[7] != 23:
                    raise ConnectionError
                continue
            registers = list(struct.unpack(f">{_READ}H", self._bytes[9 : 9 + 2 * _READ]))
            self._bytes, self._asked_s = b"", None
            self._last = read_values(registers, _ORDERS)
            at, length = _RESULT_ID.at, int(self._last["ResultPartIDLength"])
            text = _ORDERS.text_of(registers[at : at + _RESULT_ID.registers], length)
            self.told_id = "" if text is None else text
            return


class ModbusPlc(threading.Thread):
    """One camera's PLC in a thread; triggers parts as they may come, until ``enough``."""

    def __init__(
        self,
        port: int,
        camera: int,
        stand: Stand,
        books: Books,
        *,
        cycle_s: float,
        enough: Callable[[], bool],
        make: Callable[..., FunctionBlock] = FunctionBlock,
    ) -> None:
        super().__init__(name=f"plc-{camera}", daemon=True)
        self._exchange = Exchange(port, camera)
        self._stand = stand
        self._books = books
        self._cycle_s = cycle_s
        self._enough = enough
        self._make = make
        self._chance = random.Random(camera)
        self._block = self._new()
        self._frozen_until_s = self._held_until_s = 0.0
        self._restart = False
        self._ending = False
        self.wraps = 0
        self.scans = 0
        self.scanned_s = 0.0
        self.ready_s = 0.0
        """When it was Ready last."""

    def freeze(self, for_s: float) -> None:
        """It stands still, and then goes on where it was."""
        self._frozen_until_s = time.monotonic() + for_s

    def hold(self, for_s: float) -> None:
        """It looks at no result, and so acknowledges none; parts come on all the same."""
        self._held_until_s = time.monotonic() + for_s

    def restart(self) -> None:
        """Its program begins anew, and knows of no part."""
        self._restart = True

    @property
    def waiting(self) -> int:
        """Parts without an end."""
        return self._block.waiting

    def finish(self) -> None:
        """End the thread."""
        self._ending = True
        self.join()
        self._exchange.close()

    def run(self) -> None:
        awaited: dict[str, None] = {}
        while not self._ending:
            begun_s = time.monotonic()
            if begun_s < self._frozen_until_s:
                time.sleep(self._cycle_s)
                continue
            if self._restart:
                self._restart = False
                for part_id in awaited:
                    self._books.end(part_id, 0, "restart")
                awaited.clear()
                self._exchange.close()
                self._block = self._new()
            read = self._exchange.turn(self._block, self._cycle_s)
            holds = begun_s < self._held_until_s
            if read is not None and holds and self._block.mode is Mode.RUNNING:
                read = read | {"StatusWord": int(read["StatusWord"]) & ~VALID}
            for seen in self._block.scan(read, time.monotonic()):
                awaited.pop(seen.part_id, None)
                self._end(seen)
            if self._block.may_trigger:
                self.ready_s = begun_s
            if not self._enough() and (self._block.may_trigger or (holds and self._may_move(read))):
                part_id, score = self._stand.place()
                self._books.trigger(part_id, score)
                awaited[part_id] = None
                before = self._block.block["TriggerSeq"]
                self._block.trigger(part_id, time.monotonic())
                self.wraps += self._block.block["TriggerSeq"] < before
            self.scans += 1
            self.scanned_s += max(time.monotonic() - begun_s, self._cycle_s)
            time.sleep(max(0.0, self._cycle_s - (time.monotonic() - begun_s)))

    def _end(self, seen: Seen) -> None:
        told_id = self._exchange.told_id if seen.verdict else ""
        self._books.end(seen.part_id, seen.verdict, seen.reason, seen.score, told_id)

    def _may_move(self, read: Values | None) -> bool:
        """Whether the picture of the part before is taken, though the station be not Ready."""
        if read is None or self._block.mode is not Mode.RUNNING:
            return False
        seq = self._block.block["TriggerSeq"]
        return bool(read["TriggerSeqEcho"] == read["AcquiredSeq"] == seq)

    def _new(self) -> FunctionBlock:
        """A program that begins: some keep their session's number over that, some do not."""
        session = self._chance.choice((0, self._chance.randint(1, 65_535)))
        return self._make(
            session=session,
            # So that numbers wrap often.
            first_seq=self._chance.randint(65_500, 65_535),
            timeout_s=self._books.timeout_s,
            heartbeat_s=HEARTBEAT_S,
        )


@contextlib.contextmanager
def scanning(plcs: list[ModbusPlc]) -> Iterator[None]:
    """Start these, and end them."""
    for one in plcs:
        one.start()
    try:
        yield
    finally:
        for one in plcs:
            one.finish()
