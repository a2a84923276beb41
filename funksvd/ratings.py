"""Ratings: validates and encodes (user, item, rating) triples once, splits them, and cuts them into the block grid."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd import _grid

BAND_BYTES = 512 * 1024  # a gathered band's factors, about an L2: its popular rows stay in there
RUN_LENGTH = 8  # more bands shorten runs; below this the gain of the cache is lost
BLOCK_RATINGS = 4096  # smaller blocks cost more in the schedule than in the kernel
CHUNK = 1 << 20


def cpu_count():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores():
    """What n_jobs=-1 means: all cores; in a worker of joblib (a search of scikit-learn with its own n_jobs) its share.

    joblib's processes are told their share as OMP_NUM_THREADS; its threads are not told, and get one each.
    """
    joblib = sys.modules.get("joblib.parallel")
    if joblib is None or not getattr(joblib.get_active_backend()[0], "nesting_level", 0):
        return cpu_count()
    share = os.environ.get("OMP_NUM_THREADS", "")
    return min(cpu_count(), max(1, int(share))) if share.isdigit() else 1


def parallel(function, arguments, n_jobs):
    """[function(a) for a in arguments] on `n_jobs` threads, results in order."""
    if n_jobs == 1 or len(arguments) < 2:
        return [function(a) for a in arguments]
    with ThreadPoolExecutor(n_jobs) as pool:
        return list(pool.map(function, arguments))


@dataclass(frozen=True)
class Encoded:
    """A column of ids as a dictionary, as of categoricals and Arrow: integer codes into a sequence of ids."""

    codes: np.ndarray
    ids: Any  # an array or list; some may be unused, and some equal

    def __len__(self):
        return len(self.codes)

    def used(self):
        """Places of the ids in use."""
        return np.flatnonzero(count_keys(self.codes, 0, len(self.ids), cpu_count()))

    def map(self, function, name):
        """function(array of the ids in use), which gives a number for each, taken at every code."""
        used = self.used()
        keys = function(as_ids(self.ids if len(used) == len(self.ids) else np.asarray(self.ids)[used], name))
        places = np.zeros(len(self.ids), keys.dtype)
        places[used] = keys
        return Encoded(self.codes, places).decode()

    def decode(self):
        """Array of the id of every code."""
        out = np.empty(len(self), self.ids.dtype)

        def one(part):  # in parts: NumPy makes int64 of all codes that it is given
            out[part] = self.ids[self.codes[part]]

        parallel(one, [slice(s, s + CHUNK) for s in range(0, len(self), CHUNK)], cpu_count())
        return out


class IdTable:
    """The sorted distinct ids of one side; a code is an id's position in it."""

    def __init__(self, ids, n_ratings=0):
        self.ids = ids
        self.kind = kind_of(ids)
        self.base, self.lookup = 0, None
        if self.kind != "int":
            self.positions = {x: c for c, x in enumerate(ids.tolist())}
        elif len(ids) and is_dense(int(ids[0]), int(ids[-1]), n_ratings):
            self.base = int(ids[0])
            self.lookup = np.full(int(ids[-1]) - self.base + 1, -1, np.int32)
            self.lookup[ids - self.base] = np.arange(len(ids), dtype=np.int32)

    def __len__(self):
        return len(self.ids)

    def encode(self, raw, name, n_jobs=1):
        """int32 codes of raw ids, -1 where an id is unknown. TypeError where they are of another kind."""
        raw = as_ids(raw, name)
        if isinstance(raw, Encoded):
            return raw.map(lambda ids: self.encode(ids, name), name)
        if len(raw) == 0:
            return np.empty(0, np.int32)
        kind = kind_of(raw)
        if kind != self.kind:
            raise TypeError(f"{name} ids are {kind} here but were {self.kind} in fit; pass ids of the same type")
        if kind != "int":
            get = self.positions.get
            return np.fromiter((get(x, -1) for x in raw.tolist()), np.int32, len(raw))
        out = np.empty(len(raw), np.int32)
        if self.lookup is not None:

            def one(part):
                _grid.look_up(raw[part], self.base, self.lookup, out[part])

            parallel(one, [slice(s, s + CHUNK) for s in range(0, len(raw), CHUNK)], n_jobs)
            return out
        at = np.minimum(np.searchsorted(self.ids, raw), len(self.ids) - 1)
        return np.where(self.ids[at] == raw, at, -1).astype(np.int32)


