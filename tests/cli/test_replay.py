from __future__ import annotations

import argparse
import builtins
import contextlib
import csv
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from inspector.cli import export_verdicts
from inspector.cli import replay as replay_command
from inspector.cli.arguments import moment
from inspector.config.station_file import JournalSettings
from inspector.detection.detector import Detector
from inspector.errors import ConfigError, JournalError, OutputError
from inspector.imaging.geometry import Box
from inspector.journal.pictures import FOLDER, Archive, pictures
from inspector.journal.writer import Journal
from inspector.verdict import Verdict
from inspector.wire.rows import COLUMNS
from tests import tiny
from tests.records import EPOCH, NOW_US, answer, trigger, verdict

STATION = """
station: line-1
provider: cpu
journal: {{folder: {folder}}}
cameras: [{{name: top, kind: simulator}}]
recipes: {{r: {{top: {{bundle: tiny.onnx}}}}}}
recipe: r
"""


def command(name: str, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add, run = {
        "replay": (replay_command.add_arguments, replay_command.run),
        "export": (export_verdicts.add_arguments, export_verdicts.run),
    }[name]
    add(parser)
    return run(parser.parse_args([str(each) for each in arguments]))


def keep(folder: Path, bundle: Path, *frames: np.ndarray, **changes: Any) -> list[Verdict]:
    """Judge the frames with a bundle, and keep them all."""
    archive = Archive(folder, JournalSettings(reserve_mb=1, pass_share=1.0))
    detector = Detector.load(bundle, "cpu")
    said = []
    for seq, frame in enumerate(frames, 1):
        judged = detector.judge(frame)
        message = verdict(
            seq, verdict=judged.verdict, score=judged.score, reason=judged.reason.value, **changes
        )
        assert archive.keep(message, frame, judged.anomaly_map)
        said.append(judged.verdict)
    return said


def grey(level: int) -> np.ndarray:
    """Level 192 is the tiny bundle's limit: 64 above 128."""
    return np.full((64, 64, 3), level, dtype=np.uint8)


def strict(path: Path) -> Path:
    """A bundle whose limit is 32 grey levels, its golden scores to match."""

    def halve(model: Any) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "threshold":
                tensor.raw_data = np.float32(32.0).tobytes()

    graph = tiny.model()
    halve(graph)
    return tiny.write_bundle(path, halve, version="2", golden=tiny.manifest(graph)["golden"])


def test_same_bundle_changes_nothing(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = keep(tmp_path, bundle_path, grey(128), grey(180), grey(200), tiny.nan_picture())
    assert said == ["PASS", "PASS", "FAIL", "FAULT"]
    assert command("replay", tmp_path, "--bundle", bundle_path) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "4 pictures judged with tiny 1"
    rows = [line.split() for line in out.splitlines()[3:]]
    assert rows == [
        ["PASS", "2", "0", "0", "0.0%"],
        ["FAIL", "0", "1", "0", "0.0%"],
        ["FAULT", "not_finite", "0", "0", "1", "0.0%"],
    ]


def test_other_bundle_says_what_would_change(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, bundle_path, *(grey(level) for level in (128, 150, 170, 180, 200)))
    assert command("replay", tmp_path, "--bundle", strict(tmp_path / "2.onnx"), "--show", 1) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "5 pictures judged with tiny 2"
    rows = [line.split() for line in out.splitlines()]
    assert ["PASS", "2", "2", "0", "50.0%"] in rows
    assert ["FAIL", "0", "1", "0", "0.0%"] in rows
    changed = [line for line in out.splitlines() if "->" in line]
    assert len(changed) == 1
    assert changed[0].endswith("PASS 0.656 -> FAIL 1.312")
    assert "part-3" in changed[0]
    assert "... and 1 more (--show N)" in out


def test_replay_judges_as_the_part_was_judged(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.full((200, 300, 3), 255, dtype=np.uint8)
    frame[20:84, 40:104] = 190
    archive = Archive(tmp_path, JournalSettings(reserve_mb=1))
    said = verdict(1, verdict="FAIL", score=1.1, reason="anomaly", limit_factor=0.5)
    archive.keep(said, frame, None, Box(x=40, y=20, w=64, h=64), checked=False)
    command("replay", tmp_path, "--bundle", bundle_path)
    assert "FAIL" in capsys.readouterr().out.splitlines()[3]
    command("replay", tmp_path, "--bundle", bundle_path, "--limit-factor", 1)
    assert "FAIL 1.100 -> PASS 0.969" in capsys.readouterr().out


def test_picture_that_is_not_fit_is_a_fault_in_the_replay_too(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    black = verdict(1, verdict="FAIL", score=2.0, reason="anomaly")
    Archive(tmp_path, JournalSettings(reserve_mb=1)).keep(black, grey(0))
    limits = {"brightness": (100.0, 140.0), "sharpness": (0.0, 1e9)}
    bundle = tiny.write_bundle(tmp_path / "lit.onnx", exposure=limits)
    command("replay", tmp_path, "--bundle", bundle)
    assert "FAIL 2.000 -> FAULT too_dark" in capsys.readouterr().out


def test_station_file_names_the_folder_and_choices_narrow(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state"
    keep(folder, bundle_path, *[grey(128)] * 5)
    station = tmp_path / "station.yaml"
    station.write_text(STATION.format(folder=folder))

    def count(*choice: object) -> str:
        command("replay", station, "--bundle", bundle_path, *choice)
        return capsys.readouterr().out.partition(" ")[0]

    assert count() == "5"
    assert count("--camera", "top") == "5"
    assert count("--since", "2024-05-01T10:00:03Z", "--until", "2024-05-01T10:00:05Z") == "2"
    with pytest.raises(ConfigError, match=r"--camera side: .* knows no such camera; it knows top"):
        count("--camera", "side")
    with pytest.raises(JournalError, match="no pictures to replay"):
        count("--until", "2001-01-01")


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf", "1e999", "much"])
def test_limit_factor_is_a_number_above_0(tmp_path, bundle_path, capsys, factor) -> None:
    with pytest.raises(SystemExit) as ended:
        command("replay", tmp_path, "--bundle", bundle_path, f"--limit-factor={factor}")
    assert ended.value.code == 2
    assert f"'{factor}' is no number above 0" in capsys.readouterr().err


def test_broken_and_vanished_pictures_are_counted(
    tmp_path: Path,
    bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep(tmp_path, bundle_path, *[grey(128)] * 3)
    first, second, _ = (picture.path for picture in pictures(tmp_path))
    first.write_bytes(first.read_bytes()[:-20])
    real = Detector.load

    def load(*arguments: Any) -> Detector:
        # Deleted after the list was made, as a daemon that keeps others may do.
        second.unlink()
        return real(*arguments)

    monkeypatch.setattr(Detector, "load", load)
    command("replay", tmp_path, "--bundle", bundle_path)
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == (
        "1 pictures judged with tiny 1; 1 were deleted meanwhile; 1 cannot be read"
    )
    assert "truncated; left out" in said.err


def test_a_day_that_cannot_be_read_forges_no_line(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, bundle_path, grey(128))
    # A link to itself is a folder that nobody can read, root included.
    day = tmp_path / FOLDER / "2024-05-01\x1b[2J\r\nPASS\u202e"
    day.symlink_to(day.name)
    assert command("replay", tmp_path, "--bundle", bundle_path) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "2024-05-01\\x1b[2J\\r\\nPASS\\u202e: cannot be read: " in line


def record(folder: Path) -> list[Any]:
    messages = [
        answer(1, trigger(2**52, part_id='a,"b"\nc;ä')),
        verdict(2, verdict="FAULT", score=None, reason="camera_lost", model=None, grabbed_us=None),
        verdict(3, regions=({"x": 1, "y": 2, "w": 3, "h": 4, "peak": 1.5},)),
    ]
    with contextlib.closing(Journal(folder, verdict_days=36_500)) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], messages)
    return messages


def test_csv_has_every_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = record(tmp_path)
    assert command("export", tmp_path, "-o", tmp_path / "out.csv") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.csv'}: 3 verdicts\n"
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == set(COLUMNS)
    published = set(type(messages[0]).model_fields) - {"schema_", "regions", "model"}
    # Never true in a journal.
    published -= {"repeated"}
    assert published <= set(COLUMNS)
    # A cell begins no line of its own, also for readers that know no quotes.
    assert rows[0]["part_id"] == 'a,"b"\\nc;ä'
    assert rows[0]["trigger_seq"] == str(2**52)
    assert rows[0]["judged_at"] == "2024-05-01T10:00:01.000000+00:00"
    assert (rows[1]["score"], rows[1]["model_name"], rows[1]["verdict"]) == ("", "", "FAULT")
    assert json.loads(rows[2]["regions"]) == [{"x": 1, "y": 2, "w": 3, "h": 4, "peak": 1.5}]


def test_parquet_has_types(tmp_path: Path) -> None:
    record(tmp_path)
    assert command("export", tmp_path, "-o", tmp_path / "out.parquet") == 0
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == list(COLUMNS)
    assert table.column("trigger_seq").to_pylist() == [2**52, None, None]
    assert table.column("score").to_pylist() == [0.25, None, 0.25]
    assert str(table.schema.field("judged_at").type) == "timestamp[us, tz=UTC]"
    assert table.column("judged_at").to_pylist()[0].timestamp() * 1e6 == NOW_US + 1_000_000


def test_export_while_the_station_writes(tmp_path: Path) -> None:
    stop = threading.Event()
    with contextlib.closing(Journal(tmp_path, verdict_days=36_500)) as journal:
        journal.begin(EPOCH, 1)
        journal.commit([], [verdict(seq) for seq in range(1, 2001)])

        def write() -> None:
            seq = 2000
            while not stop.is_set():
                seq += 1
                journal.commit([], [verdict(seq)])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            command("export", tmp_path, "-o", tmp_path / "out.csv")
        finally:
            stop.set()
            writer.join()
    with (tmp_path / "out.csv").open(newline="") as file:
        seqs = [int(row["seq"]) for row in csv.DictReader(file)]
    assert len(seqs) >= 2000
    assert seqs == list(range(1, len(seqs) + 1))


def test_export_within_times(tmp_path: Path) -> None:
    record(tmp_path)
    narrow = ("--since", "2024-05-01T10:00:02Z", "--until", "2024-05-01T10:00:03Z")
    command("export", tmp_path, "-o", tmp_path / "out.csv", *narrow)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_export_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path)
    with pytest.raises(ConfigError, match=r"must end in \.csv or \.parquet"):
        command("export", tmp_path, "-o", "out.xlsx")
    with pytest.raises(ConfigError, match="no such folder; give a station file"):
        command("export", tmp_path / "none", "-o", "out.csv")
    with pytest.raises(OutputError, match=r"out\.csv: cannot be written: No such file"):
        command("export", tmp_path, "-o", tmp_path / "none" / "out.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JournalError, match="no journal there"):
        command("export", tmp_path / "empty", "-o", tmp_path / "out.csv")

    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OutputError, match=r"\[parquet\]', or write out"):
        command("export", tmp_path, "-o", tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7w", "2024-13-01", "9999999d", "-1d"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is no time; give 2024-05-01"):
        moment(text)


def test_times() -> None:
    assert moment("2024-05-01T10:00:00Z") == NOW_US
    assert moment("2024-05-01T12:00:00+02:00") == NOW_US
    now = moment("0m")
    assert now - moment("2h") == pytest.approx(7_200_000_000, abs=1_000_000)
    assert now - moment("7d") == pytest.approx(604_800_000_000, abs=1_000_000)
