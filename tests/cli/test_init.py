"""``inspector init`` and ``examples``: from the wheel alone to a station that ``check`` accepts."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.config.station_file import load_station, state_folder
from inspector.journal.schema import RecipeInForce
from inspector.journal.writer import Journal
from tests import running, tiny, videos
from tests.paths import ROOT

CONFIG = ROOT / "config"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The folder of somebody who has just installed: an empty one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return folder


def on_free_ports(path: Path) -> Path:
    text, times = re.subn(r"127\.0\.0\.1:555\d", "127.0.0.1:*", path.read_text())
    assert times == 4
    path.write_text(text)
    return path


def test_a_folder_of_photos_and_the_examples_bundle_pass_check():
    assert running.inside("examples", "config")[0] == 0
    simulate = ("simulate", "photos", "--good", "1", "--test-good", "2", "--defective", "1")
    assert running.inside(*simulate)[0] == 0
    written = running.inside(
        "init", "station.yaml", "--camera", "photos/test", "--bundle", "config/demo.onnx"
    )
    assert written == (
        0,
        "station.yaml: station line-1, camera photos/test, recipe flange, bundle config/demo.onnx\n"
        "next: inspector check station.yaml\n",
        "",
    )
    found, out, err = running.inside("check", on_free_ports(Path("station.yaml")))
    assert (found, err) == (0, ""), out
    *tried, following = out.splitlines()
    assert {line.split()[0] for line in tried} == {"ok"}
    assert following.startswith("next: inspector run ")


@pytest.mark.long
def test_without_a_bundle_photos_come_first_and_check_says_what_is_missing(here):
    found, out, _ = running.inside("init", "line-2.yaml", "--camera", "simulator")
    assert (found, out.splitlines()[-3:]) == (
        0,
        [
            "part.onnx is not there yet: photos of good parts come first",
            "without a terminal: start 'inspector run line-2.yaml --without-model' and the "
            "operator's page, then open its view Set up",
            "next: inspector collect line-2.yaml -o photos",
        ],
    )
    found, out, _ = running.inside("check", on_free_ports(Path("line-2.yaml")))
    assert found == 11
    (problem,) = [line for line in out.splitlines() if line.startswith("problem")]
    assert problem.endswith(
        f"{here / 'part.onnx'}: no such bundle; export one with "
        f"'inspector-model export RUN -o part.onnx', or start with 'inspector run ... "
        f"--without-model' and train one on the operator's page"
    )
    # The command that was named works.
    found, out, _ = running.inside(*shlex.split("collect line-2.yaml -o photos --count 10"))
    assert (found, len(list(Path("photos").glob("*.png")))) == (0, 10)
    tiny.write_bundle(Path("part.onnx"))
    assert running.inside("init", "line-3.yaml")[1].endswith("next: inspector check line-3.yaml\n")


def test_photos_that_are_there_already_are_trained_on(parts):
    out = running.inside("init", "station.yaml", "--camera", parts)[1]
    assert out.endswith(f"next: inspector-model train {parts} -o run\n")


def test_the_file_is_the_example_with_other_values():
    """Every key keeps its comment; a device chooses its own size."""
    assert running.inside("init", "station.yaml")[0] == 0
    ours = Path("station.yaml").read_text().splitlines()
    theirs = (CONFIG / "station.yaml").read_text().splitlines()
    assert ours[0].startswith("# Station of one camera")
    changed = dict(zip(theirs[2:], ours[1:], strict=True))
    assert {old: new for old, new in changed.items() if old != new} == {
        "    width: 1280": "    # width: 1280",
        "    height: 720": "    # height: 720",
        "    fps: 30": "    # fps: 30",
        "  flange:": "  part:",
        "recipe: flange": "recipe: part",
    }


@pytest.mark.parametrize(
    ("camera", "source"),
    [
        ("0", 0),
        ("12", 12),
        ("/dev/video3", "/dev/video3"),
        ("rtsp://user:p#ss@10.0.0.5:554/stream1?a=b", "rtsp://user:p#ss@10.0.0.5:554/stream1?a=b"),
        ("v4l2src device=/dev/video0 ! appsink", "v4l2src device=/dev/video0 ! appsink"),
        ("line.avi", "line.avi"),
    ],
)
def test_cameras_that_opencv_reads(camera, source, here):
    Path("line.avi").touch()
    assert running.inside("init", "station.yaml", "--camera", camera)[0] == 0
    station = load_station(Path("station.yaml"))
    (found,) = station.cameras
    assert isinstance(found, OpenCvCamera)
    assert found.source == (str(here / "line.avi") if source == "line.avi" else source)
    assert (found.width, found.height, found.fps) == (None, None, None)


def test_every_key_of_the_file_has_its_comment_behind_an_empty_line():
    """Keys that stand alone are read as one with those before them where no line is empty."""
    assert running.inside("init", "station.yaml")[0] == 0
    lines = Path("station.yaml").read_text().splitlines()
    for number, line in enumerate(lines[1:], start=1):
        if line.startswith("#") and not lines[number - 1].startswith("#") and lines[number - 1]:
            raise AssertionError(f"no empty line before: {line}")


def test_a_video_file_has_its_own_keys_and_its_rate_may_be_set(here, bundle_path):
    pictures = [tiny.good_picture()] * 3
    videos.write_avi(Path("line.avi"), pictures)
    assert running.inside("init", "s.yaml", "--camera", "line.avi", "--bundle", bundle_path)[0] == 0
    text = Path("s.yaml").read_text()
    (camera,) = load_station(Path("s.yaml")).cameras
    assert (camera.fps, camera.timeout_ms) == (None, 6000)
    for word in ("v4l2", "width", "latency_ms", "device", "fps: 30"):
        assert not re.search(rf"(?m)^ *#? ?{word}\b|{word}: 30", text), word
    # What the file offers is taken.
    for rate in ("2", "0.2"):
        Path("s.yaml").write_text(text.replace("# fps: 2", f"fps: {rate}"))
        found, out, _ = running.inside("check", on_free_ports(Path("s.yaml")))
        assert found == 0, out
        assert "GStreamer" not in out


def test_folders_and_the_simulator(parts, here):
    Path("photos").mkdir()
    ours = here / "photos"
    for camera, path in (("photos", ours), ("./photos", ours), (parts, parts)):
        name = f"{len(list(here.iterdir()))}.yaml"
        assert running.inside("init", name, "--camera", camera)[0] == 0
        (folder,) = load_station(Path(name)).cameras
        assert isinstance(folder, FolderCamera)
        assert (folder.path, folder.rate_hz, folder.loop) == (path, 1, True)
        # Those of the kind, not the ones of a camera that might not answer.
        assert (folder.timeout_ms, folder.latency_ms) == (2000, 0)
    # What lies below the file is named from there, so that the folder can be moved.
    assert yaml.safe_load(Path("1.yaml").read_text())["cameras"][0]["path"] == "photos"
    assert running.inside("init", "s.yaml", "--camera", "simulator")[0] == 0
    (simulator,) = load_station(Path("s.yaml")).cameras
    assert isinstance(simulator, SimulatorCamera)
    assert simulator.defect_rate > 0


def test_a_second_product_does_not_meet_the_journal_of_the_first(here, parts, bundle_path):
    ran = state_folder("line-1")
    with contextlib.closing(Journal(ran)) as journal:
        journal.keep(RecipeInForce("line-1", "flange", "flange"))
    (here / "lids").mkdir()
    write = ["init", "lids/station.yaml", "--camera", parts, "--bundle", bundle_path]
    found, out, _ = running.inside(*write)
    assert found == 0
    assert "it is called lids, for a station called line-1 ran on this machine" in out
    path = here / "lids" / "station.yaml"
    assert load_station(path).station == "lids"
    assert state_folder("lids") != ran
    # The same product again goes on with its journal.
    with contextlib.closing(Journal(ran)) as journal:
        journal.keep(RecipeInForce("line-1", load_station(path).recipe, "flange"))
    path.unlink()
    assert "station line-1" in running.inside(*write)[1]
    # A name that is taken, too, leaves the next number.
    for name in ("line-1", "lids"):
        with contextlib.closing(Journal(state_folder(name))) as journal:
            journal.keep(RecipeInForce(name, "nut", "nut"))
    path.unlink()
    assert "station line-2" in running.inside(*write)[1]


def test_a_station_file_elsewhere_names_the_same_files(here, bundle_path, parts):
    (here / "conf").mkdir()
    inside = running.write_parts(here / "photos", tiny.good_picture())
    command = ["init", "conf/line-7.yaml", "--camera", "photos", "--bundle", bundle_path]
    assert running.inside(*command)[0] == 0
    station = load_station(Path("conf/line-7.yaml"))
    assert station.station == "line-7"
    assert "# folder: /var/lib/inspector/line-7\n" in Path("conf/line-7.yaml").read_text()
    assert station.cameras[0].path == inside
    assert station.active("top").bundle == bundle_path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["station"], 10, "station: a station file is called NAME.yaml"),
        (["s.yaml", "--camera", "nothing"], 14, "'nothing': no such camera; give a device"),
        (["s.yaml", "--camera", ""], 14, "'': no such camera"),
        (["s.yaml", "--camera", "1000"], 14, "'1000': must be a device number, 0 to 999"),
        (["s.yaml", "--camera", "other.onnx"], 14, "other.onnx: a bundle, not a camera"),
        (["s.yaml", "--camera", "other.yaml"], 14, "'other.yaml': no such camera"),
        (["s.yaml", "--camera", "other.yaml:top"], 14, "'other.yaml:top': no such camera"),
        (["s.yaml", "--bundle", "none.onnx"], 11, "none.onnx: no such bundle; leave --bundle out"),
        (["s.yaml", "--bundle", "other.yaml"], 11, "other.yaml: a text file, not a bundle"),
        (["s.yaml", "--bundle", "."], 11, ".: a folder, not a bundle"),
        (["none/s.yaml"], 26, "none/s.yaml: cannot be written: No such file or directory"),
        (["other.yaml"], 26, "other.yaml: exists and is never overwritten"),
        (["dangling.yaml"], 26, "dangling.yaml: exists and is never overwritten"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, code, words, here):
    Path("other.yaml").write_text("mine\n")
    Path("other.onnx").write_bytes(b"a bundle")
    Path("dangling.yaml").symlink_to("nowhere")
    before = sorted(here.iterdir())
    found, out, err = running.inside("init", *arguments)
    assert (found, out) == (code, "")
    assert err.startswith(f"inspector: error: {words}")
    assert err.count("\n") == 1
    assert sorted(here.iterdir()) == before
    assert Path("other.yaml").read_text() == "mine\n"


def test_a_broken_bundle_beside_the_file_is_told(here):
    Path("part.onnx").write_bytes(b"no bundle")
    found, _, err = running.inside("init", "s.yaml")
    assert (found, err.count("\n")) == (11, 1)
    assert not Path("s.yaml").exists()


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


@settings(max_examples=25)
@given(folder=NAMES, name=NAMES)
def test_any_name_of_files_comes_back_as_it_is(folder, name):
    with tempfile.TemporaryDirectory() as base:
        photos, station = Path(base, folder), Path(base, "stations", f"{name}.yaml")
        photos.mkdir()
        station.parent.mkdir(exist_ok=True)
        assert running.inside("init", station, "--camera", photos)[0] == 0
        found = load_station(station)
        assert found.cameras[0].path == photos
        assert found.active("top").bundle == station.parent / "part.onnx"


def test_examples_are_the_files_of_the_checkout():
    found, out, err = running.inside("examples", "a/config")
    assert (found, err) == (0, "")
    files = sorted(path for path in CONFIG.iterdir() if path.is_file())
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [f"a/config/{path.name}" for path in files]
    assert all(len(line.split()) > 4 for line in lines)
    for path in files:
        assert Path("a/config", path.name).read_bytes() == path.read_bytes()


def test_examples_never_overwrite_nor_leave_half(here):
    Path("station.yaml").write_text("mine\n")
    found, out, err = running.inside("examples", ".")
    assert (found, out, err.count("\n")) == (26, "", 1)
    assert "station.yaml: exists and is never overwritten; choose another folder" in err
    assert [path.name for path in here.iterdir()] == ["station.yaml"]
    assert running.inside("examples", "station.yaml/x")[0] == 26
