"""The station at work: cameras grab, one loop judges and publishes, in that order, for every part.

The caller's thread owns the books, the detectors and the verdict socket; the cameras and the
pictures have threads of their own (:mod:`inspector.workers`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inspector import cameras
from inspector.cameras.base import Camera
from inspector.config import CameraConfig, Station
from inspector.detector import Detector
from inspector.errors import CameraError, PortError, Problems, StartupError
from inspector.station import Books
from inspector.verdict import Verdict
from inspector.wire import ModelField, Publisher, State, VerdictMessage
from inspector.workers import Arrival, Change, Grabber, Inbox, Pictures, Worker

_STATUS_EVERY_S: Final = 1.0
_POLL_S: Final = 0.1
_STOP_GRACE_S: Final = 2.0

_log = logging.getLogger("inspector")


class Daemon:
    """One start of one station."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._books = Books(station, str(uuid.uuid4()))
        self._inbox = Inbox(station.queue_size)
        self._detectors: dict[str, Detector] = {}
        self._stop_asked = False

    def ask_to_stop(self) -> None:
        """Finish what was grabbed, then return from ``run``; any thread or signal handler."""
        self._stop_asked = True

    def run(self, wait_for_subscriber_s: float = 0.0) -> None:
        """Start, judge until every camera has ended or ``ask_to_stop``, and leave in order.

        Raises :class:`StartupError` (every problem together) before a part is judged.
        """
        _say("state", state=self._books.state, station=self._station.station)
        publisher, opened = self._open()
        pictures = Pictures(publisher, self._inbox)
        grabbers = [
            Grabber(config, camera, self._inbox, pictures.has_room) for config, camera in opened
        ]
        last: State = "Error"
        try:
            self._enter(publisher, "Ready")
            if wait_for_subscriber_s > 0:
                heard = publisher.wait_for_subscriber(
                    wait_for_subscriber_s, lambda: self._stop_asked
                )
                _say("subscriber" if heard else "no subscriber")
            pictures.start()
            for grabber in grabbers:
                grabber.start()
            self._enter(publisher, "ContinuousExecution")
            self._serve(publisher, pictures, grabbers)
            pictures.finish()
            _check_alive(pictures)
            last = "Halted"
        finally:
            self._stop(grabbers)
            pictures.finish()
            self._enter(publisher, last)
            publisher.close()

    def _open(self) -> tuple[Publisher, list[tuple[CameraConfig, Camera]]]:
        problems: list[StartupError] = []
        opened: list[tuple[CameraConfig, Camera]] = []
        with contextlib.ExitStack() as undo:
            publisher, unbound = None, None
            try:
                sockets = self._station.sockets
                publisher = Publisher(sockets.verdicts, sockets.images)
                undo.callback(publisher.close)
                verdicts, images = publisher.addresses
                _say("listening", verdicts=verdicts, images=images)
                publisher.send_status(self._books.status())
            except PortError as problem:
                unbound = problem
            for name, detector in load_detectors(self._station):
                if isinstance(detector, StartupError):
                    problems.append(detector)
                else:
                    self._install(name, detector)
                if publisher:
                    # Whoever connects while bundles load and cameras open sees what it waits for.
                    publisher.send_status(self._books.status())
            for config in self._station.cameras:
                try:
                    camera = cameras.create(config)
                    undo.callback(camera.close)
                    camera.open()
                    opened.append((config, camera))
                except CameraError as problem:
                    problems.append(problem)
                if publisher:
                    publisher.send_status(self._books.status())
            if unbound:
                problems.append(unbound)
            if problems or publisher is None:
                if publisher:
                    self._enter(publisher, "Error")
                raise problems[0] if len(problems) == 1 else Problems(problems)
            self._enter(publisher, "Initialized")
            undo.pop_all()
            return publisher, opened

    def _install(self, camera: str, detector: Detector) -> None:
        manifest = detector.manifest
        model = ModelField(name=manifest.name, version=manifest.version, sha256=detector.sha256)
        self._detectors[camera] = detector
        self._books.install(camera, model)
        self._books.provider = detector.provider
        _say("model", camera=camera, provider=detector.provider, **model.model_dump())

    def _serve(self, publisher: Publisher, pictures: Pictures, grabbers: list[Grabber]) -> None:
        status_due = give_up = 0.0
        while True:
            if self._stop_asked and not give_up:
                _say("stopping")
                longest_s = max(grabber.config.timeout_ms for grabber in grabbers) / 1000
                give_up = time.monotonic() + longest_s + _STOP_GRACE_S
                for grabber in grabbers:
                    grabber.stop()
            # Before the crashes are looked for: a thread that dies in between has not ended.
            over = not any(grabber.is_alive() for grabber in grabbers)
            _check_alive(pictures, *grabbers)
            item = self._inbox.take(0.0 if over else _POLL_S)
            if isinstance(item, Arrival):
                self._judge(publisher, pictures, item)
            elif isinstance(item, Change):
                self._books.note_camera(item.camera, item.state, item.detail)
                _say("camera", camera=item.camera, state=item.state, detail=item.detail)
                status_due = 0.0
            elif over or (give_up and time.monotonic() > give_up):
                return
            if time.monotonic() >= status_due:
                publisher.send_status(self._books.status())
                status_due = time.monotonic() + _STATUS_EVERY_S

    def _judge(self, publisher: Publisher, pictures: Pictures, arrival: Arrival) -> None:
        part = arrival.part
        if arrival.image is None:
            self._publish(publisher, self._books.fault(part, arrival.reason, arrival.detail))
            return
        started_ns = time.monotonic_ns()
        detector = self._detectors[part.camera]
        judgement = detector.judge(arrival.image)
        self._books.note_inference(part.camera, detector.health())
        verdict = self._books.judged(part, judgement, started_ns)
        self._publish(publisher, verdict)
        header = self._books.heatmap(verdict, judgement)
        if header and judgement.anomaly_map is not None and judgement.judged is not None:
            pictures.show(header, judgement.anomaly_map, judgement.judged)

    def _publish(self, publisher: Publisher, verdict: VerdictMessage) -> None:
        """The one way out for a verdict: what must happen before it is published goes here."""
        publisher.send_verdict(verdict)
        if verdict.verdict is Verdict.FAULT:
            _say(
                "fault",
                logging.WARNING,
                seq=verdict.seq,
                camera=verdict.camera,
                part=verdict.part_id,
                reason=verdict.reason,
                detail=verdict.detail,
            )

    def _enter(self, publisher: Publisher, state: State) -> None:
        self._books.enter(state)
        status = self._books.status()
        publisher.send_status(status)
        tally: dict[str, int] = {}
        if state == "Halted":
            tally = {"passed": status.passed, "failed": status.failed, "faults": status.faults}
        _say("state", state=state, last_seq=status.last_seq, **tally)

    def _stop(self, grabbers: list[Grabber]) -> None:
        for grabber in grabbers:
            grabber.stop()
            if not grabber.ended(_STOP_GRACE_S):
                _say("camera hangs", logging.ERROR, camera=grabber.config.name)


