"""Vectors with their ids as Parquet, the form that vector indexes and databases load."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from funksvd.machine.replacing import FilePath, check_writable, replacing


def write_vectors(path: FilePath, ids: NDArray[Any], vectors: NDArray[Any]) -> None:
    """Write a Parquet file with the columns `id` and `vector`, one row for each id.

    Parameters
    ----------
    path : path of the file, which is replaced as a whole
    ids : (n,) int or str
    vectors : (n, width) float32 or float64; the column is a list of fixed size

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    OSError
        If the file cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('Parquet needs pyarrow: pip install "funksvd[frames]"') from error

    check_writable(path)
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table({"id": pa.array(ids.tolist()), "vector": column})
    with replacing(path) as file:
        parquet.write_table(table, file)
