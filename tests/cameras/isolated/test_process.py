"""Cameras that hang, crash, lie or vanish cost a FAULT, never the station, and leave nothing."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

if sys.platform != "linux":
    pytest.skip("isolated cameras are Linux's", allow_module_level=True)

from inspector.cameras import BadFrameError, CameraLostError, Frame, isolate
from inspector.cameras.isolated.process import CameraProcess
from inspector.cameras.simulated.conveyor import draw
from inspector.cameras.simulated.faulty import Faulty
from inspector.config.cameras.faulty import FaultyCamera
from inspector.config.cameras.folder import FolderCamera
from inspector.config.cameras.opencv import OpenCvCamera
from inspector.errors import CameraError
from inspector.imaging.images import exposure
from tests.conftest import shared_memory
from tests.running import write_parts

Step = dict[str, Any]
Script = Callable[..., FaultyCamera]


@pytest.fixture
def faulty(photos: FolderCamera) -> Script:
    """A faulty camera over small photos, as fast as it is asked."""

    def camera(*steps: Step, **keys: Any) -> FaultyCamera:
        common = {"kind": "faulty", "name": "top", "rate_hz": 0, "timeout_ms": 1000}
        return FaultyCamera.model_validate(
            {**common, "path": str(photos.path), "steps": steps, **keys}
        )

    return camera


@pytest.fixture
def photos(tmp_path: Path) -> FolderCamera:
    """A folder of small parts that never ends, 20 a second."""
    pictures = [np.full((32, 32, 3), 40 * n, np.uint8) for n in range(1, 4)]
    path = write_parts(tmp_path / "parts", *pictures)
    return FolderCamera(kind="folder", name="top", path=path, rate_hz=20, loop=True)


@contextlib.contextmanager
def opened(camera: CameraProcess) -> Iterator[CameraProcess]:
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


def grab(camera: CameraProcess, timeout_ms: int = 1000) -> Frame:
    frame = camera.grab(timeout_ms)
    assert frame is not None
    return frame


def pid_of(camera: CameraProcess) -> int:
    assert camera.pid is not None
    return camera.pid


def wait_until_gone(*pids: int) -> None:
    deadline = time.monotonic() + 3.0
    while left := [pid for pid in pids if psutil.pid_exists(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)


def test_driver_that_hangs_with_the_interpreters_lock_is_killed_and_opened_again(
    faulty: Script,
) -> None:
    camera = CameraProcess(
        faulty({"do": "frames", "count": 2}, {"do": "block_for_ever"}, {"do": "frames"})
    )
    with opened(camera):
        before = [grab(camera).part_id for _ in range(2)]
        pid = pid_of(camera)
        start = time.monotonic()
        with pytest.raises(CameraLostError):
            camera.grab(500)
        assert time.monotonic() - start < 0.7
        with pytest.raises(CameraLostError):
            camera.grab(500)
        assert time.monotonic() - start < 0.8
    assert time.monotonic() - start < 2.0
    wait_until_gone(pid)
    with opened(camera):
        assert pid_of(camera) != pid
        assert [*before, grab(camera).part_id] == ["part-000000", "part-000001", "part-000002"]


def test_driver_that_hangs_can_be_interrupted(faulty: Script) -> None:
    with opened(CameraProcess(faulty({"do": "block_for_ever"}))) as camera:
        timer = threading.Timer(0.1, camera.interrupt)
        timer.start()
        start = time.monotonic()
        assert camera.grab(20_000) is None
        assert time.monotonic() - start < 1.0
        timer.join()


def test_open_that_blocks_is_killed_in_time(faulty: Script) -> None:
    camera = CameraProcess(faulty({"do": "block_open", "seconds": 60}, {"do": "frames"}), 1500)
    start = time.monotonic()
    with pytest.raises(
        CameraError, match=r"^camera top: cannot be opened: no answer within 1500 ms"
    ):
        camera.open()
    assert time.monotonic() - start < 3.0
    assert camera.pid is None
    camera.close()


def test_camera_that_refuses_to_open_opens_later(faulty: Script) -> None:
    steps = [{"do": "refuse_open", "times": 2}, {"do": "frames"}]
    camera = isolate(faulty(*steps))
    for _ in range(2):
        with pytest.raises(CameraError, match=r"^camera top: refuses"):
            camera.open()
    with opened(camera):
        assert grab(camera)


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 1"), ("segfault", "signal 11")])
def test_crash_is_told_at_once_and_the_next_process_goes_on(
    faulty: Script, how: str, said: str
) -> None:
    camera = isolate(faulty({"do": "die", "how": how}, {"do": "frames"}))
    with opened(camera):
        start = time.monotonic()
        with pytest.raises(CameraLostError, match=said):
            camera.grab(20_000)
        assert time.monotonic() - start < 5.0
    with opened(camera):
        assert grab(camera).part_id == "part-000000"


def test_killed_process_is_told_at_once(photos: FolderCamera) -> None:
    with opened(CameraProcess(photos.model_copy(update={"rate_hz": 1.0}))) as camera:
        assert grab(camera)
        timer = threading.Timer(0.1, os.kill, (pid_of(camera), signal.SIGKILL))
        timer.start()
        start = time.monotonic()
        with pytest.raises(CameraLostError, match="signal 9"):
            camera.grab(20_000)
        assert time.monotonic() - start < 0.8
        timer.join()
        with pytest.raises(CameraLostError, match="signal 9"):
            camera.grab(1000)
    with opened(camera):
        assert grab(camera)


def test_stopped_process_is_killed(photos: FolderCamera) -> None:
    with opened(CameraProcess(photos)) as camera:
        pid = pid_of(camera)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CameraLostError, match="no answer"):
            camera.grab(100)
    wait_until_gone(pid)


def test_what_the_driver_started_goes_with_it(
    photos: FolderCamera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "python"
    noted = tmp_path / "helper.pid"
    wrapper.write_text(f'#!/bin/sh\nsleep 1000 &\necho $! > {noted}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapper))
    with opened(CameraProcess(photos)) as camera:
        assert grab(camera)
        helper = int(noted.read_text())
        assert psutil.pid_exists(helper)
    wait_until_gone(helper)


HOLD = """
import sys, threading, time
from inspector.cameras import isolate
from inspector.config.cameras import FaultyCamera, FolderCamera
hang = isolate(FaultyCamera.model_validate({"kind": "faulty", "name": "hang", "rate_hz": 0,
    "timeout_ms": 60000, "path": sys.argv[1],
    "steps": [{"do": "frames", "count": 1}, {"do": "block_for_ever"}]}))
