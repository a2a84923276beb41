"""Write a file whole or not at all: under a temporary name first."""

from __future__ import annotations

import contextlib
import os
import threading


@contextlib.contextmanager
def replacing(path, mode="wb", **options):
    """A file that takes the place of `path` when all of it is written; after an error the old one is still there."""
    target = os.path.realpath(os.fspath(path))
    temporary = temporary_beside(target)
    try:
        with open(temporary, mode, **options) as file:
            yield file
        with contextlib.suppress(
            FileNotFoundError
        ):  # who may read the old one may read the new one
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        raise OSError(
            error.errno, error.strerror, path
        ) from error  # the name that the caller knows
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def temporary_beside(target):
    """A name for the unfinished file, of this thread alone, in the folder of `target`."""
    return os.path.join(
        os.path.dirname(target), f".funksvd-{os.getpid()}-{threading.get_ident()}.tmp"
    )


def check_writable(path):
    """OSError or ValueError, before any work, where `replacing` could not write: it tries the temporary file."""
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
    temporary = temporary_beside(target)
    try:
        os.stat(target)
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise OSError(f"cannot write {path}: {error.strerror}") from error
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
