"""The station's figures for Prometheus, over HTTP on loopback (docs/operations.md lists them)."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any, Final, Literal, cast, get_args
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.exposition import ThreadingWSGIServer

from inspector.detection.manifest import Manifest
from inspector.errors import PortError
from inspector.station.ledger import CameraState
from inspector.verdict import Reason, Verdict
from inspector.version import VERSION
from inspector.wire.messages import ModelField, Purpose, State, StatusMessage, VerdictMessage

Stage = Literal["queue", "judge", "commit", "publish", "trigger_to_verdict"]
"""Where a part's time goes; the last is the whole, until its verdict is published."""

_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0),
)
_UNCOUNTED: Final[tuple[Purpose, ...]] = ("challenge", "study")
"""Purposes whose verdicts are counted apart."""
_MOST_CONNECTIONS: Final = 32
_REQUEST_S: Final = 5.0
"""From the accepted connection to the end of its reply."""
_LARGEST_REQUEST: Final = 16 << 10
"""Bytes of a request's line and headers."""

_log: Final = logging.getLogger("inspector")


class Metrics:
    """The figures of one daemon start; every method may be called by any thread.

    The series of every camera stand at zero from the start, so that no rate misses a first step.
    """

    def __init__(self, station: str, cameras: Sequence[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._names = tuple(cameras)
        self._models: dict[str, tuple[str, ...]] = {}
        self._totals: dict[Counter, int] = {}
        self._lost: set[str] = set()
        self._lock = threading.Lock()

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"inspector_{name}", meaning, labels, registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"inspector_{name}", meaning, labels, registry=registry)

        ProcessCollector(registry=registry)
        gauge("info", "Constant 1.", "station", "version").labels(station, VERSION).set(1)
        self._state = gauge("state", "1 for the state in force.", "state")
        self._heard_s = time.monotonic()
        gauge("loop_age_seconds", "Since the verdict loop told its status.").set_function(
            lambda: time.monotonic() - self._heard_s
        )
        self._verdicts = counter("verdicts", "Verdicts.", "camera", "verdict", "reason")
        self._others = counter(
            "uncounted_verdicts",
            "Verdicts of parts that are no production.",
            *("camera", "purpose", "verdict"),
        )
        self._stages = Histogram(
            "inspector_stage_seconds",
            "Time in each stage; commit and publish are those of a group.",
            ("stage", "camera"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._over_triggers = counter("over_triggers", "Triggers before the last one's picture.")
        self._overruns = counter("overruns", "Parts that were not judged in time.")
        self._late = counter("late_results", "Results after the verdict.")
        self._repeated = counter("repeated_triggers", "Triggers that were sent again.")
        self._refused = counter("refused_connections", "Peers turned away for want of a key.")
        self._unsent = counter("unsent_replies", "Replies whose client had gone or did not read.")
        self._cameras = gauge("camera_state", "1 for the state in force.", "camera", "state")
        self._losses = counter("camera_losses", "How often it was lost.", "camera")
        self._reopens = counter("camera_reopens", "How often it came back.", "camera")
        self._queue = gauge("queue_depth", "Pictures that wait for judgement.", "camera")
        self._journal = gauge("journal_waiting", "Triggers and verdicts not yet on the disk.")
        self._journal_failing = gauge("journal_failing", "1 while commits fail.")
        self._damaged = gauge("journal_damaged_rows", "Rows that were set aside.")
        self._forgotten = counter("forgotten_verdicts", "Published, and in no journal for good.")
        self._dropped = counter("pictures_dropped", "Pictures dropped.", "kind")
        self._model = gauge("model_info", "Constant 1.", "camera", "name", "version", "sha256")
        self._model_age = gauge("model_age_seconds", "Since the bundle was made.", "camera")
        self._drift = gauge("drift_statistic", "Evidence of drift; 1 is the alarm.", "camera")
        self._alarm = gauge(
            "alarm", "1 while clearly more parts are so than is usual.", "camera", "verdict"
        )
        self._self_tests = counter("self_tests", "Golden defects sent.", "camera", "result")
        self._log_dropped = counter("log_lines_dropped", "Lines of the log that nobody read.")

        for name in cameras:
            for verdict, reason in _possible():
                self._verdicts.labels(name, verdict.value, reason.value)
            for purpose in _UNCOUNTED:
                for verdict in Verdict:
                    self._others.labels(name, purpose, verdict.value)
            for stage in ("queue", "judge", "trigger_to_verdict"):
                self._stages.labels(stage, name)
            for result in ("found", "missed"):
                self._self_tests.labels(name, result)
            for each in (self._losses, self._reopens, self._queue, self._drift):
                each.labels(name)
            self.camera(name, "opening")
        for stage in ("commit", "publish"):
            self._stages.labels(stage, "")
        for kind in ("published", "kept"):
            self._dropped.labels(kind)
        self.alarms(())
        self.state("Preoperational")

    def verdict(self, message: VerdictMessage) -> None:
        """One more verdict: by kind and reason, and the time it took to be judged.

        Those of parts that are no production are counted apart.
        """
        if message.counts:
            self._verdicts.labels(message.camera, message.verdict.value, message.reason).inc()
        else:
            self._others.labels(message.camera, message.purpose, message.verdict.value).inc()
        if message.queue_ms is not None:
            self.stage("queue", message.queue_ms / 1e3, message.camera)
        if message.judge_ms is not None:
            self.stage("judge", message.judge_ms / 1e3, message.camera)

    def stage(self, stage: Stage, seconds: float, camera: str = "") -> None:
        """Time spent in a stage, s; a group's commit and publication have no camera."""
        self._stages.labels(stage, camera).observe(seconds)

    def state(self, state: State) -> None:
        """The station's state."""
        for each in get_args(State):
            self._state.labels(each).set(each == state)

    def camera(self, camera: str, state: CameraState) -> None:
        """A camera's state; losses and returns are counted from its changes."""
        with self._lock:
            if state == "lost" and camera not in self._lost:
                self._lost.add(camera)
                self._losses.labels(camera).inc()
            elif state == "running" and camera in self._lost:
                self._lost.remove(camera)
                self._reopens.labels(camera).inc()
        for each in get_args(CameraState):
            self._cameras.labels(camera, each).set(each == state)

    def status(self, message: StatusMessage) -> None:
        """``state`` and ``camera`` as a status tells them, and its counts since the start."""
        self._heard_s = time.monotonic()
        self.state(message.state)
        for camera in message.cameras:
            self.camera(camera.name, camera.state)
        self._advance(self._over_triggers, message.over_triggers)
        self._advance(self._overruns, message.overruns)
        self._advance(self._late, message.late)
        self._advance(self._repeated, message.repeated)

    def refused(self, total: int) -> None:
        """Connections turned away since the start."""
        self._advance(self._refused, total)

    def unsent(self, total: int) -> None:
        """Replies that were dropped since the start, as their client had gone or did not read."""
        self._advance(self._unsent, total)

    def log_dropped(self, total: int) -> None:
        """Lines of the log that were dropped since the start, as nobody read them."""
        self._advance(self._log_dropped, total)

    def queue(self, camera: str, waiting: int) -> None:
        """Pictures of ``camera`` that wait for judgement."""
        self._queue.labels(camera).set(waiting)

    def journal(self, waiting: int, failing: bool, forgotten: int, damaged: int) -> None:
        """Triggers and verdicts that are not on the disk, and whether the last commit failed.

        ``forgotten``: verdicts since the start that were published and will never be recorded.
        ``damaged``: rows that could not be read and were set aside.
        """
        self._damaged.set(damaged)
        self._journal.set(waiting)
        self._journal_failing.set(failing)
        self._advance(self._forgotten, forgotten)

    def dropped(self, kind: Literal["published", "kept"], pictures: int = 1) -> None:
        """Pictures that were not published for want of time, or not kept for want of space."""
        self._dropped.labels(kind).inc(pictures)

    def model(self, camera: str, model: ModelField, manifest: Manifest) -> None:
        """The bundle that judges ``camera`` from now on; its age counts from its making."""
        labels = (camera, model.name, model.version, model.sha256)
        with self._lock:
            before = self._models.get(camera)
            if before is not None and before != labels:
                self._model.remove(*before)
            self._models[camera] = labels
            self._model.labels(*labels).set(1)
        made = _moment(manifest.created)
        if made is None:
            self._model_age.labels(camera).set_function(lambda: float("nan"))
        else:
            self._model_age.labels(camera).set_function(lambda: time.time() - made)

    def drift(self, camera: str, statistic: float) -> None:
        """Evidence that good parts of ``camera`` drift: 0 none, 1 the alarm."""
        self._drift.labels(camera).set(statistic)

    def alarms(self, standing: Collection[tuple[str, Verdict]]) -> None:
        """The alarms that stand: (camera, FAIL or FAULT)."""
        for camera in self._names:
            for kind in (Verdict.FAIL, Verdict.FAULT):
                self._alarm.labels(camera, kind.value).set((camera, kind) in standing)

    def self_test(self, camera: str, missed: bool) -> None:
        """A golden defect went through ``camera``'s path and was found, or was not."""
        self._self_tests.labels(camera, "missed" if missed else "found").inc()

    def serve(self, address: str) -> str:
        """Answer HTTP at ``HOST:PORT`` until ``close``; returns the address, port 0 resolved.

        Raises :class:`PortError`.
        """
        host, _, port = address.rpartition(":")
        try:
            self._server = _Server((host, int(port)), self._registry)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "no port has that number"
            raise PortError(f"metrics: {address}: {why}; choose another address") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()
        return f"{host}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Answer no more; may be called more than once."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def _advance(self, counter: Counter, total: int) -> None:
        with self._lock:
            new = total - self._totals.get(counter, 0)
            if new > 0:
                self._totals[counter] = total
                counter.inc(new)


@dataclass
class _Connection:
    """An open connection: since when, and whether its request has come."""

    opened_s: float
    asked: bool = False


class _Server(ThreadingWSGIServer):
    """A thread for each connection; whatever a peer does, others are answered and closing is quick.

    A connection is cut off after ``_REQUEST_S``. When ``_MOST_CONNECTIONS`` are open and another
    comes, the oldest that has sent no request is cut off: a peer that holds many connections loses
    them, and a scraper, which asks at once, is answered.
    """

    # Not left to themselves: server_close waits until they have ended.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self._open: dict[socket.socket, _Connection] = {}
        self._guard = threading.Lock()
        super().__init__(address, _Handler)
        self.set_app(_metrics_alone(registry))

    def server_bind(self) -> None:
        # HTTPServer's asks a name server for this machine's name, and waits where there is none.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            if len(self._open) >= _MOST_CONNECTIONS:
                # The dictionary has the oldest first, and min takes the first that has not asked.
                self._cut_off(min(self._open, key=lambda one: self._open[one].asked))
            self._open[request] = _Connection(time.monotonic())
        super().process_request(request, client_address)

    def note_asked(self, request: socket.socket) -> None:
        """The request of this connection is there, and will be answered."""
        with self._guard:
            if request in self._open:
                self._open[request].asked = True

    def service_actions(self) -> None:
        """Called by ``serve_forever`` several times a second."""
        before_s = time.monotonic() - _REQUEST_S
        with self._guard:
            for request in [one for one, it in self._open.items() if it.opened_s < before_s]:
                self._cut_off(request)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        with self._guard:
            for request in list(self._open):
                self._cut_off(request)
        super().server_close()

    def handle_error(self, *_request: Any) -> None:
        # A scraper that went away in the middle is no news.
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("metrics")

    def _cut_off(self, request: socket.socket) -> None:
        """Have the connection's thread find that it has ended; the thread then closes it."""
        del self._open[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    """One request of one connection."""

    server: _Server

    def handle(self) -> None:
        """Answer the request if all of it comes; too large a one is refused."""
        head = b""
        while (line := self.rfile.readline(_LARGEST_REQUEST)) not in {b"\r\n", b"\n"}:
            head += line
            if not line:
                return
            if len(head) > _LARGEST_REQUEST:
                self.requestline = self.request_version = self.command = ""
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        self.server.note_asked(self.connection)
        self.rfile.close()
        self.rfile = io.BytesIO(head + line)
        self._errors = io.StringIO()
        super().handle()
        if errors := self._errors.getvalue():
            _log.error("metrics\n%s", errors)

    def get_stderr(self) -> io.StringIO:
        """Where wsgiref writes the traceback of a scrape that failed."""
        return self._errors

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no event of the line."""


def _metrics_alone(registry: CollectorRegistry) -> Callable[[Any, Any], Iterable[bytes]]:
    """prometheus_client's application, which would answer under any path, at /metrics."""
    # Nothing leaves the machine: compressing would only cost the line its time.
    figures = make_wsgi_app(registry, disable_compression=True)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"the figures are at /metrics\n"]
        return cast(Iterable[bytes], figures(environ, start_response))

    return answer


def _possible() -> list[tuple[Verdict, Reason]]:
    judged = [(Verdict.PASS, Reason.NONE), (Verdict.FAIL, Reason.ANOMALY)]
    known = {reason for _, reason in judged}
    return judged + [(Verdict.FAULT, reason) for reason in Reason if reason not in known]


def _moment(text: str) -> float | None:
    """Seconds since the Unix epoch of an ISO 8601 time (UTC where it names no zone), or None."""
    try:
        # Python 3.10 does not read the 'Z'.
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
