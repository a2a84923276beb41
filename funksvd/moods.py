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

from typing import NamedTuple

import numpy as np

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


def correlations(gaps: np.ndarray, time_constant: float) -> np.ndarray:
    """Return the correlations of moods that are `gaps` seconds apart; 0 if these are infinite."""
    in_units = np.asarray(gaps, np.float64) / time_constant
    correlation: np.ndarray = np.exp(-np.maximum(in_units, LEAST_GAP))
    return correlation


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
    variance = np.full(len(users), np.sum(moods[:, PRIOR_VARIANCE]))
    if times is None or weights.mood_means is None:
        return MoodAt(mean, variance)
    assert weights.mood_levels is not None
    mean -= np.where(users >= 0, weights.mood_levels[users], 0)
    before, after, gaps_before, gaps_after = neighbours(weights, users, times)
    for process, (time_constant, prior, rated) in enumerate(moods):
        r_before = correlations(gaps_before, time_constant)
        r_after = correlations(gaps_after, time_constant)
        # The regression on both neighbours, whose own correlation is the product.
        rest = 1 - r_before**2 * r_after**2
        share_before = r_before * (1 - r_after**2) / rest
        share_after = r_after * (1 - r_before**2) / rest
        means = weights.mood_means[:, process]
        mean += share_before * means[before] + share_after * means[after]
        explained = share_before * r_before + share_after * r_after
        variance -= (prior - rated) * explained
    return MoodAt(mean, variance)


def neighbours(
    weights: Weights, users: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the ratings of a user before and after a time.

    Returns
    -------
    before, after : (n,) places in `mood_times`; where there is none, any place
    gaps_before, gaps_after : (n,) float64 seconds to them; infinite where there is none
    """
    mood_start = weights.mood_start
    mood_times = weights.mood_times
    assert mood_start is not None  # they are there where the means are
    assert mood_times is not None
    known = users >= 0
    first = np.where(known, mood_start[users], 0)
    last = np.where(known, mood_start[users + 1], 0)
    after = places_after(mood_times, first, last, times)
    is_before = after > first
    is_after = after < last
    before = np.where(is_before, after - 1, 0)
    after = np.where(is_after, after, 0)
    gaps_before = np.where(is_before, times - mood_times[before], np.inf)
    gaps_after = np.where(is_after, mood_times[after] - times, np.inf)
    return before, after, gaps_before, gaps_after


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
