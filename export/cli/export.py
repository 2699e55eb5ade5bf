"""``export``: write the bundle, once it judges as the trained model does."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.cli.arguments import add_bundle, add_sources
from export.cli.screen import STAGES, print_choices, print_remarks, progress_bars
from inspector.errors import ConfigError
from inspector.shown import plain
from inspector.tables import print_next, print_next_station


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``export``."""
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument("-o", "--output", type=Path, required=True, help="part.onnx")
    add_bundle(parser)
    parser.add_argument(
        "--reference",
        action="store_true",
        help="write the network step by step as in the paper: many times slower, for comparisons",
    )
    add_sources(parser)


def run(options: argparse.Namespace) -> int:
    """Write the bundle and say how it was checked; 0. Raises :class:`InspectorError`."""
    from export.bundle.assemble import check_output, export_bundle
    from export.bundle.describe import describe
    from export.data.dataset import open_layout
    from export.training.run import Run
    from export.training.train import load_scorer, pick_device

    run = Run(options.folder)
    facts = run.facts()
    check_output(options.output)
    if options.reference and options.precision not in {"auto", "fp32"}:
        raise ConfigError("--reference is written in fp32 only: leave --precision out")
    data = options.data or facts.data
    if data.is_dir():
        print_remarks(data)
    name = options.name or run.model_name()
    scorer = load_scorer(run, pick_device("cpu"), options.weights)
    choices: list[str] = []
    with progress_bars() as progress:
        task = progress.add_task(STAGES["proving parity"], total=None, note="")
        manifest = export_bundle(
            run,
            scorer,
            options.output,
            name=name,
            precision=options.precision,
            reference=options.reference,
            data=data,
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
            on_choice=choices.append,
        )
    if name != run.model_name():
        # A later export and the run's extensions call the model so too.
        named = run.outcome().model_copy(update={"exported_as": name})
        run.write("outcome.json", named.model_dump_json(indent=2).encode())
    print_choices(choices)
    print(plain(f"checked: {dict(describe(manifest))['checked']}"))
    print(plain(f"bundle: {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)"))
    layout = open_layout(data, facts.selection)
    tests = [layout.test] if layout.test else [folder for folder, _ in layout.kinds]
    if tests:
        print_next("inspector", "judge", options.output, tests[0])
    else:
        print_next_station(options.output)
    return 0
