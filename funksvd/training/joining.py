"""New rows in a trained model: beside its own, or alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from funksvd.features import NOWHERE, set_rows
from funksvd.machine.memory import aligned
from funksvd.moods import with_other_users, without_users
from funksvd.ratings.encoding import table_and_keys
from funksvd.ratings.ids import USERS, IdTable
from funksvd.training.exposing import with_new_rows
from funksvd.weights import Fitted, Weights, exposure_of, rows_of

SIDES = ("user", "item")


class NewRows(NamedTuple):
    """Rows solved from ratings.

    codes : (rows,) codes, in the tables of the ratings, of the rows that have ratings
    biases, factors : (rows,), (rows, n_factors); zeros for a row all of whose ratings are left out
    posterior : (rows, 4) of a sampled model, whose rows are posterior means; else None
    left_out : number of ratings left out, whose other id the model does not know
    exposure : (rows, k) of a model that knows ratings and the exposure; else None
    """

    codes: np.ndarray
    biases: np.ndarray
    factors: np.ndarray
    posterior: np.ndarray | None
    left_out: int
    exposure: np.ndarray | None = None


def posterior_of(weights: Weights, side: int) -> np.ndarray | None:
    """Return the posterior rows of side 0 (users) or 1 (items)."""
    return weights.item_posterior if side else weights.user_posterior


def with_rows(
    fitted: Fitted,
    side: int,
    table: IdTable,
    biases: np.ndarray,
    factors: np.ndarray,
    posterior: np.ndarray | None = None,
    moods: dict[str, np.ndarray] | None = None,
    exposure: np.ndarray | None = None,
    at: np.ndarray | slice = NOWHERE,
) -> Fitted:
    """Return a model with another side; the arrays of the side that stays are shared.

    `moods` are the arrays of `moods.with_other_users` if the side is that of the users. `at` are
    the codes in `table` of the model's own ids, whose share in sets stays; new ids have none.
    """
    name = SIDES[side]
    changed: dict[str, Any] = {
        f"{name}_biases": biases,
        f"{name}_factors": factors,
        f"{name}_posterior": posterior,
        f"{name}_exposure": exposure,
    }
    changed |= moods or {}
    changed |= set_rows(fitted.weights, name, len(table), at)
    users, items = fitted.tables
    tables = (users, table) if side else (table, items)
    return fitted._replace(weights=replace(fitted.weights, **changed), tables=tables)


def extended(fitted: Fitted, side: int, ids: np.ndarray, rows: NewRows) -> Fitted:
    """Return a copy of a model with new rows, which replace those of ids that it has."""
    table = fitted.tables[side]
    old_biases, old_factors = rows_of(fitted.weights, side)
    merged = merged_table(table, ids)
    at = slice(None) if merged is table else merged.encode(table.ids, SIDES[side])
    biases = np.zeros(len(merged), old_biases.dtype)
    factors = aligned(len(merged), old_factors.shape[1], old_factors.dtype)
    biases[at] = old_biases
    factors[at] = old_factors
    new_at = merged.encode(ids, SIDES[side])
    biases[new_at] = rows.biases
    factors[new_at] = rows.factors
    posterior = None
    old_posterior = posterior_of(fitted.weights, side)
    if rows.posterior is not None and old_posterior is not None:
        posterior = np.repeat(old_posterior[-1:], len(merged) + 1, axis=0)
        posterior[merged.encode(table.ids, SIDES[side])] = old_posterior[:-1]
        posterior[new_at] = rows.posterior
    moods = None
    if side == USERS:
        codes = merged.encode(table.ids, SIDES[side])
        moods = with_other_users(fitted.weights, len(merged), codes, new_at)
    old_exposure = exposure_of(fitted.weights, side)
    exposure = with_new_rows(old_exposure, rows.exposure, len(merged), at, new_at)
    own = (biases, factors, posterior, moods, exposure, at)
    return with_rows(fitted, side, merged, *own)


def merged_table(table: IdTable, ids: np.ndarray) -> IdTable:
    """Return the id table of a table's ids and more of the same type."""
    if (table.encode(ids, "new") >= 0).all():
        return table
    if table.kind == "int":
        return IdTable(np.union1d(table.ids, ids))
    both = [*table.ids.tolist(), *np.asarray(ids).tolist()]
    return table_and_keys(both, "new")[0]


def only(fitted: Fitted, side: int, ids: np.ndarray, rows: NewRows) -> Fitted:
    """Return a model of one side's new rows alone; the other side's arrays are shared."""
    posterior = None
    old_posterior = posterior_of(fitted.weights, side)
    if rows.posterior is not None and old_posterior is not None:
        posterior = np.vstack([rows.posterior, old_posterior[-1:]])
    moods = None
    if side == USERS:
        moods = without_users(fitted.weights, len(ids))
    own = (rows.biases, rows.factors, posterior, moods, rows.exposure)
    return with_rows(fitted, side, IdTable(ids), *own)
