"""A bundle that is sent to a running station: when it judges, when not, and what a restart does."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from inspector.client.commander import Commander
from inspector.client.keys import ClientKeys
from inspector.client.viewer import Viewer
from inspector.config.station_file import load_station
from inspector.detection import bundle as bundles
from inspector.detection.signing import load_signing_key
from inspector.errors import CommandError
from inspector.journal.reader import Reader
from inspector.journal.schema import BundleInForce
from inspector.station.installs import Installs
from inspector.station.recipes import with_bundles
from inspector.verdict import Verdict
from inspector.wire.keys import load_public_key
from inspector.wire.messages import InstallCommand, RevertCommand, StatusMessage
from tests import running, tiny
from tests.parties import make_keys
from tests.station.test_deeds import deeds, in_short
from tests.stations import Relay, free_ports

LESSON = {
    "created": "2024-05-01T10:00:00+00:00",
    "parts": 5,
    "fingerprint": "1" * 64,
    "parent_version": "2",
    "parent_fingerprint": "0" * 64,
    "bank_replaced": 3,
}
"""What a bundle says of good parts that it was taught, in place of one by this module."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The bundle of a version, made once."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(version: str) -> Path:
        path = folder / f"{version}.onnx"
        return path if path.exists() else tiny.write_bundle(path, version=version)

    return make


def large(path: Path, mib: int, version: str = "large") -> Path:
    """A bundle with so much in it that nothing uses."""

    def add(model: onnx.ModelProto) -> None:
        ballast = np.random.default_rng(7).random(mib << 18, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(ballast, "ballast"))

    return tiny.write_bundle(path, add, version=version)


def write(folder: Path, bundle: Path, picture: Any = None, **keys: Any) -> Path:
    """A station that is shown a good part with each trigger, with two recipes."""
    shown = tiny.good_picture() if picture is None else picture
    parts = running.write_parts(folder / "parts", shown)
    of = {"bundle": str(bundle)}
    sockets = {"queries": "tcp://127.0.0.1:*"} | keys.pop("sockets", {})
    return running.write_station(
        folder / "station.yaml",
        bundle,
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=5000),
        recipes={"r": {"top": of}, "other": {"top": of}},
        sockets=sockets,
        **keys,
    )


@contextlib.contextmanager
def working(station: Path) -> Iterator[tuple[running.Running, Commander]]:
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        with Commander(daemon.commands) as desk:
            yield daemon, desk


def names(folder: Path) -> list[str]:
    found = (folder / "journal" / "installed").glob("*")
    return sorted(path.name for path in found)


def holds(folder: Path, wanted: list[str]) -> bool:
    return names(folder) == wanted


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_force(status: StatusMessage) -> tuple[str, bool]:
    (camera,) = status.cameras
    assert camera.model is not None
    return camera.model.version, camera.installed


def sha256(path: Path) -> str:
    return bundles.read(path).sha256


