"""The Markov chain of the sampler: its state, and how one sweep changes it.

The model of standardised ratings y = (r - mean) / std is that of Salakhutdinov and Mnih (2008) with
diagonal precisions, and with a noise weight for every user and every item (a scale mixture, as in
robust regression)::

    y_ui ~ N(b_u + b_i + p_u.q_i, 1 / (alpha a_u a_i s_ui))
    p_u ~ N(m, diag(1 / l))      b_u ~ N(m_b, 1 / l_b)       a_u ~ Gamma(nu / 2, rate nu / 2)
    m_f ~ N(0, 1 / l_f)          m_b ~ N(0, 1 / l_b)         l_f, l_b, alpha ~ Gamma(1/2, rate 1/2)

where s is the sample weight; the same holds for items. Where rows have features, m and m_b have an
offset for each row (`_features.pxi`). The noise weights are the largest single gain: 0.003 to 0.019
RMSE, and without them the sampler loses to SGD on goodbooks.

A sweep draws, each given everything else:

1. a shift that moves a part of the factors' means into the other side's biases: no prediction
   changes, but the chain mixes better (0 to 0.002 RMSE);
2. what the features of rows say, if rows have any (`features.py`);
3. for items, then for users: their hyper-parameters m, l, m_b and l_b, then every row
   (`_gibbs.pyx`);
4. if the ratings have times, the users' moods and their variances (`_moods.pyx`), which are terms
   of the mean of y; after this draw the sides' ratings are those less the moods;
5. alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from funksvd.engines.crew import Crew, RowPart, equal_parts, parts_by_load, total_of
from funksvd.engines.features import BothFeatures, sets_of
from funksvd.engines.linear import cholesky_of
from funksvd.engines.moods import UserMoods
from funksvd.engines.sides import SideRatings, Standardised, longest_row
from funksvd.hyper import Hyper
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.posterior import NU
from funksvd.weights import Weights

USERS, ITEMS = 0, 1

# Shape and rate of the gamma priors of the precisions.
PRIOR = (0.5, 0.5)
# The chain starts from small random factors. A start from factors that SGD fitted has too high
# precisions, which mix slowly: goodbooks 0.8173 instead of 0.8113.
START_STD = 0.1
START_PRECISION = 10.0
START_BIAS_PRECISION = 2.0
# Sweeps before noise weights are sampled and over-relaxation starts.
PLAIN_SWEEPS = 4
# Over-relaxation of a row's draw, see `_gibbs.pyx`.
RELAX = -0.9
# Rows of a part, at least, in work that costs the same for every row.
ROWS_OF_A_PASS = 1 << 14

# Number, below the seed, of the moods' random numbers.
MOODS = 16

# The arrays of a `Side` that belong to the state of the chain.
SIDE_STATE = ("factors", "scalars", "means", "mean_biases", "mean", "precision")


class Residuals(NamedTuple):
    """Sums over ratings of squared residuals e^2.

    weighted : of z = a_u a_i s e^2
    plain : of s e^2
    fourth : of z^2
    """

    weighted: float
    plain: float
    fourth: float


def scratch_size(given: Standardised, width: int) -> int:
    """Return how many float32 of scratch a thread needs to draw rows of `width` and moods."""
    longest = longest_row(given)
    size = int(kernels("engines._gibbs", np.float32).scratch_size(longest, width))
    if given.times is None:
        return size
    return max(size, int(kernels("engines._moods", np.float32).scratch_size(longest)))


class Chain:
    """The state of the chain, and its sweeps.

    Parameters
    ----------
    given : Standardised
    hyper : Hyper
    width : int
        n_factors rounded up to a multiple of 8; rows are padded to it.
    seed : int
        Below 2**64.
    crew : Crew
        Its scratch holds scratch_size(given, width) numbers.

    Attributes
    ----------
    sides : [users, items]
        Each a `Side` of the kernels: rows, hyper-parameters and ratings.
    alpha : float
        Global noise precision.
    sweep : int
        Number of sweeps made.
    kurtosis : float
        That of the last sweep's residuals in units of their noise.
    passes : [parts of users, parts of items]
        For work that costs the same for every row.
    features : BothFeatures
    """

    def __init__(
        self,
        given: Standardised,
        hyper: Hyper,
        width: int,
        seed: int,
        crew: Crew,
    ) -> None:
        self.kernel: Any = kernels("engines._gibbs", np.float32)
        self.n_factors = hyper.n_factors
        self.biased = bool(hyper.biased)
        self.width = width
        self.seed = seed
        self.crew = crew
        self.n_ratings = given.n_ratings
        self.total_weight = given.total_weight
        self.longest = longest_row(given)
        self.sides: list[Any] = []
        self.n_rows: list[int] = []
        self.row_parts: list[list[RowPart]] = []
        self.passes: list[list[RowPart]] = []
        for number, own in enumerate((given.users, given.items)):
            n_rows = len(own.start) - 1
            self.sides.append(self._side(number, own))
            self.n_rows.append(n_rows)
            self.row_parts.append(parts_by_load(number, own.start))
            self.passes.append(equal_parts(number, n_rows, ROWS_OF_A_PASS))
        # The sets of a single row say nothing that its own prior does not.
        with_sets = hyper.sets and min(self.n_rows) > 1
        matrices = sets_of(given) if with_sets else ()
        parts = self.passes[USERS] + self.passes[ITEMS]
        self.features = BothFeatures(self.kernel, self.sides, matrices, parts, crew)
        self.moods: UserMoods | None = None
        if given.times is not None:
            users, items = self.sides
            self.moods = UserMoods(given, users, items, crew, hyper.moods == "keep")
        self.alpha = 1.0
        self.sweep = 0
        self.kurtosis = 0.0

    def _side(self, number: int, ratings: SideRatings) -> Any:
        """Return the kernels' `Side` at the start of the chain."""
        side = self.kernel.Side()
        n_rows = len(ratings.start) - 1
        side.factors = self._start_factors(number, n_rows)
        side.means = aligned(n_rows, self.width, np.float32)
        side.mean_biases = np.zeros(n_rows, np.float32)
        scalars = np.zeros((n_rows, 2), np.float32)
        scalars[:, 1] = 1
        side.scalars = scalars
        side.start = ratings.start
        side.index = ratings.others
        side.value = ratings.values
        side.root_weight = ratings.root_weights
        side.residual = np.empty(0, np.float32)
        side.squared_scale = np.empty(0, np.float32)
        precision = np.ones(self.width, np.float32)
        precision[: self.n_factors] = START_PRECISION
        side.precision = precision
        side.mean = np.zeros(self.width, np.float32)
        side.bias_mean = 0.0
        side.bias_precision = START_BIAS_PRECISION
        side.offsets = np.empty((0, 0), np.float32)
        side.bias_offsets = np.empty(0, np.float32)
        side.used = self.n_factors
        side.biased = self.biased
        return side

    def _start_factors(self, number: int, n_rows: int) -> np.ndarray:
        factors: np.ndarray = aligned(n_rows, self.width, np.float32)
        scratch = np.empty(self.width + 64, np.float32)
        key = self.key(0, number)
        self.kernel.normal_rows(key, 0, scratch, factors)
        factors *= np.float32(START_STD)
        factors[:, self.n_factors :] = 0
        return factors

    def key(self, *numbers: int) -> int:
        """Return the key of random numbers that the seed and these numbers name."""
        return int(self.kernel.stream(self.seed, numbers))

    def make_sweep(self) -> float:
        """Make one sweep; return the mean squared error of its draw, in standardised units."""
        rng = np.random.default_rng([self.seed, 2, self.sweep])
        if self.sweep and self.biased:
            self._shift(USERS, rng)
            self._shift(ITEMS, rng)
        if self.sweep:
            self.features.draw(partial(self.key, 2, self.sweep), rng, PRIOR)
        for number in (ITEMS, USERS):
            self._draw_hyper(number, rng)
            residuals = self._draw_rows(number)
        if self.moods is not None:
            residuals = self._draw_moods(self.moods, rng)
        weighted, plain, fourth = residuals
        shape, rate = PRIOR
        n = self.n_ratings
        drawn = rng.gamma(shape + n / 2)
        self.alpha = drawn / (rate + weighted / 2)
        self.kurtosis = n * fourth / weighted**2 if weighted else 3.0
        self.sweep += 1
        return float(plain) / self.total_weight

    def _shift(self, number: int, rng: np.random.Generator) -> None:
        """Subtract delta from a side's factors, and add q.delta to the other side's biases.

        No prediction changes, and factor means and biases, which hold one another fast, move far.
        """
        own = self.sides[number]
        other = self.sides[1 - number]
        delta = self._draw_shift(number, rng)
        mean = np.asarray(own.mean)
        mean -= delta

        def shift_part(_: np.ndarray, part: RowPart) -> None:
            side, first, last = part
            if side == number:
                self.kernel.move(own, delta, first, last)
            else:
                self.kernel.tilt(other, delta, first, last)

        parts = self.passes[number] + self.passes[1 - number]
        self.crew.map(shift_part, parts)

    def _draw_shift(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Return delta (width,) float32 of a shift, drawn from its conditional.

        It is N(A^-1 c, A^-1) with A = diag(l) + l_b sum q q' and c = l m - l_b sum (b - m_b) q,
        where m and l are the side's, and q, b, m_b and l_b the other side's.
        """
        own = self.sides[number]
        other = self.sides[1 - number]
        width = self.width
        k = self.n_factors

        def sums_of_part(scratch: np.ndarray, part: RowPart) -> np.ndarray:
            _, first, last = part
            out = np.zeros((width + 1, width))
            self.kernel.shift_sums(other, first, last, scratch, out)
            return out

        sums = total_of(self.crew.map(sums_of_part, self.passes[1 - number]))
        upper = np.triu(sums[:width])
        gram = upper + np.triu(upper, 1).T
        bias_precision = other.bias_precision
        precision = np.asarray(own.precision, np.float64)
        a = bias_precision * gram + np.diag(precision)
        c = precision * own.mean - bias_precision * sums[width]
        z = np.zeros(width)
        z[:k] = rng.standard_normal(k)
        lower = cholesky_of(a)
        solved = np.linalg.solve(lower, c)
        drawn = np.linalg.solve(lower.T, solved + z)
        return drawn.astype(np.float32)

    def _draw_hyper(self, number: int, rng: np.random.Generator) -> None:
        """Draw m and l of a side's factors, m_b and l_b of its biases, given the rows.

        The precisions stay in the first sweep, until the rows have left the start.
        """
        side = self.sides[number]
        n = self.n_rows[number]
        k = self.n_factors
        width = self.width

        def moments_of_part(_: np.ndarray, part: RowPart) -> np.ndarray:
            out = np.zeros((2, width + 1))
            self.kernel.moments(side, part.first, part.last, out)
            return out

        moments = total_of(self.crew.map(moments_of_part, self.passes[number]))
        used = [*range(k), width]
        sums, squares = moments[:, used]
        mean = np.asarray(side.mean)
        precision = np.asarray(side.precision)
        old = np.append(mean[:k], side.bias_mean)
        old_precision = np.append(precision[:k], side.bias_precision)
        z = rng.standard_normal(k + 1)
        conditional_mean = (sums + n * old) / (n + 1)
        new = conditional_mean + z / np.sqrt(old_precision * (n + 1))
        # The squares are about the old mean; these are about the new one.
        step = new - old
        squares = squares - 2 * step * sums + n * step**2
        shape, rate = PRIOR
        drawn = rng.gamma(shape + (n + 1) / 2, size=k + 1)
        drawn /= rate + (squares + new**2) / 2
        mean[:k] = new[:k]
        if self.biased:
            side.bias_mean = float(new[k])
        if self.sweep:
            precision[:k] = drawn[:k]
            if self.biased:
                side.bias_precision = float(drawn[k])

    def _draw_rows(self, number: int) -> Residuals:
        """Draw every row of a side given the other; return the sums of the residuals."""
        own = self.sides[number]
        other = self.sides[1 - number]
        plain = self.sweep < PLAIN_SWEEPS
        sweep = self.kernel.Sweep(
            key=self.key(1, self.sweep, number),
            alpha=self.alpha,
            nu=NU,
            draw_noise=not plain,
            relax=0.0 if plain else RELAX,
            longest=self.longest,
        )

        def draw_part(scratch: np.ndarray, part: RowPart) -> np.ndarray:
            _, first, last = part
            sums = self.kernel.rows(
                own,
                other,
                sweep,
                first,
                last,
                scratch,
            )
            return np.array(sums)

        sums = total_of(self.crew.map(draw_part, self.row_parts[number]))
        return Residuals(*sums)

    def _draw_moods(self, moods: UserMoods, rng: np.random.Generator) -> Residuals:
        """Draw the moods' processes in turn, one a sweep, which keeps the cost of a sweep low."""
        process = self.sweep % len(moods.variances)
        key = self.key(MOODS, self.sweep)
        return Residuals(*moods.draw(process, key, self.alpha, rng))

    def prior_variances(self, number: int) -> tuple[float, float]:
        """Return the prior variances (of the centred bias, of a factor) of a side's rows."""
        side = self.sides[number]
        other = self.sides[1 - number]
        k = self.n_factors
        precision = np.asarray(side.precision, np.float64)
        variances = 1 / precision[:k]
        bias = 1 / side.bias_precision if self.biased else 0.0
        bias += variances @ np.square(other.mean[:k])
        return bias, variances.mean()

    def centred(self) -> Weights:
        """Return the model of the rows that the kernel `keep` has centred, with the padding."""
        users, items = self.sides
        product = float(np.dot(users.mean, items.mean))
        return Weights(
            users.bias_mean + items.bias_mean + product,
            np.asarray(users.mean_biases),
            np.asarray(items.mean_biases),
            np.asarray(users.means),
            np.asarray(items.means),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a sweep changes, by name; no copy."""
        out = {}
        for number, side in enumerate(self.sides):
            for name in SIDE_STATE:
                out[f"{name}_{number}"] = np.asarray(getattr(side, name))
        if self.moods is not None:
            out |= self.moods.arrays()
        return out | self.features.arrays()

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that a sweep changes, by name."""
        biases = [[side.bias_mean, side.bias_precision] for side in self.sides]
        numbers = {"alpha": self.alpha, "sweep": self.sweep, "biases": biases}
        return numbers | self.features.numbers()

    def restore_numbers(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the numbers of a state."""
        self.alpha = state["alpha"].item()
        self.sweep = state["sweep"].item()
        for side, biases in zip(self.sides, state["biases"], strict=True):
            side.bias_mean, side.bias_precision = biases.tolist()
        if self.moods is not None:
            self.moods.write_values()
        self.features.restore_numbers(state)
