"""Ratings, pairs and titles from files: delimited text and Parquet, and which columns hold what."""

from __future__ import annotations

import os
import stat
import warnings
from contextlib import contextmanager
from functools import partial
from itertools import chain

import numpy as np

from funksvd.ratings.columns import KNOWN_NAMES, in_words, resolve, squash
from funksvd.ratings.ids import Encoded
from funksvd.ratings.text import (
    detect_separator,
    open_text,
    read_text,
    shown,
    split_lines,
    too_long,
)

__all__ = ["read_pairs", "read_ratings", "read_titles"]


def read_ratings(
    path,
    *,
    user=None,
    item=None,
    rating=None,
    sep=None,
    header=None,
    on_bad_lines="raise",
    progress=False,
):
    """Read users, items and ratings from a text or Parquet file.

    The file's first bytes tell Parquet, gzip and text apart, not its name. Text is UTF-8, with or without a
    byte order mark, and has any kind of line end. Blank lines are ignored, fields are stripped of surrounding
    white space, and further columns are allowed. Single-character separators follow RFC 4180: a field in double
    quotes may hold separators, line ends and doubled quotes.

    Large text files are parsed by pyarrow where it is installed, unless their quotes or white space are such that two
    readers might differ. The result is the same.

    Parameters
    ----------
    path : str or path-like
    user, item, rating : str or int, optional
        Column name, or position counted from 0. By default the column with a well-known name (``userId``,
        ``movie_id``, ``Book-Rating``, ``stars``, ...), and positions 0, 1, 2 in text without a header.
    sep : str, optional
        What separates fields; ``" "`` stands for any run of white space. By default the first of tab, ``::``,
        ``,``, ``;``, ``|`` and white space that cuts the first line into three fields or more.
    header : bool, optional
        Whether the first line holds column names. By default it does if a column was named, or if its rating
        (position 2 where `rating` is not given) is not a number.
    on_bad_lines : {"raise", "skip"}
        What to do about a line with too few fields or more than the first line has (a separator in a title shifts
        what follows it), broken quotes, an id that is empty or holds NUL, or a rating that is not a finite number; in
        Parquet, about a row with a null or NaN. "skip" leaves them out and warns once.
    progress : bool
        Show a progress bar where reading takes more than a second.

    Returns
    -------
    users, items : ndarray of shape (n_ratings,)
        int64 if every id of the column is an integer that fits, written as ``str(int)`` does; otherwise
        object, holding str. ("007" and "+7" are other ids than "7", so they stay text. Equal ids share one
        str: 8 bytes a rating, where an array of fixed width takes 4 bytes a character.)
    ratings : ndarray of shape (n_ratings,), float64

    Raises
    ------
    ValueError
        No ratings, bad lines, columns that cannot be told or found, text that is not UTF-8, a damaged file.
    ImportError
        The file is Parquet and pyarrow is not installed.
    """
    users, items, ratings = read_columns(
        path,
        user=user,
        item=item,
        rating=rating,
        sep=sep,
        header=header,
        on_bad_lines=on_bad_lines,
        progress=progress,
        stacklevel=3,
    )
    return users.decode(), items.decode(), ratings


def read_columns(
    path,
    *,
    user=None,
    item=None,
    rating=None,
    sep=None,
    header=None,
    on_bad_lines="raise",
    progress=False,
    stacklevel=2,
):
    """Do what `read_ratings` does, with users and items as `Encoded`: no array of str objects is made."""
    if on_bad_lines not in ("raise", "skip"):
        raise ValueError(f"on_bad_lines must be 'raise' or 'skip', got {on_bad_lines!r}")
    if header is not None and not isinstance(header, bool):
        raise ValueError(f"header must be None, True or False, got {header!r}")
    if sep is not None and (not isinstance(sep, str) or not sep or set(sep) & set('"\r\n')):
        raise ValueError(f"sep must be None or a string without quotes and line ends, got {sep!r}")

    parquet = _is_parquet(path)
    if parquet and (sep is not None or header is not None):
        raise ValueError(f"{path} is a Parquet file; sep and header are for text, leave them out")
    if parquet:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f'{path} is Parquet, which needs pyarrow: pip install "funksvd[frames]"'
            ) from error
        from funksvd.ratings.arrow import read_parquet as read
    else:
        read = partial(read_text, sep=sep, header=header)
    users, items, ratings, locate = read(path, (user, item, rating), progress=progress)

    good = np.isfinite(ratings)
    for ids in (users, items):
        filled = np.array([bool(text.strip()) and "\0" not in text for text in ids.ids], dtype=bool)
        if not filled.all():
            good &= filled[ids.codes]
    if not good.all():
        n_bad, place = good.size - np.count_nonzero(good), locate(np.argmin(good))
        problem = (
            f"{path}: {n_bad} of {good.size} ratings cannot be used, the first in {place}; "
            f"each needs a user, an item and a finite number as rating"
            f"{'' if parquet else ', and no more fields than the first line'}"
        )
        if on_bad_lines == "raise":
            raise ValueError(f"{problem}. Pass on_bad_lines='skip' to leave them out")
        warnings.warn(f"{problem}. They are left out", stacklevel=stacklevel)
        users, items = (Encoded(ids.codes[good], ids.ids) for ids in (users, items))
        ratings = ratings[good]
    if not ratings.size:
        raise ValueError(f"{path} holds no ratings")
    return (
        _typed(users),
        _typed(items),
        np.require(ratings, requirements="W"),
    )  # Arrow's is read-only