idle = isolate(FolderCamera(kind="folder", name="idle", path=sys.argv[1]))
cameras = [hang, idle]
for camera in cameras:
    camera.open()
    camera.grab(10000)
threading.Thread(target=hang.grab, args=(60000,), daemon=True).start()
time.sleep(0.2)
print(*[camera.pid for camera in cameras], flush=True)
time.sleep(1000)
"""


def test_kill_9_of_the_station_leaves_no_process_and_no_memory(photos: FolderCamera) -> None:
    command = [sys.executable, "-c", HOLD, str(photos.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as station:
        assert station.stdout is not None
        pids = [int(pid) for pid in station.stdout.readline().split()]
        try:
            assert len(pids) == 2
            assert all(shared_memory(pid) for pid in pids)
            assert shared_memory(station.pid)
        finally:
            station.kill()
    wait_until_gone(*pids)
    assert not any("line-inspector" in path.name for path in Path("/dev/shm").iterdir())


def test_camera_outlives_the_thread_that_opened_it(photos: FolderCamera) -> None:
    camera = CameraProcess(photos)
    opener = threading.Thread(target=camera.open)
    opener.start()
    opener.join()
    try:
        for _ in range(5):
            assert grab(camera)
    finally:
        camera.close()


def test_signals_to_the_whole_service_leave_the_cameras_to_the_station(
    photos: FolderCamera,
) -> None:
    with opened(CameraProcess(photos)) as camera:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid_of(camera), number)
            assert grab(camera)
        assert os.getpgid(pid_of(camera)) == pid_of(camera)


def test_old_frame_is_a_lost_camera_also_after_it_was_opened_again(faulty: Script) -> None:
    steps = [{"do": "frames", "count": 1}, {"do": "stale", "count": 2}, {"do": "frames"}]
    camera = isolate(faulty(*steps))
    with opened(camera):
        assert grab(camera).part_id == "part-000000"
        with pytest.raises(CameraLostError, match="not newer"):
            camera.grab(1000)
    with opened(camera), pytest.raises(CameraLostError, match="not newer"):
        camera.grab(1000)
    with opened(camera):
        assert grab(camera).part_id == "part-000001"


def test_torn_frame_is_one_unreadable_part_and_never_comes_again(faulty: Script) -> None:
    steps = [
        {"do": "frames", "count": 1},
        {"do": "tear"},
        {"do": "frames", "count": 1},
        {"do": "tear"},
        {"do": "stale"},
    ]
    with opened(CameraProcess(faulty(*steps))) as camera:
        assert grab(camera).part_id == "part-000000"
        with pytest.raises(BadFrameError, match="torn") as caught:
            camera.grab(1000)
        assert caught.value.part_id == "part-000001"
        assert caught.value.exposed_ns > 0
        assert grab(camera).part_id == "part-000002"
        with pytest.raises(BadFrameError, match="torn"):
            camera.grab(1000)
        with pytest.raises(CameraLostError, match="not newer"):
            camera.grab(1000)


def test_change_of_size_leaves_one_segment(faulty: Script) -> None:
    sizes = [(640, 480), (1280, 1024), (64, 48), (1280, 1024)]
    steps: list[Step] = []
    for width, height in sizes:
        steps += [{"do": "resize", "width": width, "height": height}, {"do": "frames", "count": 2}]
    with opened(CameraProcess(faulty(*steps))) as camera:
        for width, height in sizes:
            for _ in range(2):
                assert grab(camera, 2000).image.shape == (height, width, 3)
            mine, its = (mapped(pid) for pid in (os.getpid(), pid_of(camera)))
            assert len(mine) == len(its) == 1
            assert mine == its
    assert not mapped(os.getpid())


def mapped(pid: int) -> list[str]:
    """Inodes of the segments that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return re.findall(r" 00:\w+ (\d+) +/memfd:line-inspector-ring", maps)


