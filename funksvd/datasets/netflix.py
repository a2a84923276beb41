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


class Spans(NamedTuple):
    """Lines of a text, or a field of each line.

    text : (n_bytes,) uint8
    starts, ends : (n,) place of the first byte of each span, and the place behind its last byte
    name : the file, for messages
    """

    text: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    name: str

    def selected(self, chosen: np.ndarray) -> Spans:
        """Return the spans where `chosen`, (n,) bool, is True."""
        return self._replace(
            starts=self.starts[chosen],
            ends=self.ends[chosen],
        )

    def before(self, n_bytes: int) -> Spans:
        """Return each span without its last bytes."""
        return self._replace(ends=self.ends - n_bytes)

    def between(self, first: int, last: int) -> Spans:
        """Return a part of each span, whose bounds are counted from the end of the span."""
        return self._replace(
            starts=self.ends - first,
            ends=self.ends - last,
        )

    def in_words(self, k: int) -> str:
        """Return span k for a message: quoted, and cut after 80 bytes."""
        start = self.starts[k]
        end = min(self.ends[k], start + 80)
        shown = bytes(self.text[start:end])
        return repr(shown.decode(errors="replace"))


def load_netflix(
    folder: str | os.PathLike[str],
    *,
    times: bool = False,
    progress: bool = False,
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
    rated_on = None
    if times:
        days = np.concatenate([part.days for part in parts])
        rated_on = days.astype("datetime64[D]")
    ratings = Ratings.from_arrays(users, movies, values)
    return Dataset(ratings, _titles(folder), rated_on)


def _blocks(folder: Path) -> list[Block]:
    """Return the blocks of a folder's files, in order."""
    combined = sorted(folder.glob("combined_data_*.txt"))
    if combined:
        return [[piece] for path in combined for piece in _pieces(path)]
    single = list(folder.glob("mv_*.txt"))
    single += folder.glob("training_set/mv_*.txt")
    if not single:
        raise FileNotFoundError(f"{folder} holds neither combined_data_*.txt nor mv_*.txt")
    pieces = [Piece(path) for path in sorted(single)]
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
    if first == last:
        return str(first)
    return f"{first} to {last.name}"


def _movies(parts: list[Parsed], folder: Path) -> np.ndarray:
    """Return (n,) int32 movies of the ratings of all blocks."""
    first = parts[0]
    if not len(first.movies) or not first.places.all():
        raise ValueError(f"{folder}: the first line names no movie")
    movies = []
    last = -1
    for part in parts:
        movie_at = np.append(last, part.movies).astype(np.int32)
        movies.append(movie_at[part.places])
        last = movie_at[-1]
    return np.concatenate(movies)


def _parse(content: bytes, name: str, times: bool) -> Parsed:
    """Parse whole lines; `name` names the file in messages."""
    lines = _lines(content, name)
    is_movie = lines.text[lines.ends - 1] == ord(":")
    movies = lines.selected(is_movie).before(1)
    places = np.cumsum(is_movie, dtype=np.int32)
    ratings = lines.selected(~is_movie)
    _check_signs(ratings)
    values = _numbers(ratings.between(*RATING))
    return Parsed(
        movies=_numbers(movies),
        places=places[~is_movie],
        users=_numbers(ratings.before(CUSTOMER_END)),
        values=values.astype(np.float32),
        days=_days(ratings) if times else None,
    )


def _lines(content: bytes, name: str) -> Spans:
    """Return the lines of a text that are not blank."""
    content = content.replace(b"\r", b"")
    text = np.frombuffer(content + b"\n", np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)
    lines = Spans(text, starts, ends, name)
    return lines.selected(ends > starts)


def _check_signs(lines: Spans) -> None:
    """Raise ValueError if a line of a rating is too short, or lacks a comma or a dash."""
    is_bad = lines.ends - lines.starts < LEAST_LENGTH
    if not is_bad.any():
        for place, sign in SIGNS.items():
            is_bad |= lines.text[lines.ends - place] != ord(sign)
    if is_bad.any():
        line = lines.in_words(int(is_bad.argmax()))
        raise ValueError(f"{lines.name}: {line} is neither MOVIE: nor CUSTOMER,RATING,YYYY-MM-DD")


def _days(lines: Spans) -> np.ndarray:
    """Return (n,) int32 days from 1970 on of the dates at the ends of lines."""
    years = _numbers(lines.between(*YEAR))
    months = _numbers(lines.between(*MONTH))
    days = _numbers(lines.between(*DAY))
    months += 12 * (years - 1970) - 1
    first_days = months.astype("datetime64[M]").astype("datetime64[D]")
    days += first_days.astype(np.int32) - 1
    return days


def _numbers(fields: Spans) -> np.ndarray:
    """Return (n,) int32 numbers that fields spell with digits.

    Raises
    ------
    ValueError
        If a field holds another character, or more than `MOST_DIGITS`.
    """
    lengths = fields.ends - fields.starts
    numbers = np.zeros(len(lengths), np.int32)
    most = int(lengths.max(initial=0))
    if most > MOST_DIGITS:
        _refuse(fields, int(lengths.argmax()))
    for place in range(most):  # the ones of all numbers, then the tens, ...
        characters = fields.text[fields.ends - (1 + place)]
        digits = characters - np.uint8(ord("0"))
        digits[lengths <= place] = 0  # the character is not of this shorter number
        if digits.max() > 9:
            _refuse(fields, int(digits.argmax()))
        numbers += digits * np.int32(10**place)
    return numbers


def _refuse(fields: Spans, k: int) -> None:
    """Raise ValueError for field k."""
    raise ValueError(f"{fields.name}: {fields.in_words(k)} is not a number")


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
