"""EfficientNet-Lite up to stride 16, with the key names of the published weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn


class LiteBlock(nn.Module):
    """Inverted bottleneck without squeeze-and-excitation (EfficientNet-Lite), TF "SAME" padding."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expand != 1:
            layers["expand"] = _conv_norm(c_in, hidden, 1, 1)
        if stride == 2:
            layers["pad"] = nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2) * 2)
        layers["depthwise"] = _conv_norm(hidden, hidden, kernel, stride, groups=hidden)
        layers["project"] = _conv_norm(hidden, c_out, 1, 1, active=False)
        self.layers = nn.Sequential(layers)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``[N, C, H, W]``."""
        out = cast(Tensor, self.layers(x))
        return out + x if self.residual else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite up to stride 16, the part that CFA reads.

    ``widths``: channels at strides 2, 4, 8, 16 (first half) and 16; ``blocks``: how many blocks the
    last four of these have. Padding is that of TensorFlow's "SAME" for input sides that are
    multiples of 32.
    """

    def __init__(
        self, widths: tuple[int, int, int, int, int], blocks: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        two, four, eight, middle, sixteen = widths
        self.stem = nn.Sequential(
            OrderedDict(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=_conv_norm(3, 32, 3, 2))
        )
        self.stride_2 = LiteBlock(32, two, 3, 1, 1)
        self.stride_4 = nn.Sequential(*_stage(two, four, 3, 2, blocks[0]))
        self.stride_8 = nn.Sequential(*_stage(four, eight, 5, 2, blocks[1]))
        self.stride_16 = nn.Sequential(
            *_stage(eight, middle, 3, 2, blocks[2]), *_stage(middle, sixteen, 5, 1, blocks[3])
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float RGB ``[N, 3, H, W]``."""
        x = self.stride_4(self.stride_2(self.stem(x)))
        return cast(Tensor, self.stride_16(self.stride_8(x)))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Take the published key names (``_blocks.3._bn1.weight``) as well as our own."""
        if "_conv_stem.weight" in state_dict:
            state_dict = {
                ours: state_dict[theirs]
                for ours in self.state_dict()
                if (theirs := self._published_key(ours)) in state_dict
            }
        return super().load_state_dict(state_dict, strict, assign)

    def _published_key(self, ours: str) -> str:
        stage, _, rest = ours.partition(".")
        if stage == "stem":
            return rest.replace("conv.0.", "_conv_stem.").replace("conv.1.", "_bn0.")
        first = {"stride_2": 0, "stride_4": 1}
        first["stride_8"] = first["stride_4"] + len(self.stride_4)
        first["stride_16"] = first["stride_8"] + len(self.stride_8)
        number = first[stage]
        if stage != "stride_2":
            index, _, rest = rest.partition(".")
            number += int(index)
        _, layer, part, name = rest.split(".")
        names = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
        published = names.get(layer, ("_project_conv", "_bn2"))[int(part)]
        return f"_blocks.{number}.{published}.{name}"


def _stage(c_in: int, c_out: int, kernel: int, stride: int, blocks: int) -> Iterator[LiteBlock]:
    for number in range(blocks):
        first = number == 0
        yield LiteBlock(c_in if first else c_out, c_out, kernel, stride if first else 1, 6)


def _conv_norm(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int,
    *,
    groups: int = 1,
    active: bool = True,
) -> nn.Module:
    padding = 0 if stride == 2 else kernel // 2
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=1e-3),
    ]
    if active:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)
