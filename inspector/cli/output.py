"""Verdicts for a person: a line each on a terminal, pictures in a folder."""

from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.text import Text

from inspector.cli.status import described, other_limit
from inspector.client import Gap, Heatmap
from inspector.files import output_errors, write_output
from inspector.imaging.heatmaps import overlay
from inspector.imaging.images import encode_jpeg
from inspector.shown import plain
from inspector.streams import LineSink, silence
from inspector.tables import Terminal
from inspector.verdict import Frame8, Verdict
from inspector.wire.messages import StatusMessage, VerdictMessage

STYLES: Final = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.FAULT: "bold yellow"}

_LONGEST_NAME: Final = 80
_ROW: Final = "{:<8} {:<8} {:<18} {:<7}{:>7} {:>7}  {:<12}"


class Screen:
    """Standard output, or with ``stderr`` standard error, for a command that never waits for it.

    A terminal may be stopped (Ctrl-S), a pipe may not be read: lines then wait in a bounded queue,
    and those that do not fit are left out and counted. A context manager; at its end lines that
    wait get a second more.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._console = Terminal(highlight=False, stderr=stderr)
        self._sink: LineSink | None = None
        try:
            self._console.file.flush()
            self._sink = LineSink(self._console.file.fileno(), self._say_missing)
        except (io.UnsupportedOperation, AttributeError):
            # What a program has put in the place of its standard output blocks nobody.
            self._sink = None

    def print(self, text: Text | str) -> None:
        """Print one line. Raises BrokenPipeError when whoever read it has ended."""
        if self._sink is None:
            self._console.print(text, soft_wrap=True)
            return
        if self._sink.broken:
            raise BrokenPipeError
        self._put(text)

    def close(self) -> bool:
        """Have what waits written, within a second; True when all of it is."""
        return self._sink is None or self._sink.close()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.close():
            # Python's own end would wait for the reader, too.
            silence(self._console.file.fileno())

    def _say_missing(self, lines: int) -> None:
        self._put(Text(f"... {lines} lines are missing here: the screen took none", "bold red"))

    def _put(self, text: Text | str) -> None:
        with self._console.capture() as captured:
            self._console.print(text, soft_wrap=True)
        if self._sink is not None:
            self._sink.put(captured.get().encode("utf-8", "backslashreplace"))


class Lines:
    """Prints a line for each verdict, for lost verdicts, and for each change of state.

    ``with_truth`` adds a column for what a simulated part really is.
    """

    def __init__(self, screen: Screen, with_truth: bool = False) -> None:
        self._screen = screen
        self._with_truth = with_truth
        self._state = self._alarm = ""
        self._begun = False

    def verdict(self, message: VerdictMessage, truth: str = "") -> None:
        """Print a verdict, and ``truth``, what the part really is."""
        if not self._begun:
            self._begun = True
            head = _ROW.format("time", "camera", "part", "verdict", "score", "latency", "reason")
            self._print(Text(head + ("  truth" if self._with_truth else ""), style="bold"))
        moment = datetime.fromtimestamp(message.judged_us / 1e6).astimezone()
        latency = (
            ""
            if message.judge_ms is None
            else f"{(message.queue_ms or 0.0) + message.judge_ms:.0f} ms"
        )
        line = Text(
            _ROW.format(
                moment.strftime("%H:%M:%S"),
                plain(message.camera),
                plain(message.part_id) or "-",
                message.verdict.value,
                "-" if message.score is None else f"{message.score:.3f}",
                latency,
                plain(
                    message.reason
                    if message.counts
                    else f"{message.purpose} {message.reason}".strip()
                ),
            )
        )
        line.highlight_words([f" {message.verdict.value} "], STYLES[message.verdict])
        if self._with_truth:
            line.append(plain(f"  {truth}"))
        if message.verdict is Verdict.FAULT:
            line.append(plain(f"  {message.detail}"), style="yellow")
        self._print(line)

    def gap(self, gap: Gap) -> None:
        """Print that verdicts did not arrive."""
        lost = f"LOST {gap.count} verdicts, {gap.first} to {gap.last}, of {gap.epoch}"
        if gap.last is None:
            lost = f"LOST perhaps: what followed verdict {gap.first - 1} of {gap.epoch}"
        self._print(Text(plain(lost), "bold red"))

    def status(self, message: StatusMessage) -> None:
        """Print the state of station and cameras, and the alarms, where they changed."""
        cameras = ", ".join(
            f"{camera.name} {described(camera)}{other_limit(camera)}" for camera in message.cameras
        )
        state = f"{message.station}: {message.state}; {cameras}"
        if message.inference:
            state += f"; inference: {message.inference}"
        if state != self._state:
            self._state = state
            self._print(Text(plain(state), style="dim"))
        if message.alarm != self._alarm:
            self._alarm = message.alarm
            words = f"ALARM {message.alarm}" if message.alarm else "the alarm is over"
            self._print(Text(plain(words), style="bold yellow"))

    def _print(self, line: Text) -> None:
        self._screen.print(line)


def save_heatmap(folder: Path, heatmap: Heatmap) -> Frame8:
    """Write NAME_map.png, NAME.jpg and NAME_overlay.jpg; returns the overlay, uint8 BGR.

    Raises :class:`OutputError`.
    """
    message = heatmap.message
    camera, part = (
        _for_a_file_name(message.camera),
        _for_a_file_name(re.sub(r"\.[^./]*$", "", message.part_id)),
    )
    name = f"{camera}_{message.seq:06d}_{part or 'part'}_{message.verdict.value}"
    picture = overlay(heatmap.picture, heatmap.map)
    write_picture(folder / f"{name}_map.png", heatmap.png)
    write_picture(folder / f"{name}.jpg", heatmap.jpeg)
    write_picture(folder / f"{name}_overlay.jpg", encode_jpeg(picture))
    return picture


def _for_a_file_name(text: str) -> str:
    # Names come from the wire, so they may hold separators, and be too long for a file system.
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)[-_LONGEST_NAME:]


def write_picture(path: Path, data: bytes) -> None:
    """Write an encoded picture; its folder is made where it is missing. Raises OutputError."""
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Not synced to the disk: on a slow one, that would keep the next verdicts waiting.
    write_output(path, data, mode=None, durable=False)
