"""Ratings, pairs and titles from files: delimited text and Parquet, and which columns hold what."""

import csv
import difflib
import io
import math
import os
import re
import stat
import warnings
from array import array
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from numbers import Integral

import numpy as np

from funksvd.ids import Encoded

__all__ = ["read_pairs", "read_ratings", "read_titles", "resolve_columns"]

_SEPARATORS = ("\t", "::", ",", ";", "|", " ")  # in order of preference
_UNIT_SEPARATOR = "\x1f"  # the ASCII character made for this; stands in for separators that csv cannot take
_CHUNK = 512  # lines held as lists at one time: too few for the garbage collector to wake up, 15% faster
_ARROW_MIN_BYTES = 1 << 20  # below this, importing pyarrow takes longer than reading the file without it
_METER_BYTES = 1 << 20  # a step of the progress bar

_USERS = ("user", "customer", "client", "member", "reviewer", "visitor", "account", "person")
_ITEMS = (
    *("item", "product", "article", "movie", "film", "show", "video", "anime", "book", "game"),
    *("track", "song", "artist", "album", "business"),
)
_KNOWN_NAMES = {
    "user": {"uid"} | {noun + end for noun in _USERS for end in ("", "id")},
    "item": {"iid", "isbn", "asin"} | {noun + end for noun in _ITEMS for end in ("", "id")},
    "rating": {"rating", "ratings", "score", "scores", "star", "stars", "value", "overall"}
    | {noun + "rating" for noun in ("user", *_ITEMS)},
}


def read_ratings(
    path, *, user=None, item=None, rating=None, sep=None, header=None, on_bad_lines="raise", progress=False
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
    users, items, ratings = read_columns(path, user=user, item=item, rating=rating, sep=sep, header=header,
                                         on_bad_lines=on_bad_lines, progress=progress, stacklevel=3)  # fmt: skip
    return users.decode(), items.decode(), ratings


def read_columns(path, *, user=None, item=None, rating=None, sep=None, header=None, on_bad_lines="raise",
                 progress=False, stacklevel=2):  # fmt: skip
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
            raise ImportError(f'{path} is Parquet, which needs pyarrow: pip install "funksvd[frames]"') from error
        from funksvd.arrow import read_parquet as read
    else:
        read = partial(_read_text, sep=sep, header=header)
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
    return _typed(users), _typed(items), np.require(ratings, requirements="W")  # Arrow's is read-only


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
                any(_squash(field) in _KNOWN_NAMES[role] for field in fields) for role in columns
            )
        width = len(fields)
        positions = resolve(fields if header else width, columns, path)
        pairs, bad = [], []
        for line, fields in records if header else chain([first], records):
            pair = [fields[k].strip() if k < len(fields) else "" for k in positions]
            good = all(pair) and not _too_long(fields, width)
            (pairs if good else bad).append(pair if good else line)
    if bad:
        problem = (
            f"{path}: {len(bad)} of {len(bad) + len(pairs)} pairs lack a user or an item, or have more fields than the first"
            f" line, the first in {_shown(path, bad[0])}"
        )
        if on_bad_lines == "raise":
            raise ValueError(f"{problem}. Pass on_bad_lines='skip' to leave them out")
        warnings.warn(f"{problem}. They are left out", stacklevel=2)
    if not pairs:
        raise ValueError(f"{path} holds no pairs of user and item")
    return tuple(_typed(Encoded(np.arange(len(pairs)), texts)).decode() for texts in zip(*pairs, strict=True))


def read_titles(path):
    """Read {item id as text: title} from a text file with a header: a column item_id or id, and one title or name."""
    with _open_records(path) as records:
        names = [field.strip() for field in next(records)[1]]
        lower = [name.casefold() for name in names]
        ids = [lower.index(name) for name in ("item_id", "id") if name in lower]
        ids += [k for k, name in enumerate(names) if _squash(name) in _KNOWN_NAMES["item"]]
        titles = [lower.index(name) for name in ("title", "name") if name in lower]
        titles = [k for k in titles if k not in ids[:1]]
        if not ids or not titles:
            missing = "title" if ids else "item_id or id"
            raise ValueError(f"{path}: titles need a column {missing}; there are {_listed(names)}")
        width = max(ids[0], titles[0])
        return {f[ids[0]].strip(): f[titles[0]].strip() for _, f in records if len(f) > width}


def _is_parquet(path):
    """By the first bytes. A file is read several times, which a pipe does not allow."""
    if stat.S_ISFIFO(os.stat(path).st_mode) or os.path.realpath(path).startswith("/dev/"):
        raise ValueError(f"{path} is not a file but a pipe or a device; save what comes from it in a file first")
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


