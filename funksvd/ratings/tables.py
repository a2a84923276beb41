"""Tables in and out: pandas, polars, pyarrow and DuckDB through narwhals, which is imported inside the functions."""

from __future__ import annotations

import numpy as np

from funksvd.ratings.columns import resolve
from funksvd.ratings.ids import Encoded, checked_ids, refuse_mask


def long_table(users, items, scores, backend):
    """A table of the library `backend`: one row for each recommendation, with its rank from 1 on."""
    from funksvd.ratings.tables import narwhals

    there = ~np.isnan(scores)
    rank = np.broadcast_to(np.arange(1, scores.shape[1] + 1), scores.shape)
    kept = items[there]
    columns = {
        "user": np.repeat(users, there.sum(1)),
        "item": np.array(kept.tolist())
        if kept.dtype == object and len(kept) and isinstance(kept[0], (int, str))
        else kept,
        "rank": rank[there],
        "score": scores[there],
    }
    return narwhals().from_dict(columns, backend=backend).to_native()


def as_ids(raw, name):
    """Ids in any form, a column of a table among them, as `ids.checked_ids` returns them."""
    if type(raw).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow"):
        refuse_mask(raw, f"{name} ids")
        raw = column_ids(raw, name)
    return checked_ids(raw, name)


def columns_of(frame, **columns):
    """The columns of a table: ids as arrays or `Encoded`, ratings as numbers.

    Parameters
    ----------
    frame : a table of pandas, polars (lazy too), pyarrow or DuckDB, or another that narwhals knows
    **columns : str, int or None
        For user, item and rating, those wanted: name, position, or None to find a well-known name.

    Raises
    ------
    ValueError
        A column that is not there or cannot be told, or has missing values.
    TypeError
        No such table, or ratings that are not numbers.
    ImportError
        narwhals is missing, or pyarrow for a DuckDB relation.
    """
    nw = narwhals()
    table = nw.from_native(frame)
    names = table.collect_schema().names()
    if "rating" not in columns and len(names) == 2 and not any(columns.values()):
        positions = [0, 1]  # a table of pairs needs no well-known names
    else:
        positions = resolve(names, columns, "the table")
    table = _collected(
        table.select(nw.nth(list(positions)))
    )  # by position: pandas has names that are no text
    return tuple(
        _numbers(column, column.name)
        if role == "rating"
        else _ids(column, f"column {column.name!r}")
        for role, column in zip(columns, table.iter_columns(), strict=True)
    )


def column_ids(column, name):
    """The ids of a column of pandas, polars or pyarrow: an array or `Encoded`."""
    if hasattr(column, "codes") and hasattr(
        column, "categories"
    ):  # pandas' categories outside a table
        codes = np.asarray(column.codes)
        if len(codes) and codes.min() < 0:
            raise ValueError(f"{name} ids have missing values; drop these rows first")
        return Encoded(codes.astype(np.int32), np.asarray(column.categories))
    if hasattr(column, "dictionary_encode") and not hasattr(
        column, "chunks"
    ):  # an array of pyarrow
        import pyarrow as pa

        column = pa.chunked_array([column])
    nw = narwhals()
    series = nw.from_native(column, series_only=True, pass_through=True)
    return _ids(series, f"{name} ids") if isinstance(series, nw.Series) else np.asarray(column)


def add_column(frame, name, values):
    """The table with one more column, in its own kind. A DuckDB relation comes back on the default connection."""
    nw = narwhals()
    table = nw.from_native(frame)
    if name in table.collect_schema().names():
        raise ValueError(f"the table has a column {name!r} already; give another name")
    whole = _collected(table)
    column = nw.new_series(name, values, backend=whole.implementation)
    return _in_kind_of(table, whole.with_columns(column))


def make_table(columns, like):
    """A table {name: array} of the kind of `like`, a table or a column of one."""
    nw = narwhals()
    model = nw.from_native(like, allow_series=True)
    backend = "pyarrow" if _is_duckdb(model) else model.implementation
    return _in_kind_of(model, nw.from_dict(columns, backend=backend))


def narwhals():
    try:
        import narwhals.stable.v2 as nw
    except ImportError as error:
        raise ImportError('tables need narwhals: pip install "funksvd[frames]"') from error
    return nw


def _collected(table):
    """A table in memory: polars' own where it is lazy, pyarrow's of a DuckDB relation."""
    if not hasattr(table, "collect"):
        return table
    if _is_duckdb(table):
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                'DuckDB relations need pyarrow: pip install "funksvd[frames]"'
            ) from error
    return table.collect()


def _is_duckdb(table):
    return table.implementation.name == "DUCKDB"


def _in_kind_of(model, table):
    native = table.to_native()
    if _is_duckdb(model):
        import duckdb

        return duckdb.from_arrow(native)
    return native.lazy() if hasattr(model, "collect") else native


def _numbers(series, name):
    _refuse_nulls(series, f"column {name!r}")
    nw = narwhals()
    if series.dtype == nw.Decimal:
        series = series.cast(nw.Float64)
    if not series.dtype.is_numeric() and series.dtype != nw.Boolean:
        raise TypeError(f"column {name!r} must hold numbers, the ratings, got {series.dtype}")
    return series.to_numpy()


def _ids(series, what):
    _refuse_nulls(series, what)
    nw = narwhals()
    if isinstance(series.dtype, nw.Datetime) and series.dtype.time_zone:  # NumPy has no zones
        times = np.empty(len(series), object)
        times[:] = [
            x.to_pydatetime() if hasattr(x, "to_pydatetime") else x for x in series.to_list()
        ]
        return times
    if series.dtype not in (nw.Categorical, nw.Enum, nw.String, nw.Binary):
        return series.to_numpy()
    try:
        import pyarrow as pa
    except ImportError:
        return series.to_numpy()  # the same ids, slower
    column = series.to_arrow()
    if series.dtype == nw.String:
        from funksvd.ratings.arrow import text_ids

        return text_ids(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return Encoded(
        encoded.indices.cast(pa.int32()).to_numpy(),
        encoded.dictionary.to_numpy(zero_copy_only=False),
    )


def _refuse_nulls(series, what):
    nulls = series.null_count()
    if nulls:
        raise ValueError(f"{what} has {nulls} missing values; drop these rows first")
