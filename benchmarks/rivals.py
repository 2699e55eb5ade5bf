"""Our exported models against those that other packages deploy, one picture at a time, one run.

    python benchmarks/rivals.py --prepare       # environments, models, memory; then, quietly:
    python benchmarks/rivals.py                 # every group, a few minutes each
    python benchmarks/rivals.py --groups resnet18-224 --rounds 30

anomalib (CFA, PatchCore, EfficientAD-S) and anomavision (PatchCore, PaDiM, EfficientAD) are
installed from PyPI, at the versions named below, into environments of their own. These share
PyTorch and whatever else fits with the Python that runs this, and take 1 GB all the same; they and
the models are kept in ``--environments``. Backbones have random weights, as no time depends on
them; banks and statistics come from 100 pictures of the simulator. Every model runs in a process
of its own, with the options that its package sets; all of a group take turns, each time in another
order, one run untimed before those that are timed. Memory is the largest proportional set size of
such a process while it alone loads and runs the model. What cannot be had is named with the reason.
Tables, ``results/rivals.json`` and ``results/rivals.png``; groups not run keep their figures.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import random
import select
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from figures import RESULTS, commit, machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE: Final = Path(__file__).resolve().parent
GOOD_PARTS: Final = 100
WARM_UP: Final = 5
TIMED: Final = 3
"""Runs timed in a turn, after one that is not."""
REST_S: Final = 0.005
"""Before a turn: the threads of the model before it have stopped spinning."""
START_S: Final = 120.0
BUILD_S: Final = 600.0
DEFAULT: Final = "int8"
"""What an export has, unless it is asked for another one, on a CPU that gains by it (VNNI)."""

PINS: Final = {
    "anomalib": [
        ["anomalib==2.7.0", "openvino==2026.4.1", "onnx==1.23.2", "onnxscript==0.7.2"],
    ],
    # Without its web pages, which no model needs and which pin most of the rest.
    "anomavision": [
        ["--no-deps", "anomavision==3.6.2"],
        [
            *("numpy==1.26.4", "easydict==1.13", "scikit-image==0.22.0", "scikit-learn==1.3.2"),
            *("matplotlib==3.8.3", "opencv-python-headless==4.11.0.86", "onnxscript==0.7.2"),
            *("onnxruntime==1.31.1", "tqdm==4.70.1", "pyyaml==6.0.3"),
        ],
    ],
}


@dataclass(frozen=True)
class Source:
    """A folder of models that one run of ``rivals_make.py`` leaves."""

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


@dataclass
class Row:
    """Times in ms, medians; None where nothing was measured, ``note`` then says why."""

    name: str
    p50: float | None = None
    p90: float | None = None
    whole_p50: float | None = None
    to_backbone: float | None = None
    to_ours: dict[str, float] = field(default_factory=dict)
    """Times our model of the same backbone and size, by precision."""
    model_mb: float | None = None
    memory_mb: float | None = None
    map: list[int] = field(default_factory=list)
    note: str = ""


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


def main() -> int:
    options = _options()
    options.environments = options.environments.resolve()
    entries = {group: plan(group) for group in options.groups}
    lacking = prepare([entry for rows in entries.values() for entry in rows], options.environments)
    if options.prepare:
        for source, reason in lacking.items():
            print(f"not to be had: {source.folder}: {reason}")
        ready = [entry for rows in entries.values() for entry in rows]
        for entry in track(ready, "memory", console=Console(stderr=True)):
            # What does not run is told by the row that lacks it.
            with contextlib.suppress(RuntimeError):
                if entry.source not in lacking:
                    _peak_mb(entry, options.environments)
        return 0
    path = RESULTS / f"{options.name}.json"
    kept = json.loads(path.read_text())["groups"] if path.exists() else {}
    for group in options.groups:
        rows = measure(group, entries[group], lacking, options)
        compare(rows)
        kept[group] = {
            "command": f"python benchmarks/rivals.py {' '.join(sys.argv[1:])}".strip(),
            "commit": commit(),
            "machine": machine(),
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "rounds": options.rounds,
            "rows": [asdict(row) for row in rows],
        }
        Console(width=200).print(table(group, rows))
    document = {"benchmark": "rivals", "pins": PINS, "groups": kept, "goals": goals(kept)}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    draw(kept, path.with_suffix(".png"))
    found = Table("goal", "measured", "holds", title="goals")
    for goal in document["goals"]:
        holds = {None: "not measured", True: "yes", False: "NO"}[goal["holds"]]
        value = "" if goal["value"] is None else f"{goal['value']:.3f}"
        found.add_row(f"{goal['name']} ≤ {goal['limit']:g}", value, holds)
    Console(width=140).print(found)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="measure nothing")
    parser.add_argument(
        "--environments", type=Path, default=HERE.parent / ".rivals", help="folder, some GB"
    )
    parser.add_argument(
        "--groups",
        type=lambda text: text.split(","),
        default=list(GROUPS),
        help=f"of {', '.join(GROUPS)}",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--name", default="rivals", help="of the files in results")
    return parser.parse_args()


def prepare(entries: Sequence[Entry], root: Path) -> dict[Source, str]:
    """Make what is not there yet; why each source that cannot be had cannot."""
    root.mkdir(parents=True, exist_ok=True)
    _draw_photos(root)
    lacking: dict[Source, str] = {}
    sources = list(dict.fromkeys(entry.source for entry in entries))
    broken = {
        package: install(package, root)
        for package in dict.fromkeys(source.package for source in sources)
    }
    for source in track(sources, "models", console=Console(stderr=True)):
        reason = broken[source.package] or build(source, root)
        if reason:
            lacking[source] = reason
    return lacking


def _draw_photos(root: Path) -> None:
    if (root / "photos" / "test").exists():
        return
    command = [sys.executable, "-m", "inspector", "simulate", str(root / "photos")]
    counts = ["--good", str(GOOD_PARTS), "--test-good", "1", "--defective", "1", "--seed", "1"]
    subprocess.run([*command, *counts], cwd=HERE.parent, check=True, stdout=subprocess.DEVNULL)


def python_of(package: str, root: Path) -> str:
    return sys.executable if package == "ours" else str(root / package / "bin" / "python")


def install(package: str, root: Path) -> str:
    """An environment with the package's pins; why not, or empty."""
    if package == "ours":
        return ""
    folder = root / package
    done, wanted = folder / "installed", json.dumps([PINS[package], sys.executable])
    if done.exists() and done.read_text() == wanted:
        return ""
    venv.create(folder, clear=True, with_pip=True)
    # Last on the path: what a package pins itself comes before what this Python has.
    (folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages").joinpath(
        "shared.pth"
    ).write_text(sysconfig.get_paths()["purelib"] + "\n")
    for requirements in PINS[package]:
        Console(stderr=True).print(f"pip install {' '.join(requirements)}")
        ran = subprocess.run(
            [python_of(package, root), "-m", "pip", "install", "--quiet", *requirements],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            return f"pip: {last_line(ran.stderr)}"
    done.write_text(wanted)
    return ""


def build(source: Source, root: Path) -> str:
    """The source's models; why not, or empty. What is there and up to date is kept."""
    folder = root / "models" / source.folder
    made_by = hashlib.sha256((HERE / "rivals_make.py").read_bytes()).hexdigest()
    pins = json.dumps([PINS.get(source.package), made_by])
    state = commit() if source.package == "ours" else pins
    done = folder / "made"
    if not state.endswith("+") and done.exists():
        made, _, reason = done.read_text().partition("\n")
        if made == state:
            return reason
    command = [python_of(source.package, root), str(HERE / "rivals_make.py")]
    command += [source.package, source.model, source.backbone, str(source.size)]
    command += [str(root / "photos"), str(folder)]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_paths(), timeout=BUILD_S
        )
        reason = last_line(ran.stderr) if ran.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"its export took more than {BUILD_S:g} s"
    folder.mkdir(parents=True, exist_ok=True)
    done.write_text(f"{state}\n{reason}")
    return reason


