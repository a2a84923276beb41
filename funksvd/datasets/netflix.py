"""The ratings of the Netflix Prize (Bennett & Lanning 2007), from its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from funksvd.datasets.dataset import Dataset
from funksvd.machine.threads import cpu_count, parallel
from funksvd.ratings.opening import reading_bar
from funksvd.ratings.triples import Ratings

BYTES_OF_A_BLOCK = 1 << 22
FILES_OF_A_BLOCK = 200  # of the prize's files with one movie each
# A line CUSTOMER,RATING,YYYY-MM-DD has fixed places, counted from its end.
LEAST_LENGTH = 14
SIGNS = {13: ",", 11: ",", 6: "-", 3: "-"}
CUSTOMER_END = 13
RATING = (12, 11)
YEAR = (10, 6)
MONTH = (5, 3)
DAY = (2, 0)
MOST_DIGITS = 9  # an int32 holds any number of nine digits


class Piece(NamedTuple):
    """A piece of whole lines of a file: `n_bytes` bytes from `start` on, -1 for all."""

    path: Path
    start: int = 0
    n_bytes: int = -1


Block = list[Piece]  # pieces that one thread parses together


class Parsed(NamedTuple):
    """The ratings of a block.

    movies : (n_movies,) int32, the movies that lines MOVIE: of the block name
    places : (n,) int32, the number of such lines before each rating; a rating at place 0 is one of
        the last movie of the blocks before
    users : (n,) int32
    values : (n,) float32
    days : (n,) int32 days from 1970 on, or None
    """

    movies: np.ndarray
    places: np.ndarray
    users: np.ndarray
    values: np.ndarray
    days: np.ndarray | None


def load_netflix(
    folder: str | os.PathLike[str], *, times: bool = False, progress: bool = False
) -> Dataset:
    """Load the ratings of the Netflix Prize (Bennett & Lanning 2007) from a folder with its files.

    The ratings come from ``combined_data_*.txt`` or, if there are none, from ``mv_*.txt`` (also in
    ``training_set``), and the titles from ``movie_titles.csv`` or ``movie_titles.txt`` if there is
    one.

    Parameters
    ----------
    folder : path
    times : bool
        Return the days of the ratings, too.
    progress : bool
        Show a progress bar if reading takes more than a second.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If there are no such files.
    ValueError
        If a line is neither ``MOVIE:`` nor ``CUSTOMER,RATING,YYYY-MM-DD``.
    """
    folder = Path(folder)
    blocks = _blocks(folder)
    with reading_bar(folder, len(blocks), "block", progress) as bar:

        def parse_block(block: Block) -> Parsed:
            parsed = _parse(_content(block), _name(block), times)
            bar.update()
            return parsed

        parts = parallel(parse_block, blocks, cpu_count())
    movies = _movies(parts, folder)
    users = np.concatenate([part.users for part in parts])
    values = np.concatenate([part.values for part in parts])
    days = [part.days for part in parts if part.days is not None]
    rated_on = np.concatenate(days).astype("datetime64[D]") if times else None
    return Dataset(Ratings.from_arrays(users, movies, values), _titles(folder), rated_on)


def _blocks(folder: Path) -> list[Block]:
    """Return the blocks of a folder's files, in order."""
    combined = sorted(folder.glob("combined_data_*.txt"))
    if combined:
        return [[piece] for path in combined for piece in _pieces(path)]
    single = sorted([*folder.glob("mv_*.txt"), *folder.glob("training_set/mv_*.txt")])
    if not single:
        raise FileNotFoundError(f"{folder} holds neither combined_data_*.txt nor mv_*.txt")
    pieces = [Piece(path) for path in single]
    return [
        pieces[start : start + FILES_OF_A_BLOCK]
        for start in range(0, len(pieces), FILES_OF_A_BLOCK)
    ]


def _pieces(path: Path) -> Iterator[Piece]:
    """Yield a file as pieces of whole lines, each of `BYTES_OF_A_BLOCK` bytes or a little more."""
    size = path.stat().st_size
    start = 0
    with open(path, "rb") as file:
        while start < size:
            file.seek(min(start + BYTES_OF_A_BLOCK, size))
            file.readline()
            end = file.tell()
            yield Piece(path, start, end - start)
            start = end


def _content(block: Block) -> bytes:
    """Return the lines of a block."""
    contents = []
    for path, start, n_bytes in block:
        with open(path, "rb") as file:
            file.seek(start)
            contents.append(file.read(n_bytes))
    return b"\n".join(contents)


def _name(block: Block) -> str:
    """Return the file or files of a block for a message."""
    first = block[0].path
    last = block[-1].path
    return str(first) if first == last else f"{first} to {last.name}"


