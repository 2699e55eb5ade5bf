"""A station that has no model yet: it shows its pictures, and judges by the first one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inspector.client.commander import Commander
from inspector.client.viewer import Viewer
from inspector.errors import CommandError
from inspector.verdict import Verdict
from tests import running, tiny
from tests.station.test_install import until


def write(folder: Path, **camera: Any) -> Path:
    """A station on three photos whose bundle is not there."""
    pictures = (tiny.good_picture(), tiny.bad_picture(), tiny.good_picture())
    parts = running.write_parts(folder / "parts", *pictures)
    sockets = {"queries": "tcp://127.0.0.1:*"}
    return running.write_station(
        folder / "station.yaml",
        folder / "part.onnx",
        running.folder_camera(parts, deadline_ms=20_000, **camera),
        sockets=sockets,
    )


def judged(viewer: Viewer, wanted: int) -> Callable[[], bool]:
    return lambda: len(list(viewer.history())) >= wanted


@pytest.mark.long
def test_pictures_are_shown_until_a_model_is_installed_and_then_all_are_judged(tmp_path):
    station = write(tmp_path, loop=True, rate_hz=20)
    code, _, error = running.inspector("run", station)
    assert code == 11
    assert "--without-model" in error
    with running.running(station, "--without-model") as daemon:
        daemon.wait_for_log(r"why=model")
        with Commander(daemon.commands) as desk, Viewer(daemon.queries) as viewer:
            # More than the folder has.
            for _ in range(5):
                assert viewer.preview("top").picture
            status = desk.status()
            assert (status.state, status.last_seq) == ("Error", 0)
            assert "there is no model yet" in status.trouble
            assert status.cameras[0].model is None
            assert viewer.judging().cameras == ()
            assert viewer.judging().recipes[0].cameras[0].bundle == "part.onnx"
            for refused in (desk.start, desk.reset):
                with pytest.raises(CommandError, match="there is no model yet"):
                    refused()
            desk.limit("r", "top", 1.1)
            desk.install(tiny.write_bundle(tmp_path / "made.onnx"), "r", "top", by="Li Wei")
            until(judged(viewer, 3))
            assert desk.status().state == "ContinuousExecution"
            entries = sorted(viewer.history(), key=lambda one: one.verdict.seq)[:3]
            # From the first picture on, and none of those that were only shown.
            found = [(one.verdict.seq, one.verdict.part_id, one.verdict.verdict) for one in entries]
            ids = [one[1] for one in found]
            assert found == [
                (1, min(ids), Verdict.PASS),
                (2, sorted(ids)[1], Verdict.FAIL),
                (3, max(ids), Verdict.PASS),
            ]
            assert entries[0].verdict.limit_factor == 1.1
    # What was installed is enough from now on.
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=ContinuousExecution")


def test_a_trigger_makes_no_part_before_there_is_a_model(tmp_path):
    station = write(tmp_path, loop=True, trigger="software")
    with running.running(station, "--without-model") as daemon:
        daemon.wait_for_log(r"why=model")
        with Commander(daemon.commands) as desk, Viewer(daemon.queries) as viewer:
            with pytest.raises(CommandError, match="without a model yet"):
                desk.trigger("top", 1, "p1")
            # Nobody could take photos of a camera that shows nothing without triggers.
            assert viewer.preview("top").picture
            tiny.write_bundle(tmp_path / "part.onnx")
            # As after an export on this machine.
            desk.reload()
            assert desk.status().state == "Ready"
            verdict = desk.trigger("top", 2, "p2")
            assert (verdict.verdict, verdict.seq) == (Verdict.PASS, 1)