def _paths() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it failed without a word"


class Worker:
    """``rivals_worker.py`` with one model. Raises :class:`RuntimeError` with its last words."""

    def __init__(self, python: str, spec: dict[str, Any], log: Path) -> None:
        self._log = log
        self.peak_mb = 0.0
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, str(HERE / "rivals_worker.py"), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_paths(),
            )

    def ready(self, *, watched: bool = False) -> dict[str, Any]:
        """Shape of the map and a note, once it has run. ``watched``: memory is followed."""
        answer: dict[str, Any] = self._answer(watched)
        return answer

    def run(self, count: int, *, watched: bool = False) -> list[float]:
        """Milliseconds of ``count`` runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{count}\n".encode())
            self._process.stdin.flush()
        answer: list[float] = self._answer(watched)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _answer(self, watched: bool) -> Any:
        pipe = self._process.stdout
        assert pipe is not None
        until = time.monotonic() + START_S
        while not select.select([pipe], [], [], REST_S if watched else START_S)[0]:
            if time.monotonic() >= until:
                raise RuntimeError(f"no answer within {START_S:g} s")
            if watched:
                self.peak_mb = max(self.peak_mb, self._memory_mb())
        line = pipe.readline()
        if not line:
            raise RuntimeError(last_line(self._log.read_text(errors="replace")))
        return json.loads(line)

    def _memory_mb(self) -> float:
        """Proportional set size; 0 when it has just ended."""
        try:
            lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def measure(
    group: str, entries: Sequence[Entry], lacking: dict[Source, str], options: argparse.Namespace
) -> list[Row]:
    """Memory of each model alone, then all of them in turns."""
    root: Path = options.environments
    rows = {entry.name: Row(entry.name) for entry in entries}
    workers: dict[tuple[str, bool], Worker] = {}
    with contextlib.ExitStack() as stack:
        for entry in track(entries, f"{group}: memory", console=Console(stderr=True)):
            row = rows[entry.name]
            if entry.source in lacking:
                row.note = lacking[entry.source]
                continue
            row.model_mb = model_mb(root / "models" / entry.source.folder / entry.file)
            try:
                row.memory_mb = _peak_mb(entry, root)
            except RuntimeError as error:
                row.note = str(error)
        for entry in entries:
            row = rows[entry.name]
            if row.note:
                continue
            for whole in (False, True) if entry.whole[0] else (False,):
                worker = start(entry, root, whole=whole)
                stack.callback(worker.close)
                try:
                    told = worker.ready()
                except RuntimeError as error:
                    row.note = f"whole path: {error}" if whole else str(error)
                    continue
                workers[entry.name, whole] = worker
                if not whole:
                    row.map, row.note = told["map"], told["note"]
        times = _rounds(workers, options.rounds, group)
    for (name, whole), found in times.items():
        if whole:
            rows[name].whole_p50 = statistics.median(found)
        else:
            rows[name].p50 = statistics.median(found)
            rows[name].p90 = statistics.quantiles(found, n=10)[-1]
    return list(rows.values())


def _rounds(
    workers: dict[tuple[str, bool], Worker], count: int, group: str
) -> dict[tuple[str, bool], list[float]]:
    found: dict[tuple[str, bool], list[float]] = {key: [] for key in workers}
    chance = random.Random(0)
    for _ in track(range(count), f"{group}: rounds", console=Console(stderr=True)):
        for key in chance.sample(list(workers), len(workers)):
            time.sleep(REST_S)
            found[key] += workers[key].run(TIMED)
    return found


def _peak_mb(entry: Entry, root: Path) -> float:
    """Measured once for each model and the options it runs with: what else runs does not matter."""
    settings = "-".join(str(value) for _, value in entry.options)
    kept = root / "models" / entry.source.folder / f"memory-{entry.kind}-{settings}"
    kept = kept.with_name(f"{kept.name}-{Path(entry.file).stem}")
    if kept.exists():
        return float(kept.read_text())
    worker = start(entry, root)
    try:
        worker.ready(watched=True)
        worker.run(2 * WARM_UP, watched=True)
    finally:
        worker.close()
    kept.write_text(str(worker.peak_mb))
    return worker.peak_mb


def start(entry: Entry, root: Path, *, whole: bool = False) -> Worker:
    """A worker that loads the entry's model; ``whole``: with its package's path around it."""
    folder = root / "models" / entry.source.folder
    kind, file = entry.whole if whole else (entry.kind, entry.file)
    spec = dict(entry.options) | {
        "kind": kind,
        "model": str(folder / file),
        "input": str(folder / "input.npy"),
        "size": [entry.source.size, entry.source.size],
        "warm_up": WARM_UP,
    }
    if whole:
        spec["frame"] = str(next(iter(sorted((root / "photos" / "train" / "good").iterdir()))))
    # One ONNX Runtime for all bare models; OpenVINO and packages' own paths in their environment.
    package = "ours" if kind == "onnxruntime" else entry.source.package
    return Worker(python_of(package, root), spec, folder / f"worker-{kind}.log")


def model_mb(file: Path) -> float:
    """Of a model with the weights beside it: those of OpenVINO, and ONNX's external data."""
    beside = [file, file.with_suffix(".bin"), file.with_name(f"{file.name}.data")]
    return sum(path.stat().st_size for path in beside if path.exists()) / 1e6


