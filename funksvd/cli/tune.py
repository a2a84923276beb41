"""The command `funksvd tune`."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from funksvd.cli.files import check_output, read_ratings, save
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_list_options,
    add_parameters,
    add_patience,
    add_ratings,
    known_parameter,
    model_parameters,
    number_of,
)
from funksvd.cli.refit import epochs_of
from funksvd.cli.shown import print_json, print_table, say, shows_progress
from funksvd.metrics import RANKING_METRICS
from funksvd.model import FunkSVD

if TYPE_CHECKING:
    from funksvd.tuning import Setting


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "tune",
        tune,
        summary="search for better parameters by cross-validation",
        description=(
            "Train every setting of a small grid on each fold of the ratings, stop each fit when"
            " the error on the ratings held out has stopped improving, and print a table with the"
            " best setting first. The number of epochs needs no place in the grid. The errors in"
            " the table are a little optimistic: measure the best setting on ratings that the"
            " search has not seen."
        ),
        examples=[
            "funksvd tune ratings.csv --grid n_factors=32,64,128 --grid l2=0.04,0.08 -o movies.npz"
        ],
    )
    add_ratings(command)
    command.add_argument(
        "--grid",
        metavar="NAME=V,V",
        action="append",
        help=(
            "values of a parameter to try; may be given several times (default: settings of"
            " n_factors, l2 and learning_rate that suit the solver, twelve for sgd)"
        ),
    )
    command.add_argument(
        "--folds",
        type=int,
        default=3,
        metavar="N",
        help="number of folds; each is held out once (default: 3)",
    )
    command.add_argument(
        "--metric",
        choices=("rmse", *RANKING_METRICS),
        default="rmse",
        help="measure that the best setting has the best value of (default: rmse)",
    )
    add_list_options(command, 10)
    add_patience(command, "a fit")
    command.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        help="train on all ratings with the best setting and save the model",
    )
    add_json(command, "the settings as JSON")
    add_file_options(command)
    add_parameters(command)


def tune(args: argparse.Namespace) -> None:
    """Search a grid, print its settings, and train the best one if there is an output."""
    from funksvd.tuning import default_grid
    from funksvd.tuning import tune as search

    if args.output is not None:
        check_output(args.output, args.file)
    parameters = model_parameters(args)
    grid: dict[str, Sequence[Any]] = dict(grid_of(text) for text in args.grid or [])
    if not grid:
        grid = default_grid(parameters)
    for name in grid:
        del parameters[name]
    first_setting = {name: values[0] for name, values in grid.items()}
    FunkSVD(**parameters | first_setting)._check_params()  # before a large file is read
    ratings = read_ratings(args, args.file)
    n_settings = math.prod(len(values) for values in grid.values())
    say(args, f"Trying {n_settings} settings on {args.folds} folds of {len(ratings):,} ratings.")
    settings = search(
        ratings,
        grid,
        n_splits=args.folds,
        patience=args.patience,
        metric=args.metric,
        k=args.top,
        threshold=args.threshold,
        progress=shows_progress(),
        **parameters,
    )
    if args.json:
        print_json([setting._asdict() for setting in settings])
    else:
        print_settings(settings, args)
    best = settings[0]
    chosen = best.parameters | epochs_of(parameters | best.parameters, best.n_epochs)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
    if args.output is None:
        command = f"funksvd train {shlex.quote(args.file)} --validation-split 0 {options}"
        say(args, f"\nTrain with the best: {command}")
        return
    model = FunkSVD(**parameters | chosen).fit(ratings, verbose=0)
    say(args, f"\nTrained on all ratings with the best: {options}")
    save(args, model)


def print_settings(settings: Sequence[Setting], args: argparse.Namespace) -> None:
    """Print a table of settings."""
    by_lists = args.metric != "rmse"
    rows = []
    for setting in settings:
        scores = [setting.score, setting.sd]
        if by_lists:
            scores.append(setting.rmse)
        rows.append(
            [
                *setting.parameters.values(),
                *(f"{score:.4f}" for score in scores),
                setting.n_epochs,
                f"{setting.seconds:.1f}",
            ]
        )
    names = [f"{args.metric}@{args.top}", "sd", "RMSE"] if by_lists else ["RMSE", "sd"]
    print_table([*settings[0].parameters, *names, "epochs", "s"], rows)


def grid_of(text: str) -> tuple[str, list[Any]]:
    """Return (parameter, values) of a text such as "l2=0.04,0.08".

    Raises
    ------
    ValueError
        If the text has another form or the parameter is unknown.
    """
    name, equals, values = text.partition("=")
    wrong = f"--grid takes PARAMETER=VALUE,VALUE,..., got {text!r}"
    name = known_parameter(name, wrong)
    if not equals or not values:
        raise ValueError(f"{wrong}; {name} has no values")
    return name, [number_of(value.strip()) for value in values.split(",")]