def test_an_installed_bundle_judges_at_once_and_after_a_crash(tmp_path, made):
    one, two = made("1"), made("2")
    three = tiny.write_bundle(tmp_path / "three.onnx", version="3", lineage=[LESSON])
    station = write(tmp_path, one)
    heard: list[tuple[int, int]] = []
    with working(station) as (daemon, desk):
        assert in_force(desk.status()) == ("1", False)
        told = desk.install(two, "r", "top", by="Li Wei", progress=lambda *both: heard.append(both))
        assert told == f"recipe r, camera top: tiny 2, sha256 {sha256(two)[:12]}"
        size = two.stat().st_size
        assert heard == [(0, size), (size, size)]
        assert in_force(desk.status()) == ("2", True)
        judged = desk.trigger("top", 1)
        assert (judged.verdict, judged.model.sha256) == (Verdict.PASS, sha256(two))
        at = ("--address", daemon.commands)
        code, said, _ = running.inside("install", three, "--by", "Ann", *at)
        assert (code, said) == (0, f"recipe r, camera top: tiny 3, sha256 {sha256(three)[:12]}\n")
        assert "by tiny 3 that was installed by command" in " ".join(
            running.inside("status", *at)[1].split()
        )
        assert desk.install(three, "r", "top") == "this bundle is in force already"
        os.kill(daemon.child.pid, signal.SIGKILL)
    with working(station) as (daemon, desk):
        assert in_force(desk.status()) == ("3", True)
        assert desk.trigger("top", 1).model.sha256 == sha256(three)
        assert f"installed recipe=r camera=top sha256={sha256(three)} file={one}" in daemon.log
        with pytest.raises(CommandError, match="no longer in force") as refused:
            desk.revert("r", "top", sha256=sha256(two))
        assert refused.value.code == "unknown"
        code, said, _ = running.inside(
            "install", "--back", "--by", "Ann", "--address", daemon.commands
        )
        assert (code, said) == (0, f"recipe r, camera top: tiny 2, sha256 {sha256(two)[:12]}\n")
        assert desk.trigger("top", 2).model.sha256 == sha256(two)
        until(lambda: names(tmp_path) == [f"{sha256(two)}.onnx"])
        told = desk.revert("r", "top", by="Ann", sha256=sha256(two))
        assert (
            told
            == f"recipe r, camera top: tiny 1, the station file's own, sha256 {sha256(one)[:12]}"
        )
        assert in_force(desk.status()) == ("1", False)
        assert desk.trigger("top", 3).model.sha256 == sha256(one)
        with pytest.raises(CommandError, match="own bundle is in force already"):
            desk.revert("r", "top")
        assert in_short(deeds(daemon)) == [
            ("install", "Li Wei", "r/top", sha256(one), sha256(two)),
            ("install", "Ann", "r/top", sha256(two), sha256(three)),
            ("revert", "Ann", "r/top", sha256(three), sha256(two)),
            ("revert", "Ann", "r/top", sha256(two), sha256(one)),
        ]
        notes = ["tiny 1 to tiny 2", "tiny 2 to tiny 3, taught 5 good parts", "tiny 3 to tiny 2"]
        assert [deed.note for deed in deeds(daemon)][:3] == notes
        until(lambda: names(tmp_path) == [])


@pytest.mark.long
def test_what_is_refused_leaves_everything_as_it_was(tmp_path, made):
    one = made("1")
    station = write(tmp_path, one)
    good = made("2").read_bytes()
    wrong_golden = tiny.write_bundle(tmp_path / "golden.onnx", golden=[
        tiny.manifest(tiny.model())["golden"][0] | {"score": 0.9}
    ])  # fmt: skip
    other_shape = tiny.write_bundle(tmp_path / "shape.onnx", geometry={"height": 64, "width": 128})
    flipped = bytearray(good)
    flipped[1000] ^= 1
    with working(station) as (daemon, desk):
        for data, why in (
            (bytes(flipped), "checksum mismatch, the file was altered"),
            (good[:-50], "not a complete bundle"),
            (b"just a text", "a text file, not a bundle"),
            (wrong_golden.read_bytes(), "known photo 'good' (golden image) scores"),
            (other_shape.read_bytes(), "graph input has shape"),
        ):
            with pytest.raises(CommandError) as refused:
                desk.install(data, "r", "top", by="Li")
            assert refused.value.code == "failed"
            assert f"refused install: failed: {why}" in str(refused.value)
            assert "\n" not in str(refused.value)
            assert str(tmp_path) not in str(refused.value)
        for wrong in (("none", "top"), ("r", "left")):
            with pytest.raises(CommandError, match="no recipe") as refused:
                desk.install(good, *wrong)
            assert refused.value.code == "unknown"
        with pytest.raises(CommandError, match="was sent whole") as refused:
            desk.install_uploaded("0" * 64, "r", "top")
        assert refused.value.code == "unknown"
        # What came is not what was announced.
        with pytest.raises(CommandError, match=r"and 0000.* was announced") as refused:
            desk.upload("0" * 64, len(good), 0, good)
        assert refused.value.code == "failed"
        with pytest.raises(CommandError, match="must be at most 1073741824") as refused:
            desk.upload("0" * 64, 2**31, 0, good)
        assert refused.value.code == "malformed"
        assert (
            running.inside("install", tmp_path / "gone.onnx", "--address", daemon.commands)[0] == 11
        )
        assert in_force(desk.status()) == ("1", False)
        assert desk.trigger("top", 1).model.sha256 == sha256(one)
        assert deeds(daemon) == []
        # The good one was sent, and waits for the recipe that it was meant for.
        until(lambda: names(tmp_path) == [f"{sha256(made('2'))}.onnx"])