def _movies(parts: list[Parsed], folder: Path) -> np.ndarray:
    """Return (n,) int32 movies of the ratings of all blocks."""
    movies = []
    last = None
    for part in parts:
        if last is None and not (len(part.movies) and part.places.all()):
            raise ValueError(f"{folder}: the first line names no movie")
        before = -1 if last is None else last
        movie_at = np.append(before, part.movies).astype(np.int32)
        movies.append(movie_at[part.places])
        last = movie_at[-1]
    return np.concatenate(movies)


def _parse(content: bytes, name: str, times: bool) -> Parsed:
    """Parse whole lines; blank ones are ignored. `name` names the file in messages."""
    text = np.frombuffer(content.replace(b"\r", b"") + b"\n", np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)
    filled = ends > starts
    starts = starts[filled]
    ends = ends[filled]
    is_movie = text[ends - 1] == ord(":")
    movies = _numbers(text, starts[is_movie], ends[is_movie] - 1, name)
    places = np.cumsum(is_movie, dtype=np.int32)[~is_movie]
    starts = starts[~is_movie]
    ends = ends[~is_movie]
    _check_signs(text, starts, ends, name)
    users = _numbers(text, starts, ends - CUSTOMER_END, name)
    values = _part(text, ends, RATING, name).astype(np.float32)
    days = _days(text, ends, name) if times else None
    return Parsed(movies, places, users, values, days)


def _check_signs(text: np.ndarray, starts: np.ndarray, ends: np.ndarray, name: str) -> None:
    """Raise ValueError if a line of a rating is too short, or lacks a comma or a dash."""
    is_bad = ends - starts < LEAST_LENGTH
    if not is_bad.any():
        for place, sign in SIGNS.items():
            is_bad |= text[ends - place] != ord(sign)
    if is_bad.any():
        bad = int(is_bad.argmax())
        line = _shown(text, starts[bad], ends[bad])
        raise ValueError(f"{name}: {line} is neither MOVIE: nor CUSTOMER,RATING,YYYY-MM-DD")


def _part(text: np.ndarray, ends: np.ndarray, places: tuple[int, int], name: str) -> np.ndarray:
    """Return (n,) int32 numbers between two places, counted from the ends of the lines."""
    first, last = places
    return _numbers(text, ends - first, ends - last, name)


def _days(text: np.ndarray, ends: np.ndarray, name: str) -> np.ndarray:
    """Return (n,) int32 days from 1970 on of the dates at the ends of lines."""
    years = _part(text, ends, YEAR, name)
    months = (years - 1970) * 12 + _part(text, ends, MONTH, name) - 1
    firsts_of_month = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int32)
    return (firsts_of_month + _part(text, ends, DAY, name) - 1).astype(np.int32)


def _numbers(text: np.ndarray, starts: np.ndarray, ends: np.ndarray, name: str) -> np.ndarray:
    """Return (n,) int32 numbers whose digits stand from `starts` to before `ends`.

    Raises
    ------
    ValueError
        If a character is no digit, or a number has more than `MOST_DIGITS`.
    """
    numbers = np.zeros(len(starts), np.int32)
    lengths = ends - starts
    most = int(lengths.max(initial=0))
    if most > MOST_DIGITS:
        _refuse_number(text, starts, ends, int(np.argmax(lengths)), name)
    for place in range(most):  # the ones of all numbers, then the tens, ...
        digits = text[ends - (1 + place)] - np.uint8(ord("0"))
        digits[lengths <= place] = 0  # shorter numbers: the character is not theirs
        if digits.max() > 9:
            _refuse_number(text, starts, ends, int(np.argmax(digits)), name)
        numbers += digits * np.int32(10**place)
    return numbers


def _refuse_number(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray, bad: int, name: str
) -> None:
    """Raise ValueError for the number `bad`."""
    raise ValueError(f"{name}: {_shown(text, starts[bad], ends[bad])} is not a number")


def _shown(text: np.ndarray, start: int, end: int) -> str:
    """Return a text for a message: quoted, and cut after 80 bytes."""
    return repr(bytes(text[start:end][:80]).decode(errors="replace"))


def _titles(folder: Path) -> dict[int, str]:
    """Read {movie: title} from lines MOVIE,YEAR,TITLE in Latin-1; {} if there is no such file."""
    for name in ("movie_titles.csv", "movie_titles.txt"):
        path = folder / name
        if path.exists():
            return _titles_in(path)
    return {}


def _titles_in(path: Path) -> dict[int, str]:
    """Read {movie: title} from a file; titles may hold commas."""
    title_of = {}
    for line in path.read_text("latin-1").splitlines():
        fields = line.split(",", 2)
        if len(fields) == 3:
            title_of[int(fields[0])] = fields[2].strip()
    return title_of
