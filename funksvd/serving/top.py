"""The n best items of many users, ranked exactly as if all predictions were sorted.

The work has two steps. The first makes a *shortlist* for each user, which holds the user's n best
items and a few more. It multiplies the factors of users and items in tiles that stay in registers,
and keeps only the scores above the user's *limit*: the n-th best score so far, less a *slack*.
`predict` adds the same terms in another order, and rounding can let it rank two items the other way
round; it cannot if their scores are further apart than the slack. The second step computes the
exact scores of the shortlists by `predict` and ranks by them, equal scores by code. So the answer
has the bits of `predict`, whatever the size of a block, the number of threads or the CPU.

For a few users, packing the items for the tiles would take longer than the product itself, and
`densely` makes the shortlists from all scores at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel
from funksvd.serving.seen import Seen, Unwanted, unwanted_by
from funksvd.weights import Weights, predict

# Largest number of users in one call of the kernel: their factors stay in the L2 cache while the
# items pass by.
USERS_OF_A_BLOCK = 384
# For up to this many users, and in blocks of this size, `densely` takes less time than to pack the
# items.
FEW_USERS = 16
PANELS_OF_A_CALL = 256  # panels that one thread packs at a time


class Block(NamedTuple):
    """Users whose shortlists are made together.

    weights : Weights
    users : (m,) int32 codes, -1 for a user with neither bias nor factors
    n : number of best items that a shortlist must hold
    items : (c,) int32 codes of the items to choose from, ascending
    unwanted : the items that the users must not get
    """

    weights: Weights
    users: np.ndarray
    n: int
    items: np.ndarray
    unwanted: Unwanted


class Shortlists(NamedTuple):
    """Items among which are the n best of each user of a block.

    counts : (m,) int32, length of each user's list
    items : (counts.sum(),) int32 codes, list after list
    """

    counts: np.ndarray
    items: np.ndarray


class Panels(NamedTuple):
    """The items as the kernel reads them.

    A panel is as many items, one after the other in `Block.items`, as the kernel compares at once.

    values : (panels, 1 + k, items of a panel), biases and then factors
    largest_norm : largest Euclidean norm of an item's factors
    """

    values: np.ndarray
    largest_norm: float


class KernelSeen(NamedTuple):
    """The items that row t of the kernel must not get: codes[next[t]:end[t]], ascending.

    The kernel moves `next` on while the items pass by.
    """

    next: np.ndarray
    end: np.ndarray
    codes: np.ndarray


class KernelLists(NamedTuple):
    """The shortlists of the kernel's rows while the items pass by.

    limits : (rows,), scores below are dropped; infinity for a row that pads the last tile
    slack : (rows,), see `rounding`
    scores, codes : (rows, capacity), approximate scores and item codes
    counts : (rows,) int32, lengths; -1 for a list that overflowed, which `densely` makes again
    """

    limits: np.ndarray
    slack: np.ndarray
    scores: np.ndarray
    codes: np.ndarray
    counts: np.ndarray


def top(
    weights: Weights,
    users: np.ndarray,
    n: int,
    seen: Seen | None,
    items: np.ndarray,
    n_jobs: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the n best items of each user, by falling prediction and then by code.

    Parameters
    ----------
    weights : Weights
    users : (m,) int32 codes, -1 for a user with neither bias nor factors
    n : int
    seen : Seen or None
        Pairs to leave out.
    items : (c,) int32 codes of the items to choose from, ascending
    n_jobs : int

    Returns
    -------
    codes : (m, min(n, c)) int32, -1 at the end of a row with fewer items left
    scores : (m, min(n, c)), NaN there; else those of `predict` to the last bit
    """
    dtype = weights.user_factors.dtype
    width = min(n, len(items))
    codes, scores = empty_answer(len(users), width, dtype)
    if not codes.size:
        return codes, scores
    kernel = kernels("serving._top", dtype)
    panels = None
    block_size = FEW_USERS
    if len(users) > FEW_USERS and 4 * n < len(items):
        panels = packed_items(weights, items, kernel, n_jobs)
        users_of_a_tile, _ = kernel.panel()
        share = -(-len(users) // n_jobs)
        block_size = min(USERS_OF_A_BLOCK, max(users_of_a_tile, share))

    def answer_block(first: int) -> None:
        part = slice(first, first + block_size)
        block = Block(
            weights=weights,
            users=users[part],
            n=n,
            items=items,
            unwanted=unwanted_by(users[part], seen),
        )
        lists = densely(block) if panels is None else select(block, panels, kernel)
        user_of_each = np.repeat(block.users, lists.counts)
        exact = predict(weights, user_of_each, lists.items)
        kernel.rank(lists.counts, exact, lists.items, codes[part], scores[part])

    parallel(answer_block, range(0, len(users), block_size), n_jobs)
    return codes, scores


def empty_answer(
    n_users: int,
    width: int,
    dtype: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_users, width) codes of -1 and as many scores of NaN."""
    codes = np.full((n_users, width), -1, np.int32)
    return codes, np.full((n_users, width), np.nan, dtype)


def densely(block: Block) -> Shortlists:
    """Return the shortlists of a block's users from all scores at once."""
    weights = block.weights
    items = block.items
    factors = weights.item_factors
    if len(items) < len(factors):
        factors = factors[items]
    queries = weights.user_factors[block.users]
    queries[block.users < 0] = 0
    scores = queries @ factors.T
    scores += weights.item_biases[items]
    drop_unwanted(scores, items, block.unwanted)
    n = min(block.n, len(items))
    nth_best = np.partition(scores, -n, axis=1)[:, -n]
    norms = np.sqrt(np.einsum("uf,uf->u", queries, queries))
    slack = rounding(weights, block.users, norms, bound_of_norms(factors))
    limits = nth_best - slack
    kept = scores >= limits[:, None]
    kept &= scores > -np.inf
    kept_places = np.flatnonzero(kept)
    rows, places = np.divmod(kept_places, len(items))
    counts = np.bincount(rows, minlength=len(block.users))
    return Shortlists(counts.astype(np.int32), items[places])


def bound_of_norms(factors: np.ndarray) -> float:
    """Return a bound of the Euclidean norms of rows, which takes less time than the norms."""
    largest = max(factors.max(initial=0), -factors.min(initial=0))
    return float(factors.shape[1] ** 0.5 * largest)


def drop_unwanted(
    scores: np.ndarray,
    items: np.ndarray,
    unwanted: Unwanted,
) -> None:
    """Set the scores (users, items) of unwanted pairs to minus infinity."""
    counts = np.diff(unwanted.start)
    rows = np.repeat(np.arange(len(scores)), counts)
    places = np.searchsorted(items, unwanted.codes)
    places = np.minimum(places, len(items) - 1)
    found = items[places] == unwanted.codes
    scores[rows[found], places[found]] = -np.inf


def rounding(
    weights: Weights,
    users: np.ndarray,
    norms: np.ndarray,
    largest_norm: float,
) -> np.ndarray:
    """Return (m,) how much lower an item can score here than one that it beats by `predict`.

    Each sum errs by less than (k + 3) eps / 2 of the sum of its terms' magnitudes, and two sums of
    two items each take part. The factors' part of the magnitudes is at most the product of norms.

    Parameters
    ----------
    weights : Weights
    users : (m,) codes
    norms : (m,) Euclidean norms of the users' factors
    largest_norm : at least the largest norm of an item's factors
    """
    dtype = weights.user_factors.dtype
    k = weights.user_factors.shape[1]
    user_biases = np.abs(weights.user_biases[users])
    user_biases[users < 0] = 0
    magnitudes = norms * largest_norm
    magnitudes += np.abs(weights.item_biases).max()
    magnitudes += user_biases
    magnitudes += abs(weights.global_mean)
    share = (2 * k + 8) * np.finfo(dtype).eps
    slack: np.ndarray = share * magnitudes
    return slack.astype(dtype)


def packed_items(
    weights: Weights,
    items: np.ndarray,
    kernel: Any,
    n_jobs: int,
) -> Panels:
    """Return the biases and factors of items in the kernel's panels."""
    factors = weights.item_factors
    _, width = kernel.panel()
    count = -(-len(items) // width)
    rows = factors.shape[1] + 1
    values = aligned(count, rows * width, factors.dtype)
    values = values.reshape(count, rows, width)
    biases = np.full(count * width, -np.inf, factors.dtype)
    biases[: len(items)] = weights.item_biases[items]
    values[:, 0] = biases.reshape(count, width)

    def pack_panels(first: int) -> float:
        """Pack some panels; return the largest squared norm of an item."""
        last = first + PANELS_OF_A_CALL
        codes = items[first * width : last * width]
        largest: float = kernel.pack(factors, codes, 1, values[first:last])
        return largest

    squares = parallel(pack_panels, range(0, count, PANELS_OF_A_CALL), n_jobs)
    return Panels(values, max(squares) ** 0.5)


def select(
    block: Block,
    panels: Panels,
    kernel: Any,
) -> Shortlists:
    """Return the shortlists of a block's users by the tiled product."""
    queries, norms = packed_users(block, kernel)
    slack = rounding(block.weights, block.users, norms, panels.largest_norm)
    groups, _, users_of_a_tile = queries.shape
    rows = groups * users_of_a_tile
    lists = empty_lists(rows, slack, 2 * block.n + 32)
    seen = kernel_seen(block.unwanted, rows)
    kernel.select(
        queries,
        panels.values,
        block.items,
        block.n,
        seen,
        lists,
    )
    counts = lists.counts[: len(block.users)]
    chosen = [lists.codes[row, :count] for row, count in enumerate(counts)]
    for row in np.flatnonzero(counts < 0).tolist():  # too many items are as good as the n-th
        own = densely(block_of_one(block, row))
        counts[row] = own.counts[0]
        chosen[row] = own.items
    return Shortlists(counts, np.concatenate(chosen))


def packed_users(block: Block, kernel: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the users' factors (groups, k, users of a tile) for the kernel, and (m,) norms."""
    factors = block.weights.user_factors
    users_of_a_tile, _ = kernel.panel()
    groups = -(-len(block.users) // users_of_a_tile)
    k = factors.shape[1]
    queries = np.empty((groups, k, users_of_a_tile), factors.dtype)
    kernel.pack(factors, block.users, 0, queries)
    squares = np.einsum("gfj,gfj->gj", queries, queries).ravel()
    return queries, np.sqrt(squares)[: len(block.users)]


def empty_lists(
    rows: int,
    slack: np.ndarray,
    capacity: int,
) -> KernelLists:
    """Return empty lists for the kernel's rows; those beyond the users get nothing."""
    users = len(slack)
    padding = np.zeros(rows - users, slack.dtype)
    limits = np.full(rows, -np.inf, slack.dtype)
    limits[users:] = np.inf
    return KernelLists(
        limits=limits,
        slack=np.append(slack, padding),
        scores=np.empty((rows, capacity), slack.dtype),
        codes=np.empty((rows, capacity), np.int32),
        counts=np.zeros(rows, np.int32),
    )


def kernel_seen(unwanted: Unwanted, rows: int) -> KernelSeen:
    """Return the unwanted items for the kernel's rows; those beyond the users have none."""
    users = len(unwanted.start) - 1
    padding = np.zeros(rows - users, np.int64)
    return KernelSeen(
        next=np.append(unwanted.start[:-1], padding),
        end=np.append(unwanted.start[1:], padding),
        codes=unwanted.codes,
    )


def block_of_one(block: Block, row: int) -> Block:
    """Return the block of one of a block's users."""
    start = block.unwanted.start[row : row + 2]
    codes = block.unwanted.codes[start[0] : start[1]]
    own = Unwanted(start - start[0], codes)
    return block._replace(users=block.users[row : row + 1], unwanted=own)
