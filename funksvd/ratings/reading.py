"""Ratings, pairs and titles from files: delimited text and Parquet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np

from funksvd.ratings.columns import (
    Chosen,
    Column,
    RawRatings,
    in_words,
    is_known_name,
    positions_of,
)
from funksvd.ratings.ids import Encoded
from funksvd.ratings.opening import FilePath, is_parquet, one_file, open_text
from funksvd.ratings.records import (
    Record,
    detect_separator,
    has_surplus,
    line_in_words,
    split_records,
)
from funksvd.ratings.text import read_text
from funksvd.ratings.times import checked_times

__all__ = ["read_columns", "read_pairs", "read_ratings", "read_titles"]


class Options(NamedTuple):
    """How a file is read; the fields are parameters of `read_ratings`."""

    sep: str | None
    header: bool | None
    on_bad_lines: str
    progress: bool


def read_ratings(
    path: FilePath,
    *,
    user: Column = None,
    item: Column = None,
    rating: Column = None,
    sep: str | None = None,
    header: bool | None = None,
    on_bad_lines: str = "raise",
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read users, items and ratings from a text or Parquet file.

    The first bytes tell Parquet, gzip and text apart, not the name. Text is UTF-8, with or without
    a byte order mark, and has any kind of line end. Blank lines are ignored, fields are stripped
    of surrounding white space, and further columns are allowed. Single-character separators follow
    RFC 4180: a field in double quotes may hold separators, line ends and doubled quotes.

    If pyarrow is installed, it parses large text files. A file whose quotes or white space two
    readers might read differently is left to Python's csv, so the result is always the same.

    Parameters
    ----------
    path : str or path-like
    user, item, rating : str or int, optional
        Column name, or position from 0. By default the column with a well-known name (``userId``,
        ``Book-Rating``, ``stars``, ...), and positions 0, 1, 2 in text without a header.
    sep : str, optional
        The separator of fields; ``" "`` stands for any run of white space. By default the first of
        tab, ``::``, ``,``, ``;``, ``|`` and white space that cuts the first line into three fields
        or more.
    header : bool, optional
        Whether the first line holds column names. By default it does if a column was named, or if
        its rating (position 2 if `rating` is not given) is not a number.
    on_bad_lines : {"raise", "skip"}
        Raise ValueError for bad lines, or leave them out and warn once. A line is bad if it has too
        few fields, more fields than the first line (a separator in a title shifts the fields
        behind it) or broken quotes, if an id is empty or holds NUL, or if the rating is not a
        finite number. A row of Parquet is bad if it holds a null or NaN.
    progress : bool
        Show a progress bar if reading takes more than a second.

    Returns
    -------
    users, items : ndarray of shape (n_ratings,)
        int64 if every id of the column is an integer that fits, spelt as ``str`` spells it; else
        object, holding str ("007" and "+7" are other ids than "7"). Equal ids share one str: 8
        bytes a rating, while an array of fixed width takes 4 bytes a character.
    ratings : ndarray of shape (n_ratings,), float64

    Raises
    ------
    ValueError
        If there are bad lines or no ratings, a column is not found, or the file cannot be decoded.
    ImportError
        If the file is Parquet and pyarrow is not installed.
    """
    options = Options(sep, header, on_bad_lines, progress)
    users, items, ratings, _ = _read(path, Chosen(user, item, rating), options)
    return users.decode(), items.decode(), ratings


def read_columns(
    path: FilePath,
    *,
    user: Column = None,
    item: Column = None,
    rating: Column = None,
    time: Column | Literal[False] = None,
    sep: str | None = None,
    header: bool | None = None,
    on_bad_lines: str = "raise",
    progress: bool = False,
) -> RawRatings:
    """Read a file like `read_ratings`, with users and items as `Encoded`, and with times.

    Return (users, items, ratings, times); no array of one str for each rating is made.

    Parameters
    ----------
    time : str, int, None or False
        The column of the times. None finds one with a well-known name (``timestamp``, ``date``,
        ...), and reads no times if there is none; False reads none.
    """
    options = Options(sep, header, on_bad_lines, progress)
    return _read(path, Chosen(user, item, rating, time), options)


