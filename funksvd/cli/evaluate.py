"""The command `funksvd evaluate`."""

from __future__ import annotations

import argparse

from funksvd.cli.files import read_ratings_for
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_model,
    add_ratings,
)
from funksvd.cli.shown import print_json
from funksvd.model import load


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "evaluate",
        evaluate,
        summary="measure the error of a model on a file of ratings",
        description=(
            "Print the root mean squared error (RMSE) and the mean absolute error (MAE) of a model"
            " on the ratings of a file, and the share of ratings whose user or item the model has"
            " not seen in training."
        ),
        examples=["funksvd evaluate movies.npz held_out.csv"],
    )
    add_model(command)
    add_ratings(command)
    add_json(command)
    add_file_options(command)


def evaluate(args: argparse.Namespace) -> None:
    """Print the errors of a model on the ratings of a file."""
    model = load(args.model)
    errors = model.evaluate(read_ratings_for(args, model, args.file))
    if args.json:
        print_json(errors)
        return
    print(f"RMSE     {errors['rmse']:.4f}  root mean squared error")
    print(f"MAE      {errors['mae']:.4f}  mean absolute error")
    print(f"ratings  {errors['n']:,}")
    print(f"unknown  {errors['unknown']:.2%}  of the ratings have a user or an item not trained on")
