"""Ratings from a file, and made-up ratings whose best possible error is known.

`read_ratings` reads delimited text and Parquet; `resolve_columns` decides which columns hold the user, the
item and the rating; `make_ratings` plants a low-rank model and adds noise.
"""

import csv
import difflib
import io
import math
import os
import re
import warnings
from array import array
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from numbers import Integral
from typing import NamedTuple

import numpy as np

__all__ = ["Planted", "make_ratings", "read_ratings"]

_SEPARATORS = ("\t", "::", ",", ";", "|", " ")  # in order of preference
_UNIT_SEPARATOR = "\x1f"  # the ASCII character made for this; stands in for separators that csv cannot take
_CHUNK = 512  # lines held as lists at one time: too few for the garbage collector to wake up, 15% faster
_ARROW_MIN_BYTES = 1 << 20  # below this, importing pyarrow takes longer than reading the file without it

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


def read_ratings(path, *, user=None, item=None, rating=None, sep=None, header=None, on_bad_lines="raise"):
    """Read users, items and ratings from a text or Parquet file.

    The file's first bytes tell Parquet, gzip and text apart, not its name. Text is UTF-8, with or without a
    byte order mark, and has any kind of line end. Blank lines are ignored, fields are stripped of surrounding
    white space, and further columns and fields are allowed. Single-character separators follow RFC 4180: a
    field in double quotes may hold separators, line ends and doubled quotes.

    Large text files without quotes are parsed by pyarrow where it is installed. The result is the same.

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
        What to do about a line with too few fields, broken quotes, an empty id, or a rating that is not a
        finite number; in Parquet, about a row with a null or NaN. "skip" leaves them out and warns once.

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
    if on_bad_lines not in ("raise", "skip"):
        raise ValueError(f"on_bad_lines must be 'raise' or 'skip', got {on_bad_lines!r}")
    if header is not None and not isinstance(header, bool):
        raise ValueError(f"header must be None, True or False, got {header!r}")
    if sep is not None and (not isinstance(sep, str) or not sep or set(sep) & set('"\r\n')):
        raise ValueError(f"sep must be None or a string without quotes and line ends, got {sep!r}")

    with open(path, "rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet and (sep is not None or header is not None):
        raise ValueError(f"{path} is a Parquet file; sep and header are for text, leave them out")
    read = _read_parquet if parquet else partial(_read_text, sep=sep, header=header)
    users, items, ratings, locate = read(path, (user, item, rating))

    good = np.isfinite(ratings) & users.filled() & items.filled()
    if not good.all():
        n_bad, place = good.size - np.count_nonzero(good), locate(np.argmin(good))
        problem = (
            f"{path}: {n_bad} of {good.size} ratings cannot be used, the first in {place}; "
            f"each needs a user, an item and a finite number as rating"
        )
        if on_bad_lines == "raise":
            raise ValueError(f"{problem}. Pass on_bad_lines='skip' to leave them out")
        warnings.warn(f"{problem}. They are left out", stacklevel=2)
        users, items, ratings = users.take(good), items.take(good), ratings[good]
    if not ratings.size:
        raise ValueError(f"{path} holds no ratings")
    return users.decode(), items.decode(), np.require(ratings, requirements="W")  # Arrow's is read-only


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
        positions = _resolve(fields if header else len(fields), columns, path)
        pairs, bad = [], []
        for line, fields in records if header else chain([first], records):
            pair = [fields[k].strip() if k < len(fields) else "" for k in positions]
            (pairs if all(pair) else bad).append(pair if all(pair) else line)
    if bad:
        problem = f"{path}: {len(bad)} of {len(bad) + len(pairs)} pairs lack a user or an item, the first in line {bad[0]}"
        if on_bad_lines == "raise":
            raise ValueError(f"{problem}. Pass on_bad_lines='skip' to leave them out")
        warnings.warn(f"{problem}. They are left out", stacklevel=2)
    if not pairs:
        raise ValueError(f"{path} holds no pairs of user and item")
    return tuple(_Ids(np.arange(len(pairs)), list(texts)).decode() for texts in zip(*pairs, strict=True))


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


@contextmanager
def _open_records(path, sep=None):
    """Yield the records of a text table of two columns or more."""
    with open(path, "rb") as file:
        if file.read(4) == b"PAR1":
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
    return _resolve(names, {"user": user, "item": item, "rating": rating}, where)


def _resolve(names, columns, where):
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


class _Ids(NamedTuple):
    """A column of ids: an integer code for each rating, and the text that each code stands for."""

    codes: np.ndarray
    texts: list

    def filled(self):
        return np.array([bool(text.strip()) for text in self.texts], dtype=bool)[self.codes]

    def take(self, mask):
        return self._replace(codes=self.codes[mask])

    def decode(self):
        """Return the ids as int64 if all those in use are integers, as str objects otherwise."""
        used = np.flatnonzero(np.bincount(self.codes, minlength=len(self.texts)))
        texts = [self.texts[code].strip() for code in used]
        try:
            values = np.array([int(text) for text in texts], dtype=np.int64)
            plain = list(map(str, values.tolist())) == texts
        except (ValueError, OverflowError):
            plain = False
        if not plain:
            values = np.array(texts, dtype=object)
        lookup = np.zeros(len(self.texts), dtype=values.dtype)
        lookup[used] = values
        return lookup[self.codes]


# Text


def _read_text(path, columns, sep, header):
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
        table = _parse_with_arrow(path, sep, line if header else 0, len(fields), positions)
        if table is None:
            table = _parse(records if header else chain([first], records), positions)
    return *table, partial(_locate, path, sep, int(header))


@contextmanager
def _open_text(path):
    """Open a text file, gzip or not, and let every fault of its content say which file it is."""
    import gzip
    import zlib

    try:
        with io.TextIOWrapper(_open_binary(path), encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise ValueError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


def _open_binary(path):
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if not zipped:
        return open(path, "rb")
    import gzip

    return gzip.open(path)


def _undecodable_line(path):
    with _open_binary(path) as file:
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
        f"{path}: no separator of {_listed(_SEPARATORS)} cuts the first line, {_shorten(line)}, "
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
        return float(text)
    except ValueError:
        return otherwise


class _Codes(dict):
    """Text -> code, numbered in order of appearance."""

    def __missing__(self, text):
        self[text] = code = len(self)
        return code


def _parse(records, positions):
    """Return users, items and ratings of `records`; what is missing becomes an empty id or a NaN."""
    user_codes, item_codes = _Codes(), _Codes()
    users, items, ratings = array("i"), array("i"), array("d")
    width = max(positions) + 1
    while rows := [fields for _, fields in islice(records, _CHUNK)]:
        if min(map(len, rows)) < width:
            rows = [fields if len(fields) >= width else [""] * width for fields in rows]
        columns = list(zip(*rows, strict=False))
        user_texts, item_texts, rating_texts = (columns[position] for position in positions)
        users.extend(map(user_codes.__getitem__, user_texts))
        items.extend(map(item_codes.__getitem__, item_texts))
        numbers = {text: _number(text) for text in set(rating_texts)}  # ratings repeat, float() is slow
        ratings.extend(map(numbers.__getitem__, rating_texts))
    users, items, ratings = map(np.asarray, (users, items, ratings))
    return _Ids(users, list(user_codes)), _Ids(items, list(item_codes)), ratings


def _parse_with_arrow(path, sep, skip_rows, n_columns, positions):
    """Do what `_parse` does, several times faster, or return None where the two might differ."""
    if os.path.getsize(path) < _ARROW_MIN_BYTES or sep == " " or len(sep.encode()) > 1:
        return None
    try:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv
    except ImportError:
        return None
    # Quotes and encodings are where two readers of CSV come apart.
    with _open_binary(path) as file:
        if not all(b.isascii() and b'"' not in b for b in iter(partial(file.read, 1 << 20), b"")):
            return None

    names = [str(position) for position in range(n_columns)]
    user, item, rating = (names[position] for position in positions)
    id_type = pa.dictionary(pa.int32(), pa.string())
    try:
        with _open_binary(path) as file:
            table = arrow_csv.read_csv(
                file,
                read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=skip_rows),
                parse_options=arrow_csv.ParseOptions(delimiter=sep),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=[user, item, rating],
                    column_types={user: id_type, item: id_type, rating: pa.float64()},
                    null_values=[],  # "NA" and "null" are ids like any other
                ),
            )
    except pa.ArrowInvalid:  # a line with more or fewer fields, or a rating that is not a number
        return None
    return _encode(table[user]), _encode(table[item]), table[rating].to_numpy()


def _locate(path, sep, n_header, k):
    with _open_text(path) as file:
        number, _ = next(islice(_records(file, sep), n_header + k, None))
    with _open_text(path) as file:
        line = next(islice(file, number - 1, None))
    return f"line {number}: {_shorten(line)}"


def _shorten(text, limit=80):
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= limit else text[:limit] + "...")


# Parquet


def _read_parquet(path, columns):
    """Return users, items, ratings, and a function that describes the place of the k-th rating."""
    try:
        import pyarrow as pa
        from pyarrow import parquet, types
    except ImportError as error:
        raise ImportError(f'{path} is Parquet, which needs pyarrow: pip install "funksvd[frames]"') from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = [names[position] for position in resolve_columns(names, *columns, where=path)]
            table = file.read(chosen).select(chosen)
        users, items, ratings = table.columns
        kind = ratings.type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
            raise ValueError(f"{path}: the rating column {chosen[2]!r} holds {kind}, not numbers")
        ratings = ratings.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # null -> NaN
        users, items = _encode(users), _encode(items)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(f"{path}: cannot read this Parquet file ({error})") from error

    def locate(k):
        return f"row {k} (from 0): {_shorten(str(table.slice(k, 1).to_pylist()[0]))}"

    return users, items, ratings, locate


def _encode(column):
    """Return an Arrow column as `_Ids`; a null or NaN becomes an empty id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = column.dictionary_encode().combine_chunks()
    values = encoded.dictionary
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
        with suppress(pa.ArrowInvalid):  # pandas makes floats of a column of integers with gaps
            values = values.cast(pa.int64())
    texts = [text or "" for text in values.cast(pa.string()).to_pylist()] + [""]
    codes = encoded.indices.cast(pa.int32()).fill_null(len(texts) - 1)
    return _Ids(codes.to_numpy(), texts)


