"""The file of the page."""

from __future__ import annotations

from inspector.config.console_file import load_console


def test_the_pages_folder_does_not_depend_on_where_its_jobs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "console.yaml"
    path.write_text("stations: {line-1: {}}\nstate: console-state\n", encoding="utf-8")
    assert load_console(path).state == tmp_path / "console-state"
    path.write_text("stations: {line-1: {}}\n", encoding="utf-8")
    assert load_console(path).state is None
