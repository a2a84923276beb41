"""The half of FunkSVD that answers: predictions, recommendations, similar rows and reasons.

Every method takes what the model has learned once, as one `Fitted`, and hands its weights, its id
tables and codes to the functions of this wing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import funksvd.serving as serving
import funksvd.training as training
from funksvd.checks import check_choice
from funksvd.ratings.inputs import as_ratings
from funksvd.serving.asked import asked, known_codes
from funksvd.serving.evaluating import Evaluating

if TYPE_CHECKING:
    import funksvd.serving.dense
    import funksvd.training.fold_in  # noqa: F401 - their types
    from funksvd.serving.explain import Explanation


class Answers(Evaluating):
    """Answers for the model that inherits it; `FunkSVD` adds the parameters."""

    def explain(self, user: Any, item: Any, X: Any, y: ArrayLike | None = None) -> Explanation:
        """Return which of a user's ratings pull the prediction for an item up or down, and how far.

        `X` and `y` are ratings, the user's among them, in any form that `fit` takes: the model
        holds none. Before any clipping, prediction = baseline + contributions.sum() + rest.
        """
        fitted = self._fitted_now()
        ratings = as_ratings(X, y)
        hyper = self._hyper()
        past = training.fold_in.past_of(fitted)

        def penalty_of(count: int) -> NDArray[Any]:
            rows = training.fold_in.penalties(hyper, past, np.array([count]))
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

    def export_vectors(self, path: str | os.PathLike[str], side: str = "items") -> None:
        """Write `item_vectors` or `query_vectors` of all ids as Parquet, for a vector index.

        The file has the columns `id` and `vector` (a list of n_factors + 2 numbers). Ids that are
        int or str stay as they are; UUIDs, dates and datetimes become text, and bytes hexadecimal.

        Parameters
        ----------
        path : path of the file
        side : {"items", "users"}

        Raises
        ------
        TypeError
            If ids are of a type that a model file cannot keep either.
        ImportError
            If pyarrow is not installed.
        """
        check_choice(side, "side", ("items", "users"))
        from funksvd.files.ids import stored_ids
        from funksvd.files.vectors import write_vectors

        fitted = self._fitted_now()
        table = fitted.tables[("users", "items").index(side)]
        ids = stored_ids(table, side.removesuffix("s"))
        vectors = self.item_vectors() if side == "items" else self.query_vectors()
        write_vectors(path, ids, vectors)
