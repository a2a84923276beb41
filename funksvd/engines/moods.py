"""Users' moods in the sampler: their layout, their draws, and what is kept of them.

`_moods.pyx` states the model and draws the moods; `funksvd.moods` predicts with them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from funksvd.engines.crew import Crew, RowPart, parts_by_load
from funksvd.engines.sides import Standardised
from funksvd.machine.kernels import kernels
from funksvd.moods import TIME_CONSTANTS, Bridge, bridge_of, correlations
from funksvd.ratings.sorting import sorted_by
from funksvd.weights import Weights

# Shape and rate of the inverse-gamma prior of a process' variance, in standardised units.
VARIANCE_PRIOR = (0.5, 0.01)
START_VARIANCE = 0.02


class Layout(NamedTuple):
    """Where the ratings stand in the blocks of the kernel, see `_moods.pyx`.

    start : (blocks + 1,) int64 first step of each block
    users : (blocks, lanes) int32 rows, -1 for none
    by_time : (n,) places of the users' ratings, each user's in the order of time
    slots : (n,) int64 places in the blocks, in the order of `by_time`
    """

    start: np.ndarray
    users: np.ndarray
    by_time: np.ndarray
    slots: np.ndarray


def layout_of(start: np.ndarray, times: np.ndarray, lanes: int) -> Layout:
    """Return the layout of users' ratings; user u has start[u]:start[u + 1].

    Equal times keep the order of the ratings, which is a function of their set.
    """
    counts = np.diff(start)
    n_rated = np.count_nonzero(counts)
    ranked = np.argsort(-counts, kind="stable")[:n_rated]  # the most ratings first
    n_blocks = -(-n_rated // lanes)
    users = np.full(n_blocks * lanes, -1, np.int32)
    users[:n_rated] = ranked
    steps = counts[ranked[::lanes]]
    block_start = np.concatenate([[0], np.cumsum(steps)])
    rank_of = np.zeros(len(counts), np.int64)
    rank_of[ranked] = np.arange(n_rated)
    row = np.repeat(np.arange(len(counts)), counts)
    by_time = np.lexsort((times, row))
    rank = rank_of[row]
    step = np.arange(len(row)) - start[row]
    slots = (block_start[rank // lanes] + step) * lanes + rank % lanes
    return Layout(block_start, users.reshape(n_blocks, lanes), by_time, slots)


def item_places(given: Standardised, n_jobs: int) -> np.ndarray:
    """Return (n,) int32: the place among the items' ratings of each of the users' ratings."""
    places = np.arange(given.n_ratings, dtype=np.int32)
    n_items = len(given.items.start) - 1
    _, moved, _ = sorted_by(given.users.others, places, None, n_items, n_jobs)
    out = np.empty(given.n_ratings, np.int32)
    out[moved] = places
    return out


class UserMoods:
    """The moods of all users as a part of the chain.

    Parameters
    ----------
    given : Standardised
        With times.
    users, items : Side
        Of the kernels of `_gibbs.pyx`; their `value` becomes the rating less the moods.
    crew : Crew
        Its scratch holds scratch_size(longest row) numbers.
    keep : bool
        Whether the model gets the mean of every rating's moods.

    Attributes
    ----------
    variances : (processes,) float64, of the processes
    totals, n_means : (processes, steps, lanes) float32, (processes,)
        Sums of the moods' conditional means over the draws of each process in kept samples, and the
        numbers of these; without steps if they are not kept.
    adds : bool
        Whether draws are added to `totals`.
    variance_totals : (processes,) the same of the variances
    level_totals : (users,) the same of the mean of the moods of a user's ratings
    pair_sums : (pairs, 2)
        Sums over the kept samples of predictions with moods, and of their squares.
    """

    def __init__(self, given: Standardised, users: Any, items: Any, crew: Crew, keep: bool) -> None:
        assert given.times is not None  # as the caller has checked
        self.kernel: Any = kernels("engines._moods", np.float32)
        lanes = self.kernel.BLOCK_USERS
        self.crew = crew
        self.times = given.times
        self.user_start = given.users.start
        self.layout = layout_of(given.users.start, given.times, lanes)
        n = given.n_ratings
        users.residual = np.zeros(n, np.float32)
        users.squared_scale = np.zeros(n, np.float32)
        n_steps = int(self.layout.start[-1])
        shape = (n_steps, lanes)
        moods = self.kernel.Moods()
        moods.start = self.layout.start
        moods.user = self.layout.users
        moods.place = self._spread(np.int32, self.layout.by_time, -1).reshape(shape)
        places = item_places(given, crew.n_jobs)
        moods.item_place = self._spread(np.int32, places[self.layout.by_time], -1).reshape(shape)
        by_time = given.users.values[self.layout.by_time]
        moods.value = self._spread(np.float32, by_time, 0).reshape(shape)
        moods.kept = self._correlations(shape)
        moods.mood = np.zeros((len(TIME_CONSTANTS), *shape), np.float32)
        moods.rest = np.zeros(shape, np.float32)
        moods.weight = np.zeros(shape, np.float32)
        moods.level = np.zeros(len(given.users.start) - 1, np.float32)
        moods.residual = users.residual
        moods.squared_scale = users.squared_scale
        moods.root_weight = users.root_weight
        moods.scalars = users.scalars
        moods.user_value = users.value
        moods.item_value = items.value
        self.moods = moods
        self.parts = parts_by_load(0, self.layout.start * lanes)
        self.variances = np.full(len(TIME_CONSTANTS), START_VARIANCE)
        self.keep = keep
        self.totals = np.zeros((len(TIME_CONSTANTS), n_steps if keep else 0, lanes), np.float32)
        self.n_means = np.zeros(len(TIME_CONSTANTS), np.int64)
        self.adds = False
        self.variance_totals = np.zeros(len(TIME_CONSTANTS))
        self.level_totals = np.zeros(len(given.users.start) - 1)
        self.pair_slots = np.empty(0, np.int64)
        self.pair_sums = np.zeros((0, 2))

    def _spread(self, dtype: Any, column: np.ndarray, empty: float) -> np.ndarray:
        """Return a column, in the order of `by_time`, at its places in the blocks."""
        out = np.full(int(self.layout.start[-1]) * self.layout.users.shape[1], empty, dtype)
        out[self.layout.slots] = column
        return out

    def _correlations(self, shape: tuple[int, int]) -> np.ndarray:
        """Return (processes, steps, lanes): of each mood with the one before; 0 for the first."""
        times = self.times[self.layout.by_time]
        gaps = np.full(len(times), np.inf)
        gaps[1:] = times[1:] - times[:-1]
        starts = self.user_start[:-1]
        gaps[starts[np.diff(self.user_start) > 0]] = np.inf
        out = np.zeros((len(TIME_CONSTANTS), *shape), np.float32)
        for process, time_constant in enumerate(TIME_CONSTANTS):
            out[process].ravel()[self.layout.slots] = correlations(gaps, time_constant)
        return out

    def watch(self, places: np.ndarray) -> None:
        """Measure the spread of the moods of the users' ratings at these places."""
        slot_of = np.empty(len(self.layout.slots), np.int64)
        slot_of[self.layout.by_time] = self.layout.slots
        self.pair_slots = slot_of[places]
        self.pair_sums = np.zeros((len(places), 2))

    def draw(self, process: int, key: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
        """Draw one process and its variance; return (3,) sums of the residuals.

        The sums are those that `rows` of `_gibbs.pyx` returns.
        """
        total_mean = self.totals[process]
        if not self.adds:
            total_mean = total_mean[:0]

        def draw_part(scratch: np.ndarray, part: RowPart) -> np.ndarray:
            _, first, last = part
            sums = self.kernel.draw(
                *(self.moods, process, key, alpha, self.variances[process]),
                *(first, last, scratch, total_mean),
            )
            return np.array(sums)

        squares, force, square = np.sum(self.crew.map(draw_part, self.parts), axis=0)
        shape, rate = VARIANCE_PRIOR
        n = len(self.layout.slots)
        drawn = rng.gamma(shape + n / 2)
        variance = (rate + squares / 2) / drawn
        factor = stretching_factor(force, square, variance, rng)
        self.variances[process] = variance * factor**2
        self.n_means[process] += self.adds
        return self._subtract(process, factor, alpha)

    def _subtract(self, process: int, factor: float, alpha: float) -> np.ndarray:
        """Multiply a process by a factor; subtract all from the ratings; return (3,) sums."""

        def subtract_part(scratch: np.ndarray, part: RowPart) -> np.ndarray:
            _, first, last = part
            sums = self.kernel.subtract(
                *(self.moods, process, factor, alpha),
                *(first, last, scratch),
            )
            return np.array(sums)

        sums: np.ndarray = np.sum(self.crew.map(subtract_part, self.parts), axis=0)
        return sums

    def add_sample(self, predictions: np.ndarray) -> None:
        """Add this sweep to the sums of kept samples.

        `predictions` are those of the watched ratings' users and any items, without moods.
        """

        self.level_totals += self.moods.level
        self.variance_totals += self.variances
        now = predictions.copy()
        for mood in np.asarray(self.moods.mood):
            now += mood.ravel()[self.pair_slots]
        self.pair_sums[:, 0] += now
        self.pair_sums[:, 1] += now**2

    def bridge_to(self, users: np.ndarray, times: np.ndarray) -> Bridge:
        """Return the bridges of users at times, whose places are those in the blocks."""
        by_time = self.times[self.layout.by_time]
        bridge = bridge_of(self.user_start, by_time, TIME_CONSTANTS, users, times)
        slots = self.layout.slots
        return bridge._replace(before=slots[bridge.before], after=slots[bridge.after])

    def bridged(self, bridge: Bridge) -> np.ndarray:
        """Return (n,) the moods of this sweep at the times of a bridge."""
        total = np.zeros(len(bridge.before))
        for process, mood in enumerate(np.asarray(self.moods.mood)):
            total += bridge.share_before[process] * mood.ravel()[bridge.before]
            total += bridge.share_after[process] * mood.ravel()[bridge.after]
        return total

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a sweep changes, by name; no copy."""
        return {
            "moods": np.asarray(self.moods.mood),
            "mood_variances": self.variances,
            "mood_totals": self.totals,
            "mood_numbers": self.n_means,
            "mood_variance_totals": self.variance_totals,
            "mood_level_totals": self.level_totals,
            "mood_pair_sums": self.pair_sums,
        }

    def write_values(self) -> None:
        """Subtract the moods from the ratings of both sides, after the arrays were restored."""
        self._subtract(0, 1.0, 1.0)

    def added_to(
        self, weights: Weights, n_samples: int, std: float, pair_sums: np.ndarray
    ) -> Weights:
        """Return weights with the moods of the kept samples, in the units of the ratings.

        Parameters
        ----------
        weights : Weights
        n_samples : int
        std : float
            One standardised unit.
        pair_sums : (pairs, 2)
            Like those of this object, of predictions without moods.
        """
        levels = std / n_samples * self.level_totals
        biases = weights.user_biases + levels.astype(np.float32)
        weights = replace(weights, user_biases=biases, mood_levels=levels.astype(np.float32))
        prior = self.variance_totals / n_samples
        spreads = [spread_of(sums / n_samples) for sums in (self.pair_sums, pair_sums)]
        added = np.mean(spreads[0] - spreads[1])
        left = np.clip(added / np.sum(prior), 0, 1)
        moods = std**2 * np.column_stack([np.zeros(len(prior)), prior, left * prior])
        moods[:, 0] = TIME_CONSTANTS
        if not self.keep:
            return replace(weights, moods=moods)
        means = np.empty((len(self.layout.slots), len(prior)), np.float32)
        for process, total in enumerate(self.totals):
            share = std / max(self.n_means[process], 1)
            means[:, process] = share * total.ravel()[self.layout.slots]
        return replace(
            weights,
            moods=moods,
            mood_start=self.user_start.astype(np.int64),
            mood_times=self.times[self.layout.by_time],
            mood_means=means,
        )


def spread_of(moments: np.ndarray) -> np.ndarray:
    """Return the variances of numbers with these means and mean squares, (n, 2)."""
    means, squares = moments.T
    spread: np.ndarray = squares - means**2
    return spread


def stretching_factor(
    force: float, square: float, variance: float, rng: np.random.Generator
) -> float:
    """Return the factor on a process, drawn given the process in units of its spread.

    Given x / sqrt(s), the ratings say of a factor f that it is normal, and so a normal proposal is
    accepted by the ratio of the priors of s f^2 (Metropolis and Hastings). The chain leaves wrong
    variances within a few sweeps, rather than in hundreds, by which ml-100k gains 0.001 to 0.002.

    Parameters
    ----------
    force, square : h and g of `_moods.pyx`
    variance : s
    rng : Generator
    """
    shape, rate = VARIANCE_PRIOR
    proposed = 1 + force / square + rng.standard_normal() / np.sqrt(square)
    chance = np.log(rng.random())
    if proposed <= 0:
        return 1.0
    change = -(2 * shape + 1) * np.log(proposed)
    change -= rate / variance * (proposed**-2 - 1)
    return float(proposed) if chance < change else 1.0
