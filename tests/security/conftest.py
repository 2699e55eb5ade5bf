from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.parties import Parties


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    folder: Path = tmp_path_factory.mktemp("keys")
    return Parties(folder)
