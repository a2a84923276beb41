"""Parts that all answers need: the learned arrays, read once, and the codes of ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from funksvd.hyper import Hyper
from funksvd.moods import asked_times, mood_at
from funksvd.posterior import noise_weights
from funksvd.ratings.inputs import pairs_of
from funksvd.ratings.tables import as_ids
from funksvd.ratings.triples import Ratings
from funksvd.weights import Fitted, predict

SIDES = ("user", "item")


class Learned:
    """The learned arrays of a model by name, and the codes of the ids that it is asked for.

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

    def _threads(self) -> int:
        raise NotImplementedError

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

    def _times(self, fitted: Fitted, X: Any, times: Any, n: int) -> NDArray[Any] | None:
        """Return the times of n pairs as int64 seconds, None if they are unknown or say nothing.

        Times of `Ratings` are used where the model has moods; other times must not be in vain.
        """
        if times is not None:
            return asked_times(fitted.weights, times, n)
        if isinstance(X, Ratings) and fitted.weights.mood_means is not None:
            return X.times
        return None

    def _predict(
        self,
        fitted: Fitted,
        users: NDArray[Any],
        items: NDArray[Any],
        times: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        predicted = predict(fitted.weights, users, items, self._threads())
        if times is None:
            return predicted
        mood = mood_at(fitted.weights, users, times)
        if mood is None:
            return predicted
        moved: NDArray[Any] = predicted + mood.mean.astype(predicted.dtype)
        return moved

    def _clipped(self, ratings: NDArray[Any]) -> NDArray[Any]:
        return ratings if self.rating_scale is None else np.clip(ratings, *self.rating_scale)
