"""The Bayesian engine: biased matrix factorisation by block Gibbs sampling, kept as one model.

An epoch is one sweep of the chain (`chain.py` states the model). After a burn-in each sweep adds
one sample to the mean prediction: the users' conditional means with the drawn items (Rao-Blackwell;
on goodbooks 8 samples have RMSE 0.8186 instead of 0.8291). Rows are overrelaxed, so that successive
draws err to opposite sides and the mean of a third to a half of the sweeps is as good.

What is kept of the samples is one ordinary model: the mean of their matrices of predictions as one
matrix of low rank (`low_rank.py`), or the means of their factors, and with either the posterior's
variances (`posterior.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from funksvd.boundary import check_counts
from funksvd.engines.chain import ITEMS, USERS, Chain, scratch_size
from funksvd.engines.contract import Engine
from funksvd.engines.crew import Crew, RowPart, threads_for
from funksvd.engines.low_rank import LowRankMean, most_columns
from funksvd.engines.samples import SampleSums, posterior_of
from funksvd.engines.sides import SideRatings, standardised
from funksvd.hyper import Hyper
from funksvd.machine.memory import HUGE_PAGE, aligned
from funksvd.moods import Bridge
from funksvd.ratings.parts import rows_of
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights, copied, predict

# Most sweeps that are not kept.
BURN_IN = 10
# Pairs on which the spread of the predictions is measured.
SPREAD_PAIRS = 4096


class HeldOut(NamedTuple):
    """Held-out ratings in an order that is a function of their set; codes of unknown ids are -1.

    `times` are None if they are unknown.
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    sample_weights: np.ndarray
    times: np.ndarray | None


def held_out_of(ratings: Ratings, held_out: Ratings) -> HeldOut:
    """Return the held-out ratings, in the codes of the training ratings."""
    users, items = held_out.codes_in(ratings.tables)
    values = np.asarray(held_out.values, np.float64)
    sample_weights = np.ones(len(values))
    if held_out.weights is not None:
        sample_weights = np.asarray(held_out.weights, np.float64)
    columns = [sample_weights, values, items, users]
    if held_out.times is not None:
        columns.insert(0, held_out.times)
    order = np.lexsort(columns)
    return HeldOut(
        users=users[order],
        items=items[order],
        values=values[order],
        sample_weights=sample_weights[order],
        times=rows_of(held_out.times, order),
    )


