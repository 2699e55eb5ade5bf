"""The exported model against its own backbone alone, and against the graph as the paper writes it.

    python -m benchmarks.speed.latency        # ResNet-18, WRN50-2 and EfficientNet-Lite0
    python -m benchmarks.speed.latency --backbones resnet18 --sizes 224 --rounds 200

One picture at a time through ONNX Runtime on the CPU, with the session options of a station. All
sessions of a case take turns within each round, so the ratios hold on a machine that others use.
Weights are random where the published ones are not at hand: the time does not depend on them.
Then the same with a neighbour process that never rests, and where the time goes, by node. Tables,
``results/latency.json`` and ``results/latency.png``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import onnx
import onnxruntime as ort
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.checkout import DEMO, RESULTS
from benchmarks.figures import commit, machine
from benchmarks.graphs import random_pictures, random_scorer, rounds, session, trunk
from benchmarks.speed.neighbour import busy_neighbour
from export.bundle import quantise
from export.bundle.graph import build_graph
from export.bundle.reference_graph import build_reference
from export.settings import TrainSettings
from inspector.detection import bundle
from inspector.detection.bundle import INPUT
from inspector.detection.engines import Engine, openvino
from inspector.files import write_output

mpl.use("Agg")

GOAL: Final = {"resnet18": 1.15, "wide_resnet50_2": 1.15}
LITE: Final = TrainSettings(strides=(8, 16), scales=(1.0,), size=(256, 256), bank_items=1024)
"""The case that has a goal of its own: 1.35."""


@dataclass
class Case:
    """One backbone at one size; times in ms, medians unless named otherwise."""

    backbone: str
    size: tuple[int, int]
    strides: tuple[int, ...]
    scales: tuple[float, ...]
    items: int
    weights: str
    times: dict[str, float] = field(default_factory=dict)
    slow_times: dict[str, float] = field(default_factory=dict)
    """90 % quantiles."""
    ratios: dict[str, float] = field(default_factory=dict)
    """Against the backbone alone, in fp32."""
    busy: dict[str, float] = field(default_factory=dict)
    """Fast fp32 graph with a busy neighbour, against an idle machine, by ``allow_spinning``."""
    nodes: dict[str, float] = field(default_factory=dict)
    """Share of the fast fp32 graph's time, by what the nodes are for."""
    goal: float | None = None

    @property
    def name(self) -> str:
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return (
            f"{self.backbone} {self.size[1]}x{self.size[0]}, strides {self.strides}, "
            f"scales ({scales})"
        )


def main() -> int:
    options = _options()
    cases = []
    plans = [
        TrainSettings(backbone=name, size=(size, size))
        for name in options.backbones
        for size in options.sizes
    ]
    if "efficientnet_lite0" in options.backbones:
        plans.append(LITE)
    with tempfile.TemporaryDirectory() as scratch:
        for settings in track(plans, "cases", console=Console(stderr=True)):
            cases.append(measure(settings, options, Path(scratch)))
    document = {
        "benchmark": "latency",
        "command": f"python -m benchmarks.speed.latency {' '.join(sys.argv[1:])}".strip(),
        "commit": commit(),
        "machine": machine() | {"onnxruntime": ort.__version__},
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "threads": options.threads,
        "cases": [asdict(case) for case in cases],
    }
    RESULTS.mkdir(exist_ok=True)
    write_output(RESULTS / f"{options.name}.json", json.dumps(document, indent=2) + "\n")
    _draw(cases, RESULTS / f"{options.name}.png")
    _print(cases)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--backbones",
        type=lambda text: text.split(","),
        default=["resnet18", "wide_resnet50_2", "efficientnet_lite0"],
    )
    parser.add_argument(
        "--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[224, 256]
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=0, help="0: ONNX Runtime's choice")
    parser.add_argument("--no-reference", action="store_true", help="leave out the literal graph")
    parser.add_argument("--name", default="latency", help="of the files in results")
    return parser.parse_args()


def measure(settings: TrainSettings, options: argparse.Namespace, scratch: Path) -> Case:
    """Every graph of one case, in turns."""
    scorer, weights = random_scorer(settings, scratch)
    pictures = random_pictures(settings.input, 8)
    fast = build_graph(scorer, precision="fp32")
    models = {"backbone": trunk(fast), "fp32": fast}
    models["mixed"] = build_graph(scorer, precision="mixed")
    if not options.no_reference:
        models["reference"] = build_reference(scorer)
    eight = quantise.quantise(build_graph(scorer, precision="int8"), pictures)
    models |= {"int8 backbone": trunk(eight), "int8": eight}
    sessions: dict[str, Any] = {
        name: session(model, options.threads) for name, model in models.items()
    }
    if not openvino.missing():
        sessions["int8, OpenVINO"] = OpenVino(eight, settings.input, options.threads)
    found = rounds(sessions, pictures[0], options.rounds)
    case = Case(
        settings.backbone,
        settings.input,
        settings.strides,
        settings.scales,
        settings.items,
        weights,
    )
    case.goal = 1.35 if settings == LITE else GOAL.get(settings.backbone)
    case.times = {name: float(np.median(values)) for name, values in found.items()}
    case.slow_times = {name: float(np.quantile(values, 0.9)) for name, values in found.items()}
    case.ratios = {name: value / case.times["backbone"] for name, value in case.times.items()}
    case.busy = _with_neighbour(fast, pictures[0], options)
    case.nodes = _by_node(fast, pictures[0], options.threads, scratch)
    return case