def compare(rows: Iterable[Row]) -> None:
    """Fill in the ratios; all of them against medians of the same run."""
    by_name = {row.name: row for row in rows}
    bare = by_name.get(BACKBONE, Row("")).p50
    ours = {precision: by_name.get(name, Row("")).p50 for precision, name in OURS.items()}
    for row in by_name.values():
        if row.p50 is None:
            continue
        row.to_backbone = row.p50 / bare if bare else None
        row.to_ours = {precision: row.p50 / own for precision, own in ours.items() if own}


def goals(groups: dict[str, Any]) -> list[dict[str, Any]]:
    """Each goal with its figure and whether it holds; None where a part of it was not measured."""
    found = []

    def judge(group: str, name: str, mine: str, theirs: Sequence[str], limit: float) -> None:
        if group not in groups:
            return
        p50 = {row["name"]: row["p50"] for row in groups[group]["rows"]}
        known = [p50[rival] for rival in theirs if p50.get(rival) is not None]
        own = p50.get(mine)
        value = own / min(known) if own is not None and known else None
        holds = None if value is None else value <= limit
        found.append({"name": f"{group}: {name}", "value": value, "limit": limit, "holds": holds})

    for group in GROUPS:
        fastest = (CFA, f"{CFA} f32")
        for engine, own in (("", OURS["int8"]), (" on OpenVINO", TUNED)):
            name = f"our int8{engine} / anomalib's CFA, OpenVINO at its fastest"
            judge(group, name, own, fastest, 0.125)
    first = next(iter(GROUPS))
    for precision in (DEFAULT, "fp32"):
        own = OURS[precision]
        judge(first, f"our {precision} / anomavision's PatchCore with blur", own, [BLURRED], 0.6)
        judge(first, f"our {precision} / anomavision's PatchCore, no blur", own, [PATCHCORE], 1.0)
    return found


