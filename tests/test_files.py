"""Files and folders that are written whole or not at all, whatever happens in the middle."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inspector import files
from inspector.cli.output import write_picture
from inspector.errors import OutputError
from inspector.files import whole_file, whole_folder, write_output, write_whole

ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from inspector.errors import OutputError
from inspector.files import write_output
path = Path(sys.argv[1]) / "result.json"
write_output(path, b"old")
try:
    write_output(path, b"x" * 1_000_000)
except OutputError as error:
    print(error)
print(path.read_bytes(), [found.name for found in path.parent.iterdir()])
"""


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("fault", [ValueError("half"), KeyboardInterrupt(), OSError(5, "broken")])
def test_fault_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, fault: BaseException
) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    path.chmod(0o600)

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"ne")
            raise fault

    with pytest.raises(type(fault)):
        fail()
    assert (path.read_bytes(), mode_of(path)) == (b"old", 0o600)
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with pytest.raises(type(fault)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_name_is_there_only_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"ne")
        assert (temporary.parent, path.exists()) == (tmp_path, False)
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_at_the_last_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result"
    write_output(path, b"old")

    def full(_handle: int) -> None:
        # A network share may take every byte and say only now that it has no room for them.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_output(path, b"new")
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device; free disk space, or choose another "
        f"place"
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    """On a file system of 64 kB, which this process mounts where only its child sees it."""
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    alone = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if subprocess.run([*alone, mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    done = subprocess.run(
        [*alone, f'{mount} && exec "$0" "$@"', sys.executable, "-c", ON_A_SMALL_DISK, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"{tmp_path}/result.json: cannot be written: No space left on device; free disk space, or "
        f"choose another place",
        "b'old' ['result.json']",
    ]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_files_have_the_mode_asked_for(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        write_whole(tmp_path / "readable", b"")
        write_whole(tmp_path / "tight", b"", mode=0o640)
        write_picture(tmp_path / "picture", b"")
    assert mode_of(tmp_path / "readable") == 0o644
    assert mode_of(tmp_path / "tight") == 0o640
    assert mode_of(tmp_path / "picture") == 0o666 & ~mask


@pytest.mark.skipif(os.name != "posix", reason="modes")
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_what_is_being_filled_is_read_by_nobody_else(tmp_path: Path, mode: int) -> None:
    with umask(0), whole_file(tmp_path / "users.yaml", mode=mode) as temporary:
        assert mode_of(temporary) & 0o077 == 0
    assert mode_of(tmp_path / "users.yaml") == mode


def test_durable_file_is_synced_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "result", []
    really = os.fsync

    def watch(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), path.exists()))
        really(handle)

    monkeypatch.setattr(files.os, "fsync", watch)
    write_whole(path, b"x", durable=False)
    assert synced == []
    path.unlink()
    write_whole(path, b"x")
    assert [(at.name.startswith(".result."), named) for at, named in synced] == [
        (True, False),
        (False, True),
    ]
    assert synced[1][0] == tmp_path


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_longest_name_that_a_file_can_have(tmp_path: Path, name: str) -> None:
    write_output(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_text_is_utf8_and_a_name_that_is_not_is_shown_by_its_bytes(tmp_path: Path) -> None:
    write_output(tmp_path / "result", "é " + os.fsdecode(b"m\xff"))
    assert (tmp_path / "result").read_bytes() == rb"%b m\udcff" % "é".encode()


def test_folder_is_there_only_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "set"
    with whole_folder(path) as temporary:
        (temporary / "one").write_bytes(b"1")
        assert not path.exists()
    assert (path / "one").read_bytes() == b"1"
    with pytest.raises(OSError, match="not empty"), whole_folder(path) as temporary:
        (temporary / "two").write_bytes(b"2")
    assert [found.name for found in path.iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [path]


def test_fault_in_the_middle_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "set") as temporary:
            (temporary / "one").write_bytes(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
