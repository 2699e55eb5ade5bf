"""The benchmark of families: every point is measured, or named as missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy import families

QUICK = ["--good", "12", "--test", "8", "--size", "64"]


def test_the_curves_go_through_the_middle_point(tmp_path: Path) -> None:
    line = ["--families", "brushed", "--axes", "few", "--methods", "padim", *QUICK]
    assert families.main([*line, "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "families.json").read_text())
    assert [(one["point"]["axis"], one["point"]["good"]) for one in document["points"]] == [
        ("middle", 12),
        # 12 photos are the middle point's already.
        *(("few", int(value)) for value in families.AXES["few"][1][1:]),
    ]
    for one in document["points"]:
        assert 0.0 <= one["figures"]["image_auroc"] <= 1.0
    assert document["missing"] == []
    assert "| brushed | padim | 80 |" in (tmp_path / "families.md").read_text()
    assert (tmp_path / "families.png").read_bytes().startswith(b"\x89PNG")


def test_points_vary_one_property_at_a_time() -> None:
    first, *others = families.points("gear", tuple(families.AXES), 40)
    assert first.axis == "middle"
    for point in others:
        differs = [
            name
            for name in ("shift_px", "turn_deg", "texture", "light")
            if getattr(point.conditions, name) != getattr(first.conditions, name)
        ]
        differs += ["good"] if point.good != first.good else []
        assert len(differs) == 1, point


def test_when_time_is_up_the_rest_is_named(tmp_path: Path) -> None:
    line = ["--families", "gear", "--axes", "light", "--methods", "padim", "--minutes", "0", *QUICK]
    assert families.main([*line, "--out", str(tmp_path)]) == 1
    document = json.loads((tmp_path / "families.json").read_text())
    assert len(document["points"]) == 1
    assert len(document["missing"]) == len(families.AXES["light"][1])
    assert "the time was up" in (tmp_path / "families.md").read_text()


@pytest.mark.parametrize("option", [("--families", "bolt"), ("--axes", "heat"), ("--methods", "x")])
def test_a_wrong_name_is_refused(
    tmp_path: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert families.main([*option, "--out", str(tmp_path)]) != 0
    assert f"{option[0]}: no {option[1]}; there are" in " ".join(capsys.readouterr().err.split())


def test_the_middle_points_of_all_families_lie_on_one_axis():
    measured = [
        families.Measured(point, "padim", 0, {"image_auroc": 0.5})
        for family in ("brushed", "gear")
        for point in families.points(family, ("turned",), 40)
    ]
    assert families.ticks_of(measured, "turned") == [0, 1, 4, 10, 180]
    assert families.curve(measured, "gear", "padim", "turned", "image_auroc") == [
        (value, 0.5) for value in (0, 4, 10, 180)
    ]
