"""Opening files of ratings: their kind, their bytes or text (gzip or not), and a progress bar."""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

FilePath = str | os.PathLike[str]

GZIP_START = b"\x1f\x8b"
PARQUET_START = b"PAR1"
BYTES_OF_A_READ = 1 << 20  # also a step of the progress bar
LONGEST_LINE = 1 << 24  # bytes


def is_parquet(path: FilePath) -> bool:
    """Return whether a file is Parquet; its first bytes tell, not its name.

    Raises
    ------
    ValueError
        If the path is a pipe or a device. They can be read once, and a file is read several times.
    """
    is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
    if is_pipe or os.path.realpath(path).startswith("/dev/"):
        raise ValueError(
            f"{path} is not a file but a pipe or a device; save what comes from it in a file first"
        )
    with open(path, "rb") as file:
        return file.read(len(PARQUET_START)) == PARQUET_START


@contextmanager
def one_file(path: FilePath) -> Iterator[None]:
    """Read a file, in several goes, within this block.

    Raises
    ------
    ValueError
        If the file is changed or replaced meanwhile, or if the block raises one: the message names
        the file.
    OSError
        If the memory does not suffice.
    """
    before = identity(path)
    try:
        yield
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path) from error
    except ValueError as error:
        if os.fsdecode(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    if identity(path) != before:
        raise ValueError(f"{path} was changed or replaced while it was read; read it again")


def identity(path: FilePath) -> tuple[int, ...]:
    """Return numbers that change when a file is changed or replaced."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def reading_bar(
    path: FilePath,
    total: int,
    unit: str,
    shown: bool,
) -> Any:
    """Return tqdm's progress bar; it appears if reading `path` takes more than a second."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=f"reading {os.path.basename(path)}",
        unit=unit,
        unit_scale=unit == "B",
        delay=1,
        leave=False,
        disable=not shown,
    )


class MeteredFile(io.FileIO):
    """A file whose reads move a progress bar."""

    def __init__(self, path: FilePath, bar: Any) -> None:
        super().__init__(path)
        self.bar = bar

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer` and return the number of bytes."""
        n = super().readinto(buffer)
        self.bar.update(n)
        return n


@contextmanager
def open_bytes(path: FilePath, progress: bool = False) -> Iterator[IO[bytes]]:
    """Open the bytes of a file; those of a gzip file are decompressed.

    With `progress` a bar shows how much has been read from the disk.

    Raises
    ------
    ValueError
        If, while the file is open, its gzip data turn out to be damaged.
    """
    with (
        reading_bar(path, os.path.getsize(path), "B", progress) as bar,
        MeteredFile(path, bar) as raw,
        io.BufferedReader(raw, BYTES_OF_A_READ) as file,
    ):
        if not file.peek(len(GZIP_START)).startswith(GZIP_START):
            yield file
            return
        try:
            with gzip.open(file) as decompressed:
                yield cast("IO[bytes]", decompressed)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error


@contextmanager
def open_text(path: FilePath, progress: bool = False) -> Iterator[io.TextIOWrapper]:
    """Open a file, gzip or not, as UTF-8 text, with or without a byte order mark.

    Line ends are left as they are.

    Raises
    ------
    ValueError
        If, while the file is open, its text turns out not to be UTF-8, its gzip data to be damaged,
        its quotes to be broken (`csv.Error`), or a line to be longer than `LONGEST_LINE`. The
        message names the file, and the line if known.
    """
    try:
        with (
            open_bytes(path, progress) as binary,
            io.TextIOWrapper(
                cast("IO[bytes]", ShortLines(binary, path)), encoding="utf-8-sig", newline=""
            ) as file,
        ):
            yield file
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise ValueError(
            f"{path}: line {line} is not UTF-8 text; save the file as UTF-8"
        ) from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


class ShortLines(io.BufferedIOBase):
    """The bytes of a text file; a line that does not end would be read whole into memory.

    Parameters
    ----------
    file : binary file
    path : name of the file, for messages
    """

    def __init__(self, file: IO[bytes], path: FilePath) -> None:
        self.file = file
        self.path = path
        self.length = 0  # of the line that has begun

    def readable(self) -> bool:
        """Return True."""
        return True

    def read1(self, size: int = -1, /) -> bytes:
        """Return the next bytes, b"" at the end; ValueError in a line that is too long."""
        block: bytes = cast("io.BufferedReader", self.file).read1(size)
        end = max(block.rfind(b"\n"), block.rfind(b"\r"))
        self.length = len(block) - end - 1 + (self.length if end < 0 else 0)
        if self.length > LONGEST_LINE:
            raise ValueError(f"{self.path}: a line is longer than {LONGEST_LINE:,} bytes")
        return block


def _undecodable_line(path: FilePath) -> int | None:
    """Return the number, from 1, of the first line that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    with open_bytes(path) as file:
        while block := file.read(BYTES_OF_A_READ):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                # `object` is the block, behind the bytes of a character that has begun before it.
                return lines + error.object[: error.start].count(b"\n")
            lines += block.count(b"\n")
    return lines
