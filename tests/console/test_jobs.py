"""Jobs beside the line: progress, cancelling, crashes, floods, the end of the page's server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from inspector.console.access import RefusedError
from inspector.console.jobs import Jobs, Step
from inspector.errors import CommandError
from tests import running
from tests.console.serving import wait_for
from tests.loops import in_a_loop


class Watched(Jobs):
    """Jobs that remember what they told."""

    def __init__(self, folder: Path | None) -> None:
        self.told = []
        super().__init__(folder, lambda event, station, data: self.told.append((event, data)))


def program(text: str) -> Step:
    return Step("try", (sys.executable, "-u", "-c", text))


async def ended(jobs: Jobs) -> None:
    while jobs.running is not None:
        await asyncio.sleep(0.01)


def test_a_job_tells_its_progress_and_its_result_and_survives_a_restart(tmp_path: Path) -> None:
    steps = (
        program(
            "import sys, time\n"
            "print('looking at the photos: 3 of 12, fold 1', file=sys.stderr)\n"
            "time.sleep(0.7)\n"
            "print('looking at the photos: 12 of 12, took 1.0 s')\n"
        ),
        program("import os; print(os.nice(0), os.sched_getscheduler(0), os.getcwd())"),
    )

    async def run() -> Watched:
        jobs = Watched(tmp_path / "jobs")
        started = jobs.start(
            "teach", "line-1", "Li", steps, tmp_path, about={"n": 3}, result=lambda: {"parts": 3}
        )
        assert started.state == "running" and jobs.running == started
        with pytest.raises(RefusedError, match="teach, line-1"):
            jobs.start("train", "line-1", "Li", steps, tmp_path)
        await ended(jobs)
        return jobs

    jobs = in_a_loop(run())
    last = jobs.last("teach", "line-1")
    assert (last.state, last.result, last.about) == ("done", {"parts": 3}, {"n": 3}), last
    assert last.lines[-1] == f"19 {os.SCHED_IDLE} {tmp_path}"
    stages = [(data["job"]["stage"], data["job"]["done"]) for _, data in jobs.told]
    assert ("looking at the photos", 3) in stages
    assert jobs.told[-1][1]["job"]["state"] == "done"
    assert Jobs(tmp_path / "jobs", lambda *_: None).last("teach", "line-1") == last


def test_a_failure_is_told_in_the_programs_own_words(tmp_path: Path) -> None:
    async def run(*steps: Step, result=None):
        jobs = Watched(tmp_path)
        jobs.start("teach", "line-1", "", steps, tmp_path, result=result)
        await ended(jobs)
        return jobs.last("teach", "line-1")

    said = "print('inspector-model: error: RUN: no run here'); print('x'); raise SystemExit(27)"
    last = in_a_loop(run(program(said), program("print('never')")))
    assert (last.state, last.problem, last.number) == ("failed", "RUN: no run here", 1)
    assert "never" not in last.lines

    last = in_a_loop(run(program("import os; os.kill(os.getpid(), 9)")))
    assert last.state == "failed" and "memory" in last.problem
    last = in_a_loop(run(Step("try", ("/nowhere/program",))))
    assert last.state == "failed" and "No such file" in last.problem

    async def refused(report) -> None:
        report("fetching pictures", 1, 2)
        raise CommandError("the station does not answer")

    last = in_a_loop(run(Step("fetch", refused)))
    assert (last.state, last.problem, last.stage) == (
        "failed",
        "the station does not answer",
        "fetching pictures",
    )

    def unreadable():
        raise FileNotFoundError(2, "No such file", "lesson.json")

    last = in_a_loop(run(program("pass"), result=unreadable))
    assert (last.state, last.problem) == ("failed", "No such file")


@pytest.mark.long
def test_a_job_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    stubborn = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
        "print('looking at the photos: 1 of 2'); time.sleep(99)\n"
    )

    async def run() -> None:
        jobs = Watched(tmp_path)
        jobs.start("teach", "line-1", "", (program(stubborn),), tmp_path)
        while not jobs.last("teach", "line-1").stage:
            await asyncio.sleep(0.02)
        await jobs.cancel()
        assert jobs.running is None and jobs.last("teach", "line-1").state == "cancelled"
        # The next one may begin at once.
        jobs.start("train", "line-1", "", (program("print('well')"),), tmp_path)
        await ended(jobs)
        assert jobs.last("train", "line-1").state == "done"
        await jobs.close()
        with pytest.raises(RefusedError):
            jobs.start("train", "line-1", "", (), tmp_path)

    in_a_loop(run())


def test_a_flood_of_output_is_bounded_and_leaves_the_loop_free(tmp_path: Path) -> None:
    flood = (
        "import sys\nwhile True: sys.stdout.write('x' * 70000 + '\\x1b[2J' + 'a\\nb\\r' * 900)\n"
    )

    async def run() -> None:
        jobs = Watched(tmp_path)
        jobs.start("teach", "line-1", "", (program(flood),), tmp_path)
        worst, until = 0.0, time.monotonic() + 1.5
        while time.monotonic() < until:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before)
        told = len(jobs.told)
        last = jobs.last("teach", "line-1")
        await jobs.cancel()
        assert 0 < len(last.lines) <= 60 and max(map(len, last.lines)) <= 500
        assert all(line.isprintable() for line in last.lines)
        assert told <= 8
        assert worst < 0.5, worst

    in_a_loop(run())


def test_an_optional_step_may_fail_and_what_is_left_is_tidied_however_it_ends(
    tmp_path: Path,
) -> None:
    tidied = []

    async def run() -> None:
        jobs = Watched(tmp_path)
        fails = "raise SystemExit('inspector: error: no pictures to replay')"
        steps = (
            Step("try", (sys.executable, "-c", fails), optional=True),
            Step(
                "try",
                (sys.executable, "-c", "import os; print(os.environ['X'])"),
                False,
                {"X": "7"},
            ),
        )
        jobs.start(
            *("teach", "line-1", "", steps, tmp_path),
            result=lambda: {"parts": 1},
            tidy=lambda: tidied.append("done"),
        )
        await ended(jobs)
        last = jobs.last("teach", "line-1")
        assert (last.state, last.left_out) == ("done", {"try": "no pictures to replay"})
        assert last.lines[-1] == "7"
        await jobs.amend(last, used={"by": "Li"})
        assert jobs.told[-1][1]["job"]["result"] == {"parts": 1, "used": {"by": "Li"}}

        work = (program("import time; time.sleep(99)"),)
        jobs.start("teach", "line-1", "", work, tmp_path, tidy=lambda: tidied.append("cancelled"))
        await asyncio.sleep(0.2)
        # Somebody else has begun another one meanwhile.
        await jobs.amend(last, used={"by": "Ann"})
        assert jobs.last("teach", "line-1").result is None
        await jobs.cancel()
        assert tidied == ["done", "cancelled"]

    in_a_loop(run())
    assert Jobs(tmp_path, lambda *_: None).last("teach", "line-1").state == "cancelled"


KILLED = """
import asyncio, sys
from pathlib import Path
from inspector.console.jobs import Jobs, Step

