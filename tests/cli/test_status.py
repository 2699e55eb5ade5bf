from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.cli import keygen, status
from inspector.client.keys import why_silent
from inspector.config.addresses import COMMANDS
from inspector.config.station_file import Peer, Security
from inspector.journal.reader import Reader
from inspector.journal.writer import Journal
from inspector.wire import keys
from inspector.wire.command_server import Commands, CommandSocket
from inspector.wire.gate import Gate
from inspector.wire.messages import CameraStatus, StatusMessage


def message(**changes: Any) -> StatusMessage:
    fields: dict[str, Any] = {
        "station": "line-1",
        "epoch": "e",
        "state": "ContinuousExecution",
        "last_seq": 4712,
        "passed": 4650,
        "failed": 60,
        "faults": 2,
        "recipe": "flange",
        "provider": "CPUExecutionProvider",
        "inference": "",
        "cameras": (camera("top"),),
        "sent_us": time.time_ns() // 1000,
    }
    return StatusMessage.model_validate(fields | changes)


def camera(name: str, state: str = "running", detail: str = "") -> CameraStatus:
    return CameraStatus.model_validate(
        {"name": name, "state": state, "detail": detail, "frames": 7}
    )


@contextlib.contextmanager
def station(
    folder: Path, tell: Callable[[], StatusMessage], security: Security | None = None
) -> Iterator[str]:
    """The command socket of a station; its address."""
    Journal(folder).close()
    gate = Gate(security or Security())
    try:
        commands = Commands(
            CommandSocket(gate, "tcp://127.0.0.1:*"),
            handle=lambda request: request.refuse("forbidden", "only its status is asked here"),
            status=tell,
            reader=lambda: Reader(folder),
        )
        commands.start()
        try:
            yield commands.address
        finally:
            commands.finish()
    finally:
        gate.close()


def ask(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    return status.run(parser.parse_args([str(argument) for argument in arguments]))


def test_a_station_that_judges_is_ok(tmp_path, capsys):
    with station(tmp_path, message) as address:
        assert ask(address) == 0
    first, *table = capsys.readouterr().out.splitlines()
    assert first == (
        "OK line-1 ContinuousExecution, 4712 verdicts: 4650 PASS, 60 FAIL, 2 FAULT "
        "| passed=4650c failed=60c faults=2c over_triggers=0c overruns=0c"
    )
    assert any(line.split() == ["camera", "top", "7", "frames,", "running"] for line in table)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"state": "Ready"}, 0, "Ready"),
        ({"state": "SingleExecution"}, 0, "SingleExecution"),
        ({"state": "Preoperational"}, 1, "state Preoperational"),
        ({"state": "Initialized"}, 1, "state Initialized"),
        ({"state": "Halted"}, 2, "state Halted"),
        ({"state": "Error"}, 2, "state Error"),
        ({"cameras": (camera("a"), camera("b", "opening"))}, 1, "camera b opening"),
        ({"cameras": (camera("a", "ended", "the belt"),)}, 1, "camera a ended (the belt)"),
        ({"cameras": (camera("a", "lost", "no frame"),)}, 2, "camera a lost (no frame)"),
        ({"inference": "top: out of memory"}, 2, "inference: top: out of memory"),
        ({"drift": "top: 1.8 times"}, 1, "drift: top: 1.8 times"),
        ({"state": "Error", "trouble": "journal: disk full"}, 2, ", journal: disk full; state E"),
    ],
)
def test_exit_code_says_how_bad_it_is(tmp_path, capsys, changes, code, words):
    with station(tmp_path, lambda: message(**changes)) as address:
        assert ask(address) == code
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{status.Level(code).name} line-1 ")
    assert words in first


def test_the_worst_comes_first():
    cameras = (camera("a", "ended"), camera("b", "lost"))
    found = status.assess(message(state="Initialized", cameras=cameras, drift="a"))
    assert [(finding.level.name, finding.text) for finding in found] == [
        ("CRITICAL", "camera b lost"),
        ("WARNING", "state Initialized"),
        ("WARNING", "camera a ended"),
        ("WARNING", "drift: a"),
    ]


