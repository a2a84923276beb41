"""The Bayesian engine of a model without factors: block Gibbs sampling of the biases.

The model of standardised ratings y = (r - mean) / std is that of `chain.py` without factors and
without noise weights::

    y_ui ~ N(b_u + b_i, 1 / (alpha s_ui))
    b_u ~ N(m, 1 / l)      m ~ N(0, 1 / l)      l, alpha ~ Gamma(1/2, rate 1/2)

where s is the sample weight; the same holds for items. An epoch is a sweep: it draws the biases of
items and then of users, each side after its hyper-parameters, and then alpha. What is kept is the
mean of the biases' conditional means (Rao-Blackwell), and the variances of the draws.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from funksvd.engines.chain import ITEMS, PRIOR, START_BIAS_PRECISION, USERS
from funksvd.engines.contract import Engine
from funksvd.engines.gibbs import burn_in, held_out_of
from funksvd.engines.sides import SideRatings, standardised
from funksvd.hyper import Hyper
from funksvd.posterior import BIAS_VARIANCE, INVERSE_WEIGHT, KURTOSIS, NOISE_VARIANCE, SCALE
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights, predict


@dataclass
class BiasSide:
    """One side of the chain and the sums over its kept samples; changed in place.

    ratings : SideRatings
    rated : rows with ratings
    total_weights : (rows,) sums of the sample weights of each row
    biases, means : (rows,) the draw of this sweep, and its mean given the other side
    prior : (2,) mean and precision of the biases
    sums : (rows, 3) sums over the kept samples of `means`, of the draws and of their squares
    prior_variance : (1,) sum of 1 / precision over the kept samples
    """

    ratings: SideRatings
    rated: np.ndarray
    total_weights: np.ndarray
    biases: np.ndarray
    means: np.ndarray
    prior: np.ndarray
    sums: np.ndarray
    prior_variance: np.ndarray


def bias_side(ratings: SideRatings) -> BiasSide:
    """Return one side before the first sweep."""
    n_rows = len(ratings.start) - 1
    rated = np.flatnonzero(np.diff(ratings.start))
    side = BiasSide(
        ratings=ratings,
        rated=rated,
        total_weights=np.zeros(n_rows),
        biases=np.zeros(n_rows),
        means=np.zeros(n_rows),
        prior=np.array([0.0, START_BIAS_PRECISION]),
        sums=np.zeros((n_rows, 3)),
        prior_variance=np.zeros(1),
    )
    side.total_weights = sums_of_rows(side, np.ones(len(ratings.values)))
    return side


def sums_of_rows(side: BiasSide, values: np.ndarray) -> np.ndarray:
    """Return (rows,) the sums of values of each row's ratings, times their sample weights."""
    root_weights = side.ratings.root_weights
    if len(root_weights):
        values = values * root_weights.astype(np.float64) ** 2
    sums = np.zeros(len(side.ratings.start) - 1)
    sums[side.rated] = np.add.reduceat(values, side.ratings.start[side.rated])
    return sums


