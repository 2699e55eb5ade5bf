"""Bundles that come in pieces: what is on the disk, whatever is lost, repeated, or goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inspector.station.uploads import Uploads
from inspector.wire.messages import InstallCommand, ReplyMessage, UploadCommand
from inspector.wire.requests import Request

DATA = bytes(range(256)) * 8
SHA256 = hashlib.sha256(DATA).hexdigest()


class Asker:
    """Sends pieces to a thread of uploads, and waits for each answer."""

    def __init__(self, uploads: Uploads) -> None:
        self.uploads = uploads

    def send(self, offset: int, piece: bytes, of: bytes = DATA, **changes: Any) -> ReplyMessage:
        fields = {"sha256": hashlib.sha256(of).hexdigest(), "size": len(of), "offset": offset}
        command, answers = UploadCommand.model_validate(fields | changes), queue.Queue[Any]()
        self.uploads.put(Request(command, "", lambda reply, _: answers.put(reply), piece))
        return answers.get(timeout=10)

    def there(self, of: bytes = DATA) -> int | None:
        return self.send(0, b"", of).offset

    def install(self, sha256: str = SHA256) -> Request | ReplyMessage:
        """The command that was passed on, or its refusal."""
        command = InstallCommand(recipe="r", camera="top", sha256=sha256)
        found: queue.Queue[Request | ReplyMessage] = queue.Queue()
        request = Request(command, "", lambda reply, _: found.put(reply))
        self.uploads.put(request, lambda: found.put(request))
        return found.get(timeout=10)


@contextlib.contextmanager
def working(folder: Path, **options: Any) -> Iterator[Asker]:
    uploads = Uploads(folder, options.pop("reserve_mb", 1), **options)
    uploads.start()
    try:
        yield Asker(uploads)
    finally:
        uploads.finish()
        assert not uploads.crashed


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


pieces = st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, len(DATA)))


@given(st.lists(pieces, max_size=30), st.booleans())
def test_whatever_comes_in_which_order_only_the_whole_file_gets_its_name(
    tmp_path_factory, sent, is_altered
):
    folder = tmp_path_factory.mktemp("uploads")
    source = DATA[:-1] + b"!" if is_altered else DATA
    with working(folder) as asker:
        there = 0
        for offset, length in sent:
            piece = source[offset : offset + length]
            reply = asker.send(offset, piece)
            if offset == there and not (is_altered and offset + len(piece) == len(DATA)):
                there += len(piece)
            if reply.kind == "refused":
                # Nothing but the whole file, altered, is refused, and then it is forgotten.
                assert is_altered
                assert offset + len(piece) == len(DATA)
                there = 0
            else:
                assert reply.offset == there
            whole = there == len(DATA)
            assert names(folder) in ([f"{SHA256}.onnx"] if whole else [], [f".{SHA256}.part"])
            assert (folder / f"{SHA256}.onnx").exists() == whole
        assert asker.there() == there
        # It goes on from what is there, whatever that is.
        while there < len(DATA):
            there = asker.send(there, DATA[there : there + 500]).offset
            if there is None:
                there = 0
    assert (folder / f"{SHA256}.onnx").read_bytes() == DATA


def test_a_stop_and_a_start_leave_nothing_of_half_a_file(tmp_path):
    folder = tmp_path / "installed"
    with working(folder) as asker:
        assert asker.send(0, DATA[:100]).offset == 100
        assert names(folder) == [f".{SHA256}.part"]
    assert names(folder) == []
    # As after a kill: half a file, a whole one that nobody installed, and one that judges.
    (folder / f".{SHA256}.part").write_bytes(DATA[:100])
    (folder / f"{'1' * 64}.onnx").write_bytes(b"uploaded")
    (folder / f"{'2' * 64}.onnx").write_bytes(b"in force")
    (folder / "mine.onnx").write_bytes(b"somebody's own")
    with working(folder, kept=["2" * 64]) as asker:
        assert asker.there() == 0
        assert names(folder) == [f"{'2' * 64}.onnx", "mine.onnx"]


def test_a_bundle_stays_while_the_journal_names_it(tmp_path):
    with working(tmp_path) as asker:
        asker.send(0, DATA)
        request = asker.install()
        assert isinstance(request, Request)
        asker.uploads.keep([SHA256])
        request.finish()
        assert asker.there() == len(DATA)
        assert names(tmp_path) == [f"{SHA256}.onnx"]
        asker.uploads.keep([])
        assert asker.there() == 0
        assert names(tmp_path) == []


def test_what_was_no_good_is_deleted_and_what_was_busy_is_not(tmp_path):
    with working(tmp_path) as asker:
        asker.send(0, DATA)
        request = asker.install()
        assert isinstance(request, Request)
        request.refuse("busy", "another recipe is under way")
        asker.there()
        assert asker.there() == len(DATA)
        request = asker.install()
        assert isinstance(request, Request)
        request.refuse("failed", "its known photos do not score as recorded")
        asker.there()
        assert asker.there() == 0
        refused = asker.install()
        assert isinstance(refused, ReplyMessage)
        assert (refused.code, refused.detail) == (
            "unknown",
            "no bundle of this sha256 was sent whole; send it",
        )


def test_uploads_are_few_and_the_one_that_nobody_goes_on_with_makes_room(tmp_path):
    clock = Clock()
    files = [bytes([i]) * 100 for i in range(6)]
    with working(tmp_path, clock=clock) as asker:
        for one in files[:4]:
            assert asker.send(0, one[:50], one).offset == 50
        assert asker.send(0, files[4][:50], files[4]).code == "busy"
        clock.now_s += 61
        for one in files[1:4]:
            asker.send(50, one[50:60], one)
        assert asker.send(0, files[4][:50], files[4]).offset == 50
        assert asker.there(files[0]) == 0
        assert asker.send(0, files[5][:50], files[5]).code == "busy"
        clock.now_s += 3601
        assert asker.there(files[1]) == 60
        asker.there(files[1])
        assert asker.there(files[2]) == 0


def test_pieces_that_do_not_fit_are_refused(tmp_path):
    with working(tmp_path) as asker:
        asker.send(0, DATA[:100])
        assert asker.send(100, DATA).detail == "the piece goes beyond the end of the file"
        other = asker.send(100, b"abc", size=len(DATA) + 1)
        assert (other.code, "announced with size" in other.detail) == ("malformed", True)
        assert asker.there() == 100


def test_the_reserve_of_the_disk_stays_free(tmp_path, monkeypatch):
    real = shutil.disk_usage(tmp_path)
    free = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=free[0]))
    large = bytes(10 << 20)
    with working(tmp_path, reserve_mb=900) as asker:
        assert asker.send(0, large[: 5 << 20], large).offset == 5 << 20
        # Others write there too.
        free[0] = 800 << 20
        refused = asker.send(5 << 20, large[: 4 << 20], large)
        assert refused.code == "failed"
        assert refused.detail.startswith("the station's disk has 800 MB free: with this bundle")
        assert names(tmp_path) == []
        assert asker.send(0, large[:10], large).code == "failed"


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with working(tmp_path) as asker:
            asker.send(0, DATA[:1000])
            resource.setrlimit(resource.RLIMIT_FSIZE, (1200, hard))
            refused = asker.send(1000, DATA[1000:])
            assert refused.code == "failed"
            assert "cannot be written: File too large" in refused.detail
            assert names(tmp_path) == []
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert asker.send(0, DATA).offset == len(DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
