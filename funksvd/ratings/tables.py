"""Tables in and out: pandas, polars, pyarrow and DuckDB, through narwhals.

narwhals is imported inside the functions: it is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from funksvd.ratings.columns import Chosen, Column, positions_of
from funksvd.ratings.ids import Encoded, checked_ids, refuse_mask
from funksvd.ratings.times import checked_times

TABLE_LIBRARIES = ("pandas", "polars", "pyarrow")


def narwhals() -> Any:
    """Return the module narwhals; ImportError, with the way to install it, if it is missing."""
    try:
        import narwhals.stable.v2 as nw
    except ImportError as error:
        raise ImportError('tables need narwhals: pip install "funksvd[frames]"') from error
    return nw


def as_ids(raw: Any, name: str) -> Any:
    """Return ids in any form, also a column of a table, as `ids.checked_ids` does."""
    library, _, _ = type(raw).__module__.partition(".")
    if library in TABLE_LIBRARIES:
        refuse_mask(raw, f"{name} ids")
        raw = column_ids(raw, name)
    return checked_ids(raw, name)


def as_times(raw: Any, n: int, name: str = "times") -> np.ndarray:
    """Return times in any form, also a column of a table, as `times.checked_times` does."""
    library, _, _ = type(raw).__module__.partition(".")
    if library in TABLE_LIBRARIES:
        raw = column_times(raw, name)
    return checked_times(raw, n, name)


def columns_of(
    frame: Any,
    time: Column | Literal[False] = False,
    **columns: Column,
) -> tuple[Any, ...]:
    """Return columns of a table: ids as arrays or `Encoded`, ratings and times as numbers.

    Parameters
    ----------
    frame : a table of pandas, polars (lazy too), pyarrow or DuckDB, or another that narwhals knows
    time : str, int, None or False
        The column of the times. None finds a well-known name and gives None without one; False
        gives no times.
    **columns : str, int or None
        For each of user, item and rating that is wanted: its name, its position, or None to find a
        well-known name.

    Raises
    ------
    ValueError
        If a column is not found or has missing values.
    TypeError
        If narwhals does not know the table, or ratings are not numbers.
    ImportError
        If narwhals is missing, or pyarrow for a DuckDB relation.
    """
    nw = narwhals()
    table = nw.from_native(frame)
    names = table.collect_schema().names()
    is_default = not any(columns.values())
    if is_default and "rating" not in columns and len(names) == 2:
        positions = [0, 1]  # a table of pairs needs no well-known names
    else:
        positions = list(positions_of(names, columns, "the table"))
    found_time = Chosen(None, None, None, time).time_in(names, "the table")
    if found_time is not None:
        columns["time"] = found_time
        positions = list(positions_of(names, columns, "the table"))
    # By position, since names in pandas need not be text.
    chosen = _collected(table.select(nw.nth(positions)))
    found = []
    for role, series in zip(columns, chosen.iter_columns(), strict=True):
        name = f"column {series.name!r}"
        check_arrow(series, name)
        if role == "rating":
            found.append(_numbers(series, name))
        elif role == "time":
            found.append(_times(series, name))
        else:
            found.append(_ids(series, name))
    if time is None and found_time is None:
        found.append(None)
    return tuple(found)


def column_ids(column: Any, name: str) -> Any:
    """Return the ids of a column of pandas, polars or pyarrow: an array or `Encoded`.

    `name`, "user" or "item", stands for the column in messages.
    """
    if hasattr(column, "codes") and hasattr(column, "categories"):
        return _category_ids(column, name)  # pandas' categories outside a table
    if hasattr(column, "dictionary_encode") and not hasattr(column, "chunks"):
        import pyarrow as pa

        column = pa.chunked_array([column])  # narwhals does not take an array of pyarrow
    nw = narwhals()
    series = nw.from_native(column, series_only=True, pass_through=True)
    if not isinstance(series, nw.Series):
        return np.asarray(column)
    name = f"{name} ids"
    check_arrow(series, name)
    return _ids(series, name)


def check_arrow(series: Any, name: str) -> None:
    """Raise ValueError if a narwhals Series is a column of pyarrow that is damaged."""
    if series.implementation.is_pyarrow():
        from funksvd.ratings.arrow import check_column

        check_column(series.to_native(), name)


def column_times(column: Any, name: str) -> np.ndarray:
    """Return the times of a column of pandas, polars or pyarrow, see `_times`.

    `name` stands for the column in messages.
    """
    nw = narwhals()
    if hasattr(column, "dictionary_encode") and not hasattr(column, "chunks"):
        import pyarrow as pa

        column = pa.chunked_array([column])  # narwhals does not take an array of pyarrow
    series = nw.from_native(column, series_only=True, pass_through=True)
    if not isinstance(series, nw.Series):
        return np.asarray(column)
    return _times(series, name)


def _times(series: Any, name: str) -> np.ndarray:
    """Return a narwhals Series of times: as numbers, NumPy's dates in UTC, or objects."""
    nulls = series.null_count()
    if nulls:
        raise ValueError(
            f"{name} has {nulls} missing times; drop these rows, or leave the times out"
        )
    nw = narwhals()
    dtype = series.dtype
    if dtype == nw.Date:
        series = series.cast(nw.Datetime)
    if isinstance(dtype, nw.Datetime) or dtype == nw.Date:
        milliseconds = series.dt.timestamp("ms").to_numpy()
        seconds = milliseconds.astype(np.int64) // 1000
        moments: np.ndarray = seconds.astype("datetime64[s]")
        return moments
    if dtype.is_numeric():
        numbers: np.ndarray = series.to_numpy()
        return numbers
    objects = np.empty(len(series), object)
    objects[:] = series.to_list()
    return objects