def test_a_station_that_takes_signed_bundles_takes_no_other(tmp_path, made):
    secret, public = make_keys(tmp_path / "keys", "bundle", bundle=True)
    key = load_signing_key(secret)
    first = tmp_path / "first.onnx"
    first.write_bytes(bundles.sign(bundles.read(made("1")), key))
    station = write(tmp_path, first, security={"bundle_keys": [str(public)]})
    with working(station) as (_, desk):
        with pytest.raises(
            CommandError, match="not signed, and this station takes signed"
        ) as refused:
            desk.install(made("2"), "r", "top")
        assert refused.value.code == "failed"
        assert in_force(desk.status()) == ("1", False)
        desk.install(bundles.sign(bundles.read(made("2")), key), "r", "top")
        assert in_force(desk.status()) == ("2", True)


def test_under_another_recipe_it_is_checked_and_judges_when_that_comes(tmp_path, made):
    station = write(tmp_path, made("1"))
    with working(station) as (daemon, desk):
        with pytest.raises(CommandError, match="not a complete bundle"):
            desk.install(made("2").read_bytes()[:-50], "other", "top")
        desk.install(made("2"), "other", "top", by="Li")
        assert in_force(desk.status()) == ("1", False)
        assert desk.trigger("top", 1).model.version == "1"
        desk.recipe("other")
        assert in_force(desk.status()) == ("2", True)
        assert desk.trigger("top", 2).model.version == "2"
        # Reloads read the installed one again.
        desk.reload()
        assert desk.trigger("top", 3).model.version == "2"
        found = deeds(daemon)[0]
        assert in_short([found]) == [
            ("install", "Li", "other/top", str(made("1")), sha256(made("2")))
        ]


@pytest.mark.long
def test_a_bundle_whose_first_part_cannot_be_judged_is_taken_back(tmp_path, made):
    station = write(tmp_path, made("1"), tiny.nan_picture())
    with working(station) as (daemon, desk):
        desk.install(made("2"), "r", "top", by="Li")
        assert desk.trigger("top", 1).verdict is Verdict.FAULT
        daemon.wait_for_log(r"rolled back")
        assert in_force(desk.status()) == ("1", False)
        last = deeds(daemon)[-1]
        assert in_short([last]) == [("revert", "", "r/top", sha256(made("2")), sha256(made("1")))]
        assert last.note.startswith("rolled back: ")
        until(lambda: names(tmp_path) == [])
        os.kill(daemon.child.pid, signal.SIGKILL)
    with working(station) as (_, desk):
        assert in_force(desk.status()) == ("1", False)


@pytest.mark.long
def test_a_cut_and_a_killed_station_are_waited_for(tmp_path, made):
    ports = dict(zip(("verdicts", "images", "commands"), free_ports(3), strict=True))
    station = write(tmp_path, made("1"), sockets=ports)
    bundle = large(tmp_path / "large.onnx", 6)
    size = bundle.stat().st_size
    heard: list[int] = []
    with contextlib.ExitStack() as leave:
        daemon = leave.enter_context(running.running(station))
        daemon.wait_for_log(r"state=Ready")
        relay = Relay(daemon.commands)
        leave.callback(relay.close)
        restarted: list[running.Running] = []

        def disturb(there: int, _of: int) -> None:
            heard.append(there)
            if there >= 2 << 20 and len(heard) == 3:
                relay.cut()
                threading.Timer(0.5, relay.mend).start()
            elif there >= 3 << 20 and not restarted:
                os.kill(daemon.child.pid, signal.SIGKILL)
                daemon.child.wait()
                assert [path.suffix for path in (tmp_path / "journal" / "installed").iterdir()] == [
                    ".part"
                ]
                restarted.append(leave.enter_context(running.running(station)))
                restarted[0].wait_for_log(r"state=Ready")

        desk = leave.enter_context(Commander(relay.address))
        desk.install(bundle, "r", "top", progress=disturb)
        # The cut lost nothing that was written, the kill everything: it began anew.
        falls = [at for before, at in itertools.pairwise(heard) if at < before]
        assert falls == [0]
        assert heard[-1] == size
        assert in_force(desk.status()) == ("large", True)
        assert names(tmp_path) == [f"{sha256(bundle)}.onnx"]


