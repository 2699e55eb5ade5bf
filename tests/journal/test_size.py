"""The bytes that a verdict takes in the journal are those that the documentation names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inspector.wire.messages import VerdictMessage
from tests.paths import ROOT
from tests.stations import Recorded

DOCS = ROOT / "docs"
VERDICTS = 4000
EXAMPLE = json.loads(
    next(
        text
        for text in re.findall(r"```json\n(.*?)\n```", (DOCS / "wire.md").read_text(), re.DOTALL)
    )
)
PASSED = {"verdict": "PASS", "reason": "", "detail": "", "regions": [], "score": 0.4637281894683838}
TRIGGERED = {
    "client": "plc",
    "session": "2026-11-29T02:10",
    "part_id": "S/N 00004711",
    "triggered_us": 1714557610000000,
}


@pytest.mark.parametrize("changes", [PASSED, {}, PASSED | TRIGGERED])
def test_a_verdict_takes_what_the_pages_say(tmp_path: Path, changes: dict[str, Any]) -> None:
    recorded = Recorded(tmp_path)
    for first in range(1, VERDICTS, 500):
        recorded.commit(
            [
                VerdictMessage.model_validate(
                    EXAMPLE
                    | changes
                    | {"seq": seq}
                    | {"trigger_seq": seq if "client" in changes else None}
                )
                for seq in range(first, first + 500)
            ]
        )
    recorded.close()
    each = sum(path.stat().st_size for path in tmp_path.glob("verdicts*")) / VERDICTS
    for page in ("journal.md", "operations.md"):
        low, high = re.search(
            r"([\d.]+) to ([\d.]+) kB", (DOCS / page).read_text(encoding="utf-8")
        ).groups()
        assert 0.95 * float(low) <= each / 1000 <= 1.05 * float(high), page
