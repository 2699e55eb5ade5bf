"""A process that records and says what is recorded, for a test that kills it.

Each commit has one new trigger and the answer to the one before: 'T n' and 'V n' are written to
standard output once that is on the disk.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inspector.journal.writer import Journal
from tests.records import answer, trigger


def main(folder: str, epoch: str) -> None:
    journal = Journal(Path(folder))
    left = len(journal.begin(epoch, 1).unanswered)
    number = 0
    os.write(1, f"R {left}\n".encode())
    while True:
        number += 1
        asked = trigger(number, session=epoch)
        answers = []
        if number > 1:
            before = trigger(number - 1, session=epoch)
            answers = [answer(number - 1, before, epoch=epoch)]
        journal.commit([asked], answers)
        os.write(1, f"T {number}\nV {number - 1}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
