"""The learned arrays of a model, the ids that their rows belong to, and the prediction for pairs.

The prediction formula stands in `_formula.pxi`, which the kernels that train include as well.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel
from funksvd.ratings.ids import IdTable

PAIRS_OF_A_CALL = 1 << 18


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """The learned arrays of a model; rows are in the order of the codes.

    Attributes
    ----------
    global_mean : float
    user_biases, item_biases : (n_users,), (n_items,)
    user_factors, item_factors : (n_users, n_factors), (n_items, n_factors)
    noise : (3,) or None
        Of a sampled model alone, as the next two: noise variance, scale of the posterior variances,
        and kurtosis of the residuals. `posterior` gives them meaning.
    user_posterior, item_posterior : (n_users + 1, 4), (n_items + 1, 4), or None
        How uncertain each row is; the last row is that of an unknown id.
    moods, mood_levels : (processes, 3), (n_users,), or None
        Of a sampled model of ratings with times, as the next three; `moods` gives them meaning.
    mood_start, mood_times, mood_means : (n_users + 1,), (ratings,), (ratings, processes), or None
    exposure : (2,) or (5,) float64, or None
        Of a model that knows which items users take: the numbers of that part's objective, from
        which new rows are solved (`engines.exposure.Settings` names them). Where the model knows
        ratings, too, the standard deviation, the least and the largest of these follow.
    user_exposure, item_exposure : (n_users, k), (n_items, k) float32, or None
        Factors of the exposure, of a model that knows ratings, too; with solver="ials" alone they
        are the factors above.
    item_set_biases, item_set_factors, item_set_map : (n_items,), (n_items, k), (k, n_factors), or
        None
        What an item says of the users in whose sets it is, and the map from its k factors to those
        of users, see `features`; of a model that was sampled with sets.
    user_set_biases, user_set_factors, user_set_map : the same of users in the sets of items
    """

    global_mean: float
    user_biases: np.ndarray
    item_biases: np.ndarray
    user_factors: np.ndarray
    item_factors: np.ndarray
    noise: np.ndarray | None = None
    user_posterior: np.ndarray | None = None
    item_posterior: np.ndarray | None = None
    moods: np.ndarray | None = None
    mood_levels: np.ndarray | None = None
    mood_start: np.ndarray | None = None
    mood_times: np.ndarray | None = None
    mood_means: np.ndarray | None = None
    exposure: np.ndarray | None = None
    user_exposure: np.ndarray | None = None
    item_exposure: np.ndarray | None = None
    user_set_biases: np.ndarray | None = None
    user_set_factors: np.ndarray | None = None
    user_set_map: np.ndarray | None = None
    item_set_biases: np.ndarray | None = None
    item_set_factors: np.ndarray | None = None
    item_set_map: np.ndarray | None = None


def copied(weights: Weights) -> Weights:
    """Return weights that share no memory with the given ones."""
    arrays: dict[str, Any] = {}
    for field in fields(weights):
        value = getattr(weights, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = aligned_copy(value)
    return replace(weights, **arrays)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """Return a copy of an array; a table starts at a multiple of 64 bytes, as kernels expect."""
    if array.ndim != 2:
        return array.copy()
    rows, columns = array.shape
    out = aligned(rows, columns, array.dtype)
    out[:] = array
    return out


def check_sets(weights: Weights) -> None:
    """Raise ValueError if what ids say in sets does not fit the other arrays of the weights."""
    for name, rows, others in (
        ("user", weights.user_factors, weights.item_factors),
        ("item", weights.item_factors, weights.user_factors),
    ):
        arrays = [getattr(weights, f"{name}_set_{part}") for part in ("biases", "factors", "map")]
        if all(array is None for array in arrays):
            continue
        shapes = [np.shape(array) for array in arrays]
        k = shapes[2][:1]
        expected = [(len(rows),), (len(rows), *k), (*k, others.shape[1])]
        if shapes != expected:
            raise ValueError(
                f"the {name}_set arrays (biases, factors, map) have shapes {shapes}, expected"
                f" {expected}"
            )


def check_fit(weights: Weights, like: Weights) -> None:
    """Raise TypeError or ValueError if weights cannot take the place of those of a model.

    Kernels trust the shapes, so that weights of another model would be read out of bounds. A
    sampled model has other factors in its burn-in than after it, and so their number is free there.
    """
    if not isinstance(weights, Weights):
        raise TypeError(f"weights must be those of get_weights(), got {type(weights).__name__}")
    n_factors = np.shape(like.user_factors)[-1]
    if weights.noise is not None or like.noise is not None:
        n_factors = np.shape(weights.user_factors)[-1]
    n_users = len(like.user_biases)
    n_items = len(like.item_biases)
    wanted: dict[str, tuple[int, ...]] = {
        "user_biases": (n_users,),
        "item_biases": (n_items,),
        "user_factors": (n_users, n_factors),
        "item_factors": (n_items, n_factors),
    }
    if weights.noise is not None:
        wanted |= {
            "noise": (3,),
            "user_posterior": (n_users + 1, 4),
            "item_posterior": (n_items + 1, 4),
        }
    if weights.mood_levels is not None:
        wanted["mood_levels"] = (n_users,)
    if weights.mood_start is not None:
        wanted["mood_start"] = (n_users + 1,)
    for name in ("exposure", "user_exposure", "item_exposure"):
        own = getattr(like, name)
        wanted[name] = () if own is None else own.shape
    for name, shape in wanted.items():
        array = np.asarray(getattr(weights, name))
        dtype = like.user_factors.dtype if name.endswith(("biases", "factors")) else array.dtype
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"weights are of another model: their {name} have shape {array.shape} and dtype"
                f" {array.dtype}, expected {shape} and {dtype}"
            )
    check_sets(weights)


def rows_of(weights: Weights, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (biases, factors) of side 0 (users) or 1 (items)."""
    if side == 0:
        return weights.user_biases, weights.user_factors
    return weights.item_biases, weights.item_factors


