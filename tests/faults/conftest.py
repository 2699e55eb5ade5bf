"""A station of one camera with a good and a bad part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import running, tiny


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())


@pytest.fixture
def station(tmp_path: Path, bundle_path: Path, parts: Path) -> Path:
    return running.write_station(
        tmp_path / "station.yaml", bundle_path, running.folder_camera(parts)
    )