async def run(folder):
    jobs = Jobs(folder, lambda *_: None)
    work = "import time; print('begun', flush=True); time.sleep(99)"
    jobs.start("teach", "line-1", "", (Step("try", (sys.executable, "-c", work)),), folder)
    while not jobs.last("teach", "line-1").lines:
        await asyncio.sleep(0.02)
    print("begun", flush=True)
    await asyncio.sleep(99)

asyncio.run(run(Path(sys.argv[1])))
"""


def test_a_killed_server_leaves_no_process_and_the_job_is_known_as_lost(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=running.environment(),
    ) as server:
        assert server.stdout.readline() == b"begun\n"
        children = psutil.Process(server.pid).children(recursive=True)
        assert len(children) == 2
        server.send_signal(signal.SIGKILL)
        server.wait()
    wait_for(lambda: not any(child.is_running() for child in children))
    last = Jobs(tmp_path, lambda *_: None).last("teach", "line-1")
    assert last.state == "lost"


def test_without_a_folder_there_is_no_job_and_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(RefusedError, match="no_state"):
            Watched(None).start("teach", "line-1", "", (), tmp_path)

    in_a_loop(run())
    (tmp_path / "teach-line-1.json").write_text("{")
    assert Jobs(tmp_path, lambda *_: None).last("teach", "line-1") is None
