"""Bridges to PLCs: one handshake for every fieldbus, and a thin skin for each (docs/plc/)."""
