"""Lists of the best items for users, and of similar rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from numpy.typing import NDArray

import funksvd.serving as serving
from funksvd.checks import checked_n
from funksvd.ratings.ids import IdTable
from funksvd.ratings.tables import long_table
from funksvd.serving.asked import asked, ids_of, known_codes
from funksvd.serving.learned import SIDES, Learned
from funksvd.weights import rows_of


class Listing(Learned):
    """Lists that a trained model gives."""

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
        at: Any = None,
        by: str | None = None,
        threshold: float | None = None,
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
        at: Any = None,
        by: str | None = None,
        threshold: float | None = None,
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
        at: Any = None,
        by: str | None = None,
        threshold: float | None = None,
    ) -> Any:
        """Return the n best items of each user, best first; ties in the order of the ids.

        Parameters
        ----------
        users : one id, a list or array of m ids, or None for all
        n : int
        exclude : ratings in any form that `fit` takes, or (user ids, item ids)
            Pairs not to recommend: the items that the users know.
        candidates : ids of the items to choose from, or None for all
        unknown : {"raise", "mean", "nan"}
            For users that the model does not know: raise ValueError; rank items by the mean and
            their bias; or return nothing.
        table : {"pandas", "polars", "pyarrow"} or None
            Return a table with the columns user, item, rank and score; by="relevance" adds its
            parts, exposure and probability.
        risk : float
            Rank by the prediction plus `risk` times its standard deviation (solver="gibbs"), which
            is then the score: below 0 the safe choices, above 0 the surprising ones.
        at : a time, or m times, as `times` of `predict`
            Add the mood that each user is in then to the scores; it is the same for all items.
        by : {"relevance", "rating", "exposure"} or None
            Rank by the predicted rating, by the exposure, which says whether a user takes an item,
            or by the relevance: exposure times the probability of a rating at or above `threshold`.
            None is the relevance where the model knows it (exposure=True).
        threshold : float or None
            Rating from which a user likes an item; None is each user's own mean.

        Returns
        -------
        ids, scores : (n,) each for one id, else (m, n)
            The scores by rating are those of `predict`. Where fewer than n items are left, the
            arrays of one user are shorter, and a row of several users ends with None and NaN.
        """
        fitted = self._fitted_now()
        raw, one = asked(users, fitted.tables[0], "users")
        recommending = serving.recommending
        request = recommending.Request(n, exclude, candidates, unknown, risk, at, by, threshold)
        codes, scores = recommending.recommend(fitted, raw, request, self._threads())
        if recommending.ranked_by(fitted.weights, request) == "rating":
            scores = self._clipped(scores)
        ids, scores = listed(fitted.tables[1], codes, scores)
        if table is not None:
            parts = recommending.parts(fitted, raw, codes[:, : ids.shape[1]], request)
            return long_table(raw, ids, scores, table, parts)
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


def listed(
    table: IdTable, codes: NDArray[Any], scores: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (ids, scores) without the columns that no user fills."""
    filled = (codes >= 0).sum(1).max(initial=0)
    return ids_of(table, codes[:, :filled]), scores[:, :filled]
