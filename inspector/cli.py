"""The ``inspector`` command."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import inspector
from inspector.arguments import count, whole
from inspector.errors import InspectorError, WireError

_IMAGES_GRACE_S = 1.0
_SILENCE_S = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (inspector/errors.py lists them)."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal cannot show is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except InspectorError as error:
        for line in str(error).splitlines():
            print(f"inspector: error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone ('inspector check | head'): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace) -> int:
    from inspector import config, daemon, logs

    station = config.load_station(arguments.station)
    logs.to_stderr()
    daemon.run(station, arguments.wait_for_subscriber, arguments.stop_on_stdin_eof)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from inspector import check

    first = 0
    for finding in check.check(arguments.station):
        mark = "problem" if finding.problem else "ok"
        print(f"{mark:<8} {finding.subject:<14} {finding.text}", flush=True)
        if finding.problem and not first:
            first = finding.problem.exit_code
    return first


def _watch(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from inspector import client, remote, show, wire

    keys = remote.client_keys(arguments)
    images = arguments.images or (_images_beside(arguments.address) if arguments.save else None)
    lines = show.Lines(Console(highlight=False))
    seen, heard, until = 0, time.monotonic(), float("inf")
    pending: set[tuple[str, int]] = set()
    with client.Subscriber(arguments.address, images, arguments.station, keys=keys) as subscriber:
        while time.monotonic() < until:
            try:
                item = subscriber.receive(200)
            except WireError as error:
                # One message that is none must not blind the operator to the next.
                print(f"inspector: {error}", file=sys.stderr, flush=True)
                heard = time.monotonic()
                continue
            if item is not None:
                heard = time.monotonic()
            elif time.monotonic() > heard + _SILENCE_S:
                print(
                    f"inspector: nothing from {arguments.address} for {_SILENCE_S:.0f} s; "
                    f"is the station running{'' if keys else ', and without keys'}?",
                    file=sys.stderr,
                )
                heard = float("inf")
            if isinstance(item, client.Gap):
                lines.gap(item)
            elif isinstance(item, wire.StatusMessage):
                lines.status(item)
            elif isinstance(item, client.Heatmap):
                if arguments.save:
                    show.save_heatmap(arguments.save, item)
                pending.discard((item.message.epoch, item.message.seq))
            elif isinstance(item, wire.VerdictMessage) and seen != arguments.count:
                lines.verdict(item)
                seen += 1
                if arguments.save and item.verdict != "FAULT":
                    pending.add((item.epoch, item.seq))
            if seen == arguments.count:
                if not pending:
                    return 0
                until = min(until, time.monotonic() + _IMAGES_GRACE_S)
    return 0


def _images_beside(address: str) -> str:
    """Where pictures are when nobody says: the port after that of the verdicts."""
    from inspector.errors import ConfigError

    head, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(f"watch: where are the pictures of {address}? Give --images ADDRESS")
    return f"{head}:{int(port) + 1}"


def _demo(arguments: argparse.Namespace) -> int:
    from inspector import demo

    return demo.run(arguments.station, arguments.parts, arguments.save)


def _simulate(arguments: argparse.Namespace) -> int:
    from inspector import simulate

    simulate.write_dataset(
        arguments.out,
        good=arguments.good,
        test_good=arguments.test_good,
        defective=arguments.defective,
        seed=arguments.seed,
    )
    print(
        f"{arguments.out}: {arguments.good} good parts to train with, {arguments.test_good} good "
        f"and {arguments.defective} defective ones to test with"
    )
    return 0


def _schema(_arguments: argparse.Namespace) -> int:
    from inspector import wire

    print(wire.dump_schemas(), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    from inspector import collect, history, keys, offline, remote, status, tune

    parser = argparse.ArgumentParser(
        prog="inspector",
        description="Judges parts on a production line with a bundle made by inspector-model.",
    )
    parser.add_argument("--version", action="version", version=inspector.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a station until SIGTERM or Ctrl-C")
    run.add_argument("station", type=Path, metavar="STATION.yaml")
    run.add_argument(
        "--wait-for-subscriber",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="before the first part, wait this long for a subscriber (for replays and demos)",
    )
    run.add_argument(
        "--stop-on-stdin-eof",
        action="store_true",
        help="stop when standard input ends (for programs that start a station)",
    )
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="try everything that could fail at start")
    check.add_argument("station", type=Path, metavar="STATION.yaml")
    check.set_defaults(command=_check)

    watch = commands.add_parser("watch", help="show verdicts as they come")
    watch.add_argument("address", nargs="?", default="tcp://127.0.0.1:5555", metavar="ADDRESS")
    watch.add_argument(
        "--images", metavar="ADDRESS", help="of the pictures, for --save [ADDRESS's port + 1]"
    )
    remote.add_key_arguments(watch)
    watch.add_argument("--station", default="", help="only this station")
    watch.add_argument("--save", type=Path, metavar="DIR", help="write pictures and overlays")
    watch.add_argument("--count", type=count, metavar="N", help="end after N verdicts")
    watch.set_defaults(command=_watch)

    demo = commands.add_parser("demo", help="a station on a simulated conveyor, watched")
    demo.add_argument(
        "station", type=Path, nargs="?", default=Path("config/demo.yaml"), metavar="STATION.yaml"
    )
    demo.add_argument("--parts", type=count, metavar="N", help="end after N parts")
    demo.add_argument("--save", type=Path, default=Path("demo-output"), metavar="DIR")
    demo.set_defaults(command=_demo)

    simulate = commands.add_parser(
        "simulate", help="draw a data set of simulated parts, MVTec AD layout"
    )
    simulate.add_argument("out", type=Path, metavar="DIR")
    simulate.add_argument("--good", type=count, default=200, help="good parts to train with")
    simulate.add_argument("--test-good", type=whole, default=40, help="good parts to test with")
    simulate.add_argument("--defective", type=whole, default=60, help="defective parts")
    simulate.add_argument("--seed", type=whole, default=0)
    simulate.set_defaults(command=_simulate)

    photos = commands.add_parser("collect", help="take photos of good parts (docs/collect.md)")
    collect.add_arguments(photos)
    photos.set_defaults(command=collect.run)

    for name, words, add_arguments, command in (
        ("judge", "judge photos by a bundle, no station", offline.add_arguments, offline.run),
        ("tune", "find the fastest engine for a bundle here", tune.add_arguments, tune.run),
        ("status", "how a station stands", status.add_arguments, status.run),
        ("trigger", "have one part judged", remote.add_trigger_arguments, remote.run_trigger),
        ("recipe", "change over to another recipe", remote.add_recipe_arguments, remote.run_recipe),
        (
            "reload",
            "read the bundles again; acknowledge a missed self-test",
            remote.add_reload_arguments,
            remote.run_reload,
        ),
        (
            "replay",
            "judge kept pictures again with another bundle",
            history.add_replay_arguments,
            history.replay,
        ),
        (
            "export-verdicts",
            "write recorded verdicts as CSV or Parquet",
            history.add_export_arguments,
            history.export,
        ),
        ("keygen", "make a pair of keys", keys.add_keygen_arguments, keys.run_keygen),
        ("sign", "sign a bundle", keys.add_sign_arguments, keys.run_sign),
    ):
        made = commands.add_parser(name, help=words)
        add_arguments(made)
        made.set_defaults(command=command)

    schema = commands.add_parser("schema", help="print the messages' JSON Schema (docs/wire.md)")
    schema.set_defaults(command=_schema)
    return parser


if __name__ == "__main__":
    sys.exit(main())
