"""The commands of docs/plc/by-hand.md as they stand there, by another maker's program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

import pytest

from tests.paths import ROOT

PAGE = ROOT / "docs" / "plc" / "by-hand.md"


def commands() -> list[str]:
    return re.findall(r"```sh\n *(mbpoll .*)\n *```", PAGE.read_text(encoding="utf-8"))


def test_there_are_eight_commands():
    assert len(commands()) == 8


@pytest.mark.peers
def test_the_whole_handshake_by_hand(line):
    if shutil.which("mbpoll") is None:
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("mbpoll is not installed")
        pytest.skip("mbpoll is not installed")
    line.start_station()
    line.start_bridge(plc_heartbeat_s=0)
    deadline = time.monotonic() + 10
    while line.block()["State"] != 3:
        assert time.monotonic() < deadline, line.block()
        time.sleep(0.02)
    seq = 0
    said: dict[int, dict[int, str]] = {}
    for number, command in enumerate(commands(), 1):
        words = command.replace("1502", str(line.port)).replace("RESULTSEQ", str(seq)).split()
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        rows = re.findall(r"^\[(\d+)\]:\s+(\S+)", done.stdout, re.MULTILINE)
        found = said[number] = {int(address): value for address, value in rows}
        if number == 6:
            time.sleep(0.5)
        if number == 7:
            seq = int(found[200])
    assert [said[1][address] for address in (40, 46, 47)] == ["0x1234", "0x4142", "0x4344"]
    assert [said[5][address] for address in (242, 243, 244, 245, 251)] == [
        "1",
        "3",
        "129",
        "7",
        "0",
    ]
    assert seq > 0 and [said[7][address] for address in (201, 202, 203)] == ["1", "1", "0"]
    block = line.block()
    assert (block["ResultSeq"], block["Verdict"], block["ResultTriggerSeq"]) == (0, 0, 0)
