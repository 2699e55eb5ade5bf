"""The daemon: one start of one station, from its cameras to its verdicts."""
