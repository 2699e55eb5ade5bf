from __future__ import annotations

import dataclasses
import fcntl
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("the ring is Linux's", allow_module_level=True)

from inspector.cameras.isolated import ring
from inspector.cameras.isolated.ring import RingReader, RingWriter, TornError


@pytest.fixture
def writer():
    writer = RingWriter()
    yield writer
    writer.close()


@pytest.fixture
def reader():
    reader = RingReader()
    yield reader
    reader.close()


def next_slot(writer: RingWriter) -> int:
    """Slots in turn: frame ``sequence`` lies in slot ``sequence % SLOTS``."""
    return (writer.sequence + 1) % ring.SLOTS


def read(reader: RingReader, sequence: int) -> ring.Slot:
    """A copy of frame ``sequence``, as a reader makes one that does not trust the writer to wait.

    Raises TornError when the slot was written over meanwhile.
    """
    found = reader.borrow(sequence, sequence)
    copy = dataclasses.replace(found, image=found.image.copy())
    if not found.whole():
        raise TornError(f"frame {sequence} was written over while it was read")
    return copy


def send(writer: RingWriter, reader: RingReader, image: np.ndarray, **more: bool) -> int:
    fd = writer.fit(image.nbytes)
    if fd is not None:
        reader.attach(os.dup(fd))
    return writer.write(image, next_slot(writer), 11, 22, **more)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (480, 641, 4), (1, 1)])
def test_picture_comes_out_as_it_went_in(writer, reader, dtype, shape):
    image = (np.random.default_rng(1).random(shape) * 255).astype(dtype)
    for view in (image, image[::-1], image[:, ::-1].T if image.ndim == 2 else image[:, ::-1]):
        slot = read(reader, send(writer, reader, view))
        assert slot.image.dtype == view.dtype
        assert np.array_equal(slot.image, view)
        assert (slot.grabbed_us, slot.exposed_ns) == (11, 22)


def test_picture_is_ones_own(writer, reader):
    slot = read(reader, send(writer, reader, np.full((4, 4), 1, np.uint8)))
    for value in range(2, 2 + 2 * ring.SLOTS):
        send(writer, reader, np.full((4, 4), value, np.uint8))
    assert (slot.image == 1).all()


def test_half_written_slot_is_torn_and_the_next_is_not(writer, reader):
    good = np.full((8, 8), 7, np.uint8)
    send(writer, reader, good)
    with pytest.raises(TornError, match="not whole"):
        read(reader, send(writer, reader, good, torn=True))
    assert (read(reader, send(writer, reader, good)).image == 7).all()


def test_slot_that_was_used_again_is_torn(writer, reader):
    first = send(writer, reader, np.zeros((8, 8), np.uint8))
    for _ in range(ring.SLOTS):
        send(writer, reader, np.ones((8, 8), np.uint8))
    with pytest.raises(TornError):
        read(reader, first)


def test_frame_that_was_never_written_is_torn(writer, reader):
    with pytest.raises(TornError, match="without a segment"):
        read(reader, 1)
    send(writer, reader, np.zeros((8, 8), np.uint8))
    for sequence in (2, 3, 4):
        with pytest.raises(TornError):
            read(reader, sequence)


def test_writer_that_does_not_wait_never_gets_a_mixed_picture_through(writer, reader):
    shape, over = (400, 400, 3), threading.Event()
    send(writer, reader, np.ones(shape, np.uint8))

    def hammer() -> None:
        images = [np.full(shape, value, np.uint8) for value in range(8)]
        while not over.is_set():
            writer.write(images[(writer.sequence + 1) % 8], next_slot(writer), 0, 0)

    thread = threading.Thread(target=hammer)
    thread.start()
    whole = torn = 0
    deadline = time.monotonic() + 60
    try:
        # How often the two meet is for the scheduler to say.
        while (whole < 100 or torn < 5) and time.monotonic() < deadline:
            # Some are being written, some have been.
            sequence = writer.sequence - (whole + torn) % 2
            try:
                image = read(reader, sequence).image
            except TornError:
                torn += 1
            else:
                assert (image == sequence % 8).all()
                whole += 1
    finally:
        over.set()
        thread.join()
    assert whole >= 100
    assert torn >= 5


def test_segment_grows_and_shrinks_with_the_pictures_and_only_then(writer):
    assert writer.fit(1_000_000) is not None
    assert writer.fit(1_000_000) is None
    assert writer.fit(600_000) is None
    assert writer.fit(2_000_000) is not None
    assert writer.fit(100_000) is not None
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(ring.NAME) == 1


def test_memory_is_all_there_and_cannot_be_shrunk():
    fd = ring.allocate(1 << 20)
    try:
        assert os.fstat(fd).st_blocks * 512 >= 1 << 20
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 4096)
        assert not Path(f"/proc/self/fd/{fd}").readlink().exists()
    finally:
        os.close(fd)


def test_memory_that_could_be_shrunk_is_refused(reader):
    fd = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 3 * 4096)
    with pytest.raises(ValueError, match="not a segment"):
        reader.attach(fd)
    with pytest.raises(OSError, match="Bad file"):
        fcntl.fcntl(fd, fcntl.F_GETFD)


@given(head=st.lists(st.integers(-3, 9) | st.integers(-(2**63), 2**63 - 1), min_size=7, max_size=7))
def test_nonsense_in_the_head_is_torn_never_a_crash(head):
    writer, reader = RingWriter(), RingReader()
    try:
        sequence = send(writer, reader, np.zeros((8, 8), np.uint8))
        offset = sequence % ring.SLOTS * (128 + writer._room)
        fields = np.frombuffer(writer._segment, np.int64, 9, offset)
        fields[0:2] = sequence
        fields[2:] = head
        del fields
        try:
            image = read(reader, sequence).image
        except TornError:
            return
        assert 0 < image.nbytes <= writer._room
    finally:
        writer.close()
        reader.close()


def borrow(writer: RingWriter, reader: RingReader, value: int) -> ring.Slot:
    image = np.full((64, 64), value, np.uint8)
    fd = writer.fit(image.nbytes)
    if fd is not None:
        reader.attach(os.dup(fd))
    slot = reader.free
    return reader.borrow(writer.write(image, slot, 11, 22), slot)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_borrowed_picture_stays_as_it_was_while_somebody_looks(give_back):
    writer, reader, held = RingWriter(), RingReader(), []
    for number, index in enumerate(give_back):
        found = borrow(writer, reader, number % 256)
        # A view of it is enough to keep it.
        held.append((number % 256, found.image[1:, ::2], found.whole))
        del found
        if len(held) > 4:
            del held[index % len(held)]
        for value, image, whole in held:
            assert (image == value).all()
            assert whole()
    writer.close()
    reader.close()


def test_frames_are_borrowed_not_copied_while_there_is_room(writer, reader):
    held = [borrow(writer, reader, value) for value in range(ring.SLOTS)]
    assert [slot.image.base is not None for slot in held] == [True] * (ring.SLOTS - 1) + [False]
    assert not held[0].image.flags.writeable
    del held
    assert borrow(writer, reader, 9).image.base is not None


def test_borrowed_picture_outlives_reader_and_writer(writer, reader):
    slot = borrow(writer, reader, 5)
    reader.close()
    writer.close()
    assert (slot.image == 5).all()
    assert slot.whole()


def test_borrowed_picture_that_is_written_over_is_known_for_it(writer, reader):
    slot = borrow(writer, reader, 5)
    assert slot.whole()
    for _ in range(ring.SLOTS):
        send(writer, reader, np.ones((64, 64), np.uint8))
    assert not slot.whole()
