"""Every benchmark runs as a module, and says so."""

from __future__ import annotations

import importlib
import runpy
import sys

import pytest

from tests.paths import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
for _name in MODULES:
    # Before the tests: OpenVINO starts a thread when it is imported, which no test may leave.
    importlib.import_module(_name)


def test_the_benchmarks_that_documents_name_are_modules() -> None:
    assert {
        "benchmarks.accuracy.__main__",
        "benchmarks.faults.__main__",
        "benchmarks.plc.__main__",
        "benchmarks.speed.end_to_end.__main__",
        "benchmarks.speed.latency",
        "benchmarks.speed.rivals.__main__",
    } <= {*MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_help_names_the_command(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "argv", ["", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    command = module.removesuffix(".__main__")
    assert capsys.readouterr().out.startswith(f"usage: python -m {command} ")
