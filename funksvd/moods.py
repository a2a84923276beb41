"""Users' moods: what the times of a user's ratings say about a rating at a given time.

The sampler adds to each rating the moods that its user is in, a few stationary Gaussian processes
of time whose correlation falls exponentially (Ornstein-Uhlenbeck processes). `engines/moods.py`
draws them; this module predicts them. `Weights` has of them, in the units of the ratings:

`moods` (processes, 3) float64, by column:

    TIME_CONSTANT       T in seconds; moods a time t apart have the correlation exp(-t / T)
    PRIOR_VARIANCE      variance of the process
    RATED_VARIANCE      variance that is left at the time of a rating

`mood_levels` (users,) float32: the mean mood of each user's ratings, which the user's bias holds,
too, because it is the best guess of the mood at an unknown time

and, unless the model keeps the variances alone, the ratings of user u in the order of time, at
places mood_start[u]:mood_start[u + 1]:

`mood_times` (ratings,) int64 seconds, and `mood_means` (ratings, processes) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from funksvd.ratings.tables import as_times
from funksvd.weights import Weights

TIME_CONSTANT, PRIOR_VARIANCE, RATED_VARIANCE = range(3)

# Time constants in seconds: of ratings entered one after the other, of a session, and of a day.
TIME_CONSTANTS = (2.0, 600.0, 86_400.0)
# Least time between two ratings, in units of the time constant: no two ratings have one mood.
LEAST_GAP = 1e-3


class MoodAt(NamedTuple):
    """Means and variances of the sum of a user's moods at some times: (n,) float64 each.

    The mean is to be added to a prediction: the mood level that its bias holds is subtracted.
    """

    mean: np.ndarray
    variance: np.ndarray


def correlations(gaps: np.ndarray, time_constant: float | np.ndarray) -> np.ndarray:
    """Return the correlations of moods that are `gaps` seconds apart; 0 if these are infinite.

    The arguments are broadcast against one another.
    """
    in_units = np.asarray(gaps, np.float64) / time_constant
    correlation: np.ndarray = np.exp(-np.maximum(in_units, LEAST_GAP))
    return correlation


def prior_variance(weights: Weights) -> float:
    """Return the variance of a user's mood at an unknown time, 0 if the model has no moods."""
    if weights.moods is None:
        return 0.0
    return float(np.sum(weights.moods[:, PRIOR_VARIANCE]))


def mood_at(weights: Weights, users: np.ndarray, times: np.ndarray | None) -> MoodAt | None:
    """Return the moods of users at some times, or None if the model has none.

    Between two ratings the mood is that of the bridge between theirs, and after the last (before
    the first) it decays to 0.

    Parameters
    ----------
    weights : Weights
    users : (n,) codes; -1 is an unknown user
    times : (n,) int64 seconds, or None if they are unknown
    """
    moods = weights.moods
    if moods is None:
        return None
    mean = np.zeros(len(users))
    variance = np.full(len(users), prior_variance(weights))
    if times is None or weights.mood_means is None or not len(weights.mood_means):
        return MoodAt(mean, variance)
    assert weights.mood_levels is not None  # they are there where the means are
    assert weights.mood_start is not None
    assert weights.mood_times is not None
    mean -= np.where(users >= 0, weights.mood_levels[users], 0)
    constants = moods[:, TIME_CONSTANT]
    bridge = bridge_of(weights.mood_start, weights.mood_times, constants, users, times)
    for process, means in enumerate(weights.mood_means.T):
        mean += bridge.share_before[process] * means[bridge.before]
        mean += bridge.share_after[process] * means[bridge.after]
        known = moods[process, PRIOR_VARIANCE] - moods[process, RATED_VARIANCE]
        variance -= known * bridge.explained[process]
    return MoodAt(mean, variance)


class Bridge(NamedTuple):
    """What the ratings of a user before and after a time say about the moods then.

    before, after : (n,) places of these ratings; any place where there is none
    share_before, share_after : (processes, n) weights of their moods in the mean, 0 without one
    explained : (processes, n) share of the variance that goes if both moods are known
    """

    before: np.ndarray
    after: np.ndarray
    share_before: np.ndarray
    share_after: np.ndarray
    explained: np.ndarray


