"""``inspector tune``: the fastest engine that keeps the verdicts, for this bundle and machine."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inspector import Detector
from inspector.cli import main as cli
from inspector.cli.engine_trials import BundleOnEngine, EngineTrial, choose
from inspector.detection import bundle as bundles
from inspector.detection.engines import Engine, base, openvino, tuned
from tests import running, tiny
from tests.paths import ROOT

DEMO = ROOT / "config" / "demo.onnx"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main(["tune", *map(str, words), "--rounds", "4"]) == 0
    return capsys.readouterr().out


OPENVINO = tuned.library(Engine(provider="openvino"))


def written(path: Path, edit: Callable[[onnx.ModelProto], None], **changes: object) -> Path:
    """A tiny bundle whose golden scores are those of the edited graph."""
    graph = tiny.model()
    edit(graph)
    return tiny.write_bundle(path, edit, golden=tiny.manifest(graph)["golden"], **changes)


def limit(levels: float) -> Callable[[onnx.ModelProto], None]:
    def edit(graph: onnx.ModelProto) -> None:
        for tensor in graph.graph.initializer:
            if tensor.name == "threshold":
                value = np.asarray(levels, dtype=np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, "threshold"))

    return edit


def add_a_determinant(model: onnx.ModelProto) -> None:
    """An operator that OpenVINO does not know; the scores stay."""
    graph = model.graph
    graph.node[-1].output[0] = "sum"
    graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "eye"))
    graph.node.append(onnx.helper.make_node("Det", ["eye"], ["one"]))
    graph.node.append(onnx.helper.make_node("Mul", ["sum", "one"], ["score"]))


def made_for(bundle: Path) -> dict[str, object]:
    return {
        "sha256": bundles.read(bundle).sha256,
        "processor": tuned.processor(),
        "cores": len(base.usable_cores()),
        "library": "",
        "created": "",
        "engine": {},
        "median_ms": 1.0,
        "p99_ms": 1.0,
    }


def record(bundle: Path) -> dict[str, object]:
    return json.loads(tuned.file_of(bundle).read_text())


def test_a_station_uses_what_was_found(bundle_path, capsys, caplog):
    out = run(capsys, bundle_path)
    assert "tells stations with 'provider: auto'" in out
    assert out.endswith(f"next: inspector init station.yaml --camera 0 --bundle {bundle_path}\n")
    found = Engine.model_validate(record(bundle_path)["engine"])
    with caplog.at_level(logging.INFO, "inspector"):
        assert Detector.load(bundle_path).settings == found
    assert [line.split()[0] for line in caplog.messages] == ["tuned"]
    # What the station file says is said.
    assert Detector.load(bundle_path, "cpu").settings == Engine(provider="cpu")
    assert Detector.load(bundle_path, threads=1).settings == Engine(threads=1)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"sha256": "0" * 64}, "another file"),
        ({"processor": "Zuse Z4"}, "made on Zuse Z4"),
        ({"cores": 99}, "with 99 cores"),
        ({"library": "ONNX Runtime 0.1"}, "made with ONNX Runtime 0.1"),
        ({"library": "OpenVINO 1", "engine": {"provider": "openvino"}}, "made with OpenVINO 1"),
        ({"engine": {"provider": "abacus"}}, "cannot be read"),
    ],
)
def test_what_was_found_elsewhere_is_not_used(bundle_path, capsys, caplog, change, cause):
    run(capsys, bundle_path)
    tuned.file_of(bundle_path).write_text(json.dumps(record(bundle_path) | change))
    assert Detector.load(bundle_path).settings == Engine()
    assert len(caplog.messages) == 1
    assert "tune_ignored" in caplog.text
    assert cause in caplog.text


def test_a_choice_that_no_longer_starts_is_not_used(tmp_path, capsys, caplog):
    bundle = tiny.write_bundle(tmp_path / "b.onnx", add_a_determinant)
    tuned.write(
        tuned.file_of(bundle),
        tuned.TunedEngine.model_validate(
            made_for(bundle) | {"engine": {"provider": "openvino"}, "library": OPENVINO}
        ),
    )
    assert Detector.load(bundle).provider == "CPUExecutionProvider"
    assert "tune_ignored" in caplog.text
    assert "OpenVINO" in caplog.text


@pytest.mark.long
def test_a_bundle_whose_verdicts_differ_is_refused(tmp_path, bundle_path, capsys):
    """In other words than the first one's: on the golden pictures, or on one photo in sixty."""

    blind = written(tmp_path / "blind.onnx", limit(200.0))
    out = run(capsys, bundle_path, blind)
    assert f"{blind}: no engine here keeps the verdicts" in out
    assert "of the bundle's known photos get another verdict" in " ".join(out.split())
    assert not tuned.file_of(blind).exists()

    near = written(tmp_path / "near.onnx", limit(70.0))
    assert "tells stations" in run(capsys, bundle_path, near)
    pictures = [tiny.good_picture() for _ in range(58)]
    between = tiny.good_picture()
    between[3, 3] = tiny.GREY + 66
    photos = running.write_parts(tmp_path / "photos", *pictures, between, tiny.bad_picture())
    out = run(capsys, bundle_path, near, "--photos", photos)
    assert f"{near}: no engine here keeps the verdicts" in out
    assert "1 of 60 verdicts are others" in " ".join(out.split())


