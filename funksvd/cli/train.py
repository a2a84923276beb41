"""The command `funksvd train`."""

from __future__ import annotations

import argparse
import time

from funksvd.callbacks.callback import Callback
from funksvd.callbacks.progress import EpochLines
from funksvd.callbacks.saving import ModelCheckpoint
from funksvd.callbacks.stopping import EarlyStopping
from funksvd.cli.files import check_differ, check_output, read_ratings, save
from funksvd.cli.options import (
    Commands,
    add_command,
    add_file_options,
    add_json,
    add_parameters,
    add_patience,
    add_ratings,
    model_parameters,
)
from funksvd.cli.refit import refitted
from funksvd.cli.shown import count, print_json, say, say_interrupted
from funksvd.model import FunkSVD


def add(commands: Commands) -> None:
    """Add the command and its options."""
    command = add_command(
        commands,
        "train",
        train,
        summary="train a model on a file of ratings",
        description=(
            "Read ratings from delimited text (also gzipped) or Parquet, train a model on them and"
            " save it. A share of the ratings is held out: training ends when the error on them has"
            " stopped improving, and the model of the best epoch is saved. Ctrl-C or SIGTERM ends"
            " training and saves the model learned so far, with exit code 130."
        ),
        examples=["funksvd train ratings.csv -o movies.npz --n-factors 32 --rating-scale 1 5"],
    )
    add_ratings(command)
    command.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        default="funksvd-model.npz",
        help="file for the model (default: funksvd-model.npz)",
    )
    command.add_argument(
        "--validation-split",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the ratings to hold out; with 0 all epochs are trained (default: 0.1)",
    )
    add_patience(command, "training")
    command.add_argument(
        "--refit",
        action="store_true",
        help="train again on all ratings, for the number of epochs that was best on those held out",
    )
    command.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="file for the state of training after each epoch (default: that of --resume, if any)",
    )
    command.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from a checkpoint, with the same ratings and options; --epochs may be larger",
    )
    add_json(command)
    add_file_options(command)
    add_parameters(command)


def train(args: argparse.Namespace) -> int:
    """Train a model on a file and save it; return the exit code."""
    checkpoint = args.checkpoint or args.resume
    check_output(args.output, args.file)
    if checkpoint:
        check_output(checkpoint, args.file)
        check_differ(args.output, checkpoint)
    parameters = model_parameters(args)
    model = FunkSVD(**parameters)
    stopping = EarlyStopping("val_loss", patience=args.patience)
    model._check_params()  # before a large file is read
    if args.refit and args.validation_split == 0:
        raise ValueError("--refit needs ratings that are held out, but --validation-split is 0")
    start = time.perf_counter()
    ratings = read_ratings(args, args.file)
    users = count(ratings.n_users, "user")
    items = count(ratings.n_items, "item")
    seconds = time.perf_counter() - start
    say(
        args,
        f"Read {len(ratings):,} ratings by {users} of {items} from {args.file} in {seconds:.1f} s.",
    )
    is_validated = args.validation_split != 0
    callbacks: list[Callback] = []
    if is_validated:
        callbacks.append(stopping)
    if checkpoint:
        callbacks.append(ModelCheckpoint(checkpoint))

    def say_line(line: str) -> None:
        say(args, line.rstrip("\n"))

    callbacks.append(EpochLines(write=say_line))
    model.fit(
        ratings, validation_split=args.validation_split, callbacks=callbacks, resume=args.resume
    )
    best_epoch = stopping.best_epoch if is_validated else model.n_epochs_ - 1
    say_errors(args, model, best_epoch)
    history = model.history_
    if args.refit and not model.interrupted_:
        model = refitted(parameters, ratings, best_epoch + 1)
        say(args, f"Trained again on all {len(ratings):,} ratings for as many epochs.")
    save(args, model)
    if args.json:
        entry = {
            "model": args.output,
            "ratings": len(ratings),
            "users": ratings.n_users,
            "items": ratings.n_items,
            "epoch": best_epoch + 1,
        }
        for name, values in history.items():
            entry[name] = values[best_epoch]
        print_json(entry)
    return 130 if model.interrupted_ else 0


def say_errors(args: argparse.Namespace, model: FunkSVD, best_epoch: int) -> None:
    """Print how training ended and with which error."""
    if model.interrupted_:
        say_interrupted(args, model.n_epochs_)
    if "val_rmse" in model.history_:
        error = model.history_["val_rmse"][best_epoch]
        say(
            args,
            f"Best epoch {best_epoch + 1}: validation RMSE {error:.4f} on the"
            f" {args.validation_split:.0%} of the ratings held out; its weights are kept.",
        )
    else:
        error = model.history_["rmse"][-1]
        say(
            args,
            f"Training RMSE {error:.4f} in the last epoch; no ratings were held out.",
        )