def _category_ids(column: Any, name: str) -> Encoded:
    """Return pandas' Categorical as `Encoded`."""
    codes = np.asarray(column.codes)
    if len(codes) and codes.min() < 0:
        raise ValueError(f"{name} ids have missing values; drop these rows first")
    return Encoded(codes.astype(np.int32), np.asarray(column.categories))


def _ids(series: Any, name: str) -> Any:
    """Return a narwhals Series as ids: an array, or `Encoded` for texts and categories."""
    _refuse_nulls(series, name)
    nw = narwhals()
    dtype = series.dtype
    if isinstance(dtype, nw.Datetime) and dtype.time_zone:
        return _moments(series)
    if dtype not in (nw.Categorical, nw.Enum, nw.String, nw.Binary):
        return series.to_numpy()
    try:
        import pyarrow as pa
    except ImportError:
        return series.to_numpy()  # the same ids, slower
    from funksvd.ratings.arrow import check_column, text_ids

    column = series.to_arrow()
    if not series.implementation.is_pyarrow():  # those of pyarrow are checked already
        check_column(column, name)
    if dtype == nw.String:
        try:
            return text_ids(column)
        except ValueError as error:  # also of texts that are not UTF-8
            raise ValueError(f"{name}: this Arrow column is damaged ({error})") from error
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes = column.indices.cast(pa.int32())
    ids = column.dictionary.to_numpy(zero_copy_only=False)
    return Encoded(codes.to_numpy(), ids)


def _moments(series: Any) -> np.ndarray:
    """Return times with a zone as datetime objects: NumPy's times have no zone."""
    times = np.empty(len(series), object)
    for place, time in enumerate(series.to_list()):
        if hasattr(time, "to_pydatetime"):
            time = time.to_pydatetime()
        times[place] = time
    return times


def _numbers(series: Any, name: str) -> Any:
    """Return a narwhals Series of ratings as an array; TypeError if it holds no numbers."""
    _refuse_nulls(series, name)
    nw = narwhals()
    if series.dtype == nw.Decimal:
        series = series.cast(nw.Float64)
    is_number = series.dtype.is_numeric() or series.dtype == nw.Boolean
    if not is_number:
        raise TypeError(f"{name} must hold numbers, the ratings, got {series.dtype}")
    return series.to_numpy()


def _refuse_nulls(series: Any, name: str) -> None:
    """Raise ValueError if a narwhals Series has missing values."""
    nulls = series.null_count()
    if nulls:
        raise ValueError(f"{name} has {nulls} missing values; drop these rows first")


def long_table(
    users: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
    library: str,
    parts: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Return recommendations as a table with the columns user, item, rank (from 1) and score.

    Parameters
    ----------
    users : (m,) ids
    items, scores : (m, n), best first; a score of NaN ends a row and gets no line
    library : {"pandas", "polars", "pyarrow"}
    parts : (m, n) each, further columns by name
    """
    _, n = scores.shape
    filled = ~np.isnan(scores)
    ranks = np.arange(1, n + 1)
    kept = items[filled]
    if kept.dtype == object and len(kept) and isinstance(kept[0], int | str):
        kept = kept.tolist()  # an array of objects would become a column of objects
    columns = {
        "user": np.repeat(users, filled.sum(1)),
        "item": kept,
        "rank": np.broadcast_to(ranks, scores.shape)[filled],
        "score": scores[filled],
    }
    for name, values in (parts or {}).items():
        columns[name] = values[filled]
    return table_of(columns, library)


def table_of(columns: dict[str, np.ndarray], library: str) -> Any:
    """Return columns as a table of a library of `TABLE_LIBRARIES`."""
    return narwhals().from_dict(columns, backend=library).to_native()


def add_column(frame: Any, name: str, values: np.ndarray) -> Any:
    """Return a table of the same kind with one more column.

    A DuckDB relation comes back on DuckDB's default connection.
    """
    nw = narwhals()
    table = nw.from_native(frame)
    if name in table.collect_schema().names():
        raise ValueError(f"the table has a column {name!r} already; give another name")
    whole = _collected(table)
    column = nw.new_series(name, values, backend=whole.implementation)
    return _in_kind_of(table, whole.with_columns(column))


def _in_kind_of(model: Any, table: Any) -> Any:
    """Return a narwhals table as a native one of the kind of `model`: of DuckDB, or lazy."""
    native = table.to_native()
    if _is_duckdb(model):
        import duckdb

        return duckdb.from_arrow(native)
    if hasattr(model, "collect"):
        return native.lazy()
    return native


def _collected(table: Any) -> Any:
    """Return a narwhals table in memory: polars' own if it is lazy, pyarrow's of DuckDB."""
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


def _is_duckdb(table: Any) -> bool:
    """Return whether a narwhals table is a DuckDB relation."""
    return bool(table.implementation.name == "DUCKDB")
