"""Every verdict on disk, before it is published; and the pictures that are kept.

``Reader`` is for everybody's programs; ``writer`` is the station's. Both know the tables from
``schema``, and together the three are the only owners of sqlite3.
"""

from inspector.journal.reader import Reader

__all__ = ["Reader"]
