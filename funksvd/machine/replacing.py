"""Files that are written whole or not at all, under a temporary name first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import IO, Any

FilePath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: FilePath, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` once the block has written all of it.

    After an error the old file is still there.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path` instead of the temporary file.
    """
    target = os.path.realpath(os.fspath(path))
    temporary = temporary_beside(target)
    try:
        with open(temporary, mode, **options) as file:
            yield file
        with contextlib.suppress(FileNotFoundError):  # there is no old file
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def temporary_beside(target: str) -> str:
    """Return the name of an unfinished file of this thread, in the folder of `target`."""
    name = f".funksvd-{os.getpid()}-{threading.get_ident()}.tmp"
    return os.path.join(os.path.dirname(target), name)


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
        with open(temporary, "wb"):
            pass
    except OSError as error:
        raise type(error)(
            f"cannot write {path}: the directory {directory!r} is not writable ({error.strerror})"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
