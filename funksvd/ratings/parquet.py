"""Ratings from Parquet files. Import it only where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from funksvd.machine.threads import cpu_count, parallel
from funksvd.ratings.arrow import as_numbers, codes_into, is_text, joined, seconds_of, shares
from funksvd.ratings.columns import Chosen, RawRatings, shorten
from funksvd.ratings.opening import FilePath, reading_bar
from funksvd.ratings.times import TimeReader

ROWS_OF_A_BATCH = 1 << 17
MOST_ROWS = 1 << 48  # more fit no machine, and their sum might not fit 64 bits
# Arrow hands over the whole dictionary with each batch of a column that is read as one.
ROWS_OF_AN_ENCODED_BATCH = 8 * ROWS_OF_A_BATCH


class Plan(NamedTuple):
    """What is read from a Parquet file.

    names : names of the user, the item, the rating and, if times are read, the time column
    encoded : names of the id columns that are read as dictionaries
    first_rows : (n_groups + 1,) first row of each row group, and the number of all rows
    """

    path: FilePath
    names: list[str]
    encoded: list[str]
    first_rows: np.ndarray


def read_parquet(
    path: FilePath,
    chosen: Chosen,
    progress: bool = False,
) -> tuple[RawRatings, Callable[[int], str]]:
    """Read ratings from a Parquet file.

    Parameters
    ----------
    path : str or path-like
    chosen : Chosen
        The columns.
    progress : whether to show a progress bar

    Returns
    -------
    ratings : RawRatings
        A missing value is an empty id or NaN.
    locate : function
        locate(k) describes, for a message, the row of rating k.
    """
    try:
        plan = _plan_of(path, chosen)
        ratings = _read_groups(plan, progress)
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot read this Parquet file ({error})") from error
    return ratings, partial(_row_of, plan)


def _plan_of(path: FilePath, chosen: Chosen) -> Plan:
    """Return what to read from a file, from its metadata."""
    with parquet.ParquetFile(path) as file:
        all_names = file.schema_arrow.names
        positions = chosen.positions(all_names, path)
        names = [all_names[position] for position in positions]
        id_names = names[:2]
        encoded = [name for name in id_names if is_encoded(file, name)]
        n_rows = [0]
        for group in range(file.num_row_groups):
            n_rows.append(file.metadata.row_group(group).num_rows)
        if min(n_rows) < 0 or max(n_rows) > MOST_ROWS:
            raise ValueError(f"{path}: the numbers of rows in its footer are damaged")
    return Plan(path, names, encoded, np.cumsum(n_rows))


def is_encoded(file: Any, name: str) -> bool:
    """Return whether nearly all texts of a column are codes of Parquet's dictionaries.

    Arrow can hand these over as they are. Where a dictionary grew too long, pages of texts follow,
    which Arrow would encode slowly. The size tells: a text takes 4 bytes for its length and some of
    its own, a code hardly three.
    """
    if not is_text(file.schema_arrow.field(name).type):
        return False
    n_leaves = len(file.schema)  # a nested column has several
    paths = [file.schema.column(leaf).path for leaf in range(n_leaves)]
    leaf = paths.index(name)
    size = 0
    for group in range(file.num_row_groups):
        chunk = file.metadata.row_group(group).column(leaf)
        size += chunk.total_uncompressed_size
    return bool(size < 3 * file.metadata.num_rows)


def _read_groups(plan: Plan, progress: bool) -> RawRatings:
    """Read the columns, with a thread for each share of the row groups."""
    n_groups = len(plan.first_rows) - 1
    n_rows = plan.first_rows[-1]
    user_codes = np.empty(n_rows, np.int32)
    item_codes = np.empty(n_rows, np.int32)
    values = np.empty(n_rows)
    n_shares = max(min(cpu_count(), n_groups), 1)
    groups_of_shares = shares(n_groups, n_shares)
    user, item, rating, *time_names = plan.names
    times = [np.empty(n_rows) for _ in time_names]
    time_reader = TimeReader(f"{plan.path}: the time column")

    with reading_bar(plan.path, len(plan.names) * n_groups, "column chunk", progress) as bar:

        def read_share(groups: slice) -> tuple[list[str], list[str]]:
            rows = _rows_of(plan, groups)
            # A reader is for one thread. It reads one column after the other, so that the memory
            # of each is free before the next comes.
            with parquet.ParquetFile(plan.path, read_dictionary=plan.encoded) as file:
                reader = partial(_arrays, file, plan, groups, bar)
                numbers = partial(as_numbers, name=f"{plan.path}: the rating column {rating!r}")
                _write(values[rows], map(numbers, reader(rating)))
                for name, out in zip(time_names, times, strict=True):
                    seconds = partial(seconds_of, reader=time_reader)
                    _write(out[rows], map(seconds, reader(name)))
                user_texts = codes_into(user_codes[rows], reader(user))
                item_texts = codes_into(item_codes[rows], reader(item))
            return user_texts, item_texts

        texts = parallel(read_share, groups_of_shares, cpu_count())
    rows_of_shares = [_rows_of(plan, groups) for groups in groups_of_shares]
    user_texts, item_texts = zip(*texts, strict=True)
    users = joined(user_codes, rows_of_shares, user_texts)
    items = joined(item_codes, rows_of_shares, item_texts)
    return RawRatings(users, items, values, times[0] if times else None)


def _rows_of(plan: Plan, groups: slice) -> slice:
    """Return the rows of some row groups."""
    first = int(plan.first_rows[groups.start])
    end = int(plan.first_rows[groups.stop])
    return slice(first, end)


def _arrays(
    file: Any,
    plan: Plan,
    groups: slice,
    bar: Any,
    name: str,
) -> Iterator[Any]:
    """Yield one column of some row groups as Arrow arrays; the bar moves with each group.

    Raises
    ------
    ValueError
        If a row group has more or fewer rows than the footer says. Its readers have room for these
        rows, and would leave the places of missing ones as they are.
    """
    rows = ROWS_OF_AN_ENCODED_BATCH if name in plan.encoded else ROWS_OF_A_BATCH
    for group in range(groups.start, groups.stop):
        left = int(plan.first_rows[group + 1] - plan.first_rows[group])
        for batch in file.iter_batches(rows, [group], [name], use_threads=False):
            left -= len(batch)
            if left < 0:
                break
            yield batch[name]
        if left:
            raise ValueError(
                f"{plan.path}: row group {group} has {'more' if left < 0 else 'fewer'} rows of"
                f" {name!r} than the footer says; the file is damaged"
            )
        bar.update()


def _write(out: np.ndarray, arrays: Iterable[np.ndarray]) -> None:
    """Write a column, which comes as one array after the other, to `out`."""
    done = 0
    for array in arrays:
        end = done + len(array)
        out[done:end] = array
        done = end


def _row_of(plan: Plan, k: int) -> str:
    """Return row k for a message."""
    group = int(np.searchsorted(plan.first_rows, k, "right")) - 1
    with parquet.ParquetFile(plan.path) as file:
        table = file.read_row_group(group, plan.names)
    place = k - int(plan.first_rows[group])
    table = table.select(plan.names)
    row = table.slice(place, 1).to_pylist()[0]
    return f"row {k} (from 0): {shorten(str(row))}"
