"""The command `funksvd split`."""

from __future__ import annotations

import argparse
import csv
import os
from typing import Any

import numpy as np

from funksvd.cli.files import check_output, read_raw
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_ratings,
    add_time_column,
)
from funksvd.cli.shown import count, print_json, say
from funksvd.machine.replacing import replacing
from funksvd.model_selection import TimeSplit
from funksvd.ratings.triples import Ratings

PARTS = ("train", "test")
# Ratings that are written at a time.
ROWS_OF_A_WRITE = 100_000


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "split",
        split,
        summary="split a file of ratings into one to train on and one to test on",
        description=(
            "Write train.csv and test.csv into a folder. The test part is chosen at random, or with"
            " --by-time is the last part of the ratings. The parts do not depend on the order of"
            " the lines of the file."
        ),
        examples=[
            "funksvd split ratings.csv --test-size 0.1 -o parts",
            "funksvd split ratings.csv --test-size 0.1 --by-time -o parts",
        ],
    )
    add_ratings(command)
    command.add_argument(
        "--test-size",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the ratings in the test part (default: 0.1)",
    )
    command.add_argument(
        "--by-time",
        action="store_true",
        help="test on the last ratings; the file needs a column of times",
    )
    command.add_argument(
        "-o", "--output", metavar="DIR", default=".", help="folder to write to (default: this one)"
    )
    command.add_argument(
        "--random-state", type=int, default=0, metavar="N", help="seed of the choice (default: 0)"
    )
    add_json(command)
    add_time_column(command)
    add_file_options(command)


def split(args: argparse.Namespace) -> None:
    """Write the two parts of a file of ratings."""
    paths = [os.path.join(args.output, f"{part}.csv") for part in PARTS]
    os.makedirs(args.output, exist_ok=True)
    for path in paths:
        check_output(path, args.file)
    raw = read_raw(args, args.file, args.time_column)
    ratings = Ratings.from_arrays(raw.users, raw.items, raw.values, times=raw.times)
    parts = parts_of(args, ratings)
    for path, part in zip(paths, parts, strict=True):
        write(path, part)
        say(args, f"Wrote {count(len(part), 'rating')} to {path}.")
    if args.json:
        print_json({name: len(part) for name, part in zip(PARTS, parts, strict=True)})


def parts_of(args: argparse.Namespace, ratings: Ratings) -> tuple[Ratings, Ratings]:
    """Return (train, test); ValueError if one would be empty, or times are wanted and missing."""
    if not args.by_time:
        return ratings.split(args.test_size, args.random_state)
    if ratings.times is None:
        raise ValueError(
            f"--by-time needs a column of times, and {args.file} has none with a well-known name;"
            " give its name or position with --time-column"
        )
    return next(TimeSplit(args.test_size).split(ratings))


def write(path: str, ratings: Ratings) -> None:
    """Write ratings as CSV with a header."""
    names = ["user", "item", "rating"]
    if ratings.times is not None:
        names.append("time")
    with replacing(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        for first in range(0, len(ratings), ROWS_OF_A_WRITE):
            part = ratings[first : first + ROWS_OF_A_WRITE]
            table.writerows(zip(*columns_of(part), strict=True))


def columns_of(ratings: Ratings) -> list[list[Any]]:
    """Return the columns of ratings as lists; a rating has as few digits as tell it from others."""
    columns = [
        ratings.user_ids[ratings.users].tolist(),
        ratings.item_ids[ratings.items].tolist(),
        [text.removesuffix(".0") for text in np.asarray(ratings.values).astype(str).tolist()],
    ]
    if ratings.times is not None:
        columns.append(ratings.times.tolist())
    return columns
