from __future__ import annotations

from tests.export.conftest import parts, roomy, trained

__all__ = ["parts", "roomy", "trained"]
