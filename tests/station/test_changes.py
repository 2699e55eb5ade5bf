"""What was changed in a station file since the start is told, as it counts from the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from inspector.cli.output import Lines, Screen
from inspector.client import Commander
from inspector.config.station_file import changed_keys, load_station
from inspector.errors import CommandError
from inspector.station.changes import say_changes
from tests import running, tiny


def station_file(folder: Path, bundle: Path) -> Path:
    parts = running.write_parts(folder / "parts", tiny.good_picture())
    camera = running.folder_camera(parts, trigger="software", loop=True, deadline_ms=5000)
    recipes = {name: {"top": {"bundle": str(bundle), "limit_factor": 1.5}} for name in "ab"}
    return running.write_station(
        folder / "station.yaml", bundle, camera, recipes=recipes, recipe="a"
    )


def change(path: Path, **keys: Any) -> None:
    document = yaml.safe_load(path.read_text())
    for key, value in keys.items():
        *above, last = key.split("__")
        where = document
        for name in above:
            where = where[int(name) if isinstance(where, list) else name]
        where[last] = value
    path.write_text(yaml.safe_dump(document))


def test_reload_and_recipe_say_that_a_changed_file_counts_from_the_next_start(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = station_file(tmp_path, bundle_path)
    with running.running(path) as daemon, Commander(daemon.commands) as desk:
        assert "changed since" not in desk.reload()
        assert desk.status().cameras[0].limit_factor == 1.5
        code, out, _ = running.inside("status", daemon.commands)
        assert "limit_factor 1.5 (tolerates more)" in out
        Lines(Screen()).status(desk.status())
        assert "top running with limit_factor 1.5 (tolerates more)" in capsys.readouterr().out
        change(path, recipes__a__top__limit_factor=0.8)
        said = desk.reload()
        assert "changed since this start (recipes.a.top.limit_factor)" in said
        assert "counts from the next start" in said
        assert "changed since this start" in desk.recipe("b")
        assert "station file changed" in daemon.log
        # The station judges on as it was started.
        assert desk.trigger("top", 1).limit_factor == 1.5
        with pytest.raises(CommandError, match="known from the next start"):
            desk.recipe("c")
    assert code == 0


def test_keys_are_named_wherever_they_stand(tmp_path: Path, bundle_path: Path) -> None:
    path = station_file(tmp_path, bundle_path)
    before = load_station(path)
    assert changed_keys(before, load_station(path)) == []
    assert say_changes(path, before, 10.0) == ""
    change(path, cameras__0__deadline_ms=4000, queue_size=3, journal={"verdict_days": 9})
    assert changed_keys(before, load_station(path)) == [
        "cameras.top.deadline_ms",
        *changed_keys_of_journal(before, path),
        "queue_size",
    ]
    change(path, stale_trigger_ms=7)
    assert " more); that counts from the next start" in say_changes(path, before, 10.0)


def changed_keys_of_journal(before: Any, path: Path) -> list[str]:
    now = load_station(path).journal
    return [
        f"journal.{name}"
        for name in sorted(type(now).model_fields)
        if getattr(before.journal, name) != getattr(now, name)
    ]


def test_a_file_that_is_wrong_or_gone_is_told(tmp_path: Path, bundle_path: Path) -> None:
    path = station_file(tmp_path, bundle_path)
    before = load_station(path)
    path.write_text("station: [")
    assert "next start would refuse the station file" in say_changes(path, before, 10.0)
    path.unlink()
    assert "cannot be read now" in say_changes(path, before, 10.0)