def _read(path: FilePath, chosen: Chosen, options: Options) -> RawRatings:
    """Read the usable ratings of a file.

    A warning names the line that called the public function that calls this one.
    """
    _check_options(options)
    with one_file(path):
        needed = "a user, an item and a finite number as rating"
        if is_parquet(path):
            raw, locate = _read_parquet(path, chosen, options)
        else:
            raw, locate = read_text(path, chosen, options.sep, options.header, options.progress)
            needed = f"{needed}, and no more fields than the first line"
        if raw.times is not None:
            needed = f"{needed}, and a time (time=False leaves the times out)"
        usable = _are_usable(raw)
        if not usable.all():
            n_bad = usable.size - np.count_nonzero(usable)
            place = locate(int(np.argmin(usable)))
            problem = (
                f"{path}: {n_bad} of {usable.size} ratings cannot be used, the first in {place}; "
                f"each needs {needed}"
            )
            _raise_or_warn(problem, options.on_bad_lines, stacklevel=4)
            raw = _selected(raw, usable)
        if not raw.values.size:
            raise ValueError(f"{path} holds no ratings")
        values = np.require(raw.values, requirements="W")  # Arrow's arrays are read-only
        times = None
        if raw.times is not None:
            times = checked_times(raw.times, len(values), f"{path}: the times")
        return RawRatings(_typed(raw.users), _typed(raw.items), values, times)


def _check_options(options: Options) -> None:
    """Raise ValueError if `on_bad_lines`, `header` or `sep` is not allowed."""
    on_bad_lines = options.on_bad_lines
    if on_bad_lines not in ("raise", "skip"):
        raise ValueError(f"on_bad_lines must be 'raise' or 'skip', got {on_bad_lines!r}")
    header = options.header
    if header is not None and not isinstance(header, bool):
        raise ValueError(f"header must be None, True or False, got {header!r}")
    sep = options.sep
    if sep is not None and not _is_separator(sep):
        raise ValueError(f"sep must be None or a string without quotes and line ends, got {sep!r}")


def _is_separator(value: Any) -> bool:
    """Return whether a value is a string that is not empty and holds no quote and no line end."""
    if not isinstance(value, str) or not value:
        return False
    return not set(value) & set('"\r\n')


def _read_parquet(
    path: FilePath,
    chosen: Chosen,
    options: Options,
) -> tuple[RawRatings, Callable[[int], str]]:
    """Call `parquet.read_parquet` unless an option of text was given or pyarrow is missing."""
    if options.sep is not None or options.header is not None:
        raise ValueError(f"{path} is a Parquet file; sep and header are for text, leave them out")
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{path} is Parquet, which needs pyarrow: pip install "funksvd[frames]"'
        ) from error
    from funksvd.ratings.parquet import read_parquet

    return read_parquet(path, chosen, options.progress)


def _are_usable(raw: RawRatings) -> np.ndarray:
    """Return (n,) whether a rating is finite, has a time if times are read, and usable ids.

    An id is usable if it is not blank and holds no NUL.
    """
    usable: np.ndarray = np.isfinite(raw.values)
    if raw.times is not None:
        usable &= np.isfinite(raw.times)
    for column in (raw.users, raw.items):
        are_ids = [bool(text.strip()) and "\0" not in text for text in column.ids]
        if not all(are_ids):
            usable &= np.array(are_ids)[column.codes]
    return usable


def _selected(raw: RawRatings, chosen: np.ndarray) -> RawRatings:
    """Return the ratings where `chosen`, (n,) bool, is True."""
    users = raw.users.codes[chosen]
    items = raw.items.codes[chosen]
    return RawRatings(
        Encoded(users, raw.users.ids),
        Encoded(items, raw.items.ids),
        raw.values[chosen],
        None if raw.times is None else raw.times[chosen],
    )


def _raise_or_warn(
    problem: str,
    on_bad_lines: str,
    stacklevel: int,
) -> None:
    """Raise ValueError, or warn that bad lines are left out, as `on_bad_lines` says."""
    if on_bad_lines == "raise":
        raise ValueError(f"{problem}. Pass on_bad_lines='skip' to leave them out")
    warnings.warn(f"{problem}. They are left out", stacklevel=stacklevel)


def _typed(texts: Encoded) -> Encoded:
    """Return texts as ids: int64 if every one in use is a plain integer, else str objects."""
    used = texts.used()
    stripped = [texts.ids[code].strip() for code in used.tolist()]
    values = _as_integers(stripped)
    if values is None:
        values = np.array(stripped, dtype=object)
    ids = np.zeros(len(texts.ids), dtype=values.dtype)
    ids[used] = values
    return Encoded(texts.codes, ids)


def _as_integers(texts: list[str]) -> np.ndarray | None:
    """Return int64 of texts, None if one is no integer that fits or is not spelt as str does."""
    try:
        values = np.array([int(text) for text in texts], dtype=np.int64)
    except (ValueError, OverflowError):
        return None
    if list(map(str, values.tolist())) != texts:
        return None
    return values


