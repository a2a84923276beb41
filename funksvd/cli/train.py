"""The command `funksvd train`."""

from __future__ import annotations

import time

from funksvd.callbacks.progress import EpochLines
from funksvd.callbacks.saving import ModelCheckpoint
from funksvd.callbacks.stopping import EarlyStopping
from funksvd.cli.files import check_output, read, save
from funksvd.cli.options import model_parameters
from funksvd.cli.shown import count, print_json, say
from funksvd.model import FunkSVD
from funksvd.ratings.triples import Ratings


def train(args):
    checkpoint = args.checkpoint or args.resume
    for path in (args.output, *([checkpoint] if checkpoint else [])):
        check_output(path, args.file)
    model = FunkSVD(**model_parameters(args))
    stopping = EarlyStopping("val_loss", patience=args.patience)
    model._check_params()  # before a large file is read
    start = time.perf_counter()
    ratings = Ratings.from_arrays(*read(args, args.file))
    say(
        args,
        f"Read {len(ratings):,} ratings by {count(ratings.n_users, 'user')} of {count(ratings.n_items, 'item')} "
        f"from {args.file} in {time.perf_counter() - start:.1f} s.",
    )

    validated = args.validation_split != 0
    lines = EpochLines(write=lambda line: say(args, line.rstrip("\n")))
    callbacks = [
        *([stopping] if validated else []),
        *([ModelCheckpoint(checkpoint)] if checkpoint else []),
        lines,
    ]
    model.fit(
        ratings, validation_split=args.validation_split, callbacks=callbacks, resume=args.resume
    )
    if model.interrupted_:
        say(
            args,
            f"Stopped by Ctrl-C after {count(model.n_epochs_, 'epoch')}; saving what was learned.",
        )
    best = stopping.best_epoch if validated else model.n_epochs_ - 1
    if validated:
        say(
            args,
            f"Best epoch {best + 1}: validation RMSE {model.history_['val_rmse'][best]:.4f} on the "
            f"{args.validation_split:.0%} of the ratings held out; its weights are kept.",
        )
    else:
        say(
            args,
            f"Training RMSE {model.history_['rmse'][-1]:.4f} in the last epoch; nothing was held out.",
        )
    save(args, model)
    if args.json:
        last = {name: values[best] for name, values in model.history_.items()}
        print_json(
            {
                "model": args.output,
                "ratings": len(ratings),
                "users": ratings.n_users,
                "items": ratings.n_items,
                "epoch": best + 1,
                **last,
            }
        )
    return 130 if model.interrupted_ else 0
