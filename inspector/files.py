"""Files written whole or not at all, read within a time, and keys that nobody else put there."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from inspector.errors import OutputError, SecretError

_SUFFIX: Final = ".part"
"""Ending of files and folders that are being filled, or were when the power was cut."""
_LARGEST: Final = 4096
"""Bytes of a key file that are read; no key is longer."""
READ_TIMEOUT_S: Final = 30.0
"""Longest time that a file may take to be read, unless somebody says otherwise."""
_MOST_BYTES: Final = 2**31 - 1
"""Of a file that is read; an ONNX file cannot be longer."""
_ASK_S: Final = 0.1
_REAP_S: Final = 0.5
_NO_FILE: Final = 255
_READER: Final = f"""
import os, signal, stat, sys
path, most, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if hasattr(signal, "alarm"):
    signal.alarm(seconds)
try:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        sys.exit({errno.EISDIR} if stat.S_ISDIR(found.st_mode) else {_NO_FILE})
    if found.st_size > most:
        sys.exit({errno.EFBIG})
    with open(path, "rb", buffering=0) as file:
        while most and (piece := file.read(min(most, 1 << 20))):
            sys.stdout.buffer.write(piece)
            most -= len(piece)
    sys.stdout.buffer.flush()
except OSError as error:
    sys.exit(error.errno or {errno.EIO})
