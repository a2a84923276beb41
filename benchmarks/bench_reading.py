"""Measure how long Ratings takes to read 20 M ratings from files and tables, and how much memory.

    python benchmarks/bench_reading.py [--shape ml-20m] [--cache DIR]

The files have the columns userId, movieId, rating and timestamp. Ids are numbers, or texts such as
user-17 and B0000017.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from common import (
    SHAPES,
    cache_folder,
    check,
    median_seconds,
    peak_memory,
    print_header,
    print_table,
    shaped,
)
from pyarrow import csv, parquet

from funksvd import Ratings

SUFFIXES = ("csv", "parquet")
KINDS = ("int", "str")  # of ids
N_SMALL = 100_000  # ratings of a small file: just enough to be read in the same way as a large one
N_CHECKED = 1000  # ratings whose text ids are compared


def ids_of(kind, users, items):
    """Return (user ids, item ids): the codes themselves, or texts made of them."""
    if kind == "int":
        return users, items
    return texts("user-", users), texts("B000", items)


def texts(prefix, codes):
    """Return an Arrow array of texts: a prefix and the code."""
    numbers = pa.array(codes).cast(pa.string())
    return pc.binary_join_element_wise(prefix, numbers, "")


def file_of(folder, name, kind, suffix):
    return Path(folder) / f"{name}-{kind}.{suffix}"


def small_file(folder, suffix):
    return Path(folder) / f"small.{suffix}"


def write_files(folder, name, users, items, values):
    """Write the files of all kinds of ids that do not exist yet."""
    for kind in KINDS:
        csv_path, parquet_path = (file_of(folder, name, kind, suffix) for suffix in SUFFIXES)
        if csv_path.exists() and parquet_path.exists():
            continue
        user_ids, item_ids = ids_of(kind, users, items)
        rng = np.random.default_rng(0)
        table = pa.table(
            {
                "userId": user_ids,
                "movieId": item_ids,
                "rating": values.astype(float),
                "timestamp": rng.integers(789_652_009, 1_427_784_002, len(users)),
            }
        )
        csv.write_csv(table, csv_path, csv.WriteOptions(quoting_style="none"))
        parquet.write_table(table, parquet_path)


def write_small_files(folder):
    codes = np.arange(N_SMALL)
    table = pa.table({"userId": codes + 10**6, "movieId": codes, "rating": np.ones(N_SMALL)})
    csv.write_csv(table, small_file(folder, "csv"))
    parquet.write_table(table, small_file(folder, "parquet"))


def prepare(path):
    """Read a small file, so that `peak_memory` does not count the libraries that reading loads."""
    path = Path(path)
    Ratings.read(small_file(path.parent, path.suffix[1:]))
    return (path,)


def read(path):
    return Ratings.read(path)


def check_ratings(found, kind, users, items, values):
    """End the benchmark if the ratings read are not those written."""
    check(len(found) == len(values), "number of ratings")
    check(np.array_equal(found.values, values), "ratings")
    if kind == "int":
        check(np.array_equal(found.user_ids[found.users], users), "user ids")
        check(np.array_equal(found.item_ids[found.items], items), "item ids")
        return
    found_ids = found.user_ids[found.users[:N_CHECKED]].tolist()
    check(found_ids == [f"user-{user}" for user in users[:N_CHECKED]], "user ids")


def measure_file(path, kind, users, items, values):
    """Return (megabytes, seconds, million ratings a second, peak MB, peak over the arrays)."""
    path.read_bytes()  # into the system's cache: the disk is not measured
    start = time.perf_counter()
    found = Ratings.read(path)
    first_seconds = time.perf_counter() - start
    check_ratings(found, kind, users, items, values)
    array_bytes = found.users.nbytes + found.items.nbytes + found.values.nbytes
    seconds = min(first_seconds, median_seconds(lambda: Ratings.read(path), 2, 0))
    del found
    peak = peak_memory("bench_reading", "prepare", "read", str(path))
    speed = len(values) / seconds / 1e6
    return path.stat().st_size / 1e6, seconds, speed, peak / 1e6, peak / array_bytes


def print_files(folder, name, users, items, values):
    rows = []
    for kind in KINDS:
        for suffix in SUFFIXES:
            path = file_of(folder, name, kind, suffix)
            measured = measure_file(path, kind, users, items, values)
            rows.append([f"{suffix}, ids {kind}", *measured])
    print(
        "Ratings.read: best of three; peak of memory beyond the process before, "
        "also as a multiple of the arrays int32, int32, float64"
    )
    print_table(["file", "MB", "s", "M ratings/s", "peak MB", "of the arrays"], rows, "files")


def tables_of(kind, users, items, values):
    """Return {name: function that makes a table} of all kinds of tables."""
    import polars as pl

    user_ids, item_ids = ids_of(kind, users, items)
    arrow = pa.table({"user": user_ids, "item": item_ids, "rating": values})
    makers = {
        "pandas": arrow.to_pandas,
        "polars": lambda: pl.from_arrow(arrow),
    }
    if kind == "str":
        encoded = pa.table(
            {
                "user": arrow["user"].dictionary_encode(),
                "item": arrow["item"].dictionary_encode(),
                "rating": values,
            }
        )
        makers["pyarrow dictionary"] = lambda: encoded
        makers["pandas categories"] = encoded.to_pandas
        makers["polars categories"] = lambda: pl.from_arrow(encoded)
    return makers


def print_tables(users, items, values):
    n_users = len(np.unique(users))
    rows = []
    for kind in KINDS:
        for name, make in tables_of(kind, users, items, values).items():
            frame = make()
            check(Ratings.from_frame(frame).n_users == n_users, name)
            seconds = median_seconds(lambda frame=frame: Ratings.from_frame(frame), 3, 0)
            rows.append([f"{name}, ids {kind}", seconds, len(values) / seconds / 1e6])
            del frame
    print("Ratings.from_frame: median of three")
    print_table(["table", "s", "M ratings/s"], rows, "tables")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="ml-20m")
    parser.add_argument(
        "--cache", metavar="DIR", help="folder that keeps the ratings and the files"
    )
    args = parser.parse_args()
    n_ratings = SHAPES[args.shape].ratings
    print_header(
        "pyarrow",
        "narwhals",
        "pandas",
        "polars",
        shape=f"{args.shape}, {n_ratings:,} ratings",
    )
    with cache_folder(args.cache) as folder:
        users, items, values = shaped(args.shape, folder)
        write_files(folder, args.shape, users, items, values)
        write_small_files(folder)
        print_files(folder, args.shape, users, items, values)
        print_tables(users, items, values)


if __name__ == "__main__":
    main()
