"""The command `funksvd convert`."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from funksvd.cli.files import check_output, read
from funksvd.cli.options import COLUMNS, Commands, add_command, add_file_options, add_json
from funksvd.cli.shown import print_json, progress, say, size_of
from funksvd.machine.replacing import replacing
from funksvd.model import load

LINES_OF_A_PART = 100_000  # written between two steps of the progress bar
MODEL_KINDS = (".npz", ".safetensors")
RATING_KINDS = (".csv", ".parquet")


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "convert",
        convert,
        summary="change the format of a model or of ratings",
        description=(
            "Write a model as npz or safetensors, or ratings as CSV or Parquet, which reads several"
            " times faster. The end of the output's name decides the format."
        ),
        examples=[
            "funksvd convert movies.npz movies.safetensors",
            "funksvd convert ratings.csv ratings.parquet",
        ],
    )
    command.add_argument("file", metavar="FILE", help="file of a model or of ratings")
    command.add_argument(
        "output",
        metavar="OUTPUT",
        help="file to write: .npz or .safetensors for a model, .csv or .parquet for ratings",
    )
    add_json(command)
    add_file_options(command)


def convert(args: argparse.Namespace) -> None:
    """Write a model or ratings in another format."""
    check_output(args.output, args.file)
    is_model = holds_model(args.file)
    kinds = MODEL_KINDS if is_model else RATING_KINDS
    if not args.output.endswith(kinds):
        content = "a model" if is_model else "ratings"
        raise ValueError(
            f"{args.file} holds {content}, so the name of the output must end in"
            f" {' or '.join(kinds)}, got {args.output}"
        )
    if is_model:
        load(args.file).save(args.output)
        written = "the model"
    else:
        users, items, values = read(args, args.file)
        columns = [users.decode(), items.decode(), values]
        if args.output.endswith(".parquet"):
            write_parquet(args.output, columns)
        else:
            write_csv(args.output, columns)
        written = f"{len(values):,} ratings"
    say(args, f"Wrote {written} to {args.output} ({size_of(args.output)}).")
    if args.json:
        print_json({"output": args.output, "bytes": os.path.getsize(args.output)})


def holds_model(path: str) -> bool:
    """Return whether a file is a model, told from ratings by its first bytes or its name."""
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    return is_zip or path.endswith(".safetensors")


def write_parquet(path: str, columns: Sequence[NDArray[Any]]) -> None:
    """Write users, items and ratings as Parquet."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('Parquet needs pyarrow: pip install "funksvd[frames]"') from error
    table = pa.table(dict(zip(COLUMNS, columns, strict=True)))
    with replacing(path) as file:
        parquet.write_table(table, file)


def write_csv(path: str, columns: Sequence[NDArray[Any]]) -> None:
    """Write users, items and ratings as CSV, whole ratings without a decimal point."""
    with replacing(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        starts = range(0, len(columns[0]), LINES_OF_A_PART)
        for start in progress(starts, "writing", "part"):
            part = slice(start, start + LINES_OF_A_PART)
            users, items, values = (column[part].tolist() for column in columns)
            ratings = [repr(value).removesuffix(".0") for value in values]
            table.writerows(zip(users, items, ratings, strict=True))