def exposure_of(weights: Weights, side: int) -> np.ndarray | None:
    """Return the factors of the exposure beside ratings, of side 0 (users) or 1 (items)."""
    return weights.item_exposure if side else weights.user_exposure


class Trained(NamedTuple):
    """How a model was trained.

    history, n_epochs, n_ratings : those of `FunkSVD`, with an underscore
    content : hash of the ratings that `fit` was given, held-out ones among them, or None
    """

    history: dict[str, list[float]]
    n_epochs: int
    n_ratings: int
    content: list[int] | None = None


class Fitted(NamedTuple):
    """What a fitted model knows.

    A model holds one and replaces it whole, so that a reader who takes it once never sees new
    arrays with old codes, or with the history of a fit that still runs.

    weights : the learned arrays
    tables : the id tables (users, items) of their rows
    trained : how they were learned
    """

    weights: Weights
    tables: tuple[IdTable, IdTable]
    trained: Trained


def is_finite(weights: Weights) -> bool:
    """Return whether all biases and factors are finite."""
    names = ("user_biases", "item_biases", "user_factors", "item_factors")
    return all(np.isfinite(getattr(weights, name)).all() for name in names)


def predict(weights: Weights, users: np.ndarray, items: np.ndarray, n_jobs: int = 1) -> np.ndarray:
    """Return mean + (b_u + b_i) + p_u . q_i for pairs of codes.

    Parameters
    ----------
    weights : Weights
    users, items : (n,) int32
        Codes; -1 is an unknown id, with bias 0 and no factors.
    n_jobs : int

    Returns
    -------
    (n,) of the dtype of the factors
    """
    out = np.empty(len(users), weights.user_factors.dtype)
    kernel = kernels("_predict", out.dtype).predict

    def predict_part(part: slice) -> None:
        kernel(
            weights.user_factors,
            weights.user_biases,
            weights.item_factors,
            weights.item_biases,
            weights.global_mean,
            users[part],
            items[part],
            out[part],
        )

    starts = range(0, len(users), PAIRS_OF_A_CALL)
    parallel(predict_part, [slice(start, start + PAIRS_OF_A_CALL) for start in starts], n_jobs)
    return out
