"""``check``: try everything that could fail at a station's start, and name the cures."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.table import Column

from inspector import cameras
from inspector.cameras.base import BadFrameError, CameraLostError
from inspector.cameras.opencv import has_gstreamer
from inspector.cli.check_bridge import check_bridge
from inspector.cli.check_console import check_console
from inspector.cli.check_result import CheckResult, wrong, wrong_file
from inspector.cli.photo_source import camera_remarks
from inspector.config.bridge_file import fieldbus_of
from inspector.config.cameras import CameraConfig
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.config.console_file import is_console
from inspector.config.station_file import Station, load_station
from inspector.detection.detector import Detector
from inspector.errors import (
    BundleError,
    CameraError,
    ConfigError,
    Fault,
    GoldenError,
    JournalError,
    Problems,
    ProviderError,
    SecretError,
    StartupError,
)
from inspector.journal.reader import Reader
from inspector.journal.schema import FILE, BundleInForce, LimitInForce, RecipeInForce
from inspector.journal.writer import Journal
from inspector.judging.judge import Judge
from inspector.judging.judges import load
from inspector.station.metrics import Metrics
from inspector.station.recipes import choose, with_bundles, with_cure, with_limits
from inspector.tables import print_next, show, table
from inspector.wire.command_server import CommandSocket
from inspector.wire.gate import Gate
from inspector.wire.publisher import Publisher
from inspector.wire.query_server import QuerySocket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``check``."""
    parser.add_argument(
        "station", type=Path, metavar="FILE.yaml", help="of a station, bridge or page"
    )


def run(options: argparse.Namespace) -> int:
    """Print a line for each thing tried, and the next command if all is well.

    Returns 0, or the exit code of the first problem.
    """
    first = 0
    for found in check(options.station):
        # Each line is a table of its own, so that it shows before the next camera is waited for.
        line = table(Column(width=7), Column(width=12), "")
        how = "problem" if found.problem else "note" if found.is_doubt else "ok"
        line.add_row(how, found.subject, found.text)
        show(line)
        if found.problem and not first:
            first = found.problem.exit_code
    if not first:
        print_next("inspector", *_command(options.station), options.station)
    return first


def _command(path: Path) -> tuple[str, ...]:
    """The command that starts what is in a file."""
    fieldbus = fieldbus_of(path)
    if fieldbus is not None:
        return "bridge", fieldbus
    return ("console",) if is_console(path) else ("run",)


def check(path: Path) -> Iterator[CheckResult]:
    """Try what the station file at ``path`` names, in the order in which a station starts.

    File, bundles with provider and golden images, cameras, ports, journal. A problem ends only
    what depends on it; a station file that is wrong ends all.
    """
    fieldbus = fieldbus_of(path)
    if fieldbus is not None:
        yield from check_bridge(path, fieldbus)
        return
    if is_console(path):
        yield from check_console(path)
        return
    try:
        station = load_station(path)
    except (ConfigError, Problems) as refusal:
        yield from wrong_file(refusal)
        return
    yield CheckResult(
        "config",
        f"{path}: station '{station.station}', recipe '{station.recipe}', "
        f"{len(station.cameras)} camera(s)",
    )
    yield from _doubts(station)
    choice = choose(station, _in_force(station))
    if choice.question:
        yield wrong("recipe", ConfigError(f"{path}: recipe: {choice.question}"))
    elif choice.recipe != station.recipe:
        yield CheckResult("recipe", f"'{choice.recipe}' goes on: the journal has it in force")
    of_file = station
    station, other_files = with_bundles(station, _installed(station))
    yield from _describe_installed(station, of_file)
    for one, _ in other_files:
        yield CheckResult(
            "bundle",
            f"{one.camera} under recipe {one.recipe}: the file names another bundle than when one "
            f"was installed by command: that of the file will judge",
        )
    station = station.model_copy(update={"recipe": choice.recipe})
    detectors = {}
    for name, found in load(station):
        if isinstance(found, Judge):
            detectors[name] = found.detector
            yield from _describe(name, found)
        else:
            yield wrong(_subject(found), with_cure(station, name, found))
    for camera in station.cameras:
        yield from _check_camera(camera, detectors.get(camera.name))
    yield from _check_ports(station)
    yield from _check_journal(of_file)