def test_defects_that_sink_among_the_good_are_refused(tmp_path, bundle_path, capsys):
    """No verdict flips, the order of the scores does."""

    def squash(graph: onnx.ModelProto) -> None:
        # Whatever fails, fails alike: differences above 64 grey levels count as 64.
        last = next(n for n in graph.graph.node if n.output[0] == "distance")
        last.output[0] = "whole"
        place = list(graph.graph.node).index(last)
        clip = onnx.helper.make_node("Min", ["whole", "threshold"], ["distance"])
        graph.graph.node.insert(place + 1, clip)

    level = written(tmp_path / "level.onnx", squash)
    light, dark = tiny.good_picture(), tiny.good_picture()
    light[3, 3], dark[3, 3] = tiny.GREY + 70, tiny.GREY + 100
    good = running.write_parts(tmp_path / "photos" / "good", tiny.good_picture(), light)
    running.write_parts(tmp_path / "photos" / "dent", dark, tiny.bad_picture())
    out = run(capsys, bundle_path, level, "--photos", good.parent)
    assert "image AUROC falls by 0.25" in " ".join(out.split())


@pytest.mark.skipif(bool(openvino.missing("bf16")), reason="this CPU has no bf16")
def test_bf16_asks_for_photos(tmp_path, capsys):
    bundle = tmp_path / "demo.onnx"
    shutil.copy(DEMO, bundle)
    out = " ".join(run(capsys, bundle, "--dry-run").split())
    assert "openvino, bf16" in out
    assert "refused: its map differs by" in out
    assert not tuned.file_of(bundle).exists()
    assert out.count("kept") >= 2


def test_of_engines_as_fast_the_one_with_fewer_threads_is_chosen(bundle_path):
    detector = Detector.load(bundle_path, "cpu", 1)
    family = BundleOnEngine(bundle_path, Engine(provider="cpu"), detector)
    bad = BundleOnEngine(bundle_path, Engine(provider="cpu"), detector, refused="it lies")

    def trial(of: BundleOnEngine, threads: int, ms: float) -> EngineTrial:
        return EngineTrial(of, Engine(provider="cpu", threads=threads), detector, [ms])

    trials = [trial(family, 4, 10.0), trial(family, 2, 10.2), trial(family, 1, 11.0)]
    assert choose([*trials, trial(bad, 1, 1.0)]) is trials[1]


def test_a_bundle_for_another_region_is_tuned_by_itself(tmp_path, bundle_path, capsys):
    geometry = {"height": 64, "width": 64, "region": {"x": 8, "y": 4, "w": 64, "h": 64}}
    other = tiny.write_bundle(tmp_path / "other.onnx", geometry=geometry)
    assert cli.main(["tune", str(bundle_path), str(other)]) == 11
    assert "another region" in capsys.readouterr().err


def photos(folder: Path, *, good: int, bad: int, edge: int = 0) -> Path:
    """Photos in folders ``good`` and ``bad``; ``edge`` of the bad ones just above the limit."""
    between = tiny.good_picture()
    between[3, 3] = tiny.GREY + 66
    running.write_parts(folder / "good", *[tiny.good_picture()] * good)
    running.write_parts(folder / "bad", *[tiny.bad_picture()] * (bad - edge), *[between] * edge)
    return folder