class OpenVino:
    """As a station makes it, called like a session of ONNX Runtime."""

    def __init__(self, model: onnx.ModelProto, size: tuple[int, int], threads: int) -> None:
        given = bundle.read(DEMO)
        geometry = given.manifest.geometry.model_copy(
            update={"height": size[0], "width": size[1], "region": None, "frame": None}
        )
        manifest = given.manifest.model_copy(update={"geometry": geometry})
        self._backend = openvino.OpenVinoBackend(Engine(provider="openvino", threads=threads))
        self._backend.load(replace(given, data=model.SerializeToString(), manifest=manifest))

    def run(self, _: None, feed: dict[str, Any]) -> Any:
        return self._backend.infer(feed[INPUT])


def _with_neighbour(
    model: onnx.ModelProto, picture: Any, options: argparse.Namespace
) -> dict[str, float]:
    sessions = {
        f"spinning {value}": session(model, options.threads, allow_spinning=value)
        for value in ("0", "1")
    }
    idle: dict[str, list[float]] = {name: [] for name in sessions}
    busy: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(4):
        for name, times in rounds(sessions, picture, max(5, options.rounds // 8)).items():
            idle[name] += times
        with busy_neighbour():
            for name, times in rounds(sessions, picture, max(5, options.rounds // 8)).items():
                busy[name] += times
    return {name: float(np.median(busy[name]) / np.median(idle[name])) for name in sessions}


def _by_node(model: onnx.ModelProto, picture: Any, threads: int, scratch: Path) -> dict[str, float]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    profiled = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for _ in range(30):
        profiled.run(None, {INPUT: picture[None]})
    events = json.loads(Path(profiled.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[_purpose(event["name"])] += event["dur"]
    total = sum(spent.values())
    return {name: round(value / total, 4) for name, value in spent.most_common()}


def _purpose(node: str) -> str:
    if node.startswith(("distances/partial", "patches/split")):
        return "products with the bank"
    if node.startswith(("groups", "distances", "neighbours", "memory_bank", "patches", "softmin")):
        return "nearest items"
    if node.startswith(("map", "score", "anomaly_map")):
        return "map and score"
    if node.startswith("descriptor") or "/averaged" in node:
        return "pooling and descriptor"
    return "input" if node.removeprefix("half/").startswith("input") else "backbone"


def _print(cases: list[Case]) -> None:
    names = list(cases[0].times)
    table = Table("case", "items", *names, title="milliseconds, median (times the backbone alone)")
    for case in cases:
        shown = (f"{case.times[name]:.1f} ({case.ratios[name]:.2f})" for name in names)
        table.add_row(case.name, str(case.items), *shown)
    console = Console()
    console.print(table)
    table = Table("case", "fp32, mixed / backbone", "goal", "busy / idle", "where the time goes")
    for case in cases:
        shown = []
        for precision in ("fp32", "mixed"):
            ratio = case.ratios[precision]
            holds = "" if case.goal is None else " yes" if ratio <= case.goal else " NO"
            shown.append(f"{ratio:.3f}{holds}")
        table.add_row(
            case.name,
            ", ".join(shown),
            "" if case.goal is None else f"≤ {case.goal}",
            ", ".join(f"{name}: {value:.2f}" for name, value in case.busy.items()),
            ", ".join(f"{name} {share:.1%}" for name, share in case.nodes.items()),
        )
    console.print(table)


def _draw(cases: list[Case], path: Path) -> None:
    from matplotlib import pyplot as plt

    names = list(cases[0].times)
    figure, axes = plt.subplots(figsize=(3.5 + 1.6 * len(cases), 4.6), layout="constrained")
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        at = np.arange(len(cases)) + (i - (len(names) - 1) / 2) * width
        axes.bar(at, [case.ratios[name] for case in cases], width, label=name)
    axes.axhline(1.0, color="0.4", linewidth=0.8)
    axes.set_xticks(np.arange(len(cases)), [case.name.replace(" ", "\n", 2) for case in cases])
    axes.set_ylabel("time against the fp32 backbone alone")
    axes.set_yscale("log")
    axes.legend(ncols=len(names), fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
