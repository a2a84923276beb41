"""Recommendations and similar rows, for which `top` finds the best items."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from funksvd.checks import check_choice, checked_n
from funksvd.moods import asked_times, mood_at
from funksvd.posterior import check_sampled, variance
from funksvd.ratings.tables import as_ids
from funksvd.serving.asked import known_codes
from funksvd.serving.relevance import Liking, check_threshold, exposed_top, parts_of, relevant_top
from funksvd.serving.seen import Seen, seen_of, unwanted_by
from funksvd.serving.top import empty_answer, top
from funksvd.weights import Fitted, Weights, predict


class Request(NamedTuple):
    """The arguments of `FunkSVD.recommend` beside the users."""

    n: int
    exclude: Any
    candidates: Any
    unknown: str
    risk: float
    at: Any
    by: str | None = None
    threshold: float | None = None


def recommend(
    fitted: Fitted,
    users: Any,
    request: Request,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (item codes, scores) of `top` for raw user ids; see `FunkSVD.recommend`."""
    check_choice(request.unknown, "unknown", ("raise", "mean", "nan"))
    by = ranked_by(fitted.weights, request)
    n = checked_n(request.n)
    users_table, items_table = fitted.tables
    codes = known_codes(users, users_table, "user", request.unknown)
    items = np.arange(len(items_table), dtype=np.int32)
    if request.candidates is not None:
        items = np.unique(items_table.encode(as_ids(request.candidates, "item"), "item"))
        items = items[items >= 0]
    seen = seen_of(request.exclude, fitted.tables)
    times = None
    if request.at is not None:
        times = asked_times(fitted.weights, request.at, len(codes))
    if by == "relevance":
        liking = Liking(request.threshold, request.risk)
        best, scores = relevant_top(fitted.weights, codes, n, seen, items, liking, n_jobs)
    elif by == "exposure" and fitted.weights.user_exposure is not None:
        best, scores = exposed_top(fitted.weights, codes, n, seen, items, n_jobs)
    elif request.risk:
        best, scores = risky_top(fitted.weights, codes, n, seen, items, request.risk, times)
    else:
        best, scores = top(fitted.weights, codes, n, seen, items, n_jobs)
    mood = None if times is None else mood_at(fitted.weights, codes, times)
    if mood is not None:  # it is the same for all items
        scores = scores + mood.mean[:, None].astype(scores.dtype)
    if request.unknown == "nan":
        best[codes < 0] = -1
        scores[codes < 0] = np.nan
    return best, scores


def parts(fitted: Fitted, users: Any, best: np.ndarray, request: Request) -> dict[str, np.ndarray]:
    """Return the parts of the scores of an answer by name; none but those of a relevance."""
    if ranked_by(fitted.weights, request) != "relevance":
        return {}
    codes = known_codes(users, fitted.tables[0], "user", request.unknown)
    liking = Liking(request.threshold, request.risk)
    return parts_of(fitted.weights, codes, best, liking, n_jobs=1)


def ranked_by(weights: Weights, request: Request) -> str:
    """Return "relevance", "rating" or "exposure": the choice, or the best that the model knows.

    Raises
    ------
    ValueError
        If the model does not know the part of the choice, or an argument means nothing beside it.
    """
    knows_exposure = weights.exposure is not None
    knows_both = weights.user_exposure is not None
    by = request.by
    if by is None:
        by = "exposure" if knows_exposure else "rating"
        by = "relevance" if knows_both else by
    check_choice(by, "by", ("relevance", "rating", "exposure"))
    if by != "rating" and not knows_exposure:
        raise ValueError(
            f"by={by!r} needs a model that knows which items users take; fit one with"
            " FunkSVD(..., exposure=True)"
        )
    if by != "exposure" and knows_exposure and not knows_both:
        raise ValueError(
            f"by={by!r} needs ratings, and a model of solver='ials' knows none; fit one with"
            " FunkSVD(..., exposure=True) to ratings"
        )
    if request.threshold is not None and by != "relevance":
        raise ValueError(f"threshold= means nothing to by={by!r}, but to by='relevance' alone")
    if request.risk and by == "exposure":
        raise ValueError("risk= means nothing to by='exposure': it has no standard deviation")
    if request.at is not None and by != "rating":
        raise ValueError(
            f"at= means nothing to by={by!r}: a mood is the same for all items of a user"
        )
    if request.risk:
        check_sampled(weights)
    check_threshold(weights, request.threshold)
    return by


def risky_top(
    weights: Weights,
    users: np.ndarray,
    n: int,
    seen: Seen | None,
    items: np.ndarray,
    risk: float,
    times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the answer of `top`, ranked by prediction + risk * its standard deviation."""
    check_sampled(weights)
    width = min(n, len(items))
    codes, scores = empty_answer(len(users), width, np.float32)
    unwanted = unwanted_by(users, seen)
    for row, user in enumerate(users):
        first, last = unwanted.start[row : row + 2]
        left = np.setdiff1d(items, unwanted.codes[first:last])
        same_user = np.full(len(left), user, np.int32)
        time = None if times is None else np.full(len(left), times[row])
        std = np.sqrt(variance(weights, same_user, left, time))
        score = predict(weights, same_user, left) + risk * std
        score = score.astype(np.float32)
        best = np.lexsort((left, -score))[:width]
        codes[row, : len(best)] = left[best]
        scores[row, : len(best)] = score[best]
    return codes, scores


def similar(
    biases: np.ndarray,
    factors: np.ndarray,
    codes: np.ndarray,
    n: int,
    measure: str,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scores) of the rows most similar to some rows, which are left out themselves.

    Parameters
    ----------
    biases, factors : (rows,), (rows, k)
    codes : (m,) int32 rows to compare with
    n : int
    measure : {"cosine", "dot"}
    n_jobs : int

    Returns
    -------
    (m, min(n, rows)) each, as of `top`
    """
    check_choice(measure, "measure", ("cosine", "dot"))
    if measure == "cosine":
        norms = np.sqrt(np.einsum("nk,nk->n", factors, factors))
        norms[norms == 0] = 1
        factors = factors / norms[:, None]
    # The rows asked for are the users of a model without biases; each has seen itself alone.
    zeros = np.zeros_like(biases)
    model = Weights(
        global_mean=0.0,
        user_biases=zeros[codes],
        item_biases=zeros,
        user_factors=factors[codes],
        item_factors=factors,
    )
    queries = np.arange(len(codes), dtype=np.int32)
    itself = Seen(np.arange(len(codes) + 1), codes)
    everything = np.arange(len(factors), dtype=np.int32)
    return top(model, queries, n, itself, everything, n_jobs)
