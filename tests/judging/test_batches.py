from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.cameras import Frame
from inspector.config.station_file import load_station
from inspector.detection.detector import BatchItem, Detector
from inspector.detection.engines.onnxruntime import OnnxRuntimeBackend
from inspector.errors import Fault
from inspector.judging import batches
from inspector.judging.batches import LARGEST, BatchCosts
from inspector.judging.judge import judge_together
from inspector.judging.judges import Judges
from inspector.station.inbox import Arrival, Change, Inbox
from inspector.verdict import Reason
from inspector.wire.messages import VerdictMessage
from tests import running, tiny


def learnt(costs: dict[int, float]) -> BatchCosts:
    """Batches on an engine whose batch of n takes ``costs[n]`` ns, by its own clock."""
    now = [0.0]

    def infer(size: int) -> None:
        now[0] += costs[size]

    measured = BatchCosts()
    measured.learn(infer, lambda: int(now[0]))
    return measured


SIZES = (1, 2, 4, 8)


@given(
    costs=st.tuples(*[st.integers(1_000, 100_000_000)] * 4),
    slow=st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1_000, 300_000_000)), max_size=20),
    due=st.lists(st.integers(-10_000_000, 500_000_000), min_size=1, max_size=12),
)
def test_a_batch_ends_before_every_deadline_in_it_and_pays(costs, slow, due):
    measured = learnt(dict(zip(SIZES, costs, strict=True)))
    worst = dict(zip(SIZES, costs, strict=True))
    for size, taken in slow:
        measured.note(size, taken)
        worst[size] = max(worst[size], taken)
    size = measured.size(due, 0)
    assert 1 <= size <= min(len(due), LARGEST)
    if size > 1:
        # The slowest batches fade, slowly: 20 of them by two per cent.
        assert worst[size] * 0.97 < min(due[:size])
        assert size <= measured.largest


@given(
    costs=st.tuples(*[st.integers(1_000, 100_000_000)] * 4),
    singles=st.lists(st.integers(1_000, 300_000_000), max_size=30),
)
def test_no_batch_that_is_not_quicker_than_its_parts(costs, singles):
    """However slow a busy machine makes parts later: of batches that do not run nobody knows."""
    cost = dict(zip(SIZES, costs, strict=True))
    measured = learnt(cost)
    for taken in singles:
        measured.note(1, taken)
    size = measured.size([10**12] * 8, 0)
    assert size == 1 or cost[size] < 0.95 * size * cost[1]


def test_a_cpu_that_gains_nothing_is_asked_once_and_judges_one_by_one():
    asked = []
    measured = BatchCosts()
    now = [0]

    def infer(size: int) -> None:
        asked.append(size)
        now[0] += 15_000_000 * size

    measured.learn(infer, lambda: now[0])
    assert measured.largest == 1
    assert max(asked) == 2


GPU = {1: 1e6, 2: 1.2e6, 4: 1.6e6, 8: 2.4e6}


@given(noise=st.lists(st.sampled_from([1.0, 1.0, 1.02, 1.3, 3.0]), min_size=50, max_size=50))
def test_a_cpu_that_gains_nothing_is_not_fooled_by_a_busy_moment(noise):
    """A batch of two takes as long as two parts; a neighbour makes some calls slower."""
    now, calls = [0.0], iter(noise)

    def judge(size: int) -> None:
        now[0] += 15e6 * size * next(calls, 1.0)

    measured = BatchCosts()
    measured.learn(judge, lambda: int(now[0]))
    fastest = min(noise[2:16:2]), min(noise[3:17:2])
    if fastest[1] >= 0.95 * fastest[0]:
        assert measured.largest == 1
    elif measured.largest > 1:
        assert np.median(noise[3:17:2]) < 0.95 * np.median(noise[2:16:2])


def test_a_gpu_takes_all_that_wait_unless_the_first_is_due():
    measured = learnt(GPU)
    assert measured.largest == 8
    assert measured.size([10**9] * 11, 0) == 8
    assert measured.size([10**9] * 3, 0) == 2
    assert measured.size([1_500_000, *[10**9] * 7], 0) == 2
    assert measured.size([1_100_000, *[10**9] * 7], 0) == 1


def test_a_batch_that_was_slow_once_is_not_refused_for_ever():
    measured = learnt(GPU)
    due = [20_000_000] * 8
    measured.note(8, 100_000_000)
    assert measured.size(due, 0) < 8
    # Nothing runs but what is chosen: without a way back, 8 is never seen again.
    for _ in range(3000):
        if (size := measured.size(due, 0)) == 8:
            return
        measured.note(size, GPU[size])
    pytest.fail("never 8 again")


