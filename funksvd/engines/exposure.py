"""The exposure engine (`solver="ials"`): which items a user takes, whatever the rating.

It factors the pairs of user and item by weighted least squares over all pairs, in turns of the two
sides (Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", 2008; the
form of the objective and the scale of the penalty are those of Rendle, Krichene, Zhang and Koren,
"Revisiting the performance of iALS on item recommendation benchmarks", 2021). `_exposure.pyx`
states the objective and solves the rows.

An epoch solves all items given the users, then all users given the items. So each user's row is
the solution of the user's pairs, and that of a new user (`new_rows`) is of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from funksvd.engines.contract import Engine
from funksvd.engines.crew import Crew, RowPart, equal_parts, parts_by_load, threads_for
from funksvd.engines.sides import (
    Columns,
    SideRatings,
    columns_of,
    sort_ties,
    sorted_by_item,
    sorted_columns,
)
from funksvd.hyper import Hyper
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights, predict

USERS, ITEMS = 0, 1

# Standard deviation of a random first factor times the square root of the number of factors, so
# that the first products are small whatever that number is (Rendle et al. 2021).
START_NORM = 0.1
# Rows of a part, at least, in the sum of their products.
ROWS_OF_A_SUM = 1 << 12
# The rule for the numbers of the objective, chosen on a tenth of the training pairs of ml-100k and
# goodbooks (NDCG@10 of ratings of at least 4): the weights of all pairs of a user and an item are
# together this many times those of the given pairs, but a pair has at most the weight of a given
# one. NDCG is flat around it, with 64 factors 0.231 to 0.236 on ml-100k from 4 to 8 times, with
# their best penalties, and 0.114 to 0.117 on goodbooks from 8 to 13 times, with penalties from
# 0.004 to 0.014. The number of factors counts more: with 128 it is 0.235 and 0.144.
UNSEEN_TO_GIVEN = 8.0
PENALTY = 0.012


class SidePairs(NamedTuple):
    """The pairs of one side, row after row; row r has start[r]:start[r + 1].

    start : (rows + 1,) int64
    others : (n,) int32 codes on the other side
    root_weights : (n,) float32 square roots of the pairs' weights
    """

    start: np.ndarray
    others: np.ndarray
    root_weights: np.ndarray


class Settings(NamedTuple):
    """The numbers of the objective; `Weights.exposure` keeps them in this order.

    unseen_weight : weight of every pair of a user and an item, given or not
    penalty : factor of the penalties, see `penalties_of`
    """

    unseen_weight: float
    penalty: float


class HeldOutPairs(NamedTuple):
    """Held-out pairs in an order that is a function of their set; codes of unknown ids are -1."""

    users: np.ndarray
    items: np.ndarray
    weights: np.ndarray


def settings_of(hyper: Hyper, ratings: Ratings) -> Settings:
    """Return the numbers of the objective: those of the hyper-parameters, else by the rule.

    All weights of the objective grow with the sample weights, so that their scale changes nothing.
    """
    unseen_weight = hyper.unseen_weight
    if unseen_weight is None:
        n_pairs = len(ratings)
        given = float(n_pairs if ratings.weights is None else ratings.weights.sum())
        share = UNSEEN_TO_GIVEN * n_pairs / (ratings.n_users * ratings.n_items)
        unseen_weight = given / n_pairs * min(1.0, share)
    penalty = PENALTY if hyper.exposure_l2 is None else hyper.exposure_l2
    return Settings(unseen_weight, penalty)


def pairs_of_sides(ratings: Ratings, n_jobs: int) -> list[SidePairs]:
    """Return the pairs of [users, items], in an order that is a function of their set alone."""
    given = columns_of(ratings, timed=False)
    roots = np.ones(len(given.users), np.float32)
    if given.sample_weights is not None:
        roots = np.sqrt(given.sample_weights).astype(np.float32)
    shape = (ratings.n_users, ratings.n_items)
    rows = sorted_columns(Columns(given.users, given.items, roots, None, None), shape, n_jobs)
    sort_ties(rows)
    own = SideRatings(rows.start, rows.others, rows.values, np.empty(0, np.float32))
    other = sorted_by_item(own, ratings.n_items, n_jobs, rows.lent)
    return [SidePairs(side.start, side.others, side.values) for side in (own, other)]


def held_out_pairs(ratings: Ratings, held_out: Ratings) -> HeldOutPairs:
    """Return the held-out pairs, in the codes of the training pairs."""
    users, items = held_out.codes_in(ratings.tables)
    weights = np.ones(len(users))
    if held_out.weights is not None:
        weights = np.asarray(held_out.weights, np.float64)
    order = np.lexsort((weights, items, users))
    return HeldOutPairs(users[order], items[order], weights[order])


def weights_of_rows(pairs: SidePairs) -> np.ndarray:
    """Return (rows,) float64: the sum of the weights of each row's pairs."""
    sums = np.zeros(len(pairs.others) + 1)
    np.cumsum(np.square(pairs.root_weights.astype(np.float64)), out=sums[1:])
    return np.diff(sums[pairs.start])


