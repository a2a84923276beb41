"""The command `funksvd plot`."""

from __future__ import annotations

import argparse

from funksvd.cli.files import check_output, read_ratings_for
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_model,
    add_titles,
)
from funksvd.cli.shown import print_json, say
from funksvd.model import load
from funksvd.ratings.reading import read_titles

# Kind of picture -> the options that it needs.
KINDS: dict[str, tuple[str, ...]] = {
    "learning-curve": (),
    "predictions": ("ratings",),
    "popularity": ("ratings", "train"),
    "map": (),
    "spectrum": (),
}


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "plot",
        plot,
        summary="draw a model: its learning curve, errors or factors",
        description=(
            "Draw one picture of a model; this needs matplotlib. The kinds are:\n"
            "learning-curve: RMSE of each epoch.\n"
            "predictions: predicted against actual ratings of --ratings.\n"
            "popularity: RMSE on --ratings by the number of ratings that an item (or user) has in"
            " --train.\n"
            "map: items in the plane of their factors, named by --titles.\n"
            "spectrum: how much each direction of the factors adds to the predictions."
        ),
        examples=[
            "funksvd plot map movies.npz --titles movies.csv --ratings ratings.csv -o map.png"
        ],
    )
    command.add_argument(
        "kind",
        choices=tuple(KINDS),
        metavar="KIND",
        help="learning-curve, predictions, popularity, map or spectrum",
    )
    add_model(command)
    command.add_argument(
        "-o", "--output", metavar="IMAGE", help="png, svg or pdf file (default: KIND.png)"
    )
    command.add_argument(
        "--ratings",
        metavar="FILE",
        help="ratings to measure the error on; map draws the items that have most of them",
    )
    command.add_argument(
        "--train", metavar="FILE", help="ratings that the model was trained on, to be counted"
    )
    command.add_argument(
        "--by",
        choices=("item", "user"),
        default="item",
        help="count the ratings of each item or of each user (default: item)",
    )
    add_titles(command)
    add_json(command)
    add_file_options(command, short=False)


def plot(args: argparse.Namespace) -> None:
    """Draw one picture of a model."""
    import funksvd.plots as plots

    for name in KINDS[args.kind]:
        if getattr(args, name) is None:
            raise ValueError(f"funksvd plot {args.kind} needs --{name} FILE")
    output = args.output or f"{args.kind}.png"
    check_output(output, args.model, args.ratings, args.train, args.titles)
    model = load(args.model)
    ratings = read_ratings_for(args, model, args.ratings) if args.ratings else None
    trained = read_ratings_for(args, model, args.train) if args.train else None
    titles = read_titles(args.titles) if args.titles else None
    if args.kind == "learning-curve":
        plots.learning_curve(model, output)
    elif args.kind == "predictions" and ratings is not None:
        plots.predicted_against_actual(model, ratings, output)
    elif args.kind == "popularity" and ratings is not None and trained is not None:
        plots.error_by_popularity(model, ratings, trained, output, by=args.by)
    elif args.kind == "map":
        plots.factor_map(model, titles, output, ratings=ratings)
    else:
        plots.factor_spectrum(model, output)
    say(args, f"Drew {output}.")
    if args.json:
        print_json({"plot": output})
