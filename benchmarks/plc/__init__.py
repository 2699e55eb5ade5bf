"""What the bridges to PLCs promise, counted and timed with PLCs that work as PLCs do.

``__main__.py`` runs the rows that ``rows.py`` names, each a module of its own with a ``ROW``. The
others are what rows share: ``line.py`` has station, bridge and cables, ``books.py`` the accounts of
parts, ``disturbances.py`` what is done to a line, ``modbus_plc.py`` and ``opcua_plc.py`` the PLCs.
"""