def is_dense(low, high, n_ratings):
    """Whether integer ids get a lookup table: it may take as much memory as a few copies of the ratings, or 64 MiB."""
    return high - low < max(16 * n_ratings, 1 << 24)


def is_table(X):
    """Whether X is a table: it has named columns. (Asked of the type: a lazy table computes to answer itself.)"""
    return hasattr(type(X), "columns") or hasattr(type(X), "column_names")


def kind_of(ids):
    if ids.dtype.kind in "iu":
        return "int"
    if ids.dtype.kind == "U":
        return "str"
    if ids.dtype.kind == "S":
        return "bytes"
    kinds = {type(x).__name__ for x in ids.tolist()}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def as_ids(raw, name):
    """A 1-d array of ids: int32 or int64 where they are whole numbers, else str, bytes or objects; or `Encoded`."""
    if isinstance(raw, Encoded):
        return raw
    if type(raw).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow"):
        from funksvd.frames import column_ids

        raw = column_ids(raw, name)
        if isinstance(raw, Encoded):
            return raw
    kinds = {type(x) for x in raw} if isinstance(raw, (list, tuple)) else set()
    if kinds and kinds <= {str, bytes} and any(x[-1:] in ("\0", b"\0") for x in raw):
        ids = np.fromiter(raw, object, len(raw))  # NumPy would drop the zeros
    elif all(issubclass(k, (int, float, np.number)) for k in kinds) or (len(kinds) == 1 and tuple not in kinds):
        ids = np.asarray(raw)
    else:  # NumPy would make text of numbers beside text, and rows of tuples
        ids = np.fromiter(raw, object, len(raw))
    if ids.ndim != 1:
        raise ValueError(f"{name} ids must be one-dimensional, got shape {ids.shape}")
    if ids.dtype.kind == "M":  # NumPy gives nanoseconds back as bare integers
        micro = ids.astype("M8[us]")
        if (micro.astype(ids.dtype) != ids)[~np.isnat(ids)].any():
            raise ValueError(f"{name} ids are times finer than a microsecond; pass them as int or str")
        ids = micro.astype(object)
    if ids.dtype.kind == "f":
        if not np.isfinite(ids).all() or (ids != np.floor(ids)).any():
            raise ValueError(f"{name} ids are floats that are not whole numbers; pass int or str ids")
        ids = ids.astype(np.int64)
    try:
        if ids.dtype.kind == "O" and len(ids) and all(type(x) is int for x in ids.tolist()):
            ids = ids.astype(np.int64)
        if ids.dtype == np.uint64 and len(ids) and ids.max() > np.iinfo(np.int64).max:
            raise OverflowError
    except OverflowError:
        raise ValueError(f"{name} ids must fit 64 bits with a sign; pass larger ones as str") from None
    if ids.dtype.kind == "O" and any(x is None or x != x for x in ids.tolist()):
        raise ValueError(f"{name} ids hold missing values (None or NaN); drop these ratings first")
    if ids.dtype.kind in "iub" and ids.dtype not in (np.int32, np.int64):
        ids = ids.astype(np.int64)
    return ids


def table_and_keys(raw, name):
    """The id table of raw ids, their integer keys (`keys - base` is a place in its lookup), and counts where at hand."""
    ids = as_ids(raw, name)
    if isinstance(ids, Encoded):
        found = []

        def keys_of(distinct):
            found.append(table_and_keys(distinct, name))
            keys = found[0][1]
            return keys if abs(keys).max() >= 1 << 31 else keys.astype(np.int32)

        keys = ids.map(keys_of, name)
        return found[0][0], keys, None
    if ids.dtype.kind == "i":
        low, high = int(ids.min()), int(ids.max())
        if is_dense(low, high, len(ids)):
            counts = count_keys(ids, low, high - low + 1, cpu_count())
            present = np.flatnonzero(counts)
            return IdTable(present + low, len(ids)), ids, counts[present]
        unique, codes = np.unique(ids, return_inverse=True)
        return IdTable(unique), codes.astype(np.int32), None
    values = ids.tolist()
    distinct = list(dict.fromkeys(values))
    try:
        distinct.sort()
    except TypeError:  # of several types: by type and text
        distinct.sort(key=lambda x: (type(x).__name__, repr(x)))
    unique = np.array(distinct) if ids.dtype.kind in "US" else np.empty(len(distinct), object)
    if unique.dtype.kind == "O":
        unique[:] = distinct
        if all(type(x) is str and x[-1:] != "\0" for x in distinct):
            unique = np.array(distinct)
    rank = {x: c for c, x in enumerate(distinct)}
    return IdTable(unique), np.fromiter(map(rank.__getitem__, values), np.int32, len(values)), None