"""
"""The program of the process that reads; its exit code is an error's number."""
_READ: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int | None = 0o644, durable: bool = True) -> Iterator[Path]:
    """A new, empty file to fill, which takes the name ``path`` when the block ends well.

    The file lies beside ``path`` under a hidden temporary name and gets ``mode``, or with None what
    the umask leaves. ``durable`` syncs it and its folder at the end, so that even after a power cut
    ``path`` is either the old file or the new one, whole. After an error in the block a file
    already at ``path`` is untouched and nothing else is left. Raises OSError.
    """
    temporary = _beside(path)
    # Nobody else reads what is being filled: it may be for its owner alone.
    made_with = 0o666 if mode is None else 0o600
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, made_with))
    try:
        yield temporary
        if durable:
            with temporary.open("r+b") as written:
                os.fsync(written.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable and os.name == "posix":
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes, *, mode: int | None = 0o644, durable: bool = True) -> None:
    """Write ``data`` to ``path`` by :func:`whole_file`. Raises OSError."""
    with whole_file(path, mode=mode, durable=durable) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder to fill, which takes the name ``path`` when the block ends well.

    ``path`` may be there if it is an empty folder. The new one lies beside it under a hidden
    temporary name; after an error in the block nothing of it is left. Raises OSError.
    """
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an :class:`OutputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {reason_of(error)}; free disk space, or choose another "
            f"place"
        ) from None


def write_output(
    path: Path, data: bytes | str, *, mode: int | None = 0o644, durable: bool = True
) -> None:
    """Write a result to ``path`` by :func:`whole_file`. Raises :class:`OutputError`.

    Text becomes UTF-8. A file name in it that is not UTF-8, which Python holds as lone surrogates,
    is shown by its bytes.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "backslashreplace")
    with output_errors(path):
        write_whole(path, data, mode=mode, durable=durable)


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` on the disk when this returns. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    # Cut short, so that a name as long as the file system allows leaves room for the rest.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{_SUFFIX}")


def lock_file(path: Path, mode: int) -> int:
    """Lock ``path``, made with ``mode`` if it is missing, until the returned handle is closed.

    The kernel drops the lock when its holder ends, however that comes. Raises BlockingIOError
    when another handle has the lock, OSError when the file cannot be opened. POSIX alone.
    """
    return _locked(os.open(path, os.O_RDWR | os.O_CREAT, mode))


def lock_folder(path: Path) -> int:
    """Lock the folder ``path`` as :func:`lock_file` does a file; nobody can delete this lock."""
    return _locked(os.open(path, os.O_RDONLY | os.O_DIRECTORY))


def _locked(handle: int) -> int:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


_stuck: list[subprocess.Popen[bytes]] = []
"""Reading processes that were killed and have not ended, since the kernel holds them."""


def read_within(
    path: Path, timeout_s: float = READ_TIMEOUT_S, given_up: Callable[[], bool] = lambda: False
) -> bytes:
    """Read a file by a child process, which is killed after ``timeout_s``.

    A network share that hangs can keep a thread for ever, and with it the process and its sockets;
    so no thread of this process waits for the file. ``given_up`` is asked ten times a second
    whether it is still wanted. Raises OSError with the cause in words (TimeoutError and
    InterruptedError among them); what is no file, such as a pipe, is refused.
    """
    _stuck[:] = [child for child in _stuck if child.poll() is None]
    deadline_s = time.monotonic() + timeout_s
    numbers = (str(_MOST_BYTES), str(math.ceil(timeout_s) + 1))
    command = [sys.executable, "-I", "-S", "-c", _READER, os.fspath(path), *numbers]
    try:
        child = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for this process, which decides what becomes of the file.
            start_new_session=True,
        )
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    try:
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                data, _ = child.communicate(timeout=max(0.0, min(left_s, _ASK_S)))
                break
            except subprocess.TimeoutExpired:
                if given_up():
                    raise InterruptedError(errno.EINTR, "given up before it was read") from None
                if left_s <= 0:
                    text = f"no answer within {timeout_s:g} s; is the disk or network share there?"
                    raise TimeoutError(errno.ETIMEDOUT, text) from None
    finally:
        _end(child)
    if child.returncode == _NO_FILE:
        raise OSError(errno.EINVAL, "it is no file; name a file, not a pipe or a device")
    if child.returncode:
        number = max(child.returncode, 0) or errno.EINTR
        raise OSError(number, os.strerror(number))
    return data


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_REAP_S)
        if child.poll() is None:
            _stuck.append(child)
    if child.stdout is not None:
        child.stdout.close()


def read_guarded(
    path: Path, secret: bool, *, always: bool = False, largest: int = _LARGEST
) -> bytes:
    """Read a key file that no other user can change, ``largest`` bytes of it at most.

    ``secret``: it is to hold a secret, and if it does, no other user may be able to read it.
    ``always``: nor whatever it holds, such as a password. Raises :class:`SecretError` with the
    cure.
    """
    try:
        real = path.resolve(strict=True)
        if os.name == "posix":
            check_folders(path, real.parent)
        handle = os.open(real, _READ)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise SecretError(f"{path}: is no file; name the key file itself")
            if os.name == "posix":
                _check_owner(path, path, found)
            data = os.read(handle, largest)
            if os.name == "posix":
                # Anybody may read a public key; if one was named by mistake, chmod is no cure.
                _check_mode(path, found, secret and (always or _holds_secret(data)))
            return data
        finally:
            os.close(handle)
    except FileNotFoundError:
        cure = "correct its name" if always else "make one with 'inspector keygen'"
        raise SecretError(f"{path}: no such key file; {cure}") from None
    except (OSError, RuntimeError) as error:
        raise SecretError(f"{path}: cannot be read: {reason_of(error)}") from None


def _holds_secret(data: bytes) -> bool:
    return b"secret-key" in data or b"PRIVATE KEY" in data or data.startswith(b"password:")


def _check_mode(path: Path, found: os.stat_result, secret: bool) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if secret and mode & 0o077:
        raise SecretError(
            f"{path}: a secret that others may read (mode {mode:04o}); run 'chmod 600 {path}', and "
            f"make a new key if one of them may have done so"
        )
    if mode & 0o022:
        raise SecretError(
            f"{path}: others may write it (mode {mode:04o}); check that it is still yours, then "
            f"run 'chmod go-w {path}'"
        )


def check_folders(path: Path, folder: Path) -> None:
    """Refuse ``path`` when another user could put another file there by way of a folder above it.

    ``folder`` is the resolved folder of ``path``. Raises :class:`SecretError`, OSError.
    """
    for above in (folder, *folder.parents):
        found = above.stat()
        _check_owner(path, above, found)
        # In a sticky folder, such as /tmp, users can remove only files of their own.
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            raise SecretError(
                f"{path}: others may put another file in its place, for {above} can be written by "
                f"them (mode {stat.S_IMODE(found.st_mode):04o}); run 'chmod go-w {above}'"
            )


def _check_owner(path: Path, what: Path, found: os.stat_result) -> None:
    if found.st_uid not in {os.geteuid(), 0}:
        subject = "belongs" if what == path else f"lies in {what}, which belongs"
        raise SecretError(
            f"{path}: {subject} to another user (uid {found.st_uid}), not to the one who runs this "
            f"(uid {os.geteuid()}) nor to root; run 'chown' on it"
        )


def reason_of(error: Exception) -> str:
    """What went wrong, in the operating system's words if it has some."""
    return getattr(error, "strerror", None) or str(error)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a key file that must not exist yet, with ``mode`` from the first moment.

    Raises :class:`SecretError`; nothing is then left of the file.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise SecretError(
            f"{path}: is there, and keys are never overwritten; choose another --name"
        ) from None
    except OSError as error:
        raise SecretError(f"{path}: cannot be written: {reason_of(error)}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SecretError(f"{path}: cannot be written: {reason_of(error)}") from None
