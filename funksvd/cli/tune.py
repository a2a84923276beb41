"""The command `funksvd tune`."""

from __future__ import annotations

import shlex

import numpy as np

from funksvd.cli.files import check_output, read, save
from funksvd.cli.options import model_parameters, number
from funksvd.cli.shown import print_json, print_table, say, shows_progress
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings


def tune(args):
    from funksvd.tuning import default_grid
    from funksvd.tuning import tune as search

    if args.output is not None:
        check_output(args.output, args.file)
    grid = (
        dict(grid_of(text) for text in args.grid)
        if args.grid
        else default_grid(model_parameters(args))
    )
    parameters = {name: value for name, value in model_parameters(args).items() if name not in grid}
    FunkSVD().set_params(
        **parameters, **{name: values[0] for name, values in grid.items()}
    )._check_params()
    ratings = Ratings.from_arrays(*read(args, args.file))
    n_settings = int(np.prod([len(values) for values in grid.values()]))
    say(args, f"Trying {n_settings} settings on {args.folds} folds of {len(ratings):,} ratings.")
    settings = search(
        ratings,
        grid,
        n_folds=args.folds,
        patience=args.patience,
        progress=shows_progress(),
        **parameters,
    )
    best = settings[0]
    if args.json:
        print_json([setting._asdict() for setting in settings])
    else:
        rows = [
            [
                *map(str, s.parameters.values()),
                f"{s.rmse:.4f}",
                f"{s.sd:.4f}",
                s.n_epochs,
                f"{s.seconds:.1f}",
            ]
            for s in settings
        ]
        print_table([*best.parameters, "RMSE", "sd", "epochs", "s"], rows)
    featurewise = (parameters | best.parameters)[
        "training"
    ] == "featurewise"  # an epoch is a feature there
    chosen = best.parameters | {"n_factors" if featurewise else "n_epochs": max(1, best.n_epochs)}
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
    if args.output is None:
        say(
            args,
            f"\nTrain with the best: funksvd train {shlex.quote(args.file)} --validation-split 0 {options}",
        )
        return
    model = FunkSVD(**(parameters | chosen)).fit(ratings, verbose=0)
    say(args, f"\nTrained on all ratings with the best: {options}")
    save(args, model)


def grid_of(text):
    """(parameter, values) of ``--grid l2=0.04,0.08``."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    known = list(FunkSVD().get_params())
    if not equals or not values or name not in known:
        import difflib  # not needed to import funksvd.cli

        close = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"; did you mean {close[0]}?"
            if close and name not in known
            else f"; parameters are {', '.join(known)}"
        )
        raise ValueError(f"--grid takes PARAMETER=VALUE,VALUE,..., got {text!r}{hint}")
    return name, [number(value.strip()) for value in values.split(",")]