def _in_force(station: Station) -> RecipeInForce | None:
    """What the journal has of the start before; None where there is none, or it cannot be read."""
    # What is wrong with a journal is said by the check that opens it as a station does.
    with contextlib.suppress(JournalError), Reader(station.state_folder) as reader:
        return reader.in_force(station.station)
    return None


def _installed(station: Station) -> list[BundleInForce]:
    """The bundles that were installed by command, as far as the journal can be read."""
    with contextlib.suppress(JournalError), Reader(station.state_folder) as reader:
        return reader.bundles()
    return []


def _describe_installed(station: Station, of_file: Station) -> Iterator[CheckResult]:
    for recipe, per_camera in station.recipes.items():
        for camera, found in per_camera.items():
            if station.is_installed(recipe, camera):
                yield CheckResult(
                    "bundle",
                    f"{camera} under recipe {recipe}: {found.bundle.stem[:12]} was installed by "
                    f"command, and judges in place of {of_file.recipes[recipe][camera].bundle}",
                )


def _describe(camera: str, judge: Judge) -> Iterator[CheckResult]:
    detector = judge.detector
    manifest = detector.manifest
    size = f"{manifest.geometry.width}x{manifest.geometry.height} px"
    yield CheckResult(
        "bundle",
        f"{camera}: {detector.path}: {manifest.name} {manifest.version}, {size}, "
        f"sha256 {detector.sha256[:12]}",
    )
    yield CheckResult("provider", f"{camera}: judged on {detector.provider}")
    yield CheckResult(
        "known photos",
        f"{camera}: {len(manifest.golden)} in the bundle score as recorded, within "
        f"{manifest.golden_tolerance:g}",
    )
    if judge.defect is not None:
        yield CheckResult("self-test", f"{camera}: defect '{judge.defect.name}'")


def _check_camera(config: CameraConfig, detector: Detector | None) -> Iterator[CheckResult]:
    if isinstance(config, OpenCvCamera) and config.source_kind == "pipeline":
        has = "has" if has_gstreamer() else "has not"
        yield CheckResult("camera", f"{config.name}: this OpenCV {has} GStreamer")
    for remark in camera_remarks(config):
        yield CheckResult("camera", f"{config.name}: {remark}", is_doubt=True)
    try:
        camera = cameras.create(config)
        try:
            camera.open()
            frame = camera.grab(config.timeout_ms)
        finally:
            camera.close()
    except CameraError as problem:
        yield wrong("camera", problem)
        return
    except (CameraLostError, BadFrameError) as error:
        yield wrong("camera", CameraError(f"camera {config.name}: opened, but: {error}"))
        return
    if frame is None:
        yield wrong("camera", CameraError(f"camera {config.name}: opened, but gave no frame"))
        return
    yield CheckResult("camera", f"{config.name}: {frame.image.shape[1]}x{frame.image.shape[0]} px")
    if detector is not None:
        try:
            detector.geometry.apply(frame.image)
        except Fault as fault:
            yield wrong(
                "region",
                BundleError(
                    f"camera {config.name}: {fault}; set 'region' in the recipe, or choose the "
                    f"bundle for this camera ({detector.path})"
                ),
            )
        else:
            box = detector.geometry.region
            where = f"x={box.x} y={box.y} w={box.w} h={box.h}" if box else "the whole frame"
            yield CheckResult("region", f"{config.name}: {where}")


def _check_ports(station: Station) -> Iterator[CheckResult]:
    addresses = station.sockets.addresses
    with contextlib.ExitStack() as leave:
        try:
            gate = Gate(station.security)
        except SecretError as problem:
            yield wrong("keys", problem)
            return
        leave.callback(gate.close)
        problems = []
        try:
            publisher = Publisher(addresses["verdicts"], addresses["images"], gate)
            leave.callback(publisher.close)
        except StartupError as problem:
            problems.append(problem)
        try:
            leave.callback(CommandSocket(gate, addresses["commands"]).close)
        except StartupError as problem:
            problems.append(problem)
        if station.sockets.queries is not None:
            try:
                leave.callback(QuerySocket(gate, station.sockets.queries).close)
            except StartupError as problem:
                problems.append(problem)
        if station.metrics is not None:
            metrics = Metrics(station.station, [camera.name for camera in station.cameras])
            leave.callback(metrics.close)
            try:
                addresses["metrics"] = metrics.serve(station.metrics)
            except StartupError as problem:
                problems.append(problem)
        yield from (wrong("ports", problem) for problem in problems)
        if not problems:
            keys = f"; station key {gate.public_key}" if gate.public_key else ""
            yield CheckResult("ports", f"{', '.join(addresses.values())} are free{keys}")


