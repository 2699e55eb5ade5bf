"""Keys of a camera that fails by a script, to try what a station and its clients do then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    model_validator,
)

from inspector.config.cameras.base import CameraBase
from inspector.config.yaml_file import FrozenModel, Misplaced, Number, Whole


class Frames(FrozenModel):
    """``count`` good frames; None: for ever."""

    do: Literal["frames"]
    count: Whole | None = Field(default=None, gt=0)


class Blemish(FrozenModel):
    """``count`` frames with something wrong in them."""

    do: Literal["stale", "tear", "black", "overexposed", "blurred", "frozen"]
    count: Whole = Field(default=1, gt=0)


class RefuseOpen(FrozenModel):
    """Is gone: refuses to open ``times`` times, or for ``seconds`` after it was first missed."""

    do: Literal["refuse_open"]
    times: Whole = Field(default=1, gt=0)
    seconds: Number | None = Field(default=None, gt=0, le=3600)


class Block(FrozenModel):
    """Hangs in ``open`` or ``grab``, whatever interrupts it."""

    do: Literal["block", "block_open"]
    seconds: Number = Field(gt=0, le=3600)


class Resize(FrozenModel):
    """Gives the pictures that follow this size."""

    do: Literal["resize"]
    width: Whole = Field(gt=0, le=20_000)
    height: Whole = Field(gt=0, le=20_000)


class Die(FrozenModel):
    """Ends the process that the camera runs in."""

    do: Literal["die"]
    how: Literal["exit", "segfault"] = "exit"


class LoseOrHang(FrozenModel):
    """``lose``: is lost once. ``block_for_ever``: hangs, and stops all threads of its process."""

    do: Literal["lose", "block_for_ever"]


FaultyStep = Annotated[
    Frames | Blemish | RefuseOpen | Block | Resize | Die | LoseOrHang, Field(discriminator="do")
]


class FaultyCamera(CameraBase):
    """A camera of simulated parts, or of photos, that fails by a script."""

    camera: ClassVar[str] = "inspector.cameras.simulated.faulty:Faulty"
    memory_bytes: ClassVar[int] = 128
    """The script's position is in it, so that a camera that crashed goes on after its crash."""

    kind: Literal["faulty"]
    timeout_ms: Whole = Field(default=500, ge=50, le=60_000)
    steps: tuple[FaultyStep, ...] = Field(min_length=1, max_length=10_000)
    loop: bool = False
    path: Path | None = None
    """A folder of photos, shown in turn; None: the simulator's parts."""
    rate_hz: Number = Field(default=20.0, ge=0, le=10_000)
    seed: Whole = Field(default=0, ge=0)
    defect_rate: Number = Field(default=0.3, ge=0, le=1)

    @property
    def is_live(self) -> bool:
        """Always, since it stands for a real camera."""
        return True

    @property
    def keeps_size(self) -> bool:
        """Always, since it stands for a real camera."""
        return True

    @property
    def waits_for_judge(self) -> bool:
        """At ``rate_hz`` 0."""
        return self.rate_hz == 0

    @model_validator(mode="after")
    def _has_an_effect(self) -> FaultyCamera:
        if all(step.do == "resize" for step in self.steps):
            raise Misplaced(("steps",), "none of them gives a frame or fails; add {do: frames}")
        for number, step in enumerate(self.steps[:-1]):
            if isinstance(step, Frames) and step.count is None:
                raise Misplaced(
                    ("steps", number), "frames without a count: what follows is never reached"
                )
        return self
