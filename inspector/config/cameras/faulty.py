"""Keys of a camera that fails by a script, to try a line's behaviour with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    model_validator,
)

from inspector.config.cameras.base import CameraBase
from inspector.config.yaml_file import Frozen, Misplaced, Number, Whole


class Frames(Frozen):
    """Good frames; None: for ever."""

    do: Literal["frames"]
    count: Whole | None = Field(default=None, gt=0)


class Blemish(Frozen):
    """Frames with something wrong in them."""

    do: Literal["stale", "tear", "black", "overexposed", "blurred", "frozen"]
    count: Whole = Field(default=1, gt=0)


class RefuseOpen(Frozen):
    """Gone: refuses to open so many times, or (``seconds``) until so long after it was missed."""

    do: Literal["refuse_open"]
    times: Whole = Field(default=1, gt=0)
    seconds: Number | None = Field(default=None, gt=0, le=3600)


class Block(Frozen):
    """Hangs in ``open`` or ``grab``, deaf to everything."""

    do: Literal["block", "block_open"]
    seconds: Number = Field(gt=0, le=3600)


class Resize(Frozen):
    """From here on the pictures have this size."""

    do: Literal["resize"]
    width: Whole = Field(gt=0, le=20_000)
    height: Whole = Field(gt=0, le=20_000)


class Die(Frozen):
    """Takes the process that it runs in down."""

    do: Literal["die"]
    how: Literal["exit", "segfault"] = "exit"


class LoseOrHang(Frozen):
    """Is lost once; or hangs for ever and lets no other thread of its process run."""

    do: Literal["lose", "block_for_ever"]


FaultyStep = Annotated[
    Frames | Blemish | RefuseOpen | Block | Resize | Die | LoseOrHang, Field(discriminator="do")
]


class FaultyCamera(CameraBase):
    """The simulator's conveyor, or photos, before a camera that fails by a script."""

    camera: ClassVar[str] = "inspector.cameras.simulated.faulty:Faulty"
    memory_bytes: ClassVar[int] = 128
    """Where the script stands, so that a camera that crashed goes on after its crash."""

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
        """Always: it stands for a camera."""
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