def test_no_shared_memory_left_is_said_plainly_and_is_no_bus_error(faulty: Script) -> None:
    steps = [
        {"do": "frames", "count": 1},
        {"do": "resize", "width": 4000, "height": 3000},
        {"do": "frames"},
    ]
    camera = CameraProcess(faulty(*steps))
    with opened(camera):
        assert grab(camera)
        # A file in memory is a file: this limit stands for a full memory.
        resource.prlimit(pid_of(camera), resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
        with pytest.raises(CameraLostError, match=r"no shared memory for its pictures \(144 MB\)"):
            camera.grab(1000)
    with opened(camera):
        assert grab(camera, 2000).image.shape == (3000, 4000, 3)


def test_child_inherits_nothing_and_loads_no_onnx_runtime(photos: FolderCamera) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        with opened(CameraProcess(photos)) as camera:
            assert grab(camera)
            fds = [str(entry.readlink()) for entry in Path(f"/proc/{pid_of(camera)}/fd").iterdir()]
            assert f"socket:[{os.fstat(listener.fileno()).st_ino}]" not in fds
            assert sum(name.startswith("socket:") for name in fds) == 1
            maps = Path(f"/proc/{pid_of(camera)}/maps").read_text()
            assert "onnxruntime" not in maps
            assert "zmq" not in maps


def test_password_is_not_in_the_process_list() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}/video"
    camera = CameraProcess(OpenCvCamera(kind="opencv", name="top", source=url, timeout_ms=500))
    seen: list[str] = []

    def look() -> None:
        connection, _ = silent.accept()
        with connection:
            for child in psutil.Process().children(recursive=True):
                seen.append(" ".join([*child.cmdline(), *child.environ().values()]))
            camera.interrupt()

    looker = threading.Thread(target=look)
    looker.start()
    with pytest.raises(CameraError):
        camera.open()
    looker.join()
    camera.close()
    silent.close()
    assert any("inspector.cameras.isolated.child top" in line for line in seen)
    assert not any("secret" in line for line in seen)


