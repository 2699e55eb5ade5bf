from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import running
from tests.console import serving


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    """A station on a simulated belt; tests of one file share it."""
    folder = tmp_path_factory.mktemp("line")
    with running.running(serving.write_demo_station(folder)) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ")
        yield daemon


@pytest.fixture(scope="module")
def tiny_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    """A station that is there at once; a file that overrides ``line`` by it has it served."""
    station = serving.write_tiny_station(tmp_path_factory.mktemp("line"))
    with running.running(station) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ")
        yield daemon


@pytest.fixture(scope="module")
def served(
    line: running.Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.Served]:
    """The page of that station, without users; tests of one file share it."""
    folder = tmp_path_factory.mktemp("console")
    with serving.serving(folder, {"line-1": serving.addresses(line)}) as made:
        yield made


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    with serving.browser() as made:
        yield made