def _check_journal(station: Station) -> Iterator[CheckResult]:
    """Open the journal; where there is none, make one beside its place and remove it again."""
    folder = station.state_folder
    is_there = (folder / FILE).exists()
    home = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    try:
        is_stopped, limits = False, list[LimitInForce]()
        if is_there:
            with contextlib.closing(Journal(folder, station.journal.verdict_days)) as journal:
                is_stopped = journal.stop_order(station.station).since_us is not None
                limits = journal.limits(station.station)
        else:
            with tempfile.TemporaryDirectory(dir=home, prefix=".check-") as scratch:
                Journal(Path(scratch) / "journal").close()
    except StartupError as problem:
        yield wrong("journal", problem)
        return
    except OSError as error:
        yield wrong(
            "journal",
            JournalError(
                f"{folder}: cannot be made in {home}: {error.strerror}; give this user the right "
                f"to write there, or set journal.folder"
            ),
        )
        return
    free_mb = shutil.disk_usage(home).free // 2**20
    later = "" if is_there else "no journal yet, the station makes it; "
    stopped = (
        "; the station was stopped by command, and will judge after 'inspector start'"
        if is_stopped
        else ""
    )
    yield CheckResult("journal", f"{folder}: {later}{free_mb} MB free{stopped}")
    ordered, _ = with_limits(station, limits)
    for recipe, per_camera in ordered.recipes.items():
        for camera, found in per_camera.items():
            of_file = station.recipes[recipe][camera].limit_factor
            if found.limit_factor != of_file:
                yield CheckResult(
                    "journal",
                    f"{camera} under recipe {recipe}: limit_factor {found.limit_factor:g} is in "
                    f"force by command, {of_file:g} stands in the file",
                )
    reserve_mb = station.journal.reserve_mb
    if free_mb < reserve_mb and station.journal.pictures_mb:
        yield CheckResult(
            "journal",
            f"{free_mb} MB free are less than journal.reserve_mb {reserve_mb}: no picture is kept "
            f"until there is more",
            is_doubt=True,
        )


def _doubts(station: Station) -> Iterator[CheckResult]:
    """What a station file may say and somebody has probably not meant so."""
    for camera in station.cameras:
        name, deadline_ms = camera.name, camera.deadline_ms
        # Only with software triggers is this refused: else the deadline counts from the grab.
        is_default = camera.latency_ms == type(camera).model_fields["latency_ms"].default
        if camera.latency_ms >= deadline_ms and (camera.is_live or not is_default):
            why = (
                "a picture may be older than the deadline when it arrives; lower it, or raise "
                "deadline_ms"
                if camera.is_live
                else "it counts for nothing here, since a recording has no exposure; leave it out"
            )
            yield CheckResult(
                "config",
                f"{name}: latency_ms {camera.latency_ms} is no less than deadline_ms "
                f"{deadline_ms}: {why}",
                is_doubt=True,
            )
        if camera.trigger == "software" and station.stale_trigger_ms >= deadline_ms:
            yield CheckResult(
                "config",
                f"{name}: stale_trigger_ms {station.stale_trigger_ms} is no less than deadline_ms "
                f"{deadline_ms}: a trigger that arrives so late gets a picture, but no verdict in "
                f"time",
                is_doubt=True,
            )
    days, pictures = station.journal.verdict_days, station.journal.pictures_days
    if pictures > days and station.journal.pictures_mb:
        yield CheckResult(
            "config",
            f"journal.pictures_days {pictures} is more than journal.verdict_days {days}: pictures "
            "outlive the verdicts that they belong to",
            is_doubt=True,
        )


def _subject(problem: StartupError) -> str:
    if isinstance(problem, GoldenError):
        return "known photos"
    return "provider" if isinstance(problem, ProviderError) else "bundle"
