"""A network of one's own as backbone: an ONNX file whose outputs are feature maps."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, version_converter
from torch import Tensor

from inspector.detection.bundle import OPSET, find_foreign, find_not_finite
from inspector.detection.engines.base import one_line
from inspector.detection.engines.onnxruntime import ORT_ERRORS, missing
from inspector.errors import WeightsError
from inspector.imaging.geometry import STRIDE
from inspector.shown import plain

OLDEST_OPSET: Final = 13

IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of RGB in 0..1 that a file expects unless its metadata differ."""

_ANY_SHAPE: Final = {"NonZero", "Unique", "Compress", "NonMaxSuppression", "StringNormalizer"}
"""Operators whose results have a shape that depends on the picture."""
_RANDOM: Final = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_OUTPUT: Final = re.compile(r"stride_([1-9]\d{0,2})")
_SAME: Final = 1e-3
"""Largest difference of a picture's map, alone and in a batch, in units of the map's spread."""


class NetworkFile:
    """The network of an ONNX file: normalised RGB ``[N, 3, H, W]`` → ``"stride_8"``: a map.

    The maps of ``strides``, ``[N, C, H/s, W/s]`` each, come from the file's outputs of these names.
    ``model`` is the part of the graph that gives them, in the opset of a bundle; ``channels`` has
    C by stride; ``sides`` is H, W if the file takes pictures of one size only, else None.
    ``normalisation`` is mean and standard deviation of RGB in 0..1, from the entries ``mean`` and
    ``std`` of the file's metadata, else ImageNet's.

    Raises :class:`WeightsError` for a file that cannot be a backbone.
    """

    def __init__(self, path: Path, strides: Sequence[int], scales: Sequence[float]) -> None:
        self.path = path
        self.strides, self.scales = tuple(strides), tuple(scales)
        try:
            data = path.read_bytes()
        except OSError as error:
            cause = "no such" if isinstance(error, FileNotFoundError) else "cannot read the"
            raise self._refused(
                f"{cause} network file", "give its place with --backbone, for a run with --weights"
            ) from None
        self.sha256 = hashlib.sha256(data).hexdigest()
        model = self._parse(data)
        self.normalisation = self._normalisation(model)
        self._input, self.sides = self._check_input(model.graph)
        self._names = self._find_outputs(model.graph)
        self.model = self._trim(model)
        self._session = self._open(torch.device("cpu"))
        self.channels = self._probe()

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """Float32 maps of ``pictures`` by name, on the device of ``pictures``."""
        found = self._run(pictures.cpu().numpy())
        height, width = pictures.shape[2:]
        for stride, values in zip(self.strides, found, strict=True):
            expected = (len(pictures), self.channels[stride], height // stride, width // stride)
            if values.shape != expected:
                raise self._wrong_shape(stride, values.shape, (height, width))
        return {
            name: torch.from_numpy(values).to(pictures.device)
            for name, values in zip(self._names, found, strict=True)
        }

    def to(self, device: torch.device) -> NetworkFile:
        """Compute on ``device``, as far as ONNX Runtime finds it too, else on the CPU."""
        self._session = self._open(device)
        return self

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise :class:`WeightsError` unless the network takes pictures of ``size``, H and W."""
        shown = f"{size[0]}x{size[1]}"
        if self.sides is not None and self.sides != size:
            only = f"{self.sides[0]}x{self.sides[1]}"
            raise self._refused(f"takes pictures of {only} px, not {shown}", f"give --size {only}")
        step = self._step
        if any(side % step for side in size):
            near = "x".join(str(max(step, side // step * step)) for side in size)
            raise self._refused(
                f"strides {', '.join(map(str, self.strides))} do not divide pictures of {shown} px",
                f"their sides must be multiples of {step}: give --size {near}",
            )
        for scale in self.scales:
            self(torch.zeros(1, 3, *(round(side * scale) for side in size)))

    @property
    def _step(self) -> int:
        """Sides of a picture must be multiples of this, in px."""
        return math.lcm(STRIDE, *(round(s / min(self.scales)) for s in self.strides))

    def _parse(self, data: bytes) -> onnx.ModelProto:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
        except DecodeError:
            raise self._refused("not an ONNX file") from None
        if not model.graph.node or not model.opset_import:
            raise self._refused("not an ONNX file")
        if foreign := find_foreign(model):
            cure = "export it as one file without loops and branches"
            if "another file" in foreign:
                cure = "export it with its weights inside (in PyTorch: external_data=False)"
            raise self._refused(foreign, cure)
        if bad := find_not_finite(model.graph):
            raise self._refused(bad)
        for node in model.graph.node:
            if node.domain not in {"", "ai.onnx"}:
                raise self._refused(
                    f"operator {node.op_type} is of {node.domain}, not of the ONNX standard"
                )
            if node.op_type in _ANY_SHAPE:
                raise self._refused(
                    f"operator {node.op_type} gives maps whose shape depends on the picture"
                )
            if node.op_type in _RANDOM:
                raise self._refused(f"operator {node.op_type} draws random numbers")
        return self._in_our_opset(model)

    def _in_our_opset(self, model: onnx.ModelProto) -> onnx.ModelProto:
        opset = max(one.version for one in model.opset_import if one.domain in {"", "ai.onnx"})
        cure = f"export it with opset {OPSET} (in PyTorch: opset_version={OPSET}, dynamo=False)"
        if not OLDEST_OPSET <= opset <= OPSET:
            raise self._refused(
                f"opset {opset}, and a bundle takes {OLDEST_OPSET} to {OPSET}", cure
            )
        try:
            onnx.checker.check_model(model)
            return model if opset == OPSET else version_converter.convert_version(model, OPSET)
        except onnx.checker.ValidationError as error:
            raise self._refused(f"not a valid ONNX graph: {one_line(error)}") from None
        except RuntimeError as error:
            raise self._refused(
                f"opset {opset} is not converted: {one_line(error)}", cure
            ) from None

    def _normalisation(self, model: onnx.ModelProto) -> tuple[tuple[float, ...], tuple[float, ...]]:
        props = {entry.key: entry.value for entry in model.metadata_props}
        found = []
        for key, usual in zip(("mean", "std"), IMAGENET, strict=True):
            values: tuple[float, ...] = usual
            if key in props:
                try:
                    values = tuple(float(one) for one in props[key].split(","))
                except ValueError:
                    values = ()
            if len(values) != 3 or not np.isfinite(values).all() or (key == "std" and 0 in values):
                raise self._refused(
                    f"its metadata say {key} = {props[key]!r}",
                    "expected three numbers for red, green and blue in 0..1: 0.5,0.5,0.5",
                )
            found.append(values)
        return found[0], found[1]

    def _check_input(self, graph: onnx.GraphProto) -> tuple[str, tuple[int, int] | None]:
        """Name of the input, and its H, W where the file fixes them."""
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in constants]
        wanted = "one input is expected, float32 RGB [N, 3, H, W]"
        if len(inputs) != 1:
            raise self._refused(
                f"has inputs {', '.join(value.name for value in inputs) or 'none'}", wanted
            )
        tensor = inputs[0].type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        name = inputs[0].name
        if tensor.elem_type != TensorProto.FLOAT or len(dims) != 4 or dims[1] not in {3, None}:
            raise self._refused(f"input {name} is not float32 [N, 3, H, W]", wanted)
        if dims[0] is not None:
            raise self._refused(
                f"takes {dims[0]} picture{'s' if dims[0] != 1 else ''} at a time only",
                "export it with a free first axis (in PyTorch: dynamic_axes)",
            )
        height, width = dims[2:]
        if height is None and width is None:
            return name, None
        if height is None or width is None:
            raise self._refused("one side of its pictures is fixed and one is free", "fix both")
        if height % STRIDE or width % STRIDE:
            raise self._refused(
                f"takes pictures of {height}x{width} px",
                f"sides must be multiples of {STRIDE}: export it for another size",
            )
        if self.scales != (1.0,):
            raise self._refused(
                f"takes pictures of {height}x{width} px only, so it sees no half picture",
                "give --scales 1, or export it with free sides",
            )
        return name, (height, width)

    def _find_outputs(self, graph: onnx.GraphProto) -> tuple[str, ...]:
        outputs = {value.name: value.type.tensor_type for value in graph.output}
        there = sorted(int(m[1]) for name in outputs if (m := _OUTPUT.fullmatch(name)))
        if not there:
            raise self._refused(
                f"no output is a feature map; it has {', '.join(outputs)}",
                "name its maps by their strides: stride_8, stride_16",
            )
        for stride in self.strides:
            if stride not in there:
                has = ", ".join(f"stride_{one}" for one in there)
                raise self._refused(
                    f"no output stride_{stride}; it has {has}",
                    f"give --strides {','.join(map(str, there))}",
                )
            name = f"stride_{stride}"
            if outputs[name].elem_type != TensorProto.FLOAT:
                raise self._refused(f"output {name} is not float32")
            if outputs[name].HasField("shape") and len(outputs[name].shape.dim) != 4:
                raise self._refused(
                    f"output {name} has {len(outputs[name].shape.dim)} axes",
                    "a map has four: [N, C, H/stride, W/stride]",
                )
        return tuple(f"stride_{stride}" for stride in self.strides)

    def _trim(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The part that the maps depend on: a classifier's head stays out of the bundle."""
        makers = {output: node for node in model.graph.node for output in node.output}
        needed, left = set(), list(self._names)
        while left:
            name = left.pop()
            if name not in needed:
                needed.add(name)
                left += makers[name].input if name in makers else ()
        trimmed = onnx.ModelProto()
        trimmed.CopyFrom(model)
        graph = trimmed.graph
        kept = [node for node in graph.node if needed.intersection(node.output)]
        constants = [tensor for tensor in graph.initializer if tensor.name in needed]
        outputs = {value.name: value for value in graph.output}
        del graph.node[:], graph.initializer[:], graph.output[:], graph.value_info[:]
        graph.node.extend(kept)
        graph.initializer.extend(constants)
        graph.output.extend(outputs[name] for name in self._names)
        return trimmed

    def _probe(self) -> dict[int, int]:
        """C by stride, found on noise: what shapes and operators promise is not always true."""
        step = max(self._step, 64)
        height, width = self.sides or (step, 2 * step)
        noise = np.random.default_rng(0).standard_normal((2, 3, height, width), dtype=np.float32)
        alone = self._run(noise[:1])
        try:
            both = self._run(noise)
        except WeightsError:
            raise self._refused(
                "takes one picture at a time only",
                "export it with a free first axis (in PyTorch: dynamic_axes)",
            ) from None
        channels = {}
        for stride, one, two in zip(self.strides, alone, both, strict=True):
            shape = one.shape
            if len(shape) != 4 or shape[2:] != (height // stride, width // stride):
                raise self._wrong_shape(stride, shape, (height, width))
            channels[stride] = int(shape[1])
            if not np.isfinite(one).all():
                raise self._refused(f"output stride_{stride} is not finite")
            # NaN must not compare as equal.
            close = two.shape[1:] == shape[1:]
            close = close and bool(np.abs(two[:1] - one).max() <= _SAME * max(one.std(), 1e-6))
            if not close:
                raise self._refused(
                    f"output stride_{stride} of a picture depends on the others in its batch",
                    "export it for inference (in PyTorch: eval())",
                )
        return channels

    def _run(self, pictures: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        try:
            found: list[Any] = self._session.run(list(self._names), {self._input: pictures})
        except ORT_ERRORS as error:
            size = f"{pictures.shape[2]}x{pictures.shape[3]}"
            raise self._refused(
                f"does not run on {len(pictures)} pictures of {size} px: {one_line(error)}",
                "export it with free sides, or for one size and with --scales 1",
            ) from None
        return found

    def _open(self, device: torch.device) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda" and not missing("cuda"):
            # TF32 keeps 10 bits of a product, and the bundle is proven against these features.
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        try:
            return ort.InferenceSession(
                self.model.SerializeToString(), options, providers=providers
            )
        except ORT_ERRORS as error:
            raise self._refused(f"ONNX Runtime does not run it: {one_line(error)}") from None

    def _wrong_shape(
        self, stride: int, shape: Sequence[int], size: tuple[int, int]
    ) -> WeightsError:
        return self._refused(
            f"output stride_{stride} has shape {list(shape)} for pictures of {size[0]}x{size[1]} "
            f"px",
            f"expected [N, C, {size[0] // stride}, {size[1] // stride}]",
        )

    def _refused(self, cause: str, cure: str = "export it again") -> WeightsError:
        return WeightsError(plain(f"{self.path}: {cause}; {cure}", 1000))


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a network but for its constants, in an order in which they can be computed."""
    return (node for node in model.graph.node if node.op_type != "Constant")


def constants_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Weights and other constants by name, be they initializers or nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            value = onnx.helper.get_attribute_value(attribute)
            if not isinstance(value, onnx.TensorProto):
                kind = np.float32 if attribute.name.startswith("value_float") else np.int64
                value = onnx.numpy_helper.from_array(np.array(value, dtype=kind))
            found[node.output[0]] = value
    return found
