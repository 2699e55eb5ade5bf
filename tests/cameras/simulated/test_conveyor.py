"""The simulated conveyor: repeatable, honest about the truth, and nothing to cheat from."""

from __future__ import annotations

import hashlib
import itertools
import re
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.cameras import create
from inspector.cameras.simulated import conveyor as simulator
from inspector.cameras.simulated.conveyor import DEFECTS, GOOD, Domain, draw, draw_kind, truth
from inspector.cli.simulate import write_dataset
from inspector.config.cameras.simulator import SimulatorCamera
from inspector.errors import OutputError
from inspector.imaging.images import read_image


def grab(count: int, **config: object) -> list[tuple[str, np.ndarray]]:
    camera = create(SimulatorCamera(kind="simulator", name="belt", parts=count, **config))
    camera.open()
    try:
        return [(f.part_id, f.image) for f in iter(lambda: camera.grab(2000), None)]
    finally:
        camera.close()


@pytest.mark.long
def test_same_part_same_picture_at_any_rate() -> None:
    fast, slow = grab(3, seed=5, rate_hz=0.0), grab(3, seed=5, rate_hz=40.0)
    for (one, first), (other, second) in zip(fast, slow, strict=True):
        assert one == other
        assert np.array_equal(first, second)


def test_camera_shows_what_draw_draws() -> None:
    for index, (part_id, image) in enumerate(grab(4, seed=9, rate_hz=0.0, defect_rate=0.5)):
        part = draw(9, index, 0.5)
        assert np.array_equal(part.image, image)
        assert truth(part_id, 9, 0.5) == part.truth


@pytest.mark.long
def test_another_process_draws_and_knows_the_same() -> None:
    code = (
        "import hashlib\n"
        "from inspector.cameras.simulated.conveyor import draw, truth\n"
        "print(hashlib.sha256(draw(3, 17, 1.0).image.tobytes()).hexdigest())\n"
        "print(truth('part-000017', 3, 1.0))\n"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = draw(3, 17, 1.0)
    digest = hashlib.sha256(here.image.tobytes()).hexdigest()
    assert there.stdout.split() == [digest, here.truth]


def test_order_of_drawing_does_not_matter() -> None:
    forward = [draw(1, index, 1.0).image for index in range(4)]
    backward = [draw(1, index, 1.0).image for index in reversed(range(4))]
    for one, other in zip(forward, reversed(backward), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.long
def test_seeds_and_domains_share_no_picture() -> None:
    seen = {draw(seed, index, 0.0).image.tobytes() for seed in (0, 1) for index in range(3)}
    for domain in Domain:
        if domain is not Domain.STREAM:
            seen |= {draw_kind(0, index, GOOD, domain).image.tobytes() for index in range(3)}
    assert len(seen) == 6 + 3 * 3


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_defect_rate_is_kept_and_every_kind_comes(rate: float) -> None:
    truths = [truth(simulator.part_id(index), 0, rate) for index in range(2000)]
    share = 1 - truths.count(GOOD) / len(truths)
    assert abs(share - rate) < 0.04
    assert set(truths) - {GOOD} == (set(DEFECTS) if rate else set())


@pytest.mark.long
def test_part_id_says_nothing_of_the_truth() -> None:
    for rate in (0.0, 1.0):
        ids = [part_id for part_id, _ in grab(3, rate_hz=0.0, defect_rate=rate)]
        assert ids == ["part-000000", "part-000001", "part-000002"]


@pytest.mark.parametrize("stranger", ["part-1", "a/000.png", "", "part-00000x"])
def test_truth_of_a_stranger_is_refused(stranger: str) -> None:
    with pytest.raises(ValueError, match="not a part of the simulator"):
        truth(stranger, 0, 0.3)


def test_there_are_at_least_six_kinds() -> None:
    assert len(DEFECTS) >= 6
    assert all(re.fullmatch(r"[a-z_]+", kind) for kind in DEFECTS)


def test_good_parts_have_no_mask_and_differ_naturally() -> None:
    parts = [draw(2, index, 0.0) for index in range(6)]
    assert not any(part.mask.any() for part in parts)
    levels = [part.image.mean() for part in parts]
    assert max(levels) / min(levels) > 1.02
    for part, following in itertools.pairwise(parts):
        assert np.abs(part.image.astype(int) - following.image).mean() > 2


@pytest.mark.parametrize(
    "kind", [DEFECTS[0], *(pytest.param(one, marks=pytest.mark.long) for one in DEFECTS[1:])]
)
def test_mask_is_where_the_defect_is(kind: str) -> None:
    y, x = np.mgrid[0 : simulator.HEIGHT, 0 : simulator.WIDTH]
    away = np.hypot(x - simulator.WIDTH / 2, y - simulator.HEIGHT / 2)
    for index in range(12):
        bad = draw_kind(4, index, kind, Domain.TEST_DEFECTIVE)
        twin = draw_kind(4, index, GOOD, Domain.TEST_DEFECTIVE)
        assert bad.image.shape == (480, 640, 3)
        assert bad.mask.shape == (480, 640)
        assert bad.mask.dtype == np.bool_
        change = np.abs(bad.image.astype(int) - twin.image).max(axis=2)
        near = cv2.dilate(bad.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert change[~near].max() < 40
        # Large and strong enough for a person to see.
        assert bad.mask.sum() >= 60
        assert np.percentile(change[bad.mask], 80) >= 25
        assert away[bad.mask].max() < 190 + 1.5 * simulator.SHIFT_PX + 20


def test_dataset_has_the_mvtec_layout(tmp_path: Path) -> None:
    out = tmp_path / "flange"
    write_dataset(out, good=3, test_good=2, defective=9, seed=6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flange"]
    assert sorted(p.name for p in out.iterdir()) == ["ground_truth", "test", "train"]
    assert [p.name for p in sorted((out / "train/good").iterdir())] == [
        "000.png",
        "001.png",
        "002.png",
    ]
    assert {p.name for p in (out / "test").iterdir()} == {GOOD, *DEFECTS}
    assert {p.name for p in (out / "ground_truth").iterdir()} == set(DEFECTS)
    assert len(list(out.glob("test/*/*.png"))) == 2 + 9
    for mask_path in out.glob("ground_truth/*/*_mask.png"):
        image = read_image(
            out / "test" / mask_path.parent.name / mask_path.name.replace("_mask", "")
        )
        mask = read_image(mask_path)
        assert image.shape == (480, 640, 3)
        assert mask.shape == (480, 640)
        assert set(np.unique(mask)) == {0, 255}
    assert len(list(out.glob("ground_truth/*/*_mask.png"))) == 9
    pictures = {p.read_bytes() for p in out.glob("t*/*/*.png")}
    assert len(pictures) == 3 + 2 + 9


def test_dataset_again_is_the_same(tmp_path: Path) -> None:
    for name in "ab":
        write_dataset(tmp_path / name, good=2, test_good=1, defective=2, seed=1)
    first = {p.relative_to(tmp_path / "a"): p for p in (tmp_path / "a").rglob("*.png")}
    assert len(first) == 2 + 1 + 2 + 2
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_dataset_goes_into_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_dataset(tmp_path / "out", good=1, test_good=0, defective=0)
    assert (tmp_path / "out/train/good/000.png").is_file()


def test_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="not an empty folder"):
        write_dataset(tmp_path, good=1, test_good=0, defective=0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written") as caught:
            write_dataset(tmp_path / "out", good=2, test_good=0, defective=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
