"""Evaluation of a trained model on ratings held out: errors of predictions and of ranked lists."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import funksvd.serving as serving
from funksvd.checks import checked_n, is_number
from funksvd.metrics import mae, rmse
from funksvd.ratings.content import content_of
from funksvd.ratings.ids import ITEMS, USERS
from funksvd.ratings.inputs import as_known, as_ratings, holds_ratings
from funksvd.ratings.tables import as_ids
from funksvd.ratings.triples import Ratings
from funksvd.serving.listing import Listing
from funksvd.serving.predicting import Predicting, unknown_pairs
from funksvd.serving.seen import Seen


class Lists(NamedTuple):
    """The lists to measure: k items a user, none of them in `known`, by options of `recommend`."""

    k: int
    known: Ratings
    options: dict[str, Any]


class Evaluating(Predicting, Listing):
    """Measures of a trained model."""

    def evaluate(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        k: int | None = None,
        exclude: Any = None,
        threshold: float | None = None,
        baselines: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the errors of the predictions of ratings and, with `k`, of lists of k items.

        Parameters
        ----------
        X, y, sample_weight : ratings held out from training, as in `fit`; their times are used
        k : int or None
            Give every user with a relevant rating in X the k best of all items that are not in
            `exclude`, as `recommend` does, and measure these lists. A user unknown to the model
            gets the items with the best biases.
        exclude : the ratings of training, in any form that `fit` takes, or pairs (users, items)
            A pair of X that is in `exclude`, too, does not count as relevant.
        threshold : float or None
            Ratings of X at or above it are relevant, such as 4 of 5 stars; None: all are.
        baselines : bool
            Measure also lists by popularity in `exclude` and, if it holds ratings, biases alone.
        **options : further options of `recommend`

        Returns
        -------
        dict
            "n", the number of ratings; "unknown", the share of them with an unknown id; and, but
            for solver="ials", "rmse" and "mae", weighted. With `k` also means over users,
            "precision", "recall", "hit_rate", "mrr", "map" and "ndcg"; "coverage", the share of
            the model's items that are in a list; "novelty" (see `metrics` for all); "n_users".
            With `baselines` also "baselines": such dicts of "popularity" and "biases_only".

        Raises
        ------
        ValueError
            If `k` is given without `exclude`, or the other way round, if `threshold` lies outside
            the scale of the ratings, or if no rating of X is relevant.
        """
        self._fitted_now()
        ratings = as_ratings(X, y, sample_weight)
        if k is None:
            check_no_lists(exclude=exclude, threshold=threshold, baselines=baselines, **options)
            self._warn_of_training_ratings(ratings)
            return self._errors(ratings)
        lists = Lists(checked_n(k, "k"), checked_known(exclude), options)
        if threshold is not None:
            threshold = checked_threshold(threshold, ratings, self.rating_scale)
        result = self._measured(ratings, lists, threshold, baselines)
        self._warn_of_training_ratings(ratings)
        if baselines and holds_ratings(exclude):
            biases = self._biases_only().fit(lists.known)
            measured = biases._measured(ratings, lists._replace(options={}), threshold, False)
            result["baselines"]["biases_only"] = measured
        return result

    def score(
        self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return R^2, as scikit-learn's regressors do."""
        ratings = as_ratings(X, y, sample_weight)
        errors = self._errors(ratings)
        if "rmse" not in errors:
            raise ValueError(
                "a model of solver='ials' predicts exposure and no ratings, so it has no R^2;"
                " evaluate(..., k=10) measures its lists"
            )
        mean = np.average(ratings.values, weights=ratings.weights)
        variance = np.average((ratings.values - mean) ** 2, weights=ratings.weights)
        return 1 - errors["rmse"] ** 2 / float(variance)

    def _errors(self, ratings: Ratings) -> dict[str, float]:
        """Return the errors of the predictions of ratings, if the model predicts ratings."""
        fitted = self._fitted_now()
        users, items = self._codes(fitted, ratings)
        counts = {"n": len(users), "unknown": float(unknown_pairs(users, items).mean())}
        if fitted.weights.exposure is not None and fitted.weights.user_exposure is None:
            return counts
        times = self._times(fitted, ratings, None, len(users))
        predicted = self._clipped(self._predict(fitted, users, items, times))
        return {
            "rmse": rmse(ratings.values, predicted, ratings.weights),
            "mae": mae(ratings.values, predicted, ratings.weights),
        } | counts

    def _measured(
        self, ratings: Ratings, lists: Lists, threshold: float | None, popularity: bool
    ) -> dict[str, Any]:
        """Return the errors on ratings and the metrics of lists; those of popularity, if wanted."""
        ranked = serving.ranked
        tables = self._fitted_now().tables
        seen = Seen.of_ratings(lists.known, tables)
        liked = ranked.liked_in(ratings, tables, threshold, seen)
        taken = ranked.taken_in(lists.known, tables[ITEMS])

        def best(rows: slice) -> NDArray[Any]:
            return self._best_codes(liked.user_ids[rows], lists)

        def most_popular(rows: slice) -> NDArray[Any]:
            codes: NDArray[Any] = ranked.popular(
                taken, liked.users[rows], len(tables[USERS]), lists.k, seen
            )
            return codes

        result: dict[str, Any] = dict(self._errors(ratings))
        result |= ranked.measured(liked, taken, best, lists.k)
        if popularity:
            popular = ranked.measured(liked, taken, most_popular, lists.k)
            result["baselines"] = {"popularity": popular}
        return result

    def _best_codes(self, users: NDArray[Any], lists: Lists) -> NDArray[Any]:
        """Return (m, at most k) codes of the items that `recommend` gives; -1 is none."""
        options = {"unknown": "mean"} | lists.options
        ids, scores = self.recommend(users, lists.k, lists.known, **options)
        codes: NDArray[Any] = np.full(ids.shape, -1, np.int32)
        filled = ~np.isnan(scores)
        listed = ids[filled]
        if listed.dtype == object:  # rows that end with None
            listed = as_ids(listed.tolist(), "item")
        codes[filled] = self._fitted_now().tables[ITEMS].encode(listed, "item")
        return codes

    def _biases_only(self) -> Any:
        """Return a new model of the mean and the biases alone."""
        make: Callable[..., Any] = type(self)
        return make(
            n_factors=0, rating_scale=self.rating_scale, n_jobs=self._threads(), random_state=0
        )

    def _warn_of_training_ratings(self, ratings: Ratings) -> None:
        """Warn if these are the ratings that the model was trained on."""
        content = self._learned().trained.content
        if content is not None and content == content_of(ratings, self._threads()):
            warnings.warn(
                "the model was trained on these ratings, so these are errors of memory and not of"
                " prediction; hold ratings out before training, for example with"
                " ratings.split(0.1)",
                stacklevel=3,
            )


def check_no_lists(**arguments: Any) -> None:
    """Raise ValueError if an argument that describes lists is given without their length."""
    given = [name for name, value in arguments.items() if value is not None and value is not False]
    if given:
        raise ValueError(f"{given[0]}= needs k=, the length of the lists to measure")


def checked_known(exclude: Any) -> Ratings:
    """Return the pairs that lists leave out; ValueError if there are none."""
    if exclude is None:
        raise ValueError(
            "k= needs exclude=, the ratings of training: lists of items that users have rated"
            " already measure nothing"
        )
    return as_known(exclude)


def checked_threshold(
    threshold: Any, test: Ratings, rating_scale: tuple[float, float] | None
) -> float:
    """Return a threshold of relevant ratings as a float.

    Raises
    ------
    ValueError
        If it is no finite number, lies outside the scale, or no rating of `test` reaches it. The
        scale of a model without `rating_scale` goes from the lowest to the highest test rating.
    """
    lowest = float(test.values.min())
    highest = float(test.values.max())
    low, high = rating_scale or (lowest, highest)
    if not is_number(threshold) or not low <= threshold <= high:
        raise ValueError(
            f"threshold must be within the scale of the ratings, from {low:g} to {high:g},"
            f" got {threshold!r}"
        )
    if threshold > highest:
        raise ValueError(
            f"no rating to evaluate on is at or above threshold={threshold!r}, the highest is"
            f" {highest:g}; lower the threshold or hold out more ratings"
        )
    return float(threshold)
