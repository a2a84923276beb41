"""Made-up ratings whose best possible error is known."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

MEAN = 3.6
USER_BIAS_STD = 0.35
ITEM_BIAS_STD = 0.5
PRODUCT_STD = 0.5  # of the dot products of factors
# Sigmas of the log-normal numbers of ratings of a user and of an item: as uneven as in MovieLens.
USER_SIGMA = 1.0
ITEM_SIGMA = 1.3
RATINGS_OF_A_PART = 1 << 16


class Planted(NamedTuple):
    """Ratings made by `make_ratings`.

    Attributes
    ----------
    users, items : ndarray of shape (n_ratings,), int32
        Ids from 0; no pair occurs twice, and not every id needs to occur.
    ratings : ndarray of shape (n_ratings,), float32
        `truth` plus noise, neither rounded nor clipped.
    truth : ndarray of shape (n_ratings,), float32
        The rating that the planted model expects.
    noise : float
        RMSE of `ratings` against `truth`. No model can be expected to score better than this, the
        score of the planted model itself.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    truth: np.ndarray
    noise: float


def make_ratings(
    n_users: int = 6040,
    n_items: int = 3706,
    n_ratings: int = 1_000_209,
    *,
    rank: int = 8,
    noise: float = 0.8,
    random_state: int | np.random.Generator | None = 0,
) -> Planted:
    """Make ratings from a planted model: mean, biases and low-rank factors, plus Gaussian noise.

    The default shape is that of MovieLens 1M; as there, a few users and items have most of the
    ratings. The mean is 3.6. User biases, item biases and the product of the factors have standard
    deviations 0.35, 0.5 and 0.5: a model with nothing but biases cannot get below an RMSE of
    ``sqrt(noise**2 + 0.5**2)``.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        Numbers of ids and of ratings; at most half of all pairs can be rated.
    rank : int
        Number of planted factors.
    noise : float
        Standard deviation of the noise.
    random_state : int, numpy.random.Generator or None
        Seed. The same int gives the same ratings.

    Returns
    -------
    Planted
        The ratings, in random order.
    """
    _check_sizes(n_users, n_items, n_ratings, rank)
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")
    rng = np.random.default_rng(random_state)
    users, items = _draw_pairs(rng, n_users, n_items, n_ratings)
    truth = _draw_truth(rng, users, items, (n_users, n_items, rank))
    ratings = truth + np.float32(noise) * _normals(rng, n_ratings)
    squares = np.square(ratings - truth)
    floor = math.sqrt(np.mean(squares, dtype=np.float64))
    return Planted(users, items, ratings, truth, floor)


def _check_sizes(
    n_users: Any,
    n_items: Any,
    n_ratings: Any,
    rank: Any,
) -> None:
    """Raise ValueError if a size is no int of at least 1, or if half of the pairs are too few."""
    sizes = {
        "n_users": n_users,
        "n_items": n_items,
        "n_ratings": n_ratings,
        "rank": rank,
    }
    for name, value in sizes.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if n_ratings > n_users * n_items / 2:
        raise ValueError(
            f"n_ratings must be at most half of n_users * n_items, {n_users} * {n_items} / 2 = "
            f"{n_users * n_items // 2}, got {n_ratings}"
        )


def _normals(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return float32 standard normals."""
    normals: np.ndarray = rng.standard_normal(shape, dtype=np.float32)
    return normals


def _shares(rng: np.random.Generator, sigma: float, n: int) -> np.ndarray:
    """Return (n,) log-normal shares of the ratings, which add up to 1."""
    shares: np.ndarray = rng.lognormal(sigma=sigma, size=n)
    shares /= shares.sum()
    return shares


def _draw_pairs(
    rng: np.random.Generator,
    n_users: int,
    n_items: int,
    n: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw n distinct pairs in random order, as (users, items), (n,) int32 each."""
    user_shares = _shares(rng, USER_SIGMA, n_users)
    item_shares = _shares(rng, ITEM_SIGMA, n_items)
    all_users = np.arange(n_users)
    all_items = np.arange(n_items, dtype=np.int32)
    pairs = np.zeros(0, np.int64)
    n_draws = n
    while (n_before := pairs.size) < n:
        users = np.repeat(all_users, rng.multinomial(n_draws, user_shares))
        items = np.repeat(all_items, rng.multinomial(n_draws, item_shares))
        rng.shuffle(items)
        pairs = _distinct(pairs, users * n_items + items)
        # As many draws as fill the rest if as many of them are new as in this round, and some more.
        n_new = max(pairs.size - n_before, 1)
        n_missing = n - pairs.size
        n_draws = 1 + int(1.1 * n_missing * n_draws / n_new)
    rng.shuffle(pairs)
    user_codes, item_codes = np.divmod(pairs[:n], n_items)
    return user_codes.astype(np.int32), item_codes.astype(np.int32)


def _distinct(pairs: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return the distinct numbers of two arrays, sorted."""
    both = np.concatenate([pairs, more])
    both.sort()  # numpy's unique hashes, which is slower than this from a few million on
    is_new = np.ones(len(both), bool)
    is_new[1:] = both[1:] != both[:-1]
    return both[is_new]


def _draw_truth(
    rng: np.random.Generator,
    users: np.ndarray,
    items: np.ndarray,
    sizes: tuple[int, int, int],
) -> np.ndarray:
    """Draw a planted model and return its (n,) float32 ratings of pairs.

    `sizes` are the numbers of users, items and factors.
    """
    n_users, n_items, rank = sizes
    user_biases = USER_BIAS_STD * _normals(rng, n_users)
    item_biases = ITEM_BIAS_STD * _normals(rng, n_items)
    # The variance of the dot product is rank * factor_std**4.
    factor_std = (PRODUCT_STD**2 / rank) ** 0.25
    user_factors = factor_std * _normals(rng, n_users, rank)
    item_factors = factor_std * _normals(rng, n_items, rank)
    truth: np.ndarray = MEAN + user_biases[users] + item_biases[items]
    # In parts: all at once would take 2 * rank times the memory.
    for start in range(0, len(users), RATINGS_OF_A_PART):
        part = slice(start, start + RATINGS_OF_A_PART)
        p = user_factors[users[part]]
        q = item_factors[items[part]]
        truth[part] += np.einsum("ij,ij->i", p, q)
    return truth
