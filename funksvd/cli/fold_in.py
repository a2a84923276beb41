"""The command `funksvd fold-in`."""

from __future__ import annotations

import argparse

from funksvd.cli.files import check_output, read_ratings_for, save
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_model,
    add_ratings,
)
from funksvd.cli.shown import count, print_json, say
from funksvd.model import load


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "fold-in",
        fold_in,
        summary="add users or items to a model without training it again",
        description=(
            "Compute factors for the users of a file of ratings, given the items of the model, and"
            " save a model that knows these users, too. The rest of the model does not change. A"
            " user that the model already knows gets new factors from the ratings of the file"
            " alone, so the file should hold all ratings of such a user."
        ),
        examples=["funksvd fold-in movies.npz new_users.csv -o movies.npz"],
    )
    add_model(command)
    add_ratings(command, "ratings of new users")
    command.add_argument(
        "-o", "--output", metavar="MODEL", required=True, help="file for the extended model"
    )
    command.add_argument(
        "--side",
        choices=("users", "items"),
        default="users",
        help=(
            "fold in users, given the items that the model knows, or items, given its users"
            " (default: users)"
        ),
    )
    add_json(command)
    add_file_options(command)


def fold_in(args: argparse.Namespace) -> None:
    """Save a model that also knows the users (or items) of a file of ratings."""
    check_output(args.output, args.file)
    model = load(args.model)
    ratings = read_ratings_for(args, model, args.file)
    extended = model.fold_in(ratings, side=args.side)
    if args.side == "users":
        n_folded = ratings.n_users
        n_new = len(extended.user_ids_) - len(model.user_ids_)
    else:
        n_folded = ratings.n_items
        n_new = len(extended.item_ids_) - len(model.item_ids_)
    rows = count(n_folded, args.side.removesuffix("s"))
    say(args, f"Folded in {rows}, {n_new:,} of them new, from {len(ratings):,} ratings.")
    save(args, extended)
    if args.json:
        print_json(
            {
                "model": args.output,
                "folded_in": n_folded,
                "new": n_new,
                "ratings": len(ratings),
            }
        )