def run(
    station: Station, wait_for_subscriber_s: float = 0.0, stop_on_stdin_eof: bool = False
) -> None:
    """Run a station in this process until its cameras end or SIGTERM/SIGINT.

    The first signal judges and publishes what was grabbed; a second one leaves at once. With
    ``stop_on_stdin_eof`` the end of standard input is a first signal: a station that a program
    started does not outlive it. Raises :class:`StartupError`.
    """
    daemon = Daemon(station)
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        daemon.ask_to_stop()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    if stop_on_stdin_eof:
        threading.Thread(target=_stop_at_eof, args=(daemon,), daemon=True).start()
    try:
        daemon.run(wait_for_subscriber_s)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load_detectors(station: Station) -> Iterator[tuple[str, Detector | StartupError]]:
    """A detector for every camera of the recipe in force, or why there is none.

    Cameras with the same bundle share its session.
    """
    loaded: dict[Path, Detector | StartupError] = {}
    for camera in station.cameras:
        recipe = station.active(camera.name)
        path = recipe.bundle.resolve()
        try:
            if path not in loaded:
                loaded[path] = Detector.load(recipe.bundle, station.provider, station.threads)
            detector = loaded[path]
            if isinstance(detector, Detector):
                yield camera.name, detector.adapted(recipe.region, recipe.limit_factor)
        except StartupError as problem:
            # Remembered, so that a bundle two cameras share is tried and reported once.
            loaded.setdefault(path, problem)
            yield camera.name, problem


def _check_alive(*workers: Worker) -> None:
    for worker in workers:
        if worker.crashed:
            raise RuntimeError(f"thread {worker.name} crashed; its error stands above")


def _stop_at_eof(daemon: Daemon) -> None:
    # Not sys.stdin: its lock would be held while the interpreter shuts down.
    while os.read(0, 1024):
        pass
    daemon.ask_to_stop()


def _say(event: str, level: int = logging.INFO, **fields: object) -> None:
    shown = (f" {key}={_quoted(str(value))}" for key, value in fields.items() if value != "")
    _log.log(level, "%s%s", event, "".join(shown))


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[\s"=]', value) else value
