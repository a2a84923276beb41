"""Files that are written whole or not at all, under a temporary name first."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from typing import IO, Any

FilePath = str | os.PathLike[str]

# The name of a temporary file begins and ends with these, with random letters between them.
START = ".funksvd-"
END = ".tmp"
# Seconds after which a temporary file that nobody holds open is taken for one left by a kill.
LEFT_AFTER = 60


@contextlib.contextmanager
def replacing(path: FilePath, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` once the block has written all of it.

    After an error the old file is still there, and after a power failure, too: the bytes of the new
    one are on the disk before it takes the name. It is never open to more users than the old one.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path` instead of the temporary file.
    """
    target = os.path.realpath(os.fspath(path))
    remove_left(os.path.dirname(target))
    temporary = temporary_beside(target)
    old_mode = mode_of(target)
    with naming(path, temporary):
        unfinished = create(temporary, mode, old_mode, **options)
        try:
            with unfinished as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if old_mode is not None:  # the umask may have taken something from it
                os.chmod(temporary, old_mode)
            os.replace(temporary, target)
            sync_folder(os.path.dirname(target))
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def naming(path: FilePath, temporary: str) -> Iterator[None]:
    """Name the file that a caller knows, not the temporary one, in the errors of a block."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error


def temporary_beside(target: str) -> str:
    """Return a new, random name for an unfinished file, in the folder of `target`."""
    return os.path.join(os.path.dirname(target), f"{START}{secrets.token_hex(8)}{END}")


def mode_of(path: str) -> int | None:
    """Return the permissions of a file, or None where there is no such file."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def create(path: str, mode: str, permissions: int | None, **options: Any) -> IO[Any]:
    """Open a new file for writing; FileExistsError if the name is taken, also by a link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if permissions is None else permissions & 0o777)

    file: IO[Any] = open(path, mode.replace("w", "x"), opener=opener, **options)  # noqa: SIM115
    lock(file.fileno())
    return file


def lock(descriptor: int) -> bool:
    """Lock an open file, so that `remove_left` keeps it; return whether nobody else has.

    The lock ends with the process that holds it, even if it is killed. Where there are no locks,
    return False.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def remove_left(folder: str) -> None:
    """Remove the temporary files that processes which were killed have left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(START) and entry.name.endswith(END):
                with contextlib.suppress(OSError):
                    remove_if_left(entry.path)


def remove_if_left(path: str) -> None:
    """Remove a temporary file, unless it is new or some process is still writing it."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or time.time() - found.st_mtime < LEFT_AFTER:
        return
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        if lock(descriptor):
            os.unlink(path)
    finally:
        os.close(descriptor)


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: FilePath) -> None:
    """Check before any work that `replacing` can write a file, by making the temporary one.

    Raises
    ------
    ValueError
        If the name is empty, or belongs to something that is no regular file.
    OSError
        If the name is a directory's, is too long, or lies in a directory that is missing or not
        writable.
    """
    if not path:
        raise ValueError("the name of a file to write is empty")
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot write {path}: it is a directory; add a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"cannot write {path}: it is no regular file, and it would be replaced")
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(
            f"cannot write {path}: the directory {directory!r} does not exist; create it first"
        )
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(target)
    except OSError as error:  # for example, the name is too long
        raise OSError(f"cannot write {path}: {error.strerror}") from error
    temporary = temporary_beside(target)
    try:
        create(temporary, "wb", 0o600).close()
    except OSError as error:
        raise type(error)(
            f"cannot write {path}: the directory {directory!r} is not writable ({error.strerror})"
        ) from error
    with contextlib.suppress(OSError):
        os.unlink(temporary)