# Made-up ratings


class Planted(NamedTuple):
    """Ratings made by `make_ratings`.

    Attributes
    ----------
    users, items : ndarray of shape (n_ratings,), int32
        Ids from 0; no pair occurs twice, and not every id needs to occur.
    ratings : ndarray of shape (n_ratings,), float32
        `truth` plus noise, neither rounded nor clipped.
    truth : ndarray of shape (n_ratings,), float32
        The rating that the planted model expects.
    noise : float
        RMSE of `ratings` against `truth`: the floor, which the planted model itself would score.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    truth: np.ndarray
    noise: float


def make_ratings(n_users=6040, n_items=3706, n_ratings=1_000_209, *, rank=8, noise=0.8, random_state=0):
    """Make ratings from a planted model: mean, biases and low-rank factors, plus Gaussian noise.

    The default shape is that of MovieLens 1M; as there, a few users and items have most of the ratings. The
    mean is 3.6. User biases, item biases and the product of the factors have standard deviations 0.35, 0.5
    and 0.5: a model with nothing but biases cannot get below an RMSE of ``sqrt(noise**2 + 0.5**2)``.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        Numbers of ids and of ratings; at most half of all pairs can be rated.
    rank : int
        Number of planted factors.
    noise : float
        Standard deviation of the noise.
    random_state : int, numpy.random.Generator or None
        Seed. The same int gives the same ratings.

    Returns
    -------
    Planted
        The ratings, in random order.
    """
    for name, value in {"n_users": n_users, "n_items": n_items, "n_ratings": n_ratings, "rank": rank}.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if n_ratings > n_users * n_items / 2:
        raise ValueError(
            f"n_ratings must be at most half of n_users * n_items, {n_users} * {n_items} / 2 = "
            f"{n_users * n_items // 2}, got {n_ratings}"
        )
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")

    rng = np.random.default_rng(random_state)
    users, items = _draw_pairs(rng, n_users, n_items, n_ratings)
    user_biases = 0.35 * rng.standard_normal(n_users, dtype=np.float32)
    item_biases = 0.5 * rng.standard_normal(n_items, dtype=np.float32)
    factor_std = (0.5**2 / rank) ** 0.25  # the variance of the dot product is rank * factor_std**4
    user_factors = factor_std * rng.standard_normal((n_users, rank), dtype=np.float32)
    item_factors = factor_std * rng.standard_normal((n_items, rank), dtype=np.float32)

    truth = 3.6 + user_biases[users] + item_biases[items]
    for start in range(0, n_ratings, 1 << 16):  # all at once would take 2 * rank times the memory
        part = slice(start, start + (1 << 16))
        truth[part] += np.einsum("ij,ij->i", user_factors[users[part]], item_factors[items[part]])
    ratings = truth + np.float32(noise) * rng.standard_normal(n_ratings, dtype=np.float32)
    floor = math.sqrt(np.mean(np.square(ratings - truth), dtype=np.float64))
    return Planted(users, items, ratings, truth, floor)


def _draw_pairs(rng, n_users, n_items, n):
    """Draw `n` distinct pairs; shares of users and items are log-normal and as uneven as in MovieLens."""
    user_shares = rng.lognormal(sigma=1.0, size=n_users)
    item_shares = rng.lognormal(sigma=1.3, size=n_items)
    user_shares /= user_shares.sum()
    item_shares /= item_shares.sum()

    pairs, n_draws = np.zeros(0, np.int64), n
    while (n_before := pairs.size) < n:
        users = np.repeat(np.arange(n_users), rng.multinomial(n_draws, user_shares))
        items = np.repeat(np.arange(n_items, dtype=np.int32), rng.multinomial(n_draws, item_shares))
        rng.shuffle(items)
        pairs = np.concatenate([pairs, users * n_items + items])
        pairs.sort()  # numpy's unique hashes, which is slower than this from a few million on
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
        # As many draws as fill the rest if as many of them are new as in this round, and some more.
        n_new = max(pairs.size - n_before, 1)
        n_draws = 1 + int(1.1 * (n - pairs.size) * n_draws / n_new)
    rng.shuffle(pairs)
    users, items = np.divmod(pairs[:n], n_items)
    return users.astype(np.int32), items.astype(np.int32)
