"""Finished lessons are removed once nothing needs them, and never before."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from inspector.client import Commander, Viewer
from inspector.console.lessons import KEPT, forget, in_use, parents_of, version_of, write_facts
from tests import running, tiny

NOTHING: frozenset[str] = frozenset()


def write_lesson(
    folder: Path, number: int, *, station: str = "line-1", parents: Sequence[str] = ()
) -> Path:
    """A finished lesson; its digest and fingerprint are its number."""
    lesson = folder / f"20240501-0000{number:02d}"
    (lesson / "run").mkdir(parents=True)
    lineage = [{"parent_version": one} for one in parents]
    facts = {"fingerprint": f"{number:08d}", "lineage": lineage}
    (lesson / "run" / "run.json").write_text(json.dumps(facts))
    (lesson / "run" / "outcome.json").write_text(json.dumps({"created": "2024-05-01T06:00:00"}))
    write_facts(lesson, station, f"{number:064d}")
    return lesson


def left(folder: Path) -> list[int]:
    return [int(one.name[-2:]) for one in sorted(folder.iterdir())]


def test_the_last_lessons_and_those_in_use_stay(tmp_path: Path) -> None:
    for number in range(1, 11):
        write_lesson(tmp_path, number)
    used = {"line-1": frozenset((f"{2:064d}", "20240501-00000003"))}
    forget(tmp_path, used, [tmp_path / "20240501-000004" / "run"])
    assert left(tmp_path) == [2, 3, 4, *range(11 - KEPT, 11)]
    # Nothing more is removed by doing it again.
    forget(tmp_path, used, [tmp_path / "20240501-000004" / "run"])
    assert left(tmp_path) == [2, 3, 4, *range(11 - KEPT, 11)]


def test_what_a_run_in_use_comes_from_stays(tmp_path: Path) -> None:
    first = write_lesson(tmp_path, 1)
    second = write_lesson(tmp_path, 2, parents=[version_of(first / "run")])
    write_lesson(tmp_path, 3, parents=[version_of(second / "run")])
    write_lesson(tmp_path, 4, parents=["20240501-99999999"])
    for number in range(5, 5 + KEPT):
        write_lesson(tmp_path, number)
    forget(tmp_path, {"line-1": frozenset((f"{3:064d}",))}, [])
    assert left(tmp_path) == [1, 2, 3, *range(5, 5 + KEPT)]
    # A run elsewhere, such as one that the page's file names, comes from lessons too.
    other = tmp_path.with_name("other")
    run = write_lesson(other, 30, parents=[version_of(second / "run")]) / "run"
    assert parents_of(run) == {version_of(second / "run")}
    forget(tmp_path, {"line-1": NOTHING}, [run])
    assert left(tmp_path) == [1, 2, *range(5, 5 + KEPT)]


def test_what_is_not_known_stays(tmp_path: Path) -> None:
    """The lessons of a station that does not answer, of earlier versions, and damaged ones."""
    for number in range(1, 9):
        write_lesson(tmp_path, number, station="line-2")
    (write_lesson(tmp_path, 9) / "lesson.json").unlink()
    (write_lesson(tmp_path, 10) / "run" / "run.json").write_text("[")
    forget(tmp_path, {"line-1": NOTHING}, [])
    assert left(tmp_path) == list(range(1, 11))
    forget(tmp_path / "nowhere", {"line-1": NOTHING}, [])


@pytest.mark.long
def test_a_station_names_what_is_in_use_and_one_step_back(tmp_path: Path) -> None:
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    bundles = [tiny.write_bundle(tmp_path / f"{n}.onnx", version=f"v{n}") for n in range(4)]
    shas = [hashlib.sha256(one.read_bytes()).hexdigest() for one in bundles]
    shutil.copy(bundles[0], tmp_path / "tiny.onnx")
    station = running.write_station(
        tmp_path / "station.yaml",
        tmp_path / "tiny.onnx",
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=20_000),
        sockets={"queries": "tcp://127.0.0.1:*"},
    )
    with running.running(station) as daemon:
        daemon.wait_for_log(r" state=Ready")
        with (
            Commander(daemon.commands, timeout_s=60) as desk,
            Viewer(daemon.queries, timeout_s=30) as viewer,
        ):
            assert {shas[0], "v0"} <= in_use(viewer)
            for bundle in bundles[1:]:
                desk.install(bundle, "r", "top")
            assert {shas[3], shas[2], "v3", "v2"} <= in_use(viewer)
            desk.revert("r", "top")
            assert {shas[2], "v2"} <= in_use(viewer)
