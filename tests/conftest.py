from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from inspector.wire.publisher import Publisher
from tests import commands, running, tiny
from tests.loops import loop_put_aside
from tests.parties import Parties
from tests.stations import Recorded

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in a job that a script put into the background, and in all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Likewise under nohup, which a station would respect.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# As an activated environment has it, so that commands name the next one by its name.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# A shared machine's disk may not answer for seconds, which a station tells as a fault of its disk.
if sys.platform == "linux" and not {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & os.environ.keys():
    memory = Path("/dev/shm")
    if (
        os.access(memory, os.W_OK)
        and not os.statvfs(memory).f_flag & os.ST_NOEXEC
        and min(psutil.disk_usage(str(memory)).free, psutil.virtual_memory().available) > 8 << 30
    ):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(memory)

# A moment in which the machine had no time for an example would else fail it.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

TIMING = (
    "tests/benchmarks/faults/",
    "tests/bridges/test_hardware_trigger.py",
    "tests/bridges/test_modbus_bridge.py",
    "tests/bridges/test_opcua_bridge.py",
    "tests/bridges/test_opcua_peer.py",
    "tests/bridges/test_polled_plc.py",
    "tests/bridges/test_remote_io.py",
    "tests/cameras/test_conformance.py::test_rate_is_kept",
    "tests/station/test_lifecycle.py",
    "tests/test_shipped_failures.py::test_13",
)
"""Tests that go by the clock, or need the machine: never two of them at once."""
SHARED = (
    "tests/export/",
    "tests/benchmarks/",
    "tests/console/",
    "tests/station/test_bridge_commands.py",
    "tests/station/test_deeds.py",
    "tests/station/test_views.py",
)
"""Tests whose files share trained models, stations and other things that take seconds to make."""

MEMORY = "memfd:line-inspector-ring"


def group_of(test: str) -> str:
    """The group of a test by its id: those of one group run in one process, in turn."""
    if test.startswith(TIMING):
        return "timing"
    return test.partition("::")[0] if test.startswith(SHARED) else test


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: many a test waits for a clock or for a child.

    ``--numprocesses logical``: one a core, for tests that go by the clock.
    """
    return len(os.sched_getaffinity(0)) + (config.option.numprocesses == "auto")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have pytest-xdist run the tests side by side in the groups of :func:`group_of`."""
    # Its own groups, marks that a hook adds, are not seen by every version of pytest.
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Have each of several processes compile its share of the tests, for all of them."""
    # Side by side in one order each of them would compile every file, in a fresh clone.
    worker = getattr(session.config, "workerinput", None)
    here = Path(__file__).parent
    if worker is None or any(here.rglob("__pycache__/test_*-pytest-*.pyc")):
        return
    files = sorted(here.rglob("test_*.py"))
    for path in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        name = ".".join(path.relative_to(here.parent).with_suffix("").parts)
        # Whatever is wrong with it is told when the test is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


@pytest.fixture(scope="session", autouse=True)
def server_of_commands() -> Iterator[None]:
    """It ends with the last test."""
    yield
    commands.SERVER.end()


@pytest.fixture(autouse=True)
def no_event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test without a browser may run an event loop of its own."""
    with contextlib.nullcontext() if "chromium" in request.fixturenames else loop_put_aside():
        yield


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Threads, child processes and shared memory of a test must be gone when it ends."""
    threads = set(threading.enumerate())
    children = set(_children())
    yield
    deadline = time.monotonic() + 10.0
    while left := _left(threads, children):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.02)


def _children() -> list[psutil.Process]:
    """Child processes with all their own, but for the server of commands."""
    own = psutil.Process()
    server = commands.SERVER.child
    if next(Path("/proc/self/task").glob("*/children"), None) is None:
        found = own.children(recursive=True)
        return [child for child in found if server is None or child.pid != server.pid]
    # What psutil does looks at every process of the machine, at the start and end of every test.
    found = []
    parents = [own.pid]
    while parents:
        for file in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in map(int, file.read_text().split()):
                    parents.append(pid)
                    if server is None or pid != server.pid:
                        with contextlib.suppress(psutil.Error):
                            found.append(psutil.Process(pid))
    return found


def _left(threads: set[threading.Thread], children: set[psutil.Process]) -> list[str]:
    # A camera that tests share may be opened again by its station in any of them.
    shared = {f"{thread.name} request" for thread in threads if thread.is_alive()}
    left = [
        thread.name
        for thread in threading.enumerate()
        if thread not in threads and thread.name not in shared
    ]
    for child in _children():
        try:
            command = " ".join(child.cmdline())
            # A browser that tests share starts and ends helpers as it likes.
            is_shared = any(parent in children for parent in child.parents())
        except psutil.Error:
            continue
        # Python's own helper for shared memory lives as long as the test run.
        if child not in children and not is_shared and "resource_tracker" not in command:
            left.append(f"{child.pid} {command or 'zombie'}")
    if segments := shared_memory(os.getpid()):
        # A camera that only a closed test's error still held.
        gc.collect()
        left += segments
    return left


def shared_memory(pid: int) -> list[str]:
    """The project's shared memory that process ``pid`` has open or mapped (Linux)."""
    if sys.platform != "linux":
        return []
    maps = Path(f"/proc/{pid}/maps").read_text()
    mapped = [line for line in maps.splitlines() if MEMORY in line] if MEMORY in maps else []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            mapped += [
                f"fd {entry.name}: {path}" for path in [entry.readlink()] if MEMORY in str(path)
            ]
    return mapped


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A real, tiny bundle (tests/tiny.py)."""
    return tiny.write_bundle(tmp_path / "tiny.onnx")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with a good and a bad part."""
    return running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path, parts: Path) -> Path:
    """The file of a station of one camera, with a good and a bad part."""
    return running.write_station(
        tmp_path / "station.yaml", bundle_path, running.folder_camera(parts)
    )


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    """Keys of a station and of its peers."""
    return Parties(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """A journal to record verdicts in, and to serve them from."""
    made = Recorded(tmp_path / "journal")
    yield made
    made.close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A publisher at free addresses."""
    made = Publisher(running.FREE["verdicts"], running.FREE["images"])
    yield made
    made.close(linger_ms=0)
