"""How good ranked lists of unseen items are, measured on ratings held out.

All test users get a list of the k best items that they have not seen, as `recommend` gives it, and
the items of the list that the user liked in the test are hits. Users come in batches, so that the
memory depends on the numbers of users, items and ratings, and never on users times items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from funksvd.metrics import RANKING_METRICS, novelty, user_metrics
from funksvd.ratings.ids import ITEMS, USERS, IdTable
from funksvd.ratings.triples import Ratings
from funksvd.serving.seen import Seen, unwanted_by
from funksvd.serving.top import top
from funksvd.weights import Weights

USERS_OF_A_BATCH = 10_000
PAIRS_OF_A_BATCH = 100_000

# Returns (m, k) item codes, best first and -1 for none, of the users of some rows of a `Liked`.
Best = Callable[[slice], np.ndarray]


class Liked(NamedTuple):
    """The unseen items that the users of a test liked; user t liked items[start[t]:start[t + 1]].

    user_ids : (m,) raw ids of the users who liked an item
    users : (m,) int32 codes of the model; -1 is an unknown id
    start : (m + 1,) int64
    items : int32 codes of the model; -1 is an unknown id, which no list can hold
    """

    user_ids: np.ndarray
    users: np.ndarray
    start: np.ndarray
    items: np.ndarray


class Taken(NamedTuple):
    """How often the items of a model have been taken before.

    n_takers : (n_items,), number of users who have taken each item
    n_users : number of users who have taken an item
    """

    n_takers: np.ndarray
    n_users: int


def liked_in(
    test: Ratings, tables: tuple[IdTable, IdTable], threshold: float | None, seen: Seen
) -> Liked:
    """Return the distinct pairs of a test with ratings at or above a threshold; None takes all.

    Seen pairs are left out, since no list holds them.

    Raises
    ------
    ValueError
        If all pairs are seen ones.
    """
    chosen = slice(None) if threshold is None else test.values >= threshold
    pairs = np.unique(test.users[chosen].astype(np.int64) * test.n_items + test.items[chosen])
    users, items = np.divmod(pairs, test.n_items)
    items = tables[ITEMS].encode(test.item_ids, "item")[items]
    user_codes = tables[USERS].encode(test.user_ids, "user")
    is_seen = seen_pairs(user_codes[users], items, seen, len(tables[ITEMS]))
    if is_seen.all():
        raise ValueError(
            f"exclude= holds all {len(pairs)} relevant pairs to evaluate on, so that no list can"
            " hold one; evaluate on ratings that were held out from training"
        )
    distinct, first = np.unique(users[~is_seen], return_index=True)
    return Liked(
        user_ids=test.user_ids[distinct],
        users=user_codes[distinct],
        start=np.append(first, np.count_nonzero(~is_seen)),
        items=items[~is_seen],
    )


def seen_pairs(users: np.ndarray, items: np.ndarray, seen: Seen, n_items: int) -> np.ndarray:
    """Return (n,) whether pairs of the model's codes, one user's after another's, are seen."""
    found = np.zeros(len(users), bool)
    for first in range(0, len(users), PAIRS_OF_A_BATCH):
        part = slice(first, first + PAIRS_OF_A_BATCH)
        distinct, row_of = np.unique(users[part], return_inverse=True)
        unwanted = unwanted_by(distinct.astype(np.int32), seen)
        row_of_unwanted = np.repeat(np.arange(len(distinct)), np.diff(unwanted.start))
        keys = row_of * n_items + items[part]
        found[part] = np.isin(keys, row_of_unwanted * n_items + unwanted.codes)
    return found & (items >= 0)


def taken_in(known: Ratings, item_table: IdTable) -> Taken:
    """Return how many users have taken each item of a table."""
    start, items = known.by_user()
    is_first = np.ones(len(items), bool)  # of several equal pairs
    is_first[1:] = items[1:] != items[:-1]
    starts = start[:-1]
    is_first[starts[starts < len(items)]] = True
    counts = np.bincount(items[is_first], minlength=known.n_items)
    codes = known.tables[ITEMS].encode(item_table.ids, "item")
    n_takers = counts[codes]
    n_takers[codes < 0] = 0
    return Taken(n_takers, int(np.count_nonzero(np.diff(start))))


def popular(taken: Taken, users: np.ndarray, n_users: int, k: int, seen: Seen) -> np.ndarray:
    """Return (m, at most k) codes of the most taken items that each user has not seen.

    `users` are m codes of the model, which knows `n_users`. Ties are in the order of the codes.
    """
    n_items = len(taken.n_takers)
    weights = Weights(
        global_mean=0.0,
        user_biases=np.zeros(n_users),
        item_biases=taken.n_takers.astype(np.float64),
        user_factors=np.zeros((n_users, 1)),
        item_factors=np.zeros((n_items, 1)),
    )
    codes, _ = top(weights, users, k, seen, np.arange(n_items, dtype=np.int32))
    return codes


def measured(liked: Liked, taken: Taken, best: Best, k: int) -> dict[str, float]:
    """Return the metrics of the lists of k items of all users of a test; `best` makes the lists."""
    n_items = len(taken.n_takers)
    n_relevant = np.diff(liked.start)
    times_recommended = np.zeros(n_items, np.int64)
    hit = np.zeros((len(liked.users), k), bool)
    for first in range(0, len(liked.users), USERS_OF_A_BATCH):
        rows = slice(first, first + USERS_OF_A_BATCH)
        codes = best(rows)
        times_recommended += np.bincount(codes[codes >= 0], minlength=n_items)
        hit[rows, : codes.shape[1]] = hits_of(liked, rows, codes, n_items)
    per_user = user_metrics(hit, n_relevant)
    result = {name: float(per_user[name].mean()) for name in RANKING_METRICS}
    result["coverage"] = float(np.count_nonzero(times_recommended) / n_items)
    result["novelty"] = novelty(times_recommended, taken.n_takers, taken.n_users)
    result["n_users"] = len(liked.users)
    return result


def hits_of(liked: Liked, rows: slice, codes: np.ndarray, n_items: int) -> np.ndarray:
    """Return whether each item of the lists `codes` of the users of some rows is a liked one."""
    start = liked.start[rows.start : rows.start + len(codes) + 1]
    items = liked.items[start[0] : start[-1]]
    row_of = np.repeat(np.arange(len(codes)), np.diff(start))
    wanted = row_of * n_items + items
    listed = np.arange(len(codes))[:, None] * n_items + codes
    return np.isin(listed, wanted[items >= 0]) & (codes >= 0)
