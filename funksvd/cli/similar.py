"""The command `funksvd similar`."""

from __future__ import annotations

import argparse
import csv
import sys

from funksvd.cli.files import known_id
from funksvd.cli.options import Commands, add_command, add_json, add_model, add_titles
from funksvd.cli.shown import fit_for, named, print_json, title_cell
from funksvd.model import load
from funksvd.ratings.reading import read_titles


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "similar",
        similar,
        summary="list the items (or users) that are most like a given one",
        description=(
            "Print the items whose factors are most like those of an item, or the users most like"
            " a user. The measure cosine compares the kinds of two items; dot also counts how"
            " strongly people feel about them."
        ),
        examples=["funksvd similar movies.npz --item 50 --titles movies.csv"],
    )
    add_model(command)
    side = command.add_mutually_exclusive_group(required=True)
    side.add_argument("--item", metavar="ID", help="item to compare with")
    side.add_argument("--user", metavar="ID", help="user to compare with")
    command.add_argument(
        "-n", type=int, default=10, metavar="N", help="number of items or users (default: 10)"
    )
    command.add_argument(
        "--measure",
        choices=("cosine", "dot"),
        default="cosine",
        help="measure of similarity (default: cosine)",
    )
    add_titles(command)
    add_json(command)


def similar(args: argparse.Namespace) -> None:
    """Print the items (or users) most like a given one."""
    if args.n < 1:
        raise ValueError(f"-n must be 1 or more, got {args.n}")
    model = load(args.model)
    side = "user" if args.item is None else "item"
    asked = known_id(model, side, getattr(args, side))
    titles = read_titles(args.titles) if args.titles else {}
    search = model.similar_users if side == "user" else model.similar_items
    ids, scores = search(asked, args.n, args.measure)
    rows = []
    entries = []
    for row_id, score in zip(ids.tolist(), scores.tolist(), strict=True):
        rows.append([row_id, f"{score:.4f}", *title_cell(titles, row_id)])
        entries.append(named(titles, row_id, side) | {"similarity": score})
    if args.json:
        print_json({side: asked, "measure": args.measure, "similar": entries})
        return
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow([side, "similarity", "title"] if titles else [side, "similarity"])
    table.writerows(fit_for(sys.stdout, rows))
