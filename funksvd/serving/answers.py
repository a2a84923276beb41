"""The half of FunkSVD that answers: predictions, recommendations, similar rows and reasons.

Every method takes what the model has learned once, as one `Fitted`, and hands its weights, its id
tables and codes to the functions of this wing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

import funksvd.serving as serving
from funksvd.checks import check_choice, checked_n
from funksvd.metrics import mae, rmse
from funksvd.parameters import Hyper
from funksvd.posterior import check_sampled, interval, noise_weights, variance
from funksvd.ratings.ids import IdTable
from funksvd.ratings.inputs import as_ratings, pairs_of
from funksvd.ratings.tables import add_column, as_ids, long_table
from funksvd.ratings.triples import Ratings
from funksvd.serving.asked import asked, ids_of, known_codes
from funksvd.training.fold_in import Past, penalties, rows_of
from funksvd.weights import Fitted, predict

if TYPE_CHECKING:
    import funksvd.serving.dense  # noqa: F401 - its types
    from funksvd.serving.explain import Explanation

SIDES = ("user", "item")


class Answers:
    """Answers for the model that inherits it; `FunkSVD` adds the parameters.

    Attributes
    ----------
    global_mean_ : float
    user_ids_, item_ids_ : (n_users,), (n_items,)
        Ids in the order of the rows of the next four arrays.
    user_biases_, item_biases_ : (n_users,), (n_items,)
    user_factors_, item_factors_ : (n_users, n_factors), (n_items, n_factors)
    user_noise_weights_, item_noise_weights_ : (n_users,), (n_items,)
        Of a sampled model alone: 1 is usual, and ratings of a row below 1 scatter more.
    """

    rating_scale: tuple[float, float] | None

    global_mean_ = property(lambda self: self._learned().weights.global_mean)
    user_ids_ = property(lambda self: self._learned().tables[0].ids)
    item_ids_ = property(lambda self: self._learned().tables[1].ids)
    user_biases_ = property(lambda self: self._learned().weights.user_biases)
    item_biases_ = property(lambda self: self._learned().weights.item_biases)
    user_factors_ = property(lambda self: self._learned().weights.user_factors)
    item_factors_ = property(lambda self: self._learned().weights.item_factors)
    user_noise_weights_ = property(lambda self: self._noise_weights()[0])
    item_noise_weights_ = property(lambda self: self._noise_weights()[1])
    n_features_in_ = property(lambda self: 2 if self._learned() else 0, doc="2: user and item")

    def _learned(self) -> Fitted:
        fitted = self._current()
        if fitted is None:
            raise AttributeError("this FunkSVD is not fitted yet; call fit first")
        return fitted

    def _noise_weights(self) -> tuple[NDArray[Any], NDArray[Any]]:
        weights = self._learned().weights
        if weights.noise is None:
            raise AttributeError("noise weights need a model of solver='gibbs'")
        return noise_weights(weights)

    def _current(self) -> Fitted | None:
        raise NotImplementedError

    def _fitted_now(self) -> Fitted:
        raise NotImplementedError

    def _hyper(self) -> Hyper:
        raise NotImplementedError

    def _past(self) -> Past:
        raise NotImplementedError

    def _threads(self) -> int:
        raise NotImplementedError

    @overload
    def predict(
        self, X: Any, unknown: str = "mean", return_std: Literal[False] = False
    ) -> NDArray[Any]: ...

    @overload
    def predict(
        self, X: Any, unknown: str = "mean", *, return_std: Literal[True]
    ) -> tuple[NDArray[Any], NDArray[Any]]: ...

    @overload
    def predict(
        self, X: Any, unknown: str = "mean", return_std: bool = False
    ) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]: ...

    def predict(self, X: Any, unknown: str = "mean", return_std: bool = False) -> Any:
        """Predict the ratings of pairs.

        Parameters
        ----------
        X : (users, items), (n, 2) array, table, or Ratings
        unknown : {"mean", "nan", "raise"}
            For pairs with an unknown id: use the mean and the known bias, and warn once; give NaN;
            or raise ValueError.
        return_std : bool
            Return the standard deviations, too (solver="gibbs"): of the noise of the user and the
            item and of the model's uncertainty together. An unknown id has those of an id without
            ratings.

        Returns
        -------
        (n,) ratings, clipped to `rating_scale`; with `return_std` also (n,) standard deviations
        """
        fitted = self._fitted_now()
        check_choice(unknown, "unknown", ("mean", "nan", "raise"))
        if return_std:
            check_sampled(fitted.weights)
        codes = self._codes(fitted, X)
        ratings = self._clipped(self._predict(fitted, *codes))
        mark_unknown(ratings, *codes, unknown)
        if not return_std:
            return ratings
        return ratings, np.sqrt(variance(fitted.weights, *codes))

    def predict_interval(
        self, X: Any, coverage: float = 0.8, unknown: str = "mean"
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (low, high) between which a share `coverage` of such ratings lies.

        It needs solver="gibbs"; the ends are clipped to `rating_scale`. `X` and `unknown` are those
        of `predict`.
        """
        fitted = self._fitted_now()
        check_choice(unknown, "unknown", ("mean", "nan", "raise"))
        check_sampled(fitted.weights)
        codes = self._codes(fitted, X)
        ratings = self._predict(fitted, *codes)
        mark_unknown(ratings, *codes, unknown)
        std = np.sqrt(variance(fitted.weights, *codes))
        return interval(fitted.weights, (ratings, std), coverage, self.rating_scale)

    def predict_table(self, table: Any, name: str = "prediction", unknown: str = "mean") -> Any:
        """Return a table (pandas, polars, pyarrow, DuckDB) with a column of predictions more."""
        return add_column(table, name, self.predict(table, unknown=unknown))

    def evaluate(
        self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> dict[str, float]:
        """Return the errors of the predictions of ratings.

        Returns
        -------
        dict
            "rmse" and "mae", weighted; "n", the number of ratings; "unknown", the share of them
            with an unknown id.
        """
        fitted = self._fitted_now()
        ratings = as_ratings(X, y, sample_weight)
        users, items = self._codes(fitted, ratings)
        predicted = self._clipped(self._predict(fitted, users, items))
        return {
            "rmse": rmse(ratings.values, predicted, ratings.weights),
            "mae": mae(ratings.values, predicted, ratings.weights),
            "n": len(predicted),
            "unknown": float(unknown_pairs(users, items).mean()),
        }

    def score(
        self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return R^2, as scikit-learn's regressors do."""
        ratings = as_ratings(X, y, sample_weight)
        mean = np.average(ratings.values, weights=ratings.weights)
        variance_ = np.average((ratings.values - mean) ** 2, weights=ratings.weights)
        return 1 - self.evaluate(ratings)["rmse"] ** 2 / float(variance_)

    @overload
    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        exclude: Any = None,
        *,
        candidates: Any = None,
        unknown: str = "raise",
        table: None = None,
        risk: float = 0.0,
    ) -> tuple[NDArray[Any], NDArray[Any]]: ...

    @overload
    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        exclude: Any = None,
        *,
        candidates: Any = None,
        unknown: str = "raise",
        table: str,
        risk: float = 0.0,
    ) -> Any: ...

    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        exclude: Any = None,
        *,
        candidates: Any = None,
        unknown: str = "raise",
        table: str | None = None,
        risk: float = 0.0,
    ) -> Any:
        """Return the n best items of each user, best first; ties in the order of the ids.

        Parameters
        ----------
        users : one id, a list or array of m ids, or None for all
        n : int
        exclude : Ratings, or (user ids, item ids)
            Pairs not to recommend: the items that the users know.
        candidates : ids of the items to choose from, or None for all
        unknown : {"raise", "mean", "nan"}
            For users that the model does not know: raise ValueError; rank items by the mean and
            their bias; or return nothing.
        table : {"pandas", "polars", "pyarrow"} or None
            Return a table with the columns user, item, rank and score.
        risk : float
            Rank by the prediction plus `risk` times its standard deviation (solver="gibbs"), which
            is then the score: below 0 the safe choices, above 0 the surprising ones.

        Returns
        -------
        ids, scores : (n,) each for one id, else (m, n)
            The scores are those of `predict`. Where fewer than n items are left, the arrays of one
            user are shorter, and a row of several users ends with None and NaN.
        """
        fitted = self._fitted_now()
        raw, one = asked(users, fitted.tables[0], "users")
        request = serving.recommending.Request(n, exclude, candidates, unknown, risk)
        codes, scores = serving.recommending.recommend(fitted, raw, request, self._threads())
        ids, scores = self._listed(fitted.tables[1], codes, scores)
        if table is not None:
            return long_table(raw, ids, scores, table)
        return (ids[0], scores[0]) if one else (ids, scores)

    def recommend_batches(
        self, n: int = 10, exclude: Any = None, *, batch_size: int = 10_000, **options: Any
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Yield (user ids, item ids, scores) of all users, `batch_size` users at a time.

        The options are those of `recommend`.
        """
        ids = self._fitted_now().tables[0].ids
        step = checked_n(batch_size, "batch_size")
        for start in range(0, len(ids), step):
            users = ids[start : start + step]
            items, scores = self.recommend(users, n, exclude, **options)
            yield users, items, scores

    def similar_items(
        self, items: Any = None, n: int = 10, measure: str = "cosine"
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the n items whose factors are most similar; an item is not its own answer.

        Parameters
        ----------
        items : one id, a list or array of m ids, or None for all
        n : int
        measure : {"cosine", "dot"}

        Returns
        -------
        ids, similarities : (n,) each for one id, else (m, n)
        """
        return self._similar(items, n, measure, 1)

    def similar_users(
        self, users: Any = None, n: int = 10, measure: str = "cosine"
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the n users whose factors are most similar; see `similar_items`."""
        return self._similar(users, n, measure, 0)

    def predict_all(self, users: Any = None, unknown: str = "raise") -> NDArray[Any]:
        """Return (m, n_items) predictions of every item, in the order of `item_ids_`.

        `users` are ids, None for all. A user unknown to the model raises ValueError; with
        unknown="mean" the prediction is the mean and the items' biases.
        """
        fitted = self._fitted_now()
        check_choice(unknown, "unknown", ("raise", "mean"))
        raw, one = asked(users, fitted.tables[0], "users")
        codes = known_codes(raw, fitted.tables[0], "user", unknown)
        rows = self._clipped(serving.dense.predict_all(fitted.weights, codes, self._threads()))
        return rows[0] if one else rows

    def explain(self, user: Any, item: Any, X: Any, y: ArrayLike | None = None) -> Explanation:
        """Return which of a user's ratings pull the prediction for an item up or down, and how far.

        `X` and `y` are ratings, the user's among them, in any form that `fit` takes: the model
        holds none. Before any clipping, prediction = baseline + contributions.sum() + rest.
        """
        fitted = self._fitted_now()
        ratings = as_ratings(X, y)
        hyper = self._hyper()
        past = self._past()

        def penalty_of(count: int) -> NDArray[Any]:
            rows = penalties(hyper, past, np.array([count]))
            return np.ravel(rows)

        return serving.explain.explain(fitted, user, item, ratings, penalty_of)

    def item_vectors(self) -> NDArray[Any]:
        """Return (n_items, n_factors + 2): with `query_vectors` the model as one inner product.

        item_vectors() @ query_vectors(user)[0] are the predictions for the user; biases and mean
        are dimensions of their own. This is the form that vector indexes take.
        """
        return serving.dense.item_vectors(self._fitted_now().weights)

    def query_vectors(self, users: Any = None) -> NDArray[Any]:
        """Return (m, n_factors + 2) vectors of users (None: all), to ask `item_vectors` with."""
        fitted = self._fitted_now()
        raw, _ = asked(users, fitted.tables[0], "users")
        codes = known_codes(raw, fitted.tables[0], "user")
        return serving.dense.query_vectors(fitted.weights, codes)

    def _similar(
        self, ids: Any, n: int, measure: str, side: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        fitted = self._fitted_now()
        table = fitted.tables[side]
        name = SIDES[side]
        raw, one = asked(ids, table, f"{name}s")
        codes = known_codes(raw, table, name)
        own = (*rows_of(fitted.weights, side), codes)
        best, scores = serving.recommending.similar(*own, checked_n(n), measure, self._threads())
        found = ids_of(table, best)
        return (found[0], scores[0]) if one else (found, scores)

    def _codes(self, fitted: Fitted, X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return int32 codes (users, items) of pairs; -1 is an unknown id."""
        if isinstance(X, Ratings):
            return X.codes_in(fitted.tables)
        users, items = (
            table.encode(as_ids(raw, name), name, self._threads())
            for table, raw, name in zip(fitted.tables, pairs_of(X), SIDES, strict=True)
        )
        if len(users) != len(items):
            raise ValueError(
                f"users and items must have equal lengths, got {len(users)} and {len(items)}"
            )
        return users, items

    def _predict(self, fitted: Fitted, users: NDArray[Any], items: NDArray[Any]) -> NDArray[Any]:
        return predict(fitted.weights, users, items, self._threads())

    def _clipped(self, ratings: NDArray[Any]) -> NDArray[Any]:
        return ratings if self.rating_scale is None else np.clip(ratings, *self.rating_scale)

    def _listed(
        self, table: IdTable, codes: NDArray[Any], scores: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (ids, clipped scores) without the columns that no user fills."""
        filled = (codes >= 0).sum(1).max(initial=0)
        return ids_of(table, codes[:, :filled]), self._clipped(scores[:, :filled])


def unknown_pairs(users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n,) whether a pair of codes has an unknown id."""
    unknown = np.zeros(len(users), bool)
    if min(users.min(initial=0), items.min(initial=0)) < 0:  # a tenth of the time of the mask
        np.less(np.minimum(users, items), 0, out=unknown)
    return unknown


def mark_unknown(
    ratings: NDArray[Any], users: NDArray[Any], items: NDArray[Any], unknown: str
) -> None:
    """Do with the predictions of pairs that have an unknown id what `unknown` says."""
    strange = unknown_pairs(users, items)
    if not strange.any():
        return
    said = f"{strange.mean():.1%} of the pairs have a user or item unknown to the model"
    if unknown == "raise":
        raise ValueError(f"{said}; unknown='mean' or 'nan' accepts them")
    if unknown == "nan":
        ratings[strange] = np.nan
    else:
        warnings.warn(f"{said}; they get the mean and the known bias", stacklevel=3)
