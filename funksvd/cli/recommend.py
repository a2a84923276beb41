"""The command `funksvd recommend`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from funksvd.cli.files import check_output, known_id, read_ratings_for
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_model,
    add_table_output,
    add_titles,
)
from funksvd.cli.shown import count, named, say, title_cell, writer
from funksvd.model import FunkSVD, load
from funksvd.ratings.reading import read_titles
from funksvd.ratings.triples import Ratings

# (user ids, item ids of each user, their scores), as `recommend_batches` yields them.
Batch = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "recommend",
        recommend,
        summary="list the items with the highest predictions for users",
        description=(
            "Print the items with the highest predicted ratings, best first, for some users or for"
            " all. A model does not keep its training ratings: with --exclude, the items that a"
            " user has rated in that file are left out."
        ),
        examples=[
            "funksvd recommend movies.npz --user 42 -n 5 --exclude ratings.csv --titles movies.csv",
            "funksvd recommend movies.npz --all --exclude ratings.csv -o recommendations.csv",
        ],
    )
    add_model(command)
    users = command.add_mutually_exclusive_group(required=True)
    users.add_argument(
        "--user",
        metavar="ID",
        action="append",
        help="user to recommend items to; may be given several times",
    )
    users.add_argument("--all", action="store_true", help="recommend to every user of the model")
    command.add_argument(
        "-n", type=int, default=10, metavar="ITEMS", help="items for each user (default: 10)"
    )
    command.add_argument(
        "--exclude", metavar="FILE", help="ratings whose items are not recommended again"
    )
    add_titles(command)
    add_table_output(command)
    add_json(command, "a line of JSON for each user")
    add_file_options(command, short=False)


def recommend(args: argparse.Namespace) -> None:
    """Write the best items of some users or of all."""
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    if args.output is not None:
        check_output(args.output, args.model, args.exclude, args.titles)
    model = load(args.model)
    users = None
    if not args.all:
        users = [known_id(model, "user", text) for text in args.user]
    titles = read_titles(args.titles) if args.titles else {}
    exclude = read_ratings_for(args, model, args.exclude) if args.exclude else None
    n_users = len(model.user_ids_) if users is None else len(users)
    names = ["item", "score"]
    names_user = users is None or n_users > 1
    if names_user:
        names.insert(0, "user")
    if titles:
        names.append("title")
    with writer(args, names, n_users) as write:
        for batch in batches_of(model, users, args.n, exclude):
            for user, items, scores in zip(*(part.tolist() for part in batch), strict=True):
                rows = []
                entries = []
                for item, score in zip(items, scores, strict=True):
                    if score == score:  # NaN where a user has fewer items
                        cells = [item, f"{score:.4f}", *title_cell(titles, item)]
                        rows.append([user, *cells] if names_user else cells)
                        entries.append(named(titles, item) | {"score": score})
                write(rows, {"user": user, "recommendations": entries})
    if args.output is not None:
        say(args, f"Wrote recommendations for {count(n_users, 'user')} to {args.output}.")


def batches_of(
    model: FunkSVD, users: list[Any] | None, n: int, exclude: Ratings | None
) -> Iterable[Batch]:
    """Return the recommendations for some users, or for all users if `users` is None."""
    if users is None:
        return model.recommend_batches(n, exclude)
    items, scores = model.recommend(users, n, exclude)
    return [(np.array(users), items, scores)]