def penalties_of(pairs: SidePairs, n_others: int, settings: Settings) -> np.ndarray:
    """Return (rows,) float32: the penalty of each row.

    It is in proportion to the weight of all pairs of the row, given or not, so that one factor
    serves sets of all sizes (Rendle et al. 2021, section 4, with exponent 1).
    """
    weights = weights_of_rows(pairs) + settings.unseen_weight * n_others
    return (settings.penalty * weights).astype(np.float32)


def padded(factors: np.ndarray) -> np.ndarray:
    """Return factors as the kernels read them: a width that is a multiple of 8, and aligned.

    They are the given ones if these are so already.
    """
    rows, k = factors.shape
    is_aligned = factors.ctypes.data % 64 == 0 and factors.flags.c_contiguous
    if k % 8 == 0 and is_aligned and factors.dtype == np.float32:
        return factors
    out: np.ndarray = aligned(rows, -(-k // 8) * 8, np.float32)
    out[:, :k] = factors
    out[:, k:] = 0
    return out


def common_matrix(factors: np.ndarray, unseen_weight: float, crew: Crew) -> np.ndarray:
    """Return (width, width) float32: the share of all rows in the equations of the other side.

    It is unseen_weight times the sum of q q'; only the tiles from the diagonal's on are filled.
    The parts of the sum depend on the number of rows alone, and are added in their order.
    """
    kernel = kernels("engines._exposure", np.float32)
    n_rows, width = factors.shape
    total = np.zeros((width, width))

    def sum_part(scratch: np.ndarray, part: RowPart) -> np.ndarray:
        out = np.zeros((width, width))
        kernel.add_products(factors, part.first, part.last, scratch, out)
        return out

    for product in crew.map(sum_part, equal_parts(USERS, n_rows, ROWS_OF_A_SUM)):
        total += product
    return (unseen_weight * total).astype(np.float32)


def solve_side(
    own: np.ndarray,
    other: np.ndarray,
    pairs: SidePairs,
    settings: Settings,
    crew: Crew,
) -> float:
    """Solve all rows of one side given the other, in place.

    Parameters
    ----------
    own, other : (rows, width), (others, width), as of `padded`
    pairs : SidePairs of `own`
    settings : Settings
    crew : Crew
        Its scratch holds `scratch_size(width)` numbers of the kernel.

    Returns
    -------
    float
        The squared error over all pairs of user and item, weighted.
    """
    kernel = kernels("engines._exposure", np.float32)
    common = common_matrix(other, settings.unseen_weight, crew)
    penalty = penalties_of(pairs, len(other), settings)

    def solve_part(scratch: np.ndarray, part: RowPart) -> float:
        error: float = kernel.solve(
            own,
            other,
            pairs,
            common,
            penalty,
            part.first,
            part.last,
            scratch,
        )
        return error

    return sum(crew.map(solve_part, parts_by_load(USERS, pairs.start)))


def crew_of(n_pairs: int, width: int, n_jobs: int) -> Crew:
    """Return the threads for so many pairs, with scratch for rows of `width` factors."""
    kernel = kernels("engines._exposure", np.float32)
    return Crew(threads_for(n_pairs, n_jobs), kernel.scratch_size(width))


def new_rows(
    other: np.ndarray,
    pairs: SidePairs,
    settings: Settings,
    n_jobs: int = 1,
) -> np.ndarray:
    """Return (rows, k) float32: the solutions of new rows of one side, given the other side.

    Parameters
    ----------
    other : (others, k) factors of the other side
    pairs : SidePairs of the new rows
    settings : Settings
    n_jobs : int
    """
    wide = padded(other)
    n_rows = len(pairs.start) - 1
    own: np.ndarray = aligned(n_rows, wide.shape[1], np.float32)
    crew = crew_of(len(pairs.others), wide.shape[1], n_jobs)
    solve_side(own, wide, pairs, settings, crew)
    return np.ascontiguousarray(own[:, : other.shape[1]])


class ExposureEngine(Engine):
    """Weighted least squares over all pairs, as an engine of the contract.

    The values of the ratings do not count: every pair has the target 1, and its sample weight
    counts beside the weight of the pairs that are not given.
    """

    makes_steps = False
    learns_ratings = False

    def __init__(
        self,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None:
        self.n_factors = hyper.n_factors
        self.settings = settings_of(hyper, ratings)
        self.n_jobs = threads_for(len(ratings), n_jobs)
        self.pairs = pairs_of_sides(ratings, self.n_jobs)
        self.total_weight = float(weights_of_rows(self.pairs[USERS]).sum())
        width = max(8, -(-self.n_factors // 8) * 8)
        self.crew = crew_of(len(ratings), width, n_jobs)
        self.factors = [self._start(number, width, seed) for number in (USERS, ITEMS)]
        self.held_out = None if held_out is None else held_out_pairs(ratings, held_out)

    def _start(self, number: int, width: int, seed: int) -> np.ndarray:
        """Return the random first factors of a side; they are 0 in a row without pairs."""
        counts = np.diff(self.pairs[number].start)
        rng = np.random.default_rng([seed % 2**64, 3, number])
        factors: np.ndarray = aligned(len(counts), width, np.float32)
        start: Any = rng.standard_normal((len(counts), self.n_factors), dtype=np.float32)
        factors[:] = 0
        factors[:, : self.n_factors] = start * np.float32(
            START_NORM / max(1, self.n_factors) ** 0.5
        )
        factors[counts == 0] = 0
        return factors

    def epoch(self, epoch: int, learning_rate: float) -> float:
        """Solve all items, then all users.

        Returns
        -------
        float
            The squared error over all pairs of user and item, weighted, for each given pair's
            weight: 1 is that of a model that predicts 0.
        """
        for number in (ITEMS, USERS):
            own = self.factors[number]
            other = self.factors[1 - number]
            error = solve_side(own, other, self.pairs[number], self.settings, self.crew)
        return error / self.total_weight

    def validate(self) -> float:
        """Return the mean of (1 - prediction)^2 over the held-out pairs."""
        held_out = self.held_out
        if held_out is None:
            raise ValueError("there are no held-out ratings to validate on")
        predicted = predict(self.weights(), held_out.users, held_out.items, self.n_jobs)
        errors = 1 - predicted.astype(np.float64)
        return float(np.average(errors**2, weights=held_out.weights))

    def weights(self) -> Weights:
        """Return the factors as a model without a mean and biases; a copy."""
        copies = []
        for own in self.factors:
            copy: np.ndarray = aligned(len(own), self.n_factors, np.float32)
            copy[:] = own[:, : self.n_factors]
            copies.append(copy)
        users, items = copies
        return Weights(
            global_mean=0.0,
            user_biases=np.zeros(len(users), np.float32),
            item_biases=np.zeros(len(items), np.float32),
            user_factors=users,
            item_factors=items,
            exposure=np.array(self.settings),
        )

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        for own, given in zip(
            self.factors, (weights.user_factors, weights.item_factors), strict=True
        ):
            own[:, : self.n_factors] = given

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of the factors, by name."""
        return {f"factors_{number}": own.copy() for number, own in enumerate(self.factors)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        for number, own in enumerate(self.factors):
            own[:] = state[f"factors_{number}"]
