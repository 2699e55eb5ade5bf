"""The bridge's own file: read, written, damaged, and what that costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspector.bridges.position import Position, PositionFile
from inspector.errors import ConfigError


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "state"
    made = PositionFile(path, 7)
    assert (made.last, made.since_us, made.missing) == (None, 7, 0)
    made.acknowledge(Position("e", 3))
    made.lack(5)
    assert made.next_birth() == 0
    made.close()
    again = PositionFile(path, 9)
    assert (again.last, again.since_us, again.missing) == (Position("e", 3), 7, 5)
    assert again.next_birth() == 1
    with pytest.raises(ConfigError, match="another bridge uses it"):
        PositionFile(path, 9)
    again.close()


WHOLE = {"since_us": 1, "births": 3, "missing": 0, "epoch": "e", "seq": 4}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        bytes(200),
        json.dumps(WHOLE).encode()[:-9],
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 200_000,
        b'{"since_us": ' + b"9" * 5000 + b"}",
        *(
            json.dumps(WHOLE | change).encode()
            for change in (
                {"seq": -1},
                {"seq": 2**60},
                {"seq": "4"},
                {"seq": 1.5},
                {"seq": True},
                {"seq": None},
                {"epoch": 4},
                {"epoch": {"a": 1}},
                {"epoch": "x" * 65},
                {"epoch": None},
                {"births": 300},
                {"births": -2},
                {"since_us": -1},
                {"since_us": None},
                {"missing": -1},
                {"what": 1},
            )
        ),
    ],
    ids=lambda text: repr(text[:60]),
)
def test_what_is_no_state_file_is_refused_in_one_line_and_left_alone(tmp_path, text):
    path = tmp_path / "state"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        PositionFile(path, 0)
    assert str(path) in str(caught.value) and "delete it" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert path.read_bytes() == text
    # Nobody is locked out by the failure.
    path.unlink()
    PositionFile(path, 0).close()


def test_a_file_of_the_version_before_is_read(tmp_path):
    path = tmp_path / "state"
    path.write_text('{"since_us": 1, "births": -1}')
    made = PositionFile(path, 0)
    assert (made.last, made.births, made.missing) == (None, -1, 0)
    made.close()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="its folder must be there"):
        PositionFile(tmp_path / "no" / "state", 0)
    (tmp_path / "state").mkdir()
    with pytest.raises(ConfigError, match="cannot be used"):
        PositionFile(tmp_path / "state", 0)


def test_a_disk_that_takes_nothing_is_told_once_until_it_is_well(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("inspector.bridges.position._EVERY_S", 0.0)
    caplog.set_level("INFO", "inspector")
    folder, away = tmp_path / "disk", tmp_path / "away"
    folder.mkdir()
    made = PositionFile(folder / "state", 0)
    folder.rename(away)
    for seq in range(1, 6):
        made.acknowledge(Position("e", seq))
    assert caplog.text.count("state not written") == 1
    away.rename(folder)
    made.acknowledge(Position("e", 6))
    assert caplog.text.count("state written again") == 1
    made.close()
    again = PositionFile(folder / "state", 0)
    assert again.last == Position("e", 6)
    again.close()