def table(group: str, rows: Iterable[Row]) -> Table:
    out = Table(title=f"{group}: milliseconds, median")
    for title in ("model", "ms", "× backbone", "× our fp32", "× our int8", "whole path ms"):
        out.add_column(title, justify="left" if title == "model" else "right")
    for title in ("model MB", "memory MB", "map"):
        out.add_column(title, justify="right")
    out.add_column("note")
    for row in rows:
        out.add_row(*cells(row))
    return out


def cells(row: Row) -> Iterator[str]:
    """A dash for every figure that was not measured."""

    def shown(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    yield row.name
    yield shown(row.p50, 1)
    yield shown(row.to_backbone, 2)
    for precision in OURS:
        yield shown(row.to_ours.get(precision), 2)
    yield shown(row.whole_p50, 1)
    yield shown(row.model_mb, 1)
    yield shown(row.memory_mb, 0)
    yield "×".join(str(side) for side in row.map) or "–"
    yield row.note


def draw(groups: dict[str, Any], path: Path) -> None:
    """Bars of every row that has a time, a panel for each group."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {
        name: [row for row in group["rows"] if row["p50"] is not None]
        for name, group in groups.items()
    }
    shown = {name: rows for name, rows in shown.items() if rows}
    if not shown:
        return
    heights = [len(rows) for rows in shown.values()]
    figure, axes = plt.subplots(
        len(shown),
        figsize=(9, 0.8 * len(shown) + 0.24 * sum(heights)),
        layout="constrained",
        squeeze=False,
        height_ratios=heights,
    )
    for axis, (name, rows) in zip(axes[:, 0], shown.items(), strict=True):
        mine = [row["name"].startswith("ours") or row["name"] == BACKBONE for row in rows]
        colours = ["tab:orange" if own else "tab:blue" for own in mine]
        bars = axis.barh([row["name"] for row in rows], [row["p50"] for row in rows], color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize="small")
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_xlabel("ms")
        axis.set_title(name)
        axis.tick_params(axis="y", labelsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
