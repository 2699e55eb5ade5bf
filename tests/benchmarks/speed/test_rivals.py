"""The rivals benchmark: no figure without a measurement, ratios of one run, goals that can fail."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("memory is read from /proc", allow_module_level=True)

from benchmarks.speed.rivals import environments, plan, report, turns
from benchmarks.speed.rivals.plan import Entry, Source
from benchmarks.speed.rivals.report import Row
from tests import tiny

GROUP = "resnet18-224"


def rows(**p50: float | None) -> dict[str, object]:
    names = {"fp32": plan.OURS["fp32"], "int8": plan.OURS["int8"], "bf16": plan.CFA}
    names |= {"f32": f"{plan.CFA} f32", "blurred": plan.BLURRED, "plain": plan.PATCHCORE}
    return {"rows": [{"name": names[key], "p50": value} for key, value in p50.items()]}


def test_ratios_are_against_the_same_run():
    found = [Row(plan.BACKBONE, 4.0), Row(plan.OURS["fp32"], 5.0), Row("rival", 20.0)]
    found += [Row("skipped", note="no such layer")]
    report.compare(found)
    assert found[2].to_backbone == 5.0
    assert found[2].to_ours == {"fp32": 4.0}
    assert (found[3].to_backbone, found[3].to_ours) == (None, {})


def test_goals_hold_miss_or_stay_open():
    held = rows(fp32=6.0, int8=1.0, bf16=8.0, f32=30.0, blurred=10.0, plain=5.0)
    by_name = {goal["name"]: goal for goal in report.goals({GROUP: held})}
    fastest = by_name[f"{GROUP}: our int8 / anomalib's CFA, OpenVINO at its fastest"]
    assert (fastest["value"], fastest["holds"]) == (0.125, True)
    assert by_name[f"{GROUP}: our fp32 / anomavision's PatchCore with blur"]["holds"] is True
    assert by_name[f"{GROUP}: our fp32 / anomavision's PatchCore, no blur"]["holds"] is False
    slower = rows(fp32=6.1, int8=1.1, bf16=8.0, f32=30.0, blurred=10.0, plain=None)
    by_name = {goal["name"]: goal for goal in report.goals({GROUP: slower})}
    assert by_name[f"{GROUP}: our fp32 / anomavision's PatchCore with blur"]["holds"] is False
    assert by_name[fastest["name"]]["holds"] is False
    left_open = by_name[f"{GROUP}: our int8 / anomavision's PatchCore, no blur"]
    assert (left_open["value"], left_open["holds"]) == (None, None)


def test_every_group_has_its_backbone_ours_and_rivals():
    for group, (backbone, size) in plan.GROUPS.items():
        entries = plan.plan(group)
        names = [entry.name for entry in entries]
        assert len(set(names)) == len(names)
        assert {plan.BACKBONE, *plan.OURS.values(), plan.CFA, plan.BLURRED} <= {*names}
        assert {entry.source.size for entry in entries} == {size}
        assert entries[0].source.backbone == backbone


def test_rows_without_a_model_have_a_reason_and_no_figure(tmp_path):
    folder = tmp_path / "models" / "ours-cfa-tiny-64"
    folder.mkdir(parents=True)
    tiny.write_bundle(folder / "model.onnx")
    np.save(folder / "input.npy", tiny.good_picture()[None])
    (folder / "torn.onnx").write_bytes(b"no model")
    here, gone = Source("ours", "cfa", "tiny", 64), Source("anomalib", "cfa", "tiny", 64)
    entries = [Entry("tiny", here, "model.onnx"), Entry("torn", here, "torn.onnx")]
    entries.append(Entry("gone", gone, "model.onnx"))
    options = argparse.Namespace(environments=tmp_path, rounds=2)
    found = turns.measure(GROUP, entries, {gone: "its layer is too large"}, options)
    measured, torn, skipped = found
    assert measured.p50 is not None and 0 < measured.p50 <= measured.p90
    assert measured.memory_mb is not None and 5 < measured.memory_mb < 5000
    assert measured.map == [64, 64]
    assert torn.p50 is None and "model" in torn.note
    assert skipped.note == "its layer is too large"
    name, *figures, note = report.cells(skipped)
    assert {*figures} == {"–"}
    assert (name, note) == ("gone", "its layer is too large")


def test_a_failed_build_is_told_in_its_own_words_and_remembered(tmp_path):
    source = Source("ours", "cfa", "resnet18", 64)
    reason = environments.build(source, tmp_path)
    assert "No such file" in reason and "photos" in reason
    assert (tmp_path / "models" / source.folder / "made").read_text().endswith(reason)


def test_size_counts_the_weights_beside_the_file(tmp_path):
    for name, count in (("model.onnx", 1000), ("model.onnx.data", 2000), ("other.bin", 9000)):
        (tmp_path / name).write_bytes(bytes(count))
    assert turns.model_mb(tmp_path / "model.onnx") == pytest.approx(0.003)