@pytest.mark.long
def test_crashes_leave_no_handle(photos: FolderCamera) -> None:
    camera = CameraProcess(photos)
    handles = []
    for _ in range(6):
        with opened(camera):
            assert grab(camera)
            os.kill(pid_of(camera), signal.SIGKILL)
            with pytest.raises(CameraLostError):
                for _ in range(3):
                    camera.grab(1000)
        handles.append(len(list(Path("/proc/self/fd").iterdir())))
    assert len(set(handles)) == 1


def test_script_of_ten_thousand_steps_is_no_message_too_long(faulty: Script) -> None:
    steps = [{"do": "resize", "width": 64, "height": 48}] * 9_999
    with opened(CameraProcess(faulty(*steps, {"do": "frames"}))) as camera:
        assert grab(camera, 5000).image.shape == (48, 64, 3)


@pytest.mark.long
def test_each_blemish_is_in_the_picture(faulty: Script) -> None:
    kinds = ["frames", "black", "overexposed", "blurred", "frozen", "frozen"]
    camera = Faulty(faulty(*[{"do": kind, "count": 1} for kind in kinds], path=None, seed=3))
    camera.open()
    good, black, bright, blurred, frozen, again = (camera.grab(1000) for _ in kinds)
    assert camera.grab(1000) is None
    camera.close()
    assert good and black and bright and blurred and frozen and again
    assert np.array_equal(good.image, draw(3, 0, 0.3).image)
    assert exposure(black.image)[0] < 6
    assert (bright.image == 255).mean() > 0.9
    assert exposure(blurred.image)[1] < exposure(good.image)[1] / 20
    assert np.array_equal(frozen.image, again.image)
    assert frozen.exposed_ns < again.exposed_ns
    ids = [frame.part_id for frame in (good, black, bright, blurred, frozen, again)]
    assert ids == [f"part-{n:06d}" for n in range(6)]


def test_script_that_loops_goes_on_and_one_that_is_over_begins_anew(faulty: Script) -> None:
    steps = [{"do": "frames", "count": 2}, {"do": "lose"}]
    looping = Faulty(faulty(*steps, loop=True))
    seen = []
    for _ in range(3):
        looping.open()
        seen += [grab(looping).part_id for _ in range(2)]
        with pytest.raises(CameraLostError):
            looping.grab(100)
        looping.close()
    assert seen == [f"part-{n:06d}" for n in range(6)]


def test_camera_that_is_gone_for_a_time_comes_back(faulty: Script) -> None:
    steps = [{"do": "frames", "count": 1}, {"do": "refuse_open", "seconds": 0.5}, {"do": "frames"}]
    camera = Faulty(faulty(*steps))
    camera.open()
    assert grab(camera)
    start = time.monotonic()
    with pytest.raises(CameraLostError):
        camera.grab(1000)
    camera.close()
    with pytest.raises(CameraError):
        camera.open()
    while True:
        with contextlib.suppress(CameraError):
            camera.open()
            break
        time.sleep(0.02)
    assert 0.5 <= time.monotonic() - start < 1.0
    assert grab(camera).part_id == "part-000001"
    camera.close()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "at least 1"),
        ([{"do": "resize", "width": 9, "height": 9}], "none of them gives a frame"),
        ([{"do": "frames"}, {"do": "lose"}], "never reached"),
        ([{"do": "explode"}], "'refuse_open'"),
        ([{"do": "frames", "count": 0}], "greater than 0"),
    ],
)
def test_script_that_makes_no_sense_is_refused(
    faulty: Script, steps: list[Step], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        faulty(*steps)
