"""Splitters of ratings for `cv=` of scikit-learn's GridSearchCV and cross_validate, and for use by hand.

`split(X, y, groups)` yields (train, test) row numbers. X is what `fit` takes with y beside it, or a `Ratings`. Where time
matters it is `groups`, one time a rating, in any form that sorts; without it the rows are taken to be in order of time.
None of them needs scikit-learn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.checks import checked_n
from funksvd.ratings import _keys
from funksvd.ratings.ids import table_and_keys
from funksvd.ratings.inputs import pairs_of
from funksvd.ratings.tables import as_ids
from funksvd.ratings.triples import Ratings

Parts = Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]


@dataclass
class UserHoldout:
    """Of each user's ratings hold out some at random: a part of them, or a number.

    Parameters
    ----------
    test_size : float in (0, 1), a share rounded to the nearest number, or int >= 1
        A user keeps at least one rating in the training part.
    n_splits : int
    random_state : int
        Which ratings are held out depends on it and on the set of ratings, not on the order of the rows.
    """

    test_size: float = 0.2
    n_splits: int = 1
    random_state: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        whole = isinstance(self.test_size, (int, np.integer))
        if isinstance(self.test_size, bool) or not (
            self.test_size >= 1 if whole else 0 < self.test_size < 1
        ):
            raise ValueError(
                f"test_size must be a float in (0, 1) or an int >= 1, got {self.test_size!r}"
            )
        users, items = (codes_of(X, side) for side in (0, 1))
        counts = np.bincount(users)
        held = np.minimum(
            np.full(len(counts), self.test_size) if whole else np.rint(counts * self.test_size),
            counts - 1,
        )
        for number in range(checked_n(self.n_splits, "n_splits")):
            hashes = np.empty(len(users), np.uint64)
            seed = np.uint64((self.random_state * 1_000_003 + number) % 2**64)
            _keys.hash_ratings(users, items, np.zeros(len(users)), seed, hashes)
            yield from_mask(place_in_user(users, np.lexsort((hashes, users)), counts) < held[users])

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits


@dataclass
class LeaveLastOut:
    """Hold out the last ratings of each user; a user with no more than these stays whole in the training part.

    Parameters
    ----------
    n_last : int
    """

    n_last: int = 1

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        users = codes_of(X, 0)
        counts = np.bincount(users)
        order = np.lexsort((ranks(groups, len(users)), users))
        place = place_in_user(users, order, counts)
        n_last = checked_n(self.n_last, "n_last")
        yield from_mask((place >= counts[users] - n_last) & (counts[users] > n_last))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return 1


@dataclass
class TimeSplit:
    """Train on the past, test on what comes after: the last `n_splits` windows of time, each after all before it.

    Parameters
    ----------
    test_size : float in (0, 1)
        Share of the ratings in a window. Ratings of one moment are never parted, so windows may differ in size.
    n_splits : int
    """

    test_size: float = 0.2
    n_splits: int = 1

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        n = len(codes_of(X, 0))
        n_splits = checked_n(self.n_splits, "n_splits")
        if not 0 < self.test_size < 1 or self.test_size * n_splits >= 1:
            raise ValueError(
                f"test_size must be in (0, 1 / n_splits), got {self.test_size!r} for {n_splits} splits"
            )
        time = ranks(groups, n)
        ordered, window = np.sort(time), max(1, round(self.test_size * n))
        ends = [*(ordered[max(0, n - window * left)] for left in range(n_splits, 0, -1)), n]
        for begin, end in itertools.pairwise(ends):
            train, test = (
                np.flatnonzero(time < begin),
                np.flatnonzero((time >= begin) & (time < end)),
            )
            if not len(train) or not len(test):
                raise ValueError(
                    f"too many ratings of one moment for {n_splits} windows of {self.test_size} of {n} ratings"
                )
            yield train, test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits


@dataclass
class ColdUserSplit:
    """Hold out whole users, each in one of `n_splits` folds: how good is the model for somebody it has never seen?

    Parameters
    ----------
    n_splits : int >= 2
    random_state : int
    """

    n_splits: int = 5
    random_state: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        users = codes_of(X, 0)
        n_users = int(users.max()) + 1
        if n_users < checked_n(self.n_splits, "n_splits", 2):
            raise ValueError(
                f"n_splits must be at most the number of users, {n_users}, got {self.n_splits}"
            )
        fold = np.random.default_rng(self.random_state).permutation(n_users) % self.n_splits
        for number in range(self.n_splits):
            yield from_mask(fold[users] == number)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits


def codes_of(X, side):
    """int32 codes of the users (0) or items (1) of X."""
    if isinstance(X, Ratings):
        return (X.users, X.items)[side]
    name, raw = ("user", "item")[side], pairs_of(X)[side]
    ids = as_ids(raw, name)
    return table_and_keys(ids, name)[0].encode(ids, name)


def ranks(times, n):
    """For each rating the number of earlier ones; without times the number of rows before it."""
    if times is None:
        return np.arange(n)
    times = np.asarray(times)
    if times.shape != (n,):
        raise ValueError(f"groups must hold one time a rating, ({n},), got shape {times.shape}")
    return np.searchsorted(np.sort(times), times)


def place_in_user(users, order, counts):
    """Each rating's place, from 0 on, among its user's in `order`, which lists user after user."""
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users)) - (np.cumsum(counts) - counts)[users[order]]
    return place


def from_mask(test):
    return np.flatnonzero(~test), np.flatnonzero(test)
