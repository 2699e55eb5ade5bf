"""A camera that fails by a script, to try what a station does then (docs/cameras.md)."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspector.cameras.base import BadFrameError, CameraLostError, Frame, HalfFrameError
from inspector.cameras.folder import list_images
from inspector.cameras.pace import Pace, now_us
from inspector.cameras.simulated import flange
from inspector.cameras.simulated.conveyor import draw, part_id
from inspector.config.cameras.faulty import (
    Blemish,
    Block,
    Die,
    FaultyCamera,
    FaultyStep,
    Frames,
    LoseOrHang,
    RefuseOpen,
    Resize,
)
from inspector.errors import CameraError
from inspector.imaging.images import read_image

# Where the script stands: int64 each.
_STEP, _COUNT, _NEXT, _DRAWN, _WIDTH, _HEIGHT, _GONE_NS, _GRABBED_US, _EXPOSED_NS, _OVER = range(10)


class Faulty:
    """Parts of the simulator or of a folder, and what the script does to them.

    ``memory``: int64, where the script stands. In memory that outlives this process the script goes
    on after a crash, as a real camera would.
    """

    def __init__(self, config: FaultyCamera, memory: npt.NDArray[np.int64] | None = None) -> None:
        self._config = config
        self._pace = Pace(config.name, config.rate_hz, config.timeout_ms)
        self._memory = np.zeros(config.memory_bytes // 8, np.int64) if memory is None else memory
        self._files: list[Path] = []

    def open(self) -> None:
        """Go on with the script, or begin it anew after its end. Raises CameraError by script."""
        memory = self._memory
        if memory[_OVER]:
            memory[:] = 0
        step = self._step()
        while isinstance(step, Resize):
            self._resize(step)
            step = self._step()
        if isinstance(step, RefuseOpen):
            self._refuse(step)
        elif isinstance(step, Block) and step.do == "block_open":
            self._advance()
            time.sleep(step.seconds)
        if self._config.path is None:
            flange.warm()
        else:
            self._files = list_images(self._config.path, self._config.name)
        self._pace.start()

    def grab(self, timeout_ms: int) -> Frame | None:
        """The next frame of the script, None after its end.

        Raises CameraLostError and BadFrameError by script; may hang, or end this process.
        """
        while not self._pace.interrupted:
            step = self._step()
            if step is None:
                self._memory[_OVER] = 1
                return None
            if isinstance(step, Frames | Blemish):
                return self._frame(step, timeout_ms)
            if isinstance(step, RefuseOpen) or step.do == "block_open":
                self._memory[_GONE_NS] = self._memory[_GONE_NS] or time.monotonic_ns()
                raise CameraLostError("the camera is gone (script)")
            if isinstance(step, Resize):
                self._resize(step)
                continue
            # The script advances first, since the step may end this process.
            self._advance()
            if isinstance(step, Block):
                time.sleep(step.seconds)
            elif isinstance(step, Die):
                _die(step.how)
            elif isinstance(step, LoseOrHang) and step.do == "lose":
                raise CameraLostError("the camera lost the connection (script)")
            else:
                _hang()
        return None

    def interrupt(self) -> None:
        """Make a waiting ``grab`` return None, unless it hangs by script."""
        self._pace.interrupt()

    def close(self) -> None:
        """Stop; the script goes on where it stands at the next ``open``."""
        self._pace.reset()

    def _step(self) -> FaultyStep | None:
        number, steps = int(self._memory[_STEP]), self._config.steps
        if self._config.loop:
            number %= len(steps)
        return steps[number] if number < len(steps) else None

    def _advance(self) -> None:
        self._memory[_STEP] += 1
        self._memory[_COUNT] = self._memory[_GONE_NS] = 0

    def _counted(self, count: int | None) -> None:
        self._memory[_COUNT] += 1
        if self._memory[_COUNT] == count:
            self._advance()

    def _resize(self, step: Resize) -> None:
        self._memory[_WIDTH], self._memory[_HEIGHT] = step.width, step.height
        self._advance()

    def _refuse(self, step: RefuseOpen) -> None:
        now_ns = time.monotonic_ns()
        if step.seconds is None:
            self._counted(step.times)
        else:
            gone_ns = self._memory[_GONE_NS] = self._memory[_GONE_NS] or now_ns
            if now_ns - gone_ns >= step.seconds * 1e9:
                self._advance()
                return
        raise CameraError(f"camera {self._config.name}: refuses to open (script)")

    def _frame(self, step: Frames | Blemish, timeout_ms: int) -> Frame | None:
        if not self._pace.wait(timeout_ms):
            return None
        memory, is_new = self._memory, step.do != "stale"
        self._counted(step.count)
        if is_new:
            memory[_EXPOSED_NS] = time.monotonic_ns()
            if step.do != "frozen":
                memory[_DRAWN] = memory[_NEXT]
            memory[_NEXT] += 1
        image = self._picture(step.do)
        if is_new:
            memory[_GRABBED_US] = now_us()
        called = part_id(max(int(memory[_NEXT]) - 1, 0))
        frame = Frame(image, int(memory[_GRABBED_US]), called, int(memory[_EXPOSED_NS]))
        if step.do == "tear":
            raise HalfFrameError(frame)
        return frame

    def _picture(self, do: str) -> npt.NDArray[Any]:
        image = self._part(int(self._memory[_DRAWN]))
        if do == "black":
            image = image // 50
        elif do == "overexposed":
            image = np.asarray(cv2.convertScaleAbs(image, alpha=8))
        elif do == "blurred":
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), 6))
        if self._memory[_WIDTH]:
            size = int(self._memory[_WIDTH]), int(self._memory[_HEIGHT])
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        return image

    def _part(self, index: int) -> npt.NDArray[Any]:
        if self._files:
            path = self._files[index % len(self._files)]
            try:
                return read_image(path)
            except ValueError as error:
                raise BadFrameError(part_id(index), str(error), time.monotonic_ns()) from None
        return draw(self._config.seed, index, self._config.defect_rate).image


def _die(how: str) -> None:
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(1)


def _hang() -> None:
    # PyDLL keeps the interpreter's lock, as a faulty driver may.
    while True:
        ctypes.PyDLL(None).pause()
