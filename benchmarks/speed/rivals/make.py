"""Makes one deployed model, in the environment of the package that it belongs to.

    python -m benchmarks.speed.rivals.make PACKAGE MODEL BACKBONE SIZE PHOTOS OUT

Writes what that package deploys into the folder OUT, and the picture that it is timed with as
``input.npy``. Backbones have random weights; banks and statistics are taken from the good PHOTOS;
nothing that training leaves at its shape is trained.
"""

from __future__ import annotations

import argparse
import base64
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.rivals.make", description=__doc__.splitlines()[0]
    )
    parser.add_argument("package", choices=MAKERS)
    parser.add_argument("model")
    parser.add_argument("backbone")
    parser.add_argument("size", type=int)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    shutil.rmtree(chosen.out, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    MAKERS[chosen.package](chosen.model, chosen.backbone, chosen.size, chosen.photos, chosen.out)
    return 0


def pictures(photos: Path, size: int) -> Iterator[Any]:
    """Good parts at network size, uint8 BGR ``[size, size, 3]``."""
    for path in sorted((photos / "train" / "good").iterdir()):
        yield cv2.resize(cv2.imread(str(path)), (size, size), interpolation=cv2.INTER_AREA)


def tensors(photos: Path, size: int, *, normalise: bool) -> Iterator[Any]:
    """The same, float32 RGB ``[1, 3, size, size]``, in [0, 1] or by ImageNet's mean."""
    for picture in pictures(photos, size):
        out = picture[..., ::-1].astype(np.float32) / 255.0
        if normalise:
            out = (out - np.float32(MEAN)) / np.float32(DEVIATION)
        yield np.ascontiguousarray(out.transpose(2, 0, 1)[None])


def make_ours(_model: str, backbone: str, size: int, photos: Path, folder: Path) -> None:
    """``backbone`` alone, ``fp32`` and ``int8``, the last two as bundles too."""
    import onnx

    from benchmarks.graphs import random_scorer, trunk
    from export.bundle import quantise
    from export.bundle.graph import build_graph
    from export.settings import TrainSettings

    good = list(pictures(photos, size))
    settings = TrainSettings(backbone=backbone, size=(size, size))
    scorer, _ = random_scorer(settings, folder)
    fast = build_graph(scorer, precision="fp32")
    eight = quantise.quantise(build_graph(scorer, precision="int8"), good[:32])
    onnx.save(trunk(fast), folder / "backbone.onnx")
    mixed = build_graph(scorer, precision="mixed")
    for name, graph in {"fp32": fast, "mixed": mixed, "int8": eight}.items():
        onnx.save(graph, folder / f"{name}.onnx")
        _bundle(graph, settings, good[0], folder / f"{name}-bundle.onnx")
    np.save(folder / "input.npy", good[0][None])


def _bundle(graph: Any, settings: Any, good: Any, path: Path) -> None:
    """A bundle that judges whole frames with ``graph``; the rest of its manifest is the demo's."""
    from benchmarks.checkout import DEMO
    from inspector.detection import bundle
    from inspector.files import write_whole
    from inspector.imaging.geometry import Geometry
    from inspector.imaging.images import encode_png

    demo = bundle.read(DEMO).manifest
    picture = base64.b64encode(encode_png(good)).decode()
    height, width = settings.input
    changes = {
        "geometry": Geometry(height=height, width=width),
        "cfa": demo.cfa.model_copy(update={"bank_items": settings.items}),
        "golden": (demo.golden[0].model_copy(update={"png": picture}),),
    }
    entry = graph.metadata_props.add()
    entry.key = bundle.MANIFEST_KEY
    entry.value = demo.model_copy(update=changes).model_dump_json()
    write_whole(path, bundle.seal(graph.SerializeToString()))


def make_anomalib(model: str, backbone: str, size: int, photos: Path, folder: Path) -> None:
    """Its exports to ONNX and to OpenVINO, preprocessing and normalisation inside.

    At batch 1: left dynamic, PatchCore's export is fixed at 2.
    """
    import torch
    from anomalib import models

    _random_weights()
    torch.manual_seed(0)
    kind = {"cfa": models.Cfa, "patchcore": models.Patchcore, "efficientad": models.EfficientAd}
    settings: dict[str, Any] = {"backbone": backbone, "evaluator": False, "visualizer": False}
    if model == "efficientad":
        del settings["backbone"]
    if model == "patchcore":
        settings["pre_trained"] = False
    settings["pre_processor"] = kind[model].configure_pre_processor((size, size))
    lightning = kind[model](**settings)
    net = lightning.model
    shown = (torch.from_numpy(t) for t in tensors(photos, size, normalise=True))
    with torch.no_grad():
        if model == "cfa":
            # One item for each place of the grid: training leaves it at that.
            net.initialize_centroid([SimpleNamespace(image=image) for image in shown])
        elif model == "patchcore":
            net.train()
            net.feature_extractor.eval()
            patches = torch.cat([net(image) for image in shown])
            # Its coreset takes minutes to choose; the time depends on the number kept alone.
            keep = int(lightning.coreset_sampling_ratio * len(patches))
            net.memory_bank = patches[torch.randperm(len(patches))[:keep]]
        else:
            # Its weights are only to be had from a hub; set, so that the export scales by them.
            for parameter in (*net.mean_std.values(), *net.quantiles.values()):
                parameter.copy_(torch.rand_like(parameter) + 0.5)
            net.quantiles["qb_st"] += 1.0
            net.quantiles["qb_ae"] += 1.0
    lightning.eval()
    fixed: dict[str, Any] = {"dynamic_axes": {}}
    lightning.to_onnx(folder, input_size=(size, size), **fixed)
    lightning.to_openvino(folder, input_size=(size, size), onnx_kwargs=fixed)
    np.save(folder / "input.npy", next(tensors(photos, size, normalise=False)))


def make_anomavision(model: str, backbone: str, size: int, photos: Path, folder: Path) -> None:
    """Its export to ONNX, of the model that its own ``fit`` leaves with its default settings."""
    import anomavision
    import torch
    from anomavision.export import ModelExporter

    _random_weights()
    torch.manual_seed(0)
    kind = {
        "patchcore": anomavision.PatchCore,
        "padim": anomavision.Padim,
        "efficientad": anomavision.EfficientAD,
    }[model]
    net = kind(backbone=backbone.removesuffix("_2"), device=torch.device("cpu"))
    if model == "efficientad":
        net.epochs = 1
    net.fit([torch.from_numpy(tensor) for tensor in tensors(photos, size, normalise=True)])
    net.eval()
    torch.save(net, folder / "model.pt")
    exporter = ModelExporter(folder / "model.pt", folder, logging.getLogger("export"), "cpu")
    if exporter.export_onnx(input_shape=(1, 3, size, size), dynamic_batch=False) is None:
        raise RuntimeError("its export_onnx gave no model")
    (folder / "model.pt").unlink()
    np.save(folder / "input.npy", next(tensors(photos, size, normalise=True)))


def _random_weights() -> None:
    """No hub is asked for the weights of torchvision's networks."""
    import torchvision
    from torchvision.models import _api

    def state(self: Any, *_: Any, **__: Any) -> Any:
        name = type(self).__name__.removesuffix("_Weights").lower()
        return getattr(torchvision.models, name)(weights=None).state_dict()

    _api.WeightsEnum.get_state_dict = state


MAKERS = {"ours": make_ours, "anomalib": make_anomalib, "anomavision": make_anomavision}


if __name__ == "__main__":
    sys.exit(main())
