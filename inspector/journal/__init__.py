"""Every verdict on disk, before it is published; and the pictures that are kept.

:class:`Reader` is for everybody's programs, with :class:`Delivered` for what became of a verdict.
``writer`` is the station's, and both know the tables by ``schema``; the three are the only owners
of sqlite3. ``pictures`` writes and reads the pictures.
"""

from inspector.journal.reader import Reader
from inspector.journal.schema import Delivered

__all__ = ["Delivered", "Reader"]