class BiasSampler(Engine):
    """Block Gibbs sampling of biases, as an engine of the contract.

    `load` sets the weights that are returned until the next sweep.
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
        given = standardised(ratings, n_jobs)
        self.mean = given.mean
        self.std = given.std
        self.total_weight = given.total_weight
        self.n_ratings = given.n_ratings
        self.sides = (bias_side(given.users), bias_side(given.items))
        self.seed = seed % 2**64
        self.n_jobs = n_jobs
        self.burn_in = burn_in(hyper.n_epochs)
        self.held_out = None if held_out is None else held_out_of(ratings, held_out)
        # Sweeps made, samples kept, alpha, and sums over these of the constant term, of 1 / alpha
        # and of the residuals' kurtosis.
        self.numbers = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
        self.given: Weights | None = None

    def epoch(self, epoch: int, learning_rate: float) -> float:
        """Make one sweep; return the mean squared error of its draw on the training ratings."""
        self.given = None
        self.numbers[0] += 1
        for number in (ITEMS, USERS):
            self._draw_side(number)
        squares, kurtosis = self._draw_noise()
        if self.numbers[0] > self.burn_in:
            self._keep(kurtosis)
        return squares / self.total_weight * self.std**2

    def _rng(self, part: int) -> np.random.Generator:
        """Return the generator of one part of this sweep."""
        return np.random.default_rng([self.seed, 2, int(self.numbers[0]), part])

    def _draw_side(self, number: int) -> None:
        """Draw the hyper-parameters of one side and then its biases."""
        side = self.sides[number]
        other = self.sides[1 - number]
        rng = self._rng(number)
        n_rows = len(side.biases)
        shape, rate = PRIOR
        mean = side.biases.sum() / (n_rows + 1)
        squares = np.sum((side.biases - mean) ** 2) + mean**2
        precision = rng.gamma(shape + n_rows / 2) / (rate + squares / 2)
        mean += rng.standard_normal() / np.sqrt((n_rows + 1) * precision)
        side.prior[:] = mean, precision
        alpha = self.numbers[2]
        residuals = side.ratings.values - other.biases[side.ratings.others]
        total = alpha * side.total_weights + precision
        side.means[:] = (alpha * sums_of_rows(side, residuals) + precision * mean) / total
        side.biases[:] = side.means + rng.standard_normal(n_rows) / np.sqrt(total)

    def _draw_noise(self) -> tuple[float, float]:
        """Draw alpha; return the weighted sum of squared residuals, and the residuals' kurtosis."""
        users, items = self.sides
        counts = np.diff(users.ratings.start)
        fitted = np.repeat(users.biases, counts) + items.biases[users.ratings.others]
        squares = (users.ratings.values - fitted) ** 2
        total = float(sums_of_rows(users, squares).sum())
        shape, rate = PRIOR
        drawn = self._rng(2).gamma(shape + self.n_ratings / 2)
        self.numbers[2] = drawn / (rate + total / 2)
        fourth = float(sums_of_rows(users, squares**2).sum())
        return total, fourth * self.total_weight / max(total, 1e-30) ** 2

    def _keep(self, kurtosis: float) -> None:
        """Add this sweep to the kept samples; biases are centred on the means of their priors."""
        constant = 0.0
        for side in self.sides:
            centre, precision = side.prior
            constant += centre
            drawn = side.biases - centre
            side.sums += np.column_stack([side.means - centre, drawn, drawn**2])
            side.prior_variance += 1 / precision
        self.numbers[1] += 1
        self.numbers[3:] += constant, 1 / self.numbers[2], kurtosis

    def _biases(self) -> tuple[float, list[np.ndarray]]:
        """Return the constant and the biases of the kept samples' mean, or of this sweep's draw."""
        n = self.numbers[1]
        if not n:
            centres = [side.prior[0] for side in self.sides]
            drawn = [side.biases - centre for side, centre in zip(self.sides, centres, strict=True)]
            return float(sum(centres)), drawn
        return float(self.numbers[3] / n), [side.sums[:, 0] / n for side in self.sides]

    def validate(self) -> float:
        """Return the mean squared error of `weights` on the held-out ratings."""
        held_out = self.held_out
        if held_out is None:
            raise ValueError("there are no held-out ratings to validate on")
        predicted = predict(self.weights(), held_out.users, held_out.items, self.n_jobs)
        error = held_out.values - predicted
        return float(np.average(error**2, weights=held_out.sample_weights))

    def weights(self) -> Weights:
        """Return the mean of the kept samples as one model, with its posterior.

        In the burn-in it is this sweep's draw, without a posterior.
        """
        if self.given is not None:
            return self.given
        constant, biases = self._biases()
        user_biases, item_biases = ((self.std * own).astype(np.float32) for own in biases)
        arrays: dict[str, Any] = {}
        n = self.numbers[1]
        if n:
            noise = np.zeros(3)
            noise[NOISE_VARIANCE] = self.std**2 * self.numbers[4] / n
            noise[SCALE] = 1.0
            noise[KURTOSIS] = self.numbers[5] / n
            users, items = (self._posterior(side) for side in self.sides)
            arrays = {"noise": noise, "user_posterior": users, "item_posterior": items}
        return Weights(
            self.mean + self.std * constant,
            user_biases,
            item_biases,
            np.zeros((len(user_biases), 0), np.float32),
            np.zeros((len(item_biases), 0), np.float32),
            **arrays,
        )

    def _posterior(self, side: BiasSide) -> np.ndarray:
        """Return (rows + 1, 4) the posterior of a side, as `posterior` describes it."""
        n = self.numbers[1]
        _, drawn, squares = side.sums.T / n
        rows = np.zeros((len(drawn) + 1, 4))
        rows[:, INVERSE_WEIGHT] = 1.0
        rows[:-1, BIAS_VARIANCE] = np.maximum(squares - drawn**2, 0)
        rows[-1, BIAS_VARIANCE] = side.prior_variance[0] / n
        rows[:, BIAS_VARIANCE] *= self.std**2
        return rows.astype(np.float32)

    def load(self, weights: Weights) -> None:
        """Set the weights that are returned until the next sweep."""
        self.given = weights

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a sweep changes, by name."""
        arrays = {"numbers": self.numbers}
        for number, side in enumerate(self.sides):
            for name in ("biases", "means", "prior", "sums", "prior_variance"):
                arrays[f"{name}_{number}"] = getattr(side, name)
        return arrays

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that a sweep changes, by name."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        self.given = None
        for name, array in self._arrays().items():
            array[:] = state[name]
