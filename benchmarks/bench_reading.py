"""How long Ratings takes to read 20 M ratings from files and tables, and how much memory.

    python benchmarks/bench_reading.py [--shape ml-20m] [--cache DIR]

The files have the columns userId, movieId, rating and timestamp; ids are numbers, or text such as user-17 and B0000017.
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

KINDS = {
    "int": lambda users, items: (users, items),
    "str": lambda users, items: (texts("user-", users), texts("B000", items)),
}


def texts(prefix, codes):
    return pc.binary_join_element_wise(prefix, pa.array(codes).cast(pa.string()), "")


def write(folder, name, users, items, values):
    """Make the files that are not there yet."""
    for kind, ids in KINDS.items():
        csv_path, parquet_path = (
            Path(folder) / f"{name}-{kind}.{suffix}" for suffix in ("csv", "parquet")
        )
        if csv_path.exists() and parquet_path.exists():
            continue
        user_ids, item_ids = ids(users, items)
        times = np.random.default_rng(0).integers(789_652_009, 1_427_784_002, len(users))
        table = pa.table(
            {
                "userId": user_ids,
                "movieId": item_ids,
                "rating": values.astype(float),
                "timestamp": times,
            }
        )
        csv.write_csv(table, csv_path, csv.WriteOptions(quoting_style="none"))
        parquet.write_table(table, parquet_path)


def nothing(path):
    """For `peak_memory`: what is there before; the libraries, which a first small read has loaded."""
    small = Path(path).with_name(f"small{Path(path).suffix}")
    Ratings.read(small)
    return (path,)


def read(path):
    return Ratings.read(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="ml-20m")
    parser.add_argument(
        "--cache", metavar="DIR", help="folder that keeps the ratings and the files"
    )
    args = parser.parse_args()
    print_header(
        "pyarrow",
        "narwhals",
        "pandas",
        "polars",
        shape=f"{args.shape}, {SHAPES[args.shape].ratings:,} ratings",
    )
    with cache_folder(args.cache) as folder:
        users, items, values = shaped(args.shape, folder)
        write(folder, args.shape, users, items, values)
        for suffix in ("csv", "parquet"):  # just large enough to take the same way
            n = np.arange(100_000)
            small = pa.table({"userId": n + 10**6, "movieId": n, "rating": np.ones(len(n))})
            path = Path(folder) / f"small.{suffix}"
            if suffix == "csv":
                csv.write_csv(small, path)
            else:
                parquet.write_table(small, path)
        rows = []
        for kind in KINDS:
            for suffix in ("csv", "parquet"):
                path = Path(folder) / f"{args.shape}-{kind}.{suffix}"
                path.read_bytes()  # into the system's cache: the disk is not what is measured
                start = time.perf_counter()
                found = Ratings.read(path)
                seconds = time.perf_counter() - start
                check(len(found) == len(values) and np.array_equal(found.values, values), "ratings")
                if kind == "int":
                    check(np.array_equal(found.user_ids[found.users], users), "user ids")
                    check(np.array_equal(found.item_ids[found.items], items), "item ids")
                else:
                    some = slice(0, 1000)
                    check(
                        found.user_ids[found.users[some]].tolist()
                        == [f"user-{u}" for u in users[some]],
                        "user ids",
                    )
                seconds = min(seconds, median_seconds(lambda path=path: Ratings.read(path), 2, 0))
                arrays = sum(part.nbytes for part in (found.users, found.items, found.values))
                del found
                peak = peak_memory("bench_reading", "nothing", "read", str(path))
                rows.append(
                    [
                        f"{suffix}, ids {kind}",
                        path.stat().st_size / 1e6,
                        seconds,
                        len(values) / seconds / 1e6,
                        peak / 1e6,
                        peak / arrays,
                    ]
                )
        print(
            "Ratings.read: best of three; peak beyond the process before, over the arrays int32, int32, float64"
        )
        print_table(["file", "MB", "s", "M ratings/s", "peak MB", "of the arrays"], rows)

        rows = []
        tables(rows, users, items, values)
        print("Ratings.from_frame: median of three")
        print_table(["table", "s", "M ratings/s"], rows)


def tables(rows, users, items, values):
    import polars as pl

    for kind, ids in KINDS.items():
        user_ids, item_ids = ids(users, items)
        arrow = pa.table({"user": user_ids, "item": item_ids, "rating": values})
        encoded = pa.table(
            {
                "user": arrow["user"].dictionary_encode(),
                "item": arrow["item"].dictionary_encode(),
                "rating": values,
            }
        )
        made = {
            "pandas": lambda arrow=arrow: arrow.to_pandas(),
            "polars": lambda arrow=arrow: pl.from_arrow(arrow),
        }
        if kind == "str":
            made |= {
                "pyarrow dictionary": lambda encoded=encoded: encoded,
                "pandas categories": lambda encoded=encoded: encoded.to_pandas(),
                "polars categories": lambda encoded=encoded: pl.from_arrow(encoded),
            }
        for name, make in made.items():
            frame = make()
            check(Ratings.from_frame(frame).n_users == len(np.unique(users)), name)
            seconds = median_seconds(lambda frame=frame: Ratings.from_frame(frame), 3, 0)
            rows.append([f"{name}, ids {kind}", seconds, len(values) / seconds / 1e6])
            del frame


if __name__ == "__main__":
    main()