def read_pairs(
    path: FilePath,
    *,
    user: Column = None,
    item: Column = None,
    sep: str | None = None,
    header: bool | None = None,
    on_bad_lines: str = "raise",
) -> tuple[np.ndarray, np.ndarray]:
    """Read users and items, without ratings, from a text file, to predict their ratings.

    Options, ids and errors are those of `read_ratings`. But names alone tell a header, since there
    need be no rating, and Parquet is not read.

    Returns
    -------
    users, items : ndarray of shape (n_pairs,)
    """
    _check_options(Options(sep, header, on_bad_lines, progress=False))
    columns: dict[str, Column] = {"user": user, "item": item}
    users: list[str] = []
    items: list[str] = []
    bad_lines: list[int] = []
    with _open_records(path, sep) as records:
        first = next(records, None)
        if first is None:
            raise ValueError(f"{path} holds no pairs of user and item, it is empty")
        _, first_fields = first
        names = [field.strip() for field in first_fields]
        if header is None:
            header = _are_names(names, columns)
        if header:
            user_at, item_at = positions_of(names, columns, path)
        else:
            user_at, item_at = positions_of(len(names), columns, path)
            records = chain([first], records)
        for line, fields in records:
            found_user = _field(fields, user_at)
            found_item = _field(fields, item_at)
            if found_user and found_item and not has_surplus(fields, len(names)):
                users.append(found_user)
                items.append(found_item)
            else:
                bad_lines.append(line)
    if bad_lines:
        n_bad = len(bad_lines)
        place = line_in_words(path, bad_lines[0])
        problem = (
            f"{path}: {n_bad} of {n_bad + len(users)} pairs lack a user or an item, "
            f"or have more fields than the first line, the first in {place}"
        )
        _raise_or_warn(problem, on_bad_lines, stacklevel=3)
    if not users:
        raise ValueError(f"{path} holds no pairs of user and item")
    return _ids_of(users), _ids_of(items)


def _are_names(fields: list[str], columns: Mapping[str, Column]) -> bool:
    """Return whether the first record of pairs holds column names.

    It does if a column was named, or if it has a well-known name for each of `columns`.
    """
    if any(isinstance(column, str) for column in columns.values()):
        return True
    return all(_has_known_name(fields, role) for role in columns)


def _has_known_name(fields: list[str], role: str) -> bool:
    """Return whether one of the fields is a well-known name for a role."""
    return any(is_known_name(field, role) for field in fields)


def _field(fields: list[str], position: int) -> str:
    """Return a stripped field of a record, "" where it has too few."""
    return fields[position].strip() if position < len(fields) else ""


def _ids_of(texts: list[str]) -> np.ndarray:
    """Return the typed id of each text."""
    codes = np.arange(len(texts))
    ids: np.ndarray = _typed(Encoded(codes, texts)).ids
    return ids


def read_titles(path: FilePath) -> dict[str, str]:
    """Read {item id: title}, both as text, from a text file with a header.

    The header names a column item_id or id, or one with a well-known name of items, and a column
    title or name.
    """
    with _open_records(path) as records:
        _, header = next(records)
        names = [field.strip() for field in header]
        id_at, title_at = _columns_of_titles(names, path)
        title_of = {}
        for _, fields in records:
            if len(fields) > max(id_at, title_at):
                title_of[fields[id_at].strip()] = fields[title_at].strip()
    return title_of


def _columns_of_titles(names: list[str], path: FilePath) -> tuple[int, int]:
    """Return the positions of the items' ids and of their titles."""
    ids = _positions_named(names, ("item_id", "id"))
    for position, name in enumerate(names):
        if is_known_name(name, "item"):
            ids.append(position)
    titles = _positions_named(names, ("title", "name"))
    if ids and ids[0] in titles:
        titles.remove(ids[0])
    if not ids or not titles:
        missing = "title" if ids else "item_id or id"
        raise ValueError(f"{path}: titles need a column {missing}; there are {in_words(names)}")
    return ids[0], titles[0]


def _positions_named(names: list[str], wanted: Sequence[str]) -> list[int]:
    """Return the position of each name of `wanted` that is there, whatever its case."""
    folded = [name.casefold() for name in names]
    return [folded.index(name) for name in wanted if name in folded]


@contextmanager
def _open_records(path: FilePath, sep: str | None = None) -> Iterator[Iterator[Record]]:
    """Open the records of a text table of two columns or more."""
    if is_parquet(path):
        raise ValueError(f"{path} is a Parquet file; here only delimited text is read")
    sep = sep or detect_separator(path, 2)
    with open_text(path) as file:
        yield split_records(file, sep)