@contextmanager
def _open_records(path, sep=None):
    """Yield the records of a text table of two columns or more."""
    if _is_parquet(path):
        raise ValueError(f"{path} is a Parquet file; here only delimited text is read")
    sep = sep or _detect_separator(path, 2)
    with _open_text(path) as file:
        yield _records(file, sep)


def resolve_columns(names, user, item, rating, where):
    """Return the positions of the user, the item and the rating column.

    Parameters
    ----------
    names : sequence or int
        The column names, or the number of columns where they have no names.
    user, item, rating : str, int or None
        Column name, position counted from 0, or None: guess from well-known names (case, "_", "-" and blanks
        are ignored), or 0, 1, 2 where columns have no names.
    where : str
        What the columns belong to, for messages.

    Raises
    ------
    ValueError
        A column that is not there, cannot be guessed without doubt, or is chosen twice.
    TypeError
        A column that is neither str nor int.
    """
    return resolve(names, {"user": user, "item": item, "rating": rating}, where)


def resolve(names, columns, where):
    positions = {}
    for default, (role, column) in enumerate(columns.items()):
        if column is None:
            position = _guess(names, role, where) if _named(names) else default
        elif isinstance(column, str):
            position = _find(names, role, column, where)
        elif isinstance(column, Integral):
            position = int(column)
        else:
            raise TypeError(f"{role} must be a column name or a position, got {column!r}")

        n_columns = len(names) if _named(names) else names
        if not 0 <= position < n_columns:
            raise ValueError(f"{where}: {role}={position} is out of range: {n_columns} columns, from 0")
        for other, taken in positions.items():
            if taken == position:
                raise ValueError(
                    f"{where}: {other} and {role} are both column {position}; pass {other}= or {role}="
                )
        positions[role] = position
    return tuple(positions.values())


def _named(names):
    return not isinstance(names, int)


def _guess(names, role, where):
    known = [position for position, name in enumerate(names) if _squash(name) in _KNOWN_NAMES[role]]
    if len(known) != 1:
        found = "several look like it" if known else "no name is known"
        raise ValueError(
            f"{where}: cannot tell which column is the {role} ({found}) of {_listed(names)}; "
            f"pass {role}=, a column name or a position from 0"
        )
    return known[0]


def _find(names, role, column, where):
    if not _named(names):
        raise ValueError(
            f"{where}: {role}={column!r} names a column, but there is no header; "
            f"pass a position from 0 or header=True"
        )
    found = [position for position, name in enumerate(names) if name == column]
    if len(found) > 1:
        raise ValueError(f"{where}: {role}={column!r} names {len(found)} columns; pass a position of {found}")
    if not found:
        squashed = {_squash(name): name for name in names}
        close = difflib.get_close_matches(_squash(column), squashed, n=1)
        hint = f"; did you mean {squashed[close[0]]!r}?" if close else ""
        raise ValueError(f"{where}: {role}={column!r} is not among the columns {_listed(names)}{hint}")
    return found[0]


def _squash(name):
    return re.sub(r"[\s_-]", "", str(name)).casefold()


def _listed(names):
    return ", ".join(map(repr, names))


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


# Text


def _read_text(path, columns, sep, header, progress):
    """Return users, items, ratings, and a function that describes the place of the k-th rating."""
    sep = sep or _detect_separator(path)
    with _open_text(path) as file:
        records = _records(file, sep)
        first = next(records, None)
        if first is None:
            raise ValueError(f"{path} holds no ratings, it is empty")
        line, fields = first
        if header is None:
            header = _looks_like_header(fields, columns)
        names = [field.strip() for field in fields] if header else len(fields)
        positions = resolve_columns(names, *columns, where=path)
    n_header = line if header else 0
    table = _parse_with_arrow(path, sep, n_header, len(fields), positions, progress)
    if table is None:
        with _open_text(path, progress) as file:
            table = _parse(islice(_records(file, sep), int(header), None), positions, len(fields))
    return *table, partial(_locate, path, sep, int(header))


@contextmanager
def _open_text(path, progress=False):
    """Open a text file, gzip or not, and let every fault of its content say which file it is."""
    import gzip
    import zlib

    try:
        with open_binary(path, progress) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise ValueError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def open_binary(path, progress=False):
    """Yield the bytes of a file, gzip or not. The bar moves with what is read from the disk."""
    from tqdm import tqdm

    with (
        tqdm(total=os.path.getsize(path), desc=f"reading {os.path.basename(path)}", unit="B", unit_scale=True, delay=1,
             leave=False, disable=not progress) as bar,
        _Meter(path, bar) as meter,
        io.BufferedReader(meter, _METER_BYTES) as file,
    ):  # fmt: skip
        if file.peek(2)[:2] != b"\x1f\x8b":
            yield file
            return
        import gzip

        with gzip.open(file) as unzipped:
            yield unzipped