def read_pairs(path, *, user=None, item=None, sep=None, header=None, on_bad_lines="raise"):
    """Read the users and items of a text file that needs no ratings, to predict them.

    Options, ids and errors are those of `read_ratings`, but a header is told by its names, and Parquet is not read.

    Returns
    -------
    users, items : ndarray of shape (n_pairs,)
    """
    columns = {"user": user, "item": item}
    with _open_records(path, sep) as records:
        first = next(records)
        fields = [field.strip() for field in first[1]]
        if header is None:
            header = any(isinstance(column, str) for column in columns.values()) or all(
                any(squash(field) in KNOWN_NAMES[role] for field in fields) for role in columns
            )
        width = len(fields)
        positions = resolve(fields if header else width, columns, path)
        pairs, bad = [], []
        for line, fields in records if header else chain([first], records):
            pair = [fields[k].strip() if k < len(fields) else "" for k in positions]
            good = all(pair) and not too_long(fields, width)
            (pairs if good else bad).append(pair if good else line)
    if bad:
        problem = (
            f"{path}: {len(bad)} of {len(bad) + len(pairs)} pairs lack a user or an item, or have more fields than the first"
            f" line, the first in {shown(path, bad[0])}"
        )
        if on_bad_lines == "raise":
            raise ValueError(f"{problem}. Pass on_bad_lines='skip' to leave them out")
        warnings.warn(f"{problem}. They are left out", stacklevel=2)
    if not pairs:
        raise ValueError(f"{path} holds no pairs of user and item")
    return tuple(
        _typed(Encoded(np.arange(len(pairs)), texts)).decode() for texts in zip(*pairs, strict=True)
    )


def read_titles(path):
    """Read {item id as text: title} from a text file with a header: a column item_id or id, and one title or name."""
    with _open_records(path) as records:
        names = [field.strip() for field in next(records)[1]]
        lower = [name.casefold() for name in names]
        ids = [lower.index(name) for name in ("item_id", "id") if name in lower]
        ids += [k for k, name in enumerate(names) if squash(name) in KNOWN_NAMES["item"]]
        titles = [lower.index(name) for name in ("title", "name") if name in lower]
        titles = [k for k in titles if k not in ids[:1]]
        if not ids or not titles:
            missing = "title" if ids else "item_id or id"
            raise ValueError(f"{path}: titles need a column {missing}; there are {in_words(names)}")
        width = max(ids[0], titles[0])
        return {f[ids[0]].strip(): f[titles[0]].strip() for _, f in records if len(f) > width}


def _is_parquet(path):
    """By the first bytes. A file is read several times, which a pipe does not allow."""
    if stat.S_ISFIFO(os.stat(path).st_mode) or os.path.realpath(path).startswith("/dev/"):
        raise ValueError(
            f"{path} is not a file but a pipe or a device; save what comes from it in a file first"
        )
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


@contextmanager
def _open_records(path, sep=None):
    """Yield the records of a text table of two columns or more."""
    if _is_parquet(path):
        raise ValueError(f"{path} is a Parquet file; here only delimited text is read")
    sep = sep or detect_separator(path, 2)
    with open_text(path) as file:
        yield split_lines(file, sep)


def _typed(texts):
    """Give texts their type: ids become int64 if all those in use are integers, str otherwise."""
    used = texts.used()
    stripped = [texts.ids[code].strip() for code in used.tolist()]
    try:
        values = np.array([int(text) for text in stripped], dtype=np.int64)
        plain = list(map(str, values.tolist())) == stripped
    except (ValueError, OverflowError):
        plain = False
    if not plain:
        values = np.array(stripped, dtype=object)
    ids = np.zeros(len(texts.ids), dtype=values.dtype)
    ids[used] = values
    return Encoded(texts.codes, ids)