def test_batches_that_stopped_paying_are_tried_again():
    measured = learnt(GPU)
    for size in (2, 4, 8):
        for _ in range(100):
            measured.note(size, 50_000_000)
    assert measured.largest == 1
    for _ in range(10_000):
        measured.note(1, 1_000_000)
    assert measured.largest == 8


def test_a_batch_that_is_always_late_is_tried_ever_less():
    """The deadline is 20 ms, a batch of 8 takes 30 whatever was learnt."""
    measured, late = learnt(GPU), []
    for decision in range(30_000):
        size = measured.size([20_000_000] * 8, 0)
        measured.note(size, 30_000_000 if size == 8 else GPU[size])
        late += [decision] * (size == 8)
    assert 1 <= len(late) <= 6
    pauses = np.diff(late)
    assert (pauses >= batches._FORGIVES).all()
    assert (pauses[1:] > 1.5 * pauses[:-1]).all()


def load_judges(folder, bundle_path, *names, batching="auto"):
    """The judges of a station with a camera for each of ``names``, all by one bundle."""
    parts = running.write_parts(folder / "parts", tiny.good_picture())
    cameras = [running.folder_camera(parts, name) for name in names]
    station = running.write_station(
        folder / "station.yaml", bundle_path, *cameras, batching=batching
    )
    judges = Judges(load_station(station))
    assert [problem for _, problem in judges.load()] == [None] * len(names)
    return judges


@pytest.mark.parametrize(("moved", "largest"), [(0.0, 8), (0.9, 8), (1.1, 1)])
def test_a_batch_that_scores_otherwise_than_its_parts_is_not_used(
    tmp_path, bundle_path, monkeypatch, moved, largest
):
    """What a part scores alone counts, not the manifest: bf16 has moved both alike."""
    monkeypatch.setattr(batches, "_PAYS", 1000.0)
    infer = OnnxRuntimeBackend.infer
    tolerance = Detector.load(bundle_path, "cpu").manifest.golden_tolerance

    def rounded(self, batch):
        scores, maps = infer(self, batch)
        shift = np.float32(moved * tolerance * (len(batch) > 1))
        return scores + shift, maps + shift

    monkeypatch.setattr(OnnxRuntimeBackend, "infer", rounded)
    judges = load_judges(tmp_path, bundle_path, "a", "b")
    assert [judges.batching.largest(judges[name]) for name in "ab"] == [largest] * 2


def test_what_is_learnt_is_what_a_part_costs(tmp_path, bundle_path, monkeypatch):
    """Resize and checks included, and the engine warm for that size."""
    seen: list[tuple[str, int]] = []
    together, warm = judge_together, Detector.warm
    monkeypatch.setattr(batches, "_PAYS", 1000.0)
    monkeypatch.setattr(
        batches,
        "judge_together",
        lambda parts: (seen.append(("judge", len(parts))), together(parts))[1],
    )
    monkeypatch.setattr(
        Detector, "warm", lambda self, size: (seen.append(("warm", size)), warm(self, size))
    )
    load_judges(tmp_path, bundle_path, "a", "b")
    turns = [("judge", 1), ("judge", 2)] * batches._TIMES
    assert seen[:4] == [("warm", 1), ("judge", 1), ("warm", 2), ("judge", 2)]
    assert seen[4 : 4 + len(turns)] == turns
    assert [each for each in seen if each[0] == "warm"] == [("warm", size) for size in SIZES]


@pytest.mark.parametrize(("names", "batching"), [("a", "auto"), ("ab", "never")])
def test_nothing_is_learnt_where_there_is_nothing_to_gain_or_it_is_not_asked_for(
    tmp_path, bundle_path, monkeypatch, names, batching
):
    monkeypatch.setattr(batches, "_PAYS", 1000.0)
    judges = load_judges(tmp_path, bundle_path, *names, batching=batching)
    found = [judges[name] for name in names]
    assert judges.batching.largest(found[0]) == 1
    assert judges.batching.size(found * 4, [10**12] * len(found) * 4, 0) == 1
    (judgement,) = judges.batching.judge([(found[0], tiny.good_picture())])
    assert judgement.verdict.value == "PASS"


