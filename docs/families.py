"""Draws ``families.jpg``: parts of every family of the simulator, good ones and defects.

    python docs/families.py

The picture of `docs/cameras.md`. To be run again when a family is drawn otherwise.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from inspector.cameras.simulated import families
from inspector.cameras.simulated.conveyor import GOOD, Domain
from inspector.imaging.heatmaps import contact_sheet

COLUMNS = 6
SIZE = (256, 192)


def main() -> None:
    """A row a family: two good parts, then defects with the outline of their masks."""
    tiles = []
    for family in families.NAMES:
        kinds = [GOOD, GOOD, *families.defects(family)][:COLUMNS]
        for index, kind in enumerate(kinds):
            part = families.draw_part(
                family,
                families.conditions(family),
                seed=1,
                index=index,
                kind=kind,
                domain=Domain.TEST_DEFECTIVE,
            )
            found, _ = cv2.findContours(
                part.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(part.image, found, -1, (60, 60, 255), 2)
            small = cv2.resize(part.image, SIZE, interpolation=cv2.INTER_AREA)
            tiles.append((f"{family}: {kind.replace('_', ' ')}", small))
    sheet = contact_sheet(tiles, COLUMNS)
    made, data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 62])
    assert made
    (Path(__file__).parent / "families.jpg").write_bytes(data.tobytes())


if __name__ == "__main__":
    main()
