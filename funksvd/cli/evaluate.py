"""The command `funksvd evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from funksvd.cli.files import read_ratings_for
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_list_options,
    add_model,
    add_ratings,
)
from funksvd.cli.shown import count, print_json
from funksvd.model import load

# What a table shows of lists: name of the metric, its label and its meaning.
SHOWN = (
    ("ndcg", "NDCG", "gains of relevant items, discounted by rank, of the most possible"),
    ("precision", "precision", "share of the list that is relevant"),
    ("recall", "recall", "share of the relevant items that the list holds"),
    ("map", "MAP", "mean precision at the ranks of relevant items"),
    ("mrr", "MRR", "1 / rank of the first relevant item"),
    ("hit_rate", "hit rate", "share of users with a relevant item in the list"),
    ("coverage", "coverage", "share of all items that are in a list"),
    ("novelty", "novelty", "bits of surprise; 1 more is half as popular"),
)


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "evaluate",
        evaluate,
        summary="measure a model on a file of ratings",
        description=(
            "Print the root mean squared error (RMSE) and the mean absolute error (MAE) of a model"
            " on the ratings of a file, and the share of ratings whose user or item the model has"
            " not seen in training. With --top, print also how good its recommendations are: each"
            " user of the file gets a list of the best items that are not in the training file,"
            " and the items that the user rates highly in the file are the relevant ones. Beside"
            " them stand the most popular items and a model of biases alone."
        ),
        examples=[
            "funksvd evaluate movies.npz held_out.csv",
            "funksvd evaluate movies.npz held_out.csv --top 10 --exclude train.csv --threshold 4",
        ],
    )
    add_model(command)
    add_ratings(command)
    add_list_options(command)
    command.add_argument(
        "--exclude", metavar="FILE", help="ratings of training, whose items are not recommended"
    )
    command.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with --top, measure popularity and biases alone, too (default: yes)",
    )
    add_json(command)
    add_file_options(command)


def evaluate(args: argparse.Namespace) -> None:
    """Print the errors of a model on the ratings of a file, and the quality of its lists."""
    if args.top is None and (args.exclude is not None or args.threshold is not None):
        option = "--exclude" if args.exclude is not None else "--threshold"
        raise ValueError(f"{option} needs --top, the length of the lists to measure")
    if args.top is not None and args.exclude is None:
        raise ValueError(
            "--top needs --exclude, the file of the training ratings: lists of items that users"
            " have rated already measure nothing"
        )
    model = load(args.model)
    ratings = read_ratings_for(args, model, args.file)
    lists: dict[str, Any] = {}
    if args.top is not None:
        lists = {
            "k": args.top,
            "exclude": read_ratings_for(args, model, args.exclude),
            "threshold": args.threshold,
            "baselines": args.baselines,
        }
    result = model.evaluate(ratings, **lists)
    if args.json:
        print_json(result)
        return
    if "rmse" in result:  # a model of solver="ials" predicts no ratings
        print(f"RMSE     {result['rmse']:.4f}  root mean squared error")
        print(f"MAE      {result['mae']:.4f}  mean absolute error")
    print(f"ratings  {result['n']:,}")
    print(f"unknown  {result['unknown']:.2%}  of the ratings have a user or an item not trained on")
    if args.top is not None:
        print_lists(args, result)


def print_lists(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print the metrics of lists beside those of the base lines."""
    relevant = "rated" if args.threshold is None else f"rated {args.threshold:g} or higher"
    print(
        f"\nLists of {args.top} unseen items for {count(result['n_users'], 'user')}, in which the"
        f" items {relevant} in {args.file} are relevant:\n"
    )
    columns = {"this model": result, **result.get("baselines", {})}
    names = [name.replace("_", " ") for name in columns]
    print(" " * 9, *(name.rjust(11) for name in names))
    for name, label, meaning in SHOWN:
        values = [f"{column[name]:11.4f}" for column in columns.values()]
        print(label.ljust(9), *values, "", meaning)
    values = [
        f"{column['rmse']:11.4f}" if "rmse" in column else " " * 11 for column in columns.values()
    ]
    print("RMSE".ljust(9), *values)
