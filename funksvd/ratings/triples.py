"""Ratings: (user, item, rating) triples, checked and encoded once, and ways to split them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from funksvd.checks import refuse_old_names
from funksvd.machine.threads import CHUNK, cpu_count
from funksvd.ratings import _keys  # type: ignore[attr-defined]  # compiled
from funksvd.ratings.encoding import table_and_keys
from funksvd.ratings.hashes import digest_of_hashes, digest_of_texts, mixed, smallest
from funksvd.ratings.ids import ITEMS, USERS, IdTable
from funksvd.ratings.parts import Unknown, keys_of, rows_of, sorted_unknown
from funksvd.ratings.selecting import Selecting
from funksvd.ratings.sorting import by_user, count_keys
from funksvd.ratings.tables import as_ids, as_times
from funksvd.ratings.values import (
    check_finite,
    checked_values,
    checked_weights,
)

# Arguments of an earlier version -> those of scikit-learn, which are theirs now.
NEW_NAMES = {"fraction": "test_size", "seed": "random_state", "n_folds": "n_splits"}


class Ratings(Selecting):
    """Encoded ratings. Make them with `from_arrays`, `from_frame`, `from_sparse` or `read`.

    Attributes
    ----------
    tables : (IdTable, IdTable)
        The ids of users and items.
    keys : (array, array)
        An integer of each rating on each side: its raw id, where the side's table has a lookup
        table, and else its code.
    values : (n,) float32 or float64
        The ratings.
    weights : (n,) float64 or None
        The weight of each rating; None if all count alike.
    times : (n,) int64 or None
        When each rating was given, in seconds since 1970 (UTC); None if it is not known.
    """

    def __init__(
        self,
        tables: tuple[IdTable, IdTable],
        keys: tuple[np.ndarray, np.ndarray],
        values: np.ndarray,
        weights: np.ndarray | None = None,
        counts: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        times: np.ndarray | None = None,
    ) -> None:
        self.tables = tables
        self.keys = keys  # nobody else's: kernels index by them and check nothing
        self.values = values
        self.weights = weights
        self.times = times
        self._counts = counts  # ratings of each code, where they are known already
        self._by_user: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def user_ids(self) -> np.ndarray:
        """The sorted distinct ids of the users."""
        return self.tables[USERS].ids

    @property
    def item_ids(self) -> np.ndarray:
        """The sorted distinct ids of the items."""
        return self.tables[ITEMS].ids

    @property
    def n_users(self) -> int:
        """Number of distinct users."""
        return len(self.tables[USERS])

    @property
    def n_items(self) -> int:
        """Number of distinct items."""
        return len(self.tables[ITEMS])

    @property
    def users(self) -> np.ndarray:
        """(n,) int32 code of each rating's user."""
        return self._codes(USERS)

    @property
    def items(self) -> np.ndarray:
        """(n,) int32 code of each rating's item."""
        return self._codes(ITEMS)

    def lookup(self, side: int) -> tuple[int, np.ndarray]:
        """Return (base, table) of side 0 (users) or 1 (items): ``table[key - base]`` is a code."""
        table = self.tables[side]
        if table.lookup is not None:
            return table.base, table.lookup
        return 0, np.arange(len(table), dtype=np.int32)

    def _codes(self, side: int) -> np.ndarray:
        base, table = self.lookup(side)
        out = np.empty(len(self), np.int32)
        _keys.look_up(self.keys[side], base, table, out)
        return out

    def ratings_per_code(self, side: int, n_jobs: int = 1) -> np.ndarray:
        """Return (n_ids,) int64: the number of ratings of each code of side 0 or 1."""
        counts = self._counts[side]
        if counts is not None:
            return counts
        base, table = self.lookup(side)
        by_key = count_keys(self.keys[side], base, len(table), n_jobs)
        known = table >= 0
        counts = np.zeros(len(self.tables[side]), np.int64)
        counts[table[known]] = by_key[known]
        return counts

    def by_user(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (start, items): user code u rated the item codes items[start[u]:start[u + 1]].

        They ascend. The arrays are made at the first call and kept.
        """
        if self._by_user is None:
            n_jobs = cpu_count() if len(self) > CHUNK else 1
            start, items, *_ = by_user(
                self.users,
                self.items,
                None,
                self.n_users,
                self.n_items,
                n_jobs,
            )
            self._by_user = start, items
        return self._by_user

    @classmethod
    def from_arrays(
        cls,
        users: Any,
        items: Any,
        ratings: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        times: Any = None,
    ) -> Ratings:
        """Return ratings from arrays of equal length.

        Arrays are copied, so that they may be changed or filled again later. `weights` are at least
        0 and say how much each rating counts in training and in errors; None means that all count
        alike. `times` are numbers of seconds since 1970, or dates; see `times.checked_times`.
        """
        return cls.of_own(users, items, checked_values(ratings), weights, times)

    @classmethod
    def of_own(
        cls,
        users: Any,
        items: Any,
        values: np.ndarray,
        weights: npt.ArrayLike | None = None,
        times: Any = None,
    ) -> Ratings:
        """Return ratings whose `values`, float32 or float64, nobody else can change.

        They are kept, not copied; otherwise this is `from_arrays`.
        """
        if not len(users) == len(items) == len(values):
            raise ValueError(
                "users, items and ratings must have equal lengths,"
                f" got {len(users)}, {len(items)}, {len(values)}"
            )
        check_finite(values)
        if weights is not None:
            weights = checked_weights(weights, len(values))
        if times is not None:
            times = as_times(times, len(values))
        user_table, user_keys, user_counts = table_and_keys(as_ids(users, "user"), "user")
        item_table, item_keys, item_counts = table_and_keys(as_ids(items, "item"), "item")
        tables = (user_table, item_table)
        return cls(
            tables,
            (user_keys, item_keys),
            values,
            weights,
            (user_counts, item_counts),
            times,
        )

    @classmethod
    def from_sparse(
        cls,
        matrix: Any,
        weights: npt.ArrayLike | None = None,
        times: Any = None,
    ) -> Ratings:
        """Return ratings from a SciPy sparse matrix.

        Row numbers are user ids, column numbers are item ids, and stored values are ratings.
        `weights` and `times` are in the order of the stored values.
        """
        if not hasattr(matrix, "tocoo"):
            raise TypeError(f"from_sparse takes a SciPy sparse matrix, got {type(matrix).__name__}")
        coo = matrix.tocoo()
        return cls.from_arrays(coo.row, coo.col, coo.data, weights, times)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: str | int | None = None,
        item: str | int | None = None,
        rating: str | int | None = None,
        weights: npt.ArrayLike | None = None,
        time: str | int | Literal[False] | None = None,
    ) -> Ratings:
        """Return ratings from a table (pandas, polars, pyarrow, a DuckDB relation).

        `user`, `item`, `rating` and `time` are names or positions of columns; None finds well-known
        names. There need be no times; time=False leaves them out. Categoricals and Arrow
        dictionaries are used as they are.
        """
        from funksvd.ratings.tables import columns_of

        users, items, values, *times = columns_of(frame, time, user=user, item=item, rating=rating)
        return cls.from_arrays(users, items, values, weights, *times)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **options: Any) -> Ratings:
        """Return the ratings in a file; options and errors are those of `datasets.read_ratings`.

        The option `time`, a name or position, chooses the column of the times. By default it is the
        one with a well-known name (``timestamp``, ``date``, ...) if there is one; time=False reads
        no times.
        """
        from funksvd.ratings.reading import read_columns

        raw = read_columns(path, **options)
        return cls.of_own(raw.users, raw.items, raw.values, times=raw.times)

    def split(
        self, test_size: float = 0.1, random_state: int = 0, **old_names: Any
    ) -> tuple[Ratings, Ratings]:
        """Return (train, test), where round(test_size * n) ratings are held out at random.

        A hash of the rating and the seed chooses them, so that the order of the rows changes
        nothing.
        """
        refuse_old_names("split", old_names, NEW_NAMES)
        n_held = round(test_size * len(self))
        self._check_parts(test_size, 0 < n_held < len(self) - 1)
        held = smallest(self._hashes(random_state), self._columns(), n_held)
        return self._take(~held), self._take(held)

    def split_tail(self, test_size: float = 0.1, **old_names: Any) -> tuple[Ratings, Ratings]:
        """Return (train, test), where the last ratings are held out.

        They are as many as Keras' `validation_split` takes.
        """
        refuse_old_names("split_tail", old_names, NEW_NAMES)
        n_train = math.floor(len(self) * (1 - test_size))
        self._check_parts(test_size, 1 < n_train < len(self))
        return self._take(slice(n_train)), self._take(slice(n_train, None))

    def _check_parts(self, test_size: float, both_filled: bool) -> None:
        """Raise ValueError if a split by this share leaves one part without ratings."""
        if not 0 < test_size < 1 or not both_filled:
            raise ValueError(
                f"test_size must leave ratings on both sides, got {test_size} of {len(self)}"
            )

    def folds(
        self, n_splits: int = 5, random_state: int = 0, **old_names: Any
    ) -> Iterator[tuple[Ratings, Ratings]]:
        """Yield (train, test) of each fold of a cross-validation.

        A hash of the rating and the seed chooses its fold, as in `split`.
        """
        refuse_old_names("folds", old_names, NEW_NAMES)
        n = len(self)
        if not 2 <= n_splits <= n // 2:
            raise ValueError(f"n_splits must be from 2 to half of the {n} ratings, got {n_splits}")
        hashes = self._hashes(random_state)
        order = np.argsort(hashes, kind="stable")
        if (np.diff(hashes[order]) == 0).any():  # equal ratings, which only their rows tell apart
            order = np.lexsort((*self._columns()[::-1], hashes))
        fold = np.empty(n, np.int32)
        fold[order] = np.arange(n) * n_splits // n
        for number in range(n_splits):
            yield (
                self._take(fold != number),
                self._take(fold == number),
            )

    def _columns(self) -> list[np.ndarray]:
        """Return all columns that there are: users, items, values, weights and times."""
        optional = [column for column in (self.weights, self.times) if column is not None]
        return [self.users, self.items, self.values, *optional]

    def _hashes(self, seed: int) -> np.ndarray:
        """Return (n,) uint64: a hash of each rating's codes, its value and the seed."""
        out = np.empty(len(self), np.uint64)
        _keys.hash_ratings(
            self.users,
            self.items,
            self.values,
            np.uint64(seed % 2**64),
            out,
        )
        return out

    def fingerprint(self, ordered: bool) -> dict[str, Any]:
        """Return hashes that tell these ratings from others.

        If `ordered`, they also tell them from the same ratings in another order of the rows.
        """
        hashes = self._hashes(0)
        # A rating and the one with user and item exchanged have the same hash until here.
        hashes *= 2 * self.users.astype(np.uint64) + np.uint64(1)
        for column in (self.weights, self.times):
            if column is not None:
                hashes = mixed(hashes, column)
        texts_of_ids = [list(map(str, table.ids.tolist())) for table in self.tables]
        return {
            "number": len(self),
            "users' ids": digest_of_texts(texts_of_ids[USERS]),
            "items' ids": digest_of_texts(texts_of_ids[ITEMS]),
            "content": digest_of_hashes(hashes, ordered),
        }

    def codes_in(self, tables: Sequence[IdTable]) -> tuple[np.ndarray, np.ndarray]:
        """Return (user codes, item codes) in other id tables; -1 is an id unknown to these."""
        users = tables[USERS].encode(self.user_ids, "user")[self.users]
        items = tables[ITEMS].encode(self.item_ids, "item")[self.items]
        return users, items

    def like(self, other: Ratings) -> tuple[Ratings, Unknown | None]:
        """Return these ratings in the codes of other ones.

        Returns
        -------
        known : Ratings
            The ratings both of whose ids `other` knows, with its tables.
        unknown : Unknown or None
            The rest; None if the tables are the same ones.
        """
        if self.tables is other.tables:
            return self, None
        users, items = self.codes_in(other.tables)
        known = (users >= 0) & (items >= 0)
        user_keys = keys_of(other.tables[USERS], users[known])
        item_keys = keys_of(other.tables[ITEMS], items[known])
        ratings = Ratings(
            other.tables,
            (user_keys, item_keys),
            self.values[known],
            rows_of(self.weights, known),
            times=rows_of(self.times, known),
        )
        weights = np.ones(len(self)) if self.weights is None else self.weights
        columns = [column[~known] for column in (users, items, self.values, weights)]
        return ratings, sorted_unknown(*columns)

    def with_values(self, values: np.ndarray) -> Ratings:
        """Return the same pairs, weights and id tables with other ratings."""
        return Ratings(self.tables, self.keys, values, self.weights, self._counts, self.times)

    def _take(self, rows: np.ndarray | slice) -> Ratings:
        """Return the ratings of some rows, with the same id tables."""
        user_keys, item_keys = self.keys
        return Ratings(
            self.tables,
            (user_keys[rows], item_keys[rows]),
            self.values[rows],
            rows_of(self.weights, rows),
            times=rows_of(self.times, rows),
        )
