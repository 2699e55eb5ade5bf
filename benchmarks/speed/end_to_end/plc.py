"""The PLC: sends triggers to a station and takes its verdicts, as a bridge would."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import uuid
from typing import Any, Final

import zmq

from benchmarks.speed.end_to_end.report import LATE, Sample

PATIENCE_S: Final = 5.0


class Plc:
    """Sends triggers, receives verdicts; raw ZeroMQ and JSON, as a bridge in any language would."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._session = uuid.uuid4().hex[:8]
        self._number = 0
        self._context = zmq.Context()
        self._verdicts = self._context.socket(zmq.SUB)
        self._commands = self._context.socket(zmq.DEALER)
        self.addresses = _free_addresses()
        self.started_s = 0.0
        for socket, name in ((self._verdicts, "verdicts"), (self._commands, "commands")):
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.addresses[name])
        for kind in (b"verdict/bench/", b"status/bench/"):
            self._verdicts.subscribe(kind)

    def wait_until_ready(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            found = self._receive(0.1)
            if found is not None and found[1].get("state") == "Ready":
                return True
        return False

    def round(self, sample: Sample, reasons: dict[str, int]) -> None:
        """A part before all cameras at once: a trigger each, and a verdict each."""
        sent: dict[int, tuple[int, int]] = {}
        for name in self._names:
            number = self._next()
            sent[number] = time.perf_counter_ns(), time.time_ns() // 1000
            self._commands.send(self._command(name, number))
        until = time.monotonic() + PATIENCE_S
        while sent and time.monotonic() < until:
            found = self._receive(0.1)
            if found is None or "trigger_seq" not in found[1]:
                continue
            received_ns, received_us, message = found[0], time.time_ns() // 1000, found[1]
            began_ns, began_us = sent.pop(message["trigger_seq"])
            reasons[message["reason"]] = reasons.get(message["reason"], 0) + 1
            if message["judge_ms"] is None:
                continue
            sample.total.append((received_ns - began_ns) / 1e6)
            judged_us = message["judged_us"]
            marks = (
                *(began_us, message["triggered_us"], message["grabbed_us"]),
                *(judged_us - message["judge_ms"] * 1e3, judged_us, received_us),
            )
            stages = tuple((b - a) / 1e3 for a, b in itertools.pairwise(marks))
            sample.stages.append(stages)
        if sent:
            raise SystemExit(f"no verdict within {PATIENCE_S} s")
        self._drain()

    def highest_rate(self, model_hz: float, seconds: float) -> float:
        """Triggers a second, over all cameras in turn, before the first that came too late."""
        reached, rate_hz = 0.0, 0.5 * model_hz
        while rate_hz < 4 * model_hz:
            if not self._holds(rate_hz, seconds):
                break
            reached, rate_hz = rate_hz, rate_hz * 1.08
        return reached

    def _holds(self, rate_hz: float, seconds: float) -> bool:
        count, late, begun, due = max(10, int(rate_hz * seconds)), False, 0, time.monotonic()
        open_parts = 0
        patience = time.monotonic() + seconds + PATIENCE_S
        while (begun < count or open_parts) and time.monotonic() < patience:
            if begun < count and time.monotonic() >= due:
                name = self._names[begun % len(self._names)]
                self._commands.send(self._command(name, self._next()))
                begun, open_parts, due = begun + 1, open_parts + 1, due + 1 / rate_hz
                self._drain()
                continue
            wait_s = due - time.monotonic() if begun < count else 0.2
            found = self._receive(max(0.0, min(0.2, wait_s)))
            if found is not None and "trigger_seq" in found[1]:
                open_parts -= 1
                late |= found[1]["reason"] in LATE
        return not late and not open_parts

    def close(self) -> None:
        for socket in (self._verdicts, self._commands):
            socket.close()
        self._context.term()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _command(self, name: str, number: int) -> bytes:
        command = {
            "command": "trigger",
            "camera": name,
            "session": self._session,
            "trigger_seq": number,
            "part_id": f"{self._session}-{number}",
        }
        return json.dumps(command).encode()

    def _receive(self, timeout_s: float) -> tuple[int, dict[str, Any]] | None:
        if not self._verdicts.poll(int(timeout_s * 1000)):
            return None
        frames = self._verdicts.recv_multipart()
        received_ns = time.perf_counter_ns()
        return received_ns, json.loads(frames[1])

    def _drain(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self._commands.recv(zmq.NOBLOCK)


def _free_addresses() -> dict[str, str]:
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        found = {}
        for name in ("verdicts", "images", "commands"):
            socket = stack.enter_context(context.socket(zmq.PUB))
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            found[name] = f"tcp://127.0.0.1:{port}"
        return found