def checked_weights(weights, n):
    """Weights of n ratings as float64; ValueError where they cannot be."""
    try:
        weights = np.asarray(weights).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError("weights must be numbers") from error
    if weights.shape != (n,):
        raise ValueError(f"weights must be one number a rating, ({n},), got shape {weights.shape}")
    bad = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(bad):
        raise ValueError(
            f"weights must be finite and at least 0, got {weights[bad[0]]} at index {bad[0]} ({len(bad)} of {n} are not)"
        )
    if not weights.any():
        raise ValueError("weights must not all be 0")
    return weights


def count_keys(keys, base, span, n_jobs):
    """How often each of `span` keys from `base` on occurs."""

    def one(part):
        out = np.zeros(span, np.int64)
        _grid.count(keys[part], base, out)
        return out

    share = max(CHUNK, -(-len(keys) // n_jobs))
    return sum(parallel(one, [slice(s, s + share) for s in range(0, len(keys), share)], n_jobs))


@dataclass(frozen=True)
class Grid:
    """Ratings in B x B blocks; see `Ratings.grid`."""

    users_run: bool  # the runs are users', the gathered side is the items'
    n_bands: int
    run_codes: np.ndarray  # code of each row of the run side, band after band
    run_bands: np.ndarray  # (B + 1,) where each band starts
    codes: np.ndarray
    bands: np.ndarray
    run_counts: np.ndarray  # ratings of each code
    counts: np.ndarray
    block_start: np.ndarray  # (B * B + 1,) ratings
    block_runs: np.ndarray  # (B * B + 1,) runs
    run_row: np.ndarray
    run_end: np.ndarray
    index: np.ndarray
    rating: np.ndarray
    mean: float  # of the ratings, weighted
    weight: np.ndarray | None = None  # (n + 8,) beside `rating`
    total_weight: float = 0.0  # their number, where they have no weights

    def __len__(self):
        return int(self.block_start[-1])


class Ratings:
    """Encoded ratings. Make one with `from_arrays`, `from_frame`, `from_sparse` or `read`."""

    def __init__(self, user_table, item_table, user_keys, item_keys, values, counts=(None, None), weights=None):
        self._tables, self._keys, self.values = (user_table, item_table), (user_keys, item_keys), values
        self._by_user: tuple[np.ndarray, np.ndarray] | None = None
        self._counts = counts  # ratings of each code, where they are at hand
        self.weights = weights  # None: all ratings count alike

    def __len__(self):
        return len(self.values)

    user_ids = property(lambda self: self._tables[0].ids)
    item_ids = property(lambda self: self._tables[1].ids)
    n_users = property(lambda self: len(self._tables[0]))
    n_items = property(lambda self: len(self._tables[1]))
    users = property(lambda self: self._codes(0), doc="int32 codes of the users")
    items = property(lambda self: self._codes(1), doc="int32 codes of the items")

    def _place(self, side):
        """(base, lookup) from a side's keys to codes: the keys are raw ids where these have a table, else codes."""
        table = self._tables[side]
        if table.lookup is not None:
            return table.base, table.lookup
        return 0, np.arange(len(table), dtype=np.int32)

    def _codes(self, side):
        base, lookup = self._place(side)
        out = np.empty(len(self), np.int32)
        _grid.look_up(self._keys[side], base, lookup, out)
        return out

    def by_user(self):
        """(start, items): start[u]:start[u + 1] are the places of user code u's item codes, ascending. Made once."""
        if self._by_user is None:
            self._by_user = by_user(self.users, self.items, self.n_users, self.n_items)
        return self._by_user

    @classmethod
    def from_arrays(
        cls, users: Any, items: Any, ratings: npt.ArrayLike, weights: npt.ArrayLike | None = None
    ) -> Ratings:
        """Ratings from arrays of equal length. Integer arrays are used in place, not copied.

        `weights`, at least 0, say how much each rating counts in training and in errors; None: all alike.
        """
        values = np.asarray(ratings)
        if values.dtype not in (np.float32, np.float64):
            try:
                values = values.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise TypeError(f"ratings must be numbers, got dtype {values.dtype}") from error
        if values.ndim != 1:
            raise ValueError(f"ratings must be one-dimensional, got shape {values.shape}")
        if not len(users) == len(items) == len(values):
            raise ValueError(
                f"users, items and ratings must have equal lengths, got {len(users)}, {len(items)}, {len(values)}"
            )
        if not len(values):
            raise ValueError("at least 1 rating is needed, got none")
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            bad = np.flatnonzero(~np.isfinite(values))
            raise ValueError(f"{len(bad)} of {len(values)} ratings are NaN or infinite, the first at index {bad[0]}")
        if weights is not None:
            weights = checked_weights(weights, len(values))
        user_table, user_keys, user_counts = table_and_keys(users, "user")
        item_table, item_keys, item_counts = table_and_keys(items, "item")
        return cls(user_table, item_table, user_keys, item_keys, values, (user_counts, item_counts), weights)

    @classmethod
    def from_sparse(cls, matrix: Any, weights: npt.ArrayLike | None = None) -> Ratings:
        """Ratings from a SciPy sparse matrix: row numbers are user ids, columns item ids, stored values ratings."""
        coo = matrix.tocoo()
        return cls.from_arrays(coo.row, coo.col, coo.data, weights)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: str | int | None = None,
        item: str | int | None = None,
        rating: str | int | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> Ratings:
        """Ratings from a table (pandas, polars, pyarrow, a DuckDB relation) by names of columns or positions.

        None finds well-known names. Categoricals and Arrow dictionaries are used as they are.
        """
        from funksvd.frames import columns_of

        users, items, values = columns_of(frame, user=user, item=item, rating=rating)
        return cls.from_arrays(users, items, values, weights)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **options: Any) -> Ratings:
        """Ratings from a file; options and errors as in `datasets.read_ratings`."""
        from funksvd.reading import read_columns

        return cls.from_arrays(*read_columns(path, **options))

    def split(self, fraction: float, seed: int = 0) -> tuple[Ratings, Ratings]:
        """(train, held out): round(fraction * n) ratings, chosen by a hash of rating and seed, in any row order."""
        n = round(fraction * len(self))
        if not 0 < fraction < 1 or not 0 < n < len(self) - 1:
            raise ValueError(f"fraction must leave ratings on both sides, got {fraction} of {len(self)}")
        hashes = self._hashes(seed)
        limit = np.partition(hashes, n)[n]
        held = hashes < limit
        short = n - int(held.sum())
        if short:
            ties = np.flatnonzero(hashes == limit)
            weights = () if self.weights is None else (self.weights[ties],)
            ties = ties[np.lexsort((*weights, self.values[ties], self.items[ties], self.users[ties]))]
            held[ties[:short]] = True
        return self._take(~held), self._take(held)

    def folds(self, n_folds: int, seed: int = 0) -> Iterator[tuple[Ratings, Ratings]]:
        """(train, held out) of each fold of a cross-validation, chosen by a hash as in `split`: in any row order."""
        if not 2 <= n_folds <= len(self) // 2:
            raise ValueError(f"n_folds must be from 2 to half of the {len(self)} ratings, got {n_folds}")
        hashes = self._hashes(seed)
        fold = np.empty(len(self), np.int32)
        fold[np.argsort(hashes, kind="stable")] = np.arange(len(self)) * n_folds // len(self)
        for k in range(n_folds):
            yield self._take(fold != k), self._take(fold == k)

    def _hashes(self, seed):
        """A random uint64 for each rating, by its ids' codes, its value and the seed."""
        out = np.empty(len(self), np.uint64)
        _grid.hash_ratings(self.users, self.items, self.values, np.uint64(seed % 2**64), out)
        return out

    def codes_in(self, tables):
        """(user codes, item codes) in other id tables, -1 where these do not know an id."""
        sides = zip(tables, self._tables, (self.users, self.items), ("user", "item"), strict=True)
        return tuple(theirs.encode(ours.ids, name)[codes] for theirs, ours, codes, name in sides)

    def like(self, other):
        """(these ratings in the codes of `other`, those it cannot code: (users, items, values, weights), -1 unknown).

        Both are independent of the order of the rows: the second is sorted.
        """
        if self._tables is other._tables:
            return self, None
        codes = self.codes_in(other._tables)
        known = (codes[0] >= 0) & (codes[1] >= 0)
        keys = [t.ids[c[known]] if t.lookup is not None else c[known] for t, c in zip(other._tables, codes, strict=True)]
        weights = np.ones(len(self)) if self.weights is None else self.weights
        strange = [a[~known] for a in (*codes, self.values, weights)]
        order = np.lexsort(strange)
        weights = None if self.weights is None else weights[known]
        return Ratings(*other._tables, *keys, self.values[known], weights=weights), tuple(a[order] for a in strange)

    def _take(self, mask):
        weights = None if self.weights is None else self.weights[mask]
        return Ratings(*self._tables, *(keys[mask] for keys in self._keys), self.values[mask], weights=weights)

    def grid(self, row_bytes, dtype=np.float32, seed=0, n_jobs=1, like=None):
        """The block grid: B x B blocks of which those that share no band can be worked on at once.

        The side with fewer ids is gathered; a band of its factors (`row_bytes` a row) is about an L2 and fits 16-bit
        indices. Bands hold about equal numbers of ratings, their members shuffled by `seed`. The grid is a function
        of the set of ratings and the seed: neither `n_jobs` nor the order of the rows changes a bit.
        `like` takes the bands of another grid (for a validation set); codes it does not hold must not occur.
        """
        n, sizes = len(self), (self.n_users, self.n_items)
        places = [self._place(0), self._place(1)]
        chunks = [slice(s, min(s + CHUNK * 4, n)) for s in range(0, n, CHUNK * 4)]
        if like is None:
            side_counts = [self._count(side, places[side], n_jobs) for side in (0, 1)]
            users_run = self._users_run(side_counts)
        else:
            users_run = like.users_run
        run, gathered = (0, 1) if users_run else (1, 0)
        if like is None:
            n_bands = choose_bands(n, sizes[run], sizes[gathered], row_bytes)
            rng = np.random.default_rng([seed, 0])
            layout = [band_layout(side_counts[s], n_bands, rng) for s in (run, gathered)]
            counts = [side_counts[run], side_counts[gathered]]
        else:
            n_bands = like.n_bands
            layout = [(like.run_codes, like.run_bands), (like.codes, like.bands)]
            counts = [like.run_counts, like.counts]
        packed = []
        for side, (codes, bands) in zip((run, gathered), layout, strict=True):
            band = np.repeat(np.arange(n_bands, dtype=np.int64), np.diff(bands))
            place = np.empty(len(codes), np.int64)
            place[codes] = (band << 32) | (np.arange(len(codes)) - bands[band])
            base, lookup = places[side]
            packed.append((self._keys[side], base, place[lookup]))
        (run_keys, run_base, run_place), (keys, base, place) = packed

        # Two passes over the ratings: how many of each chunk go to each block, then there they go.
        def count_chunk(part):
            out = np.zeros(n_bands * n_bands, np.int64)
            _grid.count_blocks(run_keys[part], run_base, run_place, keys[part], base, place, n_bands, out)
            return out

        by_chunk = np.array(parallel(count_chunk, chunks, n_jobs))
        block_start = np.zeros(n_bands * n_bands + 1, np.int64)
        np.cumsum(by_chunk.sum(0), out=block_start[1:])
        cursors = block_start[:-1] + np.cumsum(by_chunk, axis=0) - by_chunk
        narrow = np.diff(layout[0][1]).max(initial=0) <= 1 << 16
        row = np.empty(0 if narrow else n, np.uint32)
        low_row = np.empty(n if narrow else 0, np.uint16)
        values, pairs = self.values, None
        if self.weights is not None:  # through the sort goes the rank of the pair (rating, weight)
            pairs, values = np.unique(self.values.astype(dtype) + 1j * self.weights.astype(dtype), return_inverse=True)
            values = values.astype(np.float64)
        index, rating = np.zeros(n + 8, np.uint16), np.zeros(n + 8, values.dtype if pairs is not None else dtype)

        def scatter_chunk(c):
            part = chunks[c]
            _grid.scatter(run_keys[part], run_base, run_place, keys[part], base, place, values[part], n_bands,
                          cursors[c], row, low_row, index, rating)  # fmt: skip

        parallel(scatter_chunk, range(len(chunks)), n_jobs)

        def rows_of(b):
            part = slice(block_start[b], block_start[b + 1])
            return row[part], low_row[part], part

        def sort_one(b):
            r, low, part = rows_of(b)
            if part.start == part.stop:
                return 0, 0.0
            x, y = divmod(b, n_bands)
            heights = np.diff(layout[0][1])[x], np.diff(layout[1][1])[y]
            return _grid.sort_block(r, low, index[part], rating[part], *heights)

        sorted_blocks = parallel(sort_one, range(n_bands * n_bands), n_jobs)
        block_runs = np.concatenate([[0], np.cumsum([runs for runs, _ in sorted_blocks])]).astype(np.int64)
        run_row, run_end = np.empty(block_runs[-1], np.int32), np.empty(block_runs[-1], np.uint32)

        def list_one(b):
            r, low, part = rows_of(b)
            runs = slice(block_runs[b], block_runs[b + 1])
            start = int(layout[0][1][b // n_bands])
            _grid.list_runs(r, low, index[part], start, run_row[runs], run_end[runs])

        parallel(list_one, range(n_bands * n_bands), n_jobs)
        weight, total, total_weight = None, float(sum(total for _, total in sorted_blocks)), float(n)
        if pairs is not None:
            rank = rating[:n].astype(np.int64)
            rating, weight = np.zeros(n + 8, dtype), np.zeros(n + 8, dtype)
            rating[:n], weight[:n] = pairs.real[rank], pairs.imag[rank]
            total = float(np.sum(rating * weight, dtype=np.float64))
            total_weight = float(np.sum(weight, dtype=np.float64))
        return Grid(users_run, n_bands, *layout[0], *layout[1], *counts, block_start, block_runs, run_row, run_end,
                    index, rating, total / total_weight if total_weight else 0.0, weight, total_weight)  # fmt: skip

    def _count(self, side, place, n_jobs):
        """Ratings of each code of a side."""
        if self._counts[side] is not None:
            return self._counts[side]
        base, lookup = place
        by_key = count_keys(self._keys[side], base, len(lookup), n_jobs)
        known = lookup >= 0
        out = np.zeros(len(self._tables[side]), np.int64)
        out[lookup[known]] = by_key[known]
        return out

    def _users_run(self, counts):
        """True where items, the side with fewer ids, are gathered; ties go by the counts, the same when transposed."""
        if self.n_users != self.n_items:
            return self.n_users > self.n_items
        a, b = counts
        for x, y in ((np.sort(a), np.sort(b)), (a, b)):
            if (x != y).any():
                first = np.flatnonzero(x != y)[0]
                return bool(x[first] > y[first])
        return True


def by_user(users, items, n_users, n_items):
    """(start, items): start[u]:start[u + 1] are the places of user u's items, in ascending order."""
    start, by_item = np.zeros(n_items + 1, np.int64), np.empty(len(users), np.int32)
    _grid.group(items, users, start, by_item)
    items = np.repeat(np.arange(n_items, dtype=np.int32), np.diff(start))
    start, out = np.zeros(n_users + 1, np.int64), np.empty(len(users), np.int32)
    _grid.group(by_item, items, start, out)
    return start, out


def choose_bands(n, n_runs, n_gathered, row_bytes):
    """B, a function of the data alone, never of the machine or the number of threads."""
    cache = -(-n_gathered * row_bytes // BAND_BYTES)
    wanted = max(8, cache)
    affordable = min(n // (RUN_LENGTH * max(1, n_runs)), int((n / BLOCK_RATINGS) ** 0.5))
    return int(max(1, min(wanted, affordable), -(-n_gathered // 65000)))


def band_layout(counts, n_bands, rng):
    """(codes band after band, where each band starts): equal loads, members shuffled."""
    tie = rng.permutation(len(counts))
    order = tie[np.argsort(-counts[tie], kind="stable")]
    band = np.zeros(len(counts), np.int32)
    most = max(-(-len(counts) // n_bands), min(len(counts), 65000))
    _grid.assign_bands(counts, order, n_bands, most, band)
    shuffled = rng.permutation(len(counts))
    codes = shuffled[np.argsort(band[shuffled], kind="stable")]
    return codes, np.concatenate([[0], np.cumsum(np.bincount(band, minlength=n_bands))]).astype(np.int64)