class _Meter(io.FileIO):
    """A file whose reads move a progress bar."""

    def __init__(self, path, bar):
        super().__init__(path)
        self.bar = bar

    def readinto(self, buffer):
        n = super().readinto(buffer)
        self.bar.update(n)
        return n


def _undecodable_line(path):
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number


def _detect_separator(path, width=3):
    with _open_text(path) as file:
        line = next(filter(str.strip, file), None)
    if line is None:
        raise ValueError(f"{path} holds no ratings, it is empty")
    for sep in _SEPARATORS:
        if any(len(fields) >= width for _, fields in _records([line], sep)):
            return sep
    raise ValueError(
        f"{path}: no separator of {_listed(_SEPARATORS)} cuts the first line, {shorten(line)}, "
        f"into {width} fields or more; pass sep="
    )


def _records(lines, sep):
    """Yield line number and fields of each record that is not blank; no fields where quotes are broken."""
    delimiter, quoting = sep, csv.QUOTE_MINIMAL
    if sep == " ":
        lines, quoting = (" ".join(line.split()) for line in lines), csv.QUOTE_NONE
    elif len(sep) > 1:
        lines, quoting = (line.replace(sep, _UNIT_SEPARATOR) for line in lines), csv.QUOTE_NONE
        delimiter = _UNIT_SEPARATOR
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    line, at_end = 1, False
    while not at_end:
        try:
            for fields in reader:
                if len(fields) > 1 or "".join(fields).strip():
                    yield line, fields
                line = reader.line_num + 1
            at_end = True
        except csv.Error as error:
            # A broken record that spans lines may have swallowed any number of good ones: never skip that.
            if reader.line_num > line:
                raise csv.Error(f"quotes opened on line {line} are not closed properly ({error})") from error
            yield line, []
            line = reader.line_num + 1


def _looks_like_header(fields, columns):
    if any(isinstance(column, str) for column in columns):
        return True
    position = 2 if columns[2] is None else columns[2]
    return position in range(len(fields)) and _number(fields[position], None) is None


def _number(text, otherwise=math.nan):
    try:
        return otherwise if "_" in text else float(text)  # Python's 1_000 is no number elsewhere
    except ValueError:
        return otherwise


def _too_long(fields, width):
    """Whether more than `width` fields say something: empty ones at the end of a line do no harm."""
    return len(fields) > width and any(field.strip() for field in fields[width:])


class Codes(dict):
    """Text -> code, numbered in order of appearance."""

    def __missing__(self, text):
        self[text] = code = len(self)
        return code


def _parse(records, positions, most):
    """Users, items and ratings of `records`; what is missing, or in a line of over `most` fields, is an empty id or NaN."""
    user_codes, item_codes = Codes(), Codes()
    users, items, ratings = array("i"), array("i"), array("d")
    width = max(positions) + 1
    while rows := [fields for _, fields in islice(records, _CHUNK)]:
        lengths = list(map(len, rows))
        if min(lengths) < width or max(lengths) > most:
            rows = [fields if len(fields) >= width and not _too_long(fields, most) else [""] * width for fields in rows]
        columns = list(zip(*rows, strict=False))
        user_texts, item_texts, rating_texts = (columns[position] for position in positions)
        users.extend(map(user_codes.__getitem__, user_texts))
        items.extend(map(item_codes.__getitem__, item_texts))
        numbers = {text: _number(text) for text in set(rating_texts)}  # ratings repeat, float() is slow
        ratings.extend(map(numbers.__getitem__, rating_texts))
    users, items, ratings = map(np.asarray, (users, items, ratings))
    return Encoded(users, list(user_codes)), Encoded(items, list(item_codes)), ratings


def _parse_with_arrow(path, sep, skip_rows, n_columns, positions, progress):
    """Do what `_parse` does, many times faster, or return None where there is no pyarrow or the two might differ."""
    if os.path.getsize(path) < _ARROW_MIN_BYTES or sep == " ":
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return None
    from funksvd.arrow import read_csv

    with open_binary(path, progress) as file:
        return read_csv(file, sep, skip_rows, n_columns, positions)


def _locate(path, sep, n_header, k):
    with _open_text(path) as file:
        number, _ = next(islice(_records(file, sep), n_header + k, None))
    return _shown(path, number)


def _shown(path, number):
    with _open_text(path) as file:
        line = next(islice(file, number - 1, None))
    return f"line {number}: {shorten(line)}"


def shorten(text, limit=80):
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= limit else text[:limit] + "...")
