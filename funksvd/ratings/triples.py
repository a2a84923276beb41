"""Ratings: validates and encodes (user, item, rating) triples once, splits them, and cuts them into the block grid."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.machine.threads import CHUNK, cpu_count, parallel
from funksvd.ratings import _grid, _keys
from funksvd.ratings.grid import Grid, band_layout, choose_bands, choose_warp_bands
from funksvd.ratings.ids import refuse_mask, table_and_keys
from funksvd.ratings.sorting import by_user, count_keys
from funksvd.ratings.tables import as_ids


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


class Ratings:
    """Encoded ratings. Make one with `from_arrays`, `from_frame`, `from_sparse` or `read`."""

    def __init__(
        self,
        user_table,
        item_table,
        user_keys,
        item_keys,
        values,
        counts=(None, None),
        weights=None,
    ):
        self.tables, self.keys, self.values = (
            (user_table, item_table),
            (user_keys, item_keys),
            values,
        )
        self._by_user: tuple[np.ndarray, np.ndarray] | None = None
        self._counts = counts  # ratings of each code, where they are at hand
        self.weights = weights  # None: all ratings count alike

    def __len__(self):
        return len(self.values)

    user_ids = property(lambda self: self.tables[0].ids)
    item_ids = property(lambda self: self.tables[1].ids)
    n_users = property(lambda self: len(self.tables[0]))
    n_items = property(lambda self: len(self.tables[1]))
    users = property(lambda self: self._codes(0), doc="int32 codes of the users")
    items = property(lambda self: self._codes(1), doc="int32 codes of the items")

    def _place(self, side):
        """(base, lookup) from a side's keys to codes: the keys are raw ids where these have a table, else codes."""
        table = self.tables[side]
        if table.lookup is not None:
            return table.base, table.lookup
        return 0, np.arange(len(table), dtype=np.int32)

    def _codes(self, side):
        base, lookup = self._place(side)
        out = np.empty(len(self), np.int32)
        _keys.look_up(self.keys[side], base, lookup, out)
        return out

    def by_user(self):
        """(start, items): start[u]:start[u + 1] are the places of user code u's item codes, ascending. Made once."""
        if self._by_user is None:
            n_jobs = cpu_count() if len(self) > CHUNK else 1
            self._by_user = by_user(
                self.users, self.items, None, self.n_users, self.n_items, n_jobs
            )[:2]
        return self._by_user

    @classmethod
    def from_arrays(
        cls, users: Any, items: Any, ratings: npt.ArrayLike, weights: npt.ArrayLike | None = None
    ) -> Ratings:
        """Ratings from arrays of equal length. Integer arrays are used in place, not copied.

        `weights`, at least 0, say how much each rating counts in training and in errors; None: all alike.
        """
        refuse_mask(ratings, "ratings")
        values = np.asarray(ratings)
        if values.dtype.kind in "cmM":  # which NumPy would make numbers of
            raise TypeError(f"ratings must be numbers, got dtype {values.dtype}")
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
            raise ValueError(
                f"{len(bad)} of {len(values)} ratings are NaN or infinite, the first at index {bad[0]}"
            )
        if weights is not None:
            weights = checked_weights(weights, len(values))
        user_table, user_keys, user_counts = table_and_keys(as_ids(users, "user"), "user")
        item_table, item_keys, item_counts = table_and_keys(as_ids(items, "item"), "item")
        return cls(
            user_table,
            item_table,
            user_keys,
            item_keys,
            values,
            (user_counts, item_counts),
            weights,
        )

    @classmethod
    def from_sparse(cls, matrix: Any, weights: npt.ArrayLike | None = None) -> Ratings:
        """Ratings from a SciPy sparse matrix: row numbers are user ids, columns item ids, stored values ratings."""
        if not hasattr(matrix, "tocoo"):
            raise TypeError(f"from_sparse takes a SciPy sparse matrix, got {type(matrix).__name__}")
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
        from funksvd.ratings.tables import columns_of

        users, items, values = columns_of(frame, user=user, item=item, rating=rating)
        return cls.from_arrays(users, items, values, weights)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **options: Any) -> Ratings:
        """Ratings from a file; options and errors as in `datasets.read_ratings`."""
        from funksvd.ratings.reading import read_columns

        return cls.from_arrays(*read_columns(path, **options))

    def split(self, fraction: float, seed: int = 0) -> tuple[Ratings, Ratings]:
        """(train, held out): round(fraction * n) ratings, chosen by a hash of rating and seed, in any row order."""
        n = round(fraction * len(self))
        if not 0 < fraction < 1 or not 0 < n < len(self) - 1:
            raise ValueError(
                f"fraction must leave ratings on both sides, got {fraction} of {len(self)}"
            )
        hashes = self._hashes(seed)
        limit = np.partition(hashes, n)[n]
        held = hashes < limit
        short = n - int(held.sum())
        if short:
            ties = np.flatnonzero(hashes == limit)
            weights = () if self.weights is None else (self.weights[ties],)
            ties = ties[
                np.lexsort((*weights, self.values[ties], self.items[ties], self.users[ties]))
            ]
            held[ties[:short]] = True
        return self._take(~held), self._take(held)

    def split_tail(self, fraction: float) -> tuple[Ratings, Ratings]:
        """(train, held out): the last ratings are held out, as many as Keras' `validation_split` takes."""
        n = math.floor(len(self) * (1 - fraction))
        if not 0 < fraction < 1 or not 1 < n < len(self):
            raise ValueError(
                f"fraction must leave ratings on both sides, got {fraction} of {len(self)}"
            )
        return self._take(slice(n)), self._take(slice(n, None))

    def folds(self, n_folds: int, seed: int = 0) -> Iterator[tuple[Ratings, Ratings]]:
        """(train, held out) of each fold of a cross-validation, chosen by a hash as in `split`: in any row order."""
        if not 2 <= n_folds <= len(self) // 2:
            raise ValueError(
                f"n_folds must be from 2 to half of the {len(self)} ratings, got {n_folds}"
            )
        hashes = self._hashes(seed)
        fold = np.empty(len(self), np.int32)
        fold[np.argsort(hashes, kind="stable")] = np.arange(len(self)) * n_folds // len(self)
        for k in range(n_folds):
            yield self._take(fold != k), self._take(fold == k)

    def _hashes(self, seed):
        """A random uint64 for each rating, by its ids' codes, its value and the seed."""
        out = np.empty(len(self), np.uint64)
        _keys.hash_ratings(self.users, self.items, self.values, np.uint64(seed % 2**64), out)
        return out

    def fingerprint(self, ordered: bool) -> dict[str, Any]:
        """Hashes that tell these ratings from others, where `ordered` also from these in another order of the rows."""
        import hashlib  # not needed to import funksvd

        hashes = self._hashes(0)
        hashes *= (2 * self.users + 1).astype(np.uint64)  # else (a, b) and (b, a) were the same
        if self.weights is not None:
            hashes = (hashes ^ self.weights.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        total = hashlib.blake2b(hashes).hexdigest() if ordered else int(hashes.sum())
        ids = [
            hashlib.blake2b("\0".join(map(str, t.ids.tolist())).encode()).hexdigest()
            for t in self.tables
        ]
        return {"number": len(self), "users' ids": ids[0], "items' ids": ids[1], "content": total}

    def codes_in(self, tables):
        """(user codes, item codes) in other id tables, -1 where these do not know an id."""
        sides = zip(tables, self.tables, (self.users, self.items), ("user", "item"), strict=True)
        return tuple(theirs.encode(ours.ids, name)[codes] for theirs, ours, codes, name in sides)

    def like(self, other):
        """(these ratings in the codes of `other`, those it cannot code: (users, items, values, weights), -1 unknown).

        Both are independent of the order of the rows: the second is sorted.
        """
        if self.tables is other.tables:
            return self, None
        codes = self.codes_in(other.tables)
        known = (codes[0] >= 0) & (codes[1] >= 0)
        keys = [
            t.ids[c[known]] if t.lookup is not None else c[known]
            for t, c in zip(other.tables, codes, strict=True)
        ]
        weights = np.ones(len(self)) if self.weights is None else self.weights
        strange = [a[~known] for a in (*codes, self.values, weights)]
        order = np.lexsort(strange)
        weights = None if self.weights is None else weights[known]
        return Ratings(*other.tables, *keys, self.values[known], weights=weights), tuple(
            a[order] for a in strange
        )

    def _take(self, mask):
        weights = None if self.weights is None else self.weights[mask]
        return Ratings(
            *self.tables, *(keys[mask] for keys in self.keys), self.values[mask], weights=weights
        )

    def grid(self, row_bytes, dtype=np.float32, seed=0, n_jobs=1, like=None, warps=False):
        """The block grid: B x B blocks of which those that share no band can be worked on at once.

        The side with fewer ids is gathered; a band of its factors (`row_bytes` a row) is about an L2 and fits 16-bit
        indices. Bands hold about equal numbers of ratings, their members shuffled by `seed`. The grid is a function
        of the set of ratings and the seed: neither `n_jobs` nor the order of the rows changes a bit.
        `like` takes the bands of another grid (for a validation set); codes it does not hold must not occur.
        `warps` makes blocks for the warps of a GPU: many more bands (`choose_warp_bands`), and the side with more ids
        gathered, which keeps runs long: a warp has no cache of its own that a band could fit.
        """
        n, sizes = len(self), (self.n_users, self.n_items)
        places = [self._place(0), self._place(1)]
        chunks = [slice(s, min(s + CHUNK * 4, n)) for s in range(0, n, CHUNK * 4)]
        if like is None:
            side_counts = [self._count(side, places[side], n_jobs) for side in (0, 1)]
            users_run = self._users_run(side_counts) != warps
        else:
            users_run = like.users_run
        run, gathered = (0, 1) if users_run else (1, 0)
        if like is None:
            if warps:
                n_bands = choose_warp_bands(
                    n, max(int(counts.max()) for counts in side_counts), sizes[gathered]
                )
            else:
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
            packed.append((self.keys[side], base, place[lookup]))
        (run_keys, run_base, run_place), (keys, base, place) = packed

        # Two passes over the ratings: how many of each chunk go to each block, then there they go.
        def count_chunk(part):
            out = np.zeros(n_bands * n_bands, np.int64)
            _grid.count_blocks(
                run_keys[part], run_base, run_place, keys[part], base, place, n_bands, out
            )
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
            pairs, values = np.unique(
                self.values.astype(dtype) + 1j * self.weights.astype(dtype), return_inverse=True
            )
            values = values.astype(np.float64)
        index, rating = (
            np.zeros(n + 8, np.uint16),
            np.zeros(n + 8, values.dtype if pairs is not None else dtype),
        )

        def scatter_chunk(c):
            part = chunks[c]
            _grid.scatter(
                run_keys[part],
                run_base,
                run_place,
                keys[part],
                base,
                place,
                values[part],
                n_bands,
                cursors[c],
                row,
                low_row,
                index,
                rating,
            )

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
        block_runs = np.concatenate([[0], np.cumsum([runs for runs, _ in sorted_blocks])]).astype(
            np.int64
        )
        run_row, run_end = np.empty(block_runs[-1], np.int32), np.empty(block_runs[-1], np.uint32)

        def list_one(b):
            r, low, part = rows_of(b)
            runs = slice(block_runs[b], block_runs[b + 1])
            start = int(layout[0][1][b // n_bands])
            _grid.list_runs(r, low, index[part], start, run_row[runs], run_end[runs])

        parallel(list_one, range(n_bands * n_bands), n_jobs)
        weight, total, total_weight = (
            None,
            float(sum(total for _, total in sorted_blocks)),
            float(n),
        )
        if pairs is not None:
            rank = rating[:n].astype(np.int64)
            rating, weight = np.zeros(n + 8, dtype), np.zeros(n + 8, dtype)
            rating[:n], weight[:n] = pairs.real[rank], pairs.imag[rank]
            total = float(np.sum(rating * weight, dtype=np.float64))
            total_weight = float(np.sum(weight, dtype=np.float64))
        return Grid(
            users_run,
            n_bands,
            *layout[0],
            *layout[1],
            *counts,
            block_start,
            block_runs,
            run_row,
            run_end,
            index,
            rating,
            total / total_weight if total_weight else 0.0,
            weight,
            total_weight,
        )

    def _count(self, side, place, n_jobs):
        """Ratings of each code of a side."""
        if self._counts[side] is not None:
            return self._counts[side]
        base, lookup = place
        by_key = count_keys(self.keys[side], base, len(lookup), n_jobs)
        known = lookup >= 0
        out = np.zeros(len(self.tables[side]), np.int64)
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