def test_another_provider_than_the_one_asked_for_is_critical(tmp_path, capsys):
    with station(tmp_path, message) as address:
        assert ask(address, "--provider", "CPUExecutionProvider") == 0
        assert ask(address, "--provider", "CUDAExecutionProvider") == 2
    assert "runs on CPUExecutionProvider, not on CUDA" in capsys.readouterr().out


def test_a_status_that_grows_old_is_critical_and_a_wrong_clock_is_not(tmp_path, capsys):
    old = message(sent_us=time.time_ns() // 1000 - 60_000_000)
    with station(tmp_path, lambda: old) as address:
        assert ask(address) == 2
    assert "has not changed" in capsys.readouterr().out
    with station(tmp_path, lambda: message(sent_us=time.time_ns() // 1000 - 60_000_000)) as address:
        assert ask(address) == 0


def test_a_start_may_stand_still_for_a_quarter_of_an_hour(tmp_path, capsys):
    for minutes, code in ((10, 1), (20, 2)):
        sent_us = time.time_ns() // 1000 - minutes * 60_000_000
        starting = message(state="Preoperational", sent_us=sent_us)
        with station(tmp_path, lambda said=starting: said) as address:
            assert ask(address) == code
    assert "it starts" in capsys.readouterr().out


def test_no_answer_is_critical_and_quick(capsys):
    began = time.monotonic()
    assert ask("tcp://127.0.0.1:1", "--timeout", "0.3") == 2
    assert time.monotonic() - began < 3.0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("CRITICAL tcp://127.0.0.1:1: no answer")


def test_what_cannot_be_asked_is_unknown(tmp_path, capsys):
    assert ask("nonsense") == 3
    assert ask("--key", tmp_path / "me.secret", "--station-key", tmp_path / "none") == 3
    assert ask("--key", tmp_path / "me.secret") == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("UNKNOWN ") for line in lines)
    assert "give both, or neither" in lines[2]


@pytest.mark.parametrize("wrong", ["x", "0", "-1", "nan", "inf"])
def test_timeout_is_a_number_of_seconds(wrong):
    with pytest.raises(SystemExit) as ended:
        ask("--timeout", wrong)
    assert ended.value.code == 2


def test_words_from_outside_cannot_forge_figures(tmp_path, capsys):
    forged = camera("top", "lost", "x | passed=9c\nOK \x1b[2J[bold]line[/bold]")
    with station(tmp_path, lambda: message(cameras=(forged,))) as address:
        assert ask(address) == 2
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert first.count("|") == 1
    assert "x / passed=9c OK" in first
    assert "[bold]line[/bold]" in first
    assert "\x1b" not in out


def make_keys(folder: Path, name: str) -> Path:
    parser = argparse.ArgumentParser()
    keygen.add_arguments(parser)
    assert keygen.run(parser.parse_args([str(folder), "--name", name])) == 0
    return folder / f"{name}.secret"


def test_a_station_with_keys_answers_those_it_knows(tmp_path, capsys):
    folder = tmp_path / "keys"
    own, mine, strange = (make_keys(folder, name) for name in ("line-1", "monitor", "stranger"))
    known = keys.load_public_key(mine.with_suffix(".public")).decode()
    security = Security(secret_key=own, peers={"monitor": Peer(key=known, roles=("listen",))})
    public = own.with_suffix(".public")
    with station(tmp_path / "journal", message, security) as address:
        assert ask(address, "--key", mine, "--station-key", public) == 0
        assert ask(address, "--key", strange, "--station-key", public, "--timeout", "0.5") == 2
        assert ask(address, "--timeout", "0.5") == 2
    assert [line.partition("; ")[2] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        "is the station running, and does it know this key?",
        "is the station running?",
    ]


def test_the_address_is_a_word_or_an_option(tmp_path):
    with station(tmp_path, message) as address:
        assert ask(address) == ask("--address", address) == 0
        assert ask("--timeout", "1", address) == ask("--address", address, "--timeout", "1") == 0
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    assert parser.parse_args([]).address == COMMANDS


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:5557", "is the station running?"),
        ("ipc:///run/line-1", "is the station running?"),
        ("tcp://10.0.0.7:5557", "is the station running? Other machines reach it with keys only"),
    ],
)
def test_silence_is_not_blamed_on_keys_that_nobody_gave(address, words):
    assert why_silent(address, has_keys=False) == words