def test_station_file_does_not_batch_unless_it_says_so(tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    station = running.write_station(
        tmp_path / "station.yaml", bundle_path, running.folder_camera(parts)
    )
    assert load_station(station).batching == "never"


def test_a_batch_has_one_engine_and_no_judge_on_probation(tmp_path, bundle_path, monkeypatch):
    monkeypatch.setattr(batches, "_PAYS", 1000.0)
    (tmp_path / "other").mkdir()
    judges = load_judges(tmp_path, bundle_path, "a", "b", "c")
    other = load_judges(tmp_path / "other", bundle_path, "x")["x"]
    a, b, c = (judges[name] for name in "abc")
    due = [10**12] * 8
    assert judges.batching.size([a, b, c, a], due[:4], 0) == 4
    assert judges.batching.size([a, b, other, a], due[:4], 0) == 2
    assert judges.batching.size([other, a, b, c], due[:4], 0) == 1
    c.on_probation = True
    assert judges.batching.size([a, b, c, a], due[:4], 0) == 2
    assert judges.batching.size([c, a, b, a], due[:4], 0) == 1
    assert judges.batching.largest(c) == 1


def test_only_pictures_that_wait_next_are_taken_with_the_first():
    inbox = Inbox(8)
    for number, camera in enumerate("aba"):
        inbox.put(Arrival(camera, f"p{number}", frame=Frame(np.zeros((2, 2), np.uint8), 1)))
    inbox.put(Change("a", "lost"))
    inbox.put(Arrival("b", frame=Frame(np.zeros((2, 2), np.uint8), 1)))
    assert inbox.take(0.0).part_id == "p0"
    assert [arrival.part_id for arrival in inbox.next_pictures(7)] == ["p1", "p2"]
    assert [arrival.part_id for arrival in inbox.next_pictures(1)] == ["p1"]
    assert inbox.waiting("a") == inbox.waiting("b") - 1 == 1
    assert [arrival.part_id for arrival in inbox.take_pictures(7)] == ["p1", "p2"]
    assert inbox.take_pictures(7) == []
    assert inbox.waiting("a") == 0
    assert isinstance(inbox.take(0.0), Change)


def test_one_bad_part_of_a_batch_is_no_fault_of_the_others(bundle_path):
    plain = Detector.load(bundle_path, "cpu", 1)
    strict = plain.adapted(limit_factor=0.5)
    good, bad, nan = tiny.good_picture(), tiny.bad_picture(), tiny.nan_picture()
    misshapen = np.zeros((4, 4, 7), np.uint8)
    frames = [(plain, good), (strict, bad), (plain, misshapen), (plain, nan), (plain, bad)]
    together = Detector.judge_together([BatchItem(*each) for each in frames])
    for judgement, (detector, frame) in zip(together, frames, strict=True):
        alone = detector.judge(frame)
        assert (judgement.verdict, judgement.reason) == (alone.verdict, alone.reason)
        assert judgement.score == alone.score
        assert judgement.regions == alone.regions
    reasons = [judgement.reason for judgement in together]
    assert reasons[2:4] == [Reason.FRAME_SHAPE, Reason.NOT_FINITE]


def test_a_batch_that_fails_is_judged_one_by_one(bundle_path, monkeypatch):
    detector = Detector.load(bundle_path, "cpu", 1)
    sizes, infer = [], detector.engine.infer

    def out_of_memory(batch):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise Fault(Reason.INFERENCE_ERROR.value, "out of memory")
        return infer(batch)

    monkeypatch.setattr(detector.engine, "infer", out_of_memory)
    judgements = Detector.judge_together([BatchItem(detector, tiny.good_picture())] * 3)
    assert [judgement.verdict.value for judgement in judgements] == ["PASS"] * 3
    assert sizes == [3, 1, 1, 1]


SPY = """
import sys
from pathlib import Path
from inspector import logs
from inspector.config.station_file import load_station
from inspector.judging import batches
from inspector.station import process
batches._PAYS = 1000.0
note = batches.BatchCosts.note
def told(self, size, taken_ns):
    logs.say("batch", size=size)
    note(self, size, taken_ns)
batches.BatchCosts.note = told
logs.to_stderr()
process.run(load_station(Path(sys.argv[1])), 10.0)
"""


@pytest.mark.long
def test_cameras_with_one_bundle_judge_together_and_each_in_its_order(tmp_path, bundle_path):
    pictures = [tiny.good_picture(), tiny.bad_picture(), tiny.nan_picture()] * 8
    parts = running.write_parts(tmp_path / "parts", *pictures)
    cameras = [running.folder_camera(parts, name) for name in ("a", "b", "c")]
    station = running.write_station(
        tmp_path / "station.yaml", bundle_path, *cameras, batching="auto"
    )
    with running.running(station, program=SPY) as daemon, daemon.subscriber() as subscriber:
        verdicts = [item for item in running.items(subscriber) if isinstance(item, VerdictMessage)]
        log = daemon.log
    learnt = log.index("state=Ready")
    assert re.search("batch size=[248]", log[learnt:])
    assert [verdict.seq for verdict in verdicts] == list(range(1, 73))
    for name in ("a", "b", "c"):
        mine = [verdict for verdict in verdicts if verdict.camera == name]
        assert [verdict.part_id for verdict in mine] == [f"{n:03}.png" for n in range(24)]
        assert [verdict.verdict.value for verdict in mine] == ["PASS", "FAIL", "FAULT"] * 8
        assert {verdict.reason for verdict in mine[2::3]} == {"not_finite"}
