"""The thread of one camera: it grabs, hands over, and opens a lost camera again."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from inspector.cameras.base import BadFrameError, Camera, CameraLostError, Frame
from inspector.config.cameras import CameraConfig
from inspector.errors import CameraError
from inspector.station.inbox import Arrival, Change, Inbox
from inspector.threads import Worker
from inspector.verdict import Reason

_POLL_S: Final = 0.1
_BACKOFF_S: Final = (0.25, 2.0)
_MOST_WANTED: Final = 1000

Viewer = Callable[[npt.NDArray[Any], int], None]
"""Gets a picture of its own, and when it was taken (µs since the Unix epoch)."""


class Grabber(Worker):
    """Grabs from one camera until it ends or ``stop``; a lost camera is opened again for ever.

    Not so a source that would begin anew and have its parts judged twice: lost, it has ended.
    With software triggers only wanted pictures are handed over: of a live camera the first that
    was exposed after its trigger, of a source that waits the next one.
    """

    def __init__(
        self, config: CameraConfig, camera: Camera, inbox: Inbox, room: Callable[[], bool]
    ) -> None:
        super().__init__(f"grab-{config.name}")
        self.config = config
        self._camera = camera
        self._inbox = inbox
        self._room = room
        self._waits = config.waits_for_judge
        self._on_demand = config.trigger == "software" and config.is_replay
        """A picture is drawn for each trigger; else the camera runs, and one is picked out."""
        self._wanted: collections.deque[int] = collections.deque(maxlen=_MOST_WANTED)
        self._stopping = threading.Event()
        self._paused = False
        self._only_shown = False
        self._begin_anew = False
        self._viewers: collections.deque[Viewer] = collections.deque()

    def pause(self, paused: bool) -> None:
        """Have a source that waits for the judge wait on; others run on, as a line does."""
        self._paused = paused
        self._inbox.wake()

    def only_show(self, shown: bool) -> None:
        """Hand no picture over while ``shown``: there is no model, but somebody may look.

        A recording is then shown over and over, a picture whenever somebody looks, and its parts
        begin with its first picture afterwards. Any thread may call.
        """
        if self._only_shown and not shown and self.config.is_replay:
            self._begin_anew = True
        self._only_shown = shown
        self._inbox.wake()

    def want(self, triggered_ns: int, *, accepted: bool) -> None:
        """A trigger wants a picture exposed no earlier than ``triggered_ns`` (monotonic).

        Called twice for a trigger: when it was heard, and when it was ``accepted``. A camera that
        runs on looks for the picture from the first moment, or the right one may have gone by; of
        a source that draws a picture for each trigger none is drawn for one that is refused. What
        is handed over in vain is of no part, and judged by nobody. Any thread may call.
        """
        if accepted == self._on_demand:
            self._wanted.append(triggered_ns)
            self._inbox.wake()

    def show(self, viewer: Viewer) -> None:
        """Have ``viewer`` called, in this thread, with the next picture that is grabbed.

        A source that waits for parts gives none before the next one. Any thread may call.
        """
        self._viewers.append(viewer)

    def stop(self) -> None:
        """End soon, what was grabbed is handed over first; any thread may call."""
        self._stopping.set()
        self._camera.interrupt()
        self._inbox.wake()

    def ended(self, timeout_s: float) -> bool:
        """Wait for the end; False when the camera hangs and keeps the thread."""
        if self.ident is None:
            self._camera.close()
            return True
        self.join(timeout_s)
        return not self.is_alive()

    def work(self) -> None:
        """Grab and hand over until the source ends or ``stop``."""
        name, lost, why_ended = self.config.name, False, ""
        self._inbox.put(Change(name, "running"))
        while self._my_turn():
            try:
                if self._begin_anew:
                    self._begin_anew = False
                    self._open_again()
                frame = self._camera.grab(self.config.timeout_ms)
                if frame is None and self._only_shown:
                    self._open_again()
                    continue
            except BadFrameError as error:
                if self._only_shown:
                    continue
                self._hand_over(
                    Arrival(
                        name,
                        error.part_id,
                        time.time_ns() // 1000,
                        error.exposed_ns,
                        None if self._waits else time.monotonic_ns(),
                        reason=Reason.FRAME_UNREADABLE,
                        detail=str(error),
                    )
                )
                continue
            except CameraLostError as error:
                if self._stopping.is_set():
                    break
                if not lost:
                    self._wanted.clear()
                    self._inbox.put(Change(name, "lost", str(error)))
                    if not self.config.can_go_on:
                        why_ended = str(error)
                        break
                lost = True
                self._reopen()
                continue
            if frame is None:
                break
            if lost:
                self._inbox.put(Change(name, "running"))
                lost = False
            # What was drawn while there was no model is no part.
            if self._only_shown or self._begin_anew:
                if self._viewers:
                    self._show(frame)
                continue
            self._hand_over(
                Arrival(
                    name,
                    frame.part_id,
                    frame.grabbed_us,
                    frame.exposed_ns,
                    None if self._waits else time.monotonic_ns(),
                    frame,
                )
            )
            # After the judge has it, for which nobody who only looks may delay it.
            if self._viewers:
                self._show(frame)
        self._camera.close()
        self._inbox.put(Change(name, "ended", why_ended))

    def _show(self, frame: Frame) -> None:
        # The camera wants its memory back, and whoever looks takes its time.
        picture = np.array(frame.image)
        if frame.whole():
            while self._viewers:
                self._viewers.popleft()(picture, frame.grabbed_us)

    def _hand_over(self, arrival: Arrival) -> None:
        if self._on_demand:
            arrival = replace(arrival, exposed_ns=None)
        if self.config.trigger == "software":
            # A replay serves any waiting trigger; a live picture must have been exposed after it.
            if not self._wanted:
                return
            if arrival.exposed_ns is None:
                self._wanted.popleft()
            elif arrival.exposed_ns < self._wanted[0]:
                return
            while self._wanted and (arrival.exposed_ns or 0) >= self._wanted[0]:
                self._wanted.popleft()
        if self.config.trigger == "free" and not self._waits:
            self._inbox.put_newest(arrival)
        else:
            self._inbox.put(arrival)

    def _my_turn(self) -> bool:
        """False when it is time to end."""
        runs_on = not (self._waits or self._on_demand)
        while not self._stopping.is_set():
            seen = self._inbox.changes
            is_due = bool(self._wanted) or not self._on_demand
            is_due = is_due and not (self._paused and self._waits)
            if self._only_shown:
                is_due = bool(self._viewers)
            if runs_on or (is_due and self._inbox.is_clear(self.config.name) and self._room()):
                return True
            self._inbox.wait_for_change(seen, _POLL_S)
        return False

    def _open_again(self) -> None:
        """Begin a recording anew. Raises :class:`CameraLostError`."""
        self._camera.close()
        try:
            self._camera.open()
        except CameraError as error:
            raise CameraLostError(str(error)) from None

    def _reopen(self) -> None:
        pause_s, longest_s = _BACKOFF_S
        self._camera.close()
        while not self._stopping.wait(pause_s):
            try:
                self._camera.open()
            except CameraError as error:
                self._camera.close()
                self._inbox.put(Change(self.config.name, "lost", str(error)))
                pause_s = min(2 * pause_s, longest_s)
                continue
            return