def burn_in(n_epochs: int) -> int:
    """Return how many sweeps are not kept: 10, and a quarter of a short run."""
    return min(BURN_IN, n_epochs // 4)


def no_samples(users: SideRatings, chain: Chain) -> SampleSums:
    """Return sums over no samples; the pairs are those of random ratings."""
    rng = np.random.default_rng([chain.seed, 1])
    one, other = rng.integers(0, chain.n_ratings, (2, SPREAD_PAIRS))
    if chain.moods is not None:
        chain.moods.watch(one)
    row = np.searchsorted(users.start, one, side="right") - 1
    return SampleSums(
        n_samples=0,
        constant=0.0,
        inverse_alpha=0.0,
        kurtosis=0.0,
        prior=np.zeros((2, 2)),
        factors=[aligned(n, chain.width, np.float32) for n in chain.n_rows],
        moments=[np.zeros((n, 4)) for n in chain.n_rows],
        pairs=(row.astype(np.int32), users.others[other]),
        pair_sums=np.zeros((SPREAD_PAIRS, 2)),
    )


class GibbsEngine(Engine):
    """Block Gibbs sampling, as an engine of the contract.

    `load` sets the weights that are returned until the next sweep; the chain goes on from its own
    state.
    """

    makes_steps = False

    @classmethod
    def plan(cls, hyper: Hyper) -> Hashable:
        """Return the length of the burn-in: the sweeps that are kept depend on it."""
        return burn_in(hyper.n_epochs)

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
        width = -(-self.n_factors // 8) * 8
        given = standardised(ratings, n_jobs, timed=hyper.moods != "none")
        self.mean = given.mean
        self.std = given.std
        starts = (given.users.start, given.items.start)
        self.rated = [np.diff(start) > 0 for start in starts]
        self.n_jobs = threads_for(given.n_ratings, n_jobs)
        cut_size = most_columns(self.n_factors, width) ** 2
        row_size = scratch_size(given, width)
        self.crew = Crew(self.n_jobs, max(row_size, cut_size))
        seed = seed % 2**64
        self.chain = Chain(given, hyper, width, seed, self.crew)
        self.burn_in = burn_in(hyper.n_epochs)
        self.sums = no_samples(given.users, self.chain)
        self.low_rank: LowRankMean | None = None
        if hyper.average == "low_rank":
            self.low_rank = LowRankMean(starts, self.n_factors, width, self.crew)
        self.held_out = None if held_out is None else held_out_of(ratings, held_out)
        n_held_out = 0 if held_out is None else len(held_out)
        self.held_out_sum = np.zeros(n_held_out)  # of the kept samples' predictions
        self.held_out_now = np.zeros(n_held_out, np.float32)  # this sweep's predictions
        self.bridge = self._bridge_of_held_out()
        self.given: Weights | None = None

    def epoch(self, epoch: int, learning_rate: float) -> float:
        """Make one sweep; return the mean squared error of its draw on the training ratings."""
        self.given = None
        if self.chain.moods is not None:
            self.chain.moods.adds = self.chain.moods.keep and self.chain.sweep >= self.burn_in
        error = self.chain.make_sweep()
        self._keep()
        return error * self.std**2

    def _keep(self) -> None:
        """Centre the rows of this sweep; after the burn-in add them to the kept samples."""
        chain = self.chain
        kept = chain.sweep > self.burn_in
        low_rank = self.low_rank if kept else None
        if low_rank is not None:
            low_rank.make_room(self.sums.n_samples)
        nothing = np.zeros((0, 4))

        def keep_part(_: np.ndarray, part: RowPart) -> None:
            number, first, last = part
            side = chain.sides[number]
            other_mean = chain.sides[1 - number].mean
            total = self.sums.factors[number]
            moments = self.sums.moments[number] if kept else nothing
            chain.kernel.keep(
                side,
                other_mean,
                number == USERS,
                first,
                last,
                total,
                moments,
            )
            if low_rank is not None:
                low_rank.write(side.means, part)

        user_passes, item_passes = chain.passes
        self.crew.map(keep_part, user_passes + item_passes)
        model = chain.centred()
        held_out = self.held_out
        if held_out is not None:
            predicted = predict(model, held_out.users, held_out.items, self.n_jobs)
            self.held_out_now[:] = predicted + self._moods_of(held_out)
        if kept:
            self._add_sample(model.global_mean)
        if low_rank is not None:
            low_rank.end_sample(self.sums.n_samples)

    def _bridge_of_held_out(self) -> Bridge | None:
        """Return the bridges to the times of the held-out ratings, if the model will have them."""
        moods = self.chain.moods
        held_out = self.held_out
        if moods is None or not moods.keep or held_out is None or held_out.times is None:
            return None
        return moods.bridge_to(held_out.users, held_out.times)

    def _moods_of(self, held_out: HeldOut) -> np.ndarray:
        """Return (n,) this sweep's moods at the times of held-out ratings.

        At an unknown time it is the mean mood of the user, as in the weights.
        """
        moods = self.chain.moods
        if moods is None:
            return np.zeros(len(held_out.users))
        if self.bridge is not None:
            return moods.bridged(self.bridge)
        levels = np.asarray(moods.moods.level, np.float64)
        return np.where(held_out.users >= 0, levels[held_out.users], 0)

    def _add_sample(self, constant: float) -> None:
        """Add to the sums all of this sweep but its rows, which `_keep` has added.

        `constant` is the constant term of its predictions.
        """
        sums = self.sums
        chain = self.chain
        sums.n_samples += 1
        sums.constant += constant
        sums.inverse_alpha += 1 / chain.alpha
        sums.kurtosis += chain.kurtosis
        self.held_out_sum += self.held_out_now
        drawn = np.zeros_like(sums.pair_sums)
        chain.kernel.pair_draws(*chain.sides, *sums.pairs, drawn)
        sums.pair_sums += drawn
        if chain.moods is not None:
            chain.moods.add_sample(drawn[:, 0])
        for number in (USERS, ITEMS):
            sums.prior[number] += chain.prior_variances(number)
        for features, other in zip(chain.features.rows, reversed(chain.sides), strict=False):
            features.add_sample(other.mean)

    def validate(self) -> float:
        """Return the mean squared error of the samples' mean prediction on the held-out ratings.

        In the burn-in it is that of this sweep's prediction.
        """
        held_out = self.held_out
        if held_out is None:
            raise ValueError("there are no held-out ratings to validate on")
        n = self.sums.n_samples
        predicted = self.held_out_sum / n if n else self.held_out_now
        ratings = self.mean + self.std * predicted
        error = held_out.values - ratings
        return float(np.average(error**2, weights=held_out.sample_weights))

    def weights(self) -> Weights:
        """Return the mean of the kept samples as one model, with its posterior.

        In the burn-in it is this sweep's model, without a posterior.
        """
        if self.given is not None:
            return self.given
        k = self.n_factors
        sums = self.sums
        n = sums.n_samples
        if not n:
            now = self.chain.centred()
            biases = [now.user_biases, now.item_biases]
            padded = [now.user_factors, now.item_factors]
            factors = [own[:, :k] for own in padded]
            return self._in_ratings(now.global_mean, biases, factors)
        biases = [moments[:, 0] / n for moments in sums.moments]
        if self.low_rank is not None:
            factors = self.low_rank.factors(n)
        else:
            factors = [total[:, :k] / n for total in sums.factors]
        model = self._in_ratings(sums.constant / n, biases, factors)
        means = [total[:, :k] / n for total in sums.factors]
        model = replace(model, **self.chain.features.weights(means, factors, n, self.std))
        noise, users, items = posterior_of(sums, self.rated, k, self.std)
        model = replace(model, noise=noise, user_posterior=users, item_posterior=items)
        if self.chain.moods is None:
            return model
        return self.chain.moods.added_to(model, n, self.std, sums.pair_sums)

    def _in_ratings(
        self,
        constant: float,
        biases: list[np.ndarray],
        factors: list[np.ndarray],
    ) -> Weights:
        """Return a copy of a model of standardised units in those of the ratings."""
        root = np.sqrt(self.std)
        copies = []
        for own in factors:
            n_rows, columns = own.shape
            copy = aligned(n_rows, columns, np.float32)
            copy[:] = root * own
            copies.append(copy)
        std = self.std
        user_biases, item_biases = ((std * own).astype(np.float32) for own in biases)
        mean = self.mean + std * constant
        return Weights(mean, user_biases, item_biases, *copies)

    def load(self, weights: Weights) -> None:
        """Set the weights that are returned until the next sweep."""
        self.given = copied(weights)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a sweep changes, but those of the low-rank mean, by name."""
        out = self.chain.arrays()
        out["pair_sums"] = self.sums.pair_sums
        out["prior"] = self.sums.prior
        for number in (USERS, ITEMS):
            out[f"totals_{number}"] = self.sums.factors[number]
            out[f"sums_{number}"] = self.sums.moments[number]
        if self.held_out is not None:
            out["held_sum"] = self.held_out_sum
            out["held_now"] = self.held_out_now
        return out

    def _numbers(self) -> dict[str, np.ndarray]:
        """Return the numbers that a sweep changes, by name."""
        numbers = self.chain.numbers() | {
            "kept": self.sums.n_samples,
            "constant": self.sums.constant,
            "inverse_alpha": self.sums.inverse_alpha,
            "kurtosis": self.sums.kurtosis,
        }
        return {name: np.array(value) for name, value in numbers.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that a sweep changes, by name.

        The columns of the low-rank mean need no copy, see `LowRankMean.state`.
        """
        out: dict[str, np.ndarray] = {}
        large = []
        for name, array in self._arrays().items():
            if array.nbytes >= HUGE_PAGE:  # worth a thread
                target = aligned(array.size, 1, array.dtype)
                out[name] = target.reshape(array.shape)
                large.append((out[name], array))
            else:
                out[name] = array.copy()

        def copy(_: np.ndarray, pair: tuple[np.ndarray, np.ndarray]) -> None:
            target, source = pair
            target[:] = source

        self.crew.map(copy, large)
        if self.low_rank is not None:
            out |= self.low_rank.state()
        return out | self._numbers()

    def check_state(self, state: Mapping[str, np.ndarray], n_epochs: int) -> None:
        """Raise ValueError if the counts in a snapshot from a file are not those after `n_epochs`.

        They say where the kernels write.
        """
        kept = max(0, n_epochs - self.burn_in)
        check_counts(state, {"sweep": n_epochs, "kept": kept})
        if self.low_rank is not None:
            terms, waiting = self.low_rank.counts_after(kept)
            check_counts(state, {"terms": terms, "waiting": waiting})

    def make_room(self, state: Mapping[str, np.ndarray]) -> None:
        """Give the low-rank mean arrays of the sizes that it has in a snapshot."""
        if self.low_rank is not None:
            self.low_rank.resize_for(state)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        self.given = None
        for name, array in self._arrays().items():
            array[:] = state[name]
        if self.low_rank is not None:
            self.low_rank.restore(state)
        self.chain.restore_numbers(state)
        sums = self.sums
        sums.n_samples = state["kept"].item()
        sums.constant = state["constant"].item()
        sums.inverse_alpha = state["inverse_alpha"].item()
        sums.kurtosis = state["kurtosis"].item()
