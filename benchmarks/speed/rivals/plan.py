"""What is timed: groups of model files, ours first, and how each is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Source:
    """A folder of models that one run of ``make.py`` leaves."""

    package: str
    model: str
    backbone: str
    size: int

    @property
    def folder(self) -> str:
        return f"{self.package}-{self.model}-{self.backbone}-{self.size}"


@dataclass(frozen=True)
class Entry:
    """A row: a model file and how it is run; ``whole`` runs the package's own path around it."""

    name: str
    source: Source
    file: str
    kind: str = "onnxruntime"
    options: tuple[tuple[str, Any], ...] = (("spinning", True),)
    whole: tuple[str, str] = ("", "")
    """Kind of worker, and its file."""


BACKBONE: Final = "backbone alone"
OURS: Final = {"fp32": "ours, fp32", "mixed": "ours, mixed", "int8": "ours, int8"}
TUNED: Final = "ours, int8, OpenVINO"
"""What `inspector tune` picks where that engine is installed and the faster one."""
CFA: Final = "anomalib CFA, OpenVINO"
PATCHCORE: Final = "anomavision PatchCore 14×14"
BLURRED: Final = f"{PATCHCORE}, blurred"
GROUPS: Final = {
    "resnet18-224": ("resnet18", 224),
    "resnet18-256": ("resnet18", 256),
    "wide_resnet50_2-224": ("wide_resnet50_2", 224),
}


def plan(group: str) -> list[Entry]:
    """Every row of a group, ours first."""
    backbone, size = GROUPS[group]
    ours = Source("ours", "cfa", backbone, size)
    entries = [_ours(BACKBONE, ours, "backbone")]
    entries += [_ours(name, ours, precision) for precision, name in OURS.items()]
    entries.append(_tuned(TUNED, ours))
    if size == 256:
        lite = Source("ours", "cfa", "efficientnet_lite0", size)
        entries += [_ours(f"{name}, EfficientNet-Lite0", lite, p) for p, name in OURS.items()]
        entries.append(_tuned(f"{TUNED}, EfficientNet-Lite0", lite))
    small = Source("anomalib", "efficientad", "small", size)
    entries += [
        *_anomalib("anomalib CFA", Source("anomalib", "cfa", backbone, size), f32=True),
        *_anomalib("anomalib PatchCore", Source("anomalib", "patchcore", backbone, size)),
        *_anomalib("anomalib EfficientAD-S", small),
        *_anomavision(PATCHCORE, Source("anomavision", "patchcore", backbone, size)),
    ]
    if backbone == "resnet18":
        for name, model in (("PaDiM", "padim"), ("EfficientAD", "efficientad")):
            source = Source("anomavision", model, backbone, size)
            entries += _anomavision(f"anomavision {name}", source)
    return entries


def _ours(name: str, source: Source, part: str) -> Entry:
    whole = ("", "") if part == "backbone" else ("ours", f"{part}-bundle.onnx")
    return Entry(name, source, f"{part}.onnx", options=(("spinning", False),), whole=whole)


def _tuned(name: str, source: Source) -> Entry:
    file, options = "int8-bundle.onnx", (("engine", "openvino"),)
    return Entry(name, source, file, "engine", options, whole=("ours", file))


def _anomalib(name: str, source: Source, *, f32: bool = False) -> list[Entry]:
    model = "weights/openvino/model.xml"
    entries = [
        Entry(f"{name}, ONNX Runtime", source, "weights/onnx/model.onnx"),
        Entry(
            *(f"{name}, OpenVINO", source, model, "openvino", (("precision", ""),)),
            whole=("anomalib", model),
        ),
    ]
    if f32:
        options = (("precision", "f32"),)
        entries.append(Entry(f"{name}, OpenVINO f32", source, model, "openvino", options))
    return entries


def _anomavision(name: str, source: Source) -> list[Entry]:
    own = ("anomavision", "model.onnx")
    return [
        Entry(name, source, "model.onnx"),
        Entry(f"{name}, blurred", source, own[1], own[0], (("frame", ""),), whole=own),
    ]
