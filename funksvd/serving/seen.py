"""The pairs that `recommend` leaves out: the items that users know already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funksvd.ratings.ids import IdTable
from funksvd.ratings.inputs import as_known
from funksvd.ratings.sorting import by_user
from funksvd.ratings.tables import as_ids
from funksvd.ratings.triples import Ratings

Tables = tuple[IdTable, IdTable]


class Unwanted(NamedTuple):
    """The items that some users must not get; those of user t are codes[start[t]:start[t + 1]].

    start : (users + 1,) int64
    codes : int32 item codes, ascending within each user
    """

    start: np.ndarray
    codes: np.ndarray


class Seen(NamedTuple):
    """Pairs of users and items in the codes of their own id tables, and the way from the model's.

    start : (n_users + 1,) int64
    items : int32 item codes; items[start[u]:start[u + 1]] are those of user u, ascending
    own_users : function from the model's user codes to the own ones; None where they are the same
    model_items : (own items,) int32, the model's code of each own item, which ascend but for the -1
        of an unknown one; None where they are the same
    """

    start: np.ndarray
    items: np.ndarray
    own_users: Callable[[np.ndarray], np.ndarray] | None = None
    model_items: np.ndarray | None = None

    @classmethod
    def of_ratings(cls, ratings: Ratings, tables: Tables) -> Seen:
        """Return the pairs of ratings, whose id tables may be others than the model's `tables`."""
        start, items = ratings.by_user()
        users, items_table = tables
        own_table, own_items_table = ratings.tables
        model_items = None
        if items_table is not own_items_table:
            model_items = items_table.encode(own_items_table.ids, "item")
            if not rise(model_items[model_items >= 0]):
                codes = ratings.codes_in(tables)
                return cls.of_codes(*codes, len(users), len(items_table))
        if users is own_table:
            return cls(start, items, None, model_items)

        def own_users(codes: np.ndarray) -> np.ndarray:
            encoded: np.ndarray = own_table.encode(users.ids[codes], "user")
            return encoded

        return cls(start, items, own_users, model_items)

    @classmethod
    def of_codes(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        n_users: int,
        n_items: int,
    ) -> Seen:
        """Return pairs of the model's codes; pairs with a code of -1 are left out."""
        known = (users >= 0) & (items >= 0)
        start, items, *_ = by_user(
            users[known],
            items[known],
            None,
            n_users,
            n_items,
            n_jobs=1,
        )
        return cls(start, items)

    def rows(self, users: np.ndarray) -> Unwanted:
        """Return the items of some users, given by the model's codes; a code of -1 has none."""
        users = self._own(users)
        first = self.start[users]
        counts = self.start[users + 1] - first
        counts[users < 0] = 0
        start = sums_before(counts)
        shifts = np.repeat(first - start[:-1], counts)
        places = np.arange(start[-1]) + shifts
        items = self.items[places]
        if self.model_items is None:
            return Unwanted(start, items)
        items = self.model_items[items]  # they still ascend, see `of_ratings`
        known = items >= 0
        known_before = sums_before(known)
        return Unwanted(known_before[start], items[known])

    def _own(self, users: np.ndarray) -> np.ndarray:
        """Return the own codes of the model's user codes; -1 stays -1."""
        if self.own_users is None:
            return users
        known = users >= 0
        codes = np.full(len(users), -1, np.int32)
        codes[known] = self.own_users(users[known])
        return codes


def rise(codes: np.ndarray) -> bool:
    """Return whether each code is larger than the one before.

    The codes of one table's ids in another table do not always: ids of mixed types are sorted by
    type and text, 10 before 9, and ids of one type by their order.
    """
    return bool((codes[1:] > codes[:-1]).all())


def sums_before(counts: np.ndarray) -> np.ndarray:
    """Return (n + 1,) the sums of the first 0, 1, ... n counts."""
    sums = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums


def unwanted_by(users: np.ndarray, seen: Seen | None) -> Unwanted:
    """Return the items that some users must not get; nothing where `seen` is None."""
    if seen is None:
        start = np.zeros(len(users) + 1, np.int64)
        return Unwanted(start, np.empty(0, np.int32))
    return seen.rows(users)


def seen_of(exclude: Any, tables: Tables) -> Seen | None:
    """Return the pairs of `exclude`: None, pairs of ids, or ratings in a form that `fit` takes."""
    if exclude is None:
        return None
    if not (isinstance(exclude, tuple) and len(exclude) == 2):
        return Seen.of_ratings(as_known(exclude), tables)
    raw_users, raw_items = exclude
    users_table, items_table = tables
    users = users_table.encode(as_ids(raw_users, "user"), "user")
    items = items_table.encode(as_ids(raw_items, "item"), "item")
    return Seen.of_codes(users, items, len(users_table), len(items_table))
