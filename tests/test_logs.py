from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inspector import logs
from tests.paths import ROOT


def run(program: str, path: Path, journal: bool | str = False) -> tuple[int, list[str]]:
    """A program of its own with standard error in ``path``, as systemd would start it."""
    environment = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
    with path.open("wb") as errors:
        status = os.fstat(errors.fileno())
        if journal:
            environment["JOURNAL_STREAM"] = (
                journal if isinstance(journal, str) else f"{status.st_dev}:{status.st_ino}"
            )
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=errors, env=environment, check=False
        )
    return done.returncode, path.read_text(encoding="utf-8").splitlines()


SAY = """
import logging
from inspector.logs import say, to_stderr
to_stderr()
say("state", state="Ready", last_seq=0, detail="")
say("fault", logging.WARNING, detail="no frame for 500 ms")
say("camera hangs", logging.ERROR, camera="top")
"""


def test_an_event_is_one_line_with_time_and_level(tmp_path):
    code, lines = run(SAY, tmp_path / "log")
    assert code == 0
    times = [line.split(" ", 1)[0] for line in lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment) for moment in times)
    assert [line.split(" ", 1)[1] for line in lines] == [
        "INFO state state=Ready last_seq=0",
        'WARNING fault detail="no frame for 500 ms"',
        "ERROR camera hangs camera=top",
    ]


def test_journald_gets_priorities_and_no_time(tmp_path):
    code, lines = run(SAY, tmp_path / "log", journal=True)
    assert code == 0
    assert lines == [
        "<6>state state=Ready last_seq=0",
        '<4>fault detail="no frame for 500 ms"',
        "<3>camera hangs camera=top",
    ]


def test_journal_of_the_parent_is_not_ours(tmp_path):
    _, lines = run(SAY, tmp_path / "log", journal="8:15")
    assert not any(line.startswith("<") for line in lines)


@pytest.mark.parametrize("thread", [False, True])
def test_a_crash_is_critical_with_its_traceback(tmp_path, thread):
    work = "def work():\n    raise OSError('a=b\\nREADY')\n"
    start = "import threading; threading.Thread(target=work, name='grab').start()"
    program = f"from inspector.logs import to_stderr\nto_stderr()\n{work}"
    code, lines = run(program + (start if thread else "work()"), tmp_path / "log", journal=True)
    assert code == (0 if thread else 1)
    assert lines[0] == f"<2>crash {'thread=grab ' if thread else ''}error=OSError"
    assert lines[1] == "<2>Traceback (most recent call last):"
    assert lines[-2:] == ["<2>OSError: a=b", "<2>READY"]
    assert all(line.startswith("<2>") for line in lines)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain-1.png", "plain-1.png"),
        (r"m\udcff.png", r"m\udcff.png"),
        ("Stück", "Stück"),
        ("zwei Stück", '"zwei Stück"'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\nstate state=Ready", '"a\\nstate state=Ready"'),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("\x85\u2028\x7f", '"\\u0085\\u2028\\u007f"'),
        ("\udcff", '"\\udcff"'),
    ],
)
def test_what_comes_from_outside_stays_one_field(value, shown):
    assert logs.quoted(value) == shown
    assert shown.isprintable()
    if shown.startswith('"'):
        assert json.loads(shown) == value


def test_say_leaves_out_what_is_empty(caplog):
    caplog.set_level(logging.INFO, "inspector")
    logs.say("state", state="Ready", detail="", part=None, seq=0)
    assert caplog.messages == ["state state=Ready part=None seq=0"]


def test_the_page_has_every_event():
    root = ROOT
    said = {"crash"}
    for source in (root / "inspector").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        said |= set(re.findall(r'\bsay\(\s*"([^"]+)"', text))
        said |= set(re.findall(r'\bRefusals\("([^"]+)"', text))
        said |= set(re.findall(r'\bsay\("[^"]+" if \w+ else "([^"]+)"', text))
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("| event | priority |")[2].partition("\n\n")[0]
    listed = {
        event
        for row in table.splitlines()
        if row.startswith("| `")
        for event in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    assert "fault" in said
    assert said - listed == set()
    assert listed - said == set()