def bridge_of(
    start: np.ndarray,
    sorted_times: np.ndarray,
    time_constants: Sequence[float] | np.ndarray,
    users: np.ndarray,
    times: np.ndarray,
) -> Bridge:
    """Return the bridges of some users at some times.

    Parameters
    ----------
    start : (users + 1,); user u has the ratings start[u]:start[u + 1]
    sorted_times : (ratings,) int64, each user's in ascending order
    time_constants : (processes,)
    users : (n,) codes; -1 is an unknown user
    times : (n,) int64
    """
    known = users >= 0
    first = np.where(known, start[users], 0)
    last = np.where(known, start[users + 1], 0)
    after = places_after(sorted_times, first, last, times)
    before = after - 1
    gaps_before = np.where(before >= first, times - sorted_times[before], np.inf)
    is_after = after < last
    after = np.where(is_after, after, 0)
    gaps_after = np.where(is_after, sorted_times[after] - times, np.inf)
    constants = np.asarray(time_constants)[:, None]
    r_before = correlations(gaps_before, constants)
    r_after = correlations(gaps_after, constants)
    # The regression on both neighbours, whose own correlation is the product.
    rest = 1 - r_before**2 * r_after**2
    share_before = r_before * (1 - r_after**2) / rest
    share_after = r_after * (1 - r_before**2) / rest
    explained = share_before * r_before + share_after * r_after
    return Bridge(before, after, share_before, share_after, explained)


def places_after(
    sorted_times: np.ndarray, first: np.ndarray, last: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Return, for each time, the first place in [first, last) with a later one, else last."""
    low = first.copy()
    high = last.copy()
    while (open_ := low < high).any():  # binary searches, all at once
        middle = (low + high) // 2
        earlier = sorted_times[np.where(open_, middle, 0)] <= times
        low = np.where(open_ & earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low


def asked_times(weights: Weights, times: Any, n: int) -> np.ndarray:
    """Return the times of a question as (n,) int64 seconds; one time stands for all.

    Raises
    ------
    ValueError
        If the model has no moods to predict with, or the times are bad (see
        `ratings.times.checked_times`).
    """
    if weights.mood_means is None:
        raise ValueError(
            "times say nothing to this model; they do to one of solver='gibbs' and moods='keep'"
            " that was fitted to ratings with times and has left its burn-in"
        )
    if np.ndim(times) == 0:
        return np.repeat(as_times([times], 1), n)
    return as_times(times, n)


def with_other_users(
    weights: Weights, n_users: int, codes: np.ndarray, replaced: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arrays of moods, by name, of a model whose users have other codes.

    Parameters
    ----------
    weights : Weights
    n_users : number of users afterwards; the others have no moods
    codes : (old users,) code of each of the users afterwards
    replaced : codes afterwards of users whose moods are dropped, as is the level in their bias
    """
    if weights.moods is None or weights.mood_levels is None:
        return {}
    levels = np.zeros(n_users, np.float32)
    levels[codes] = weights.mood_levels
    levels[replaced] = 0
    changed = {"mood_levels": levels}
    if weights.mood_means is None or weights.mood_times is None or weights.mood_start is None:
        return changed
    counts = np.diff(weights.mood_start)
    owners = np.repeat(codes, counts)
    stays = np.ones(n_users, bool)
    stays[replaced] = False
    kept = np.flatnonzero(stays[owners])
    order = kept[np.argsort(owners[kept], kind="stable")]
    new_counts = np.bincount(owners[order], minlength=n_users)
    changed["mood_start"] = np.concatenate([[0], np.cumsum(new_counts)]).astype(np.int64)
    changed["mood_times"] = weights.mood_times[order]
    changed["mood_means"] = weights.mood_means[order]
    return changed


def without_users(weights: Weights, n_users: int) -> dict[str, np.ndarray]:
    """Return the arrays of moods, by name, of a model of new users alone."""
    if weights.moods is None:
        return {}
    changed = {"mood_levels": np.zeros(n_users, np.float32)}
    if weights.mood_means is not None and weights.mood_times is not None:
        changed["mood_start"] = np.zeros(n_users + 1, np.int64)
        changed["mood_times"] = weights.mood_times[:0]
        changed["mood_means"] = weights.mood_means[:0]
    return changed
