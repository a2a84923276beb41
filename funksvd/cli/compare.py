"""The command `funksvd compare`."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from funksvd.cli.files import read_ratings
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_list_options,
    add_ratings,
    known_parameter,
    number_of,
)
from funksvd.cli.shown import print_json, say, shows_progress
from funksvd.model import FunkSVD

if TYPE_CHECKING:
    from funksvd.comparing import Interval

# The models that are compared by default.
USUAL = ("solver=sgd", "solver=gibbs")


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "compare",
        compare,
        summary="compare models with each other and with base lines",
        description=(
            "Split a file of ratings at random several times, train models on each larger part and"
            " measure them on the rest, and print one table: the error (RMSE), the quality of lists"
            " of unseen items (NDCG) and the seconds of training, as means over the splits with"
            " 95 % confidence intervals. The first two rows are base lines: the most popular items,"
            " and a model of biases alone."
        ),
        examples=[
            "funksvd compare ratings.csv --threshold 4",
            "funksvd compare ratings.csv --model solver=sgd,n_factors=32 --model solver=gibbs",
        ],
    )
    add_ratings(command)
    command.add_argument(
        "--model",
        metavar="NAME=V,NAME=V",
        action="append",
        help=(
            "parameters of a model; may be given several times (default: two models, solver=sgd"
            " and solver=gibbs)"
        ),
    )
    command.add_argument(
        "--test-size",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the ratings that a split holds out (default: 0.1)",
    )
    command.add_argument(
        "--splits", type=int, default=3, metavar="N", help="number of random splits (default: 3)"
    )
    add_list_options(command, 10)
    command.add_argument(
        "--random-state", type=int, default=0, metavar="N", help="first seed (default: 0)"
    )
    add_json(command)
    add_file_options(command)


def compare(args: argparse.Namespace) -> None:
    """Print a table of models and base lines."""
    from funksvd.comparing import compare as compared

    models = {text: model_of(text) for text in args.model or USUAL}
    for model in models.values():
        model._check_params()  # before a large file is read
    ratings = read_ratings(args, args.file)
    say(
        args,
        f"Training {len(models)} models on each of {args.splits} random splits of"
        f" {len(ratings):,} ratings.\n",
    )
    result = compared(
        models,
        ratings,
        k=args.top,
        threshold=args.threshold,
        test_size=args.test_size,
        n_splits=args.splits,
        random_state=args.random_state,
        progress=shows_progress(),
    )
    if args.json:
        rows = {}
        for name, row in result.rows.items():
            rows[name] = {metric: entry_of(interval) for metric, interval in row.items()}
        print_json(rows)
    else:
        print(result)


def entry_of(interval: Interval) -> dict[str, float | None]:
    """Return an interval for JSON, which knows no NaN."""
    return {"mean": interval.mean, "half": None if math.isnan(interval.half) else interval.half}


def model_of(text: str) -> FunkSVD:
    """Return the model of a text such as "solver=sgd,n_factors=32".

    Raises
    ------
    ValueError
        If the text has another form or a parameter is unknown.
    """
    parameters = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        wrong = f"--model takes PARAMETER=VALUE,PARAMETER=VALUE,..., got {text!r}"
        name = known_parameter(name, wrong)
        if not equals or not value:
            raise ValueError(f"{wrong}; {name} has no value")
        parameters[name] = number_of(value.strip())
    return FunkSVD(**parameters)
