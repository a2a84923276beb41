"""Splitters of ratings for `cv=` of scikit-learn's GridSearchCV and cross_validate.

They can be used by hand, too, and none of them needs scikit-learn. `split(X, y, groups)` yields
(train, test): two `Ratings` if X is a `Ratings`, and row numbers if X is anything else that `fit`
takes with y beside it. Where the time of the ratings matters, it is that of the `Ratings`, or
`groups` holds it: one time a rating, of any type that sorts. Without times the rows are taken to
be in the order of time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from funksvd.checks import checked_n
from funksvd.ratings import _keys  # type: ignore[attr-defined]  # compiled
from funksvd.ratings.encoding import table_and_keys
from funksvd.ratings.ids import ITEMS, USERS
from funksvd.ratings.inputs import pairs_of
from funksvd.ratings.tables import as_ids
from funksvd.ratings.triples import Ratings

# Row numbers, or `Ratings` where these are split.
Part = tuple[Any, Any]
Parts = Iterator[Part]

# Seeds of random_state and the number of the split are this far apart.
SEED_STEP = 1_000_003


@dataclass
class UserHoldout:
    """Hold out some of each user's ratings at random: a share of them, or a number.

    Parameters
    ----------
    test_size : float in (0, 1), or int >= 1
        A float is a share, which is rounded to the nearest number of ratings. A user keeps at least
        one rating in the training part.
    n_splits : int
    random_state : int
        The ratings held out depend on it and on the set of ratings, not on the order of the rows.
    """

    test_size: float = 0.2
    n_splits: int = 1
    random_state: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        """Yield (train, test) of each split."""
        self._check_size()
        users = codes_of(X, USERS)
        items = codes_of(X, ITEMS)
        counts = np.bincount(users)
        n_held = self._number_held(counts)
        tied = values_of(X, y)
        for number in range(checked_n(self.n_splits, "n_splits")):
            hashes = np.empty(len(users), np.uint64)
            seed = np.uint64((self.random_state * SEED_STEP + number) % 2**64)
            _keys.hash_ratings(
                users,
                items,
                np.zeros(len(users)),
                seed,
                hashes,
            )
            order = np.lexsort((*tied, hashes, users))
            place = place_in_user(users, order, counts)
            yield parts_of(X, place < n_held[users])

    def _check_size(self) -> None:
        size = self.test_size
        allowed = size >= 1 if isinstance(size, int | np.integer) else 0 < size < 1
        if isinstance(size, bool) or not allowed:
            raise ValueError(f"test_size must be a float in (0, 1) or an int >= 1, got {size!r}")

    def _number_held(self, counts: np.ndarray) -> np.ndarray:
        """Return how many ratings of each user are held out, given the numbers of all."""
        if isinstance(self.test_size, int | np.integer):
            wanted = np.full(len(counts), self.test_size)
        else:
            wanted = np.rint(counts * self.test_size)
        held: np.ndarray = np.minimum(wanted, counts - 1)
        return held

    def get_n_splits(
        self,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
    ) -> int:
        """Return the number of splits."""
        return self.n_splits


@dataclass
class LeaveLastOut:
    """Hold out the last ratings of each user.

    A user who has no more ratings than these stays whole in the training part.

    Parameters
    ----------
    n_last : int
        Number of ratings held out for each user.
    """

    n_last: int = 1

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        """Yield (train, test); `groups` are the times."""
        users = codes_of(X, USERS)
        counts = np.bincount(users)
        order = np.lexsort((ranks(times_of(X, groups), len(users)), users))
        place = place_in_user(users, order, counts)
        n_last = checked_n(self.n_last, "n_last")
        of_user = counts[users]
        yield parts_of(X, (place >= of_user - n_last) & (of_user > n_last))

    def get_n_splits(
        self,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
    ) -> int:
        """Return 1, the number of splits."""
        return 1


@dataclass
class TimeSplit:
    """Train on the past and test on what comes after: the last `n_splits` windows of time.

    Each window is the test part of one split; all ratings before it are the training part.

    Parameters
    ----------
    test_size : float in (0, 1)
        Share of the ratings in a window. Ratings of one moment are never parted, so that windows
        may differ in size.
    n_splits : int
    """

    test_size: float = 0.2
    n_splits: int = 1

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        """Yield (train, test) of each window, early ones first; `groups` are the times."""
        n = len(codes_of(X, USERS))
        n_splits = checked_n(self.n_splits, "n_splits")
        if not 0 < self.test_size < 1 or self.test_size * n_splits >= 1:
            raise ValueError(
                f"test_size must be in (0, 1 / n_splits),"
                f" got {self.test_size!r} for {n_splits} splits"
            )
        time = ranks(times_of(X, groups), n)
        ordered = np.sort(time)
        window = max(1, round(self.test_size * n))
        begins = [ordered[max(0, n - window * left)] for left in range(n_splits, 0, -1)]
        for begin, end in itertools.pairwise([*begins, n]):
            past = time < begin
            present = (time >= begin) & (time < end)
            if not past.any() or not present.any():
                raise ValueError(
                    f"too many ratings of one moment for {n_splits} windows of {self.test_size}"
                    f" of {n} ratings"
                )
            yield rows_of(X, past), rows_of(X, present)

    def get_n_splits(
        self,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
    ) -> int:
        """Return the number of splits."""
        return self.n_splits


@dataclass
class ColdUserSplit:
    """Hold out whole users, each in one of `n_splits` folds.

    It measures how good the model is for somebody whom it has never seen.

    Parameters
    ----------
    n_splits : int >= 2
    random_state : int
    """

    n_splits: int = 5
    random_state: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Parts:
        """Yield (train, test) of each fold."""
        users = codes_of(X, USERS)
        n_users = int(users.max()) + 1
        if n_users < checked_n(self.n_splits, "n_splits", 2):
            raise ValueError(
                f"n_splits must be at most the number of users, {n_users}, got {self.n_splits}"
            )
        fold = np.random.default_rng(self.random_state).permutation(n_users) % self.n_splits
        for number in range(self.n_splits):
            yield parts_of(X, fold[users] == number)

    def get_n_splits(
        self,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
    ) -> int:
        """Return the number of splits."""
        return self.n_splits


def codes_of(X: Any, side: int) -> np.ndarray:
    """Return (n,) int32 codes of the users (side 0) or items (side 1) of X."""
    if isinstance(X, Ratings):
        return X.items if side else X.users
    name = ("user", "item")[side]
    ids = as_ids(pairs_of(X)[side], name)
    table, _, _ = table_and_keys(ids, name)
    return table.encode(ids, name)


def values_of(X: Any, y: Any) -> list[np.ndarray]:
    """Return the columns that order the ratings of repeated pairs: sample weights, values."""
    if not isinstance(X, Ratings):
        return [] if y is None else [np.asarray(y)]
    return [X.values] if X.weights is None else [X.weights, X.values]


def ranks(times: Any, n: int) -> np.ndarray:
    """Return for each of n ratings how many are earlier.

    Without times (None) it is the number of rows before.
    """
    if times is None:
        return np.arange(n)
    times = np.asarray(times)
    if times.shape != (n,):
        raise ValueError(f"groups must hold one time a rating, ({n},), got shape {times.shape}")
    earlier: np.ndarray = np.searchsorted(np.sort(times), times)
    return earlier


def place_in_user(users: np.ndarray, order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the place of each rating among its user's, from 0 on.

    Parameters
    ----------
    users : (n,)
        Code of each rating's user.
    order : (n,)
        The row numbers, one user's after another's.
    counts : (n_users,)
        Number of ratings of each user.
    """
    starts = np.cumsum(counts) - counts
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users)) - starts[users[order]]
    return place


def times_of(X: Any, groups: Any) -> Any:
    """Return the times of ratings: `groups`, or else those of a `Ratings`, or None."""
    if groups is None and isinstance(X, Ratings):
        return X.times
    return groups


def parts_of(X: Any, test: np.ndarray) -> Part:
    """Return (train, test) of X, given whether each row is in the test part."""
    return rows_of(X, ~test), rows_of(X, test)


def rows_of(X: Any, chosen: np.ndarray) -> Any:
    """Return the chosen rows of a `Ratings`, or their numbers for anything else."""
    return X[chosen] if isinstance(X, Ratings) else np.flatnonzero(chosen)
