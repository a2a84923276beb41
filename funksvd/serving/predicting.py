"""Predictions of single pairs and of whole rows."""

from __future__ import annotations

import warnings
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

import funksvd.serving as serving
from funksvd.checks import check_choice
from funksvd.posterior import check_sampled, interval, variance
from funksvd.ratings.inputs import is_single_id
from funksvd.ratings.tables import add_column
from funksvd.ratings.unknown_ids import UnknownIdWarning
from funksvd.serving.asked import asked, known_codes
from funksvd.serving.learned import Learned


class Predicting(Learned):
    """Predictions of a trained model."""

    @overload
    def predict(
        self, X: Any, unknown: str = "mean", return_std: Literal[False] = False, times: Any = None
    ) -> NDArray[Any]: ...

    @overload
    def predict(
        self, X: Any, unknown: str = "mean", *, return_std: Literal[True], times: Any = None
    ) -> tuple[NDArray[Any], NDArray[Any]]: ...

    @overload
    def predict(
        self, X: Any, unknown: str = "mean", return_std: bool = False, times: Any = None
    ) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]: ...

    def predict(
        self, X: Any, unknown: str = "mean", return_std: bool = False, times: Any = None
    ) -> Any:
        """Predict the ratings of pairs.

        Parameters
        ----------
        X : (users, items), (n, 2) array, list of pairs, table, or Ratings
            Or a single user id, with an item id as the second argument: ``predict(196, 242)``.
        unknown : {"mean", "nan", "raise"}
            For pairs with an unknown id: use the mean and the known bias, and warn once; give NaN;
            or raise ValueError.
        return_std : bool
            Return the standard deviations, too (solver="gibbs"): of the noise of the user and the
            item and of the model's uncertainty together. An unknown id has those of an id without
            ratings.
        times : (n,) times of the ratings, or one for all
            As in `fit`; a model that was fitted to ratings with times adds the mood that the user
            is in then, and is surer of it the nearer the user's ratings are. `Ratings` bring their
            own.

        Returns
        -------
        (n,) ratings, clipped to `rating_scale`; with `return_std` also (n,) standard deviations.
        With solver="ials" they are exposures, about 1 for the pairs that the model expects and near
        0 for the others, and a warning says so. For a single pair they are floats.
        """
        if is_single_id(X):
            return single(self.predict(([X], [unknown]), return_std=return_std, times=times))
        fitted = self._fitted_now()
        check_choice(unknown, "unknown", ("mean", "nan", "raise"))
        if return_std:
            check_sampled(fitted.weights)
        codes = self._codes(fitted, X)
        times = self._times(fitted, X, times, len(codes[0]))
        ratings = self._clipped(self._predict(fitted, *codes, times))
        mark_unknown(ratings, *codes, unknown)
        if fitted.weights.exposure is not None and fitted.weights.user_exposure is None:
            warnings.warn(
                "a model of solver='ials' predicts exposure, about 1 for the pairs that it expects"
                " and near 0 for the others, and no ratings; recommend ranks by it",
                stacklevel=2,
            )
        if not return_std:
            return ratings
        return ratings, np.sqrt(variance(fitted.weights, *codes, times))

    def predict_interval(
        self, X: Any, coverage: float = 0.8, unknown: str = "mean", times: Any = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (low, high) between which a share `coverage` of such ratings lies.

        It needs solver="gibbs"; the ends are clipped to `rating_scale`. `X`, `unknown` and `times`
        are those of `predict`.
        """
        fitted = self._fitted_now()
        check_choice(unknown, "unknown", ("mean", "nan", "raise"))
        check_sampled(fitted.weights)
        codes = self._codes(fitted, X)
        times = self._times(fitted, X, times, len(codes[0]))
        ratings = self._predict(fitted, *codes, times)
        mark_unknown(ratings, *codes, unknown)
        std = np.sqrt(variance(fitted.weights, *codes, times))
        return interval(fitted.weights, (ratings, std), coverage, self.rating_scale)

    def predict_table(self, table: Any, name: str = "prediction", unknown: str = "mean") -> Any:
        """Return a table (pandas, polars, pyarrow, DuckDB) with a column of predictions more."""
        return add_column(table, name, self.predict(table, unknown=unknown))

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


def unknown_pairs(users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n,) whether a pair of codes has an unknown id."""
    unknown = np.zeros(len(users), bool)
    if min(users.min(initial=0), items.min(initial=0)) < 0:  # a tenth of the time of the mask
        np.less(np.minimum(users, items), 0, out=unknown)
    return unknown


def single(predicted: Any) -> Any:
    """Return the predictions for one pair as floats."""
    if isinstance(predicted, tuple):
        return tuple(array.item() for array in predicted)
    return predicted.item()


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
        warnings.warn(
            f"{said}; they get the mean and the known bias", UnknownIdWarning, stacklevel=3
        )
