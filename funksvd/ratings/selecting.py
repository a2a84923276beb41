"""What makes `Ratings` an object like others: rows, printing, joining, thinning, and tables out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from funksvd.checks import check_choice, checked_n
from funksvd.ratings.ids import ITEMS, USERS, Encoded, IdTable
from funksvd.ratings.tables import TABLE_LIBRARIES, table_of

if TYPE_CHECKING:
    from funksvd.ratings.triples import Ratings

SIDES = ("user", "item")


class Selecting:
    """Parts, joins and tables of the ratings that inherit it."""

    tables: tuple[IdTable, IdTable]
    values: np.ndarray
    weights: np.ndarray | None
    times: np.ndarray | None

    @property
    def users(self) -> np.ndarray:
        raise NotImplementedError

    @property
    def items(self) -> np.ndarray:
        raise NotImplementedError

    def _take(self, rows: np.ndarray | slice) -> Any:
        raise NotImplementedError

    def ratings_per_code(self, side: int, n_jobs: int = 1) -> np.ndarray:
        raise NotImplementedError

    @classmethod
    def from_arrays(
        cls, users: Any, items: Any, ratings: Any, weights: Any = None, times: Any = None
    ) -> Self:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, rows: Any) -> Self:
        """Return the ratings of some rows: a slice, a mask of bools, or row numbers.

        They keep the ids of all ratings, as the parts of `split` do, so that a model that is
        trained on one part knows the ids of the others.

        Raises
        ------
        TypeError
            If `rows` is a single number or none of these.
        IndexError
            If a mask is not as long as the ratings, or there is no such row.
        """
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.size == 0:
                rows = rows.astype(np.intp)
            if rows.ndim != 1 or rows.dtype.kind not in "biu":
                raise TypeError(
                    "rows of ratings are chosen by a slice, a mask of bools or an array of row"
                    f" numbers, got {rows.dtype} of shape {rows.shape}; ratings[[5]] is row 5"
                )
        part: Self = self._take(rows)
        return part

    def __repr__(self) -> str:
        n_users, n_items = (np.count_nonzero(self.ratings_per_code(side)) for side in range(2))
        text = f"Ratings: {len(self):,} by {n_users:,} users of {n_items:,} items"
        if len(self):
            text += f", from {self.values.min():g} to {self.values.max():g}"
        if self.times is not None and len(self):
            text += f", {day_of(self.times.min())} to {day_of(self.times.max())}"
        if self.weights is not None:
            text += ", weighted"
        return f"<{text}>"

    def to_frame(self, library: str = "pandas") -> Any:
        """Return a table with the columns user, item and rating, and weight and time if known.

        `library` is "pandas", "polars" or "pyarrow". Times are dates without a time zone, in UTC.

        Raises
        ------
        ImportError
            If narwhals or the library is missing.
        """
        check_choice(library, "library", TABLE_LIBRARIES)
        columns = {
            "user": self.tables[USERS].ids[self.users],
            "item": self.tables[ITEMS].ids[self.items],
            "rating": self.values,
        }
        if self.weights is not None:
            columns["weight"] = self.weights
        if self.times is not None:
            columns["time"] = self.times.astype("datetime64[s]").astype("datetime64[ms]")
        return table_of(columns, library)

    @classmethod
    def concat(cls, parts: Sequence[Ratings]) -> Self:
        """Return the ratings of several parts, one after the other; their ids may differ.

        Ratings without weights weigh 1 beside others that have them.

        Raises
        ------
        ValueError
            If there are no parts, or some have times and others do not.
        TypeError
            If ids of one side are of one type here and of another there.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("concat needs at least one part, got none")
        users, items = (joined_ids(parts, side) for side in (USERS, ITEMS))
        values = np.concatenate([part.values for part in parts])
        weights = None
        if any(part.weights is not None for part in parts):
            weights = np.concatenate([weights_of(part) for part in parts])
        times = [part.times for part in parts if part.times is not None]
        if len(times) not in (0, len(parts)):
            raise ValueError(
                f"{len(times)} of the {len(parts)} parts have times; give all of them times, or"
                " read them with time=False"
            )
        all_times = np.concatenate(times) if times else None
        return cls.from_arrays(users, items, values, weights, all_times)

    def filter(self, *, min_user: int = 1, min_item: int = 1) -> Self:
        """Return the ratings of users and items that have enough of them, with these ids alone.

        Users and items with too few ratings are left out in turns, until all that are left have
        enough (the k-core of the ratings).

        Parameters
        ----------
        min_user, min_item : int
            Least number of ratings of a user and of an item.

        Raises
        ------
        ValueError
            If no ratings are left.
        """
        least = (checked_n(min_user, "min_user"), checked_n(min_item, "min_item"))
        codes = (self.users, self.items)
        kept = np.ones(len(self), bool)
        while True:
            n_before = np.count_nonzero(kept)
            for side in (USERS, ITEMS):
                counts = np.bincount(codes[side][kept], minlength=len(self.tables[side]))
                kept &= counts[codes[side]] >= least[side]
            if np.count_nonzero(kept) == n_before:
                break
        if not kept.any():
            raise ValueError(
                f"no ratings are left with min_user={min_user} and min_item={min_item}; lower them"
            )
        part = self._take(kept)
        users, items = (
            Encoded(codes[side][kept], self.tables[side].ids) for side in (USERS, ITEMS)
        )
        return self.from_arrays(users, items, part.values, part.weights, part.times)


def weights_of(ratings: Ratings) -> np.ndarray:
    """Return the weights of ratings; ones where there are none."""
    return np.ones(len(ratings)) if ratings.weights is None else ratings.weights


def joined_ids(parts: Sequence[Ratings], side: int) -> Encoded:
    """Return the ids of one side of several parts as one column."""
    tables = [part.tables[side] for part in parts]
    kinds = {table.kind for table in tables if len(table)}
    if len(kinds) > 1:
        raise TypeError(
            f"{SIDES[side]} ids are {' in one part and '.join(sorted(kinds))} in another; make"
            " them of one type"
        )
    codes = []
    n_ids = 0
    for part, table in zip(parts, tables, strict=True):
        own = part.items if side else part.users
        codes.append(own + n_ids)
        n_ids += len(table)
    return Encoded(np.concatenate(codes), np.concatenate([table.ids for table in tables]))


def day_of(seconds: int) -> str:
    """Return the day (UTC) of a time in seconds since 1970."""
    return datetime.fromtimestamp(int(seconds), UTC).date().isoformat()