@pytest.mark.long
def test_what_the_reference_gave_up_counts(tmp_path, bundle_path, capsys):
    """One flip in 200 may be; not beside those that the reference's own proof has."""
    folder = photos(tmp_path / "photos", good=100, bad=100, edge=1)
    near = written(tmp_path / "near.onnx", limit(70.0))
    assert "no engine here" not in run(capsys, bundle_path, near, "--photos", folder)
    proof = {
        "images": 1000,
        "largest_score_difference": 0.2,
        "largest_map_difference": 0.2,
        "verdict_flips": 2,
        "tolerance": None,
        "flips_allowed": 0.005,
    }
    rounded = tiny.write_bundle(tmp_path / "rounded.onnx", parity=proof, precision="fp16")
    near = written(tmp_path / "nearer.onnx", limit(70.0), precision="int8")
    out = run(capsys, rounded, near, "--photos", folder)
    assert f"{near}: no engine here keeps the verdicts" in out
    assert "1 of 200" in out
    assert "beside 0.2%" in out
    assert f"{rounded}: no engine" not in out


def test_photos_that_would_be_a_fault_are_left_out_and_counted(tmp_path, bundle_path, capsys):
    """The only good one is no picture: what is left has no order to lose."""
    folder = photos(tmp_path / "photos", good=1, bad=3)
    (folder / "good" / "000.png").write_bytes(b"")
    assert cli.main(["tune", str(bundle_path), "--rounds", "2", "--photos", str(folder)]) == 0
    told = capsys.readouterr()
    assert "1 of 4 photos would be a FAULT and are left out" in " ".join(told.err.split())
    assert "the file is empty" in " ".join(told.err.split())
    assert "tells stations" in told.out

    for path in (folder / "bad").iterdir():
        path.write_bytes(b"")
    assert cli.main(["tune", str(bundle_path), "--photos", str(folder)]) == 21
    assert "no photo can be judged" in capsys.readouterr().err


def test_nothing_is_written_where_the_model_gives_no_number(tmp_path, bundle_path, capsys):
    folder = running.write_parts(tmp_path / "photos", tiny.nan_picture())
    out = run(capsys, bundle_path, "--photos", folder)
    assert "no engine here keeps the verdicts; nothing was written" in out
    assert "next: " not in out
    assert not tuned.file_of(bundle_path).exists()


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_a_count_of_rounds_that_is_none_is_said(bundle_path, capsys, count):
    with pytest.raises(SystemExit) as caught:
        cli.main(["tune", str(bundle_path), f"--rounds={count}"])
    assert caught.value.code == 2
    assert f"'{count}' is not a whole number above 0" in capsys.readouterr().err


def test_the_most_exact_bundle_is_the_reference(tmp_path, bundle_path, capsys):
    """In whatever order: an int8 file that misses defects must not have the fp32 one refused."""
    folder = photos(tmp_path / "photos", good=30, bad=30, edge=10)
    rough = written(tmp_path / "rough.onnx", limit(70.0), precision="int8")
    for order in ((bundle_path, rough), (rough, bundle_path)):
        out = run(capsys, *order, "--photos", folder)
        assert "differences from tiny.onnx on the CPU" in out
        assert f"{rough}: no engine here keeps the verdicts" in out
        assert tuned.file_of(bundle_path).exists()


@pytest.mark.long
def test_an_earlier_choice_that_is_refuted_is_deleted(tmp_path, bundle_path, capsys):
    rough = written(tmp_path / "rough.onnx", limit(70.0), precision="int8")
    run(capsys, rough)
    assert tuned.file_of(rough).exists()
    folder = photos(tmp_path / "photos", good=30, bad=30, edge=10)
    out = run(capsys, rough, bundle_path, "--photos", folder, "--dry-run")
    assert tuned.file_of(rough).exists()
    assert "; not written" in out
    assert out.endswith(f"next: inspector tune {rough} {bundle_path} --photos {folder}\n")
    assert "an earlier choice, deleted" in run(capsys, rough, bundle_path, "--photos", folder)
    assert not tuned.file_of(rough).exists()


def test_another_model_is_tuned_by_itself(tmp_path, bundle_path, capsys):
    other = tiny.write_bundle(tmp_path / "other.onnx", training_fingerprint="f" * 64)
    assert cli.main(["tune", str(bundle_path), str(other)]) == 11
    assert "another model than" in capsys.readouterr().err
