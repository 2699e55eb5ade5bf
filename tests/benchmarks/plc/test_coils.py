"""The row of PASS coils counts what stays on, and what goes on for no part."""

from __future__ import annotations

import contextlib

from benchmarks.plc import coils
from tests import tiny


def held(pulses: list[coils.Pulse], edges: list[float]) -> dict[str, bool | None]:
    found = coils.figures(pulses, edges, [0.01], [0.005], [0.001])
    return {figure.name: figure.holds for figure in found if figure.holds is not None}


LONGER, ANOTHER = "on longer than pulse + watchdog", "on at another moment than a part's"


def test_a_pulse_that_is_too_long_and_one_of_no_part_are_counted():
    at_s = 10.0 + coils.DELAY_S
    assert held([(at_s + 0.01, 0.3)], [10.0]) == {LONGER: True, ANOTHER: True}
    assert held([(at_s + 0.01, 0.301)], [10.0])[LONGER] is False
    for strange_s in (at_s - 0.01, at_s + 0.5, 0.0):
        assert held([(strange_s, 0.1)], [10.0])[ANOTHER] is False


def test_a_module_without_a_watchdog_is_found_out(tmp_path):
    """Its watchdog is turned off after the bridge has seen it on."""
    with contextlib.ExitStack() as stack:
        line = coils.Disturbed(tmp_path, stack)
        line.start_station(tiny.write_bundle(tmp_path / "tiny.onnx"), tiny.good_picture())
        line.disturb("kill", 0.0)
        assert held(line.on_times(), line.edges) == {LONGER: True, ANOTHER: True}
        line.module.is_guarded = True
        line.until_healthy()
        line.module.is_guarded = False
        line.disturb("kill", 0.0)
        assert held(line.on_times(), line.edges)[LONGER] is False
