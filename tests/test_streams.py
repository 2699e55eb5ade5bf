from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from inspector.streams import LineSink
from tests import hanging, running


def read_all(fd: int, wanted: bytes, timeout_s: float = 10.0) -> bytes:
    found, deadline = b"", time.monotonic() + timeout_s
    while wanted not in found:
        assert time.monotonic() < deadline, found[-200:]
        found += os.read(fd, 65536)
    return found


def test_lines_are_dropped_counted_and_told_when_it_flows_again():
    told: list[int] = []
    with hanging.unread_pipe() as (read_fd, write_fd):

        def resumed(lines: int) -> None:
            told.append(lines)
            sink.put(b"missing %d\n" % lines)

        sink = LineSink(write_fd, resumed, most_bytes=1000)
        begun = time.monotonic()
        for number in range(500):
            sink.put(b"line %05d\n" % number)
        assert time.monotonic() - begun < 1.0
        assert sink.dropped == 410
        found = read_all(read_fd, b"missing 410\n")
        assert b"line 00000\n" in found
        assert found.endswith(b"line 00089\nmissing 410\n")
        sink.put(b"after\n")
        assert read_all(read_fd, b"after\n") == b"after\n"
        assert sink.close()
    assert told == [410]


def test_close_does_not_wait_for_a_reader_that_is_stuck():
    with hanging.unread_pipe() as (_, write_fd):
        sink = LineSink(write_fd, lambda lines: None)
        sink.put(b"never read\n")
        begun = time.monotonic()
        assert not sink.close(0.3)
        assert time.monotonic() - begun < 1.0
    assert "line-sink" not in [thread.name for thread in threading.enumerate()]


def test_a_reader_that_has_ended_is_noticed_and_a_full_disk_is_not_one():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    sink = LineSink(write_fd, lambda lines: None)
    sink.put(b"line\n")
    assert sink.close()
    assert (sink.broken, sink.dropped) == (True, 1)
    os.close(write_fd)
    full = os.open("/dev/full", os.O_WRONLY)
    sink = LineSink(full, lambda lines: None)
    sink.put(b"line\n")
    assert sink.close()
    assert (sink.broken, sink.dropped) == (False, 1)
    os.close(full)


LOG = """
import os, sys, time
from inspector.logs import dropped, say, to_stderr
to_stderr()
for number in range(30_000):
    say("state", number=number, pad="x" * 100)
print("a library's own line", file=sys.stderr)
os.write(2, b"and one that bypasses Python\\n")
assert dropped() > 0
print("done", flush=True)
sys.stdin.readline()
"""


def test_the_log_goes_on_after_nobody_read_it_for_a_while():
    with subprocess.Popen(
        [sys.executable, "-c", LOG],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=running.environment(),
    ) as child:
        assert child.stdout.readline() == b"done\n"
        text = read_all(child.stderr.fileno(), b"log lines dropped lines=").decode()
        child.stdin.close()
        text += child.stderr.read().decode()
        assert child.wait(5) == 0
    lines = text.splitlines()
    shown = [line for line in lines if " state number=" in line]
    assert [line.split()[3] for line in shown] == [f"number={n}" for n in range(len(shown))]
    dropped = int(lines[-1].rpartition("=")[2])
    assert len(shown) + dropped == 30_000 + 2


def test_what_libraries_and_children_write_is_in_the_log_in_whole_lines():
    program = """
import os, subprocess, sys
from inspector.logs import say, to_stderr
to_stderr()
os.write(2, b"half a ")
os.write(2, b"line\\n")
subprocess.run([sys.executable, "-c", "import sys; print('a child', file=sys.stderr)"])
say("state", state="Ready")
os.write(2, b"no line break")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=running.environment(),
        check=True,
        timeout=20,
    )
    lines = done.stderr.splitlines()
    assert {"half a line", "a child", "no line break"} < set(lines)
    assert len(lines) == 4


def test_an_error_that_nobody_reads_ends_the_command_all_the_same(tmp_path):
    with (
        hanging.unread_pipe() as (_, write_fd),
        subprocess.Popen(
            [sys.executable, "-m", "inspector", "run", tmp_path / "none.yaml"],
            stderr=write_fd,
            env=running.environment(),
        ) as child,
    ):
        assert child.wait(running.START_S) == 10
