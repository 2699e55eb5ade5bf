from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridges.lines import Line


@pytest.fixture
def line(tmp_path: Path, bundle_path: Path) -> Iterator[Line]:
    """A station and a bridge that a test starts."""
    with contextlib.ExitStack() as stack:
        yield Line(tmp_path, bundle_path, stack)