@pytest.mark.long
def test_triggers_do_not_wait_for_an_upload(tmp_path, made):
    station = write(tmp_path, made("1"))
    bundle = large(tmp_path / "large.onnx", 96)
    with working(station) as (daemon, plc), Commander(daemon.commands) as desk:
        took: dict[bool, list[float]] = {False: [], True: []}
        sending = threading.Thread(target=desk.install, args=(bundle, "r", "top"))
        ended = 0
        for number in range(1, 1000):
            if number == 60:
                sending.start()
            began = time.monotonic()
            judged = plc.trigger("top", number)
            took[number >= 60].append(time.monotonic() - began)
            assert judged.verdict is Verdict.PASS, judged
            time.sleep(0.02)
            if number > 60 and not sending.is_alive():
                ended += 1
                if ended == 20:
                    break
        sending.join()
        assert judged.model.version == "large"
        assert len(took[True]) > 60
        # Said only: how long it takes is the machine's and its neighbours' affair.
        for during, found in took.items():
            found.sort()
            p50, p99 = found[len(found) // 2], found[int(0.99 * len(found))]
            print(f"upload {during}: {len(found)}, p50 {1000 * p50:.1f}, p99 {1000 * p99:.1f} ms")


@pytest.mark.long
def test_a_station_file_that_names_another_bundle_counts(tmp_path, made):
    station = write(tmp_path, made("1"))
    with working(station) as (_, desk):
        desk.install(made("2"), "r", "top", by="Li")
    code, said, _ = running.inside("check", station)
    assert code == 0
    wanted = f"top under recipe r: {sha256(made('2'))[:12]} was installed by command, and judges in"
    assert wanted in " ".join(said.split())
    # Gone or altered, the start says so, and the way out.
    (installed,) = (tmp_path / "journal" / "installed").glob("*")
    installed.rename(tmp_path / "aside")
    code, _, error = running.inspector("run", station)
    assert code == 11
    assert "no such bundle" in error
    assert "give its file another name, there too" in error
    installed.write_bytes(made("3").read_bytes())
    code, said, _ = running.inside("check", station)
    assert code == 11
    assert "another bundle lies there than was installed" in " ".join(said.split())
    document = yaml.safe_load(station.read_text())
    document["recipes"]["r"]["top"]["bundle"] = str(made("3"))
    station.write_text(yaml.safe_dump(document))
    code, said, _ = running.inside("check", station)
    assert code == 0
    assert "that of the file will judge" in " ".join(said.split())
    with working(station) as (daemon, desk):
        assert in_force(desk.status()) == ("3", False)
        last = deeds(daemon)[-1]
        assert in_short([last]) == [("revert", "", "r/top", sha256(made("2")), str(made("3")))]
        assert last.note == "the station file was changed"
        until(lambda: names(tmp_path) == [])
    with working(station) as (daemon, desk):
        assert in_force(desk.status()) == ("3", False)
        assert len(deeds(daemon)) == 2


def test_what_was_installed_counts_as_long_as_the_file_names_the_same(tmp_path, made):
    station = load_station(write(tmp_path, made("1")))
    file, folder = str(made("1")), station.bundles_folder
    rows = [
        BundleInForce("line-1", "r", "top", "a" * 64, "", file),
        BundleInForce("line-1", "other", "top", "b" * 64, "", "/elsewhere.onnx"),
        BundleInForce("line-1", "r", "left", "c" * 64, "", file),
        BundleInForce("line-2", "r", "top", "d" * 64, "e" * 64, file),
    ]
    changed, overruled = with_bundles(station, rows)
    assert changed.recipes["r"]["top"].bundle == folder / f"{'a' * 64}.onnx"
    assert changed.recipes["other"]["top"].bundle == made("1")
    assert changed.is_installed("r", "top")
    assert not changed.is_installed("other", "top")
    now = BundleInForce("line-1", "other", "top", "", "", file)
    assert overruled == [(now, "b" * 64)]
    # Bundles of another station in this journal, or of a camera that may come back, stay.
    installs = Installs(station, rows)
    assert installs.named == {one * 64 for one in "abcde"}
    taken = installs.after(InstallCommand(recipe="r", camera="top", sha256="f" * 64))
    assert (taken.sha256, taken.before) == ("f" * 64, "a" * 64)
    installs.take(taken, on_probation=True)
    back = installs.after(RevertCommand(recipe="r", camera="top"))
    assert (back.sha256, back.before) == ("a" * 64, "")
    assert installs.take_back() == (taken, rows[0])
    assert installs.take_back() is None
    assert installs.now("r", "top") == rows[0]


def test_with_keys_it_takes_an_engineer_and_the_pieces_fit_encrypted(tmp_path, made):
    folder = tmp_path / "keys"
    peers = {}
    for name, roles in (("lab", ["engineer"]), ("desk", ["listen", "trigger", "operate"])):
        _, public = make_keys(folder, name)
        peers[name] = {"key": load_public_key(public).decode(), "roles": roles}
    secret, _ = make_keys(folder, "station")
    station = write(tmp_path, made("1"), security={"secret_key": str(secret), "peers": peers})
    bundle = large(tmp_path / "large.onnx", 1)

    def keys(name: str) -> ClientKeys:
        return ClientKeys.load(folder / f"{name}.secret", folder / "station.public")

    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        with (
            Commander(daemon.commands, keys=keys("lab")) as lab,
            Commander(daemon.commands, keys=keys("desk")) as desk,
        ):
            for deed in (
                lambda: desk.install(bundle, "r", "top"),
                lambda: desk.install_uploaded(sha256(bundle), "r", "top"),
                lambda: desk.revert("r", "top"),
                lambda: lab.trigger("top", 1),
            ):
                with pytest.raises(
                    CommandError, match=r"may not send \w+; see security"
                ) as refused:
                    deed()
                assert refused.value.code == "forbidden"
            lab.install(bundle, "r", "top", by="Ann")
            assert in_force(lab.status()) == ("large", True)
            assert desk.trigger("top", 1).model.version == "large"
        with Viewer(daemon.queries, keys=keys("desk")) as viewer:
            (deed,) = viewer.deeds()
            assert (deed.kind, deed.client, deed.by) == ("install", "lab", "Ann")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_power_cut_at_any_moment_leaves_the_old_bundle_or_the_new_one(tmp_path, made):
    station = write(tmp_path, made("1"))
    may_be, found = {"1"}, set()
    for delay_s in (0.0, 0.05, 0.12, 0.2, 2.0, None):
        with running.running(station) as daemon:
            daemon.wait_for_log(r"state=Ready")
            with Commander(daemon.commands, timeout_s=2.0) as desk:
                now, _ = in_force(desk.status())
                # What was answered with done is in force; what was not may be.
                assert now in may_be
                judged = desk.trigger("top", 1)
                assert (judged.verdict, judged.model.version) == (Verdict.PASS, now)
                told = [deed.after for deed in deeds(daemon)]
                assert (told[-1] if told else sha256(made("1"))) == sha256(made(now))
                with Reader(tmp_path / "journal") as reader:
                    rows = reader.bundles()
                named = {one for row in rows for one in (row.sha256, row.before) if one}
                # No more is left than what judges and what comes with a step back.
                until(partial(holds, tmp_path, sorted(f"{one}.onnx" for one in named)))
                found.add(now)
                if delay_s is None:
                    break
                new = made("2" if now == "1" else "3" if now == "2" else "2")
                may_be = {now, bundles.read(new).manifest.version}
                desk.upload(sha256(new), new.stat().st_size, 0, new.read_bytes())
                killing = threading.Timer(delay_s, os.kill, (daemon.child.pid, signal.SIGKILL))
                killing.start()
                with contextlib.suppress(CommandError):
                    desk.install_uploaded(sha256(new), "r", "top", 5.0)
                    may_be.discard(now)
                killing.join()
    assert len(found) > 1
