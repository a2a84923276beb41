"""The command `funksvd predict`."""

from __future__ import annotations

import argparse

from funksvd.cli.files import check_output, typed_pairs
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_model,
    add_table_output,
)
from funksvd.cli.shown import say, writer
from funksvd.model import load
from funksvd.ratings.reading import read_pairs


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "predict",
        predict,
        summary="predict a rating for each user and item of a file",
        description=(
            "Predict a rating for each pair of user and item in a file, and write the predictions"
            " as CSV with the columns user, item and prediction, in the order of the file. Other"
            " columns of the file are ignored."
        ),
        examples=["funksvd predict movies.npz pairs.csv -o predictions.csv"],
    )
    add_model(command)
    command.add_argument("file", metavar="FILE", help="pairs, one per line: user, item")
    add_table_output(command)
    command.add_argument(
        "--unknown",
        choices=("mean", "nan", "raise"),
        default="mean",
        help=(
            "for a user or item not seen in training: predict the mean and the known bias, write"
            " nan, or fail (default: mean)"
        ),
    )
    add_json(command, "a line of JSON for each pair")
    add_file_options(command, columns=("user", "item"))


def predict(args: argparse.Namespace) -> None:
    """Write a prediction for each pair of a file."""
    if args.output is not None:
        check_output(args.output, args.model, args.file)
    model = load(args.model)
    users, items = read_pairs(
        args.file,
        user=args.user_column,
        item=args.item_column,
        sep=args.sep,
        header=args.header,
        on_bad_lines=args.on_bad_lines,
    )
    users, items = typed_pairs(model, args.file, users, items)
    predictions = model.predict((users, items), unknown=args.unknown)
    rows = zip(users.tolist(), items.tolist(), predictions.tolist(), strict=True)
    with writer(args, ["user", "item", "prediction"], len(predictions)) as write:
        for user, item, prediction in rows:
            is_nan = prediction != prediction
            entry = {"user": user, "item": item, "prediction": None if is_nan else prediction}
            write([[user, item, f"{prediction:.6g}"]], entry)
    if args.output is not None:
        say(args, f"Wrote {len(predictions):,} predictions to {args.output}.")
